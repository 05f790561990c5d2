//! Projected blocks, backlog and fee estimates of a mempool with transactions.

use pulse_primitives::bitcoin::Txid;

use crate::{
    fees::FeeEstimator,
    testing::{Lab, NOW, ONE_ONE, TIP, out},
};

/// Feeds the estimator what has happened.
fn feed(lab: &mut Lab, estimator: &mut FeeEstimator, in_step: bool) {
    for event in lab.pool.take_events() {
        estimator.event(&event, in_step);
    }
}

/// An estimator that has seen the tip.
fn estimator() -> FeeEstimator {
    let mut estimator = FeeEstimator::new();
    estimator.block(TIP, u32::try_from(NOW).unwrap(), []);
    estimator
}

#[test]
fn child_is_projected_with_its_parent() {
    let mut lab = Lab::new();
    let parent = lab.single(ONE_ONE);
    let child = lab.spend(&[out(&parent, 0)], 1, 19 * ONE_ONE);
    lab.accept(&child);
    lab.single(5 * ONE_ONE);
    let blocks = lab.pool.project().blocks;
    assert_eq!((blocks.len(), blocks[0].tx_count), (1, 3));
    assert_eq!(blocks[0].total_fee_sat, 25 * ONE_ONE);
    // Parent and child together pay 10.
    assert_eq!(
        (blocks[0].fee_range[0], blocks[0].fee_range[6]),
        (5.0, 10.0)
    );
}

#[test]
fn chunks_of_a_cluster_share_its_number() {
    let mut lab = Lab::new();
    let parent = lab.single(9 * ONE_ONE);
    let child = lab.spend(&[out(&parent, 0)], 1, ONE_ONE);
    lab.accept(&child);
    lab.single(5 * ONE_ONE);
    let sums = lab.pool.chunk_sums();
    assert_eq!(sums.len(), 3);
    assert_eq!(sums[0].cluster, sums[2].cluster);
    assert_ne!(sums[0].cluster, sums[1].cluster);
}

#[test]
fn backlog_sums_the_mempool() {
    let mut lab = Lab::new();
    lab.single(2 * ONE_ONE);
    lab.single(4 * ONE_ONE);
    let backlog = lab.pool.backlog();
    assert_eq!((backlog.count, backlog.total_fee_sat), (2, 6 * ONE_ONE));
    assert_eq!(backlog.vsize, lab.pool.total_vsize());
    assert_eq!(backlog.memory_bytes, lab.pool.usage_bytes());
}

#[test]
fn only_lone_arrivals_are_tracked() {
    let (mut lab, mut estimator) = (Lab::new(), estimator());
    let parent = lab.single(5 * ONE_ONE);
    let child = lab.spend(&[out(&parent, 0)], 1, 5 * ONE_ONE);
    lab.accept(&child);
    feed(&mut lab, &mut estimator, true);
    assert_eq!(estimator.tracked_count(), 1);
}

#[test]
fn nothing_is_tracked_out_of_step() {
    let (mut lab, mut estimator) = (Lab::new(), estimator());
    lab.single(5 * ONE_ONE);
    feed(&mut lab, &mut estimator, false);
    assert_eq!(estimator.tracked_count(), 0);
}

#[test]
fn confirmed_and_emptied_are_released() {
    let (mut lab, mut estimator) = (Lab::new(), estimator());
    let first = lab.single(5 * ONE_ONE);
    lab.single(5 * ONE_ONE);
    feed(&mut lab, &mut estimator, true);
    assert_eq!(estimator.tracked_count(), 2);

    let mut block = lab.block(&[&first], 0);
    lab.connect(&mut block);
    feed(&mut lab, &mut estimator, true);
    let txids: Vec<Txid> = vec![first.compute_txid()];
    estimator.block(TIP + 1, u32::try_from(NOW).unwrap(), &txids);
    assert_eq!(estimator.tracked_count(), 1);

    lab.pool.set_tip(None, NOW);
    feed(&mut lab, &mut estimator, true);
    assert_eq!(estimator.tracked_count(), 0);
}
