//! Places in the chain that a client can go on from, and blocks that a list is about.

use crate::Height;

/// A place in the chain, the same in every view that has its block. While that block is in the
/// chain it means the same place, whatever blocks have come on top; once the block is gone it
/// means nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Height of the block.
    pub height: Height,
    /// The last eight bytes of the block's hash in display order, the first that vary.
    pub check: [u8; 8],
    /// Position of the transaction in the block.
    pub index: u32,
    /// An output of it; `u32::MAX` if the place is the transaction.
    pub vout: u32,
}

/// Where a list of balances goes on: below a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BalancePlace {
    /// The first transaction of the block.
    pub cursor: Cursor,
    /// Balance before the block, in satoshis.
    pub balance: u64,
}

/// Blocks that a list is about, both ends included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heights {
    /// The lowest.
    pub from: Height,
    /// The highest; `None`: up to the tip.
    pub to: Option<Height>,
}

impl Heights {
    /// All blocks.
    pub const ALL: Self = Self { from: 0, to: None };
}
