//! The Bitcoin wire: frames, handshake, one connection per peer.
//!
//! ```text
//! dial -> handshake -> connection { read loop -> events, outbox -> write loop }
//! ```
//!
//! What is asked of peers, and what their answers mean, is decided in [`crate::sync`].
//!
//! # Limits
//! Outbound connections over plain TCP (v1 transport) only. Nothing is served: a
//! peer's `getheaders` gets an empty list and its `getdata` a `notfound`.

pub mod codec;
pub mod connection;
pub mod dial;
pub mod handshake;
pub mod peer;
