//! The Bitcoin wire: frames, handshake, one connection per peer.
//!
//! ```text
//! dial, or a listener's socket -> transport (v1, v2) -> version handshake -> messages
//! ```
//!
//! What is asked of peers, and what their answers mean, is decided in the node.
//!
//! # Security
//! All that comes from a peer is bounded before it is kept: [`message`] says by what.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod addr;
mod addr_entry;
pub mod addr_relay;
pub mod addrman;
pub mod anchors;
pub mod bans;
pub mod codec;
pub mod compact;
pub mod connection;
pub mod dial;
pub mod eviction;
pub mod handshake;
pub mod message;
pub mod metrics;
pub mod netaddr;
pub mod netgroup;
pub mod peer;
pub mod rolling;
pub mod saved;
pub mod seeds;
pub mod transport;
pub mod version;

pub use addr::PeerAddr;
pub use addr_entry::{AddrEntry, MAX_ADDR};
pub use netaddr::{NetAddr, NetAddress, NetKind};
pub use transport::TransportKind;
pub use version::ConnectionKind;
