//! What subscribers are told through the mempool, blocks and reorganisations.

use serde_json::{Value, json};

use super::{Scene, address, other, spend};
use crate::e2e::common::scripthash;

fn kinds(messages: &[Value]) -> Vec<&str> {
    let kinds = messages.iter().map(|message| message["type"].as_str());
    kinds.map(Option::unwrap).collect()
}

#[test]
fn a_block_that_gives_way_to_two_is_one_reorganisation() {
    let mut scene = Scene::new();
    let mut client = scene.client();
    client.send(&json!({"type": "subscribe", "channels": ["tips", "reorgs"]}));
    client.next_of("tip");
    for height in (111..119).step_by(2) {
        scene.mine(vec![]);
        let before = client.next().unwrap();
        assert_eq!(
            (&before["type"], &before["tip"]["height"]),
            (&json!("tip"), &json!(height))
        );
        let removed = scene.place(height);
        scene.reorganise(u32::try_from(height).unwrap() - 1, 2);
        let reorg = client.next().unwrap();
        assert_eq!(
            (&reorg["type"], &reorg["fork"]),
            (&json!("reorg"), &scene.place(height - 1))
        );
        assert_eq!(reorg["removed"], json!([removed]));
        // Of the two blocks the first may be told by itself.
        let last = scene.place(height + 1)["hash"].clone();
        while let tip = client.next().unwrap()
            && tip["tip"]["hash"] != last
        {
            assert_eq!(
                (&tip["type"], &tip["tip"]["height"]),
                (&json!("tip"), &json!(height))
            );
        }
    }
}

#[test]
fn followers_of_the_chain_are_told_of_each_block_and_of_what_is_taken_back() {
    let mut scene = Scene::new();
    let mut all = scene.client();
    all.send(&json!({"type": "subscribe", "request": 1, "channels": ["tips", "blocks", "reorgs"]}));
    let told = all.next().unwrap();
    assert_eq!(told["type"], "subscribed");
    assert_eq!(
        (&told["request"], &told["subscriptions"]),
        (&json!(1), &json!(3))
    );
    let tip = all.next().unwrap();
    assert_eq!(
        (&tip["type"], &tip["initial"]),
        (&json!("tip"), &json!(true))
    );
    assert_eq!(tip["tip"]["height"], 110);
    let mut tips = scene.client();
    tips.send(&json!({"type": "subscribe", "channels": ["tips"]}));
    tips.next_of("tip");
    let mut mute = scene.client();

    scene.mine(vec![]);
    let block = all.next().unwrap();
    assert_eq!(block["type"], "block");
    let hash = scene.chain.tip_hash().to_string();
    let rest: Value = scene.node.get_json(&format!("/block/{hash}"));
    assert_eq!(block["block"], rest);
    let tip = all.next().unwrap();
    assert_eq!(
        (&tip["type"], &tip["tip"]["hash"]),
        (&json!("tip"), &json!(hash))
    );
    assert_eq!(tips.next().unwrap(), tip);

    // Two blocks more, then all three are replaced by four.
    scene.mine(vec![]);
    scene.mine(vec![]);
    let old: Vec<Value> = (111..=113)
        .rev()
        .map(|height| scene.place(height))
        .collect();
    let before = all.until(|message| message["type"] == "tip" && message["tip"]["height"] == 113);
    scene.reorganise(110, 4);
    let reorg = all.next().unwrap();
    assert_eq!(reorg["type"], "reorg", "{reorg}");
    assert_eq!(reorg["fork"], scene.place(110));
    assert_eq!(reorg["removed"], json!(old));
    let mut heights = Vec::new();
    let tip = loop {
        let message = all.next().unwrap();
        match message["type"].as_str().unwrap() {
            "block" => heights.push(message["block"]["height"].as_u64().unwrap()),
            "tip" if message["tip"]["height"] == 114 => break message,
            "tip" => {}
            other => panic!("{other}"),
        }
    };
    assert_eq!(heights, [111, 112, 113, 114]);
    assert_eq!(tip["tip"]["hash"], scene.chain.tip_hash().to_string());
    // Ids rise by one process's count.
    let number = |message: &Value| {
        let id = message["id"].as_str().unwrap();
        let (epoch, number) = id.split_once('-').unwrap();
        (epoch.to_owned(), number.parse::<u64>().unwrap())
    };
    assert_eq!(number(&before).0, number(&tip).0);
    assert!(number(&before).1 < number(&reorg).1 && number(&reorg).1 < number(&tip).1);

    let last = tips.until(|message| message["tip"]["height"] == 114);
    assert_eq!(last["type"], "tip");
    all.send(&json!({"type": "unsubscribe", "channels": ["tips", "blocks", "reorgs"]}));
    assert_eq!(all.next_of("unsubscribed")["subscriptions"], 0);
    scene.mine(vec![]);
    tips.until(|message| message["tip"]["height"] == 115);
    all.assert_silent();
    assert_eq!(kinds(&mute.drain()), Vec::<&str>::new());
}

#[test]
fn a_payment_is_told_to_all_that_it_touches_through_mempool_block_and_reorganisation() {
    let mut scene = Scene::new();
    let target = other(9);
    let coin = scene.coin(1);
    let tx = spend(coin, &target, 1_000);
    let txid = tx.compute_txid().to_string();
    let outpoint = coin.0.to_string();
    let (hash, name) = (scripthash(target.as_bytes()), address(&target));
    let mut client = scene.client();
    client.send(&json!({
        "type": "subscribe",
        "channels": ["mempool"],
        "addresses": [name],
        "scripthashes": [hash],
        "outpoints": [outpoint, format!("{txid}:0")],
        "txids": [txid],
    }));
    assert_eq!(client.next().unwrap()["subscriptions"], 5);
    let mempool = client.next().unwrap();
    assert_eq!(mempool["mempool"], scene.node.get_json::<Value>("/mempool"));
    // The first message of each is the present state.
    let states = client.drain();
    assert_eq!(
        kinds(&states),
        ["address", "scripthash", "outpoint", "outpoint", "tx"]
    );
    assert!(states.iter().all(|state| state["initial"] == true));
    assert!(states.iter().all(|state| state["tip"]["height"] == 110));
    assert_eq!(states[0]["address"], name);
    assert_eq!(states[0]["mempool_stats"]["tx_count"], 0);
    assert_eq!(states[0]["last_confirmed"], Value::Null);
    assert_eq!(states[1]["scripthash"], hash);
    assert_eq!(states[0]["fingerprint"], states[1]["fingerprint"]);
    assert_eq!(states[2]["funding"]["state"], "confirmed");
    assert_eq!(states[2]["outspend"], json!({"spent": false}));
    assert_eq!(states[3]["funding"]["state"], "unknown");
    assert_eq!(
        (&states[4]["state"], &states[4]["previous"]),
        (&json!("unknown"), &Value::Null)
    );
    let mut bystander = scene.client();
    bystander.send(&json!({"type": "subscribe", "addresses": [address(&other(1))]}));
    bystander.next_of("address");

    scene.send(&tx);
    let of = |message: &Value, kind: &str| message["type"] == kind && message["initial"] == false;
    // Each of them once, in no particular order.
    let rest: Vec<Value> = (0..6).map(|_| client.next().unwrap()).collect();
    let one = |kind: &str, key: &str, value: &str| {
        let mut found = rest.iter().filter(|one| one["type"] == kind);
        found
            .find(|one| key.is_empty() || one[key] == value)
            .unwrap()
    };
    let told = one("address", "address", &name);
    let paid = tx.output[0].value.to_sat();
    assert_eq!(told["mempool_stats"]["funded_txo_sum"], paid);
    assert_eq!(told["unconfirmed"], json!([txid]));
    let stats: Value = scene.node.get_json(&format!("/address/{name}"));
    assert_eq!(told["mempool_stats"], stats["mempool_stats"]);
    let same = one("scripthash", "scripthash", &hash);
    assert_eq!(told["fingerprint"], same["fingerprint"]);
    assert_eq!(one("tx", "txid", &txid)["state"], "mempool");
    assert_eq!(one("tx", "txid", &txid)["previous"], "unknown");
    assert_eq!(one("tx", "txid", &txid)["fee"], 1_000);
    let spent = one("outpoint", "outpoint", &outpoint);
    assert_eq!(spent["outspend"]["txid"], txid);
    assert_eq!(spent["outspend"]["status"]["confirmed"], false);
    let created = one("outpoint", "outpoint", &format!("{txid}:0"));
    assert_eq!(created["funding"]["state"], "mempool");
    assert_eq!(one("mempool", "", "")["mempool"]["count"], 1);

    scene.mine(vec![tx.clone()]);
    let told = client.until(|message| message["state"] == "confirmed");
    assert_eq!(told["previous"], "mempool");
    assert_eq!(told["status"]["block_height"], 111);
    assert_eq!(
        told["status"]["block_hash"],
        scene.chain.tip_hash().to_string()
    );
    client.send(&json!({"type": "subscribe", "request": "again", "addresses": [name]}));
    let told = client.until(|message| of(message, "address") || message["request"] == "again");
    let told = match told["type"] == "address" {
        true => told,
        false => client.next_of("address"),
    };
    assert_eq!(told["chain_stats"]["tx_count"], 1);
    assert_eq!(told["last_confirmed"]["txid"], txid);
    client.drain();

    // The block is replaced: the payment is unconfirmed again.
    scene.reorganise(110, 2);
    let told = client.until(|message| message["type"] == "tx");
    assert_eq!(
        (&told["state"], &told["previous"]),
        (&json!("mempool"), &json!("confirmed"))
    );
    client.drain();
    // In another block, at the height at which it was before.
    scene.reorganise(110, 3);
    client.drain();
    scene.mine(vec![tx]);
    let told = client.until(|message| message["state"] == "confirmed");
    assert_eq!(told["status"]["block_height"], 114);
    assert!(bystander.drain().is_empty());
    let metrics = scene.node.get("/metrics");
    for line in [
        "pulse_push_connections{transport=\"ws\"} 2",
        "pulse_push_subscriptions 5",
        "pulse_push_round_seconds_count",
    ] {
        assert!(metrics.text().contains(line), "{line}");
    }
}

#[test]
fn a_replacement_and_a_conflict_are_told() {
    let mut scene = Scene::new();
    let (target, coin) = (other(9), scene.coin(1));
    let first = spend(coin, &target, 1_000);
    let better = spend(coin, &target, 5_000);
    let best = spend(coin, &other(8), 9_000);
    let id = |tx: &pulse_primitives::bitcoin::Transaction| tx.compute_txid().to_string();
    let mut client = scene.client();
    scene.send(&first);
    client.send(&json!({
        "type": "subscribe",
        "addresses": [address(&target)],
        "outpoints": [coin.0.to_string()],
        "txids": [id(&first), id(&better)],
    }));
    client.until(|message| message["txid"] == id(&better));
    scene.send(&better);
    let told = client.until(|message| message["txid"] == id(&first));
    assert_eq!(
        (&told["state"], &told["previous"]),
        (&json!("removed"), &json!("mempool"))
    );
    assert_eq!(told["removal"]["reason"], "replaced");
    assert_eq!(told["removal"]["by"], id(&better));
    scene.mine(vec![best.clone()]);
    let told = client.until(|message| message["removal"]["reason"] == "conflict");
    assert_eq!(told["txid"], id(&better));
    assert_eq!(told["removal"]["by"], id(&best));
    client.send(&json!({"type": "subscribe", "outpoints": [coin.0.to_string()]}));
    let told = client.until(|message| message["outspend"]["status"]["confirmed"] == true);
    assert_eq!(told["outspend"]["txid"], id(&best));
}
