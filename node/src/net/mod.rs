//! Owns every connection, in and out.
//!
//! ```text
//! manual peers ----------+                       +-> sync  (headers, blocks)
//! AddrBook -> outbound --+-> session per peer ---+-> relay (transactions)
//! listener -> accept ----+     |    |            +-> serve (answers about the chain)
//!                              |    +-> AddrBook (addresses that peers tell)
//!                              +-> Ended -> penalty, next attempt
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
//! Whom the node connects to is chosen one per network group, from addresses in buckets
//! that no one source can fill ([`crate::p2p::addrman`]). Inbound connections are
//! limited in all and per address; when all places are taken, the one that is of least
//! use makes room for a new one ([`crate::p2p::eviction`]). Hosts that misbehave are
//! discouraged: not dialled, and let in only while there is room; manual peers never are,
//! they wait. Channels to consumers are bounded: a full one makes the peer's read loop
//! wait. A consumer that is gone costs nothing, its messages are dropped.

mod automatic;
mod book;
mod close;
mod control;
mod handle;
mod inbound;
mod limits;
mod manual;
mod outbound;
mod outbox;
mod peer;
mod persist;
mod route;
mod running;
mod seeding;
mod session;

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use pulse_primitives::{
    filters::FilterSource, fleet::SiblingStream, network::ChainParams, ports::PeerStore,
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_util::sync::CancellationToken;

use crate::{
    chain::Chain,
    clock::Clock,
    config::{ConfigError, SyncConfig},
    headers::HeaderStore,
    p2p::{
        NetAddress,
        dial::Proxy,
        seeds::{dns_seeds, fixed_seeds},
        version::{Nonces, local_services},
    },
    serve::Server,
};
use book::{AddrBook, Reach};
pub use close::CloseReason;
pub use handle::NetHandle;
use handle::{Command, Context, Shared};
use inbound::Acceptor;
pub use limits::NetLimits;
use manual::Slots;
pub use outbox::{Outbox, Queued, outbox};
pub use peer::{Fault, Peer, PeerEvent, PeerEventKind, PeerInfo, is_lasting};
use running::{Plan, Running};

pub use crate::p2p::{ConnectionKind, TransportKind, message::Outgoing};

/// Events that may wait for the sync; each can hold a block.
const SYNC_EVENTS: usize = 16;
/// Events that may wait for the relay; each can hold a transaction or 50,000 entries.
const RELAY_EVENTS: usize = 64;
/// Commands that may wait for the net.
const COMMANDS: usize = 256;
/// For the proxy to reach a peer, as in Bitcoin Core.
const PROXY_LIMIT: Duration = Duration::from_secs(20);

/// Why the net ended by itself. Never because of a peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The system kept refusing to accept connections.
    #[error("accepting connections of peers")]
    Accept(#[source] io::Error),
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
    siblings: mpsc::Receiver<SiblingStream>,
    plan: Plan,
    store: Option<Arc<dyn PeerStore>>,
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
        let manual = config.peers(params.default_port)?;
        let services = local_services(config.v2_transport, false);
        let own = own_address(config, listener.as_ref());
        let reach = Reach::new(&config.only_net, config.proxy.is_some());
        let book = AddrBook::new(reach, own.map(|own| (own, services)));
        let shared = Arc::new(Shared::new(Clock::default(), book));
        let (sync, sync_events) = mpsc::channel(SYNC_EVENTS);
        let (relay, relay_events) = mpsc::channel(RELAY_EVENTS);
        let (commands_in, commands) = mpsc::channel(COMMANDS);
        let has_seeds = !(dns_seeds(params).is_empty() && fixed_seeds(params).is_empty());
        let plan = Plan {
            may_choose: config.connect.is_empty() && !config.simulate && !config.only_siblings,
            has_seeds,
            has_friends: !config.add_node.is_empty(),
            dns: config.dns_seeds,
            max_peers: config.max_peers,
            params: params.clone(),
        };
        let handle = NetHandle {
            shared: Arc::clone(&shared),
            commands: commands_in,
            dials: !manual.is_empty() || (plan.may_choose && has_seeds),
        };
        let events = PeerEvents {
            sync: sync_events,
            relay: relay_events,
        };
        let net = Self {
            context: Context {
                magic: params.magic,
                services,
                v2: config.v2_transport,
                proxy: config.proxy.map(|addr| Proxy {
                    addr,
                    isolate: true,
                    limit: PROXY_LIMIT,
                }),
                only_net: config.only_net.iter().copied().collect(),
                nonces: Nonces::default(),
                limits: NetLimits::from(config),
                server: Arc::new(Server::new(
                    chain,
                    headers,
                    params.min_chain_work,
                    config.max_upload_mib_per_day,
                )),
                shared,
                sync,
                relay,
            },
            slots: Slots::new(manual, config, Instant::now()),
            acceptor: Acceptor::new(listener),
            commands,
            siblings: mpsc::channel(1).1,
            plan,
            store: None,
        };
        Ok((net, handle, events))
    }

    /// What peers are served from.
    #[must_use]
    pub fn server(&self) -> Arc<Server> {
        Arc::clone(&self.context.server)
    }

    /// The same with other limits than those of the configuration.
    #[must_use]
    pub fn with_limits(mut self, limits: NetLimits) -> Self {
        self.context.limits = limits;
        self.context.shared.book.lock().spare_local = limits.spare_local;
        self
    }

    /// The same, remembering addresses, bans and anchors in `store`.
    #[must_use]
    pub fn with_store(mut self, store: Arc<dyn PeerStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// The same, serving compact block filters from `source` and telling so (BIP 157).
    #[must_use]
    pub fn with_filters(mut self, source: Arc<dyn FilterSource>) -> Self {
        self.context.server.set_filters(source);
        self.context.services |= local_services(false, true);
        self
    }

    /// The same, speaking with the nodes of the operator's own fleet over `streams`.
    #[must_use]
    pub fn with_siblings(mut self, streams: mpsc::Receiver<SiblingStream>) -> Self {
        self.siblings = streams;
        self
    }

    /// Connects and takes connections until `stop`, then closes them all.
    ///
    /// # Errors
    /// [`NetError`].
    pub async fn run(self, stop: CancellationToken) -> Result<(), NetError> {
        let context = Arc::new(self.context);
        let running = Running::new(context, self.slots, self.plan, self.store).await;
        running
            .run(self.acceptor, self.commands, self.siblings, stop)
            .await
    }
}

/// The address that others are told: as configured, or that of the listener, if it is
/// one of the public internet.
fn own_address(config: &SyncConfig, listener: Option<&TcpListener>) -> Option<NetAddress> {
    let listening: SocketAddr = listener?.local_addr().ok()?;
    let own = config.external.unwrap_or(listening);
    let own = NetAddress::new(own.ip(), own.port());
    own.addr.is_routable().then_some(own)
}
