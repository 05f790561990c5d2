//! Scripts with more of everything than one page has.

use std::collections::HashSet;

use pulse_primitives::{
    bitcoin::{Amount, TxOut},
    mempool::MempoolTx,
};
use serde_json::Value;

use super::{World, output_of, script, scripthash, spend, spend_into};

/// Unspent outputs of the busy script.
const OUTPUTS: u64 = 600;
/// Confirmed transactions of it besides the one with the outputs.
const CONFIRMED: u32 = 60;
/// Unconfirmed ones.
const WAITING: u64 = 60;

fn txids(list: &Value) -> Vec<String> {
    let list = list.as_array().unwrap().iter();
    list.map(|tx| tx["txid"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_script_is_answered_in_full_and_page_by_page() {
    let world = World::with(|_| {}, true);
    let busy = script(0);
    let base = format!("/scripthash/{}", scripthash(&busy));
    let coin = &world.coins()[0];
    let outputs = (0..OUTPUTS).map(|at| TxOut {
        value: Amount::from_sat(100 + at),
        script_pubkey: busy.clone(),
    });
    let funding = spend_into(coin, outputs.collect(), 0);
    world.confirm(&[&funding.tx], 1);
    // Each spends one of the outputs, and pays the script again.
    let mut history = vec![funding.txid.to_string()];
    for at in 0..CONFIRMED {
        let tx = spend(&output_of(&funding, at), &busy, 0);
        world.confirm(&[&tx.tx], 2 + at);
        history.push(tx.txid.to_string());
    }
    history.reverse();
    world.follow_index();
    world.follow_mempool();
    let waiting: Vec<MempoolTx> = (0..WAITING)
        .map(|at| {
            let vout = CONFIRMED + u32::try_from(at).unwrap();
            spend(&output_of(&funding, vout), &script(1), 1 + at)
        })
        .collect();
    world.mempool.change(|pool| pool.txs = waiting.clone());

    let utxos = world.get(&format!("{base}/utxo")).await.json();
    assert_eq!(utxos.as_array().unwrap().len() as u64, OUTPUTS - WAITING);
    let first = txids(&world.get(&format!("{base}/txs")).await.json());
    let of_mempool: Vec<_> = waiting.iter().map(|tx| tx.txid.to_string()).collect();
    assert_eq!(first.len(), 50 + 25);
    assert_eq!(first[..50], of_mempool[..50]);
    assert_eq!(first[50..], history[..25]);
    let in_mempool = world.get(&format!("{base}/txs/mempool")).await.json();
    assert_eq!(txids(&in_mempool), of_mempool[..50]);

    // A block comes between two pages: nothing is lost or doubled.
    let mut found = first[50..].to_vec();
    world.confirm(&[&waiting[0].tx], 900);
    world.follow_index();
    world.mempool.change(|pool| drop(pool.txs.remove(0)));
    world.follow_mempool();
    loop {
        let last = found.last().unwrap();
        let page = world.get(&format!("{base}/txs/chain/{last}")).await.json();
        if page.as_array().unwrap().is_empty() {
            break;
        }
        found.extend(txids(&page));
    }
    assert_eq!(found, history);
    let distinct: HashSet<_> = found.iter().collect();
    assert_eq!(distinct.len(), history.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_that_are_to_be_ignored_are() {
    let world = World::new();
    let newest = world.get("/blocks").await.text;
    for path in [
        "/blocks/",
        "/blocks/abc",
        "/blocks/tip",
        "/blocks/-1",
        "/api/blocks?x=y",
    ] {
        assert_eq!(world.get(path).await.text, newest, "{path}");
    }
    let base = format!("/scripthash/{}/txs/chain", scripthash(&script(0)));
    let first = world.get(&base).await.text;
    let unknown = "ab".repeat(32);
    for tail in ["", "/", "/zzz", "/zzz/anything", "/zzz/any/thing/"] {
        assert_eq!(
            world.get(&format!("{base}{tail}")).await.text,
            first,
            "{tail}"
        );
    }
    assert_eq!(world.get(&format!("{base}/{unknown}")).await.text, "[]");
    let tip: u64 = world.get("/blocks/tip/height").await.text.parse().unwrap();
    for height in 0..=tip {
        let hash = world.get(&format!("/block-height/{height}")).await.text;
        assert_eq!(
            world.get(&format!("/block/{hash}")).await.json()["height"],
            height
        );
    }
    world
        .get(&format!("/block-height/{}", tip + 1))
        .await
        .is_error(404, "Block not found");
}
