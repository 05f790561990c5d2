//! How many transactions the mempool accepts in a second, on one core: with the kernel
//! running their scripts, and with a judge that passes everything.
//!
//! The transactions are those of simulated blocks, of every kind of script.

#![allow(missing_docs, clippy::unwrap_used)]

use std::{collections::HashMap, hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use parking_lot::RwLock;
use pulse_mempool::{
    AcceptOptions, Mempool, MempoolConfig, ScriptFailure, TxJudge, accept::accept,
};
use pulse_node::chain::KernelJudge;
use pulse_primitives::{
    Height,
    bitcoin::{Block, OutPoint, Transaction, TxOut, Txid},
    block::SpentOutput,
    coins::{CoinError, CoinView},
    tip::ChainTip,
};
use pulse_simulator::{Generator, GeneratorConfig};

/// Blocks before the transactions that are accepted.
const BLOCKS: usize = 300;
/// Transactions that are accepted, at most.
const TXS: u32 = 2_000;

/// Unspent outputs of a simulated chain.
struct Coins {
    tip: ChainTip,
    coins: HashMap<OutPoint, SpentOutput>,
    times: Vec<u32>,
}

impl Coins {
    fn connect(&mut self, block: &Block, height: Height) {
        for tx in &block.txdata {
            for input in &tx.input {
                self.coins.remove(&input.previous_output);
            }
            let txid = tx.compute_txid();
            for (output, vout) in tx.output.iter().zip(0..) {
                let coin = SpentOutput {
                    output: output.clone(),
                    height,
                    is_coinbase: tx.is_coinbase(),
                };
                self.coins.insert(OutPoint::new(txid, vout), coin);
            }
        }
        self.times.push(block.header.time);
        self.tip = ChainTip {
            height,
            hash: block.block_hash(),
            time: block.header.time,
        };
    }
}

impl CoinView for Coins {
    fn tip(&self) -> ChainTip {
        self.tip
    }

    fn coin(&self, outpoint: &OutPoint) -> Result<Option<SpentOutput>, CoinError> {
        Ok(self.coins.get(outpoint).cloned())
    }

    fn has_unspent(&self, _: &Txid) -> Result<bool, CoinError> {
        Ok(false)
    }

    fn median_time_past(&self, height: Height) -> Result<u32, CoinError> {
        let end = height as usize + 1;
        let mut times = self.times[end.saturating_sub(11)..end].to_vec();
        times.sort_unstable();
        Ok(times[times.len() / 2])
    }
}

/// Passes everything.
struct Anything;

impl TxJudge for Anything {
    fn check(&self, _: &[u8]) -> Result<(), String> {
        Ok(())
    }

    fn verify(&self, _: &[u8], _: &[TxOut]) -> Result<(), ScriptFailure> {
        Ok(())
    }
}

fn chain() -> (Coins, Vec<Arc<Transaction>>) {
    let mut generator = Generator::new(GeneratorConfig::regtest(8).txs_per_block(100));
    let genesis = generator.genesis();
    let mut coins = Coins {
        tip: ChainTip {
            height: 0,
            hash: genesis.block_hash(),
            time: genesis.header.time,
        },
        coins: HashMap::new(),
        times: Vec::new(),
    };
    coins.connect(&genesis, 0);
    for _ in 0..BLOCKS {
        let block = generator.next_block();
        coins.connect(&block, generator.height());
    }
    generator.set_txs_per_block(TXS);
    let txs = generator.next_block().txdata.into_iter().skip(1);
    (coins, txs.map(Arc::new).collect())
}

fn accept_all(coins: &Coins, txs: &[Arc<Transaction>], judge: &dyn TxJudge) -> usize {
    let mut pool = Mempool::new(MempoolConfig::default());
    let now = u64::from(coins.tip.time);
    pool.set_tip(Some(coins.tip), now);
    let pool = RwLock::new(pool);
    txs.iter()
        .filter(|tx| accept(&pool, tx, coins, judge, now, AcceptOptions::default()).is_ok())
        .count()
}

fn acceptance(c: &mut Criterion) {
    let (coins, txs) = chain();
    let accepted = accept_all(&coins, &txs, &KernelJudge::default());
    assert!(accepted * 10 > txs.len() * 9, "{accepted} of {}", txs.len());
    let mut group = c.benchmark_group("accept");
    group.sample_size(10);
    group.throughput(Throughput::Elements(accepted as u64));
    group.bench_function("with_scripts", |b| {
        b.iter_batched(
            KernelJudge::default,
            |judge| black_box(accept_all(&coins, &txs, &judge)),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("without_scripts", |b| {
        b.iter(|| black_box(accept_all(&coins, &txs, &Anything)));
    });
    group.finish();
}

criterion_group!(benches, acceptance);
criterion_main!(benches);
