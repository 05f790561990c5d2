//! The version handshake, over either transport.
//!
//! ```text
//! outbound   ours:    version ----------> wtxidrelay, sendaddrv2, verack
//!            theirs:  version, wtxidrelay, sendaddrv2, verack
//!
//! inbound    theirs:  version ----------> [wtxidrelay, sendaddrv2, ...] verack
//!            ours:    version, wtxidrelay, sendaddrv2, verack
//! ```
//!
//! The side that was connected to speaks second, so that a stranger has to be of this
//! network to learn anything. What a peer must offer depends on what it is for:
//! [`ConnectionKind`].
//!
//! # Security
//! The messages before `verack` are counted, and the caller limits the time. Every
//! connection has a nonce of its own, so that connections through different networks
//! cannot be told to be of the same node by it.

use std::{
    collections::HashSet,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Mutex, PoisonError},
};

use pulse_primitives::bitcoin::p2p::{
    Address, ServiceFlags, message::NetworkMessage, message_network::VersionMessage,
};

use crate::{
    codec::CodecError,
    message::{Message, Outgoing},
    transport::Connection,
};

/// Protocol version that the node speaks (Bitcoin Core's, with BIP 339).
pub const PROTOCOL_VERSION: u32 = 70_016;
/// Least version that a peer must speak: the first with `sendheaders` (BIP 130). It
/// keeps out software from before 2015, which has no compact blocks and no witnesses.
pub const MIN_PROTOCOL_VERSION: u32 = 70_012;
/// How the node names itself (BIP 14), unless it is told otherwise.
pub const USER_AGENT: &str = concat!("/pulse-node:", env!("CARGO_PKG_VERSION"), "/");

/// The first version with `wtxidrelay` (BIP 339); `sendaddrv2` is not sent to older
/// ones either, some of which do not tolerate it.
const NEGOTIATION_VERSION: u32 = 70_016;
/// Messages that a peer may send before its `verack`. Features are negotiated there.
const MAX_MESSAGES: usize = 32;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectionKind {
    /// The operator named the peer.
    Manual,
    /// We chose the peer: blocks, transactions and addresses.
    FullRelay,
    /// We chose the peer for blocks only, so that nobody learns of it.
    BlockRelay,
    /// To see whether an address is alive; closed after the handshake.
    Feeler,
    /// To ask for addresses; closed when they have come.
    AddrFetch,
    /// The peer connected to us.
    Inbound,
    /// A node of the operator's own fleet, over a stream that one of both has opened.
    Sibling {
        /// Whether the sibling has, and so speaks first.
        inbound: bool,
    },
}

impl ConnectionKind {
    /// Whether the peer connected to us.
    #[must_use]
    pub fn is_inbound(self) -> bool {
        matches!(self, Self::Inbound | Self::Sibling { inbound: true })
    }

    /// Whether the peer is a node of the operator's own fleet.
    #[must_use]
    pub fn is_sibling(self) -> bool {
        matches!(self, Self::Sibling { .. })
    }

    /// Whether blocks are wanted from the peer, so that it has to serve them.
    #[must_use]
    pub fn must_serve_blocks(self) -> bool {
        matches!(
            self,
            Self::Manual | Self::FullRelay | Self::BlockRelay | Self::Sibling { .. }
        )
    }

    /// Whether transactions may be announced to us on such a connection.
    #[must_use]
    pub fn wants_txs(self) -> bool {
        !matches!(self, Self::BlockRelay | Self::Feeler)
    }

    /// One word out of a fixed set, for logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::FullRelay => "full_relay",
            Self::BlockRelay => "block_relay",
            Self::Feeler => "feeler",
            Self::AddrFetch => "addr_fetch",
            Self::Inbound => "inbound",
            Self::Sibling { .. } => "sibling",
        }
    }
}

/// What the node offers: all blocks with witnesses, if `v2` the encrypted transport
/// (BIP 324), and if `filters` compact filters (BIP 157).
#[must_use]
pub fn local_services(v2: bool, filters: bool) -> ServiceFlags {
    let mut services = ServiceFlags::NETWORK | ServiceFlags::WITNESS;
    if v2 {
        services |= ServiceFlags::P2P_V2;
    }
    if filters {
        services |= ServiceFlags::COMPACT_FILTERS;
    }
    services
}

/// Nonces of our connections whose handshake is not done, by which a connection to
/// ourselves is noticed. One for the whole node.
#[derive(Debug, Default)]
pub struct Nonces(Mutex<HashSet<u64>>);

impl Nonces {
    fn contains(&self, nonce: u64) -> bool {
        self.lock().contains(&nonce)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashSet<u64>> {
        // A set of numbers is as good after a panic as before.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A nonce that is remembered until it is dropped.
struct Pending<'a> {
    nonces: &'a Nonces,
    nonce: u64,
}

impl<'a> Pending<'a> {
    fn new(nonces: &'a Nonces) -> Self {
        let nonce = rand::random();
        nonces.lock().insert(nonce);
        Self { nonces, nonce }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.nonces.lock().remove(&self.nonce);
    }
}

/// What the node says of itself.
#[derive(Debug, Clone, Copy)]
pub struct LocalVersion<'a> {
    /// Services that it offers: [`local_services`].
    pub services: ServiceFlags,
    /// How it names itself: [`USER_AGENT`].
    pub user_agent: &'a str,
    /// Height of the active chain.
    pub start_height: u32,
    /// Now, in seconds since 1970.
    pub time: i64,
    /// Whether transactions are wanted at all. They never are on connections that are
    /// not for them.
    pub relay: bool,
    /// Whether a peer with the last 288 blocks is enough where one with all of them is
    /// wanted, since the node's own tip is near (BIP 159).
    pub limited_peers: bool,
    /// Of this node.
    pub nonces: &'a Nonces,
}

/// What a peer says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteVersion {
    /// Protocol version.
    pub version: u32,
    /// Services that it offers.
    pub services: ServiceFlags,
    /// Its software, cut to printable ASCII and 256 characters.
    pub user_agent: String,
    /// Height that it claims. Nothing is decided by it.
    pub start_height: i32,
    /// Whether it wants transactions announced.
    pub relay: bool,
    /// Whether it announces and wants transactions by their wtxid (BIP 339).
    pub wtxid_relay: bool,
    /// Whether it wants `addrv2` (BIP 155).
    pub addr_v2: bool,
    /// Its clock, in seconds since 1970; not negative.
    pub time: i64,
    /// Where it sees us, if it says so in an IP address.
    pub our_addr: Option<SocketAddr>,
}

impl RemoteVersion {
    /// Whether it serves all blocks with their witnesses.
    #[must_use]
    pub fn serves_all_blocks(&self) -> bool {
        self.services
            .has(ServiceFlags::NETWORK | ServiceFlags::WITNESS)
    }

    /// Whether it serves at least the last 288 blocks with their witnesses (BIP 159).
    #[must_use]
    pub fn serves_recent_blocks(&self) -> bool {
        let limited = ServiceFlags::NETWORK_LIMITED | ServiceFlags::WITNESS;
        self.serves_all_blocks() || self.services.has(limited)
    }
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// A message could not be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Our side could not be written.
    #[error("sending")]
    Send(#[source] io::Error),
    /// It took too long.
    #[error("it took too long")]
    Timeout,
    /// The first message was not `version`.
    #[error("out of order")]
    OutOfOrder,
    /// The peer has our nonce: it is this node.
    #[error("connected to itself")]
    SelfConnection,
    /// The peer speaks too old a protocol.
    #[error("protocol version {version} is too old")]
    TooOld {
        /// Its version.
        version: u32,
    },
    /// The peer does not serve the blocks that are wanted from it.
    #[error("it does not serve the full chain with witnesses (services {services})")]
    MissingServices {
        /// What it offers.
        services: ServiceFlags,
    },
    /// The peer sent too much before `verack`.
    #[error("too many messages before verack")]
    TooManyMessages,
}

impl HandshakeError {
    /// Whether it is no use to try again soon.
    #[must_use]
    pub fn is_misbehaviour(&self) -> bool {
        !matches!(
            self,
            Self::Codec(CodecError::Io(_)) | Self::Send(_) | Self::Timeout
        )
    }
}

/// Shakes hands. The caller limits the time, and maps its end to
/// [`HandshakeError::Timeout`].
///
/// # Errors
/// [`HandshakeError`]; the connection is of no use then.
pub async fn handshake(
    connection: &mut Connection,
    local: &LocalVersion<'_>,
    kind: ConnectionKind,
) -> Result<RemoteVersion, HandshakeError> {
    // An inbound peer has its nonce checked; ours is only there for it to check.
    let pending = (!kind.is_inbound()).then(|| Pending::new(local.nonces));
    let nonce = pending.as_ref().map_or_else(rand::random, |own| own.nonce);
    let ours = version_message(local, kind, nonce);
    if !kind.is_inbound() {
        send(connection, ours.clone()).await?;
    }
    let mut remote = match connection.read().await?.0 {
        Message::Version(version) => check_version(&version, local, kind)?,
        _ => return Err(HandshakeError::OutOfOrder),
    };
    if kind.is_inbound() {
        send(connection, ours).await?;
    }
    let negotiates = remote.version >= NEGOTIATION_VERSION;
    if negotiates {
        send(connection, NetworkMessage::WtxidRelay).await?;
        send(connection, NetworkMessage::SendAddrV2).await?;
    }
    send(connection, NetworkMessage::Verack).await?;
    for _ in 0..MAX_MESSAGES {
        match connection.read().await?.0 {
            Message::Verack => {
                connection.end_negotiation();
                return Ok(remote);
            }
            Message::WtxidRelay => remote.wtxid_relay = negotiates,
            Message::SendAddrV2 => remote.addr_v2 = true,
            // A second version, and whatever is negotiated here in the future.
            _ => {}
        }
    }
    Err(HandshakeError::TooManyMessages)
}

async fn send(connection: &mut Connection, message: NetworkMessage) -> Result<(), HandshakeError> {
    let written = connection.write(&Outgoing::Message(message)).await;
    written.map(drop).map_err(HandshakeError::Send)
}

/// No address is told: peers only use what they see themselves.
pub(crate) fn nobody() -> Address {
    Address::new(
        &SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        ServiceFlags::NONE,
    )
}

fn version_message(local: &LocalVersion<'_>, kind: ConnectionKind, nonce: u64) -> NetworkMessage {
    NetworkMessage::Version(VersionMessage {
        version: PROTOCOL_VERSION,
        services: local.services,
        timestamp: local.time,
        receiver: nobody(),
        sender: nobody(),
        nonce,
        user_agent: local.user_agent.to_owned(),
        start_height: i32::try_from(local.start_height).unwrap_or(i32::MAX),
        relay: local.relay && kind.wants_txs(),
    })
}

fn check_version(
    version: &VersionMessage,
    local: &LocalVersion<'_>,
    kind: ConnectionKind,
) -> Result<RemoteVersion, HandshakeError> {
    if kind.is_inbound() && local.nonces.contains(version.nonce) {
        return Err(HandshakeError::SelfConnection);
    }
    // Negative versions are those of nobody.
    if !(MIN_PROTOCOL_VERSION..=i32::MAX.unsigned_abs()).contains(&version.version) {
        return Err(HandshakeError::TooOld {
            version: version.version,
        });
    }
    let user_agent = version.user_agent.chars();
    let remote = RemoteVersion {
        version: version.version,
        services: version.services,
        user_agent: user_agent
            .filter(|c| c.is_ascii_graphic() || *c == ' ')
            .take(256)
            .collect(),
        start_height: version.start_height,
        relay: version.relay,
        wtxid_relay: false,
        addr_v2: false,
        time: version.timestamp.max(0),
        our_addr: (version.receiver.socket_addr().ok()).filter(|addr| !addr.ip().is_unspecified()),
    };
    let serves = if local.limited_peers {
        remote.serves_recent_blocks()
    } else {
        remote.serves_all_blocks()
    };
    if kind.must_serve_blocks() && !serves {
        return Err(HandshakeError::MissingServices {
            services: remote.services,
        });
    }
    Ok(remote)
}

#[cfg(test)]
pub(crate) mod tests;
