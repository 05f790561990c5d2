//! The unconfirmed transactions: what is accepted, in which order it would be mined, what
//! leaves when memory runs out.
//!
//! ```text
//! transaction -> policy -> coins -> cluster and fee rules -> scripts (the judge) -> pool
//! block       -> pool: confirmed and conflicting ones leave
//! ```
//!
//! Synchronous, without I/O and without a clock: the owner hands in coins
//! ([`CoinView`](pulse_primitives::coins::CoinView)), a judge of consensus ([`TxJudge`]) and
//! the time. It drains [`PoolEvent`]s for relay and fee estimates.
//!
//! # Correctness
//! The mempool builds upon one block, [`Mempool::tip`]; coins of another block are refused
//! with a typed error.
//!
//! # Security
//! Everything here comes from strangers. Every index is bounded by the cap on memory,
//! every algorithm by the limits of a transaction, a package, or a cluster.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod accept;
pub mod backlog;
mod cluster;
mod config;
mod error;
mod events;
pub mod feerate;
pub mod fees;
mod judge;
mod memory;
pub mod metrics;
pub mod persist;
pub mod policy;
mod pool;
pub mod projected;
mod removed;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use accept::{AcceptOptions, Accepted, PackageResult, Prepared};
pub use config::MempoolConfig;
pub use error::{AcceptError, RejectClass, Rejected, TipMismatch};
pub use events::{Entered, LeftReason, PoolEvent};
pub use judge::{ScriptFailure, TxJudge};
pub use pool::{ChunkRef, Entry, Mempool, MiningRank, PoolView, ReorgOutcome};
