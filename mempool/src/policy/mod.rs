//! The rules of acceptance, each a pure function, with the reasons and details of Bitcoin
//! Core 31.
//!
//! In the order in which they are asked:
//!
//! ```text
//! check -> standard -> locks -> (inputs are found) -> locks -> amounts -> inputs
//!       -> ephemeral -> fee floor -> truc -> replace -> cluster limits -> ephemeral -> scripts
//! ```
//!
//! # Limits
//! The kernel runs scripts under the rules of consensus only. Of the rules of policy about
//! scripts those are here that can be decided without running them: see [`signatures`].

pub mod amounts;
pub mod check;
pub mod ephemeral;
pub mod inputs;
pub mod locks;
pub mod package;
pub mod replace;
pub mod script;
pub mod signatures;
pub mod standard;
pub mod truc;

/// Weight units per vB (BIP 141).
pub const WITNESS_SCALE: u64 = 4;
/// Most weight of a transaction.
pub const MAX_TX_WEIGHT: u64 = 400_000;
/// Virtual bytes that one signature operation stands for.
pub const BYTES_PER_SIGOP: u64 = 20;
/// Most transactions in a cluster.
pub const MAX_CLUSTER_TXS: usize = 64;
/// Most size of a cluster, in weight units (101 kvB).
pub const MAX_CLUSTER_WEIGHT: i64 = 404_000;
/// Largest amount of money, in satoshis.
pub const MAX_MONEY: u64 = 2_100_000_000_000_000;

/// Weight as policy sees it: more than the real one for many signature operations.
#[must_use]
pub fn adjusted_weight(weight: u64, sigop_cost: u64) -> u64 {
    weight.max(sigop_cost * BYTES_PER_SIGOP)
}

/// Virtual size of that weight, in vB, rounded up.
#[must_use]
pub fn vsize(adjusted_weight: u64) -> u64 {
    adjusted_weight.div_ceil(WITNESS_SCALE)
}
