//! What a simulated chain is made of.

use bitcoin::Network;
use pulse_primitives::network::ChainParams;

/// Parameters of a simulated chain. Two generators with equal parameters make the
/// same chain, byte by byte.
#[derive(Debug, Clone)]
pub struct GeneratorConfig {
    /// The network: regtest, or a signet with the challenge `51`.
    pub params: ChainParams,
    /// Seed of all keys and all choices.
    pub seed: u64,
    /// Transactions in a block besides the coinbase, once there are coins enough.
    pub txs_per_block: u32,
    /// Number of wallets among which the addresses are dealt out, at least 1.
    pub wallets: u32,
    /// Time of the first block, in seconds since 1970.
    pub start_time: u32,
    /// Time between two blocks, in seconds.
    pub block_interval: u32,
    /// Whether to keep a [`Ledger`](crate::Ledger). Costs memory for every output
    /// ever made, so big chains go without.
    pub ledger: bool,
    /// Whether the traffic is as uneven as that of mainnet: one address is in about a
    /// twelfth of all transactions, and one only ever receives, in one of 140.
    pub uneven: bool,
}

impl GeneratorConfig {
    /// A regtest chain with 25 transactions in a block among 100 wallets, a block
    /// every ten minutes from 2023-11-14, and no ledger.
    #[must_use]
    pub fn regtest(seed: u64) -> Self {
        Self::new(ChainParams::new(Network::Regtest, None), seed)
    }

    /// As [`GeneratorConfig::regtest`], for other parameters.
    #[must_use]
    pub fn new(params: ChainParams, seed: u64) -> Self {
        Self {
            params,
            seed,
            txs_per_block: 25,
            wallets: 100,
            start_time: 1_700_000_000,
            block_interval: 600,
            ledger: false,
            uneven: false,
        }
    }

    /// The same with another number of transactions in a block.
    #[must_use]
    pub fn txs_per_block(mut self, txs_per_block: u32) -> Self {
        self.txs_per_block = txs_per_block;
        self
    }

    /// The same with uneven traffic.
    #[must_use]
    pub fn uneven(mut self) -> Self {
        self.uneven = true;
        self
    }

    /// The same with a ledger.
    #[must_use]
    pub fn with_ledger(mut self) -> Self {
        self.ledger = true;
        self
    }
}
