use std::sync::Arc;

use pulse_primitives::bitcoin::Transaction;

use crate::{
    AcceptOptions, PackageResult, RejectClass,
    accept::{accept_package, test_package},
    testing::{BAD_SCRIPT, Lab, Lenient, out},
};

fn message(result: &PackageResult) -> String {
    result.clone().into_outcome().message
}

/// The reason of each transaction; `ok` for the accepted, `-` for the unjudged.
fn reasons(result: &PackageResult) -> Vec<String> {
    let reason = |tx: &crate::accept::PackageTx| match &tx.result {
        None => "-".to_owned(),
        Some(Ok(_)) => "ok".to_owned(),
        Some(Err(rejected)) => rejected.reason.to_string(),
    };
    result.txs.iter().map(reason).collect()
}

fn family(lab: &mut Lab, parent_fee: u64, child_fee: u64) -> [Arc<Transaction>; 2] {
    let coin = lab.coin(1_000_000);
    let parent = lab.spend(&[coin], 1, parent_fee);
    let child = lab.spend(&[out(&parent, 0)], 1, child_fee);
    [parent, child]
}

#[test]
fn a_child_pays_for_a_free_parent() {
    let mut lab = Lab::new();
    let txs = family(&mut lab, 0, 1_000);
    assert_eq!(lab.reason(&txs[0]).0, "min relay fee not met");
    let result = lab.package(&txs);
    assert_eq!(message(&result), "success");
    assert_eq!(lab.pool.len(), 2);
    let wtxids = txs.each_ref().map(|tx| tx.compute_wtxid());
    for tx in result.txs {
        let accepted = tx.result.unwrap().unwrap();
        assert_eq!(accepted.effective_fee_rate_sat_kvb, 1_000_000 / 164);
        assert_eq!(accepted.effective_includes, wtxids);
    }
}

#[test]
fn a_parent_that_pays_is_judged_alone() {
    let mut lab = Lab::new();
    let txs = family(&mut lab, 100, 1_000);
    let result = lab.package(&txs);
    let accepted = result.txs[0].result.clone().unwrap().unwrap();
    assert_eq!(accepted.effective_includes, [txs[0].compute_wtxid()]);
}

#[test]
fn a_package_below_the_floor_is_refused_as_a_whole() {
    let mut lab = Lab::new();
    let txs = family(&mut lab, 0, 10);
    let result = lab.package(&txs);
    assert_eq!(message(&result), "transaction failed");
    let expected = ["min relay fee not met", "min relay fee not met"];
    assert_eq!(reasons(&result), expected);
    let child = result.txs[1].result.clone().unwrap().unwrap_err();
    assert_eq!(child.debug, "10 < 17", "of both together");
    assert_eq!(child.class, RejectClass::Reconsiderable);
    assert_eq!(child.effective.unwrap().1.len(), 2);
    assert!(lab.pool.is_empty());
}

#[test]
fn a_bad_child_does_not_take_a_good_parent_down() {
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let parent = lab.spend(&[coin], 1, 1_000);
    let child = lab.build(&[out(&parent, 0)], 1, 1_000, |tx| {
        tx.input[0].sequence = BAD_SCRIPT;
    });
    let result = lab.package(&[Arc::clone(&parent), child]);
    assert_eq!(message(&result), "transaction failed");
    assert_eq!(
        reasons(&result),
        ["ok", "mempool-script-verify-flag-failed (told to)"]
    );
    assert!(lab.pool.contains(&parent.compute_txid()));
}

#[test]
fn a_package_with_a_failing_script_leaves_nothing() {
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let parent = lab.spend(&[coin], 1, 0);
    let child = lab.build(&[out(&parent, 0)], 1, 1_000, |tx| {
        tx.input[0].sequence = BAD_SCRIPT;
    });
    let result = lab.package(&[parent, child]);
    assert_eq!(message(&result), "transaction failed");
    assert!(lab.pool.is_empty());
}

#[test]
fn malformed_packages_have_their_reasons() {
    let mut lab = Lab::new();
    let [parent, child] = family(&mut lab, 1_000, 1_000);
    let check = |lab: &mut Lab, txs: &[&Arc<Transaction>], expected: &str| {
        let txs: Vec<_> = txs.iter().map(|tx| Arc::clone(tx)).collect();
        let result = lab.package(&txs);
        assert_eq!(message(&result), expected);
        assert!(reasons(&result).iter().all(|reason| reason == "-"));
        assert!(lab.pool.is_empty());
    };
    check(&mut lab, &[&child, &parent], "package-not-sorted");
    check(&mut lab, &[&parent, &parent], "package-contains-duplicates");
    let coin = parent.input[0].previous_output;
    let rival = lab.spend(&[coin], 1, 2_000);
    check(&mut lab, &[&parent, &rival], "conflict-in-package");
    let [_, stranger] = family(&mut lab, 1, 1);
    let expected = "package-not-child-with-parents";
    check(&mut lab, &[&parent, &stranger], expected);
    let many: Vec<_> = (0..26).map(|_| family(&mut lab, 1, 1)[0].clone()).collect();
    let many: Vec<_> = many.iter().collect();
    check(&mut lab, &many, "package-too-many-transactions");
    let large = |lab: &mut Lab| {
        let coin = lab.coin(1_000_000_000);
        lab.spend(&[coin], 1_700, 1_000_000)
    };
    let (a, b) = (large(&mut lab), large(&mut lab));
    check(&mut lab, &[&a, &b], "package-too-large");
}

#[test]
fn what_is_here_already_counts_as_accepted() {
    let mut lab = Lab::new();
    let [parent, child] = family(&mut lab, 1_000, 1_000);
    let mut other = (*parent).clone();
    lab.accept(&parent);
    let result = lab.package(&[Arc::clone(&parent), Arc::clone(&child)]);
    assert_eq!(message(&result), "success");
    let known = result.txs[0].result.clone().unwrap().unwrap();
    assert!(known.effective_includes.is_empty());
    other.input[0].witness.push([9]);
    let result = lab.package(&[Arc::new(other), child]);
    let known = result.txs[0].result.clone().unwrap().unwrap();
    assert_eq!(known.other_wtxid, Some(parent.compute_wtxid()));
}

#[test]
fn a_package_replaces_what_its_parent_alone_could_not() {
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let old = lab.spend(&[coin], 1, 1_000);
    lab.accept(&old);
    let parent = lab.spend(&[coin], 1, 0);
    let child = lab.spend(&[out(&parent, 0)], 1, 3_000);
    let result = lab.package(&[parent, child]);
    assert_eq!(message(&result), "success");
    assert_eq!(result.replaced, [old.compute_txid()]);
    assert_eq!(lab.pool.len(), 2);
}

#[test]
fn a_package_that_replaces_has_its_reasons() {
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let old = lab.spend(&[coin], 1, 1_000);
    lab.accept(&old);
    let parent = lab.spend(&[coin], 1, 0);
    let poor = lab.spend(&[out(&parent, 0)], 1, 1_010);
    let txid = poor.compute_txid();
    let result = lab.package(&[Arc::clone(&parent), poor]);
    let expected = format!(
        "package RBF failed: insufficient anti-DoS fees, rejecting replacement {txid}, not enough additional fees to relay; 0.0000001 < 0.00000017"
    );
    assert_eq!(message(&result), expected);
    let slow = lab.spend(&[out(&parent, 0)], 50, 1_500);
    let result = lab.package(&[Arc::clone(&parent), slow]);
    let expected = "package RBF failed: insufficient feerate: does not improve feerate diagram";
    assert_eq!(message(&result), expected);
    let helper = lab.coin(1_000_000);
    let helper = lab.spend(&[helper], 1, 0);
    let child = lab.spend(&[out(&parent, 0), out(&helper, 0)], 1, 9_000);
    let result = lab.package(&[parent, helper, child]);
    let expected = "package RBF failed: package must be 1-parent-1-child";
    assert_eq!(message(&result), expected);
    assert_eq!(lab.txids(), [old.compute_txid()].into());
}

#[test]
fn ephemeral_dust_enters_in_a_package_that_spends_it() {
    use pulse_primitives::bitcoin::Amount;
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let parent = lab.build(&[coin], 2, 0, |tx| {
        tx.output[0].value = Amount::from_sat(999_900);
        tx.output[1].value = Amount::from_sat(100);
    });
    let ignores = lab.spend(&[out(&parent, 0)], 1, 1_000);
    let result = lab.package(&[Arc::clone(&parent), ignores]);
    assert_eq!(message(&result), "unspent-dust");
    assert_eq!(reasons(&result)[1], "missing-ephemeral-spends");
    assert!(lab.pool.is_empty());
    let spends = lab.spend(&[out(&parent, 0), out(&parent, 1)], 1, 1_000);
    let result = lab.package(&[parent, spends]);
    assert_eq!(message(&result), "success");
}

#[test]
fn a_test_of_several_accepts_none_and_replaces_none() {
    let mut lab = Lab::new();
    let txs = family(&mut lab, 1_000, 1_000);
    let test = |lab: &mut Lab, txs: &[Arc<Transaction>]| {
        let pool = parking_lot::RwLock::new(std::mem::replace(
            &mut lab.pool,
            crate::Mempool::new(crate::MempoolConfig::default()),
        ));
        let options = AcceptOptions::default();
        let result = test_package(&pool, txs, &lab.coins, &Lenient, lab.now, options);
        lab.pool = pool.into_inner();
        result.unwrap()
    };
    assert_eq!(reasons(&test(&mut lab, &txs)), ["ok", "ok"]);
    assert!(lab.pool.is_empty());
    let coin = txs[0].input[0].previous_output;
    let old = lab.spend(&[coin], 1, 100);
    lab.accept(&old);
    let result = test(&mut lab, &txs);
    assert_eq!(reasons(&result), ["bip125-replacement-disallowed", "-"]);
    let low = family(&mut lab, 0, 5_000);
    let result = test(&mut lab, &low);
    assert_eq!(reasons(&result), ["min relay fee not met", "-"]);
}

#[test]
fn packages_go_through_a_lock() {
    let mut lab = Lab::new();
    let txs = family(&mut lab, 0, 1_000);
    let Lab {
        pool, coins, now, ..
    } = lab;
    let pool = parking_lot::RwLock::new(pool);
    let options = AcceptOptions::default();
    let result = accept_package(&pool, &txs, &coins, &Lenient, now, options).unwrap();
    assert!(result.rejected.is_none());
    assert_eq!(pool.read().len(), 2);
}
