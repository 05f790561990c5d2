//! A chain that grows by the clock.

use bitcoin::{Block, Transaction};
use pulse_primitives::{Height, mempool::MempoolTx};

use crate::Generator;

/// Height up to which blocks are mined without waiting, so that there is something to
/// see at once: coinbases mature after 100 blocks, then the coins fan out.
const WARM_UP: Height = 130;

/// Owns a [`Generator`] and tells when the next block is due. The caller owns the clock,
/// and submits the blocks.
#[derive(Debug)]
pub struct LiveMiner {
    generator: Generator,
}

impl LiveMiner {
    /// A miner that goes on where `generator` stands, one block every
    /// [`block_interval`](crate::GeneratorConfig::block_interval) seconds.
    #[must_use]
    pub fn new(generator: Generator) -> Self {
        Self { generator }
    }

    /// Whether the chain is still too young to wait between blocks.
    #[must_use]
    pub fn is_warming_up(&self) -> bool {
        self.generator.height() < WARM_UP
    }

    /// Time at which the next block is due, in seconds since 1970; 0 (that is: now)
    /// while warming up.
    #[must_use]
    pub fn next_due(&self) -> u64 {
        if self.is_warming_up() {
            return 0;
        }
        u64::from(self.generator.tip().time) + u64::from(self.generator.config().block_interval)
    }

    /// Mines the next block at time `now` (seconds since 1970), whether it is due or not.
    /// Its time is `now`, but later than the median of the last eleven; blocks of the
    /// warm-up are dated back as if they had been mined at the same pace.
    ///
    /// `mempool` has transactions that may be in it, as [`Generator::next_block_with`]
    /// wants them.
    pub fn mine(&mut self, now: u32, mempool: Vec<MempoolTx>) -> Block {
        let behind = WARM_UP.saturating_sub(self.generator.height() + 1);
        let interval = self.generator.config().block_interval;
        let time = now.saturating_sub(behind.saturating_mul(interval));
        self.generator.next_block_with(time, mempool)
    }

    /// The generator's transactions of the next block, in its order: they do not depend on
    /// when it is mined. None while warming up.
    #[must_use]
    pub fn upcoming(&self) -> Vec<Transaction> {
        if self.is_warming_up() {
            return Vec::new();
        }
        let mut ahead = self.generator.clone();
        let mut txs = ahead.next_block().txdata;
        txs.remove(0);
        txs
    }

    /// The generator, for what it knows about wallets.
    #[must_use]
    pub fn generator(&self) -> &Generator {
        &self.generator
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GeneratorConfig;

    #[test]
    fn upcoming_transactions_are_those_of_the_next_block() {
        let config = GeneratorConfig::regtest(2).txs_per_block(6);
        let mut miner = LiveMiner::new(Generator::new(config));
        let now = 1_800_000_000;
        while miner.is_warming_up() {
            assert!(miner.upcoming().is_empty());
            miner.mine(now, vec![]);
        }
        for later in [10, 20, 30] {
            let upcoming = miner.upcoming();
            assert!(!upcoming.is_empty());
            assert_eq!(miner.mine(now + later, vec![]).txdata[1..], upcoming);
        }
    }

    #[test]
    fn blocks_carry_real_times_and_are_due_at_a_pace() {
        let mut config = GeneratorConfig::regtest(1).txs_per_block(2);
        config.block_interval = 5;
        let mut miner = LiveMiner::new(Generator::new(config));
        let now = 1_800_000_000;
        let mut times = Vec::new();
        while miner.is_warming_up() {
            assert_eq!(miner.next_due(), 0);
            times.push(miner.mine(now, vec![]).header.time);
        }
        assert!(times.is_sorted());
        assert_eq!(times.last(), Some(&now));
        assert_eq!(miner.next_due(), u64::from(now) + 5);
        // A clock that stands still gives valid times all the same.
        for _ in 0..30 {
            let median = miner.generator().median_time_past();
            assert!(miner.mine(now, vec![]).header.time > median);
        }
    }
}
