//! The sync from its public surface: peers on loopback sockets, and the real kernel.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

mod bitcoind;
mod common;
mod compact;
mod presync;
mod real_chain;
mod scripted;
mod served;
