//! Unconfirmed transactions.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod backlog;
pub mod fees;
pub mod projected;
