//! The `[electrum]` section of the configuration.

use std::{
    net::SocketAddr,
    num::{NonZeroU64, NonZeroUsize},
    path::PathBuf,
};

use serde::{Deserialize, Serialize};

/// Settings of the Electrum server, section `[electrum]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ElectrumConfig {
    /// Address for plain TCP. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addr: Option<SocketAddr>,
    /// Address for TLS. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_addr: Option<SocketAddr>,
    /// Address for WebSocket. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ws_addr: Option<SocketAddr>,
    /// Address for WebSocket over TLS. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wss_addr: Option<SocketAddr>,
    /// Certificate chain as a PEM file. Default: none, a self-signed one that is made at
    /// the first start and kept in the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of `tls_cert` as a PEM file. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// Name under which the public reaches this server, told in `server.features`.
    /// Default: empty, none.
    pub host: String,
    /// Text for people, `server.banner`. Default: empty, the program and its version.
    pub banner: String,
    /// Where users may send money to the operator. Default: empty, nowhere.
    pub donation_address: String,
    /// Most open connections; a further one is told so and closed. Default 10000.
    pub max_connections: NonZeroUsize,
    /// Most connections of one address (here and below, of IPv6: of a /64 network), as above;
    /// 0 is no limit. Default 100.
    pub max_connections_per_address: usize,
    /// Most scripts and transactions that one connection subscribes to. Default 50000.
    pub max_subscriptions: usize,
    /// As above, of all connections of one address; 0 is no limit.
    /// Default 200000.
    pub max_subscriptions_per_address: usize,
    /// Most requests per second of one address, with those of ten seconds at once; 0 is
    /// no limit. Default 0.
    pub requests_per_second: u32,
    /// Most transactions of a history, and most unspent outputs. Default 200000.
    pub max_history: usize,
    /// Most requests in a batch. Default 1000.
    pub max_batch: usize,
    /// Longest request line, in KiB. Default 2048.
    pub max_request_kib: NonZeroUsize,
    /// Longest answer, in KiB. Default 32768.
    pub max_response_kib: NonZeroUsize,
    /// Most requests that read the index at the same time. Default 8.
    pub max_queries: NonZeroUsize,
    /// Seconds without a request after which a connection is closed. Default 600.
    pub idle_timeout_secs: NonZeroU64,
    /// Seconds in which a client must take some bytes of an answer. Default 30.
    pub write_timeout_secs: NonZeroU64,
}

impl Default for ElectrumConfig {
    fn default() -> Self {
        const fn count(n: usize) -> NonZeroUsize {
            NonZeroUsize::new(n).expect("the constant is not zero")
        }
        const fn secs(n: u64) -> NonZeroU64 {
            NonZeroU64::new(n).expect("the constant is not zero")
        }
        Self {
            addr: None,
            tls_addr: None,
            ws_addr: None,
            wss_addr: None,
            tls_cert: None,
            tls_key: None,
            host: String::new(),
            banner: String::new(),
            donation_address: String::new(),
            max_connections: const { count(10_000) },
            max_connections_per_address: 100,
            max_subscriptions: 50_000,
            max_subscriptions_per_address: 200_000,
            requests_per_second: 0,
            max_history: 200_000,
            max_batch: 1_000,
            max_request_kib: const { count(2_048) },
            max_response_kib: const { count(32_768) },
            max_queries: const { count(8) },
            idle_timeout_secs: const { secs(600) },
            write_timeout_secs: const { secs(30) },
        }
    }
}

impl ElectrumConfig {
    /// Whether any listener needs a certificate.
    #[must_use]
    pub fn needs_tls(&self) -> bool {
        self.tls_addr.is_some() || self.wss_addr.is_some()
    }
}
