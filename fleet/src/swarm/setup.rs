//! The parts of libp2p that a swarm of siblings is made of, and their limits.

use std::{net::SocketAddr, time::Duration};

use libp2p::{
    Multiaddr, PeerId, Swarm,
    connection_limits::{self, ConnectionLimits},
    gossipsub::{self, IdentTopic, MessageAuthenticity, ValidationMode},
    identity::Keypair,
    mdns, ping,
    swarm::{self, NetworkBehaviour, behaviour::toggle::Toggle},
};

use crate::{
    config::{ConfigError, FleetConfig},
    members::MembersError,
    seeds, status,
    transport::SetupError,
};

use super::gossip::Gossip;

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
pub(super) struct Behaviour {
    pub(super) limits: connection_limits::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) gossip: Gossip,
    pub(super) streams: libp2p_stream::Behaviour,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
}

impl Behaviour {
    pub(super) fn new(
        config: &FleetConfig,
        key: Keypair,
        topic: &IdentTopic,
    ) -> Result<Self, FleetError> {
        let own = key.public().to_peer_id();
        Ok(Self {
            limits: connection_limits::Behaviour::new(limits(config)),
            ping: ping::Behaviour::new(
                ping::Config::new()
                    .with_interval(PING_INTERVAL)
                    .with_timeout(PING_LIMIT),
            ),
            gossip: Gossip::new(gossip(key, topic)?),
            streams: libp2p_stream::Behaviour::new(),
            mdns: neighbours(config, own)?.into(),
        })
    }
}

pub(super) fn swarm_config() -> swarm::Config {
    swarm::Config::with_tokio_executor().with_idle_connection_timeout(IDLE_LIMIT)
}

fn neighbours(
    config: &FleetConfig,
    own: PeerId,
) -> Result<Option<mdns::tokio::Behaviour>, FleetError> {
    let wanted = config.mdns.then(mdns::Config::default);
    let built = wanted.map(|wanted| mdns::tokio::Behaviour::new(wanted, own));
    built.transpose().map_err(|err| settings(&err))
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

pub(super) fn listen(
    swarm: &mut Swarm<Behaviour>,
    addr: SocketAddr,
    quic: bool,
) -> Result<(), FleetError> {
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

pub(super) fn settings(err: &impl std::fmt::Debug) -> FleetError {
    FleetError::Settings {
        reason: format!("{err:?}"),
    }
}
