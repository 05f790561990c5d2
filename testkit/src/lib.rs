//! What tests and benchmarks need around a node: real chain data, chains made to
//! order, peers that serve blocks (well or badly), and a launcher for our own binary.
//!
//! Nothing here shares code with the node's own P2P implementation, so that a mistake
//! in one does not hide in the other.
//!
//! # Panics
//! Whatever goes wrong here is a broken test, so functions panic with a message rather
//! than return errors, unless a test is about the error.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bcoin;
pub mod behaviour;
pub mod bitcoind;
pub mod block_builder;
pub mod chaindata;
pub mod electrum_wallet;
pub mod golden;
pub mod launcher;
pub mod peer;
pub mod served_chain;
mod session;
pub mod txgen;
pub mod wire;

pub use bcoin::Bcoin;
pub use behaviour::{AnswerOrder, Behaviour};
pub use bitcoind::Bitcoind;
pub use block_builder::ChainBuilder;
pub use chaindata::ChainData;
pub use electrum_wallet::ElectrumWallet;
pub use golden::{Golden, GoldenScript, GoldenUtxo};
pub use launcher::{Answer, Exit, NodeOptions, PulseNode, Reply};
pub use peer::{PeerLog, ScriptedPeer};
pub use served_chain::{BlockFileError, ServedChain};
pub use txgen::TxGen;
