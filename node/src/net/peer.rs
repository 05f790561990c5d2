//! A connected peer as the rest of the node sees it, and what it says.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use pulse_primitives::Height;
use tokio_util::sync::CancellationToken;

use super::outbox::Outbox;
use crate::{
    clock::Clock,
    p2p::{
        ConnectionKind, NetAddr, PeerAddr, TransportKind,
        message::{Message, Outgoing},
        peer::PeerId,
        version::RemoteVersion,
    },
};

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

/// Whether headers, blocks and announcements go over such a connection; if not, it is
/// known to nobody but the net.
#[must_use]
pub fn is_lasting(kind: ConnectionKind) -> bool {
    !matches!(kind, ConnectionKind::Feeler | ConnectionKind::AddrFetch)
}

/// What is known of a connection when its handshake is done.
#[derive(Debug)]
pub struct PeerInfo {
    /// Its number; a peer that is connected again gets a new one.
    pub id: PeerId,
    /// Where it was reached, or where it came from.
    pub addr: PeerAddr,
    /// Its host; `None` for a name that only the proxy has resolved.
    pub host: Option<NetAddr>,
    /// Why there is a connection.
    pub kind: ConnectionKind,
    /// What it says of itself.
    pub remote: RemoteVersion,
    /// How its bytes look.
    pub transport: TransportKind,
    /// The time that what it does is noted by.
    pub clock: Clock,
}

/// A connected peer, shared by all who deal with it.
#[derive(Debug)]
pub struct Peer {
    /// Its number; a peer that is connected again gets a new one.
    pub id: PeerId,
    /// Where it was reached, or where it came from.
    pub addr: PeerAddr,
    /// Its host; `None` for a name that only the proxy has resolved.
    pub host: Option<NetAddr>,
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
    clock: Clock,
}

/// Times in milliseconds since the connection, plus one; 0 is never.
#[derive(Debug, Default)]
struct Activity {
    last_block: AtomicU64,
    last_tx: AtomicU64,
    last_announcement: AtomicU64,
    spared: AtomicBool,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    /// Plus one; 0 is none.
    known_height: AtomicU64,
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
            host,
            kind,
            remote,
            transport,
            clock,
        } = info;
        Self {
            id,
            addr,
            host,
            kind,
            remote,
            transport,
            connected_at: clock.now(),
            clock,
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
        self.kind == ConnectionKind::Inbound
    }

    /// Whether transactions may be announced to the peer and taken from it.
    #[must_use]
    pub fn relays_txs(&self) -> bool {
        self.kind.wants_txs() && self.kind != ConnectionKind::AddrFetch && self.remote.relay
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

    /// Takes note that the peer has just told of a block that is better than ours.
    pub fn note_announcement(&self) {
        self.activity
            .last_announcement
            .store(self.age_ms(), Ordering::Relaxed);
    }

    /// When the peer last told of a block that was better than ours.
    #[must_use]
    pub fn last_announcement(&self) -> Option<Instant> {
        self.at(self.activity.last_announcement.load(Ordering::Relaxed))
    }

    /// The peer keeps its place whatever other peers tell.
    pub fn spare(&self) {
        self.activity.spared.store(true, Ordering::Relaxed);
    }

    /// Whether the peer keeps its place whatever other peers tell.
    #[must_use]
    pub fn is_spared(&self) -> bool {
        self.activity.spared.load(Ordering::Relaxed)
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

    /// Takes note of bytes that came from the peer.
    pub(super) fn note_received(&self, bytes: u64) {
        self.activity
            .received_bytes
            .fetch_add(bytes, Ordering::Relaxed);
    }

    /// Takes note of bytes that went to the peer.
    pub(super) fn note_sent(&self, bytes: u64) {
        self.activity.sent_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that came from the peer and that went to it, since the handshake.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        (
            self.activity.received_bytes.load(Ordering::Relaxed),
            self.activity.sent_bytes.load(Ordering::Relaxed),
        )
    }

    /// Takes note of the height of the best block that the peer has shown the header of.
    pub fn note_height(&self, height: Height) {
        let height = u64::from(height) + 1;
        self.activity.known_height.store(height, Ordering::Relaxed);
    }

    /// That height, if it has shown any.
    #[must_use]
    pub fn known_height(&self) -> Option<Height> {
        let height = self.activity.known_height.load(Ordering::Relaxed);
        Height::try_from(height.checked_sub(1)?).ok()
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

    /// Whether a ping has waited for its answer for longer than `limit`.
    pub(super) fn ping_overdue(&self, limit: Duration, now: Instant) -> bool {
        let open = self.activity.ping.lock().open;
        open.is_some_and(|(_, sent)| now.saturating_duration_since(sent) > limit)
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

    /// Time since the handshake.
    #[must_use]
    pub fn age(&self) -> Duration {
        let now = self.clock.now();
        now.saturating_duration_since(self.connected_at)
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.age().as_millis()).map_or(u64::MAX, |age| age + 1)
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
