//! Rules of the estimator, one by one; [`market`] runs a market.

mod market;

use pulse_primitives::bitcoin::hashes::Hash;

use super::*;
use crate::projected::{BLOCK_ROOM, Chunk, project};

const NOW: u64 = 1_700_000_000;

/// An id that only `n` has.
fn txid(n: u64) -> Txid {
    Txid::hash(&n.to_le_bytes())
}

/// A node that sees blocks and transactions come.
struct Scene {
    estimator: FeeEstimator,
    height: Height,
    time: u64,
    next: u64,
}

impl Scene {
    /// At height 1000, knowing nothing.
    fn new() -> Self {
        let mut estimator = FeeEstimator::new();
        estimator.block(1000, u32::try_from(NOW).unwrap(), []);
        Self {
            estimator,
            height: 1000,
            time: NOW,
            next: 0,
        }
    }

    /// Like [`Scene::new`], but `blocks` blocks later: each with 20 transactions of 20
    /// sat/vB, which waited for it alone, and 20 of 5 sat/vB, which waited for `slow`.
    fn after(blocks: u32, slow: usize) -> Self {
        let mut scene = Self::new();
        let mut queue = std::collections::VecDeque::new();
        for _ in 0..blocks {
            let fast = scene.enter(20, 20);
            let patient = scene.enter(5, 20);
            queue.push_back(patient);
            let mut mined = fast;
            if queue.len() >= slow {
                mined.extend(queue.pop_front().unwrap());
            }
            scene.mine(&mined);
        }
        scene
    }

    fn tx(&mut self, rate: u64) -> EnteredTx {
        self.next += 1;
        EnteredTx {
            txid: txid(self.next),
            fee_sat: rate * 200,
            vsize: 200,
            height: self.height,
            time: self.time,
            telling: true,
        }
    }

    /// Lets `count` transactions of `rate` sat/vB enter.
    fn enter(&mut self, rate: u64, count: usize) -> Vec<Txid> {
        (0..count)
            .map(|_| {
                let tx = self.tx(rate);
                self.estimator.entered(&tx);
                tx.txid
            })
            .collect()
    }

    fn mine(&mut self, txids: &[Txid]) {
        self.height += 1;
        self.time += 600;
        self.estimator
            .block(self.height, u32::try_from(self.time).unwrap(), txids);
    }

    fn market<'a>(&self, depth: &'a DepthCurve) -> Market<'a> {
        Market {
            depth,
            min_fee_rate_sat_kvb: 100,
            synced: true,
            now: self.time,
        }
    }

    /// Estimates above an empty mempool.
    fn estimates(&self) -> Vec<(u16, f64)> {
        self.estimator
            .estimates(&self.market(&DepthCurve::default()))
            .by_target
    }

    /// The estimate for `target` above an empty mempool.
    fn at(&self, target: u16) -> Option<f64> {
        find(&self.estimates(), target)
    }
}

fn find(estimates: &[(u16, f64)], target: u16) -> Option<f64> {
    estimates
        .iter()
        .find(|(t, _)| *t == target)
        .map(|&(_, rate)| rate)
}

/// A mempool of `(blocks, rate in sat/vB)` layers.
fn depth(layers: &[(u64, u64)]) -> DepthCurve {
    let chunks = layers.iter().flat_map(|&(blocks, rate)| {
        (0..blocks * BLOCK_ROOM / 4_000).map(move |_| Chunk {
            cluster: 0,
            tx_count: 1,
            fee_sat: rate * 1_000,
            weight: 4_000,
            vsize: 1_000,
            sigop_cost: 0,
        })
    });
    project(chunks).depth
}

#[test]
fn fresh_node_estimates_nothing() {
    assert_eq!(Scene::new().estimates(), []);
}

#[test]
fn fresh_node_does_not_trust_a_deep_mempool() {
    let scene = Scene::new();
    let depth = depth(&[(10, 30)]);
    assert_eq!(
        scene.estimator.estimates(&scene.market(&depth)).by_target,
        []
    );
}

#[test]
fn empty_blocks_teach_nothing() {
    let mut scene = Scene::new();
    (0..300).for_each(|_| scene.mine(&[]));
    assert_eq!(scene.estimates(), []);
}

#[test]
fn first_estimate_needs_data_over_four_blocks() {
    assert_eq!(Scene::after(4, 1).estimates(), []);
    assert!(Scene::after(5, 1).at(2).is_some());
}

#[test]
fn all_targets_are_told_once_any_is() {
    let told: Vec<u16> = Scene::after(20, 1)
        .estimates()
        .iter()
        .map(|e| e.0)
        .collect();
    assert_eq!(told, targets().collect::<Vec<_>>());
}

#[test]
fn estimate_is_what_was_needed() {
    let scene = Scene::after(200, 6);
    assert_eq!(scene.at(2), Some(20.0));
    assert_eq!(scene.at(25), Some(5.0));
}

#[test]
fn estimates_never_rise_with_the_target() {
    for slow in [1, 3, 10, 30] {
        let estimates = Scene::after(300, slow).estimates();
        assert!(estimates.is_sorted_by(|a, b| a.1 >= b.1), "{estimates:?}");
    }
}

#[test]
fn deep_mempool_raises_the_targets_that_it_reaches() {
    let scene = Scene::after(200, 1);
    let depth = depth(&[(2, 90), (3, 40)]);
    let estimates = scene.estimator.estimates(&scene.market(&depth)).by_target;
    assert_eq!(find(&estimates, 1), Some(90.0));
    assert_eq!(find(&estimates, 2), Some(90.0));
    assert_eq!(find(&estimates, 5), Some(40.0));
    assert_eq!(find(&estimates, 6), scene.at(6));
}

#[test]
fn thin_mempool_raises_nothing() {
    let scene = Scene::after(200, 1);
    let thin = project([Chunk {
        cluster: 0,
        tx_count: 1,
        fee_sat: 1_000_000,
        weight: 400,
        vsize: 100,
        sigop_cost: 0,
    }]);
    let estimates = scene
        .estimator
        .estimates(&scene.market(&thin.depth))
        .by_target;
    assert_eq!(estimates, scene.estimates());
}

#[test]
fn no_estimate_is_below_what_is_accepted() {
    let scene = Scene::after(200, 1);
    let depth = DepthCurve::default();
    let market = Market {
        min_fee_rate_sat_kvb: 7_500,
        ..scene.market(&depth)
    };
    let estimates = scene.estimator.estimates(&market).by_target;
    assert!(
        estimates.iter().all(|&(_, rate)| rate >= 7.5),
        "{estimates:?}"
    );
    assert_eq!(find(&estimates, 1008), Some(7.5));
}

#[test]
fn node_out_of_step_estimates_nothing() {
    let scene = Scene::after(200, 1);
    let depth = DepthCurve::default();
    let market = Market {
        synced: false,
        ..scene.market(&depth)
    };
    assert_eq!(scene.estimator.estimates(&market), FeeEstimates::default());
}

#[test]
fn old_tip_silences_until_the_next_block() {
    let mut scene = Scene::after(200, 1);
    scene.time += 24 * 3600 + 1;
    assert_eq!(scene.estimates(), []);
    scene.mine(&[]);
    assert!(scene.at(2).is_some());
}

#[test]
fn transactions_on_an_old_tip_are_not_tracked() {
    let mut scene = Scene::new();
    scene.time += 3 * 3600 + 1;
    scene.enter(5, 3);
    assert_eq!(scene.estimator.tracked_count(), 0);
}

#[test]
fn only_telling_transactions_are_tracked() {
    let mut scene = Scene::new();
    let tx = scene.tx(5);
    scene.estimator.entered(&EnteredTx {
        telling: false,
        ..tx
    });
    assert_eq!(scene.estimator.tracked_count(), 0);
    scene.estimator.entered(&EnteredTx { height: 999, ..tx });
    assert_eq!(scene.estimator.tracked_count(), 0);
    scene.estimator.entered(&tx);
    assert_eq!(scene.estimator.tracked_count(), 1);
}

#[test]
fn leaving_unconfirmed_counts_as_failure() {
    let run = |leave: bool| {
        let mut scene = Scene::new();
        for _ in 0..100 {
            let mined = scene.enter(20, 20);
            let (lucky, unlucky) = (scene.enter(5, 10), scene.enter(5, 10));
            scene.mine(&[mined, lucky].concat());
            scene.mine(&[]);
            scene.mine(&[]);
            if leave {
                unlucky.iter().for_each(|txid| scene.estimator.left(txid));
            } else {
                unlucky
                    .iter()
                    .for_each(|txid| scene.estimator.history.forget(txid));
            }
        }
        assert_eq!(scene.estimator.tracked_count(), 0);
        scene.at(3)
    };
    assert_eq!(run(false), Some(5.0));
    assert_eq!(run(true), Some(20.0));
}

#[test]
fn waiting_counts_against_a_rate() {
    let mut scene = Scene::after(100, 1);
    assert_eq!(scene.at(3), Some(5.0));
    // Nothing of 5 sat/vB is mined any more, and nothing leaves.
    for _ in 0..12 {
        scene.enter(5, 20);
        let mined = scene.enter(20, 20);
        scene.mine(&mined);
    }
    assert_eq!(scene.at(3), Some(20.0));
}

#[test]
fn cleared_mempool_leaves_no_verdict() {
    let mut scene = Scene::after(100, 1);
    let before = scene.estimates();
    scene.enter(5, 500);
    scene.estimator.cleared();
    assert_eq!(scene.estimator.tracked_count(), 0);
    assert_eq!(scene.estimates(), before);
}

#[test]
fn block_of_a_reorganisation_teaches_nothing() {
    let mut scene = Scene::after(100, 1);
    let entered = scene.enter(5, 50);
    let before: Vec<f64> = averages(&scene.estimator);
    scene.estimator.block(
        scene.height,
        u32::try_from(scene.time).unwrap(),
        &entered[..20],
    );
    scene.estimator.block(
        scene.height - 1,
        u32::try_from(scene.time).unwrap(),
        &entered[20..],
    );
    assert_eq!(averages(&scene.estimator), before);
    assert_eq!(scene.estimator.tracked_count(), 0);
}

fn averages(estimator: &FeeEstimator) -> Vec<f64> {
    estimator
        .history
        .horizons()
        .iter()
        .flat_map(|horizon| horizon.averages())
        .collect()
}

#[test]
fn tracked_transactions_are_released_when_confirmed() {
    let mut scene = Scene::after(100, 1);
    let entered = scene.enter(5, 50);
    assert_eq!(scene.estimator.tracked_count(), 50);
    scene.mine(&entered);
    assert_eq!(scene.estimator.tracked_count(), 0);
}

#[test]
fn restart_keeps_the_answers() {
    let scene = Scene::after(300, 4);
    let mut scene = Scene {
        estimator: restart(&scene, 60).unwrap(),
        ..scene
    };
    let (short, long) = (scene.at(2), scene.at(25));
    assert_eq!((short, long), (Some(20.0), Some(5.0)));
    let mined = scene.enter(20, 20);
    scene.mine(&mined);
    assert_eq!(scene.at(2), short);
}

#[test]
fn restart_of_an_idle_estimator_changes_nothing() {
    let scene = Scene::after(50, 1);
    let restarted = restart(&scene, 0).unwrap();
    assert_eq!(
        restarted.to_bytes(scene.time),
        scene.estimator.to_bytes(scene.time)
    );
    assert_eq!(averages(&restarted), averages(&scene.estimator));
    let market_depth = DepthCurve::default();
    let market = scene.market(&market_depth);
    assert_eq!(
        restarted.estimates(&market),
        scene.estimator.estimates(&market)
    );
}

#[test]
fn saving_goes_on_waiting() {
    let mut scene = Scene::new();
    scene.enter(5, 20);
    scene.mine(&[]);
    let before = scene.estimator.clone();
    assert!(!scene.estimator.to_bytes(scene.time).is_empty());
    assert_eq!(scene.estimator, before);
}

#[test]
fn what_waited_at_the_restart_has_failed_so_long() {
    let mut scene = Scene::after(100, 1);
    scene.enter(5, 100);
    (0..5).for_each(|_| scene.mine(&[]));
    let rate = scene.at(4);
    let restarted = Scene {
        estimator: restart(&scene, 0).unwrap(),
        ..scene
    };
    assert_eq!(restarted.estimator.tracked_count(), 0);
    assert_eq!((rate, restarted.at(4)), (Some(20.0), Some(20.0)));
}

/// What `scene`'s estimator is after a stop of `seconds`.
fn restart(scene: &Scene, seconds: u64) -> Result<FeeEstimator, RestoreError> {
    FeeEstimator::from_bytes(&scene.estimator.to_bytes(scene.time), scene.time + seconds)
}

#[test]
fn history_of_more_than_sixty_hours_is_not_used() {
    let scene = Scene::after(50, 1);
    assert!(restart(&scene, 60 * 3600).is_ok());
    assert_eq!(
        restart(&scene, 60 * 3600 + 1),
        Err(RestoreError::TooOld { hours: 60 })
    );
}

#[test]
fn history_from_the_future_is_used() {
    let scene = Scene::after(50, 1);
    let bytes = scene.estimator.to_bytes(scene.time + 3600);
    assert!(FeeEstimator::from_bytes(&bytes, scene.time).is_ok());
}

#[test]
fn any_changed_byte_is_noticed() {
    let scene = Scene::after(50, 1);
    let bytes = scene.estimator.to_bytes(scene.time);
    for at in (0..40).chain((40..bytes.len()).step_by(1009)) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(
            FeeEstimator::from_bytes(&damaged, scene.time).is_err(),
            "byte {at}"
        );
    }
}

#[test]
fn any_cut_is_noticed() {
    let scene = Scene::after(50, 1);
    let bytes = scene.estimator.to_bytes(scene.time);
    for len in (0..60).chain([bytes.len() - 1]) {
        assert!(
            FeeEstimator::from_bytes(&bytes[..len], scene.time).is_err(),
            "length {len}"
        );
    }
    assert_eq!(
        FeeEstimator::from_bytes(b"", scene.time),
        Err(RestoreError::Malformed { len: 0 })
    );
}

#[test]
fn other_version_is_named() {
    let scene = Scene::after(50, 1);
    let mut bytes = scene.estimator.to_bytes(scene.time);
    bytes[8] = 9;
    assert_eq!(
        FeeEstimator::from_bytes(&bytes, scene.time),
        Err(RestoreError::Version { found: 9 })
    );
}

#[test]
fn impossible_numbers_are_refused_even_with_a_right_checksum() {
    let scene = Scene::after(50, 1);
    for bad in [f64::NAN, f64::INFINITY, -1.0] {
        let mut bytes = scene.estimator.to_bytes(scene.time);
        bytes[40..48].copy_from_slice(&bad.to_le_bytes());
        let end = bytes.len() - 4;
        let checksum = crc32fast::hash(&bytes[..end]).to_le_bytes();
        bytes[end..].copy_from_slice(&checksum);
        assert_eq!(
            FeeEstimator::from_bytes(&bytes, scene.time),
            Err(RestoreError::Implausible)
        );
    }
}

#[test]
fn short_stop_goes_on_with_what_was_known() {
    let scene = Scene::after(300, 4);
    let mut scene = Scene {
        estimator: restart(&scene, 3 * 3600).unwrap(),
        ..scene
    };
    // 18 blocks passed meanwhile; they come while the node catches up.
    (0..18).for_each(|_| scene.mine(&[]));
    assert_eq!(scene.at(2), Some(20.0));
}
