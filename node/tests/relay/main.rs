//! The mempool and transaction relay, from outside: a chain in memory, the kernel as
//! judge of scripts, and peers that are played by the test.
#![allow(clippy::unwrap_used)]

mod chain;
mod common;
mod judge;
mod mempool;
mod peers;
