//! A market of transactions: rates are drawn at random, demand comes and goes, blocks are
//! found at random and take the best. Who pays an estimate must be served in time.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates and times are far within range"
)]

use std::collections::{BTreeMap, HashSet};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

/// A transaction that waits.
#[derive(Clone, Copy)]
struct Waiting {
    rate_sat_kvb: u64,
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

/// Virtual size of each transaction, in vB: large, for speed.
const VSIZE: u64 = 1_000;
/// Transactions that fill a block.
const PER_BLOCK: usize = (BLOCK_ROOM / 4 / VSIZE) as usize;
/// Transactions that the pool holds.
const POOL: usize = 60 * PER_BLOCK;

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
        let tx = self.tx(rate_sat_kvb);
        let at = self
            .mempool
            .partition_point(|other| other.rate_sat_kvb >= rate_sat_kvb);
        self.mempool.insert(at, tx);
        tx.txid
    }

    /// A new transaction, seen by the estimator.
    fn tx(&mut self, rate_sat_kvb: u64) -> Waiting {
        self.next += 1;
        let tx = Waiting {
            rate_sat_kvb,
            txid: txid(self.next),
        };
        self.estimator.entered(&EnteredTx {
            txid: tx.txid,
            fee_sat: rate_sat_kvb * VSIZE / 1000,
            vsize: VSIZE,
            height: self.height,
            time: self.time,
            telling: true,
        });
        tx
    }

    /// As many transactions enter as fill `blocks` blocks. The pool is bounded: the lowest
    /// are evicted.
    fn arrive(&mut self, blocks: f64) {
        for _ in 0..(blocks * PER_BLOCK as f64) as u64 {
            let rate = self.rate();
            let tx = self.tx(rate);
            self.mempool.push(tx);
        }
        self.mempool
            .sort_by_key(|tx| std::cmp::Reverse(tx.rate_sat_kvb));
        for tx in self.mempool.split_off(self.mempool.len().min(POOL)) {
            self.estimator.left(&tx.txid);
        }
    }

    /// Lets `seconds` pass with the demand of that time of the day.
    fn pass(&mut self, seconds: f64) {
        let day = (self.time % 86_400) as f64 / 86_400.0 * std::f64::consts::TAU;
        self.time += seconds as u64;
        self.arrive((self.demand + self.swing * day.sin()) * seconds / 600.0);
    }

    /// Time to the next block, in seconds.
    fn wait(&mut self) -> f64 {
        -600.0 * (1.0 - self.rng.r#gen::<f64>()).ln()
    }

    /// Finds a block; returns what it confirms.
    fn mine(&mut self) -> Vec<Txid> {
        let room = PER_BLOCK.min(self.mempool.len());
        let mined: Vec<Txid> = self.mempool.drain(..room).map(|tx| tx.txid).collect();
        self.height += 1;
        self.estimator
            .block(self.height, u32::try_from(self.time).unwrap(), &mined);
        mined
    }

    fn estimates(&self) -> Vec<(u16, f64)> {
        let chunks = self.mempool.iter().enumerate().map(|(i, tx)| Chunk {
            cluster: i as u64,
            tx_count: 1,
            fee_sat: tx.rate_sat_kvb * VSIZE / 1000,
            weight: VSIZE * 4,
            vsize: VSIZE,
            sigop_cost: 0,
        });
        let depth = project(chunks).depth;
        let market = Market {
            depth: &depth,
            min_fee_rate_sat_kvb: 100,
            synced: true,
            now: self.time,
        };
        self.estimator.estimates(&market).by_target
    }
}

/// Targets of the transactions that pay an estimate.
const PROBED: [u16; 7] = [1, 2, 3, 6, 12, 25, 144];

/// How transactions fared that paid an estimate.
#[derive(Debug, Default, Clone, Copy)]
struct Served {
    in_time: u32,
    late: u32,
    rates: f64,
}

impl Served {
    fn share(&self) -> f64 {
        f64::from(self.in_time) / f64::from(self.in_time + self.late)
    }

    /// Mean rate paid, in sat/vB.
    fn paid(&self) -> f64 {
        self.rates / f64::from(self.in_time + self.late)
    }
}

/// Runs `place` for `blocks` blocks after it has settled for some. Every `surge_every` blocks, demand
/// of `surge` blocks comes at once. In the first `asking` blocks of each such stretch, at a
/// random moment before each block, one transaction pays the estimate of each target.
fn served(
    mut place: MarketPlace,
    (settled, blocks): (u32, u32),
    (surge_every, surge, asking): (u32, f64, u32),
) -> BTreeMap<u16, Served> {
    let mut probes: Vec<(Txid, u16, Height)> = Vec::new();
    let mut served: BTreeMap<u16, Served> = BTreeMap::new();
    for round in 0..settled + blocks + 144 {
        let wait = place.wait();
        let before = wait * place.rng.r#gen::<f64>();
        if round % surge_every == 0 {
            place.arrive(surge);
        }
        place.pass(before);
        if (settled..settled + blocks).contains(&round) && round % surge_every < asking {
            let estimates = place.estimates();
            for target in PROBED {
                let rate = find(&estimates, target).unwrap();
                served.entry(target).or_default().rates += rate;
                let txid = place.enter((rate * 1000.0).round() as u64);
                probes.push((txid, target, place.height + Height::from(target)));
            }
        }
        place.pass(wait - before);
        let mined: HashSet<Txid> = place.mine().into_iter().collect();
        probes.retain(|&(txid, target, due)| {
            let result = served.entry(target).or_default();
            if mined.contains(&txid) {
                result.in_time += 1;
            } else if place.height >= due {
                result.late += 1;
            } else {
                return true;
            }
            false
        });
    }
    served
}

/// At least 80 % for any target, and more money for more speed.
fn assert_served(served: &BTreeMap<u16, Served>) {
    for (target, result) in served {
        assert!(result.share() >= 0.80, "target {target}: {result:?}");
    }
    let paid: Vec<f64> = served.values().map(Served::paid).collect();
    assert!(paid.is_sorted_by(|a, b| a >= b), "{paid:?}");
    assert!(paid[0] > 2.0 * paid[5], "{paid:?}");
}

/// No surges; always asking.
const STEADY: (u32, f64, u32) = (1, 0.0, 1);

#[test]
fn steady_market_serves_in_time() {
    assert_served(&served(MarketPlace::new(1, 0.9, 0.0), (300, 250), STEADY));
}

#[test]
fn overfull_market_serves_in_time() {
    assert_served(&served(MarketPlace::new(2, 1.15, 0.0), (300, 250), STEADY));
}

#[test]
fn market_with_days_and_nights_serves_in_time() {
    assert_served(&served(MarketPlace::new(3, 0.95, 0.3), (1000, 300), STEADY));
}

#[test]
fn idle_market_is_cheap() {
    let served = served(MarketPlace::new(4, 0.3, 0.0), (300, 250), STEADY);
    for target in [6, 12, 25, 144] {
        let result = served[&target];
        assert!(
            result.share() > 0.95 && result.paid() < 0.3,
            "target {target}: {result:?}"
        );
    }
}

#[test]
fn surge_raises_the_next_blocks_at_once() {
    let served = served(MarketPlace::new(5, 0.5, 0.0), (300, 500), (50, 8.0, 4));
    for target in [1, 2, 3] {
        let result = served[&target];
        assert!(
            result.share() >= 0.65 && result.paid() > 5.0,
            "target {target}: {result:?}"
        );
    }
}

#[test]
fn restart_amid_a_market_changes_little() {
    let mut place = MarketPlace::new(6, 0.95, 0.0);
    for _ in 0..250 {
        let wait = place.wait();
        place.pass(wait);
        place.mine();
    }
    let before = place.estimates();
    let bytes = place.estimator.to_bytes(place.time);
    place.estimator = FeeEstimator::from_bytes(&bytes, place.time + 600).unwrap();
    let after = place.estimates();
    assert_eq!(before.len(), after.len());
    // What still waits counts as failed for full periods: a bucket or two, of 5 %.
    for ((target, before), (_, after)) in before.iter().zip(&after) {
        assert!(
            (after / before).ln().abs() < 0.15,
            "target {target}: {before} {after}"
        );
    }
}
