//! The client of the net, and what its sessions share.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tracing::warn;

use super::{
    book::AddrBook,
    limits::NetLimits,
    peer::{Peer, PeerEvent, PeerEventKind, is_lasting},
    route::Consumer,
};
use crate::{
    clock::Clock,
    metrics,
    p2p::{
        ConnectionKind, PeerAddr,
        bans::{Ban, BanTarget, TooManyBans},
        dial::{OnlyNet, Proxy},
        message::Message,
        peer::PeerId,
        version::Nonces,
    },
    serve::Server,
};
use pulse_primitives::bitcoin::p2p::ServiceFlags;

/// What sessions share with everybody who asks.
pub(super) struct Shared {
    pub clock: Clock,
    pub peers: Mutex<BTreeMap<PeerId, Arc<Peer>>>,
    pub book: Mutex<AddrBook>,
    pub received_bytes: AtomicU64,
    /// Peers that misbehaved.
    pub dropped: AtomicU64,
    /// Counts changes of the bans.
    pub bans_changed: watch::Sender<u64>,
}

impl Shared {
    pub fn new(clock: Clock, book: AddrBook) -> Self {
        Self {
            clock,
            peers: Mutex::default(),
            book: Mutex::new(book),
            received_bytes: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            bans_changed: watch::Sender::new(0),
        }
    }

    pub fn insert(&self, peer: Arc<Peer>) {
        let mut peers = self.peers.lock();
        peers.insert(peer.id, peer);
        Self::count(&peers);
    }

    pub fn remove(&self, id: PeerId) -> Option<Arc<Peer>> {
        let mut peers = self.peers.lock();
        let peer = peers.remove(&id);
        Self::count(&peers);
        peer
    }

    fn count(peers: &BTreeMap<PeerId, Arc<Peer>>) {
        let inbound = peers.values().filter(|peer| peer.is_inbound()).count();
        metrics::peers(peers.len(), inbound);
    }
}

/// What all sessions need.
pub(super) struct Context {
    pub magic: [u8; 4],
    pub services: ServiceFlags,
    pub v2: bool,
    pub proxy: Option<Proxy>,
    pub only_net: OnlyNet,
    /// By which connections to ourselves are noticed.
    pub nonces: Nonces,
    pub limits: NetLimits,
    pub server: Arc<Server>,
    pub shared: Arc<Shared>,
    pub sync: mpsc::Sender<PeerEvent>,
    pub relay: mpsc::Sender<PeerEvent>,
}

impl Context {
    pub fn relay_listens(&self) -> bool {
        !self.relay.is_closed()
    }

    /// Hands a message of `peer` over, as soon as there is room for it.
    pub async fn hand(&self, to: Consumer, peer: &Arc<Peer>, message: Message) {
        let events = match to {
            Consumer::Sync => &self.sync,
            Consumer::Relay => &self.relay,
        };
        send(events, peer, PeerEventKind::Message(message)).await;
    }

    /// Tells both consumers that the peer is there.
    pub async fn tell_connected(&self, peer: &Arc<Peer>) {
        if is_lasting(peer.kind) {
            send(&self.sync, peer, PeerEventKind::Connected).await;
            send(&self.relay, peer, PeerEventKind::Connected).await;
        }
    }

    /// Tells both consumers that the peer is gone.
    pub async fn tell_closed(&self, peer: &Arc<Peer>) {
        if is_lasting(peer.kind) {
            send(&self.sync, peer, PeerEventKind::Closed).await;
            send(&self.relay, peer, PeerEventKind::Closed).await;
        }
    }
}

async fn send(events: &mpsc::Sender<PeerEvent>, peer: &Arc<Peer>, kind: PeerEventKind) {
    let event = PeerEvent {
        peer: Arc::clone(peer),
        kind,
    };
    // A consumer that does not listen does not need to know.
    let _ = events.send(event).await;
}

/// What others want of the net.
#[derive(Debug)]
pub(super) enum Command {
    Punish(PeerAddr, ConnectionKind),
    /// Ends connections that are banned.
    EndBanned(BanTarget),
}

/// Cloneable client of the net. Works whether or not [`super::Net::run`] does.
#[derive(Clone)]
pub struct NetHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) dials: bool,
}

impl NetHandle {
    /// Peers with a finished handshake, oldest connection first.
    #[must_use]
    pub fn peers(&self) -> Vec<Arc<Peer>> {
        self.shared.peers.lock().values().cloned().collect()
    }

    /// The clock that everything towards peers goes by.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Bytes received from peers since the start.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.shared.received_bytes.load(Ordering::Relaxed)
    }

    /// Peers dropped for misbehaviour since the start.
    #[must_use]
    pub fn peers_dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Acquire)
    }

    /// Addresses of peers that are known.
    #[must_use]
    pub fn known_addresses(&self) -> usize {
        self.shared.book.lock().man.len()
    }

    /// Whether the node connects to others, as opposed to waiting for them only.
    #[must_use]
    pub fn dials(&self) -> bool {
        self.dials
    }

    /// Punishes a peer whose connection may be gone for what it did over it.
    pub fn punish(&self, addr: &PeerAddr, kind: ConnectionKind) {
        let command = Command::Punish(addr.clone(), kind);
        if self.commands.try_send(command).is_err() {
            warn!(%addr, "a peer could not be punished");
        }
    }

    /// Bans a host or a network for so long and disconnects it; whether that changed
    /// anything. Manual peers are left alone.
    ///
    /// # Errors
    /// [`TooManyBans`].
    pub fn ban(&self, target: BanTarget, duration: Duration) -> Result<bool, TooManyBans> {
        let now = self.shared.clock.unix();
        let until = now.saturating_add(duration.as_secs());
        let changed = self.shared.book.lock().ban(target, now, until)?;
        if self.commands.try_send(Command::EndBanned(target)).is_err() {
            warn!(%target, "connections with those who are banned could not be ended");
        }
        self.shared.bans_changed.send_modify(|count| *count += 1);
        Ok(changed)
    }

    /// Lifts the ban of exactly this target; whether there was one.
    #[must_use]
    pub fn unban(&self, target: &BanTarget) -> bool {
        let lifted = self.shared.book.lock().bans.unban(target);
        self.shared.bans_changed.send_modify(|count| *count += 1);
        lifted
    }

    /// The bans in force.
    #[must_use]
    pub fn bans(&self) -> Vec<(BanTarget, Ban)> {
        let book = self.shared.book.lock();
        let bans = book.bans.iter(self.shared.clock.unix());
        bans.map(|(target, ban)| (*target, *ban)).collect()
    }
}
