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
pub mod codec;
pub mod connection;
pub mod dial;
pub mod handshake;
pub mod message;
pub mod metrics;
pub mod net_addr;
pub mod peer;
pub mod transport;
pub mod version;

pub use addr::PeerAddr;
pub use net_addr::{AddrEntry, NetAddr, NetKind};
pub use transport::TransportKind;
pub use version::ConnectionKind;
