//! Finds the number of the transaction that created each output that blocks spend.
//!
//! # Correctness
//! The undo data says in which block each spent output was created, so the wanted
//! transaction is one of that block's. It is found among the transactions of that block
//! only:
//!
//! 1. blocks in memory (this one, those not yet written, the recent ones): all their
//!    transactions are in a table, by 64 bits of their keyed hash;
//! 2. older blocks: by the `utxo` rows of the spent script. The output is unspent until
//!    these blocks are written, so its row is among those of its script, its block and its
//!    index;
//! 3. where those are several, and where blocks are taken back (what they spent has no
//!    `utxo` row): all their transactions have a `tx` row, by 40 bits of the hash, and the
//!    block is a range of transaction numbers.
//!
//! The wanted one is among the candidates in each case, so a single candidate is it,
//! whatever the length of the hash. With several, the block itself decides.
//!
//! # Limits
//! The outputs of a group of blocks that are not in memory are looked for in the order of
//! their script keys, which is that of the rows, by several threads so that a disk has more
//! than one read to do. The `utxo` rows are a quarter of the `tx` rows in size and hold only
//! what can still be spent, so most of them stay in the page cache.

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
    keys::{Keys, ScriptKey},
    prepared::Prepared,
    rows::TxNum,
    store::reader::{Reader, TxLookup, UtxoLookup},
};

/// Stands for a number that is not yet known: that of the coinbase of genesis, whose output
/// cannot be spent.
const UNKNOWN: TxNum = 0;

/// Threads that look for outputs at the same time.
const THREADS: usize = 4;

/// A thread has at least this many outputs to look for.
const LEAST_PER_THREAD: usize = 1000;

/// An output whose transaction is not among those in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    script: ScriptKey,
    height: Height,
    outpoint: OutPoint,
    /// Which block spends it, as its place in the group.
    pub block: usize,
    /// Which of that block's inputs, without the coinbase's.
    pub input: usize,
}

/// In which rows to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// The outputs are unspent in the store.
    Utxo,
    /// They are not.
    Tx,
}

/// Number of the funding transaction of each input of `block`, in block order, as far as it
/// is in memory. The others are added to `wanted`. The block's own table is `table`, its
/// place in the group `place`.
///
/// # Errors
/// [`SyncError::FundingMissing`] if an output's transaction is not where the undo data
/// says.
pub(super) fn in_memory(
    block: &Prepared,
    place: usize,
    table: &RecentBlock,
    chain: &Chain,
    keys: &Keys,
    wanted: &mut Vec<Wanted>,
) -> Result<Vec<TxNum>, SyncError> {
    let connected = &block.connected;
    let mut funding = Vec::with_capacity(block.spent_scripts.len());
    for (tx, spent) in connected.block.txdata[1..].iter().zip(&connected.spent) {
        for (input, output) in tx.input.iter().zip(spent) {
            let (outpoint, height) = (input.previous_output, output.height);
            let hash = keys.txid(&outpoint.txid);
            let found = if height == connected.height {
                Some(table.find(hash))
            } else {
                chain.find_recent(height, hash)
            };
            let txnum = match found {
                Some(Found::One(txnum)) => txnum,
                Some(Found::None) => return Err(SyncError::FundingMissing { outpoint, height }),
                Some(Found::Many) | None => {
                    let input = funding.len();
                    wanted.push(Wanted {
                        script: block.spent_scripts[input],
                        height,
                        outpoint,
                        block: place,
                        input,
                    });
                    UNKNOWN
                }
            };
            funding.push(txnum);
        }
    }
    Ok(funding)
}

/// Numbers of the transactions that created the `wanted` outputs, which are sorted for it.
/// `load` reads a block of the chain.
///
/// # Errors
/// [`SyncError::FundingMissing`] if there is none; whatever `load` gives.
pub(super) fn stored(
    wanted: &mut [Wanted],
    rows: Rows,
    chain: &Chain,
    reader: &Reader<'_>,
    load: impl Fn(&BlockHash, Height) -> Result<ConnectedBlock, SyncError> + Sync,
) -> Result<Vec<TxNum>, SyncError> {
    let order = |wanted: &Wanted| (wanted.script, wanted.height, wanted.outpoint.vout);
    wanted.sort_unstable_by_key(order);
    let threads = (wanted.len() / LEAST_PER_THREAD).clamp(1, THREADS);
    let find = |part: &[Wanted]| {
        let mut lookup = Lookup {
            rows,
            chain,
            reader,
            utxos: reader.utxo_lookup(),
            txs: reader.tx_lookup(),
            load: &load,
        };
        part.iter()
            .map(|wanted| lookup.find(wanted))
            .collect::<Result<Vec<_>, _>>()
    };
    if threads == 1 {
        return find(wanted);
    }
    let mut found = Vec::with_capacity(wanted.len());
    std::thread::scope(|scope| {
        let parts = wanted.chunks(wanted.len().div_ceil(threads));
        let parts = parts.map(|part| {
            let find = &find;
            scope.spawn(move || find(part))
        });
        for part in parts.collect::<Vec<_>>() {
            match part.join() {
                Ok(numbers) => found.extend(numbers?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(found)
    })
}

/// What one thread needs.
struct Lookup<'a, F> {
    rows: Rows,
    chain: &'a Chain,
    reader: &'a Reader<'a>,
    utxos: UtxoLookup<'a>,
    txs: TxLookup<'a>,
    load: &'a F,
}

impl<F> Lookup<'_, F>
where
    F: Fn(&BlockHash, Height) -> Result<ConnectedBlock, SyncError>,
{
    fn find(&mut self, wanted: &Wanted) -> Result<TxNum, SyncError> {
        let Wanted {
            script,
            height,
            outpoint,
            ..
        } = *wanted;
        let missing = || SyncError::FundingMissing { outpoint, height };
        let range = self.chain.txnums_at(height).ok_or_else(missing)?;
        if self.rows == Rows::Utxo {
            let only = self.utxos.only(script, range.clone(), outpoint.vout)?;
            if let Some(txnum) = only {
                return Ok(txnum);
            }
        }
        let hash = self.reader.keys.txid(&outpoint.txid);
        match Found::among(&self.txs.candidates(hash, range.clone())?) {
            Found::One(txnum) => Ok(txnum),
            // Blocks of the group have no rows yet.
            Found::None if self.chain.recent_hash(height).is_none() => Err(missing()),
            Found::None | Found::Many => {
                let hash = match self.chain.recent_hash(height) {
                    Some(hash) => hash,
                    None => self.reader.block(height)?.ok_or_else(missing)?.hash(),
                };
                let block = (self.load)(&hash, height)?;
                let ids = (range.start..).zip(&block.txids);
                ids.into_iter()
                    .find_map(|(txnum, txid)| (*txid == outpoint.txid).then_some(txnum))
                    .ok_or_else(missing)
            }
        }
    }
}
