//! Finds the number of the transaction that created each output a block spends.
//!
//! # Correctness
//! The undo data says in which block each spent output was created, so the wanted
//! transaction is one of that block's. It is found by keyed hash, among the
//! transactions of that block only:
//!
//! 1. blocks in memory (this one, those not yet written, the recent ones): all their
//!    transactions are in the table, by 64 bits;
//! 2. older blocks: all their transactions have a `tx` row, by 40 bits, and the block
//!    is a range of transaction numbers.
//!
//! The wanted one is among the candidates in either case, so a single candidate is
//! it, whatever the length of the hash. With several, the block itself decides.

use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, OutPoint},
    block::ConnectedBlock,
};

use super::{
    SyncError,
    chain::{Chain, Found, RecentBlock},
};
use crate::{
    prepared::Prepared,
    rows::TxNum,
    store::reader::{Reader, TxLookup},
};

/// Number of the funding transaction of each input of `block`, in block order. The
/// block's own table is `table`. `load` reads a block of the chain.
///
/// # Errors
/// [`SyncError::FundingMissing`] if an output's transaction is not where the undo data
/// says.
pub(super) fn resolve(
    block: &Prepared,
    table: &RecentBlock,
    chain: &Chain,
    reader: &Reader<'_>,
    lookup: &mut TxLookup<'_>,
    load: impl Fn(&BlockHash, Height) -> Result<ConnectedBlock, SyncError>,
) -> Result<Vec<TxNum>, SyncError> {
    let connected = &block.connected;
    let mut funding = Vec::with_capacity(block.spent_scripts.len());
    for (tx, spent) in connected.block.txdata[1..].iter().zip(&connected.spent) {
        for (input, output) in tx.input.iter().zip(spent) {
            let (outpoint, height) = (input.previous_output, output.height);
            let hash = reader.keys.txid(&outpoint.txid);
            let found = if height == connected.height {
                table.find(hash)
            } else if let Some(found) = chain.find_recent(height, hash) {
                found
            } else {
                let missing = SyncError::FundingMissing { outpoint, height };
                let range = chain.txnums_at(height).ok_or(missing)?;
                Found::among(&lookup.candidates(hash, range)?)
            };
            funding.push(match found {
                Found::One(txnum) => txnum,
                Found::None => return Err(SyncError::FundingMissing { outpoint, height }),
                Found::Many => search(block, table, chain, reader, &load, outpoint, height)?,
            });
        }
    }
    Ok(funding)
}

/// Looks for the transaction of `outpoint` among the ids of the block at `height`.
fn search(
    block: &Prepared,
    table: &RecentBlock,
    chain: &Chain,
    reader: &Reader<'_>,
    load: impl Fn(&BlockHash, Height) -> Result<ConnectedBlock, SyncError>,
    outpoint: OutPoint,
    height: Height,
) -> Result<TxNum, SyncError> {
    let missing = || SyncError::FundingMissing { outpoint, height };
    if height == block.connected.height {
        let own = (table.first_txnum()..).zip(&block.connected.txids);
        return own
            .into_iter()
            .find_map(|(txnum, txid)| (*txid == outpoint.txid).then_some(txnum))
            .ok_or_else(missing);
    }
    let hash = match chain.recent_hash(height) {
        Some(hash) => hash,
        None => reader.block(height)?.ok_or_else(missing)?.hash(),
    };
    let first = chain.txnums_at(height).ok_or_else(missing)?.start;
    let funding = load(&hash, height)?;
    (first..)
        .zip(&funding.txids)
        .find_map(|(txnum, txid)| (*txid == outpoint.txid).then_some(txnum))
        .ok_or_else(missing)
}
