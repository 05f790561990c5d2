//! Index and mempool as one view.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::http::{StatusCode, header};
use pulse_primitives::bitcoin::Txid;

use super::{World, script, scripthash, spend};

/// How often `txid` is in a list of transactions, and whether it is confirmed there.
fn occurrences(list: &serde_json::Value, txid: Txid) -> Vec<bool> {
    let list = list.as_array().unwrap().iter();
    let list = list.filter(|tx| tx["txid"] == txid.to_string());
    list.map(|tx| tx["status"]["confirmed"] == true).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_being_confirmed_is_in_exactly_one_list() {
    let world = Arc::new(World::new());
    let to = script(0);
    let list = format!("/scripthash/{}/txs", scripthash(&to));
    let entry = spend(&world.coins()[0], &to, 1);
    world.mempool.change(|pool| pool.txs.push(entry.clone()));
    let before = world.get(&list).await.json();
    assert_eq!(occurrences(&before, entry.txid), [false]);

    // Indexed, but the mempool has not followed: nobody is answered from one of them.
    world.confirm(&[&entry.tx], 1);
    world.follow_index();
    let waiting = tokio::spawn({
        let (world, list) = (Arc::clone(&world), list.clone());
        async move { world.get(&list).await.json() }
    });
    let confirmed = world.get(&format!("/tx/{}", entry.txid)).await;
    assert_eq!(confirmed.json()["status"]["confirmed"], true);
    assert!(!waiting.is_finished());
    world.mempool.change(|pool| pool.txs.clear());
    world.follow_mempool();
    let after = waiting.await.unwrap();
    assert_eq!(occurrences(&after, entry.txid), [true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_in_both_lists_is_listed_once_as_confirmed() {
    let world = World::new();
    let to = script(0);
    let entry = spend(&world.coins()[0], &to, 1);
    world.confirm(&[&entry.tx], 1);
    world.follow_index();
    world.mempool.change(|pool| pool.txs.push(entry.clone()));
    world.follow_mempool();
    let list = world
        .get(&format!("/scripthash/{}/txs", scripthash(&to)))
        .await;
    assert_eq!(occurrences(&list.json(), entry.txid), [true]);
    let tx = world.get(&format!("/tx/{}", entry.txid)).await.json();
    assert_eq!(tx["status"]["confirmed"], true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mempool_that_stays_behind_is_503_and_never_an_empty_list() {
    let world = Arc::new(World::new());
    let hash = scripthash(&script(0));
    let known = world.chain.blocks()[3].0.txdata[0].compute_txid();
    let first = *world.state.query().tip_watch().borrow();
    for tip in [None, first] {
        // First none, then that of an older block.
        world.mempool.change(|pool| pool.tip = tip);
        if tip.is_some() {
            world.confirm(&[], 2);
            world.follow_index();
        }
        let unknown = "aa".repeat(32);
        let waiting = [
            format!("/scripthash/{hash}"),
            format!("/scripthash/{hash}/txs"),
            format!("/scripthash/{hash}/txs/mempool"),
            format!("/scripthash/{hash}/utxo"),
            format!("/tx/{unknown}"),
            format!("/tx/{unknown}/outspend/0"),
        ]
        .map(|path| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.get(&path).await })
        });
        for answer in waiting {
            let answer = answer.await.unwrap();
            answer.is_error(503, "the mempool is catching up; try again");
            assert_eq!(answer.headers[header::RETRY_AFTER], "1");
        }
        // What is confirmed needs no mempool.
        for path in [
            format!("/tx/{known}"),
            format!("/tx/{known}/status"),
            format!("/scripthash/{hash}/txs/chain"),
            "/blocks/tip/height".to_owned(),
        ] {
            assert_eq!(world.get(&path).await.status, StatusCode::OK, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_stay_whole_while_blocks_come_and_go() {
    const BLOCKS: u64 = 40;

    let world = Arc::new(World::new());
    let to = script(0);
    let coins = world.coins();
    let entries: Vec<_> = (0..BLOCKS)
        .map(|index| spend(&coins[usize::try_from(index).unwrap()], &to, index))
        .collect();
    world.mempool.change(|pool| pool.txs = entries.clone());
    let list = format!("/scripthash/{}", scripthash(&to));
    let done = Arc::new(AtomicBool::new(false));

    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (world, list, done) = (Arc::clone(&world), list.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                loop {
                    let is_settled = done.load(Ordering::Relaxed);
                    let stats = world.get(&list).await;
                    let utxos = world.get(&format!("{list}/utxo")).await;
                    // A reader that has to wait for a processor while more blocks come takes
                    // its index for one that lags, and says so.
                    let refused = StatusCode::SERVICE_UNAVAILABLE;
                    if !is_settled && [stats.status, utxos.status].contains(&refused) {
                        continue;
                    }
                    // Each of the transactions counts in one of the two parts.
                    let stats = stats.json();
                    let count = |part: &str| stats[part]["tx_count"].as_u64().unwrap();
                    assert_eq!(count("chain_stats") + count("mempool_stats"), BLOCKS);
                    assert_eq!(utxos.json().as_array().unwrap().len() as u64, BLOCKS);
                    if is_settled {
                        return;
                    }
                }
            })
        })
        .collect();
    let writer = tokio::task::spawn_blocking({
        let (world, entries) = (Arc::clone(&world), entries.clone());
        move || {
            for (nonce, entry) in (0..).zip(&entries) {
                world.confirm(&[&entry.tx], nonce);
                world.follow_index();
                let tip = *world.state.query().tip_watch().borrow();
                world.mempool.change(|pool| {
                    pool.txs.retain(|other| other.txid != entry.txid);
                    pool.tip = tip;
                });
                if nonce % 5 == 4 {
                    // The block is replaced by an empty one: its transaction comes back.
                    world.chain.disconnect(1);
                    world.confirm(&[], 1000 + nonce);
                    world.confirm(&[], 2000 + nonce);
                    world.follow_index();
                    let tip = *world.state.query().tip_watch().borrow();
                    world.mempool.change(|pool| {
                        pool.txs.push(entry.clone());
                        pool.tip = tip;
                    });
                }
            }
        }
    });
    writer.await.unwrap();
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
}
