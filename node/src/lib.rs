//! From a socket to a valid chain. Knows neither the index nor JSON.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::print_stderr))]

pub mod chain;
pub mod clock;
pub mod config;
pub mod headers;
pub mod mempool;
pub mod metrics;
pub mod net;
pub mod relay;
pub mod serve;
pub mod sync;

pub use pulse_p2p as p2p;
