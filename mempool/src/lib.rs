//! Unconfirmed transactions.
#![cfg_attr(test, allow(clippy::unwrap_used))]
