//! The Bitcoin wire: frames, handshake, one connection per peer.
//!
//! ```text
//! dial -> handshake -> connection { read loop -> events, outbox -> write loop }
//! ```
//!
//! What is asked of peers, and what their answers mean, is decided in [`crate::sync`].
//! Connections that others make to us are [`crate::serve`]'s; both share frames and
//! handshake.
//!
//! # Limits
//! Plain TCP (v1 transport) only. Nothing is served to peers that we connected to:
//! their `getheaders` gets an empty list and their `getdata` a `notfound`.

pub mod codec;
pub mod connection;
pub mod dial;
pub mod handshake;
pub mod peer;
