//! Connections from the public surface of the net: raw sockets on the loopback device,
//! and a proxy behind which every address of the internet is a scripted peer.
#![allow(clippy::unwrap_used)]

#[path = "../relay/chain.rs"]
#[allow(dead_code, reason = "shared with the tests of the mempool")]
mod chain;
mod common;
mod hostile;
mod inbound;
mod internet;
#[path = "../relay/common.rs"]
#[allow(dead_code, reason = "shared with the tests of the mempool")]
mod mempool;
mod outbound;
mod passing;
mod relaying;
mod rules;
mod transports;
