use pulse_primitives::mempool::{MempoolView, RemovalReason};

use crate::{
    AcceptError, AcceptOptions, LeftReason, PoolEvent, ReorgOutcome,
    testing::{Lab, Lenient, TIP, out, tip},
};

fn finish(lab: &mut Lab) -> ReorgOutcome {
    let outcome = lab.pool.finish_reorg(&lab.coins, &Lenient, lab.now);
    lab.pool.assert_consistent();
    outcome.unwrap()
}

#[test]
fn a_block_removes_what_it_confirms_and_keeps_its_children() {
    let mut lab = Lab::new();
    let parent = lab.single(1_000);
    let child = lab.spend(&[out(&parent, 0)], 1, 1_000);
    lab.accept(&child);
    lab.pool.take_events();
    let mut block = lab.block(&[&parent], 1);
    lab.connect(&mut block);
    assert_eq!(lab.txids(), [child.compute_txid()].into());
    assert_eq!(lab.pool.tip(), Some(block.tip));
    let events = lab.pool.take_events();
    let left = PoolEvent::Left {
        txid: parent.compute_txid(),
        wtxid: parent.compute_wtxid(),
        tx: parent.clone(),
        reason: LeftReason::Confirmed(TIP + 1),
    };
    assert_eq!(events, [left]);
    assert!(lab.pool.view().removed(&parent.compute_txid()).is_none());
}

#[test]
fn a_block_removes_conflicts_with_their_descendants() {
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let loser = lab.spend(&[coin], 1, 1_000);
    lab.accept(&loser);
    let child = lab.spend(&[out(&loser, 0)], 1, 1_000);
    lab.accept(&child);
    let winner = lab.spend(&[coin], 1, 2_000);
    let mut block = lab.block(&[&winner], 1);
    lab.connect(&mut block);
    assert!(lab.pool.is_empty());
    for tx in [&loser, &child] {
        let removed = lab.pool.view().removed(&tx.compute_txid()).unwrap();
        let with = winner.compute_txid();
        assert_eq!(removed.reason, RemovalReason::Conflict { with });
    }
}

#[test]
fn a_block_that_does_not_follow_is_refused() {
    let mut lab = Lab::new();
    let block = lab.block(&[], 1);
    lab.pool.set_tip(Some(tip(TIP, 9)), lab.now);
    let result = lab
        .pool
        .connect_block(&block.block, &block.txids, block.tip, lab.now);
    assert_eq!(result.unwrap_err().mempool, Some(tip(TIP, 9)));
}

#[test]
fn coins_of_another_tip_are_refused() {
    let mut lab = Lab::new();
    let coin = lab.coin(10_000);
    let tx = lab.spend(&[coin], 1, 500);
    lab.coins.tip = tip(TIP, 3);
    let result = lab.try_accept(&tx, AcceptOptions::default());
    assert!(matches!(result, Err(AcceptError::Tip(_))));
}

#[test]
fn transactions_of_a_disconnected_block_come_back_below_their_children() {
    let mut lab = Lab::new();
    let parent = lab.single(1_000);
    let child = lab.spend(&[out(&parent, 0)], 1, 1_000);
    lab.accept(&child);
    let grandchild = lab.spend(&[out(&child, 0)], 1, 1_000);
    let mut block = lab.block(&[&parent, &child], 1);
    lab.connect(&mut block);
    lab.accept(&grandchild);
    lab.disconnect(&block);
    let mut other = lab.block(&[], 2);
    lab.connect(&mut other);
    let outcome = finish(&mut lab);
    assert_eq!(outcome.returned, 2);
    assert_eq!(lab.pool.len(), 3);
    let family = lab.pool.ancestors(&grandchild.compute_txid());
    assert_eq!(family.len(), 3);
}

#[test]
fn free_transactions_of_a_disconnected_block_come_back() {
    let mut lab = Lab::new();
    let coin = lab.coin(100_000);
    let free = lab.spend(&[coin], 1, 0);
    let mut block = lab.block(&[&free], 1);
    lab.connect(&mut block);
    lab.disconnect(&block);
    assert_eq!(finish(&mut lab).returned, 1);
}

#[test]
fn what_spends_from_a_transaction_that_cannot_come_back_leaves() {
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let first = lab.spend(&[coin], 1, 1_000);
    let mut block = lab.block(&[&first], 1);
    lab.connect(&mut block);
    let child = lab.spend(&[out(&first, 0)], 1, 1_000);
    lab.accept(&child);
    lab.disconnect(&block);
    let second = lab.spend(&[coin], 1, 2_000);
    let mut other = lab.block(&[&second], 2);
    lab.connect(&mut other);
    let outcome = finish(&mut lab);
    let expected = ReorgOutcome {
        returned: 0,
        removed: 1,
    };
    assert_eq!(outcome, expected);
    assert!(lab.pool.is_empty());
    let removed = lab.pool.view().removed(&child.compute_txid()).unwrap();
    assert_eq!(removed.reason, RemovalReason::Reorg);
}

#[test]
fn what_spends_a_disconnected_coinbase_leaves() {
    let mut lab = Lab::new();
    let block = {
        let mut block = lab.block(&[], 1);
        lab.connect(&mut block);
        block
    };
    let coinbase = out(&block.block.txdata[0], 0);
    // As if it were old: maturity is not what is tested.
    lab.coins.coins.get_mut(&coinbase).unwrap().is_coinbase = false;
    let coin = lab.coin(1_000_000);
    let tx = lab.spend(&[coinbase, coin], 1, 1_000);
    lab.accept(&tx);
    lab.disconnect(&block);
    assert_eq!(finish(&mut lab).removed, 1);
    assert!(lab.pool.is_empty());
}

#[test]
fn what_is_no_longer_final_leaves() {
    let mut lab = Lab::new();
    let mut block = lab.block(&[], 1);
    lab.connect(&mut block);
    let coin = lab.coin(1_000_000);
    let tx = lab.build(&[coin], 1, 1_000, |tx| {
        tx.lock_time = bitcoin_height(TIP + 1);
        tx.input[0].sequence = pulse_primitives::bitcoin::Sequence::ZERO;
    });
    lab.accept(&tx);
    lab.disconnect(&block);
    assert_eq!(finish(&mut lab).removed, 1);
}

fn bitcoin_height(height: u32) -> pulse_primitives::bitcoin::absolute::LockTime {
    pulse_primitives::bitcoin::absolute::LockTime::from_consensus(height)
}

#[test]
fn what_spends_a_coinbase_that_is_young_again_leaves() {
    let mut lab = Lab::new();
    let coin = lab.coin_of(1_000_000, crate::testing::script(9), TIP + 2 - 100, true);
    let tx = lab.spend(&[coin], 1, 1_000);
    assert_eq!(
        lab.reason(&tx).0,
        "bad-txns-premature-spend-of-coinbase",
        "99 blocks are not enough"
    );
    let mut block = lab.block(&[], 1);
    lab.connect(&mut block);
    lab.accept(&tx);
    lab.disconnect(&block);
    assert_eq!(finish(&mut lab).removed, 1);
}

#[test]
fn nothing_is_accepted_inside_a_reorganisation() {
    let mut lab = Lab::new();
    let mut block = lab.block(&[], 1);
    lab.connect(&mut block);
    lab.disconnect(&block);
    let coin = lab.coin(10_000);
    let tx = lab.spend(&[coin], 1, 500);
    let result = lab.try_accept(&tx, AcceptOptions::default());
    assert!(matches!(result, Err(AcceptError::Reorganising)));
    finish(&mut lab);
    lab.accept(&tx);
}

#[test]
fn a_returning_transaction_with_too_many_descendants_loses_some() {
    let mut lab = Lab::new();
    let coin = lab.coin(100_000_000);
    let hub = lab.spend(&[coin], 70, 10_000);
    let mut block = lab.block(&[&hub], 1);
    lab.connect(&mut block);
    for vout in 0..70 {
        let child = lab.spend(&[out(&hub, vout)], 1, 1_000 + u64::from(vout));
        lab.accept(&child);
    }
    lab.disconnect(&block);
    let outcome = finish(&mut lab);
    assert_eq!(outcome.returned, 1);
    assert_eq!(lab.pool.len(), 64);
    let least = lab.pool.iter().map(|e| e.fee.to_sat()).min();
    assert_eq!(least, Some(1_007), "the worst seven left");
}
