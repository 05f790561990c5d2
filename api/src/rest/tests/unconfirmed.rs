//! What is answered of unconfirmed transactions.

use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use pulse_primitives::{
    bitcoin::{
        Amount, ScriptBuf, TxOut,
        consensus::encode::serialize_hex,
        hashes::{Hash, sha256},
    },
    mempool::{Backlog, FeeEstimates, ProjectedBlock, RemovalReason, RemovedTx},
};
use serde_json::{Value, json};

use super::{World, output_of, script, scripthash, spend, spend_into};

const SHORT: &str = "public, max-age=10";

#[tokio::test(flavor = "multi_thread")]
async fn an_unconfirmed_transaction_answers_like_a_confirmed_one() {
    let world = World::new();
    let coin = &world.coins()[0];
    let entry = spend(coin, &script(0), 1);
    let path = format!("/tx/{}", entry.txid);
    world
        .get(&path)
        .await
        .is_error(404, "Transaction not found");
    world.mempool.change(|pool| pool.txs.push(entry.clone()));

    let answer = world.get(&path).await;
    assert_eq!(answer.cache(), SHORT);
    let tx = answer.json();
    assert_eq!(tx["txid"], entry.txid.to_string());
    assert_eq!(tx["status"], json!({"confirmed": false}));
    assert_eq!(tx["fee"], 1);
    assert_eq!(
        tx["vin"][0]["prevout"]["value"],
        coin.1.output.value.to_sat()
    );
    let hex = world.get(&format!("{path}/hex")).await;
    assert_eq!(
        (hex.text.as_str(), hex.cache()),
        (serialize_hex(&*entry.tx).as_str(), SHORT)
    );
    assert_eq!(
        world.get(&format!("{path}/raw")).await.status,
        StatusCode::OK
    );
    assert_eq!(
        world.get(&format!("{path}/status")).await.text,
        r#"{"confirmed":false}"#
    );
    for proof in ["merkle-proof", "merkleblock-proof"] {
        let answer = world.get(&format!("{path}/{proof}")).await;
        answer.is_error(404, "Transaction not found or is unconfirmed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spenders_are_found_in_the_mempool_and_confirmed_ones_first() {
    let world = World::new();
    let coin = &world.coins()[0];
    let parent = spend(coin, &script(0), 1);
    let child = spend(&output_of(&parent, 0), &script(1), 2);
    let outspend = format!("/tx/{}/outspend/{}", coin.0.txid, coin.0.vout);
    let outspends = format!("/tx/{}/outspends", coin.0.txid);
    assert_eq!(world.get(&outspend).await.text, r#"{"spent":false}"#);

    world
        .mempool
        .change(|pool| pool.txs = vec![parent.clone(), child.clone()]);
    let by = |entry: &pulse_primitives::mempool::MempoolTx| json!({"spent": true, "txid": entry.txid.to_string(), "vin": 0, "status": {"confirmed": false}});
    let vout = coin.0.vout as usize;
    let answer = world.get(&outspend).await;
    assert_eq!((answer.json(), answer.cache()), (by(&parent), SHORT));
    assert_eq!(world.get(&outspends).await.json()[vout], by(&parent));
    let of_parent = world.get(&format!("/tx/{}/outspends", parent.txid)).await;
    assert_eq!(of_parent.json(), json!([by(&child)]));
    let of_child = world.get(&format!("/tx/{}/outspends", child.txid)).await;
    assert_eq!(of_child.text, r#"[{"spent":false}]"#);

    // Confirmed, with another in the mempool that spends the same.
    world.confirm(&[&parent.tx], 1);
    world.follow_index();
    world
        .mempool
        .change(|pool| pool.txs = vec![child, spend(coin, &script(3), 4)]);
    world.follow_mempool();
    for answer in [
        world.get(&outspend).await.json(),
        world.get(&outspends).await.json()[vout].clone(),
    ] {
        assert_eq!(answer["txid"], parent.txid.to_string());
        assert_eq!(answer["status"]["confirmed"], true);
    }
    let unknown = "ab".repeat(32);
    let answer = world.get(&format!("/tx/{unknown}/outspends")).await;
    answer.is_error(404, "Transaction not found");
    let answer = world.get(&format!("/tx/{unknown}/outspend/0")).await;
    assert_eq!(answer.text, r#"{"spent":false}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_has_totals_and_lists_of_both_parts() {
    let world = World::new();
    // The made-up chain creates money, which lists of transactions do not tolerate.
    let funding = spend(&world.coins()[0], &script(5), 0);
    world.confirm(&[&funding.tx], 1);
    world.follow_index();
    world.follow_mempool();
    let coin = output_of(&funding, 0);
    let from = scripthash(&coin.1.output.script_pubkey);
    let stats = |hash: String| {
        let world = &world;
        async move { world.get(&format!("/scripthash/{hash}")).await.json() }
    };
    let utxos = |hash: String| {
        let world = &world;
        async move { world.get(&format!("/scripthash/{hash}/utxo")).await.json() }
    };
    let confirmed = stats(from.clone()).await;
    let before = utxos(from.clone()).await.as_array().unwrap().len();

    let (to, value) = (script(0), coin.1.output.value.to_sat());
    let parent = spend(&coin, &to, 1);
    let child = spend(&output_of(&parent, 0), &to, 2);
    world
        .mempool
        .change(|pool| pool.txs = vec![parent.clone(), child.clone()]);

    let spent = stats(from.clone()).await;
    assert_eq!(spent["chain_stats"], confirmed["chain_stats"]);
    assert_eq!(
        spent["mempool_stats"],
        json!({"funded_txo_count": 0, "funded_txo_sum": 0, "spent_txo_count": 1, "spent_txo_sum": value, "tx_count": 1})
    );
    let after = utxos(from.clone()).await;
    assert_eq!(after.as_array().unwrap().len(), before - 1);
    let gone =
        |utxo: &Value| utxo["txid"] == coin.0.txid.to_string() && utxo["vout"] == coin.0.vout;
    assert!(!after.as_array().unwrap().iter().any(gone));

    let to = scripthash(&to);
    assert_eq!(
        stats(to.clone()).await["mempool_stats"],
        json!({"funded_txo_count": 2, "funded_txo_sum": 2 * value - 3, "spent_txo_count": 1, "spent_txo_sum": value - 1, "tx_count": 2})
    );
    assert_eq!(
        utxos(to.clone()).await,
        json!([{"txid": child.txid.to_string(), "vout": 0, "status": {"confirmed": false}, "value": value - 2}])
    );
    let ids = |list: Value| {
        let list = list.as_array().unwrap().clone();
        list.into_iter()
            .map(|tx| tx["txid"].clone())
            .collect::<Vec<_>>()
    };
    let both = [parent.txid.to_string(), child.txid.to_string()];
    for path in ["txs", "txs/mempool"] {
        let answer = world.get(&format!("/scripthash/{to}/{path}")).await;
        assert_eq!(answer.cache(), SHORT);
        assert_eq!(ids(answer.json()), both);
    }
    let chain = world.get(&format!("/scripthash/{to}/txs/chain")).await;
    assert_eq!(chain.text, "[]");
    let first = world.get(&format!("/scripthash/{from}/txs")).await.json();
    assert_eq!(first[0]["txid"], both[0]);
    assert_eq!(first[1]["status"]["confirmed"], true);

    // By address, too.
    let address = pulse_primitives::bitcoin::Address::from_script(
        &script(0),
        pulse_primitives::bitcoin::Network::Regtest,
    );
    let answer = world
        .get(&format!("/address/{}/utxo", address.unwrap()))
        .await;
    assert_eq!(answer.json().as_array().unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fifty_oldest_of_many_unconfirmed_are_listed() {
    let world = World::new();
    let to = script(0);
    let coins = world.coins();
    assert!(coins.len() >= 60, "{}", coins.len());
    let entries: Vec<_> = (0..60).map(|i| spend(&coins[i], &to, i as u64)).collect();
    world.mempool.change(|pool| pool.txs = entries.clone());
    for path in ["txs", "txs/mempool"] {
        let list = world
            .get(&format!("/scripthash/{}/{path}", scripthash(&to)))
            .await
            .json();
        let list = list.as_array().unwrap().clone();
        assert_eq!(list.len(), 50);
        for (tx, entry) in list.iter().zip(&entries) {
            assert_eq!(tx["txid"], entry.txid.to_string());
        }
    }
    let stats = world
        .get(&format!("/scripthash/{}", scripthash(&to)))
        .await
        .json();
    assert_eq!(stats["mempool_stats"]["tx_count"], 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_limit_of_unspent_outputs_is_on_what_is_left() {
    let world = World::with(|config| config.utxos_limit = 3, true);
    let to = script(0);
    let coin = world
        .coins()
        .into_iter()
        .max_by_key(|(_, coin)| coin.output.value)
        .unwrap();
    let outputs = (0..5).map(|_| TxOut {
        value: Amount::from_sat(10),
        script_pubkey: to.clone(),
    });
    let split = spend_into(&coin, outputs.collect(), 1);
    let path = format!("/scripthash/{}/utxo", scripthash(&to));
    world.confirm(&[&split.tx], 1);
    world.follow_index();
    world.follow_mempool();
    world
        .get(&path)
        .await
        .is_error(400, "Too many unspent outputs");
    let spends = (0..2).map(|vout| spend(&output_of(&split, vout), &script(1), 2));
    world.mempool.change(|pool| pool.txs = spends.collect());
    assert_eq!(world.get(&path).await.json().as_array().unwrap().len(), 3);
    world
        .mempool
        .change(|pool| pool.txs.push(spend(&world.coins()[0], &to, 3)));
    world
        .get(&path)
        .await
        .is_error(400, "Too many unspent outputs");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mempool_is_told_as_the_contract_says() {
    let world = World::new();
    for (path, empty) in [
        (
            "/mempool",
            r#"{"count":0,"vsize":0,"total_fee":0,"fee_histogram":[]}"#,
        ),
        ("/mempool/txids", "[]"),
        ("/mempool/recent", "[]"),
        ("/mempool/projected-blocks", "[]"),
        ("/fee-estimates", "{}"),
    ] {
        assert_eq!(world.get(path).await.text, empty, "{path}");
    }
    let coins = world.coins();
    let entries: Vec<_> = (0..12)
        .map(|i| spend(&coins[i], &script(0), i as u64))
        .collect();
    world.mempool.change(|pool| {
        pool.txs = entries.clone();
        pool.backlog = Backlog {
            count: 18_233,
            vsize: 9_120_044,
            total_fee_sat: 30_155_870,
            memory_bytes: 1,
            histogram: vec![(53.01, 102_131), (20.5, 50_211), (1.0, 877_002)],
        };
        pool.estimates = FeeEstimates {
            by_target: vec![(1, 12.044), (2, 12.0), (144, 1.011), (1008, 1.0)],
        };
        pool.projected = vec![ProjectedBlock {
            tx_count: 2,
            weight: 400,
            vsize: 100,
            total_fee_sat: 500,
            fee_range: [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.5],
            median_fee_rate: 4.0,
        }];
    });
    let answer = world.get("/mempool").await;
    assert_eq!(
        answer.text,
        r#"{"count":18233,"vsize":9120044,"total_fee":30155870,"fee_histogram":[[53.01,102131],[20.5,50211],[1.0,877002]]}"#
    );
    assert_eq!(answer.cache(), SHORT);
    let answer = world.get("/fee-estimates").await;
    assert_eq!(
        answer.text,
        r#"{"1":12.044,"2":12.0,"144":1.011,"1008":1.0}"#
    );
    assert_eq!(answer.cache(), SHORT);
    let answer = world.get("/mempool/txids").await;
    let ids: Vec<_> = entries.iter().map(|entry| entry.txid.to_string()).collect();
    assert_eq!((answer.json(), answer.cache()), (json!(ids), SHORT));
    let answer = world.get("/mempool/recent").await;
    assert_eq!(answer.cache(), "public, max-age=5");
    let recent = answer.json();
    assert_eq!(recent.as_array().unwrap().len(), 10);
    let newest = &entries[11];
    assert_eq!(
        recent[0],
        json!({"txid": ids[11], "fee": 1, "vsize": newest.vsize, "value": newest.prevouts[0].value.to_sat()})
    );
    let answer = world.get("/mempool/projected-blocks").await;
    assert_eq!(
        answer.text,
        r#"[{"tx_count":2,"weight":400,"vsize":100,"total_fee":500,"median_fee_rate":4.0,"fee_range":[1.0,2.0,3.0,4.0,5.0,6.0,7.5]}]"#
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_left_the_mempool_is_remembered_with_the_reason() {
    let world = World::new();
    let coins = world.coins();
    let (old, new) = (
        spend(&coins[0], &script(0), 1),
        spend(&coins[0], &script(1), 2),
    );
    let path = format!("/tx/{}/removed", old.txid);
    let none = "Transaction was not removed from the mempool";
    world.get(&path).await.is_error(404, none);
    for (reason, want) in [
        (RemovalReason::Replaced { by: new.txid }, "replaced"),
        (RemovalReason::Conflict { with: new.txid }, "conflict"),
        (RemovalReason::Expired, "expired"),
        (RemovalReason::SizeLimit, "size_limit"),
        (RemovalReason::Reorg, "reorg"),
    ] {
        let removed = RemovedTx {
            reason,
            time: 1_700_000_000,
        };
        world
            .mempool
            .change(|pool| pool.removed.insert(old.txid, removed));
        let answer = world.get(&path).await;
        let mut wanted =
            json!({"txid": old.txid.to_string(), "reason": want, "time": 1_700_000_000});
        if matches!(want, "replaced" | "conflict") {
            wanted["by"] = json!(new.txid.to_string());
        }
        assert_eq!((answer.json(), answer.cache()), (wanted, SHORT));
    }
    world
        .get(&format!("/tx/{}", old.txid))
        .await
        .is_error(404, "Transaction not found");
    // It came back, and is confirmed later.
    world.mempool.change(|pool| pool.txs.push(old.clone()));
    world.get(&path).await.is_error(404, none);
    world.confirm(&[&old.tx], 1);
    world.follow_index();
    world.mempool.change(|pool| pool.txs.clear());
    world.follow_mempool();
    world.get(&path).await.is_error(404, none);
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_node_is_synced_nothing_unconfirmed_is_answered() {
    let world = World::new();
    let height = u32::try_from(world.chain.active().len()).unwrap();
    world.chain.set_best_header(height + 50);
    let hash = scripthash(&script(0));
    let unknown = "aa".repeat(32);
    for (method, path) in [
        (Method::GET, "/mempool".to_owned()),
        (Method::GET, "/mempool/txids".to_owned()),
        (Method::GET, "/mempool/recent".to_owned()),
        (Method::GET, "/mempool/projected-blocks".to_owned()),
        (Method::GET, "/fee-estimates".to_owned()),
        (Method::GET, format!("/scripthash/{hash}/txs")),
        (Method::GET, format!("/tx/{unknown}")),
        (Method::GET, format!("/tx/{unknown}/removed")),
        (Method::GET, "/broadcast?tx=00".to_owned()),
        (Method::POST, "/tx".to_owned()),
        (Method::POST, "/txs/package".to_owned()),
    ] {
        let answer = world.call(method, &path, Body::empty()).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(
            answer.text.starts_with("node is not synced yet"),
            "{}",
            answer.text
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_mempool_answers_with_what_is_confirmed() {
    let world = World::with(|_| {}, false);
    for (method, path) in [
        (Method::GET, "/mempool"),
        (Method::GET, "/fee-estimates"),
        (Method::GET, "/broadcast"),
        (Method::POST, "/tx"),
        (Method::POST, "/txs/test"),
    ] {
        let answer = world.call(method, path, Body::empty()).await;
        answer.is_error(404, &format!("endpoint does not exist {path:?}"));
    }
    let coin = &world.coins()[0];
    let hash = scripthash(&coin.1.output.script_pubkey);
    let stats = world.get(&format!("/scripthash/{hash}")).await.json();
    assert_eq!(stats["mempool_stats"]["tx_count"], 0);
    assert_ne!(stats["chain_stats"]["tx_count"], 0);
    let utxos = world.get(&format!("/scripthash/{hash}/utxo")).await.json();
    assert!(!utxos.as_array().unwrap().is_empty());
    let unknown = sha256::Hash::hash(ScriptBuf::new().as_bytes());
    world
        .get(&format!("/tx/{unknown}"))
        .await
        .is_error(404, "Transaction not found");
}
