//! A connected peer as the rest of the node sees it, and what it says.

use std::{
    net::IpAddr,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::outbox::{Outbox, Outgoing};
use crate::p2p::{PeerAddr, codec::Message, handshake::RemoteVersion, peer::PeerId};

/// A ping that is not answered for this long ends the connection (Bitcoin Core's
/// `TIMEOUT_INTERVAL`).
pub const PING_TIMEOUT: Duration = Duration::from_secs(20 * 60);

/// Why there is a connection, which decides what goes over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConnectionKind {
    /// Named by the operator; never discouraged, tried again for ever.
    Manual,
    /// Chosen by the node, for blocks, transactions and addresses.
    FullRelay,
    /// Chosen by the node, for blocks alone, so that the topology stays hidden.
    BlockRelay,
    /// Made to learn whether an address is good, and closed after the handshake.
    Feeler,
    /// Made to ask for addresses, and closed when they have come.
    AddrFetch,
    /// The peer connected to us.
    Inbound,
}

impl ConnectionKind {
    /// One word, for reports and metrics.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::FullRelay => "full_relay",
            Self::BlockRelay => "block_relay",
            Self::Feeler => "feeler",
            Self::AddrFetch => "addr_fetch",
            Self::Inbound => "inbound",
        }
    }

    /// Whether the peer connected to us.
    #[must_use]
    pub fn is_inbound(self) -> bool {
        self == Self::Inbound
    }

    /// Whether headers, blocks and announcements go over it; if not, it is known to
    /// nobody but the net.
    #[must_use]
    pub fn is_lasting(self) -> bool {
        !matches!(self, Self::Feeler | Self::AddrFetch)
    }

    /// Whether transactions may go over it, if the peer wants them.
    #[must_use]
    pub fn may_relay_txs(self) -> bool {
        self.is_lasting() && self != Self::BlockRelay
    }
}

/// How the bytes of a connection look on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransportKind {
    /// Plain.
    V1,
    /// Encrypted (BIP 324).
    V2,
}

impl TransportKind {
    /// `v1` or `v2`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// Why the node ends a connection. The word is one of a fixed set, for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The peer is too slow: others come first.
    Slow(&'static str),
    /// The peer broke the rules: it is discouraged, or if it was named by the operator,
    /// left alone for `retry_misbehaving_secs`.
    Misbehaved(&'static str),
    /// The peer did nothing wrong, and its place is worth more.
    Useless(&'static str),
}

impl Fault {
    /// What it was.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Slow(word) | Self::Misbehaved(word) | Self::Useless(word) => word,
        }
    }
}

/// What is known of a connection when its handshake is done.
#[derive(Debug)]
pub struct PeerInfo {
    /// Its number; a peer that is connected again gets a new one.
    pub id: PeerId,
    /// Where it was reached, or where it came from.
    pub addr: PeerAddr,
    /// Address of the other end of the socket; `None` behind a proxy.
    pub ip: Option<IpAddr>,
    /// Why there is a connection.
    pub kind: ConnectionKind,
    /// What it says of itself.
    pub remote: RemoteVersion,
    /// How its bytes look.
    pub transport: TransportKind,
}

/// A connected peer, shared by all who deal with it.
#[derive(Debug)]
pub struct Peer {
    /// Its number; a peer that is connected again gets a new one.
    pub id: PeerId,
    /// Where it was reached, or where it came from.
    pub addr: PeerAddr,
    /// Address of the other end of the socket; `None` behind a proxy.
    pub ip: Option<IpAddr>,
    /// Why there is a connection.
    pub kind: ConnectionKind,
    /// What it says of itself.
    pub remote: RemoteVersion,
    /// How its bytes look.
    pub transport: TransportKind,
    /// End of the handshake.
    pub connected_at: Instant,
    outbox: Outbox,
    fault: OnceLock<Fault>,
    stop: CancellationToken,
    activity: Activity,
}

/// Times in milliseconds since the connection, plus one; 0 is never.
#[derive(Debug, Default)]
struct Activity {
    last_block: AtomicU64,
    last_tx: AtomicU64,
    ping: Mutex<Pings>,
}

#[derive(Debug, Default)]
struct Pings {
    /// The ping that waits for its answer.
    open: Option<(u64, Instant)>,
    least: Option<Duration>,
    last: Option<Duration>,
}

impl Peer {
    /// A peer whose messages go into `outbox` and whose connection ends with `stop`.
    #[must_use]
    pub fn new(info: PeerInfo, outbox: Outbox, stop: CancellationToken) -> Self {
        let PeerInfo {
            id,
            addr,
            ip,
            kind,
            remote,
            transport,
        } = info;
        Self {
            id,
            addr,
            ip,
            kind,
            remote,
            transport,
            connected_at: Instant::now(),
            outbox,
            fault: OnceLock::new(),
            stop,
            activity: Activity::default(),
        }
    }

    /// Queues a message; whether it was queued. Never waits: a peer that has let its
    /// outbox fill up is disconnected as not reading.
    pub fn send(&self, message: impl Into<Outgoing>) -> bool {
        let sent = self.outbox.try_send(message.into());
        if !sent {
            self.disconnect(Fault::Slow("not_reading"));
        }
        sent
    }

    /// Queues an answer to a question of the peer, when there is room for it; whether it
    /// was queued. For the peer's own session, which reads no further until then.
    pub(crate) async fn answer(&self, message: impl Into<Outgoing>) -> bool {
        self.outbox.send(message.into()).await
    }

    /// Ends the connection. The first fault counts.
    pub fn disconnect(&self, fault: Fault) {
        // Only the first one can be set.
        let _ = self.fault.set(fault);
        self.stop.cancel();
    }

    /// Why the node has ended the connection, if it has.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.fault.get().copied()
    }

    /// Whether the connection has been told to end.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Whether the peer connected to us.
    #[must_use]
    pub fn is_inbound(&self) -> bool {
        self.kind.is_inbound()
    }

    /// Whether transactions may be announced to the peer and taken from it.
    #[must_use]
    pub fn relays_txs(&self) -> bool {
        self.kind.may_relay_txs()
    }

    /// Takes note that the peer has just delivered a block that was of use.
    pub fn note_block(&self) {
        self.activity
            .last_block
            .store(self.age_ms(), Ordering::Relaxed);
    }

    /// Takes note that the peer has just delivered a transaction that was of use.
    pub fn note_tx(&self) {
        self.activity
            .last_tx
            .store(self.age_ms(), Ordering::Relaxed);
    }

    /// When the peer last delivered a block that was of use.
    #[must_use]
    pub fn last_block(&self) -> Option<Instant> {
        self.at(self.activity.last_block.load(Ordering::Relaxed))
    }

    /// When the peer last delivered a transaction that was of use.
    #[must_use]
    pub fn last_tx(&self) -> Option<Instant> {
        self.at(self.activity.last_tx.load(Ordering::Relaxed))
    }

    /// A ping with this nonce is sent; none, while an older one waits for its answer.
    pub(super) fn ping_sent(&self, nonce: u64, now: Instant) -> bool {
        let mut pings = self.activity.ping.lock();
        let free = pings.open.is_none();
        if free {
            pings.open = Some((nonce, now));
        }
        free
    }

    /// A pong has come. One that belongs to no ping is not counted.
    pub(super) fn pong_came(&self, nonce: u64, now: Instant) {
        let mut pings = self.activity.ping.lock();
        if let Some((open, sent)) = pings.open
            && open == nonce
        {
            let took = now.saturating_duration_since(sent);
            pings.open = None;
            pings.last = Some(took);
            pings.least = Some(pings.least.map_or(took, |least| least.min(took)));
        }
    }

    /// Whether a ping has waited too long for its answer.
    pub(super) fn ping_overdue(&self, now: Instant) -> bool {
        let open = self.activity.ping.lock().open;
        open.is_some_and(|(_, sent)| now.saturating_duration_since(sent) > PING_TIMEOUT)
    }

    /// Shortest time from a ping to its answer.
    #[must_use]
    pub fn least_ping(&self) -> Option<Duration> {
        self.activity.ping.lock().least
    }

    /// Time from the last answered ping to its answer.
    #[must_use]
    pub fn last_ping(&self) -> Option<Duration> {
        self.activity.ping.lock().last
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.connected_at.elapsed().as_millis()).map_or(u64::MAX, |age| age + 1)
    }

    fn at(&self, age_ms: u64) -> Option<Instant> {
        let age = Duration::from_millis(age_ms.checked_sub(1)?);
        self.connected_at.checked_add(age)
    }
}

/// What a session tells the rest of the node.
#[derive(Debug)]
pub struct PeerEvent {
    /// Whose.
    pub peer: std::sync::Arc<Peer>,
    /// What.
    pub kind: PeerEventKind,
}

/// What happened at a peer.
#[derive(Debug)]
pub enum PeerEventKind {
    /// Its handshake is done. The first event of a peer.
    Connected,
    /// It sent a message. Of inventories, only the entries that are for the receiver.
    Message(Message),
    /// Its connection has ended. The last event of a peer.
    Closed,
}
