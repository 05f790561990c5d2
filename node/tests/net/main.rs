//! Connections from the public surface of the net: raw sockets on the loopback device,
//! and a proxy behind which every address of the internet is a scripted peer.
#![allow(clippy::unwrap_used)]

mod common;
mod hostile;
mod inbound;
mod internet;
mod outbound;
mod transports;
