//! What the fleet, the node and the API have to say to each other. No implementations.
//!
//! ```text
//! fleet -- SiblingStream --> node     the connection that carries headers, blocks, transactions
//! fleet -- FleetStatus   --> API      who is there, and how far they are
//! fleet <-- FleetSource --- node      how far we are
//! ```

use bitcoin::{BlockHash, block::Header};
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{oneshot, watch},
};

use crate::{Height, tip::ChainTip};

/// A stream of bytes in both directions.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Duplex for T {}

/// An encrypted stream to another node of the fleet, over which the Bitcoin protocol is
/// to be spoken. Dropping it closes it.
pub struct SiblingStream {
    /// Peer id of the other node, which has proven to be it.
    pub peer_id: String,
    /// Whether we opened it, and so speak first.
    pub dialed: bool,
    /// The bytes.
    pub stream: Box<dyn Duplex>,
    /// Takes why it ended.
    pub ended: oneshot::Sender<SiblingEnd>,
}

impl std::fmt::Debug for SiblingStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SiblingStream")
            .field("peer_id", &self.peer_id)
            .field("dialed", &self.dialed)
            .finish_non_exhaustive()
    }
}

/// Why a [`SiblingStream`] is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SiblingEnd {
    /// It broke, or was too slow.
    Lost,
    /// The other node sent what no honest node sends.
    Misbehaved,
}

/// How far this node is, as its siblings are told.
#[derive(Debug, Clone, Copy)]
pub struct OwnState {
    /// Header of the tip of the active chain.
    pub header: Header,
    /// Its height.
    pub height: Height,
    /// Height of the newest indexed block; `None` for an empty index.
    pub indexed: Option<Height>,
    /// Share of the processors that is in use, in percent; above 100 when work waits.
    pub load_percent: u16,
    /// It is about to stop and wants no more clients.
    pub is_draining: bool,
}

/// The node, as the fleet sees it. No call waits.
pub trait FleetSource: Send + Sync + 'static {
    /// State of this moment.
    fn own_state(&self) -> OwnState;

    /// Height of a header that this node holds and has checked.
    fn header_height(&self, hash: &BlockHash) -> Option<Height>;

    /// Changes of the tip of the active chain.
    fn tip(&self) -> watch::Receiver<ChainTip>;
}

/// The fleet as this node sees it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct FleetReport {
    /// Peer id of this node.
    pub peer_id: String,
    /// Where it listens, as libp2p addresses.
    pub listen: Vec<String>,
    /// Height of the best tip of a sibling whose header this node holds and has checked;
    /// `null` if there is none. A claim alone counts for nothing.
    pub best_height: Option<Height>,
    /// Nodes that were refused since the start, for want of membership or of room.
    pub refused: u64,
    /// The others.
    pub siblings: Vec<SiblingReport>,
}

/// Another node of the fleet. What it tells of itself is not checked, but for its tip.
#[derive(Debug, Clone, Serialize)]
pub struct SiblingReport {
    /// Its peer id.
    pub peer_id: String,
    /// Whether there is a connection.
    pub connected: bool,
    /// Where it was reached or came from, as a libp2p address; `null` without a connection.
    pub addr: Option<String>,
    /// Whether blocks and transactions flow.
    pub linked: bool,
    /// Time of the last ping, in milliseconds.
    pub ping_ms: Option<u64>,
    /// What it last told of itself; `null` before that.
    pub told: Option<SiblingState>,
}

/// What a sibling tells of itself.
#[derive(Debug, Clone, Serialize)]
pub struct SiblingState {
    /// Age of the message, in seconds.
    pub age_seconds: u64,
    /// Version of its program.
    pub version: String,
    /// Height of its tip.
    pub tip_height: Height,
    /// Hash of its tip.
    pub tip_hash: BlockHash,
    /// Whether this node holds the header of that tip and has checked it.
    pub tip_checked: bool,
    /// Height of its newest indexed block.
    pub indexed_height: Option<Height>,
    /// Blocks from there to its tip.
    pub lag_blocks: Height,
    /// Share of its processors that is in use, in percent.
    pub load_percent: u16,
    /// It is about to stop.
    pub is_draining: bool,
}

/// The fleet, as the API sees it. No call waits.
pub trait FleetStatus: Send + Sync + 'static {
    /// A report of this moment.
    fn report(&self) -> FleetReport;

    /// How many blocks this node may be behind the fleet's best tip and still be healthy.
    fn max_lag_blocks(&self) -> Height;
}
