//! How the index proves itself.
//!
//! - [`commitment`]: one number that stands for all unspent outputs, kept with the cursor
//! - [`verify`]: every row against the blocks ([`walk`]), by [`fingerprint`] and [`totals`],
//!   with a [`report`]
//! - [`core_set`]: the set of unspent outputs in Bitcoin Core's terms, with [`muhash`]

pub(crate) mod commitment;
mod core_set;
mod fingerprint;
mod muhash;
mod report;
mod totals;
pub(crate) mod verify;
mod walk;

use std::{
    io,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use pulse_primitives::{
    Height,
    bitcoin::BlockHash,
    ports::{BlockSource, BlockSourceError},
};

use crate::{index::Shared, prepared::Inconsistent, store::StoreError};
pub use commitment::UtxoSummary;
use core_set::CoreSet;
pub use core_set::CoreStats;
pub use report::{Difference, VerifyReport, Wrong};
pub use verify::{VerifyOptions, VerifyStep};

/// Why the index could not be checked, or what the check found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The rows are not those that the blocks left.
    #[error(
        "the unspent outputs in the index are not those of its blocks up to {height} ({hash}): {found} by the rows, {expected} by the blocks. Hint: stop the node and run `pulse-node reindex`; `pulse-node verify` tells which rows differ"
    )]
    UtxosDiffer {
        /// Height of the newest indexed block.
        height: Height,
        /// Its hash.
        hash: BlockHash,
        /// What the blocks left.
        expected: Box<UtxoSummary>,
        /// What the rows add up to.
        found: Box<UtxoSummary>,
    },
    /// Nothing is indexed.
    #[error("the index is empty")]
    Empty,
    /// The index stands at a block that is not in the node's active chain.
    #[error(
        "the index stands at block {hash} at height {height}, which is not in the active chain of the blocks on disk. Hint: start the node, let it sync, stop it and try again"
    )]
    OtherChain {
        /// Height of the newest indexed block.
        height: Height,
        /// Its hash.
        hash: BlockHash,
    },
    /// The active chain became shorter meanwhile.
    #[error("the active chain moved during the check. Hint: try again")]
    ChainMoved,
    /// A block does not fit together.
    #[error("block from the node")]
    Inconsistent(#[from] Inconsistent),
    /// A block of the indexed chain cannot be read.
    #[error("block {hash} at height {height} cannot be read")]
    BlockUnavailable {
        /// Height of the block.
        height: Height,
        /// Its hash.
        hash: BlockHash,
        /// Why not.
        #[source]
        source: BlockSourceError,
    },
    /// Temporary files cannot be written or read.
    #[error("temporary files")]
    Temporary(#[from] io::Error),
    /// The index cannot be read.
    #[error("index store")]
    Store(#[from] StoreError),
}

/// See [`Index::core_stats`](crate::Index::core_stats).
pub(crate) fn core_stats(
    shared: &Shared,
    source: &dyn BlockSource,
    sorted_in: Option<&Path>,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(Height),
) -> Result<Option<CoreStats>, ProofError> {
    let reader = shared.store.reader();
    let mut set = CoreSet::new(shared.genesis, sorted_in)?;
    let heights = reader
        .cursor()?
        .map_or(0, |cursor| cursor.tip.height.saturating_add(1));
    let mut spent = reader.spent_in_order();
    for height in 0..heights {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let row = reader.block(height)?.ok_or(StoreError::Damaged {
            family: "blk",
            what: "missing",
        })?;
        let hash = row.hash();
        let block = source
            .load(&hash, height)
            .map_err(|source| ProofError::BlockUnavailable {
                height,
                hash,
                source,
            })?;
        set.add_block(&block, |position, vout| {
            let position = u32::try_from(position).unwrap_or(u32::MAX);
            let txnum = row.first_txnum.saturating_add(position);
            Ok::<_, ProofError>(spent.is_spent(txnum, vout)?)
        })?;
        progress(height);
    }
    Ok(Some(set.finish()?))
}
