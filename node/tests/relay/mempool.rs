//! The mempool's task: what it follows, refuses, and keeps.

use std::{fs, time::Duration};

use pulse_mempool::MempoolConfig;
use pulse_node::mempool::MempoolTask;
use pulse_primitives::{
    bitcoin::{Amount, ScriptBuf, Transaction, TxOut, Txid},
    mempool::{MempoolSource, RemovalReason, SubmitLimits, TxRejected, TxSubmitter},
};
use tempfile::tempdir;

use crate::{
    chain::{MemChain, coin_of, spend},
    common::Running,
};

async fn submit(running: &Running, tx: &Transaction) -> Result<Txid, TxRejected> {
    submit_within(running, tx, SubmitLimits::default()).await
}

async fn submit_within(
    running: &Running,
    tx: &Transaction,
    limits: SubmitLimits,
) -> Result<Txid, TxRejected> {
    let (mempool, tx) = (running.mempool.clone(), tx.clone());
    tokio::task::spawn_blocking(move || mempool.submit(tx, limits))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_at_once_when_the_first_peer_has_answered_for_headers() {
    let (chain, dir) = (MemChain::new(110), tempdir().unwrap());
    chain.answered.send_replace(false);
    // So that no look for what was missed makes up for it.
    let never = Duration::from_secs(1 << 20);
    let change = |task: MempoolTask| task.with_tick(never);
    let running = Running::spawn(&chain, dir.path(), MempoolConfig::default(), change);
    // The first of these looks is at the start.
    chain.first_report().await;
    assert_eq!(running.mempool.view().tip(), None);
    chain.answered.send_replace(true);
    running.settled().await;
    running.stop().await;
}

fn contains(running: &Running, tx: &Transaction) -> bool {
    running.mempool.view().tx(&tx.compute_txid()).is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submitted_transaction_is_visible_when_submit_returns() {
    let (chain, dir) = (MemChain::new(110), tempdir().unwrap());
    let running = Running::start(&chain, dir.path()).await;
    let tx = spend(&[chain.coinbase(1)], 2, 1000);
    assert_eq!(submit(&running, &tx).await, Ok(tx.compute_txid()));
    let seen = running.mempool.view().tx(&tx.compute_txid()).unwrap();
    assert_eq!(seen.fee, Amount::from_sat(1000));
    assert_eq!(seen.prevouts.len(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn submitting_twice_is_success() {
    let (chain, dir) = (MemChain::new(110), tempdir().unwrap());
    let running = Running::start(&chain, dir.path()).await;
    let tx = spend(&[chain.coinbase(1)], 2, 1000);
    for _ in 0..2 {
        assert_eq!(submit(&running, &tx).await, Ok(tx.compute_txid()));
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_bitcoin_cores_codes_and_words() {
    let (chain, dir) = (MemChain::new(110), tempdir().unwrap());
    let running = Running::start(&chain, dir.path()).await;
    let told = |result: Result<Txid, TxRejected>| {
        let rejected = result.unwrap_err();
        (rejected.code, rejected.to_string())
    };

    let unknown = spend(&[coin_of(&spend(&[chain.coinbase(1)], 2, 9), 0)], 2, 1000);
    let missing = "bad-txns-inputs-missingorspent".to_owned();
    assert_eq!(told(submit(&running, &unknown).await), (-25, missing));

    let young = spend(&[chain.coinbase(109)], 2, 1000);
    let (code, words) = told(submit(&running, &young).await);
    assert_eq!(code, -26);
    assert!(
        words.starts_with("bad-txns-premature-spend-of-coinbase"),
        "{words}"
    );

    let cheap = spend(&[chain.coinbase(1)], 2, 0);
    let words = "min relay fee not met, 0 < 8".to_owned();
    assert_eq!(told(submit(&running, &cheap).await), (-26, words));

    let dear = spend(&[chain.coinbase(1)], 2, 1_000_000);
    let limits = SubmitLimits {
        max_fee_rate_sat_kvb: Some(10_000_000),
        max_burn: None,
    };
    let (code, words) = told(submit_within(&running, &dear, limits).await);
    assert_eq!(code, -25);
    assert!(words.starts_with("Fee exceeds maximum"), "{words}");
    assert!(!contains(&running, &dear));

    let mut burning = spend(&[chain.coinbase(1)], 2, 1000);
    burning.output[0] = TxOut {
        value: Amount::from_sat(1001),
        script_pubkey: ScriptBuf::new_op_return([1, 2]),
    };
    let limits = SubmitLimits {
        max_fee_rate_sat_kvb: None,
        max_burn: Some(Amount::from_sat(1000)),
    };
    let (code, words) = told(submit_within(&running, &burning, limits).await);
    assert_eq!(code, -25);
    assert!(
        words.starts_with("Unspendable output exceeds maximum"),
        "{words}"
    );

    let confirmed = spend(&[chain.coinbase(2)], 2, 1000);
    chain.mine(vec![confirmed.clone()]);
    running.settled().await;
    let words = "Transaction outputs already in utxo set".to_owned();
    assert_eq!(told(submit(&running, &confirmed).await), (-27, words));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_confirms_and_conflicts_out() {
    let (chain, dir) = (MemChain::new(110), tempdir().unwrap());
    let running = Running::start(&chain, dir.path()).await;
    let confirmed = spend(&[chain.coinbase(1)], 2, 1000);
    let replaced = spend(&[chain.coinbase(2)], 2, 1000);
    let child = spend(&[coin_of(&replaced, 0)], 2, 1000);
    let stays = spend(&[coin_of(&confirmed, 0)], 2, 1000);
    for tx in [&confirmed, &replaced, &child, &stays] {
        submit(&running, tx).await.unwrap();
    }
    let other = spend(&[chain.coinbase(2)], 3, 5000);
    chain.mine(vec![confirmed.clone(), other.clone()]);
    running.settled().await;
    assert!(!contains(&running, &confirmed) && contains(&running, &stays));
    assert!(!contains(&running, &replaced) && !contains(&running, &child));
    let removed = running
        .mempool
        .view()
        .removed(&child.compute_txid())
        .unwrap();
    let with = other.compute_txid();
    assert_eq!(removed.reason, RemovalReason::Conflict { with });
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorganisation_brings_transactions_back() {
    let (chain, dir) = (MemChain::new(110), tempdir().unwrap());
    let running = Running::start(&chain, dir.path()).await;
    let first = spend(&[chain.coinbase(1)], 2, 1000);
    let second = spend(&[coin_of(&first, 0)], 2, 1000);
    let waiting = spend(&[coin_of(&second, 0)], 2, 1000);
    let kept = spend(&[chain.coinbase(2)], 2, 1000);
    for tx in [&first, &second, &waiting, &kept] {
        submit(&running, tx).await.unwrap();
    }
    chain.mine(vec![first.clone()]);
    chain.mine(vec![second.clone(), kept.clone()]);
    running.settled().await;
    assert!(!contains(&running, &second) && contains(&running, &waiting));
    // The new branch has one of them only.
    chain.reorganise(2, vec![vec![], vec![kept.clone()], vec![]]);
    running.settled().await;
    for tx in [&first, &second, &waiting] {
        assert!(contains(&running, tx), "{}", tx.compute_txid());
    }
    assert!(!contains(&running, &kept));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_has_only_taken_blocks_back_is_followed() {
    let (chain, dir) = (MemChain::new(110), tempdir().unwrap());
    let running = Running::start(&chain, dir.path()).await;
    let tx = spend(&[chain.coinbase(1)], 2, 1000);
    submit(&running, &tx).await.unwrap();
    chain.mine(vec![tx.clone()]);
    running.settled().await;
    chain.roll_back(1);
    running.settled().await;
    assert!(contains(&running, &tx));
    let other = spend(&[chain.coinbase(2)], 2, 1000);
    submit(&running, &other).await.unwrap();
    chain.mine(vec![other.clone()]);
    running.settled().await;
    assert!(contains(&running, &tx) && !contains(&running, &other));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_way_is_followed_to_its_end() {
    let (chain, dir) = (MemChain::new(110), tempdir().unwrap());
    let running = Running::start(&chain, dir.path()).await;
    let tx = spend(&[chain.coinbase(1)], 2, 1000);
    submit(&running, &tx).await.unwrap();
    for _ in 0..100 {
        chain.mine(Vec::new());
    }
    running.settled().await;
    assert!(contains(&running, &tx));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_reloads_the_mempool() {
    let (chain, dir) = (MemChain::new(110), tempdir().unwrap());
    let running = Running::start(&chain, dir.path()).await;
    let parent = spend(&[chain.coinbase(1)], 2, 1000);
    let child = spend(&[coin_of(&parent, 0)], 2, 1000);
    let lost = spend(&[chain.coinbase(2)], 2, 1000);
    for tx in [&parent, &child, &lost] {
        submit(&running, tx).await.unwrap();
    }
    let time = running
        .mempool
        .view()
        .tx(&child.compute_txid())
        .unwrap()
        .time;
    // Only once the old file (there is none) has been looked at may it be replaced.
    let path = dir.path().join("mempool.dat");
    wait_loaded(&running).await;
    running.stop().await;
    assert!(path.exists());

    chain.mine(vec![spend(&[chain.coinbase(2)], 3, 5000)]);
    let running = Running::start(&chain, dir.path()).await;
    let child_id = child.compute_txid();
    running.until(|view| view.tx(&child_id).is_some()).await;
    assert!(contains(&running, &parent) && !contains(&running, &lost));
    assert_eq!(running.mempool.view().tx(&child_id).unwrap().time, time);
    running.stop().await;
}

/// Loading begins with the first second after the start.
async fn wait_loaded(running: &Running) {
    let deadline = std::time::Instant::now() + crate::common::PATIENCE;
    while !running.mempool.is_loaded() {
        assert!(std::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_moved_aside() {
    let (chain, dir) = (MemChain::new(110), tempdir().unwrap());
    let path = dir.path().join("mempool.dat");
    fs::write(&path, b"pulsepool, but not really").unwrap();
    fs::write(dir.path().join("fees.dat"), b"nonsense").unwrap();
    let running = Running::start(&chain, dir.path()).await;
    wait_loaded(&running).await;
    assert!(dir.path().join("mempool.damaged").exists());
    assert!(dir.path().join("fees.damaged").exists());
    let tx = spend(&[chain.coinbase(1)], 2, 1000);
    submit(&running, &tx).await.unwrap();
    running.stop().await;
    assert!(path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_pays_for_its_parent() {
    let (chain, dir) = (MemChain::new(110), tempdir().unwrap());
    let running = Running::start(&chain, dir.path()).await;
    let mut parent = spend(&[chain.coinbase(1)], 2, 0);
    parent.version = pulse_primitives::bitcoin::transaction::Version(3);
    let mut child = spend(&[coin_of(&parent, 0)], 2, 5000);
    child.version = parent.version;
    let (mempool, package) = (running.mempool.clone(), vec![parent.clone(), child.clone()]);
    let outcome = tokio::task::spawn_blocking(move || {
        mempool.submit_package(package, SubmitLimits::default())
    });
    let outcome = outcome.await.unwrap().unwrap();
    assert_eq!(outcome.message, "success", "{outcome:?}");
    assert!(contains(&running, &parent) && contains(&running, &child));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_accepts_nothing() {
    let (chain, dir) = (MemChain::new(110), tempdir().unwrap());
    let running = Running::start(&chain, dir.path()).await;
    let tx = spend(&[chain.coinbase(1)], 2, 1000);
    let cheap = spend(&[chain.coinbase(2)], 2, 0);
    for (tx, allowed) in [(&tx, true), (&cheap, false)] {
        let (mempool, txs) = (running.mempool.clone(), vec![tx.clone()]);
        let verdicts =
            tokio::task::spawn_blocking(move || mempool.test(txs, SubmitLimits::default()));
        let verdicts = verdicts.await.unwrap().verdicts;
        let result = verdicts[0].result.as_ref();
        assert_eq!(result.map(Result::is_ok), Some(allowed), "{verdicts:?}");
        assert!(!contains(&running, tx));
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_show_what_is_there() {
    let (chain, dir) = (MemChain::new(110), tempdir().unwrap());
    let config = MempoolConfig::default();
    let running = Running::start_with(&chain, dir.path(), config.clone()).await;
    let tx = spend(&[chain.coinbase(1)], 2, 1000);
    submit(&running, &tx).await.unwrap();
    let mempool = running.mempool.clone();
    let (backlog, projected, least) = tokio::task::spawn_blocking(move || {
        let least = mempool.min_fee_rate_sat_kvb();
        (mempool.backlog(), mempool.projected_blocks(), least)
    })
    .await
    .unwrap();
    assert_eq!((backlog.count, backlog.total_fee_sat), (1, 1000));
    assert_eq!(projected.len(), 1);
    assert_eq!(projected[0].total_fee_sat, 1000);
    assert_eq!(least, config.min_relay_fee_sat_kvb);
    running.stop().await;
}
