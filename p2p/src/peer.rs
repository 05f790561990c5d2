//! One peer as the rest of the node sees it: its id, what it says, how it ended, and
//! the task that is its whole life.

use std::{fmt, io, sync::Arc, sync::atomic::AtomicU64, time::Duration};

use pulse_primitives::bitcoin::{BlockHash, block::Header, p2p::message::NetworkMessage};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::PeerAddr;
use crate::{
    codec::{CodecError, RawBlock},
    connection, dial,
    handshake::{self, Direction, HandshakeError, LocalVersion, RemoteVersion},
};

/// Messages that may wait to be written to one peer. One that does not read is
/// disconnected when this many wait.
pub const OUTBOX_LEN: usize = 64;

/// One connection; a peer that is connected again gets a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u64);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a peer's task tells.
#[derive(Debug)]
pub struct PeerEvent {
    /// Who.
    pub peer: PeerId,
    /// What.
    pub kind: PeerEventKind,
}

/// What happened at a peer.
#[derive(Debug)]
pub enum PeerEventKind {
    /// The handshake is done.
    Connected(RemoteVersion),
    /// A `headers` message.
    Headers(Vec<Header>),
    /// The blocks among the entries of an `inv` message.
    BlockInv(Vec<BlockHash>),
    /// A `block` message.
    Block(RawBlock),
    /// The blocks among the entries of a `notfound` message.
    BlocksNotFound(Vec<BlockHash>),
    /// The connection has ended, or could not be made. The last event of a peer.
    Closed(CloseReason),
}

/// Why a connection ended by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The node closes it.
    #[error("closed by the node")]
    Stopped,
    /// No connection could be made.
    #[error("unreachable")]
    Unreachable(#[source] io::Error),
    /// The handshake failed.
    #[error("handshake")]
    Handshake(#[source] HandshakeError),
    /// The connection broke or the peer hung up.
    #[error("connection ended")]
    Ended(#[source] io::Error),
    /// Nothing came for the configured time.
    #[error("inactive")]
    Inactive,
    /// The peer does not read what is sent to it.
    #[error("it does not read")]
    NotReading,
    /// The peer sent something that is not the protocol.
    #[error("malformed message")]
    Malformed(#[source] CodecError),
    /// The peer asked for more at once than it may.
    #[error("{count} entries in one getdata")]
    AskedTooMuch {
        /// Entries of its message.
        count: usize,
    },
}

impl CloseReason {
    /// Whether the peer broke the protocol, as opposed to being away.
    #[must_use]
    pub fn is_misbehaviour(&self) -> bool {
        match self {
            Self::Malformed(_) | Self::AskedTooMuch { .. } => true,
            Self::Handshake(err) => err.is_misbehaviour(),
            _ => false,
        }
    }

    /// One word out of a fixed set, for metrics.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Unreachable(_) => "unreachable",
            Self::Handshake(_) => "handshake",
            Self::Ended(_) => "ended",
            Self::Inactive => "inactive",
            Self::NotReading => "not_reading",
            Self::Malformed(_) => "malformed",
            Self::AskedTooMuch { .. } => "asked_too_much",
        }
    }
}

/// Time limits of a connection.
#[derive(Debug, Clone, Copy)]
pub struct PeerLimits {
    /// For resolving a name, and for each address that it has.
    pub connect: Duration,
    /// For the whole handshake.
    pub handshake: Duration,
    /// Between two pings.
    pub ping_interval: Duration,
    /// Without any message.
    pub inactivity: Duration,
}

/// Everything that a peer's task needs.
#[derive(Debug)]
pub struct PeerTask {
    /// Its id in events.
    pub peer: PeerId,
    /// Where to connect to.
    pub addr: PeerAddr,
    /// Magic of the network.
    pub magic: [u8; 4],
    /// What to say of ourselves.
    pub local: LocalVersion,
    /// Time limits.
    pub limits: PeerLimits,
    /// Where to send events.
    pub events: mpsc::Sender<PeerEvent>,
    /// Messages to write. The task keeps a sender for its own answers.
    pub outbox: (mpsc::Sender<NetworkMessage>, mpsc::Receiver<NetworkMessage>),
    /// Counts bytes received.
    pub received_bytes: Arc<AtomicU64>,
    /// Ends the connection.
    pub stop: CancellationToken,
}

impl PeerTask {
    /// Connects, shakes hands, and carries messages until the connection ends.
    /// Its last event is [`PeerEventKind::Closed`].
    pub async fn run(self) {
        let (peer, events, stop) = (self.peer, self.events.clone(), self.stop.clone());
        let reason = tokio::select! {
            reason = self.live() => reason,
            () = stop.cancelled() => CloseReason::Stopped,
        };
        let closed = PeerEvent {
            peer,
            kind: PeerEventKind::Closed(reason),
        };
        // When nobody listens any more, nobody needs to know.
        let _ = events.send(closed).await;
    }

    async fn live(self) -> CloseReason {
        let mut stream = match dial::tcp(&self.addr, self.limits.connect).await {
            Ok(stream) => stream,
            Err(err) => return CloseReason::Unreachable(err),
        };
        let shake = handshake::handshake(&mut stream, self.magic, &self.local, Direction::Outbound);
        let remote = match tokio::time::timeout(self.limits.handshake, shake).await {
            Ok(Ok(remote)) => remote,
            Ok(Err(err)) => return CloseReason::Handshake(err),
            Err(_) => return CloseReason::Handshake(HandshakeError::Timeout),
        };
        let connected = PeerEvent {
            peer: self.peer,
            kind: PeerEventKind::Connected(remote),
        };
        if self.events.send(connected).await.is_err() {
            return CloseReason::Stopped;
        }
        connection::run(stream, self).await
    }
}
