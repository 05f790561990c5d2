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
//! A sibling's gossip is ignored above [`MAX_RATE`] messages a second; one that commits
//! [`MAX_FAULTS`] faults within a minute is cut off. Addresses
//! of at most [`MAX_KNOWN`] siblings are remembered.

mod conduct;
mod gossip;
mod setup;
mod whom;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId, Swarm,
    futures::StreamExt,
    gossipsub::{IdentTopic, Message, MessageAcceptance},
    identity::Keypair,
    mdns, ping,
    swarm::{self, DialError, SwarmEvent, dial_opts::DialOpts},
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
    config::FleetConfig,
    hello::{self, Version},
    links::{Carrier, LinkEvent, MAX_INBOUND, WIRE},
    members::{Gate, MembersError, MembersSource},
    metrics,
    report::{FleetHandle, View},
    seeds::Lookup,
    snapshot::{self, Server, SnapshotClient},
    status::{self, Status},
    transport,
};

use conduct::Faults;
pub use conduct::{MAX_FAULTS, MAX_RATE};
use gossip::GossipEvent;
pub use setup::FleetError;
use setup::{Behaviour, BehaviourEvent, settings};
pub use whom::MAX_KNOWN;
use whom::{Dial, Whom};

/// For how long a sibling that misbehaved is refused.
pub const PUNISHMENT: Duration = Duration::from_secs(600);

/// Time between two looks at what is due.
const TICK: Duration = Duration::from_millis(500);
/// Time between two statuses when the tip does not move.
const STATUS_INTERVAL: Duration = Duration::from_secs(2);
/// The same when it moves; while the chain syncs it does all the time.
const STATUS_MIN_INTERVAL: Duration = TICK;
/// Time between two looks at the files of members.
const MEMBERS_INTERVAL: Duration = Duration::from_secs(2);

/// The fleet before it runs.
pub struct Fleet {
    own: PeerId,
    key: Keypair,
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
    whom: Whom,
    faults: Faults,
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
        Self::speaking(hello::VERSION, config, identity, network, source, node)
    }

    fn speaking(
        version: Version,
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
        let gate = Arc::new(Gate::new(network, version, members.parse(&texts)?));
        let transport = transport::build(&key, &gate, config.quic)?;
        let topic = IdentTopic::new(format!("pulse/status/1/{}", hex::encode(network)));
        let behaviour = Behaviour::new(config, key.clone(), &topic)?;
        let incoming = behaviour
            .streams
            .new_control()
            .accept(WIRE)
            .map_err(|err| settings(&err))?;
        let mut swarm = Swarm::new(transport, behaviour, own, setup::swarm_config());
        setup::listen(&mut swarm, config.listen_addr()?, config.quic)?;
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
            key,
            swarm,
            gate,
            members,
            texts,
            lookup: Lookup::new(config.parsed_seeds()?, config.quic, config.resolver_addr()?),
            lookup_interval: Duration::from_secs(config.lookup_secs),
            source,
            view,
            carrier: Carrier { node, events },
            link_events,
            incoming,
            topic,
            whom: Whom::new(own),
            faults: Faults::default(),
            keeping: HashMap::new(),
            inbound: HashMap::new(),
            tasks: JoinSet::new(),
        };
        Ok((fleet, handle))
    }

    /// Offers siblings the snapshots in `dir` while `allowed` is set, with so many MiB a
    /// second for all together.
    ///
    /// # Errors
    /// [`FleetError::Settings`] when it is called twice.
    pub fn serve_snapshots(
        &mut self,
        dir: PathBuf,
        mib_per_second: u32,
        allowed: Arc<AtomicBool>,
    ) -> Result<(), FleetError> {
        let mut control = self.swarm.behaviour().streams.new_control();
        let incoming = control
            .accept(snapshot::PROTOCOL)
            .map_err(|err| settings(&err))?;
        let (key, network) = (self.key.clone(), *self.gate.network());
        let server = Server::new(incoming, key, network, dir, mib_per_second, allowed);
        self.tasks.spawn(server.run());
        Ok(())
    }

    /// Streams of a protocol that a test serves by itself.
    #[cfg(test)]
    pub(crate) fn accept_for_tests(&self, protocol: libp2p::StreamProtocol) -> IncomingStreams {
        let mut control = self.swarm.behaviour().streams.new_control();
        control.accept(protocol).expect("nobody else serves it")
    }

    /// Asks siblings for snapshots.
    #[must_use]
    pub fn snapshots(&self) -> SnapshotClient {
        SnapshotClient::new(
            self.swarm.behaviour().streams.new_control(),
            *self.gate.network(),
            Arc::clone(&self.view),
            self.carrier.events.clone(),
        )
    }

    /// Keeps the fleet together until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        info!(peer_id = %self.own, "fleet");
        metrics::begin();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tips = self.source.tip();
        let (found, mut lookups) = mpsc::channel(1);
        let lookup = std::mem::replace(&mut self.lookup, Lookup::new(Vec::new(), false, None));
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
                    self.dial_told();
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
                self.whom.reached(connection_id, peer_id);
                let addr = endpoint.get_remote_address().clone();
                if num_established.get() == 1 {
                    info!(peer = %peer_id, %addr, "sibling connected");
                    self.link(peer_id);
                }
                let mut view = self.view.lock();
                let sibling = view.siblings.entry(peer_id).or_default();
                sibling.connections = num_established.get();
                sibling.addr = Some(addr);
                drop(view);
                self.note_settled();
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
                    self.faults.forget(&peer_id);
                    self.swarm.behaviour_mut().gossip.forget(&peer_id);
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
                let to_self = matches!(error, DialError::LocalPeerId { .. });
                self.whom.failed(connection_id, to_self);
                self.note_settled();
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
            BehaviourEvent::Gossip(GossipEvent::Message { from, id, message }) => {
                let acceptance = self.judge(&from, &message);
                let gossip = &mut self.swarm.behaviour_mut().gossip;
                gossip.report(&id, &from, acceptance);
            }
            BehaviourEvent::Gossip(GossipEvent::Fault { from, what }) => self.fault(from, what),
            BehaviourEvent::Mdns(mdns::Event::Discovered(_)) => self.dial_neighbours(),
            _ => {}
        }
    }

    /// Takes in a message that `from` has passed on.
    fn judge(&mut self, from: &PeerId, message: &Message) -> MessageAcceptance {
        let (Some(author), Some(told)) = (message.source, Status::decode(&message.data)) else {
            self.fault(*from, "malformed");
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
        if !self.swarm.is_connected(&author) {
            self.whom.learn(author, told.addrs.clone());
        }
        let mut view = self.view.lock();
        if view.siblings.len() < MAX_KNOWN || view.siblings.contains_key(&author) {
            view.siblings.entry(author).or_default().told = Some((Instant::now(), told));
        }
        MessageAcceptance::Accept
    }

    /// `peer` did what no honest node does; too often, and it is cut off.
    fn fault(&mut self, peer: PeerId, what: &'static str) {
        metrics::status(what);
        if self.faults.count(peer, Instant::now()) {
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
            LinkEvent::Misbehaved { peer, reason } => self.punish(peer, reason),
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
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        if let Err(err) = gossip.publish(&self.topic, status.encode()) {
            debug!(%err, "nobody was told");
        }
    }

    fn on_seeds(&mut self, addrs: Vec<Multiaddr>) {
        self.whom.set_seeds(addrs);
        // A new round: what was not reached is tried again.
        let dials = self.whom.seeds(|peer| self.swarm.is_connected(peer));
        self.dial(dials);
        self.dial_neighbours();
    }

    /// Dials whom mDNS has found; it knows their addresses.
    fn dial_neighbours(&mut self) {
        let mdns = self.swarm.behaviour().mdns.as_ref();
        let found = mdns
            .into_iter()
            .flat_map(mdns::Behaviour::discovered_nodes)
            .filter(|peer| !self.swarm.is_connected(peer) && self.gate.check_id(peer).is_ok());
        let dials = found.map(|peer| (DialOpts::peer_id(*peer).build(), None));
        let dials = dials.collect();
        self.dial(dials);
    }

    /// Dials siblings that others told of.
    fn dial_told(&mut self) {
        let dials = self
            .whom
            .told(|peer| !self.swarm.is_connected(peer) && self.gate.check_id(peer).is_ok());
        self.dial(dials);
    }

    fn dial(&mut self, dials: Vec<Dial>) {
        for (dial, place) in dials {
            let id = dial.connection_id();
            match self.swarm.dial(dial) {
                Ok(()) => self.whom.began(id, place),
                Err(err) => debug!(%err, "sibling not dialled"),
            }
        }
        self.note_settled();
    }

    /// Publishes whether everyone is connected who can be.
    fn note_settled(&self) {
        let has_mdns = self.swarm.behaviour().mdns.is_enabled();
        self.view.lock().is_settled = !has_mdns && self.whom.is_settled();
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

#[cfg(test)]
mod tests;
