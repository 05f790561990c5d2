//! The Bitcoin wire: frames, handshake, one connection per peer.
//!
//! ```text
//! dial -> handshake -> connection { read loop -> events, outbox -> write loop }
//! ```
//!
//! What is asked of peers, and what their answers mean, is decided in the node.
//!
//! # Limits
//! Plain TCP (v1 transport) only. Nothing is served to peers that we connected to:
//! their `getheaders` gets an empty list and their `getdata` a `notfound`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod addr;
pub mod addr_relay;
pub mod addrman;
pub mod anchors;
pub mod bans;
pub mod codec;
pub mod connection;
pub mod dial;
pub mod eviction;
pub mod handshake;
pub mod metrics;
pub mod netaddr;
pub mod netgroup;
pub mod peer;
pub mod rolling;
pub mod saved;
pub mod seeds;

pub use addr::PeerAddr;
pub use netaddr::{NetAddr, NetAddress, NetKind};
