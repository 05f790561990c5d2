//! The `[p2p]` section of the configuration: which peers, how patient with them, and
//! whether others are served.

use std::{net::SocketAddr, time::Duration};

use pulse_p2p::{NetKind, PeerAddr};
use serde::{Deserialize, Serialize};

/// Settings of peers and of the download (`[p2p]`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyncConfig {
    /// The only peers to connect to, as `HOST:PORT` or `HOST` (then with the network's
    /// port); DNS names and `[IPV6]:PORT` are allowed. Default: none, the node finds
    /// peers by itself.
    pub connect: Vec<String>,
    /// Peers to connect to besides those that the node finds by itself, written in the
    /// same way. Default: none.
    pub add_node: Vec<String>,
    /// Whether to ask the network's DNS seeds for peers when few are known. Default true.
    pub dns_seeds: bool,
    /// SOCKS5 proxy, as `IP:PORT`, through which all connections are made and all names
    /// are resolved, for example Tor's. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<SocketAddr>,
    /// The only networks in which peers are connected to: `ipv4`, `ipv6`, `onion` (with
    /// a proxy) and `cjdns` (only if it stands here). Default: none, all that are
    /// reached.
    pub only_net: Vec<NetKind>,
    /// Whether the encrypted transport (BIP 324) is offered and tried first. Default true.
    pub v2_transport: bool,
    /// Address on which other nodes can connect, as `IP:PORT`. Default: none, nobody can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
    /// Address that other nodes are told to connect to, as `IP:PORT`. Default: none,
    /// which is `listen` if that is an address of the public internet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external: Option<SocketAddr>,
    /// Most connections with peers, of which 11 are kept for those that the node makes
    /// by itself. Each may take 8 MB of memory while it is sent a block. Default 125.
    pub max_peers: usize,
    /// Most peers that may connect from one address, in connections; a 64-bit IPv6 prefix counts as
    /// one. Peers that come through a proxy of the node's machine (as with a Tor service)
    /// all have its address. Default 16.
    pub max_inbound_per_address: usize,
    /// Most that is uploaded to peers in a day, in MiB: once it is reached, blocks older
    /// than a week are refused and their askers disconnected. 0 is no limit. Default 0.
    pub max_upload_mib_per_day: u64,
    /// Blocks requested ahead of those in hand, in blocks. Default 1024.
    pub window_blocks: u32,
    /// Blocks requested from one peer at a time. Default 16.
    pub in_flight_per_peer: usize,
    /// Memory for blocks that wait for validation, in MiB. A block that the chain waits
    /// for is always requested. Default 64.
    pub buffer_mib: usize,
    /// How long one peer may hold up a full window before it is disconnected, in seconds.
    /// Doubles with each such peer up to 64 s, and shrinks again as blocks come. Default 2.
    pub stall_timeout_secs: u64,
    /// How long a peer that was asked for blocks may go without delivering one, in
    /// seconds. Default 600.
    pub block_timeout_secs: u64,
    /// How long a peer may take for all its headers, in seconds, besides one millisecond
    /// per expected header. Default 900.
    pub headers_timeout_secs: u64,
    /// First wait before a lost peer is tried again, in seconds; doubles with each
    /// failure. Default 1.
    pub retry_min_secs: u64,
    /// Longest such wait, in seconds. Default 60.
    pub retry_max_secs: u64,
    /// Wait before a peer that misbehaved is tried again, in seconds. Default 600.
    pub retry_misbehaving_secs: u64,
    /// Limit for resolving a name and for a TCP connection, in seconds. Default 10.
    pub connect_timeout_secs: u64,
    /// Limit for the version handshake, in seconds. Default 60.
    pub handshake_timeout_secs: u64,
    /// Time between pings, in seconds. Default 120.
    pub ping_interval_secs: u64,
    /// A peer that sends nothing for this long is disconnected, in seconds. Default 1200.
    pub inactivity_timeout_secs: u64,
    /// The node makes its own chain (`--simulate`) and needs no peer to be synced. Not a
    /// key of the file.
    #[serde(skip)]
    pub simulate: bool,
    /// Blocks come from the nodes of the operator's own fleet alone (`fleet.only_siblings`).
    /// Not a key of the file.
    #[serde(skip)]
    pub only_siblings: bool,
}

impl Default for SyncConfig {
    fn default() -> Self {
        Self {
            connect: Vec::new(),
            add_node: Vec::new(),
            dns_seeds: true,
            proxy: None,
            only_net: Vec::new(),
            v2_transport: true,
            listen: None,
            external: None,
            max_peers: 125,
            max_inbound_per_address: 16,
            max_upload_mib_per_day: 0,
            window_blocks: 1024,
            in_flight_per_peer: 16,
            buffer_mib: 64,
            stall_timeout_secs: 2,
            block_timeout_secs: 600,
            headers_timeout_secs: 900,
            retry_min_secs: 1,
            retry_max_secs: 60,
            retry_misbehaving_secs: 600,
            connect_timeout_secs: 10,
            handshake_timeout_secs: 60,
            ping_interval_secs: 120,
            inactivity_timeout_secs: 1200,
            simulate: false,
            only_siblings: false,
        }
    }
}

/// Which key of the section is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// An entry of `connect` or `add_node` is not `HOST:PORT`.
    #[error("p2p.{key}: {entry:?} is not HOST:PORT, HOST or [IPV6]:PORT")]
    Address {
        /// Name of the key.
        key: &'static str,
        /// The entry.
        entry: String,
    },
    /// A number is zero.
    #[error("p2p.{key} must be at least 1")]
    Zero {
        /// Name of the key.
        key: &'static str,
    },
    /// The least wait is longer than the longest.
    #[error("p2p.retry_min_secs is greater than p2p.retry_max_secs")]
    RetryOrder,
}

impl SyncConfig {
    /// Checks every key and gives the peers of `connect` and `add_node`, each once, with
    /// `default_port` where none is named.
    ///
    /// # Errors
    /// [`ConfigError`]: the first key found wrong.
    pub fn peers(&self, default_port: u16) -> Result<Vec<PeerAddr>, ConfigError> {
        let at_least_one = [
            ("max_peers", self.max_peers as u64),
            (
                "max_inbound_per_address",
                self.max_inbound_per_address as u64,
            ),
            ("window_blocks", u64::from(self.window_blocks)),
            ("in_flight_per_peer", self.in_flight_per_peer as u64),
            ("buffer_mib", self.buffer_mib as u64),
            ("stall_timeout_secs", self.stall_timeout_secs),
            ("block_timeout_secs", self.block_timeout_secs),
            ("headers_timeout_secs", self.headers_timeout_secs),
            ("retry_min_secs", self.retry_min_secs),
            ("retry_misbehaving_secs", self.retry_misbehaving_secs),
            ("connect_timeout_secs", self.connect_timeout_secs),
            ("handshake_timeout_secs", self.handshake_timeout_secs),
            ("ping_interval_secs", self.ping_interval_secs),
            ("inactivity_timeout_secs", self.inactivity_timeout_secs),
        ];
        if let Some((key, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            return Err(ConfigError::Zero { key });
        }
        if self.retry_min_secs > self.retry_max_secs {
            return Err(ConfigError::RetryOrder);
        }
        let connect = self.connect.iter().map(|entry| ("connect", entry));
        let add_node = self.add_node.iter().map(|entry| ("add_node", entry));
        let mut peers = Vec::new();
        for (key, entry) in connect.chain(add_node) {
            let entry = entry.clone();
            let peer =
                PeerAddr::parse(&entry, default_port).ok_or(ConfigError::Address { key, entry })?;
            if !peers.contains(&peer) {
                peers.push(peer);
            }
        }
        Ok(peers)
    }

    pub(crate) fn buffer_bytes(&self) -> usize {
        self.buffer_mib.saturating_mul(1 << 20)
    }

    pub(crate) fn stall_timeout(&self) -> Duration {
        Duration::from_secs(self.stall_timeout_secs)
    }

    pub(crate) fn block_timeout(&self) -> Duration {
        Duration::from_secs(self.block_timeout_secs)
    }

    pub(crate) fn headers_timeout(&self) -> Duration {
        Duration::from_secs(self.headers_timeout_secs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_key_is_named() {
        let mut config = SyncConfig {
            connect: vec!["host:".to_owned()],
            ..SyncConfig::default()
        };
        let err = config.peers(8333).unwrap_err().to_string();
        assert!(
            err.contains("p2p.connect") && err.contains("host:"),
            "{err}"
        );
        config.window_blocks = 0;
        assert_eq!(
            config.peers(8333),
            Err(ConfigError::Zero {
                key: "window_blocks"
            })
        );
        assert!(toml::from_str::<SyncConfig>("windowblocks = 3").is_err());
        assert!(toml::from_str::<SyncConfig>("simulate = true").is_err());
        assert!(toml::from_str::<SyncConfig>("listen = \"host:1\"").is_err());
        let listening: SyncConfig = toml::from_str("listen = \"[::]:8333\"").unwrap();
        assert_eq!(listening.listen, "[::]:8333".parse().ok());
        assert_eq!(
            toml::from_str::<SyncConfig>("").unwrap(),
            SyncConfig::default()
        );
    }
}
