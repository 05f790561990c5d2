//! Metadata of a node: its identity, the peers it has met, statistics of its runs, and
//! what other crates want to know again at the next start
//! ([`PeerStore`](pulse_primitives::ports::PeerStore)): addresses, bans, anchors, fees. And
//! what the operator put there: labels ([`LabelStore`](pulse_primitives::labels::LabelStore))
//! and API keys ([`ApiKeyStore`](pulse_primitives::api_keys::ApiKeyStore)), which have exports
//! of their own.
//!
//! Nothing that an answer depends on lives here, and no cursor: those are in the
//! index, in one batch with their rows. What lives here is either rebuilt by itself
//! (peers, statistics, addresses) or mirrored to a plain file (the identity), because the
//! database below, sled 0.34, can refuse to open after an abrupt stop.
//!
//! ```text
//! <data dir>/meta/                       the sled database
//! <data dir>/identity.key                mirror of the identity key, mode 0600
//! <data dir>/meta.damaged-<time>-<n>/    a database that could not be read, kept
//! ```
//!
//! # Correctness
//! A database that does not open, or whose contents do not read, is moved aside and
//! never deleted; a new one is filled from the mirror, one warning is logged, and
//! `pulse_meta_recoveries_total` counts it. The node runs on.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod api_keys;
mod damage;
pub mod durable;
mod error;
pub mod identity;
mod labels;
pub mod metrics;
mod peers;
mod stats;
mod store;
mod values;

pub use error::MetaError;
pub use peers::{KnownPeer, MAX_PEERS};
pub use stats::RunStats;
pub use store::{MetaStore, Opened};
pub use values::MAX_VALUE_LEN;
