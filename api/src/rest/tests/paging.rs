//! Pages of histories and unspent outputs, and what becomes of them when the chain moves.

use pulse_primitives::bitcoin::Transaction;
use serde_json::Value;

use super::{Answer, World, script, scripthash, spend};

fn next(answer: &Answer) -> Option<String> {
    let cursor = answer.headers.get("x-next-cursor")?;
    Some(cursor.to_str().unwrap().to_owned())
}

fn txids(answer: &Answer) -> Vec<Value> {
    let list = answer.json();
    list.as_array()
        .unwrap()
        .iter()
        .map(|tx| tx["txid"].clone())
        .collect()
}

/// A world with `count` payments to one script, each in a block of its own.
fn paid(count: usize) -> (World, Vec<Transaction>) {
    let world = World::new();
    let coins = world.coins();
    let txs: Vec<_> = (coins.iter().take(count))
        .map(|coin| (*spend(coin, &script(0), 1).tx).clone())
        .collect();
    for (tx, nonce) in txs.iter().zip(1..) {
        world.confirm(&[tx], nonce);
    }
    world.follow_index();
    world.follow_mempool();
    (world, txs)
}

/// Entries of all pages from `path` on.
async fn all_pages(world: &World, path: &str, limit: usize) -> Vec<Value> {
    let mut found = Vec::new();
    let mut answer = world.get(&format!("{path}?limit={limit}")).await;
    loop {
        let page = txids(&answer);
        assert!(page.len() <= limit);
        found.extend(page);
        let Some(cursor) = next(&answer) else {
            return found;
        };
        answer = world
            .get(&format!("{path}?limit={limit}&cursor={cursor}"))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_any_length_make_up_the_whole_list() {
    let (world, txs) = paid(7);
    let oldest_first: Vec<Value> = (txs.iter())
        .map(|tx| tx.compute_txid().to_string().into())
        .collect();
    let newest_first: Vec<Value> = oldest_first.iter().rev().cloned().collect();
    let hash = scripthash(&script(0));
    for limit in 1..9 {
        for list in ["txs", "txs/chain"] {
            let path = format!("/scripthash/{hash}/{list}");
            assert_eq!(
                all_pages(&world, &path, limit).await,
                newest_first,
                "{limit}"
            );
        }
        let path = format!("/scripthash/{hash}/utxo");
        assert_eq!(
            all_pages(&world, &path, limit).await,
            oldest_first,
            "{limit}"
        );
    }
    // Who asks for no page is not told of any.
    let whole = world.get(&format!("/scripthash/{hash}/txs")).await;
    assert_eq!((txids(&whole), next(&whole)), (newest_first.clone(), None));
    // After a txid, with a length.
    let path = format!("/scripthash/{hash}/txs/chain/{}", txs[5].compute_txid());
    let answer = world.get(&format!("{path}?limit=2")).await;
    assert_eq!(txids(&answer), newest_first[2..4]);
    assert!(next(&answer).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_survives_new_blocks_and_reorganisations_above_it_and_no_others() {
    let (world, txs) = paid(6);
    let hash = scripthash(&script(0));
    let id = |at: usize| Value::from(txs[at].compute_txid().to_string());
    for list in ["txs/chain", "utxo"] {
        let path = format!("/scripthash/{hash}/{list}");
        let first = world.get(&format!("{path}?limit=3")).await;
        let cursor = next(&first).unwrap();
        let rest = match list {
            "utxo" => vec![id(3), id(4), id(5)],
            _ => vec![id(2), id(1), id(0)],
        };
        let after = format!("{path}?limit=3&cursor={cursor}");
        assert_eq!(txids(&world.get(&after).await), rest, "{list}");
    }
    let history = world
        .get(&format!("/scripthash/{hash}/txs/chain?limit=4"))
        .await;
    let low = format!(
        "/scripthash/{hash}/txs/chain?cursor={}",
        next(&history).unwrap()
    );
    let newest = world
        .get(&format!("/scripthash/{hash}/txs/chain?limit=1"))
        .await;
    let high = format!(
        "/scripthash/{hash}/txs/chain?cursor={}",
        next(&newest).unwrap()
    );
    let below = txids(&world.get(&low).await);
    assert_eq!(below, [id(1), id(0)]);

    world.confirm(&[], 90);
    world.follow_index();
    world.follow_mempool();
    assert_eq!(txids(&world.get(&low).await), below);

    // Three blocks are replaced, those of the newest two payments among them.
    world.chain.disconnect(3);
    for nonce in 91..95 {
        world.confirm(&[], nonce);
    }
    world.follow_index();
    world.follow_mempool();
    assert_eq!(txids(&world.get(&low).await), below);
    world.get(&high).await.is_error(
        410,
        "Cursor left the chain with a reorganisation; start again without it",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_and_cursors_that_make_no_sense_are_refused() {
    let (world, _) = paid(1);
    let hash = scripthash(&script(0));
    for list in ["txs", "txs/chain", "utxo"] {
        for limit in ["0", "-1", "x", ""] {
            let path = format!("/scripthash/{hash}/{list}?limit={limit}");
            world.get(&path).await.is_error(400, "Invalid limit");
        }
        for cursor in ["", "00", "zz", &"0".repeat(39), &"0".repeat(42)] {
            let path = format!("/scripthash/{hash}/{list}?cursor={cursor}");
            world.get(&path).await.is_error(400, "Invalid cursor");
        }
        let path = format!("/scripthash/{hash}/{list}?cursor={}", "0".repeat(40));
        assert_eq!(world.get(&path).await.status.as_u16(), 410);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_unspent_outputs_are_not_bound_by_the_limit_of_whole_answers() {
    let (world, txs) = paid(5);
    drop(world);
    let world = World::with(|config| config.utxos_limit = 2, true);
    for (tx, nonce) in txs.iter().zip(1..) {
        world.confirm(&[tx], nonce);
    }
    world.follow_index();
    world.follow_mempool();
    let path = format!("/scripthash/{}/utxo", scripthash(&script(0)));
    world
        .get(&path)
        .await
        .is_error(400, "Too many unspent outputs");
    assert_eq!(all_pages(&world, &path, 2).await.len(), 5);
}
