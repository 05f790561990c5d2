//! From what strangers send to what they ask, for the servers of the API.
//!
//! ```text
//! HTTP:     path -> path, query -> query, body -> body or keychain
//! Electrum: line -> rpc
//! ```
//!
//! Pure: no socket, no store, no runtime, so that all of it is fuzzed by itself (`fuzz/`).
//!
//! # Security
//! Everything here comes from strangers. Lengths are bounded before it gets here, by the
//! servers; what can nest or multiply has limits here. Errors have the texts that clients are
//! sent, and of what may hold secrets ([`keychain`]) they repeat nothing.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests may"))]

pub mod body;
mod error;
pub mod keychain;
pub mod path;
pub mod query;
pub mod rpc;

pub use error::RequestError;
