//! The built binary, driven from outside through its sockets.
//!
//! One binary, one module per scene.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod e2e {
    mod archive;
    mod bcoin;
    mod books;
    pub mod bootstrap;
    mod busy;
    mod clients;
    pub mod common;
    mod contract;
    mod crash;
    mod damage;
    mod descriptors;
    pub mod electrum;
    mod fallback;
    mod filters;
    pub mod fleet;
    mod golden;
    mod hostile;
    mod http;
    pub mod https;
    mod limits;
    mod memory;
    pub mod mounts;
    mod openapi;
    mod operation;
    mod operator;
    mod power;
    mod proof;
    mod push;
    mod reindex;
    mod reorg;
    mod schemathesis;
    mod signet;
    mod simulate;
    mod snapshot;
    mod traces;
    mod wallet;
}

/// Beside a real Bitcoin Core, which `BITCOIND` names: by hand, with `--ignored`.
mod interop {
    mod chain;
    mod conformance;
    mod electrs;
    mod http;
    mod odd;
    mod peers;
    mod verbose;
}

/// Measurements, by hand and with `--ignored`.
mod speed {
    mod electrum;
    mod fleet;
    mod push;
    mod snapshot;
    mod tip;
}
