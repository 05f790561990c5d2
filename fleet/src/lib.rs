//! The nodes of one operator among each other, over libp2p.
//!
//! ```text
//! seeds (DNS), mDNS, addresses that siblings tell
//!   -> dial -> TCP+Noise or QUIC -> hello: member? -> connection
//!        connection -> one stream of the Bitcoin protocol per pair -> node (net)
//!                   -> streams about snapshots: offers, manifests, chunks
//!                   -> gossip: status of each node -> report -> /stats, /health
//!                   -> ping
//! ```
//!
//! A sibling is a peer like any other to the node: what comes over the stream (headers,
//! blocks, compact blocks, transactions) meets the same rules and the same validation.
//! This crate decides who is a sibling, keeps the connections, and tells how far everyone is.
//!
//! # Correctness
//! Of two siblings the one with the lower peer id opens the stream, so that there is one.
//! Seeds are dialled until each of their addresses has been a connection, and again when it
//! is lost.
//!
//! # Security
//! Nobody gets past the handshake who is not a member ([`members`], [`hello`]). A member
//! that sends what no honest node sends is cut off for [`swarm::PUNISHMENT`]. A sibling can
//! withhold and lie about itself; it cannot make this node accept an invalid block, nor
//! call itself behind because of a tip that it has not checked.
//!
//! # Limits
//! Connections, pending handshakes and streams are limited; messages have a greatest size
//! and a greatest rate per sibling ([`swarm`]).

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests may"))]

pub mod config;
pub mod hello;
mod links;
pub mod members;
pub mod metrics;
pub mod report;
pub mod seeds;
pub mod snapshot;
pub mod status;
pub mod swarm;
pub mod ticket;
pub mod transport;

pub use config::{ConfigError, FleetConfig};
pub use report::FleetHandle;
pub use snapshot::{FetchError, Offer, SnapshotClient};
pub use swarm::{Fleet, FleetError};
