//! What may happen between the steps of acceptance.

use std::sync::Arc;

use pulse_primitives::bitcoin::Transaction;

use crate::{
    AcceptError, AcceptOptions, Prepared,
    testing::{Lab, Lenient, out},
};

fn prepare(lab: &Lab, tx: &Arc<Transaction>) -> Prepared {
    let options = AcceptOptions::default();
    let prepared = lab.pool.prepare(tx, &lab.coins, &Lenient, lab.now, options);
    prepared.unwrap()
}

fn commit(lab: &mut Lab, prepared: Prepared) -> String {
    let result = lab.pool.commit(prepared, lab.now);
    lab.pool.assert_consistent();
    match result {
        Ok(_) => "ok".to_owned(),
        Err(AcceptError::Rejected(rejected)) => rejected.reason.into_owned(),
        Err(AcceptError::Tip(_)) => "tip".to_owned(),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn an_unrelated_change_does_not_matter() {
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let tx = lab.spend(&[coin], 1, 1_000);
    let prepared = prepare(&lab, &tx);
    lab.single(1_000);
    assert_eq!(commit(&mut lab, prepared), "ok");
    assert_eq!(lab.pool.len(), 2);
}

#[test]
fn the_same_transaction_enters_once() {
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let tx = lab.spend(&[coin], 1, 1_000);
    let prepared = prepare(&lab, &tx);
    lab.accept(&tx);
    assert_eq!(commit(&mut lab, prepared), "txn-already-in-mempool");
}

#[test]
fn a_conflict_that_came_in_between_is_replaced_by_the_rules() {
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let tx = lab.spend(&[coin], 1, 1_000);
    let rival = lab.spend(&[coin], 1, 1_500);
    let prepared = prepare(&lab, &tx);
    let better = prepare(&lab, &rival);
    lab.accept(&rival);
    assert_eq!(commit(&mut lab, prepared), "insufficient fee");
    lab.pool.set_tip(lab.pool.tip(), lab.now);
    lab.accept(&tx);
    assert_eq!(commit(&mut lab, better), "ok");
    assert_eq!(lab.txids(), [rival.compute_txid()].into());
}

#[test]
fn a_parent_that_left_in_between_is_missing() {
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let parent = lab.spend(&[coin], 1, 1_000);
    lab.accept(&parent);
    let child = lab.spend(&[out(&parent, 0)], 1, 1_000);
    let prepared = prepare(&lab, &child);
    let rival = lab.spend(&[coin], 1, 2_000);
    lab.accept(&rival);
    assert_eq!(commit(&mut lab, prepared), "bad-txns-inputs-missingorspent");
}

#[test]
fn another_tip_needs_another_look() {
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let tx = lab.spend(&[coin], 1, 1_000);
    let prepared = prepare(&lab, &tx);
    let mut block = lab.block(&[], 1);
    lab.connect(&mut block);
    assert_eq!(commit(&mut lab, prepared), "tip");
}

#[test]
fn slots_that_were_used_again_are_not_mistaken() {
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let old = lab.spend(&[coin], 1, 1_000);
    lab.accept(&old);
    let new = lab.spend(&[coin], 1, 2_000);
    let prepared = prepare(&lab, &new);
    // The slot of `old` goes to a stranger.
    lab.pool.set_tip(lab.pool.tip(), lab.now);
    let stranger = lab.single(1_000);
    assert_eq!(commit(&mut lab, prepared), "ok");
    assert!(lab.pool.contains(&stranger.compute_txid()));
}
