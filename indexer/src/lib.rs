//! From a connected block to an answer. Knows no HTTP and no peers.
//!
//! ```text
//! BlockSource -> prepared -> batch -> store -> query
//!                (keyed hashes) (rows)   (RocksDB) (View)
//! ```
//!
//! [`Index`] is opened once; [`IndexSync`] keeps it in step with the active chain and
//! [`query::Query`] reads it. docs/schema.md describes the rows.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "tests may"
    )
)]

mod batch;
mod budget;
pub mod config;
mod index;
mod keys;
pub mod metrics;
mod prepared;
pub mod proof;
pub mod query;
mod rows;
mod stale;
mod store;
mod sync;
#[cfg(test)]
mod tests;

pub use config::IndexConfig;
pub use index::Index;
pub use prepared::Inconsistent;
pub use proof::{
    CoreStats, Difference, ProofError, UtxoSummary, VerifyOptions, VerifyReport, VerifyStep, Wrong,
};
pub use query::Query;
pub use store::{StoreError, audit::FamilyStats, durability::WrittenBytes, open::OpenError};
pub use sync::{IndexSync, SyncError, progress::Progress};
