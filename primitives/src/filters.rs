//! Compact block filters (BIP 157 and 158), from the index to the peers that ask.

use bitcoin::{
    BlockHash,
    bip158::{FilterHash, FilterHeader},
};

use crate::Height;

/// The filters could not be read.
#[derive(Debug, thiserror::Error)]
#[error("block filters cannot be read")]
pub struct FilterError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// The basic filter of one block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFilter {
    /// The block.
    pub block_hash: BlockHash,
    /// The filter as BIP 158 serialises it: the count of its elements, then the
    /// Golomb-coded set. Key and parameters are those of the basic filter (type 0).
    pub bytes: Vec<u8>,
}

/// Basic filters of the indexed chain, genesis included.
///
/// A range is named as BIP 157 does: from the height `start` to the block `stop`, both
/// included. Every call answers from one moment: `None` if `stop` is not (or no longer,
/// or not yet) in the indexed chain, or lies below `start`. The caller limits the length
/// of a range. Calls touch the disk: not for async code.
pub trait FilterSource: Send + Sync + 'static {
    /// The filters of a range, oldest first. Some 20 kB each on a busy chain.
    ///
    /// # Errors
    /// [`FilterError`].
    fn filters(
        &self,
        start: Height,
        stop: &BlockHash,
    ) -> Result<Option<Vec<StoredFilter>>, FilterError>;

    /// Hashes of the filters of a range, oldest first, and the filter header of the block
    /// below `start` (all zeros below genesis).
    ///
    /// # Errors
    /// [`FilterError`].
    fn filter_hashes(
        &self,
        start: Height,
        stop: &BlockHash,
    ) -> Result<Option<(FilterHeader, Vec<FilterHash>)>, FilterError>;

    /// Filter headers at each multiple of `interval` from `interval` up to the height of
    /// `stop`, lowest first. Empty if `stop` lies below the first.
    ///
    /// # Errors
    /// [`FilterError`].
    fn filter_headers_every(
        &self,
        interval: Height,
        stop: &BlockHash,
    ) -> Result<Option<Vec<FilterHeader>>, FilterError>;
}
