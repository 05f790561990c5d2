//! How many connections, and how patient with each.

use std::time::Duration;

use crate::config::SyncConfig;

/// Limits of connections.
#[derive(Debug, Clone, Copy)]
pub struct NetLimits {
    /// Inbound connections at a time, unless `max_peers` leaves less.
    pub max_inbound: usize,
    /// Inbound connections from one address at a time; the 64-bit prefix of IPv6.
    pub max_inbound_per_address: usize,
    /// For resolving a name, and for each address that it has.
    pub connect: Duration,
    /// For the handshake of the encrypted transport.
    pub transport: Duration,
    /// For the whole version handshake.
    pub handshake: Duration,
    /// Between two pings.
    pub ping_interval: Duration,
    /// From a ping to its answer.
    pub ping_timeout: Duration,
    /// Without a whole message from the peer.
    pub idle: Duration,
    /// For the peer to take 64 KiB of what is written to it.
    pub write: Duration,
    /// Between two looks at whom to dial.
    pub dial_interval: Duration,
    /// Whether misbehaviour of peers at our own machine's addresses is not held against
    /// these: anyone may come through them, as through a Tor service.
    pub spare_local: bool,
}

/// Longest that a peer may take for 64 KiB.
const WRITE: Duration = Duration::from_secs(30);
/// Longest handshake of the encrypted transport.
const TRANSPORT: Duration = Duration::from_secs(15);
/// A ping that is not answered for this long ends the connection (Bitcoin Core's
/// `TIMEOUT_INTERVAL`).
const PING_TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// Time between two automatic connections, as in Bitcoin Core.
const DIAL_INTERVAL: Duration = Duration::from_millis(500);

impl From<&SyncConfig> for NetLimits {
    fn from(config: &SyncConfig) -> Self {
        let handshake = Duration::from_secs(config.handshake_timeout_secs);
        Self {
            max_inbound: config.max_peers,
            max_inbound_per_address: config.max_inbound_per_address,
            connect: Duration::from_secs(config.connect_timeout_secs),
            transport: TRANSPORT.min(handshake),
            handshake,
            ping_interval: Duration::from_secs(config.ping_interval_secs),
            ping_timeout: PING_TIMEOUT,
            idle: Duration::from_secs(config.inactivity_timeout_secs),
            write: WRITE,
            dial_interval: DIAL_INTERVAL,
            spare_local: true,
        }
    }
}

impl Default for NetLimits {
    /// Those of the default configuration.
    fn default() -> Self {
        Self::from(&SyncConfig::default())
    }
}
