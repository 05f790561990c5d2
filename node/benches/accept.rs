//! How many transactions the mempool accepts in a second on one core with 100,000 in it: with
//! the kernel running their scripts, and without any checks of scripts.
//!
//! All transactions are the simulator's, signed, of every kind of script; those in the mempool
//! came in with their scripts. Each block's worth of them is from a chain of its own.

#![allow(missing_docs, clippy::unwrap_used)]
#![allow(clippy::print_stdout, reason = "a bench reports")]

use std::{
    collections::{HashMap, HashSet},
    mem::discriminant,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use parking_lot::RwLock;
use pulse_mempool::{AcceptError, AcceptOptions, Mempool, MempoolConfig, accept::accept};
use pulse_node::chain::KernelJudge;
use pulse_primitives::{
    Height,
    bitcoin::{
        Amount, Block, OutPoint, ScriptBuf, Transaction, TxOut, Txid, absolute::LockTime,
        block::Header, transaction::Version,
    },
    block::SpentOutput,
    coins::{CoinError, CoinView},
    tip::ChainTip,
};
use pulse_simulator::{Generator, GeneratorConfig, ScriptKind};
use rayon::prelude::*;

/// Transactions in the mempool.
const IN_POOL: usize = 100_000;
/// Blocks of each chain before its wallets are given coins: some coinbases are mature.
const BLOCKS: usize = 104;
/// Blocks after that: coins with relative locks can be spent.
const WAIT: usize = 12;
/// Coins that the wallets of a chain are given.
const COINS: usize = 16_000;
/// Value of each.
const COIN: Amount = Amount::from_sat(1_000_000);
/// Transactions of a chain, at most.
const TXS: u32 = 2_000;
/// Chains made at once.
const CHAINS: u64 = 8;

/// Unspent outputs of all chains, which are equally long.
struct Coins {
    tip: ChainTip,
    coins: HashMap<OutPoint, SpentOutput>,
    times: Vec<u32>,
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

/// The transactions of a chain's next block.
struct Traffic {
    /// Headers of the chain.
    headers: Vec<Header>,
    txs: Vec<Arc<Transaction>>,
    /// What they spend of earlier blocks.
    coins: HashMap<OutPoint, SpentOutput>,
    /// Kinds of scripts that they spend.
    kinds: usize,
}

impl Traffic {
    fn new(seed: u64) -> Self {
        let config = GeneratorConfig::regtest(seed).txs_per_block(TXS);
        let mut generator = Generator::new(config.clone());
        let mut blocks = vec![generator.genesis()];
        blocks.extend((0..BLOCKS).map(|_| generator.next_block()));
        blocks.push(gift(&generator));
        let mut generator = Generator::resume(config, blocks.iter().cloned()).unwrap();
        generator.set_txs_per_block(0);
        blocks.extend((0..WAIT).map(|_| generator.next_block()));
        let headers = blocks.iter().map(|block| block.header).collect();
        let unspent = outputs(blocks);
        generator.set_txs_per_block(TXS);
        let txs = generator.next_block().txdata.into_iter().skip(1);
        let txs: Vec<_> = txs.map(Arc::new).collect();
        let spent = txs.iter().flat_map(|tx| &tx.input);
        let coins: HashMap<_, _> = spent
            .map(|input| input.previous_output)
            .filter_map(|outpoint| Some((outpoint, unspent.get(&outpoint)?.clone())))
            .collect();
        let scripts: HashSet<_> = coins.values().map(|c| &c.output.script_pubkey).collect();
        let kinds: HashSet<_> = kinds(&generator)
            .filter(|(_, script)| scripts.contains(script))
            .map(|(kind, _)| discriminant(&kind))
            .collect();
        Self {
            headers,
            txs,
            kinds: kinds.len(),
            coins,
        }
    }
}

/// All scripts used so far and what they are.
fn kinds(generator: &Generator) -> impl Iterator<Item = (ScriptKind, ScriptBuf)> {
    let anchor = generator.script_kinds().remove_entry(&ScriptKind::P2a);
    generator.iter_scripts().chain(anchor)
}

/// A block that gives the wallets coins. It comes from nowhere: the generator does not ask.
fn gift(generator: &Generator) -> Block {
    let scripts: Vec<_> = kinds(generator).map(|(_, script)| script).collect();
    let nothing = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: Vec::new(),
        output: Vec::new(),
    };
    let output = scripts.into_iter().cycle().take(COINS);
    let output = output.map(|script_pubkey| TxOut {
        value: COIN,
        script_pubkey,
    });
    let coins = Transaction {
        output: output.collect(),
        ..nothing.clone()
    };
    let tip = generator.tip();
    Block {
        header: Header {
            prev_blockhash: tip.block_hash(),
            time: tip.time + 600,
            ..*tip
        },
        txdata: vec![nothing, coins],
    }
}

/// Everything that `blocks`, from genesis on, have made.
fn outputs(blocks: Vec<Block>) -> HashMap<OutPoint, SpentOutput> {
    let mut coins = HashMap::new();
    for (block, height) in blocks.into_iter().zip(0..) {
        for tx in block.txdata {
            let txid = tx.compute_txid();
            let is_coinbase = tx.is_coinbase();
            for (output, vout) in tx.output.into_iter().zip(0..) {
                let coin = SpentOutput {
                    output,
                    height,
                    is_coinbase,
                };
                coins.insert(OutPoint::new(txid, vout), coin);
            }
        }
    }
    coins
}

/// A mempool and transactions that can come.
struct Scene {
    pool: RwLock<Mempool>,
    coins: Coins,
    txs: Vec<Arc<Transaction>>,
    /// The number of `txs` that are accepted.
    accepted: usize,
}

/// How a transaction is accepted.
type Way = fn(&Scene, &Arc<Transaction>, &KernelJudge) -> Result<(), AcceptError>;

impl Scene {
    fn new() -> Self {
        let Traffic {
            headers,
            txs,
            coins,
            kinds,
        } = Traffic::new(0);
        let last = headers.last().unwrap();
        let tip = ChainTip {
            height: Height::try_from(headers.len() - 1).unwrap(),
            hash: last.block_hash(),
            time: last.time,
        };
        let mut pool = Mempool::new(MempoolConfig {
            max_mib: 2_000,
            ..MempoolConfig::default()
        });
        pool.set_tip(Some(tip), u64::from(tip.time));
        let mut scene = Self {
            pool: RwLock::new(pool),
            coins: Coins {
                tip,
                coins,
                times: headers.iter().map(|header| header.time).collect(),
            },
            txs,
            accepted: 0,
        };
        scene.fill();
        scene.accepted = scene.accept_all(Scene::accept).1;
        let inputs: usize = scene.txs.iter().map(|tx| tx.input.len()).sum();
        println!(
            "{} of {} transactions with {} inputs are accepted; they spend {} kinds of scripts",
            scene.accepted,
            scene.txs.len(),
            inputs,
            kinds,
        );
        assert!(scene.accepted * 10 > scene.txs.len() * 9 && kinds > 10);
        scene.clear();
        scene
    }

    fn fill(&mut self) {
        let judge = KernelJudge::default();
        let (mut first, mut tries) = (1, 0);
        while self.pool.read().len() < IN_POOL {
            let seeds = (first..first + CHAINS).into_par_iter();
            let chains: Vec<_> = seeds.map(Traffic::new).collect();
            first += CHAINS;
            for chain in chains {
                self.coins.coins.extend(chain.coins);
                for tx in &chain.txs {
                    if self.pool.read().len() < IN_POOL {
                        tries += 1;
                        self.accept(tx, &judge).ok();
                    }
                }
            }
        }
        self.pool.write().take_events();
        println!("{IN_POOL} of {tries} transactions are in the mempool");
    }

    fn now(&self) -> u64 {
        u64::from(self.coins.tip.time)
    }

    fn accept(&self, tx: &Arc<Transaction>, judge: &KernelJudge) -> Result<(), AcceptError> {
        let (coins, now) = (&self.coins, self.now());
        accept(&self.pool, tx, coins, judge, now, AcceptOptions::default())?;
        Ok(())
    }

    /// Leaves out what [`accept`] does about scripts.
    fn accept_unverified(
        &self,
        tx: &Arc<Transaction>,
        judge: &KernelJudge,
    ) -> Result<(), AcceptError> {
        let (coins, now) = (&self.coins, self.now());
        let pool = self.pool.read();
        let prepared = pool.prepare(tx, coins, judge, now, AcceptOptions::default())?;
        drop(pool);
        self.pool.write().commit(prepared, now)?;
        Ok(())
    }

    /// The time that it took to accept all of `txs` on one core, and how many were.
    fn accept_all(&self, way: Way) -> (Duration, usize) {
        let judge = KernelJudge::default();
        let core = rayon::ThreadPoolBuilder::new().num_threads(1);
        core.build().unwrap().install(|| {
            let start = Instant::now();
            let accepted = self.txs.iter().filter(|tx| way(self, tx, &judge).is_ok());
            let accepted = accepted.count();
            (start.elapsed(), accepted)
        })
    }

    /// Takes `txs` out again: a block confirms them, but their coins stay.
    fn clear(&mut self) {
        let pool = self.pool.get_mut();
        let txs = self.txs.iter().map(|tx| Transaction::clone(tx));
        let block = Block {
            header: Header {
                prev_blockhash: self.coins.tip.hash,
                ..GeneratorConfig::regtest(0).params.genesis().header
            },
            txdata: txs.collect(),
        };
        let txids: Vec<Txid> = self.txs.iter().map(|tx| tx.compute_txid()).collect();
        let tip = ChainTip {
            height: self.coins.tip.height + 1,
            hash: block.block_hash(),
            ..self.coins.tip
        };
        let now = u64::from(tip.time);
        pool.connect_block(&block, &txids, tip, now).unwrap();
        pool.take_events();
        assert_eq!(pool.len(), IN_POOL);
        self.coins.tip = tip;
        self.coins.times.push(tip.time);
    }
}

fn acceptance(c: &mut Criterion) {
    let mut scene = Scene::new();
    let mut group = c.benchmark_group("accept, 100,000 in the pool");
    group.sample_size(20);
    group.throughput(Throughput::Elements(scene.accepted as u64));
    let mut bench = |name, way| {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                let mut elapsed = Duration::ZERO;
                for _ in 0..count {
                    let (time, accepted) = scene.accept_all(way);
                    assert_eq!(accepted, scene.accepted);
                    elapsed += time;
                    scene.clear();
                }
                elapsed
            });
        });
    };
    bench("with scripts", Scene::accept as Way);
    bench("without scripts", Scene::accept_unverified);
    group.finish();
}

criterion_group!(benches, acceptance);
criterion_main!(benches);
