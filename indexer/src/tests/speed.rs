//! How fast the index is by itself: `cargo test --release -p pulse-indexer speed --
//! --ignored --nocapture`.

use std::{sync::Arc, time::Instant};

use pulse_primitives::{
    Height,
    bitcoin::{
        Amount, OutPoint, ScriptBuf, Transaction, TxOut,
        hashes::{Hash, sha256},
    },
    block::SpentOutput,
    ports::BlockSource,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    Fixture, config,
    memchain::{self, MemChain},
    params,
};
use crate::{Index, IndexConfig};

const BLOCKS: usize = 400;
const TXS_PER_BLOCK: usize = 1300;

/// CPU seconds of this process so far.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace();
    let ticks = fields
        .skip(11)
        .take(2)
        .map(|field| field.parse::<f64>().unwrap());
    ticks.sum::<f64>() / 100.0
}

/// Makes blocks: two inputs and outputs per transaction, a tenth of the outputs to 100
/// hot scripts.
struct Maker {
    rng: StdRng,
    coins: Vec<(OutPoint, SpentOutput)>,
    /// Transactions have more outputs while there are fewer coins.
    pool: usize,
    template: Transaction,
}

impl Maker {
    fn new(pool: usize) -> Self {
        Self {
            pool,
            rng: StdRng::seed_from_u64(1),
            coins: Vec::new(),
            template: params().genesis().txdata.remove(0),
        }
    }

    /// Adds a block to the chain, with `txs` transactions if there is enough to spend.
    fn mine(&mut self, chain: &MemChain, txs: usize) {
        let height = chain.active().len();
        let (mut txdata, mut spent, mut created) = (Vec::new(), Vec::new(), Vec::new());
        for index in 0..txs {
            let mut tx = self.template.clone();
            let outputs = if self.coins.len() < self.pool { 6 } else { 2 };
            tx.output = (0..outputs).map(|_| output(&mut self.rng)).collect();
            if index == 0 {
                tx.input[0].script_sig = ScriptBuf::from_bytes(height.to_le_bytes().to_vec());
            } else if self.coins.len() > 2 {
                let input = tx.input[0].clone();
                tx.input.clear();
                let mut entry = Vec::new();
                for _ in 0..2 {
                    let at = self.rng.gen_range(0..self.coins.len());
                    let (outpoint, coin) = self.coins.swap_remove(at);
                    let mut input = input.clone();
                    input.script_sig = ScriptBuf::from_bytes(vec![7; 107]);
                    input.previous_output = outpoint;
                    tx.input.push(input);
                    entry.push(coin);
                }
                spent.push(entry);
            } else {
                continue;
            }
            let txid = tx.compute_txid();
            for (vout, output) in (0..).zip(&tx.output) {
                let coin = SpentOutput {
                    output: output.clone(),
                    height: height as Height,
                    is_coinbase: index == 0,
                };
                created.push((OutPoint { txid, vout }, coin));
            }
            txdata.push(tx);
        }
        self.coins.extend(created);
        let previous = *chain.active().last().unwrap();
        let block = memchain::block(previous, height as Height, txdata, 1);
        chain.connect(block, spent);
    }
}

fn output(rng: &mut StdRng) -> TxOut {
    let mut script = vec![0, 0x14];
    if rng.gen_bool(0.1) {
        script.extend_from_slice(&[rng.gen_range(0..100); 20]);
    } else {
        script.extend_from_slice(&rng.r#gen::<[u8; 20]>());
    }
    TxOut {
        value: Amount::from_sat(rng.gen_range(1000..100_000_000)),
        script_pubkey: ScriptBuf::from_bytes(script),
    }
}

fn long_chain(pool: usize) -> (MemChain, Maker) {
    let (chain, mut maker) = (MemChain::new(&params()), Maker::new(pool));
    for _ in 1..=BLOCKS {
        maker.mine(&chain, TXS_PER_BLOCK);
    }
    (chain, maker)
}

/// As in earnest, unlike the indexes of the other tests.
fn open(path: &std::path::Path, chain: &Arc<MemChain>, config: &IndexConfig) -> Fixture {
    let index = Index::open(path, config, &params()).unwrap();
    Fixture::of(index, Arc::clone(chain))
}

/// What a new block costs between the node's answer and its being visible, near the tip:
/// `cargo test --release -p pulse-indexer tip_speed -- --ignored --nocapture`. In memory
/// nothing waits for the disk; on disk the difference is the sync of the log.
#[test]
#[ignore = "a measurement, not a check"]
#[allow(clippy::print_stderr, clippy::cast_precision_loss)]
fn tip_speed() {
    const ROUNDS: usize = 15;

    let (chain, mut maker) = long_chain(50_000);
    let chain = Arc::new(chain);
    let memory = super::scratch_dir();
    let disk = tempfile::tempdir().unwrap();
    let config = IndexConfig {
        salt: config().salt,
        ..IndexConfig::default()
    };
    let open = |path| open(path, &chain, &config);
    chain.set_best_header(BLOCKS as Height + 1000);
    let mut fixtures = [("memory", open(memory.path())), ("disk", open(disk.path()))];
    for (_, fixture) in &mut fixtures {
        fixture.catch_up().unwrap();
        make_checkpoints(fixture);
        fixture.index.flush().unwrap();
        fixture.index.shared.store.settle();
    }
    let keys = crate::keys::Keys::new(&[0; 16]);
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        (times[times.len() / 2] * 1e3, times[times.len() - 1] * 1e3)
    };
    for txs in [2500, 7000] {
        let mut names = vec!["load", "hash"];
        names.extend(fixtures.iter().map(|(name, _)| *name));
        let mut times = vec![Vec::new(); names.len()];
        let mut cpu = [0.0; 2];
        for _ in 0..ROUNDS {
            maker.mine(&chain, txs);
            let height = chain.active().len() as Height - 1;
            chain.set_best_header(height);
            let hash = chain.hash_at(height).unwrap();
            let start = Instant::now();
            let block = chain.load(&hash, height).unwrap();
            times[0].push(start.elapsed().as_secs_f64());
            let start = Instant::now();
            assert!(crate::prepared::Prepared::new(block, &keys, false).is_ok());
            times[1].push(start.elapsed().as_secs_f64());
            let indexes = fixtures.iter_mut().zip(&mut cpu);
            for (((_, fixture), cpu), times) in indexes.zip(&mut times[2..]) {
                let (start, before) = (Instant::now(), cpu_seconds());
                fixture.catch_up().unwrap();
                times.push(start.elapsed().as_secs_f64());
                *cpu += cpu_seconds() - before;
                assert_eq!(fixture.index.tip().borrow().unwrap().height, height);
            }
        }
        eprintln!("a block of {txs} transactions, until it is visible:");
        for (name, times) in names.iter().zip(&mut times) {
            let (median, worst) = median(times);
            eprintln!("  {name}: {median:.1} ms, at most {worst:.1} ms");
        }
        let cpu = cpu.map(|seconds| seconds * 1e3 / ROUNDS as f64);
        eprintln!(
            "  CPU: {:.0} ms in memory, {:.0} ms on disk",
            cpu[0], cpu[1]
        );
    }
}

#[test]
#[ignore = "a measurement, not a check"]
#[allow(clippy::print_stderr, clippy::cast_precision_loss)]
fn speed() {
    let (chain, _) = long_chain(4000);
    let chain = Arc::new(chain);
    let tip = chain.active().len() as Height;
    // A chain far from its end, as in the initial sync.
    chain.set_best_header(tip + 10_000);
    let cpu = cpu_seconds();
    let keys = crate::keys::Keys::new(&[0; 16]);
    for (height, hash) in (0..).zip(chain.active()) {
        let block = chain.load(&hash, height).unwrap();
        assert!(crate::prepared::Prepared::new(block, &keys, false).is_ok());
    }
    let cpu = (cpu_seconds() - cpu) * 1e6 / (BLOCKS * TXS_PER_BLOCK) as f64;
    eprintln!("loading and hashing: {cpu:.1} us CPU per tx");
    for recent_txs in [IndexConfig::default().recent_txs, 0] {
        let config = IndexConfig {
            recent_txs,
            salt: config().salt,
            memory_mib: memory_mib(),
            ..IndexConfig::default()
        };
        let dir = tempfile::tempdir().unwrap();
        let (wall, cpu) = (Instant::now(), cpu_seconds());
        let mut fixture = open(dir.path(), &chain, &config);
        fixture.catch_up().unwrap();
        let (wall, cpu) = (wall.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        let flush = cpu_seconds();
        fixture.index.flush().unwrap();
        fixture.index.shared.store.settle();
        let flush = cpu_seconds() - flush;
        let (before, merge, merge_wall) = (fixture.index.written(), cpu_seconds(), Instant::now());
        fixture.index.shared.store.leave_bulk().unwrap();
        assert!(fixture.index.shared.store.merge_runs().unwrap());
        let (merge, merge_wall) = (cpu_seconds() - merge, merge_wall.elapsed());
        let written = fixture.index.written();
        let stats = fixture.index.stats().unwrap();
        let counts = fixture.index.row_counts().unwrap();
        let txs = counts["tx"] as f64;
        let bytes = stats.values().map(|stats| stats.file_bytes).sum::<u64>() as f64;
        let rows = counts.values().sum::<u64>() as f64;
        eprintln!(
            "recent_txs {recent_txs}: {txs} txs, {:.0} tx/s, {:.1} us CPU per tx (+{:.1} flush and compaction), {:.0} bytes and {:.1} rows per tx",
            txs / wall,
            cpu * 1e6 / txs,
            flush * 1e6 / txs,
            bytes / txs,
            rows / txs,
        );
        eprintln!(
            "  merging at the end: {:.1} us CPU per tx in {:.1} s; written per byte kept: {:.2} (flushed {:.2}, compacted before the end {:.2})",
            merge * 1e6 / txs,
            merge_wall.as_secs_f64(),
            (written.flushed + written.compacted) as f64 / bytes,
            before.flushed as f64 / bytes,
            before.compacted as f64 / bytes,
        );
        for (family, stats) in &stats {
            let rows = counts[family] as f64;
            eprintln!(
                "  {family}: {:.2} bytes/tx, {:.2} rows/tx, {:.2} bytes/row",
                stats.file_bytes as f64 / txs,
                rows / txs,
                stats.file_bytes as f64 / rows.max(1.0)
            );
        }
        let made = cpu_seconds();
        make_checkpoints(&fixture);
        let made = (cpu_seconds() - made) * 1e6 / txs;
        eprintln!("  checkpoints: {made:.2} us CPU per tx");
        queries(&fixture);
    }
}

/// `MEMORY_MIB` of the environment. With less than by default there are as many lots to merge
/// as a longer chain has.
fn memory_mib() -> u32 {
    match std::env::var("MEMORY_MIB") {
        Ok(value) => value.parse().unwrap(),
        Err(_) => IndexConfig::default().memory_mib,
    }
}

/// As when the bulk load ends.
fn make_checkpoints(fixture: &Fixture) {
    let made = fixture.index.shared.store.make_checkpoints(|| false);
    assert_eq!(made.unwrap(), crate::rows::meta::Checkpoints::All);
}

#[allow(clippy::print_stderr, clippy::cast_precision_loss)]
fn queries(fixture: &Fixture) {
    let mut rng = StdRng::seed_from_u64(2);
    let view = fixture.query.view().unwrap();
    let tip = view.tip().unwrap().height;
    let mut txids = Vec::new();
    for height in 1..=tip {
        let info = view.block_at(height).unwrap().unwrap();
        txids.extend(view.block_txids(&info).unwrap().iter().copied().step_by(50));
    }
    let time = |what: &str, run: &mut dyn FnMut()| {
        let start = Instant::now();
        let mut count = 0u32;
        while start.elapsed().as_secs_f64() < 0.5 {
            run();
            count += 1;
        }
        eprintln!(
            "  {what}: {:.1} us",
            start.elapsed().as_secs_f64() * 1e6 / f64::from(count)
        );
    };
    let hot = |rng: &mut StdRng| {
        let mut script = vec![0, 0x14];
        script.extend_from_slice(&[rng.gen_range(0..100); 20]);
        sha256::Hash::hash(&script).to_byte_array()
    };
    let mut pick = StdRng::seed_from_u64(3);
    let mut txid = || txids[pick.gen_range(0..txids.len())];
    time("tx", &mut || assert!(view.tx(&txid()).unwrap().is_some()));
    time("tx_block", &mut || {
        assert!(view.tx_block(&txid()).unwrap().is_some())
    });
    let block_txids = |pick: &mut StdRng| {
        let height = pick.gen_range(1..=tip);
        let info = view.block_at(height).unwrap().unwrap();
        view.block_txids(&info).unwrap()
    };
    let mut pick = StdRng::seed_from_u64(4);
    let outpoints = (0..200)
        .flat_map(|_| {
            let txids = block_txids(&mut pick);
            (0..5)
                .map(|_| OutPoint::new(txids[pick.gen_range(0..txids.len())], 0))
                .collect::<Vec<_>>()
        })
        .collect::<Vec<_>>();
    let unspent = view.unspent(&outpoints).unwrap();
    let unspent = outpoints
        .iter()
        .zip(unspent)
        .filter_map(|(outpoint, coin)| coin.map(|_| *outpoint))
        .collect::<Vec<_>>();
    eprintln!(
        "  {} of {} outputs are unspent",
        unspent.len(),
        outpoints.len()
    );
    let mut next = outpoints.iter().cycle();
    time("coin", &mut || {
        view.unspent(&[*next.next().unwrap()]).unwrap();
    });
    if !unspent.is_empty() {
        let mut next = unspent.iter().cycle();
        time("coin, unspent", &mut || {
            assert!(view.unspent(&[*next.next().unwrap()]).unwrap()[0].is_some());
        });
        let all = (0..2).map(|vout| OutPoint::new(unspent[0].txid, vout));
        let all = all.collect::<Vec<_>>();
        time("coins of one transaction, 2", &mut || {
            assert!(view.unspent(&all).unwrap()[0].is_some());
        });
    }
    time("view", &mut || {
        assert!(fixture.query.view().unwrap().tip().is_some())
    });
    time("spenders", &mut || {
        assert!(view.spenders(&txid()).unwrap().is_some())
    });
    time("merkle_proof", &mut || {
        assert!(view.merkle_proof(&txid()).unwrap().is_some())
    });
    time("hot script_stats", &mut || {
        assert!(view.script_stats(&hot(&mut rng)).unwrap().tx_count > 0)
    });
    time("hot script_txs 25", &mut || {
        assert_eq!(view.script_txs(&hot(&mut rng), None, 25).unwrap().len(), 25)
    });
    time("hot script_utxos", &mut || {
        assert!(
            view.script_utxos(&hot(&mut rng), usize::MAX)
                .unwrap()
                .is_some()
        )
    });
    let count = view
        .script_utxos(&hot(&mut rng), usize::MAX)
        .unwrap()
        .unwrap()
        .len();
    eprintln!("  ({count} of them)");
    time("block_txs 25", &mut || {
        let info = view
            .block_at(rng.gen_range(tip - 100..=tip))
            .unwrap()
            .unwrap();
        assert_eq!(view.block_txs(&info, 100, 25).unwrap().len(), 25);
    });
}
