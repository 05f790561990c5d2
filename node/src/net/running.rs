//! The net at work: what it does when a connection comes, ends, or is due.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use pulse_primitives::{
    fleet::{SiblingEnd, SiblingStream},
    network::ChainParams,
    ports::PeerStore,
    tip::ChainTip,
};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    task::{Id, JoinError, JoinSet},
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};

use super::{
    NetError,
    automatic::Automatic,
    close::Penalty,
    handle::{Command, Context},
    inbound::{Acceptor, InboundCount, Refusal},
    manual::Slots,
    outbound::AUTOMATIC,
    peer::{Fault, Peer},
    persist::Persist,
    session::{Ended, Origin, Session},
};
use crate::p2p::{
    ConnectionKind, NetAddr, NetAddress, NetKind, PeerAddr, TransportKind,
    eviction::{EvictionCandidate, select_node_to_evict},
    message::Outgoing,
    netgroup::NetGroup,
    peer::PeerId,
};

/// Time between two looks at the clock.
const TICK: Duration = Duration::from_millis(200);
/// How long connections get to end after they were told to.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Peers that are remembered not to speak the encrypted transport.
const MAX_V1_ONLY: usize = 1000;

/// What the configuration and the network say of connections.
pub(super) struct Plan {
    /// The operator lets the node find peers by itself.
    pub may_choose: bool,
    /// The network has DNS seeds or fixed addresses.
    pub has_seeds: bool,
    /// There are `add_node` peers, which tell addresses.
    pub has_friends: bool,
    pub dns: bool,
    pub max_peers: usize,
    pub params: ChainParams,
}

/// A connection from its first attempt to its end.
pub(super) struct Open {
    pub kind: ConnectionKind,
    /// Where it goes, unless that is a name.
    pub address: Option<NetAddress>,
    pub addr: PeerAddr,
    pub since: Instant,
    /// Whose inbound place it takes.
    inbound_from: Option<IpAddr>,
    /// Whether the encrypted transport was tried first.
    v2: bool,
    pub stop: CancellationToken,
}

/// A connection that is to be made.
pub(super) struct Dial {
    pub addr: PeerAddr,
    pub address: Option<NetAddress>,
    pub kind: ConnectionKind,
    /// Whether the peer is thought to speak the encrypted transport.
    pub v2: bool,
}

/// The net at work.
pub(super) struct Running {
    pub context: Arc<Context>,
    slots: Slots,
    inbound: InboundCount,
    /// `None` when the node does not choose peers by itself.
    pub automatic: Option<Automatic>,
    persist: Persist,
    bans_changed: watch::Receiver<u64>,
    next_id: u64,
    sessions: JoinSet<Ended>,
    ids: HashMap<Id, PeerId>,
    pub open: HashMap<PeerId, Open>,
    v1_only: HashSet<PeerAddr>,
    /// Who wants to know how the connection of a sibling ended.
    siblings: HashMap<PeerId, oneshot::Sender<SiblingEnd>>,
    started: Instant,
    /// Ends all connections. Not that of the whole node, because what is to be known of
    /// them must be asked before they end.
    stop: CancellationToken,
}

impl Running {
    /// Loads what an earlier run has saved.
    pub async fn new(
        context: Arc<Context>,
        slots: Slots,
        plan: Plan,
        store: Option<Arc<dyn PeerStore>>,
    ) -> Self {
        let now = context.shared.clock.now();
        let persist = Persist::new(store, now);
        let anchors = persist.load(&context.shared, plan.may_choose).await;
        let automatic = {
            let mut book = context.shared.book.lock();
            Automatic::start(&plan, anchors, &mut book, now)
        };
        let reserved = automatic.as_ref().map_or(0, |_| AUTOMATIC);
        let limits = context.limits;
        let max_inbound = plan
            .max_peers
            .saturating_sub(reserved)
            .min(limits.max_inbound);
        Self {
            bans_changed: context.shared.bans_changed.subscribe(),
            context,
            slots,
            inbound: InboundCount::new(max_inbound, limits.max_inbound_per_address),
            automatic,
            persist,
            next_id: 0,
            sessions: JoinSet::new(),
            ids: HashMap::new(),
            open: HashMap::new(),
            v1_only: HashSet::new(),
            siblings: HashMap::new(),
            started: now,
            stop: CancellationToken::new(),
        }
    }

    /// Connects and takes connections until `stop`, then ends them all and saves.
    pub async fn run(
        mut self,
        mut acceptor: Acceptor,
        mut commands: mpsc::Receiver<Command>,
        mut siblings: mpsc::Receiver<SiblingStream>,
        stop: CancellationToken,
    ) -> Result<(), NetError> {
        let mut tick = interval(TICK.min(self.context.limits.dial_interval));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tips = self.context.server.tip();
        let clock = self.context.shared.clock.clone();
        let mut tip = (*tips.borrow_and_update(), clock.now());
        let result = loop {
            tokio::select! {
                () = stop.cancelled() => break Ok(()),
                accepted = acceptor.next() => match accepted {
                    Ok((stream, addr)) => self.accept(stream, addr),
                    Err(err) => break Err(NetError::Accept(err)),
                },
                Some(ended) = self.sessions.join_next_with_id() => self.on_ended(ended).await,
                Some(command) = commands.recv() => self.obey(&command),
                Some(sibling) = siblings.recv() => self.take_sibling(sibling),
                Ok(()) = tips.changed() => tip = (*tips.borrow_and_update(), clock.now()),
                _ = tick.tick() => self.on_tick(tip, clock.now()),
            }
        };
        // Whom we were connected to is known only before the connections end.
        let anchors = self.anchors();
        self.stop.cancel();
        let ended = async { while self.sessions.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
            warn!("connections did not end in time");
            self.sessions.shutdown().await;
        }
        self.persist.save_all(&self.context.shared, anchors).await;
        result
    }

    fn on_tick(&mut self, tip: (ChainTip, Instant), now: Instant) {
        self.dial_manual(now);
        self.dial_automatic(tip, now);
        self.send_addresses(tip.0, now);
        let urgent = self.bans_changed.has_changed().unwrap_or(false);
        let shared = &self.context.shared;
        if self.persist.save_when_due(shared, urgent, now) {
            self.bans_changed.mark_unchanged();
        }
    }

    fn dial_manual(&mut self, now: Instant) {
        for slot in self.slots.due(now) {
            let id = self.next_id();
            let addr = self.slots.take(slot, id);
            let host = addr.host.parse::<NetAddr>().ok();
            let dial = Dial {
                address: host.map(|host| NetAddress::new(host, addr.port)),
                addr,
                kind: ConnectionKind::Manual,
                v2: true,
            };
            self.dial_as(id, dial);
        }
    }

    /// Makes a connection.
    pub fn dial(&mut self, dial: Dial) {
        let id = self.next_id();
        self.dial_as(id, dial);
    }

    fn dial_as(&mut self, id: PeerId, dial: Dial) {
        let Dial {
            addr,
            address,
            kind,
            v2,
        } = dial;
        debug!(peer = %id, %addr, kind = kind.name(), "connecting");
        let v2 = v2 && self.context.v2 && !self.v1_only.contains(&addr);
        let open = Open {
            kind,
            address,
            addr,
            since: self.context.shared.clock.now(),
            inbound_from: None,
            v2,
            stop: self.stop.child_token(),
        };
        self.start(id, open, Origin::Dial { v2 });
    }

    fn accept(&mut self, stream: TcpStream, addr: SocketAddr) {
        if let Err(reason) = self.admit(addr.ip()) {
            debug!(%addr, reason, "connection refused");
            return;
        }
        self.inbound.add(addr.ip());
        let id = self.next_id();
        let host = addr.ip().to_canonical();
        let open = Open {
            kind: ConnectionKind::Inbound,
            address: Some(NetAddress::new(host, addr.port())),
            addr: PeerAddr {
                host: host.to_string(),
                port: addr.port(),
            },
            since: self.context.shared.clock.now(),
            inbound_from: Some(addr.ip()),
            v2: false,
            stop: self.stop.child_token(),
        };
        self.start(id, open, Origin::Accepted(stream));
    }

    /// Speaks with a sibling, for which there is always a place: the fleet limits them.
    fn take_sibling(&mut self, sibling: SiblingStream) {
        let id = self.next_id();
        let open = Open {
            kind: ConnectionKind::Sibling {
                inbound: !sibling.dialed,
            },
            address: None,
            addr: PeerAddr {
                host: sibling.peer_id,
                port: 0,
            },
            since: self.context.shared.clock.now(),
            inbound_from: None,
            v2: false,
            stop: self.stop.child_token(),
        };
        self.siblings.insert(id, sibling.ended);
        self.start(id, open, Origin::Sibling(sibling.stream));
    }

    /// Whether a connection from `ip` is taken, for which another one may have to go.
    fn admit(&mut self, ip: IpAddr) -> Result<(), &'static str> {
        let host = NetAddr::from(ip);
        let unix = self.context.shared.clock.unix();
        let (is_banned, is_discouraged) = {
            let book = self.context.shared.book.lock();
            (
                book.bans.is_banned(&host, unix),
                book.discouraged.contains(&host),
            )
        };
        if is_banned {
            return Err("banned");
        }
        match self.inbound.check(ip) {
            // The last place is not for those who misbehaved.
            Ok(()) if is_discouraged && self.inbound.is_nearly_full() => Err("discouraged"),
            Ok(()) => Ok(()),
            Err(Refusal::AddressFull) => Err("too many connections from its address"),
            Err(Refusal::Full) if is_discouraged => Err("discouraged"),
            Err(Refusal::Full) if self.evict() => Ok(()),
            Err(Refusal::Full) => Err("too many peers"),
        }
    }

    /// Ends the inbound connection that is of least use, if there is one to spare.
    fn evict(&mut self) -> bool {
        let peers = self.context.shared.peers.lock().clone();
        let mut book = self.context.shared.book.lock();
        let key = book.key();
        let millis = |moment: Instant| {
            let since = moment.saturating_duration_since(self.started).as_millis();
            u64::try_from(since).map_or(u64::MAX, |since| since + 1)
        };
        let candidates = self
            .open
            .iter()
            .filter(|(_, open)| open.kind == ConnectionKind::Inbound)
            .filter(|(_, open)| !open.stop.is_cancelled())
            .filter_map(|(id, open)| {
                let host = open.address?.addr;
                let peer = peers.get(id);
                Some(EvictionCandidate {
                    id: *id,
                    is_inbound: true,
                    is_protected: false,
                    connected_at: millis(open.since),
                    min_ping: peer.and_then(|peer| peer.least_ping()),
                    last_block: peer.and_then(|peer| peer.last_block()).map_or(0, millis),
                    last_tx: peer.and_then(|peer| peer.last_tx()).map_or(0, millis),
                    has_relevant_services: peer.is_some_and(|peer| peer.remote.serves_all_blocks()),
                    relays_txs: peer.is_some_and(|peer| peer.relays_txs()),
                    keyed_group: NetGroup::of(&host).keyed(key),
                    prefer_evict: book.discouraged.contains(&host),
                    is_local: host.is_local(),
                    network: host.net_class().unwrap_or(NetKind::Ipv4),
                })
            })
            .collect();
        let Some(id) = select_node_to_evict(candidates, &mut book.rng) else {
            return false;
        };
        drop(book);
        debug!(peer = %id, "an inbound peer makes room for another");
        self.end(id, peers.get(&id), Fault::Useless("evicted"));
        true
    }

    /// Ends a connection, whether or not its handshake is done.
    pub fn end(&self, id: PeerId, peer: Option<&Arc<Peer>>, fault: Fault) {
        if let Some(peer) = peer {
            peer.disconnect(fault);
        } else if let Some(open) = self.open.get(&id) {
            open.stop.cancel();
        }
    }

    fn next_id(&mut self) -> PeerId {
        let id = PeerId(self.next_id);
        self.next_id += 1;
        id
    }

    fn start(&mut self, id: PeerId, open: Open, origin: Origin) {
        let session = Session {
            context: Arc::clone(&self.context),
            id,
            addr: open.addr.clone(),
            kind: open.kind,
            stop: open.stop.clone(),
        };
        let task = self.sessions.spawn(session.run(origin));
        self.ids.insert(task.id(), id);
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
            Some(ended) => {
                self.learn(&open, ended);
                ended.penalty
            }
            None => {
                if let Some(peer) = self.context.shared.remove(id) {
                    self.context.shared.book.lock().remove_peer(id);
                    self.context.tell_closed(&peer).await;
                }
                Penalty::Slow
            }
        };
        if let Some(sibling) = self.siblings.remove(&id) {
            let end = match penalty {
                Penalty::Misbehaved => SiblingEnd::Misbehaved,
                Penalty::None | Penalty::Slow => SiblingEnd::Lost,
            };
            // The fleet may be gone already.
            let _ = sibling.send(end);
        }
        if open.kind == ConnectionKind::Manual {
            let peer = ended.and_then(|ended| ended.peer);
            if peer.is_some_and(|peer| peer.last_block().is_some()) {
                self.slots.useful(id);
            }
            let now = self.context.shared.clock.now();
            self.slots.release(id, penalty, rand::random(), now);
        }
    }

    /// What a connection tells about its address.
    fn learn(&mut self, open: &Open, ended: &Ended) {
        let Some(peer) = &ended.peer else {
            return;
        };
        if open.v2 && peer.transport == TransportKind::V1 && self.v1_only.len() < MAX_V1_ONLY {
            self.v1_only.insert(open.addr.clone());
        }
        let mut book = self.context.shared.book.lock();
        if ended.discourage
            && let Some(host) = peer.host
        {
            book.discourage(host);
        }
        // Nobody is to learn whom we get blocks from.
        let may_tell = matches!(
            open.kind,
            ConnectionKind::Manual | ConnectionKind::FullRelay
        );
        if may_tell && let Some(address) = &open.address {
            book.man
                .connected(address, self.context.shared.clock.unix());
        }
    }

    fn obey(&mut self, command: &Command) {
        match command {
            Command::Punish(addr, ConnectionKind::Manual) => {
                let now = self.context.shared.clock.now();
                let connected = self.slots.punish(addr, now);
                if let Some(open) = connected.and_then(|id| self.open.get(&id)) {
                    open.stop.cancel();
                }
            }
            Command::EndBanned(target) => {
                let peers = self.context.shared.peers.lock().clone();
                for (id, open) in &self.open {
                    let host = open.address.map(|address| address.addr);
                    let is_meant = host.is_some_and(|host| target.contains(&host));
                    if is_meant && open.kind != ConnectionKind::Manual {
                        self.end(*id, peers.get(id), Fault::Useless("banned"));
                    }
                }
            }
            Command::Punish(addr, _) => {
                if let Ok(host) = addr.host.parse() {
                    self.context.shared.book.lock().discourage(host);
                }
            }
        }
    }

    /// Tells peers the addresses that they are to be told now.
    fn send_addresses(&mut self, tip: ChainTip, now: Instant) {
        let shared = &self.context.shared;
        let unix = shared.clock.unix();
        let due = shared.book.lock().due(is_recent(tip, unix), now, unix);
        if due.is_empty() {
            return;
        }
        let peers = shared.peers.lock().clone();
        for (id, entries) in due {
            if let Some(peer) = peers.get(&id) {
                peer.send(Outgoing::addr(&entries, peer.remote.addr_v2));
            }
        }
    }
}

/// Whether the chain's newest block is at most a day old.
pub(super) fn is_recent(tip: ChainTip, unix: u64) -> bool {
    u64::from(tip.time) + 24 * 60 * 60 > unix
}
