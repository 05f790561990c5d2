//! Chains made to order, block by block.

use bitcoin::{Amount, Block, BlockHash, Script, Transaction, TxOut, script::Builder};
use pulse_primitives::{Height, network::ChainParams};
use pulse_simulator::mine::{BlockParts, mine_block, next_bits, subsidy};

/// Builds a valid chain on regtest, or on a signet with the challenge `51`, with
/// exactly the transactions that a test asks for.
#[derive(Debug, Clone)]
pub struct ChainBuilder {
    params: ChainParams,
    blocks: Vec<Block>,
    tag: u64,
    /// Earliest time of the next block, in seconds since 1970.
    not_before: u32,
}

impl ChainBuilder {
    /// A chain that consists of genesis.
    #[must_use]
    pub fn new(params: ChainParams) -> Self {
        let blocks = vec![params.genesis()];
        Self::from_blocks(params, blocks)
    }

    /// A chain that continues `blocks`, which start with genesis.
    ///
    /// # Panics
    /// If they do not.
    #[must_use]
    pub fn from_blocks(params: ChainParams, blocks: Vec<Block>) -> Self {
        assert_eq!(
            blocks.first().map(Block::block_hash),
            Some(params.genesis_hash()),
            "the chain starts with genesis"
        );
        Self {
            params,
            blocks,
            tag: 0,
            not_before: 0,
        }
    }

    /// A chain that shares the blocks up to and including `height` and then goes its
    /// own way: its blocks differ from those of the other even with equal content.
    #[must_use]
    pub fn branch_at(&self, height: Height) -> Self {
        let len = usize::try_from(height).expect("fits") + 1;
        Self {
            params: self.params.clone(),
            blocks: self.blocks[..len].to_vec(),
            tag: self.tag + 1,
            not_before: self.not_before,
        }
    }

    /// From now on blocks have at least this time, in seconds since 1970. Otherwise a
    /// block comes ten minutes after the one before it.
    pub fn not_before(&mut self, time: u32) {
        self.not_before = time;
    }

    /// Mines a block without transactions but the coinbase, which pays to OP_TRUE.
    pub fn mine_empty(&mut self) -> &Block {
        self.mine(Builder::new().push_int(1).as_script(), Amount::ZERO, vec![])
    }

    /// Mines `count` such blocks.
    pub fn mine_empty_blocks(&mut self, count: u32) {
        for _ in 0..count {
            self.mine_empty();
        }
    }

    /// Mines a block with the given transactions, whose coinbase pays the subsidy and
    /// `fees` to `script`. Nothing is checked.
    pub fn mine(&mut self, script: &Script, fees: Amount, txs: Vec<Transaction>) -> &Block {
        let value = subsidy(self.params.network, self.height() + 1) + fees;
        self.mine_outputs(
            vec![TxOut {
                value,
                script_pubkey: script.to_owned(),
            }],
            txs,
        )
    }

    /// Mines a block whose coinbase has the given outputs (and the witness commitment).
    pub fn mine_outputs(&mut self, outputs: Vec<TxOut>, txs: Vec<Transaction>) -> &Block {
        let block = self.build(outputs, txs);
        self.blocks.push(block);
        self.tip()
    }

    /// As [`ChainBuilder::mine_outputs`], without adding the block to the chain.
    #[must_use]
    pub fn build(&self, outputs: Vec<TxOut>, txs: Vec<Transaction>) -> Block {
        let height = self.height() + 1;
        let prev = &self.tip().header;
        let period = self.params.consensus.difficulty_adjustment_interval();
        let period_start = u64::from(self.height()) / period * period;
        let first = &self.blocks[usize::try_from(period_start).expect("fits")].header;
        mine_block(BlockParts {
            height,
            prev: prev.block_hash(),
            time: self.not_before.max(prev.time + 600),
            bits: next_bits(&self.params, height, prev, first.time),
            extra: self.tag.to_le_bytes().to_vec(),
            outputs,
            txs,
        })
    }

    /// Height of the newest block.
    #[must_use]
    pub fn height(&self) -> Height {
        Height::try_from(self.blocks.len() - 1).expect("fits")
    }

    /// The newest block.
    #[must_use]
    pub fn tip(&self) -> &Block {
        self.blocks.last().expect("there is genesis")
    }

    /// Hash of the newest block.
    #[must_use]
    pub fn tip_hash(&self) -> BlockHash {
        self.tip().block_hash()
    }

    /// All blocks, genesis first.
    #[must_use]
    pub fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Parameters of the chain.
    #[must_use]
    pub fn params(&self) -> &ChainParams {
        &self.params
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::Network;

    #[test]
    fn branches_share_their_past_only() {
        let mut chain = ChainBuilder::new(ChainParams::new(Network::Regtest, None));
        chain.mine_empty_blocks(5);
        let mut branch = chain.branch_at(2);
        branch.mine_empty_blocks(4);
        assert_eq!(branch.height(), 6);
        assert_eq!(branch.blocks()[..3], chain.blocks()[..3]);
        assert_ne!(branch.blocks()[3], chain.blocks()[3]);
        assert!(branch.tip().check_merkle_root() && branch.tip().check_witness_commitment());
    }
}
