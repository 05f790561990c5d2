//! A market of transactions: rates are drawn at random, demand comes and goes, blocks are
//! found at random and take the best. Who pays an estimate must be served in time.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

/// A transaction that waits.
#[derive(Clone, Copy)]
struct Waiting {
    rate_sat_kvb: u64,
    vsize: u64,
    txid: Txid,
}

struct MarketPlace {
    rng: ChaCha8Rng,
    /// By falling rate.
    mempool: Vec<Waiting>,
    estimator: FeeEstimator,
    height: Height,
    time: u64,
    next: u64,
    /// Demand as a share of what blocks hold.
    demand: f64,
    /// Half the spread of demand over a day.
    swing: f64,
}

/// Virtual size of each transaction: 2,495 fill a block.
const VSIZE: u64 = 400;

impl MarketPlace {
    fn new(seed: u64, demand: f64, swing: f64) -> Self {
        let mut estimator = FeeEstimator::new();
        estimator.block(1000, u32::try_from(NOW).unwrap(), []);
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            mempool: Vec::new(),
            estimator,
            height: 1000,
            time: NOW,
            next: 0,
            demand,
            swing,
        }
    }

    /// A rate as users choose it: most around some sat/vB, some far above.
    fn rate(&mut self) -> u64 {
        let normal: f64 = (0..12).map(|_| self.rng.r#gen::<f64>()).sum::<f64>() - 6.0;
        let rate = 4_000.0 * (normal * 1.1).exp();
        (rate.clamp(100.0, 1e6)) as u64
    }

    fn enter(&mut self, rate_sat_kvb: u64) -> Txid {
        self.next += 1;
        let tx = Waiting { rate_sat_kvb, vsize: VSIZE, txid: txid(self.next) };
        self.estimator.entered(&EnteredTx {
            txid: tx.txid,
            fee_sat: rate_sat_kvb * VSIZE / 1000,
            vsize: VSIZE,
            height: self.height,
            time: self.time,
            telling: true,
        });
        let at = self.mempool.partition_point(|other| other.rate_sat_kvb >= rate_sat_kvb);
        self.mempool.insert(at, tx);
        tx.txid
    }

    /// Lets `seconds` pass with the demand of that time of the day.
    fn pass(&mut self, seconds: f64) {
        let day = (self.time % 86_400) as f64 / 86_400.0 * std::f64::consts::TAU;
        let demand = self.demand + self.swing * day.sin();
        let count = demand * seconds / 600.0 * (BLOCK_ROOM / (VSIZE * 4)) as f64;
        self.time += seconds as u64;
        let mut batch: Vec<Waiting> = Vec::new();
        for _ in 0..count as u64 {
            let rate_sat_kvb = self.rate();
            self.next += 1;
            let tx = Waiting { rate_sat_kvb, vsize: VSIZE, txid: txid(self.next) };
            self.estimator.entered(&EnteredTx {
                txid: tx.txid,
                fee_sat: rate_sat_kvb * VSIZE / 1000,
                vsize: VSIZE,
                height: self.height,
                time: self.time,
                telling: true,
            });
            batch.push(tx);
        }
        self.mempool.extend(batch);
        self.mempool.sort_by(|a, b| b.rate_sat_kvb.cmp(&a.rate_sat_kvb));
        // The pool is bounded: the lowest are evicted, as at 300 MB.
        for tx in self.mempool.split_off(self.mempool.len().min(150_000)) {
            self.estimator.left(&tx.txid);
        }
    }

    /// Time to the next block, in seconds.
    fn wait(&mut self) -> f64 {
        -600.0 * (1.0 - self.rng.r#gen::<f64>()).ln()
    }

    /// Finds a block; returns what it confirms.
    fn mine(&mut self) -> Vec<Txid> {
        let room = (BLOCK_ROOM / 4 / VSIZE) as usize;
        let mined: Vec<Txid> =
            self.mempool.drain(..room.min(self.mempool.len())).map(|tx| tx.txid).collect();
        self.height += 1;
        self.estimator.block(self.height, u32::try_from(self.time).unwrap(), &mined);
        mined
    }

    fn estimates(&self) -> Vec<(u16, f64)> {
        let chunks = self.mempool.iter().enumerate().map(|(i, tx)| Chunk {
            cluster: i as u64,
            tx_count: 1,
            fee_sat: tx.rate_sat_kvb * tx.vsize / 1000,
            weight: tx.vsize * 4,
            vsize: tx.vsize,
            sigop_cost: 0,
        });
        let depth = project(chunks).depth;
        let market =
            Market { depth: &depth, min_fee_rate_sat_kvb: 100, synced: true, now: self.time };
        self.estimator.estimates(&market).by_target
    }
}

/// Share of transactions that were confirmed in time, by target.
fn served(mut place: MarketPlace, blocks: u32) -> Vec<(u16, f64)> {
    const TARGETS: [u16; 7] = [1, 2, 3, 6, 12, 25, 144];
    for _ in 0..400 {
        let wait = place.wait();
        place.pass(wait);
        place.mine();
    }
    // (txid, target, last height in time)
    let mut probes: Vec<(Txid, u16, Height)> = Vec::new();
    let mut results: Vec<(u16, bool)> = Vec::new();
    let mut paid: Vec<(u16, f64)> = Vec::new();
    for round in 0..blocks + 144 {
        // Asked at a random moment between two blocks.
        let wait = place.wait();
        let before = wait * place.rng.r#gen::<f64>();
        place.pass(before);
        if round < blocks {
            let estimates = place.estimates();
            for target in TARGETS {
                let rate = find(&estimates, target).unwrap();
                paid.push((target, rate));
                let txid = place.enter((rate * 1000.0).round() as u64);
                probes.push((txid, target, place.height + Height::from(target)));
            }
        }
        place.pass(wait - before);
        let mined: std::collections::HashSet<Txid> = place.mine().into_iter().collect();
        probes.retain(|&(txid, target, due)| {
            let confirmed = mined.contains(&txid);
            let late = place.height >= due;
            if confirmed || late {
                results.push((target, confirmed));
            }
            !confirmed && !late
        });
    }
    TARGETS
        .iter()
        .map(|&target| {
            let of_target: Vec<bool> =
                results.iter().filter(|r| r.0 == target).map(|r| r.1).collect();
            let mean = paid.iter().filter(|p| p.0 == target).map(|p| p.1).sum::<f64>()
                / f64::from(blocks);
            let share =
                of_target.iter().filter(|ok| **ok).count() as f64 / of_target.len() as f64;
            eprintln!("target {target}: {share:.3} in time, paid {mean:.2} sat/vB");
            (target, share)
        })
        .collect()
}

#[test]
fn steady_market_serves_in_time() {
    served(MarketPlace::new(1, 0.9, 0.0), 400);
}

#[test]
fn overfull_market_serves_in_time() {
    served(MarketPlace::new(2, 1.15, 0.0), 400);
}

#[test]
fn market_with_days_and_nights_serves_in_time() {
    served(MarketPlace::new(3, 0.95, 0.3), 400);
}
