use pulse_primitives::mempool::{MempoolView, RemovalReason};

use crate::{
    AcceptOptions, MempoolConfig,
    feerate::fee_at,
    testing::{Lab, NOW, ONE_ONE, out},
};

fn small() -> Lab {
    Lab::with(MempoolConfig {
        max_mib: 5,
        ..MempoolConfig::default()
    })
}

/// Fills the mempool by transactions of rising fee until one has left.
fn fill(lab: &mut Lab) -> u64 {
    let mut fee = 100;
    let mut count = 0;
    loop {
        let coin = lab.coin(1_000_000);
        let tx = lab.spend(&[coin], 1, fee);
        let result = lab.pool.accept(
            &tx,
            &lab.coins,
            &crate::testing::Lenient,
            lab.now,
            AcceptOptions::default(),
        );
        result.unwrap();
        count += 1;
        if lab.pool.len() < count {
            return fee;
        }
        fee += 1;
    }
}

#[test]
fn the_worst_leave_when_memory_runs_out_and_raise_the_floor() {
    let mut lab = small();
    fill(&mut lab);
    lab.pool.assert_consistent();
    assert!(lab.pool.usage_bytes() <= 5 << 20);
    let least = lab.pool.iter().map(|e| e.fee.to_sat()).min().unwrap();
    assert!(least > 100);
    // The evicted rate and the increment, without rounding up to whole sat/vB.
    let floor = lab.pool.rolling_min_fee_rate(lab.now);
    assert_eq!(floor, (least - 1) * 1000 / ONE_ONE + 100);
    let coin = lab.coin(1_000_000);
    let tx = lab.spend(&[coin], 1, 100);
    let wanted = fee_at(floor, ONE_ONE);
    assert_eq!(
        lab.reason(&tx),
        (
            "mempool min fee not met".to_owned(),
            format!("100 < {wanted}")
        )
    );
}

#[test]
fn the_floor_halves_in_time_after_a_block_and_ends_at_the_increment() {
    let mut lab = small();
    fill(&mut lab);
    let high = lab.pool.rolling_min_fee_rate(lab.now);
    let day = 24 * 3600;
    assert_eq!(lab.pool.rolling_min_fee_rate(lab.now + day), high);
    let mut block = lab.block(&[], 1);
    lab.connect(&mut block);
    let half_day = lab.pool.rolling_min_fee_rate(lab.now + day / 2);
    assert_eq!(half_day, high.div_ceil(2));
    assert_eq!(lab.pool.rolling_min_fee_rate(lab.now + 100 * day), 0);
    assert_eq!(lab.pool.min_fee_rate(lab.now + 100 * day), 100);
}

#[test]
fn the_floor_falls_faster_in_a_small_mempool() {
    let mut lab = small();
    fill(&mut lab);
    let high = lab.pool.rolling_min_fee_rate(lab.now);
    let all: Vec<_> = lab.pool.iter().map(|e| e.tx.clone()).collect();
    let mut block = lab.block(&all.iter().collect::<Vec<_>>(), 1);
    lab.connect(&mut block);
    assert!(lab.pool.is_empty());
    let three_hours = lab.pool.rolling_min_fee_rate(lab.now + 3 * 3600);
    assert_eq!(three_hours, high.div_ceil(2));
}

#[test]
fn a_transaction_that_would_leave_at_once_finds_the_mempool_full() {
    let mut lab = small();
    let fee = fill(&mut lab);
    // Pays the floor, but is large: it is the worst chunk as soon as it is in.
    let coin = lab.coin(100_000_000);
    let floor = lab.pool.rolling_min_fee_rate(lab.now);
    let tx = lab.spend(&[coin], 3_000, 0);
    let vsize = tx.vsize() as u64;
    let tx = lab.spend(&[coin], 3_000, fee_at(floor, vsize));
    let rejected = lab.refuse(&tx);
    assert_eq!(rejected.reason, "mempool full");
    assert_eq!(rejected.class, crate::RejectClass::Reconsiderable);
    assert!(fee > 0);
    let removed = lab.pool.view().removed(&tx.compute_txid()).unwrap();
    assert_eq!(removed.reason, RemovalReason::SizeLimit);
}

#[test]
fn expiry_takes_descendants_along() {
    let mut lab = Lab::new();
    let parent = lab.single(1_000);
    lab.now = NOW + 335 * 3600;
    let child = lab.spend(&[out(&parent, 0)], 1, 1_000);
    lab.accept(&child);
    let young = lab.single(1_000);
    assert_eq!(lab.pool.remove_expired(NOW + 336 * 3600), 0);
    assert_eq!(lab.pool.remove_expired(NOW + 336 * 3600 + 1), 2);
    lab.pool.assert_consistent();
    assert_eq!(lab.txids(), [young.compute_txid()].into());
    let removed = lab.pool.view().removed(&child.compute_txid()).unwrap();
    assert_eq!(removed.reason, RemovalReason::Expired);
}

#[test]
fn a_child_keeps_its_cheap_parent_from_eviction() {
    let mut lab = small();
    let coin = lab.coin(10_000_000);
    let parent = lab.spend(&[coin], 1, 100);
    lab.accept(&parent);
    let child = lab.spend(&[out(&parent, 0)], 1, 1_000_000);
    lab.accept(&child);
    fill(&mut lab);
    assert!(lab.pool.contains(&parent.compute_txid()));
}
