//! The `[push]` section of the configuration.

use std::num::{NonZeroU64, NonZeroUsize};

use serde::{Deserialize, Serialize};

/// Settings of WebSocket and Server-Sent Events, section `[push]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PushConfig {
    /// Serve `/ws` and `/events`. Default true.
    pub enabled: bool,
    /// Most open connections of both kinds; further ones get a 503. Default 4096.
    pub max_connections: NonZeroUsize,
    /// Most open connections of one client address (IPv6: of a /64 network); further ones get a
    /// 429. Which address that is behind a proxy, `http.access.trusted_proxies` tells. 0 is no
    /// limit. Default 0.
    pub max_connections_per_address: usize,
    /// Most addresses, scripts, outpoints and transactions that one connection subscribes
    /// to. Default 10000.
    pub max_subscriptions: usize,
    /// Most that all connections together subscribe to. Default 500000.
    pub max_subscriptions_total: usize,
    /// Most that all connections of one client address together subscribe to. 0 is no limit.
    /// Default 0.
    pub max_subscriptions_per_address: usize,
    /// Longest message of a client, in KiB. Default 1024.
    pub max_message_kib: NonZeroUsize,
    /// Newest events of the chain that are kept for clients that come back. Default 1024.
    pub replay_events: NonZeroUsize,
    /// Most reads of states at the same time, of at most 1000 subscriptions each.
    /// Default 4.
    pub max_queries: NonZeroUsize,
    /// Seconds between two signs of life to a client; one over WebSocket that gives none for
    /// twice as long is disconnected. Default 30.
    pub ping_interval_secs: NonZeroU64,
    /// Seconds in which a client must take what it is sent, else it is cut off. Default 10.
    pub write_timeout_secs: NonZeroU64,
}

impl Default for PushConfig {
    fn default() -> Self {
        const fn count(n: usize) -> NonZeroUsize {
            NonZeroUsize::new(n).expect("the constant is not zero")
        }
        const fn secs(n: u64) -> NonZeroU64 {
            NonZeroU64::new(n).expect("the constant is not zero")
        }
        Self {
            enabled: true,
            max_connections: const { count(4_096) },
            max_connections_per_address: 0,
            max_subscriptions: 10_000,
            max_subscriptions_total: 500_000,
            max_subscriptions_per_address: 0,
            max_message_kib: const { count(1_024) },
            replay_events: const { count(1_024) },
            max_queries: const { count(4) },
            ping_interval_secs: const { secs(30) },
            write_timeout_secs: const { secs(10) },
        }
    }
}
