use pulse_primitives::mempool::{MempoolView, RemovalReason};

use crate::{
    RejectClass,
    testing::{Lab, out},
};

#[test]
fn a_replacement_takes_descendants_along_and_is_remembered() {
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let old = lab.spend(&[coin], 1, 1_000);
    lab.accept(&old);
    let child = lab.spend(&[out(&old, 0)], 1, 1_000);
    lab.accept(&child);
    let new = lab.spend(&[coin], 1, 3_000);
    let mut replaced = lab.accept(&new).replaced;
    let mut expected = [old.compute_txid(), child.compute_txid()];
    replaced.sort_unstable();
    expected.sort_unstable();
    assert_eq!(replaced, expected);
    assert_eq!(lab.txids(), [new.compute_txid()].into());
    for txid in expected {
        let removed = lab.pool.view().removed(&txid).unwrap();
        let by = new.compute_txid();
        assert_eq!(removed.reason, RemovalReason::Replaced { by });
    }
}

#[test]
fn a_replacement_needs_no_signal() {
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let old = lab.spend(&[coin], 1, 1_000);
    assert!(old.input[0].sequence.is_final());
    lab.accept(&old);
    let new = lab.spend(&[coin], 1, 2_000);
    lab.accept(&new);
}

#[test]
fn a_replacement_pays_at_least_what_it_replaces() {
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let old = lab.spend(&[coin], 1, 1_000);
    lab.accept(&old);
    let new = lab.spend(&[coin], 1, 999);
    let rejected = lab.refuse(&new);
    assert_eq!(rejected.class, RejectClass::Reconsiderable);
    assert_eq!(rejected.reason, "insufficient fee");
    let txid = new.compute_txid();
    let debug = format!(
        "rejecting replacement {txid}, less fees than conflicting txs; 0.00000999 < 0.00001"
    );
    assert_eq!(rejected.debug, debug);
}

#[test]
fn a_replacement_pays_for_its_relay() {
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let old = lab.spend(&[coin], 1, 1_000);
    lab.accept(&old);
    let new = lab.spend(&[coin], 1, 1_008);
    let (reason, debug) = lab.reason(&new);
    assert_eq!(reason, "insufficient fee");
    let txid = new.compute_txid();
    let expected = format!(
        "rejecting replacement {txid}, not enough additional fees to relay; 0.00000008 < 0.00000009"
    );
    assert_eq!(debug, expected);
    let enough = lab.spend(&[coin], 1, 1_009);
    lab.accept(&enough);
}

#[test]
fn a_replacement_improves_the_diagram() {
    let mut lab = Lab::new();
    let coin = lab.coin(10_000_000);
    let old = lab.spend(&[coin], 1, 1_000);
    lab.accept(&old);
    // More fee in all, but at a lower rate.
    let large = lab.spend(&[coin], 100, 2_000);
    let rejected = lab.refuse(&large);
    assert_eq!(rejected.class, RejectClass::Reconsiderable);
    assert_eq!(rejected.reason, "replacement-failed");
    assert_eq!(
        rejected.debug,
        "insufficient feerate: does not improve feerate diagram"
    );
}

#[test]
fn a_replacement_must_not_spend_what_it_replaces() {
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let old = lab.spend(&[coin], 1, 1_000);
    lab.accept(&old);
    let child = lab.spend(&[out(&old, 0)], 1, 1_000);
    lab.accept(&child);
    let new = lab.spend(&[coin, out(&child, 0)], 1, 100_000);
    let rejected = lab.refuse(&new);
    assert_eq!(rejected.class, RejectClass::Consensus);
    assert_eq!(rejected.reason, "bad-txns-spends-conflicting-tx");
    let (txid, conflict) = (new.compute_txid(), old.compute_txid());
    let debug = format!("{txid} spends conflicting transaction {conflict}");
    assert_eq!(rejected.debug, debug);
}

#[test]
fn a_replacement_conflicts_with_at_most_100_clusters() {
    let mut lab = Lab::new();
    let coins: Vec<_> = (0..101).map(|_| lab.coin(1_000_000)).collect();
    for coin in &coins {
        let tx = lab.spend(&[*coin], 1, 100);
        lab.accept(&tx);
    }
    let all = lab.spend(&coins, 1, 1_000_000);
    let (reason, debug) = lab.reason(&all);
    assert_eq!(reason, "too many potential replacements");
    let txid = all.compute_txid();
    let expected =
        format!("rejecting replacement {txid}; too many conflicting clusters (101 > 100)");
    assert_eq!(debug, expected);
    let most = lab.spend(&coins[..100], 1, 1_000_000);
    assert_eq!(lab.accept(&most).replaced.len(), 100);
}

#[test]
fn a_replacement_leaves_its_parents_other_child_alone() {
    let mut lab = Lab::new();
    let coin = lab.coin(10_000_000);
    let parent = lab.spend(&[coin], 2, 20);
    lab.accept(&parent);
    let rich = lab.spend(&[out(&parent, 0)], 1, 5_000);
    lab.accept(&rich);
    let old = lab.spend(&[out(&parent, 1)], 1, 1_000);
    lab.accept(&old);
    let new = lab.spend(&[out(&parent, 1)], 1, 1_500);
    lab.accept(&new);
    assert_eq!(lab.pool.len(), 3);
    assert_eq!(lab.pool.total_fees(), 6_520);
}
