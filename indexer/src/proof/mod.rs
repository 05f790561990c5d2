//! How the index proves itself.
//!
//! - [`commitment`]: one number that stands for all unspent outputs, kept with the cursor

pub(crate) mod commitment;

pub use commitment::{ProofError, UtxoSummary};
