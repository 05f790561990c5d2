//! Throws mutated messages at every parser of bytes that come from peers and clients.
//!
//! ```text
//! seeds, corpus -> [mutate] -> target -> outcome; inputs with a new outcome are kept
//!                                 |
//!                                 panic, hang, or too much memory: saved, run ends
//! ```
//!
//! A target is a function of bytes alone. It panics when what it tests does not hold;
//! it returns a number that says what became of the input, so that the run can tell
//! inputs that lead somewhere new. There is no instrumentation, so all of it builds
//! with the stable compiler of the product.
//!
//! # Limits
//! Without coverage of the code, outcomes are what guides: how a message decoded, which
//! error ended a connection, and after how much.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests may"))]

pub mod mutate;
pub mod run;
mod seeds;
pub mod targets;

/// One parser under test.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name on the command line and the folder of its corpus.
    pub name: &'static str,
    /// Tests it with one input; gives what became of it. Panics if something is wrong.
    pub run: fn(&[u8]) -> u64,
    /// Valid inputs to start from.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target {
        name: "message",
        run: targets::message::run,
        seeds: targets::message::seeds,
    },
    Target {
        name: "addr",
        run: targets::addr::run,
        seeds: targets::addr::seeds,
    },
    Target {
        name: "compact_block",
        run: targets::compact_block::run,
        seeds: targets::compact_block::seeds,
    },
    Target {
        name: "block",
        run: targets::block::run,
        seeds: targets::block::seeds,
    },
    Target {
        name: "frames_v1",
        run: targets::frames::run,
        seeds: targets::frames::seeds,
    },
    Target {
        name: "handshake",
        run: targets::handshake::run,
        seeds: targets::handshake::seeds,
    },
    Target {
        name: "accept",
        run: targets::accept::run,
        seeds: targets::accept::seeds,
    },
    Target {
        name: "connect_v2",
        run: targets::accept::run_outbound,
        seeds: targets::accept::seeds,
    },
    Target {
        name: "packets_v2",
        run: targets::packets::run,
        seeds: targets::packets::seeds,
    },
    Target {
        name: "ciphertext_v2",
        run: targets::packets::run_ciphertext,
        seeds: targets::packets::seeds,
    },
    Target {
        name: "fleet_hello",
        run: targets::fleet::run_hello,
        seeds: targets::fleet::seeds_hello,
    },
    Target {
        name: "fleet_status",
        run: targets::fleet::run_status,
        seeds: targets::fleet::seeds_status,
    },
    Target {
        name: "http_path",
        run: targets::http::run_path,
        seeds: targets::http::path_seeds,
    },
    Target {
        name: "http_query",
        run: targets::http::run_query,
        seeds: targets::http::query_seeds,
    },
    Target {
        name: "http_body",
        run: targets::http::run_body,
        seeds: targets::http::body_seeds,
    },
    Target {
        name: "descriptors",
        run: targets::descriptors::run,
        seeds: targets::descriptors::seeds,
    },
    Target {
        name: "electrum",
        run: targets::electrum::run,
        seeds: targets::electrum::seeds,
    },
];
