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
pub mod codec;
pub mod compact;
pub mod connection;
pub mod dial;
pub mod handshake;
pub mod metrics;
pub mod peer;

pub use addr::PeerAddr;
