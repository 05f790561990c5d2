//! The task that owns all connections with siblings.
//!
//! ```text
//! look-ups --+               +-> links (streams, handed to the node)
//! mDNS ------+-> dial ->-----+
//! statuses --+   connections +-> gossip -> View (what others see)
//! files ------> members -----> cut off those who are no members any more
//! ```
//!
//! # Limits
//! A sibling's gossip is ignored above [`MAX_RATE`] messages a second; one that sends
//! [`MAX_FAULTS`] messages that cannot be honest within a minute is cut off. Addresses
//! of at most [`MAX_KNOWN`] siblings are remembered.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId, Swarm,
    connection_limits::{self, ConnectionLimits},
    futures::StreamExt,
    gossipsub::{self, IdentTopic, MessageAcceptance, MessageAuthenticity, ValidationMode},
    identity::Keypair,
    mdns,
    multiaddr::Protocol,
    ping,
    swarm::{
        self, ConnectionId, DialError, NetworkBehaviour, SwarmEvent,
        behaviour::toggle::Toggle,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use libp2p_stream::IncomingStreams;
use parking_lot::Mutex;
use pulse_primitives::fleet::{FleetSource, SiblingEnd, SiblingStream};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    config::{ConfigError, FleetConfig},
    hello,
    links::{Carrier, LinkEvent, MAX_INBOUND, WIRE},
    members::{Gate, MembersError, MembersSource},
    metrics,
    report::{FleetHandle, View},
    seeds::{self, Lookup},
    status::{self, Status},
    transport::{self, SetupError},
};

/// For how long a sibling that misbehaved is refused.
pub const PUNISHMENT: Duration = Duration::from_secs(600);
/// Messages of one sibling a second that are looked at. A fleet of 64 makes a hundred.
pub const MAX_RATE: u32 = 200;
/// Faults of one sibling within a minute that it is cut off for.
pub const MAX_FAULTS: u32 = 3;
/// Siblings whose addresses are remembered.
pub const MAX_KNOWN: usize = 256;

/// Time between two looks at what is due.
const TICK: Duration = Duration::from_millis(500);
/// Time between two statuses when the tip does not move.
const STATUS_INTERVAL: Duration = Duration::from_secs(2);
/// The same when it moves; while the chain syncs it does all the time.
const STATUS_MIN_INTERVAL: Duration = TICK;
/// Time between two looks at the files of members.
const MEMBERS_INTERVAL: Duration = Duration::from_secs(2);
/// A connection is kept as long as it works; ping finds out whether it does.
const IDLE_LIMIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_LIMIT: Duration = Duration::from_secs(20);
/// Connections with one sibling: both may dial at the same time.
const MAX_PER_SIBLING: u32 = 2;

/// Why there is no fleet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FleetError {
    /// The configuration makes no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The members cannot be read.
    #[error("fleet")]
    Members(#[from] MembersError),
    /// The transports cannot be set up.
    #[error("fleet")]
    Setup(#[from] SetupError),
    /// The identity does not decode.
    #[error("fleet: the identity is not a key")]
    Identity,
    /// A part of libp2p refuses its settings.
    #[error("fleet: {reason}")]
    Settings {
        /// Which, and why.
        reason: String,
    },
    /// The address is taken or not ours.
    #[error("fleet.listen: cannot listen on {addr}: {reason}")]
    Listen {
        /// The address.
        addr: Multiaddr,
        /// What the system says.
        reason: String,
    },
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    ping: ping::Behaviour,
    gossip: gossipsub::Behaviour,
    streams: libp2p_stream::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
}

/// One place where a sibling may be, over whichever transport.
type Place = (IpAddr, u16);

/// What is known of how a sibling behaves.
#[derive(Debug)]
struct Conduct {
    since: Instant,
    messages: u32,
    faults: u32,
    faults_since: Instant,
}

/// The fleet before it runs.
pub struct Fleet {
    own: PeerId,
    swarm: Swarm<Behaviour>,
    gate: Arc<Gate>,
    members: MembersSource,
    texts: [Option<String>; 2],
    lookup: Lookup,
    lookup_interval: Duration,
    source: Arc<dyn FleetSource>,
    view: Arc<Mutex<View>>,
    carrier: Carrier,
    link_events: mpsc::Receiver<LinkEvent>,
    incoming: IncomingStreams,
    topic: IdentTopic,
    /// Addresses of the seeds at their last look-up, by place.
    places: HashMap<Place, Vec<Multiaddr>>,
    /// Addresses of the seeds that name no IP address.
    named: Vec<Multiaddr>,
    /// Whom each place turned out to be.
    found: HashMap<Place, PeerId>,
    dialing: HashMap<ConnectionId, Option<Place>>,
    attempts: HashMap<Place, usize>,
    /// What siblings and mDNS tell.
    known: HashMap<PeerId, Vec<Multiaddr>>,
    conduct: HashMap<PeerId, Conduct>,
    /// Tasks that keep streams, by sibling.
    keeping: HashMap<PeerId, CancellationToken>,
    inbound: HashMap<PeerId, usize>,
    tasks: JoinSet<()>,
}

impl Fleet {
    /// Listens, as the node with this identity (libp2p's protobuf encoding) on the network
    /// with this genesis block. Streams of siblings go to `node`. Must be called within a
    /// Tokio runtime.
    ///
    /// # Errors
    /// [`FleetError`].
    pub fn new(
        config: &FleetConfig,
        identity: &[u8],
        network: [u8; 32],
        source: Arc<dyn FleetSource>,
        node: mpsc::Sender<SiblingStream>,
    ) -> Result<(Self, FleetHandle), FleetError> {
        config.check()?;
        let key = Keypair::from_protobuf_encoding(identity).map_err(|_| FleetError::Identity)?;
        let own = key.public().to_peer_id();
        let members = MembersSource::new(config)?;
        let texts = members.read()?;
        let gate = Arc::new(Gate::new(network, members.parse(&texts)?));
        let transport = transport::build(&key, &gate, config.quic)?;
        let streams = libp2p_stream::Behaviour::new();
        let incoming = streams
            .new_control()
            .accept(WIRE)
            .map_err(|err| settings(&err))?;
        let topic = IdentTopic::new(format!("pulse/status/1/{}", hex::encode(network)));
        let mdns = match config.mdns {
            true => Some(
                mdns::tokio::Behaviour::new(mdns::Config::default(), own)
                    .map_err(|err| settings(&err))?,
            ),
            false => None,
        };
        let behaviour = Behaviour {
            limits: connection_limits::Behaviour::new(limits(config)),
            ping: ping::Behaviour::new(
                ping::Config::new()
                    .with_interval(PING_INTERVAL)
                    .with_timeout(PING_LIMIT),
            ),
            gossip: gossip(key, &topic)?,
            streams,
            mdns: mdns.into(),
        };
        let settings =
            swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE_LIMIT);
        let mut swarm = Swarm::new(transport, behaviour, own, settings);
        let addr = config.listen_addr()?;
        listen(&mut swarm, addr, config.quic)?;
        let view = Arc::new(Mutex::new(View::default()));
        let (events, link_events) = mpsc::channel(64);
        let handle = FleetHandle {
            own,
            view: Arc::clone(&view),
            source: Arc::clone(&source),
            max_lag_blocks: config.max_lag_blocks,
        };
        let fleet = Self {
            own,
            swarm,
            gate,
            members,
            texts,
            lookup: Lookup::new(config.parsed_seeds()?, config.quic),
            lookup_interval: Duration::from_secs(config.lookup_secs),
            source,
            view,
            carrier: Carrier { node, events },
            link_events,
            incoming,
            topic,
            places: HashMap::new(),
            named: Vec::new(),
            found: HashMap::new(),
            dialing: HashMap::new(),
            attempts: HashMap::new(),
            known: HashMap::new(),
            conduct: HashMap::new(),
            keeping: HashMap::new(),
            inbound: HashMap::new(),
            tasks: JoinSet::new(),
        };
        Ok((fleet, handle))
    }

    /// Keeps the fleet together until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        info!(peer_id = %self.own, "fleet");
        metrics::begin();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tips = self.source.tip();
        let (found, mut lookups) = mpsc::channel(1);
        let lookup = std::mem::replace(&mut self.lookup, Lookup::new(Vec::new(), false));
        self.tasks
            .spawn(look_up(lookup, self.lookup_interval, found));
        let (mut told, mut checked) = (Instant::now(), Instant::now());
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                event = self.swarm.select_next_some() => self.on_event(event),
                Some(addrs) = lookups.recv() => self.on_seeds(addrs),
                Some(event) = self.link_events.recv() => self.on_link(event),
                Some((peer, stream)) = self.incoming.next() => {
                    let streams = self.inbound.entry(peer).or_default();
                    if *streams < MAX_INBOUND {
                        *streams += 1;
                        let carrier = self.carrier.clone();
                        self.tasks.spawn(async move { carrier.carry(peer, false, stream).await });
                    }
                }
                Ok(()) = tips.changed(), if told.elapsed() >= STATUS_MIN_INTERVAL => {
                    tips.mark_unchanged();
                    self.tell();
                    told = Instant::now();
                }
                Some(_) = self.tasks.join_next() => {}
                _ = tick.tick() => {
                    let now = Instant::now();
                    self.dial();
                    self.view.lock().expire(now);
                    let moved = tips.has_changed().unwrap_or(false);
                    let due = if moved { STATUS_MIN_INTERVAL } else { STATUS_INTERVAL };
                    if now.duration_since(told) >= due {
                        tips.mark_unchanged();
                        told = now;
                        self.tell();
                    }
                    if now.duration_since(checked) >= MEMBERS_INTERVAL {
                        checked = now;
                        self.reread_members().await;
                    }
                }
            }
        }
        for stop in self.keeping.values() {
            stop.cancel();
        }
        // Siblings hear of the end by the end of the connections.
        drop(self.swarm);
        self.tasks.shutdown().await;
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::NewListenAddr { address, .. } => {
                info!(addr = %address, "fleet listens");
                self.view.lock().listen.push(address);
            }
            SwarmEvent::ExpiredListenAddr { address, .. } => {
                self.view.lock().listen.retain(|addr| *addr != address);
            }
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                num_established,
                ..
            } => {
                if let Some(Some(place)) = self.dialing.remove(&connection_id) {
                    self.found.insert(place, peer_id);
                    self.attempts.remove(&place);
                }
                let addr = endpoint.get_remote_address().clone();
                if num_established.get() == 1 {
                    info!(peer = %peer_id, %addr, "sibling connected");
                    self.link(peer_id);
                }
                let mut view = self.view.lock();
                let sibling = view.siblings.entry(peer_id).or_default();
                sibling.connections = num_established.get();
                sibling.addr = Some(addr);
            }
            SwarmEvent::ConnectionClosed {
                peer_id,
                num_established,
                cause,
                ..
            } => {
                if num_established == 0 {
                    let err = cause.as_ref().map(tracing::field::display);
                    info!(peer = %peer_id, err, "sibling lost");
                    if let Some(stop) = self.keeping.remove(&peer_id) {
                        stop.cancel();
                    }
                    self.conduct.remove(&peer_id);
                }
                if let Some(sibling) = self.view.lock().siblings.get_mut(&peer_id) {
                    sibling.connections = num_established;
                    if num_established == 0 {
                        sibling.addr = None;
                        sibling.ping = None;
                    }
                }
            }
            SwarmEvent::IncomingConnectionError {
                error,
                send_back_addr,
                ..
            } => {
                debug!(addr = %send_back_addr, err = %error, "connection refused");
                if matches!(error, swarm::ListenError::LocalPeerId { .. }) {
                    return;
                }
                if matches!(error, swarm::ListenError::Denied { .. }) {
                    metrics::refused("full");
                }
                self.view.lock().refused += 1;
            }
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                error,
                ..
            } => {
                debug!(err = %error, "sibling not reached");
                let place = self.dialing.remove(&connection_id).flatten();
                // It is this node itself, which need not be dialled again.
                if let (Some(place), DialError::LocalPeerId { .. }) = (place, &error) {
                    self.found.insert(place, self.own);
                }
            }
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Ping(ping::Event {
                peer,
                connection,
                result,
            }) => match result {
                Ok(time) => {
                    if let Some(sibling) = self.view.lock().siblings.get_mut(&peer) {
                        sibling.ping = Some(time);
                    }
                }
                Err(err) => {
                    debug!(%peer, %err, "sibling does not answer");
                    self.swarm.close_connection(connection);
                }
            },
            BehaviourEvent::Gossip(gossipsub::Event::Message {
                propagation_source,
                message_id,
                message,
            }) => {
                let acceptance = self.judge(&propagation_source, &message);
                let gossip = &mut self.swarm.behaviour_mut().gossip;
                gossip.report_message_validation_result(
                    &message_id,
                    &propagation_source,
                    acceptance,
                );
            }
            BehaviourEvent::Mdns(mdns::Event::Discovered(_)) => self.dial_neighbours(),
            _ => {}
        }
    }

    /// Takes in a message that `from` has passed on.
    fn judge(&mut self, from: &PeerId, message: &gossipsub::Message) -> MessageAcceptance {
        let now = Instant::now();
        let conduct = self.conduct.entry(*from).or_insert(Conduct {
            since: now,
            messages: 0,
            faults: 0,
            faults_since: now,
        });
        if now.duration_since(conduct.since) >= Duration::from_secs(1) {
            (conduct.since, conduct.messages) = (now, 0);
        }
        conduct.messages += 1;
        if conduct.messages > MAX_RATE {
            metrics::status("flood");
            if conduct.messages == MAX_RATE + 1 {
                self.fault(*from, "flood");
            }
            return MessageAcceptance::Ignore;
        }
        let (Some(author), Some(told)) = (message.source, Status::decode(&message.data)) else {
            metrics::status("malformed");
            self.fault(*from, "malformed status");
            return MessageAcceptance::Reject;
        };
        // Members can differ for a moment from node to node: no fault of who passes it on.
        if author == self.own
            || self
                .gate
                .admit(&author, &told.ticket, hello::now())
                .is_err()
        {
            metrics::status("stranger");
            return MessageAcceptance::Ignore;
        }
        metrics::status("accepted");
        self.learn(author, told.addrs.clone());
        let mut view = self.view.lock();
        if view.siblings.len() < MAX_KNOWN || view.siblings.contains_key(&author) {
            view.siblings.entry(author).or_default().told = Some((now, told));
        }
        MessageAcceptance::Accept
    }

    /// `peer` did what no honest node does; too often, and it is cut off.
    fn fault(&mut self, peer: PeerId, what: &'static str) {
        let now = Instant::now();
        let Some(conduct) = self.conduct.get_mut(&peer) else {
            return;
        };
        if now.duration_since(conduct.faults_since) >= Duration::from_secs(60) {
            (conduct.faults_since, conduct.faults) = (now, 0);
        }
        conduct.faults += 1;
        if conduct.faults >= MAX_FAULTS {
            self.punish(peer, what);
        }
    }

    fn punish(&mut self, peer: PeerId, reason: &'static str) {
        warn!(%peer, reason, "sibling cut off");
        metrics::punished();
        self.gate.punish(peer, PUNISHMENT);
        // An error only says that it is gone already.
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    fn on_link(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Linked(peer) => {
                self.view.lock().siblings.entry(peer).or_default().links += 1;
            }
            LinkEvent::Ended { peer, dialed, end } => {
                if !dialed && let Some(streams) = self.inbound.get_mut(&peer) {
                    *streams -= 1;
                    if *streams == 0 {
                        self.inbound.remove(&peer);
                    }
                }
                if let Some(sibling) = self.view.lock().siblings.get_mut(&peer) {
                    sibling.links = sibling.links.saturating_sub(1);
                }
                if end == SiblingEnd::Misbehaved {
                    self.punish(peer, "misbehaved");
                }
            }
        }
    }

    /// Begins to keep a stream with a new sibling, if that is ours to do.
    fn link(&mut self, peer: PeerId) {
        if self.own.to_bytes() >= peer.to_bytes() {
            return;
        }
        let stop = CancellationToken::new();
        if let Some(old) = self.keeping.insert(peer, stop.clone()) {
            old.cancel();
        }
        let control = self.swarm.behaviour().streams.new_control();
        self.tasks
            .spawn(self.carrier.clone().keep(control, peer, stop));
    }

    /// Tells the fleet how far this node is.
    fn tell(&mut self) {
        let own = self.source.own_state();
        let addrs = self.swarm.listeners().take(status::MAX_ADDRS).cloned();
        let status = Status {
            header: own.header,
            height: own.height,
            indexed: own.indexed,
            load_percent: own.load_percent,
            is_draining: own.is_draining,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ticket: self.gate.own_ticket(&self.own, hello::now()),
            addrs: addrs.collect(),
        };
        let topic = self.topic.clone();
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        if let Err(err) = gossip.publish(topic, status.encode()) {
            debug!(%err, "nobody was told");
        }
    }

    fn on_seeds(&mut self, addrs: Vec<Multiaddr>) {
        self.places.clear();
        self.named.clear();
        for addr in addrs {
            match place(&addr) {
                Some(place) => self.places.entry(place).or_default().push(addr),
                None => self.named.push(addr),
            }
        }
        let places = &self.places;
        self.found.retain(|place, _| places.contains_key(place));
        self.attempts.retain(|place, _| places.contains_key(place));
        // A new round: what was not reached is tried again.
        self.dial_seeds();
        self.dial_neighbours();
    }

    /// Dials whom mDNS has found; it knows their addresses.
    fn dial_neighbours(&mut self) {
        let mdns = self.swarm.behaviour().mdns.as_ref();
        let found: Vec<_> = mdns
            .into_iter()
            .flat_map(mdns::Behaviour::discovered_nodes)
            .filter(|peer| !self.swarm.is_connected(peer) && self.gate.check_id(peer).is_ok())
            .copied()
            .collect();
        for peer in found {
            let dial = DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .build();
            self.start(dial, None);
        }
    }

    /// Dials siblings that others told of.
    fn dial(&mut self) {
        let wanted: Vec<_> = self
            .known
            .iter()
            .filter(|(peer, _)| !self.swarm.is_connected(peer) && self.gate.check_id(peer).is_ok())
            .map(|(peer, addrs)| (*peer, addrs.clone()))
            .collect();
        for (peer, addrs) in wanted {
            // Told again when it is alive.
            self.known.remove(&peer);
            let dial = DialOpts::peer_id(peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(addrs)
                .build();
            self.start(dial, None);
        }
    }

    fn dial_seeds(&mut self) {
        let busy: HashSet<_> = self.dialing.values().flatten().copied().collect();
        let is_here = |place: &Place| {
            let peer = self.found.get(place);
            peer.is_some_and(|peer| *peer == self.own || self.swarm.is_connected(peer))
        };
        let wanted: Vec<_> = self
            .places
            .iter()
            .filter(|(place, _)| !busy.contains(*place) && !is_here(place))
            .map(|(place, addrs)| {
                let attempt = self.attempts.get(place).copied().unwrap_or(0);
                (Some(*place), addrs[attempt % addrs.len()].clone())
            })
            .chain(self.named.iter().map(|addr| (None, addr.clone())))
            .collect();
        for (place, addr) in wanted {
            if let Some(place) = place {
                *self.attempts.entry(place).or_default() += 1;
            }
            let dial = match peer_of(&addr) {
                Some(peer) if peer == self.own => continue,
                Some(peer) => DialOpts::peer_id(peer)
                    .condition(PeerCondition::DisconnectedAndNotDialing)
                    .addresses(vec![addr])
                    .build(),
                None => DialOpts::unknown_peer_id().address(addr).build(),
            };
            self.start(dial, place);
        }
    }

    fn start(&mut self, dial: DialOpts, place: Option<Place>) {
        let id = dial.connection_id();
        match self.swarm.dial(dial) {
            Ok(()) => drop(self.dialing.insert(id, place)),
            Err(err) => debug!(%err, "sibling not dialled"),
        }
    }

    /// Remembers where a sibling is, unless it is here.
    fn learn(&mut self, peer: PeerId, addrs: Vec<Multiaddr>) {
        let is_wanted = peer != self.own && !self.swarm.is_connected(&peer) && !addrs.is_empty();
        if is_wanted && (self.known.len() < MAX_KNOWN || self.known.contains_key(&peer)) {
            self.known.insert(peer, addrs);
        }
    }

    /// Reads the files of members again, and cuts off who is none any more.
    async fn reread_members(&mut self) {
        let (source, before) = (self.members.clone(), self.texts.clone());
        let read = tokio::task::spawn_blocking(move || {
            let texts = source.read()?;
            if texts == before {
                return Ok(None);
            }
            let members = source.parse(&texts)?;
            Ok::<_, MembersError>(Some((texts, members)))
        });
        let (texts, members) = match read.await {
            Ok(Ok(Some(changed))) => changed,
            Ok(Ok(None)) | Err(_) => return,
            Ok(Err(err)) => {
                warn!(%err, "members stay as they were");
                return;
            }
        };
        info!(
            allowed = members.allow.len(),
            denied = members.deny.len(),
            keys = members.keys.len(),
            "members read again"
        );
        self.texts = texts;
        self.gate.set_members(members);
        let connected: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in connected {
            if let Err(reason) = self.gate.recheck(&peer) {
                warn!(%peer, %reason, "sibling is no member any more");
                let _ = self.swarm.disconnect_peer_id(peer);
            }
        }
    }
}

fn limits(config: &FleetConfig) -> ConnectionLimits {
    let connections = config.max_siblings.saturating_mul(MAX_PER_SIBLING);
    ConnectionLimits::default()
        .with_max_pending_incoming(Some(config.max_pending))
        .with_max_pending_outgoing(Some(config.max_pending.max(config.max_siblings)))
        .with_max_established(Some(connections))
        .with_max_established_per_peer(Some(MAX_PER_SIBLING))
}

fn gossip(key: Keypair, topic: &IdentTopic) -> Result<gossipsub::Behaviour, FleetError> {
    let settings_of = gossipsub::ConfigBuilder::default()
        .validation_mode(ValidationMode::Strict)
        // Passed on only when this node has looked at it.
        .validate_messages()
        .max_transmit_size(2 * status::MAX_LEN)
        .heartbeat_interval(Duration::from_secs(1))
        .build()
        .map_err(|err| settings(&err))?;
    let signed = MessageAuthenticity::Signed(key);
    let mut gossip =
        gossipsub::Behaviour::new(signed, settings_of).map_err(|err| settings(&err))?;
    gossip.subscribe(topic).map_err(|err| settings(&err))?;
    Ok(gossip)
}

fn listen(swarm: &mut Swarm<Behaviour>, addr: SocketAddr, quic: bool) -> Result<(), FleetError> {
    let quic = quic.then(|| seeds::quic_addr(addr));
    for addr in std::iter::once(seeds::tcp_addr(addr)).chain(quic) {
        swarm
            .listen_on(addr.clone())
            .map_err(|err| FleetError::Listen {
                addr,
                reason: err.to_string(),
            })?;
    }
    Ok(())
}

/// Looks the seeds up at once and then again and again.
async fn look_up(lookup: Lookup, every: Duration, found: mpsc::Sender<Vec<Multiaddr>>) {
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = found.closed() => return,
            _ = tick.tick() => {}
        }
        if found.send(lookup.addresses().await).await.is_err() {
            return;
        }
    }
}

fn place(addr: &Multiaddr) -> Option<Place> {
    let mut parts = addr.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) | Protocol::Udp(port) => Some((ip, port)),
        _ => None,
    }
}

fn peer_of(addr: &Multiaddr) -> Option<PeerId> {
    addr.iter().find_map(|part| match part {
        Protocol::P2p(peer) => Some(peer),
        _ => None,
    })
}

fn settings(err: &impl std::fmt::Debug) -> FleetError {
    FleetError::Settings {
        reason: format!("{err:?}"),
    }
}

#[cfg(test)]
mod tests;
