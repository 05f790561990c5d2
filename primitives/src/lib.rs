//! Words that all crates of pulse-node share.
//!
//! No I/O and no runtime: only types, the parameters of each network, and the
//! ports through which the crates meet. Data flows one way:
//!
//! ```text
//! peer -> block -> validation -> tip change -> index batch -> query -> JSON
//! ```
//!
//! `bitcoin` is re-exported so that the workspace has one version of it.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests may"))]

pub use bitcoin;

pub mod api_keys;
pub mod block;
pub mod coins;
pub mod filters;
pub mod fleet;
pub mod labels;
pub mod mempool;
pub mod network;
pub mod page;
pub mod peers;
pub mod ports;
pub mod status;
pub mod tip;
pub mod touched;
pub mod trace;

/// Height of a block: its distance from genesis, in blocks. Genesis is 0.
pub type Height = u32;
