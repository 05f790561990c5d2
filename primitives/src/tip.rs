//! The newest block of a chain.

use bitcoin::BlockHash;

use crate::Height;

/// The newest block of the active chain, or of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChainTip {
    /// Height of the block.
    pub height: Height,
    /// Hash of the block.
    pub hash: BlockHash,
    /// Time in the block's header, in seconds since 1970.
    pub time: u32,
}
