use crate::{
    AcceptOptions, RejectClass,
    testing::{Lab, NOW, ONE_ONE, out},
};

#[test]
fn the_relay_floor_is_a_tenth_of_a_sat_per_vb_rounded_up() {
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let low = lab.spend(&[coin], 1, 8);
    let rejected = lab.refuse(&low);
    assert_eq!(rejected.class, RejectClass::Reconsiderable);
    assert_eq!(rejected.reason, "min relay fee not met");
    assert_eq!(rejected.debug, "8 < 9");
    let effective = (8_000 / ONE_ONE, vec![low.compute_wtxid()]);
    assert_eq!(rejected.effective, Some(effective));
    let enough = lab.spend(&[coin], 1, 9);
    let accepted = lab.accept(&enough);
    assert_eq!(accepted.tx.vsize, ONE_ONE);
    assert_eq!(accepted.tx.fee.to_sat(), 9);
    assert_eq!(accepted.tx.effective_fee_rate_sat_kvb, 9_000 / ONE_ONE);
    assert_eq!(accepted.tx.effective_includes, [enough.compute_wtxid()]);
}

#[test]
fn a_client_may_limit_the_fee_rate() {
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let tx = lab.spend(&[coin], 1, ONE_ONE + 1);
    let limit = |rate| AcceptOptions {
        max_fee_rate_sat_kvb: Some(rate),
        ..AcceptOptions::default()
    };
    let err = lab.try_accept(&tx, limit(1_000)).unwrap_err();
    assert_eq!(err.to_string(), "transaction refused: max feerate exceeded");
    let tx = lab.spend(&[coin], 1, ONE_ONE);
    lab.try_accept(&tx, limit(1_000)).unwrap();
}

#[test]
fn a_test_changes_nothing() {
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let old = lab.spend(&[coin], 1, 1_000);
    lab.accept(&old);
    lab.pool.take_events();
    let (changes, bytes) = (lab.pool.changes(), lab.pool.usage_bytes());
    let new = lab.spend(&[coin], 1, 2_000);
    let options = AcceptOptions {
        test: true,
        ..AcceptOptions::default()
    };
    let accepted = lab.try_accept(&new, options).unwrap();
    assert_eq!(accepted.replaced, [old.compute_txid()]);
    assert_eq!(lab.pool.changes(), changes);
    assert_eq!(lab.pool.usage_bytes(), bytes);
    assert!(lab.pool.take_events().is_empty());
    assert!(lab.pool.contains(&old.compute_txid()));
}

#[test]
fn a_cluster_has_at_most_64_transactions() {
    let mut lab = Lab::new();
    let mut tip = lab.single(10_000);
    for _ in 1..64 {
        tip = lab.spend(&[out(&tip, 0)], 1, 10_000);
        lab.accept(&tip);
    }
    let next = lab.spend(&[out(&tip, 0)], 1, 10_000);
    let rejected = lab.refuse(&next);
    assert_eq!(rejected.reason, "too-large-cluster");
    assert_eq!(rejected.class, RejectClass::MempoolPolicy);
    // Replacing its last one does not make it larger.
    let parent = tip.input[0].previous_output;
    let other = lab.spend(&[parent], 1, 20_000);
    lab.accept(&other);
}

#[test]
fn a_cluster_has_at_most_101_kvb() {
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000_000);
    // 31 vB per output: 3,200 of them are 99.2 kvB.
    let first = lab.spend(&[coin], 3_200, 1_000_000);
    lab.accept(&first);
    let left = 101_000 - first.vsize();
    let child = |lab: &mut Lab, outputs: usize| {
        let inputs: Vec<_> = (0..4).map(|vout| out(&first, vout)).collect();
        let tx = lab.spend(&inputs, outputs as u64, 100_000);
        let vsize = tx.vsize();
        (tx, vsize)
    };
    let count = (1..80).take_while(|&n| child(&mut lab, n).1 <= left).last();
    let count = count.unwrap();
    let (over, _) = child(&mut lab, count + 1);
    assert_eq!(lab.reason(&over).0, "too-large-cluster");
    let (fits, _) = child(&mut lab, count);
    lab.accept(&fits);
}

#[test]
fn a_child_pays_for_its_parent_in_mining_order() {
    let mut lab = Lab::new();
    let middle = lab.single(1_000);
    let low = lab.single(10);
    let child = lab.spend(&[out(&low, 0)], 1, 3_000);
    lab.accept(&child);
    let chunks: Vec<Vec<_>> = lab
        .pool
        .chunks()
        .map(|chunk| chunk.entries.map(|entry| entry.txid).collect())
        .collect();
    let expected = [
        vec![low.compute_txid(), child.compute_txid()],
        vec![middle.compute_txid()],
    ];
    assert_eq!(chunks, expected);
    let order = lab
        .pool
        .compare_mining(&child.compute_txid(), &middle.compute_txid());
    assert!(order.is_lt());
    assert_eq!(lab.pool.get(&low.compute_txid()).unwrap().time, NOW);
}

#[test]
fn ephemeral_dust_must_be_spent_by_the_child() {
    use pulse_primitives::bitcoin::{Amount, Transaction};
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let dust = |tx: &mut Transaction| {
        let moved = tx.output[1].value - Amount::from_sat(100);
        tx.output[0].value += moved;
        tx.output[1].value = Amount::from_sat(100);
    };
    // It comes back from a block, since alone a free transaction is not accepted.
    let parent = lab.build(&[coin], 2, 0, dust);
    let mut block = lab.block(&[&parent], 1);
    lab.connect(&mut block);
    lab.disconnect(&block);
    lab.pool
        .finish_reorg(&lab.coins, &crate::testing::Lenient, NOW)
        .unwrap();
    let ignores = lab.spend(&[out(&parent, 0)], 1, 1_000);
    let rejected = lab.refuse(&ignores);
    assert_eq!(rejected.reason, "missing-ephemeral-spends");
    let (txid, wtxid) = (ignores.compute_txid(), ignores.compute_wtxid());
    let debug = format!("tx {txid} (wtxid={wtxid}) did not spend parent's ephemeral dust");
    assert_eq!(rejected.debug, debug);
    let spends = lab.spend(&[out(&parent, 0), out(&parent, 1)], 1, 1_000);
    lab.accept(&spends);
}
