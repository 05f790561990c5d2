//! From a socket to a valid chain. Knows neither the index nor JSON.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::print_stderr))]

pub mod chain;
pub mod config;
pub mod headers;
pub mod metrics;
pub mod p2p;
pub mod serve;
pub mod sync;
