//! Peers that this node has met.

use serde::{Deserialize, Serialize};

/// Peers kept at most; the one that was not seen for longest makes room.
pub const MAX_PEERS: usize = 1_000;

/// A peer that has finished a handshake with this node at least once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownPeer {
    /// Address as it was dialled, `host:port`.
    pub addr: String,
    /// First handshake, in seconds since 1970.
    pub first_seen: u64,
    /// Latest handshake, in seconds since 1970.
    pub last_seen: u64,
    /// Handshakes so far.
    pub handshakes: u64,
    /// User agent that the peer claimed last (BIP 14).
    pub user_agent: String,
}
