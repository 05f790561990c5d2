//! Transaction relay: what to ask peers for, what to announce to them, and what to
//! serve.
//!
//! ```text
//! peers -> inv  -> Downloads (requests, orphanage, recent) -> getdata -> peers
//! peers -> tx   -> Downloads -> judges (bounded, fair) -> mempool -> Inventory -> inv -> peers
//! peers -> getdata -> mempool, as far as announced -> tx -> peers
//! ```
//!
//! [`requests`], [`orphanage`], [`recent`], [`download`], [`inventory`], [`feefilter`],
//! [`broadcast`], [`joining`] and [`judges`] are the pure parts: times and random numbers are given to them.

pub mod broadcast;
pub mod download;
pub mod feefilter;
pub mod ids;
pub mod inventory;
pub mod joining;
pub mod judges;
mod manager;
pub mod orphanage;
pub mod recent;
pub mod requests;

pub use manager::{Relay, RelayError};
