//! A connected block as it is handed to the indexer: the block, the outputs that
//! it spent, and where both lie in the kernel's files.

use bitcoin::{Block, TxOut, Txid};

use crate::Height;

/// Where a block and its undo data lie in the kernel's `blocks/` directory.
///
/// Offsets are those of the first payload byte, behind the eight bytes of frame
/// header (network magic and length). A position can go stale when the process is
/// killed, because the kernel then writes again from an older offset; every read
/// must therefore prove what it read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockPosition {
    /// Number of the `blkNNNNN.dat` and `revNNNNN.dat` files.
    pub file: u32,
    /// Offset of the block in the `blk` file, in bytes.
    pub block_offset: u32,
    /// Length of the block, in bytes.
    pub block_len: u32,
    /// Offset of the undo data in the `rev` file, in bytes. 0 for genesis, which has none.
    pub undo_offset: u32,
    /// Length of the undo data without its checksum, in bytes. 0 for genesis.
    pub undo_len: u32,
}

/// An output that a block spent, as the kernel's undo data tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpentOutput {
    /// The output itself.
    pub output: TxOut,
    /// Height of the block that created it.
    pub height: Height,
    /// Whether a coinbase transaction created it.
    pub is_coinbase: bool,
}

/// A block of the active chain (or one that once was) with everything that the
/// index needs of it.
///
/// # Correctness
/// The source has checked `block` against its header hash and merkle root, and the
/// undo data against its checksum.
#[derive(Debug, Clone)]
pub struct ConnectedBlock {
    /// Height of the block.
    pub height: Height,
    /// The block with its witnesses.
    pub block: Block,
    /// Id of each transaction, in block order: computed once, by whoever checked the
    /// merkle root. Indexers use these instead of hashing again.
    pub txids: Vec<Txid>,
    /// Length in bytes of each transaction, in block order (witnesses included).
    pub tx_lens: Vec<u32>,
    /// Offset in bytes of the first transaction from the first byte of the block.
    pub first_tx_offset: u32,
    /// Outputs spent by each transaction, in block order and without the coinbase:
    /// `spent[i]` belongs to `block.txdata[i + 1]`, one entry per input.
    pub spent: Vec<Vec<SpentOutput>>,
    /// The undo data as it stands in the `rev` file (after XOR), without checksum.
    /// Empty for genesis.
    pub undo: Vec<u8>,
    /// Length in bytes of each entry of `spent` in `undo`.
    pub undo_lens: Vec<u32>,
    /// Offset in bytes of the first entry of `spent` from the first byte of `undo`.
    pub first_undo_offset: u32,
    /// Where block and undo lie.
    pub position: BlockPosition,
}
