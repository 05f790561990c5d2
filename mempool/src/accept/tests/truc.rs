use std::sync::Arc;

use pulse_primitives::bitcoin::{OutPoint, Transaction, transaction::Version};

use crate::testing::{Lab, out};

fn named(tx: &Transaction) -> String {
    format!("{} (wtxid={})", tx.compute_txid(), tx.compute_wtxid())
}

fn violation(lab: &mut Lab, tx: &Arc<Transaction>) -> String {
    let (reason, debug) = lab.reason(tx);
    assert_eq!(reason, "TRUC-violation");
    debug
}

fn parent_v3(lab: &mut Lab, outputs: u64) -> Arc<Transaction> {
    let coin = lab.coin(100_000_000);
    let parent = lab.spend_v3(&[coin], outputs, 1_000);
    lab.accept(&parent);
    parent
}

#[test]
fn versions_do_not_mix() {
    let mut lab = Lab::new();
    let parent = parent_v3(&mut lab, 1);
    let child = lab.spend(&[out(&parent, 0)], 1, 1_000);
    let expected = format!(
        "non-version=3 tx {} cannot spend from version=3 tx {}",
        named(&child),
        named(&parent)
    );
    assert_eq!(violation(&mut lab, &child), expected);
    let plain = lab.single(1_000);
    let child = lab.spend_v3(&[out(&plain, 0)], 1, 1_000);
    let expected = format!(
        "version=3 tx {} cannot spend from non-version=3 tx {}",
        named(&child),
        named(&plain)
    );
    assert_eq!(violation(&mut lab, &child), expected);
}

#[test]
fn sizes_are_limited() {
    let mut lab = Lab::new();
    let coin = lab.coin(100_000_000);
    let large = lab.spend_v3(&[coin], 330, 10_000);
    let expected = format!(
        "version=3 tx {} is too big: {} > 10000 virtual bytes",
        named(&large),
        large.vsize()
    );
    assert_eq!(violation(&mut lab, &large), expected);
    let parent = parent_v3(&mut lab, 1);
    let child = lab.spend_v3(&[out(&parent, 0)], 40, 10_000);
    let expected = format!(
        "version=3 child tx {} is too big: {} > 1000 virtual bytes",
        named(&child),
        child.vsize()
    );
    assert_eq!(violation(&mut lab, &child), expected);
}

#[test]
fn there_is_one_parent_and_no_grandparent() {
    let mut lab = Lab::new();
    let (a, b) = (parent_v3(&mut lab, 1), parent_v3(&mut lab, 1));
    let both = lab.spend_v3(&[out(&a, 0), out(&b, 0)], 1, 1_000);
    let expected = format!("tx {} would have too many ancestors", named(&both));
    assert_eq!(violation(&mut lab, &both), expected);
    let child = lab.spend_v3(&[out(&a, 0)], 1, 1_000);
    lab.accept(&child);
    let grandchild = lab.spend_v3(&[out(&child, 0)], 1, 1_000);
    let expected = format!("tx {} would have too many ancestors", named(&grandchild));
    assert_eq!(violation(&mut lab, &grandchild), expected);
}

#[test]
fn a_second_child_evicts_the_first_if_it_pays() {
    let mut lab = Lab::new();
    let parent = parent_v3(&mut lab, 2);
    let first = lab.spend_v3(&[out(&parent, 0)], 1, 1_000);
    lab.accept(&first);
    let poor = lab.spend_v3(&[out(&parent, 1)], 1, 1_000);
    let (reason, debug) = lab.reason(&poor);
    assert_eq!(reason, "insufficient fee (including sibling eviction)");
    assert!(debug.contains("not enough additional fees to relay"));
    let rich = lab.spend_v3(&[out(&parent, 1)], 1, 2_000);
    assert_eq!(lab.accept(&rich).replaced, [first.compute_txid()]);
}

#[test]
fn a_child_may_be_replaced_by_its_own_conflict() {
    let mut lab = Lab::new();
    let parent = parent_v3(&mut lab, 1);
    let outpoint: OutPoint = out(&parent, 0);
    let first = lab.spend_v3(&[outpoint], 1, 1_000);
    lab.accept(&first);
    let second = lab.spend_v3(&[outpoint], 1, 2_000);
    lab.accept(&second);
}

#[test]
fn with_two_children_from_a_reorganisation_none_is_evicted() {
    let mut lab = Lab::new();
    let coin = lab.coin(100_000_000);
    let parent = lab.spend_v3(&[coin], 3, 1_000);
    let mut block = lab.block(&[&parent], 1);
    lab.connect(&mut block);
    for vout in 0..2 {
        let child = lab.spend_v3(&[out(&parent, vout)], 1, 1_000);
        lab.accept(&child);
    }
    lab.disconnect(&block);
    lab.pool
        .finish_reorg(&lab.coins, &crate::testing::Lenient, lab.now)
        .unwrap();
    let third = lab.spend_v3(&[out(&parent, 2)], 1, 50_000);
    let expected = format!("tx {} would exceed descendant count limit", named(&parent));
    assert_eq!(violation(&mut lab, &third), expected);
}

#[test]
fn a_package_is_one_parent_with_one_child() {
    let mut lab = Lab::new();
    let coin = lab.coin(100_000_000);
    let parent = lab.spend_v3(&[coin], 2, 0);
    let child = lab.spend_v3(&[out(&parent, 0)], 1, 1_000);
    let result = lab.package(&[Arc::clone(&parent), child]);
    assert!(result.rejected.is_none(), "{result:?}");
    assert_eq!(lab.pool.len(), 2);
}

#[test]
fn versions_do_not_mix_in_a_package() {
    let mut lab = Lab::new();
    let coin = lab.coin(100_000_000);
    let parent = lab.spend_v3(&[coin], 1, 0);
    let child = lab.build(&[out(&parent, 0)], 1, 1_000, |tx| tx.version = Version::TWO);
    let expected = format!(
        "TRUC-violation, non-version=3 tx {} cannot spend from version=3 tx {}",
        named(&child),
        named(&parent)
    );
    let result = lab.package(&[parent, child]);
    assert_eq!(result.rejected.unwrap().message(), expected);
    assert!(lab.pool.is_empty());
}

#[test]
fn two_parents_in_a_package_are_too_many() {
    let mut lab = Lab::new();
    let (a, b) = (lab.coin(1_000_000), lab.coin(1_000_000));
    let (a, b) = (lab.spend_v3(&[a], 1, 0), lab.spend_v3(&[b], 1, 0));
    let child = lab.spend_v3(&[out(&a, 0), out(&b, 0)], 1, 1_000);
    let expected = format!(
        "TRUC-violation, tx {} would have too many ancestors",
        named(&child)
    );
    let result = lab.package(&[a, b, child]);
    assert_eq!(result.rejected.unwrap().message(), expected);
}
