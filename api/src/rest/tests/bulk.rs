//! Many things in one request.

use axum::http::{Method, header};
use pulse_primitives::bitcoin::{Address, Network, hashes::Hash};
use serde_json::{Value, json};

use super::{Answer, World, output_of, script, scripthash, spend};

async fn post(world: &World, path: &str, body: &Value) -> Answer {
    world.call(Method::POST, path, body.to_string()).await
}

/// A world in which scripts 0 and 1 are used by confirmed transactions and by the mempool.
async fn used() -> World {
    let world = World::new();
    let coins = world.coins();
    let first = spend(&coins[0], &script(0), 1);
    let second = spend(&coins[1], &script(1), 2);
    world.confirm(&[&first.tx, &second.tx], 1);
    world.follow_index();
    world.follow_mempool();
    let moved = spend(&output_of(&first, 0), &script(1), 3);
    world.mempool.change(|pool| pool.txs.push(moved));
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_are_answered_as_each_would_be_alone() {
    let world = used().await;
    let hashes: Vec<_> = [0, 1, 2].map(|n| scripthash(&script(n))).to_vec();
    let addresses: Vec<_> = (0..3)
        .map(|n| {
            Address::from_script(&script(n), Network::Regtest)
                .unwrap()
                .to_string()
        })
        .collect();
    for (kind, one, names) in [
        ("scripthashes", "scripthash", hashes),
        ("addresses", "address", addresses),
    ] {
        let stats = post(&world, &format!("/bulk/{kind}/stats"), &json!(names)).await;
        assert_eq!(stats.cache(), "public, max-age=0");
        let utxos = post(&world, &format!("/bulk/{kind}/utxo"), &json!(names))
            .await
            .json();
        let txs = post(&world, &format!("/api/bulk/{kind}/txs"), &json!(names))
            .await
            .json();
        for (at, name) in names.iter().enumerate() {
            let alone = world.get(&format!("/{one}/{name}")).await.json();
            assert_eq!(stats.json()[at], alone);
            let alone = world.get(&format!("/{one}/{name}/utxo")).await.json();
            assert_eq!(utxos[at], json!({one: name, "utxos": alone}));
            let alone = world.get(&format!("/{one}/{name}/txs")).await.json();
            assert_eq!(txs[at], json!({one: name, "txs": alone}));
        }
        assert_ne!(txs[0]["txs"], txs[2]["txs"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_are_answered_as_each_would_be_alone() {
    let world = used().await;
    let unconfirmed = world.mempool.change(|pool| pool.txs[0].clone());
    let confirmed = unconfirmed.tx.input[0].previous_output.txid;
    let mut txids = vec![confirmed.to_string(), unconfirmed.txid.to_string()];
    for (path, key, suffix) in [
        ("/bulk/txs", "tx", ""),
        ("/bulk/txs/hex", "hex", "/hex"),
        ("/bulk/txs/status", "status", "/status"),
        ("/bulk/txs/outspends", "outspends", "/outspends"),
    ] {
        let answer = post(&world, path, &json!(txids)).await.json();
        for (entry, txid) in answer.as_array().unwrap().iter().zip(&txids) {
            let alone = world.get(&format!("/tx/{txid}{suffix}")).await;
            let alone = match key {
                "hex" => Value::from(alone.text),
                _ => alone.json(),
            };
            assert_eq!(*entry, json!({"txid": txid, key: alone}), "{path}");
        }
    }
    // The mempool's spender of a confirmed output is found, too.
    let spenders = post(&world, "/bulk/txs/outspends", &json!(txids))
        .await
        .json();
    assert_eq!(
        spenders[0]["outspends"][0]["txid"],
        unconfirmed.txid.to_string()
    );

    txids = vec!["ab".repeat(32), "xyz".to_owned()];
    for (path, key, unknown) in [
        ("/bulk/txs", "error", json!("Transaction not found")),
        ("/bulk/txs/hex", "error", json!("Transaction not found")),
        (
            "/bulk/txs/outspends",
            "error",
            json!("Transaction not found"),
        ),
        ("/bulk/txs/status", "status", json!({"confirmed": false})),
    ] {
        let answer = post(&world, path, &json!(txids)).await.json();
        assert_eq!(
            answer,
            json!([
                {"txid": txids[0], key: unknown},
                {"txid": "xyz", "error": "Invalid hex string"},
            ]),
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_entry_does_not_harm_the_others() {
    let world = World::with(|config| config.utxos_limit = 1, true);
    let coins = world.coins();
    for (coin, nonce) in coins.iter().take(2).zip(1..) {
        world.confirm(&[&spend(coin, &script(0), 1).tx], nonce);
    }
    world.confirm(&[&spend(&coins[2], &script(1), 1).tx], 3);
    world.follow_index();
    world.follow_mempool();
    let names = [
        scripthash(&script(0)),
        "zz".to_owned(),
        scripthash(&script(1)),
    ];
    let utxos = post(&world, "/bulk/scripthashes/utxo", &json!(names))
        .await
        .json();
    assert_eq!(
        utxos[0],
        json!({"scripthash": names[0], "error": "Too many unspent outputs"})
    );
    assert_eq!(
        utxos[1],
        json!({"scripthash": "zz", "error": "Invalid scripthash"})
    );
    assert_eq!(utxos[2]["utxos"].as_array().unwrap().len(), 1);
    let wrong = json!([
        "mipcBbFg9gMiCh81Kj8tqqdgoZub1ZJRfn",
        "abc",
        "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
    ]);
    let stats = post(&world, "/bulk/addresses/stats", &wrong).await.json();
    assert_eq!(stats[0]["chain_stats"]["tx_count"], 0);
    assert_eq!(stats[1]["error"], "base58 error");
    assert_eq!(stats[2]["error"], "Address on invalid network");

    // Pages tell where to go on, with the route of the one script.
    let path = "/bulk/scripthashes/utxo?limit=1";
    let page = post(&world, path, &json!(names)).await.json();
    assert_eq!(page[0]["utxos"].as_array().unwrap().len(), 1);
    let cursor = page[0]["next_cursor"].as_str().unwrap();
    let next = format!("/scripthash/{}/utxo?limit=1&cursor={cursor}", names[0]);
    let next = world.get(&next).await.json();
    assert_ne!(next[0], page[0]["utxos"][0]);
    assert_eq!(page[2].get("next_cursor"), None);
    let path = format!("/bulk/scripthashes/txs?cursor={cursor}");
    post(&world, &path, &json!(names))
        .await
        .is_error(400, "Invalid cursor");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_bounded() {
    let world = World::new();
    let many = vec![scripthash(&script(0)); 1_001];
    for path in ["/bulk/scripthashes/stats", "/bulk/txs/status"] {
        let answer = post(&world, path, &json!(many)).await;
        answer.is_error(400, "Exceeded maximum of 1000 entries");
        let answer = post(&world, path, &json!(many[1..])).await;
        assert_eq!(answer.json().as_array().unwrap().len(), 1_000);
        let answer = post(&world, path, &json!({"a": 1})).await;
        assert_eq!(answer.status, 400);
        assert!(
            answer.text.starts_with("invalid type: map"),
            "{}",
            answer.text
        );
        assert_eq!(post(&world, path, &json!([])).await.text, "[]");
    }
    let answer = world.get("/bulk/txs").await;
    assert_eq!(answer.status, 404);
    let height = u32::try_from(world.chain.active().len()).unwrap();
    world.chain.set_best_header(height + 50);
    let answer = post(&world, "/bulk/txs/status", &json!(many[..1])).await;
    assert!(answer.headers.contains_key(header::RETRY_AFTER));
    let answer = post(&world, "/bulk/txs/status?partial=true", &json!(many[..1])).await;
    assert_eq!(answer.json()[0]["status"]["confirmed"], false);
    let zero = pulse_primitives::bitcoin::Txid::all_zeros().to_string();
    let path = "/bulk/txs/outspends?partial=true";
    let answer = post(&world, path, &json!([zero])).await.json();
    assert_eq!(answer[0]["error"], "Transaction not found");
}
