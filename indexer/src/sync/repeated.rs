//! Coinbases that repeat an earlier transaction (BIP 30).
//!
//! # Correctness
//! Only a coinbase can take the place of unspent outputs: Bitcoin Core adds the outputs of
//! any other transaction only where there are none (`AddCoin`), and the kernel refuses blocks
//! that break BIP 30. The output of genesis is in nobody's set of coins and stays.
//!
//! Which outputs of the earlier transaction were unspent is told by its `spend` rows. Nothing
//! adds to those after it was replaced, as undo data names the later one by its height. So
//! the answer is the same when the block is taken back.

use pulse_primitives::{Height, bitcoin::BlockHash, block::ConnectedBlock};

use super::{SyncError, chain::Chain};
use crate::{
    batch::Repeated,
    prepared::Prepared,
    rows::TxNum,
    store::reader::{Reader, TxLookup},
};

/// The newest transaction before `first_txnum` in the store that has the id of the block's
/// coinbase. `load` reads a block of the chain.
pub(super) fn find(
    block: &Prepared,
    first_txnum: TxNum,
    chain: &Chain,
    reader: &Reader<'_>,
    lookup: &mut TxLookup<'_>,
    load: impl Fn(&BlockHash, Height) -> Result<ConnectedBlock, SyncError>,
) -> Result<Option<Repeated>, SyncError> {
    let (Some(txid), Some(hash)) = (block.connected.txids.first(), block.tx_hashes.first()) else {
        return Ok(None);
    };
    for txnum in lookup.candidates(*hash, 1..first_txnum)?.into_iter().rev() {
        let Some((height, index)) = chain.place_of(txnum) else {
            continue;
        };
        let Some(row) = reader.block(height)? else {
            continue;
        };
        let earlier = load(&row.hash(), height)?;
        if earlier.txids.get(index) == Some(txid) {
            let spent = reader.spenders(txnum)?;
            return Ok(Some(Repeated {
                txnum,
                spent: spent.into_iter().map(|(vout, _)| vout).collect(),
            }));
        }
    }
    Ok(None)
}
