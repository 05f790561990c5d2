//! Owns every connection, in and out.
//!
//! ```text
//! manual peers -> dial --+                     +-> sync  (headers, blocks)
//!                        +-> session per peer -+-> relay (transactions)
//! listener -> accept ----+        |            +-> serve (answers about the chain)
//!                                 +-> Ended -> penalty, next attempt
//! ```
//!
//! One task, [`Net`], decides who is connected; each connection is a task of its own
//! ([`session`]). Consumers hear of a peer by [`PeerEvent`]s and talk to it through its
//! [`Peer`]; they never see a socket.
//!
//! # Correctness
//! A consumer gets the events of one peer in order: `Connected`, messages, `Closed`.
//!
//! # Security
//! Inbound connections are limited in all and per address; those above are closed at
//! once. Channels to consumers are bounded: a full one makes the peer's read loop wait.
//! A consumer that is gone costs nothing, its messages are dropped.

mod close;
mod inbound;
mod limits;
mod manual;
mod outbox;
mod peer;
mod route;
mod session;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use pulse_primitives::network::ChainParams;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::{Id, JoinError, JoinSet},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use crate::{
    chain::Chain,
    config::{ConfigError, SyncConfig},
    headers::HeaderStore,
    metrics,
    p2p::{PeerAddr, codec::Message, peer::PeerId},
    serve::Server,
};
pub use close::CloseReason;
use close::Penalty;
use inbound::{Acceptor, InboundCount};
pub use limits::NetLimits;
use manual::Slots;
pub use outbox::{Outbox, Outgoing, Queued, outbox};
pub use peer::{ConnectionKind, Fault, Peer, PeerEvent, PeerEventKind, PeerInfo, TransportKind};
use route::Consumer;
use session::{Ended, Origin, Session};

/// Time between two looks at the clock.
const TICK: Duration = Duration::from_millis(200);
/// Events that may wait for the sync; each can hold a block.
const SYNC_EVENTS: usize = 16;
/// Events that may wait for the relay; each can hold a transaction or 50,000 entries.
const RELAY_EVENTS: usize = 64;
/// Commands that may wait for the net.
const COMMANDS: usize = 256;
/// How long connections get to end after they were told to.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the net ended by itself. Never because of a peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The system kept refusing to accept connections.
    #[error("accepting connections of peers")]
    Accept(#[source] io::Error),
}

/// What sessions share with everybody who asks.
#[derive(Debug, Default)]
struct Shared {
    peers: Mutex<BTreeMap<PeerId, Arc<Peer>>>,
    received_bytes: AtomicU64,
    /// Peers that misbehaved.
    dropped: AtomicU64,
}

impl Shared {
    fn insert(&self, peer: Arc<Peer>) {
        let mut peers = self.peers.lock();
        peers.insert(peer.id, peer);
        Self::count(&peers);
    }

    fn remove(&self, id: PeerId) -> Option<Arc<Peer>> {
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
struct Context {
    magic: [u8; 4],
    /// By which a connection to ourselves is noticed.
    nonce: u64,
    limits: NetLimits,
    server: Arc<Server>,
    shared: Arc<Shared>,
    sync: mpsc::Sender<PeerEvent>,
    relay: mpsc::Sender<PeerEvent>,
}

impl Context {
    fn relay_listens(&self) -> bool {
        !self.relay.is_closed()
    }

    /// Hands a message of `peer` over, as soon as there is room for it.
    async fn hand(&self, to: Consumer, peer: &Arc<Peer>, message: Message) {
        let events = match to {
            Consumer::Sync => &self.sync,
            Consumer::Relay => &self.relay,
        };
        send(events, peer, PeerEventKind::Message(message)).await;
    }

    /// Tells both consumers that the peer is there.
    async fn tell_connected(&self, peer: &Arc<Peer>) {
        if peer.kind.is_lasting() {
            send(&self.sync, peer, PeerEventKind::Connected).await;
            send(&self.relay, peer, PeerEventKind::Connected).await;
        }
    }

    /// Tells both consumers that the peer is gone.
    async fn tell_closed(&self, peer: &Arc<Peer>) {
        if peer.kind.is_lasting() {
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
enum Command {
    Punish(PeerAddr, ConnectionKind),
}

/// Cloneable client of the net. Works whether or not [`Net::run`] does.
#[derive(Debug, Clone)]
pub struct NetHandle {
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
    /// Whether the node makes connections at all.
    dials: bool,
}

impl NetHandle {
    /// Peers with a finished handshake, oldest connection first.
    #[must_use]
    pub fn peers(&self) -> Vec<Arc<Peer>> {
        self.shared.peers.lock().values().cloned().collect()
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
}

/// Where the events of all peers come out.
#[derive(Debug)]
pub struct PeerEvents {
    /// Headers and blocks.
    pub sync: mpsc::Receiver<PeerEvent>,
    /// Transactions. When it is dropped, nobody's transactions are relayed.
    pub relay: mpsc::Receiver<PeerEvent>,
}

/// The net before it runs.
pub struct Net {
    context: Context,
    slots: Slots,
    acceptor: Acceptor,
    commands: mpsc::Receiver<Command>,
}

impl Net {
    /// Prepares the connections of a node whose chain is `chain` with the headers
    /// `headers`; others can connect to `listener`. Nothing is connected yet.
    ///
    /// # Errors
    /// [`ConfigError`] names the key of `[p2p]` that is wrong.
    pub fn new(
        config: &SyncConfig,
        params: &ChainParams,
        chain: Chain,
        headers: Arc<HeaderStore>,
        listener: Option<TcpListener>,
    ) -> Result<(Self, NetHandle, PeerEvents), ConfigError> {
        let mut manual: Vec<PeerAddr> = Vec::new();
        for peer in config.peers(params.default_port)? {
            if !manual.contains(&peer) {
                manual.push(peer);
            }
        }
        let (sync, sync_events) = mpsc::channel(SYNC_EVENTS);
        let (relay, relay_events) = mpsc::channel(RELAY_EVENTS);
        let (commands_in, commands) = mpsc::channel(COMMANDS);
        let shared = Arc::new(Shared::default());
        let handle = NetHandle {
            shared: Arc::clone(&shared),
            commands: commands_in,
            dials: !manual.is_empty(),
        };
        let events = PeerEvents {
            sync: sync_events,
            relay: relay_events,
        };
        let net = Self {
            context: Context {
                magic: params.magic,
                nonce: rand::random(),
                limits: NetLimits::from(config),
                server: Arc::new(Server::new(chain, headers, params.min_chain_work)),
                shared,
                sync,
                relay,
            },
            slots: Slots::new(manual, config, Instant::now()),
            acceptor: Acceptor::new(listener),
            commands,
        };
        Ok((net, handle, events))
    }

    /// The same with other limits than those of the configuration.
    #[must_use]
    pub fn with_limits(mut self, limits: NetLimits) -> Self {
        self.context.limits = limits;
        self
    }

    /// Connects and takes connections until `stop`, then closes them all.
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn run(self, stop: CancellationToken) -> Result<(), NetError> {
        let limits = self.context.limits;
        let running = Running {
            context: Arc::new(self.context),
            slots: self.slots,
            inbound: InboundCount::new(limits.max_inbound, limits.max_inbound_per_address),
            next_id: 0,
            sessions: JoinSet::new(),
            ids: HashMap::new(),
            open: HashMap::new(),
            stop: stop.child_token(),
        };
        running.run(self.acceptor, self.commands).await
    }
}

/// A connection from its first attempt to its end.
struct Open {
    kind: ConnectionKind,
    /// Whose inbound place it takes.
    inbound_from: Option<IpAddr>,
    stop: CancellationToken,
}

/// The net at work.
struct Running {
    context: Arc<Context>,
    slots: Slots,
    inbound: InboundCount,
    next_id: u64,
    sessions: JoinSet<Ended>,
    ids: HashMap<Id, PeerId>,
    open: HashMap<PeerId, Open>,
    stop: CancellationToken,
}

impl Running {
    async fn run(
        mut self,
        mut acceptor: Acceptor,
        mut commands: mpsc::Receiver<Command>,
    ) -> Result<(), NetError> {
        let stop = self.stop.clone();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let result = loop {
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                accepted = acceptor.next() => match accepted {
                    Ok((stream, addr)) => self.accept(stream, addr),
                    Err(err) => break Err(NetError::Accept(err)),
                },
                Some(ended) = self.sessions.join_next_with_id() => self.on_ended(ended).await,
                Some(command) = commands.recv() => self.obey(&command),
                _ = tick.tick() => self.dial_manual(Instant::now()),
            }
        };
        self.stop.cancel();
        let ended = async { while self.sessions.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
            warn!("connections did not end in time");
            self.sessions.shutdown().await;
        }
        result
    }

    fn dial_manual(&mut self, now: Instant) {
        for slot in self.slots.due(now) {
            let id = self.next_id();
            let addr = self.slots.take(slot, id);
            debug!(peer = %id, %addr, "connecting");
            self.start(id, addr, ConnectionKind::Manual, Origin::Dial, None);
        }
    }

    fn accept(&mut self, stream: TcpStream, addr: SocketAddr) {
        if let Err(refusal) = self.inbound.check(addr.ip()) {
            debug!(%addr, ?refusal, "connection refused");
            return;
        }
        self.inbound.add(addr.ip());
        let id = self.next_id();
        let peer_addr = PeerAddr {
            host: addr.ip().to_canonical().to_string(),
            port: addr.port(),
        };
        let origin = Origin::Accepted(stream);
        self.start(
            id,
            peer_addr,
            ConnectionKind::Inbound,
            origin,
            Some(addr.ip()),
        );
    }

    fn next_id(&mut self) -> PeerId {
        let id = PeerId(self.next_id);
        self.next_id += 1;
        id
    }

    fn start(
        &mut self,
        id: PeerId,
        addr: PeerAddr,
        kind: ConnectionKind,
        origin: Origin,
        inbound_from: Option<IpAddr>,
    ) {
        let stop = self.stop.child_token();
        let session = Session {
            context: Arc::clone(&self.context),
            id,
            addr,
            kind,
            stop: stop.clone(),
        };
        let task = self.sessions.spawn(session.run(origin));
        self.ids.insert(task.id(), id);
        let open = Open {
            kind,
            inbound_from,
            stop,
        };
        self.open.insert(id, open);
    }

    async fn on_ended(&mut self, ended: Result<(Id, Ended), JoinError>) {
        let (task, ended) = match ended {
            Ok((task, ended)) => (task, Some(ended)),
            Err(err) => {
                error!(%err, "a connection failed");
                (err.id(), None)
            }
        };
        let Some(id) = self.ids.remove(&task) else {
            return;
        };
        let Some(open) = self.open.remove(&id) else {
            return;
        };
        if let Some(ip) = open.inbound_from {
            self.inbound.remove(ip);
        }
        let penalty = match &ended {
            Some(ended) => ended.penalty,
            None => {
                if let Some(peer) = self.context.shared.remove(id) {
                    self.context.tell_closed(&peer).await;
                }
                Penalty::Slow
            }
        };
        if open.kind == ConnectionKind::Manual {
            let peer = ended.and_then(|ended| ended.peer);
            if peer.is_some_and(|peer| peer.last_block().is_some()) {
                self.slots.useful(id);
            }
            self.slots
                .release(id, penalty, rand::random(), Instant::now());
        }
    }

    fn obey(&mut self, command: &Command) {
        match command {
            Command::Punish(addr, ConnectionKind::Manual) => {
                let connected = self.slots.punish(addr, Instant::now());
                if let Some(open) = connected.and_then(|id| self.open.get(&id)) {
                    open.stop.cancel();
                }
            }
            Command::Punish(..) => {}
        }
    }
}
