//! A seeded generator of valid chains, for `--simulate`, tests and benchmarks.
//!
//! ```text
//! address book (keys, scripts) + coin pool -> plan -> sign in parallel -> mine -> absorb
//! ```
//!
//! Coins move between many wallets with real signatures over every standard script
//! type: P2PK, P2PKH, bare multisig, P2SH, P2SH-P2WPKH, P2WPKH, P2WSH (multisig, CLTV,
//! CSV), P2TR by key and by script, P2A and OP_RETURN. A few wallets are BIP 32
//! wallets with descriptors that any other wallet software can open.
//!
//! # Correctness
//! The next block is a function of the configuration and the chain alone: random
//! choices are drawn from a stream keyed by (seed, height, hash of the tip), signatures
//! use no other entropy, and the state after a block is the same whether the block was
//! generated or read ([`Generator::resume`]), with transactions of others in it or not.
//!
//! # Limits
//! Regtest, and signets whose challenge is `51` (anyone may sign). Everything stays
//! under Bitcoin Core's limits for weight and signature operations.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod address;
mod coins;
mod config;
mod file;
mod foreign;
mod generator;
mod hd;
mod keys;
mod ledger;
mod live;
pub mod mine;
mod plan;
mod sign;

pub use address::{Quorum, ScriptKind};
pub use config::GeneratorConfig;
pub use file::{
    BlockFileWriter, ChainSummary, SimulateError, SimulateFileOptions, write_blocks, write_chain,
};
pub use generator::{Generator, ResumeError};
pub use hd::HdWallet;
pub use ledger::{Ledger, LedgerUtxo, ScriptLedger, WalletLedger};
pub use live::LiveMiner;
