//! How many connections, and how patient with each.

use std::time::Duration;

use crate::config::SyncConfig;

/// Limits of connections.
#[derive(Debug, Clone, Copy)]
pub struct NetLimits {
    /// Inbound connections at a time.
    pub max_inbound: usize,
    /// Inbound connections from one address at a time; the 64-bit prefix of IPv6.
    pub max_inbound_per_address: usize,
    /// For resolving a name, and for each address that it has.
    pub connect: Duration,
    /// For the whole handshake.
    pub handshake: Duration,
    /// Between two pings.
    pub ping_interval: Duration,
    /// Without a whole message from the peer.
    pub idle: Duration,
    /// For the peer to take 64 KiB of what is written to it.
    pub write: Duration,
}

/// Longest that a peer may take for 64 KiB.
const WRITE: Duration = Duration::from_secs(30);

impl From<&SyncConfig> for NetLimits {
    fn from(config: &SyncConfig) -> Self {
        Self {
            max_inbound: config.max_inbound,
            max_inbound_per_address: config.max_inbound_per_address,
            connect: Duration::from_secs(config.connect_timeout_secs),
            handshake: Duration::from_secs(config.handshake_timeout_secs),
            ping_interval: Duration::from_secs(config.ping_interval_secs),
            idle: Duration::from_secs(config.inactivity_timeout_secs),
            write: WRITE,
        }
    }
}

impl Default for NetLimits {
    /// Those of the default configuration; 30 s for writing.
    fn default() -> Self {
        Self::from(&SyncConfig::default())
    }
}
