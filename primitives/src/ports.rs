//! The small traits through which the crates meet, so that none of them imports
//! another that stands later in the flow. No implementations.

use bitcoin::BlockHash;
use tokio::sync::watch;

use crate::{
    Height,
    block::{BlockPosition, ConnectedBlock, SpentOutput},
    status::NodeReport,
    tip::ChainTip,
};

/// Why a block or a part of it could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockSourceError {
    /// The bytes at a position are not what the position promised. The position is
    /// stale; it must be looked up again ([`BlockSource::locate`]).
    #[error("position {position:?} no longer holds what was recorded there")]
    Stale {
        /// The position that was read.
        position: BlockPosition,
    },
    /// No file of the kernel holds this block (any more).
    #[error("block {hash} is not in the block files")]
    NotStored {
        /// Hash of the block.
        hash: BlockHash,
    },
    /// The block is stored, but its undo data was not found or fails its checksum.
    #[error(
        "undo data of block {hash} is missing or damaged. Hint: stop the node, move the kernel/ directory aside and start again to download the blocks anew"
    )]
    UndoMissing {
        /// Hash of the block.
        hash: BlockHash,
    },
    /// The chain is closed already: the node is stopping. The data is as it was.
    #[error("the chain is closed")]
    Closed,
    /// The bytes do not decode.
    #[error("block data does not decode: {what}")]
    Malformed {
        /// What was being decoded.
        what: &'static str,
    },
    /// The operating system refused the read.
    #[error("reading the block files")]
    Io(#[from] std::io::Error),
}

/// Blocks and the active chain, from the node to the indexer and the queries.
///
/// All calls are synchronous, may touch the disk, and can be made from any thread.
pub trait BlockSource: Send + Sync + 'static {
    /// The tip of the active chain. Changes wake the indexer; what it does then is
    /// decided by its cursor alone, so missed or doubled wake-ups are harmless.
    fn tip(&self) -> watch::Receiver<ChainTip>;

    /// Hash of the block at `height` in the active chain; `None` above the tip.
    fn hash_at(&self, height: Height) -> Option<BlockHash>;

    /// Height of a known header, on the active chain or not.
    fn header_height(&self, hash: &BlockHash) -> Option<Height>;

    /// Height of the best valid header chain, which blocks may still have to follow.
    fn best_header_height(&self) -> Height;

    /// Reads a block that is or was connected, with the outputs that it spent.
    ///
    /// # Errors
    /// [`BlockSourceError::NotStored`] when no file holds it, [`BlockSourceError::UndoMissing`]
    /// when it was never connected or its undo data is damaged.
    fn load(&self, hash: &BlockHash, height: Height) -> Result<ConnectedBlock, BlockSourceError>;

    /// Where the block lies now; scans the files for it if need be.
    ///
    /// # Errors
    /// As [`BlockSource::load`].
    fn locate(&self, hash: &BlockHash, height: Height) -> Result<BlockPosition, BlockSourceError>;

    /// Reads `len` bytes of a block from `offset` bytes behind its first byte.
    /// The caller proves what it got (header hash or txid).
    ///
    /// # Errors
    /// [`BlockSourceError::Stale`] when the file ends before, [`BlockSourceError::Io`].
    fn read_block(
        &self,
        position: &BlockPosition,
        offset: u32,
        len: u32,
    ) -> Result<Vec<u8>, BlockSourceError>;

    /// Reads `len` bytes of a block's undo data from `offset` bytes behind its first
    /// byte. The caller proves what it got (recorded checksum).
    ///
    /// # Errors
    /// As [`BlockSource::read_block`].
    fn read_undo(
        &self,
        position: &BlockPosition,
        offset: u32,
        len: u32,
    ) -> Result<Vec<u8>, BlockSourceError>;

    /// Decodes the undo bytes of one transaction (an entry of
    /// [`ConnectedBlock::undo_lens`]): one output per input, in order.
    ///
    /// # Errors
    /// [`BlockSourceError::Malformed`].
    fn decode_undo(&self, bytes: &[u8]) -> Result<Vec<SpentOutput>, BlockSourceError>;
}

/// State of the node for people and monitors, from the node to the API.
pub trait NodeStatus: Send + Sync + 'static {
    /// A consistent report of this moment.
    fn report(&self) -> NodeReport;

    /// [`NodeStatus::report`] without the peers: all that
    /// [`NodeReport::readiness`] looks at, cheap enough for every request.
    fn report_without_peers(&self) -> NodeReport {
        self.report()
    }

    /// Watch of [`NodeReport::headers_answered`], which changes once: with it a node that is
    /// started at the tip becomes synced although no block arrives.
    fn headers_answered(&self) -> watch::Receiver<bool>;
}

/// What is kept in a [`PeerStore`], each under its own key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StoreKey {
    /// Addresses of peers.
    Addresses,
    /// The operator's bans.
    Bans,
    /// Peers to return to at the next start.
    Anchors,
    /// What was learnt about fees from confirmed transactions.
    FeeHistory,
    /// Transactions of our own clients that no peer has asked for yet.
    Unbroadcast,
}

impl StoreKey {
    /// All keys.
    pub const ALL: [Self; 5] = [
        Self::Addresses,
        Self::Bans,
        Self::Anchors,
        Self::FeeHistory,
        Self::Unbroadcast,
    ];

    /// Its name on the disk; never changes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Addresses => "addresses",
            Self::Bans => "bans",
            Self::Anchors => "anchors",
            Self::FeeHistory => "fee-history",
            Self::Unbroadcast => "unbroadcast",
        }
    }
}

/// What the node has learnt about its peers and about fees, from one run to the next.
///
/// Nothing that an answer depends on: what cannot be loaded is as if it had never been
/// saved, and failures to save are for the store to report. Calls may touch the disk.
/// Each value is at most some MiB; the mempool itself is a file of its own.
pub trait PeerStore: Send + Sync + 'static {
    /// What was saved last under `key`; `None` if nothing was, or if it is damaged.
    fn load(&self, key: StoreKey) -> Option<Vec<u8>>;

    /// Replaces what is under `key`, whole or not at all.
    fn save(&self, key: StoreKey, bytes: &[u8]);

    /// Forgets what is under `key`, on the disk too when this returns.
    fn remove(&self, key: StoreKey);
}
