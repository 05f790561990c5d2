//! What subscribers are told through the mempool, blocks and reorganisations.

use pulse_primitives::bitcoin::{
    ScriptBuf, Transaction, Txid, WPubkeyHash,
    consensus::encode::serialize_hex,
    hashes::{Hash, sha256},
};
use serde_json::{Value, json};

use super::{Scene, raw::Client, scripthash};

const SUBSCRIBE: &str = "blockchain.scripthash.subscribe";

/// A script of nobody.
pub fn other(n: u8) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([n; 20]))
}

/// The status by its definition.
pub fn status(history: &[(Txid, i32)]) -> Value {
    if history.is_empty() {
        return Value::Null;
    }
    let text: String = history
        .iter()
        .map(|(txid, height)| format!("{txid}:{height}:"))
        .collect();
    json!(sha256::Hash::hash(text.as_bytes()).to_string())
}

/// The client is told that `script` has the status of `history`, and reads the same.
#[track_caller]
fn assert_told(client: &mut Client, script: &ScriptBuf, history: &[(Txid, i32)]) {
    let name = scripthash(script);
    let expected = json!([name, status(history)]);
    client.notice_until(|notice| notice["method"] == SUBSCRIBE && notice["params"] == expected);
    let found = client.call("blockchain.scripthash.get_history", json!([name]));
    let found: Vec<(Txid, i32)> = (found.as_array().unwrap().iter())
        .map(|entry| {
            let height = i32::try_from(entry["height"].as_i64().unwrap()).unwrap();
            assert_eq!(entry.get("fee").is_some(), height <= 0, "{entry}");
            (entry["tx_hash"].as_str().unwrap().parse().unwrap(), height)
        })
        .collect();
    assert_eq!(found, history);
}

pub fn broadcast(client: &mut Client, tx: &Transaction) -> Txid {
    let txid = tx.compute_txid();
    let told = client.call(
        "blockchain.transaction.broadcast",
        json!([serialize_hex(tx)]),
    );
    assert_eq!(told, txid.to_string());
    txid
}

#[test]
fn subscribers_are_told_of_the_mempool_of_blocks_and_of_reorganisations() {
    let mut scene = Scene::new();
    scene.fund();
    let blocks = scene.chain.blocks();
    let coinbases: Vec<(Txid, i32)> = (1..=3)
        .zip(&blocks[1..])
        .map(|(height, block)| (block.txdata[0].compute_txid(), height))
        .collect();
    let (wallet, target) = (scene.script.clone(), other(9));
    let mut client = scene.client();
    assert_eq!(
        client.call(SUBSCRIBE, json!([scripthash(&wallet)])),
        status(&coinbases)
    );
    assert_eq!(
        client.call(SUBSCRIBE, json!([scripthash(&target)])),
        Value::Null
    );
    let tip = client.call("blockchain.headers.subscribe", json!([]));
    assert_eq!(tip["height"], 110);
    let mut bystander = scene.client();
    bystander.call(SUBSCRIBE, json!([scripthash(&other(1))]));

    // Into the mempool: a parent, and a child that spends its change.
    let parent = scene.pay(&target, 10_000_000);
    let parent_id = broadcast(&mut client, &parent);
    assert_told(&mut client, &target, &[(parent_id, 0)]);
    let child = scene.pay_all_from(&parent, &target);
    let child_id = broadcast(&mut client, &child);
    assert_told(&mut client, &target, &[(parent_id, 0), (child_id, -1)]);
    let name = scripthash(&target);
    let mempool = client.call("blockchain.scripthash.get_mempool", json!([name]));
    assert_eq!(mempool.as_array().unwrap().len(), 2);
    assert_eq!(mempool[1]["height"], -1);
    let balance = client.call("blockchain.scripthash.get_balance", json!([name]));
    let paid = 10_000_000 + child.output[0].value.to_sat();
    assert_eq!(balance, json!({"confirmed": 0, "unconfirmed": paid}));
    let unspent = client.call("blockchain.scripthash.listunspent", json!([name]));
    assert_eq!(unspent.as_array().unwrap().len(), 2);
    assert_eq!(unspent[0]["height"], 0);
    let found = client.call("blockchain.transaction.get", json!([child_id]));
    assert_eq!(found, serialize_hex(&child));
    let detail = client.call("blockchain.transaction.get", json!([child_id, true]));
    assert!(detail.get("blockhash").is_none());
    assert_eq!(
        client.call("blockchain.transaction.get_height", json!([child_id])),
        0
    );

    // Only the parent is mined: the child has no unconfirmed parents any more.
    scene.mine(vec![parent.clone()]);
    assert_told(&mut client, &target, &[(parent_id, 111), (child_id, 0)]);
    let found = client.call("blockchain.headers.get_tip", json!([]));
    assert_eq!(found["height"], 111);
    scene.mine(vec![child.clone()]);
    assert_told(&mut client, &target, &[(parent_id, 111), (child_id, 112)]);
    let balance = client.call("blockchain.scripthash.get_balance", json!([name]));
    assert_eq!(balance, json!({"confirmed": paid, "unconfirmed": 0}));

    // An empty block tells of the header alone.
    let mut quiet = scene.client();
    quiet.call(SUBSCRIBE, json!([scripthash(&target)]));
    quiet.call("blockchain.headers.subscribe", json!([]));
    scene.mine(vec![]);
    let header = quiet.notice();
    assert_eq!(header["method"], "blockchain.headers.subscribe");
    let hex = serialize_hex(&scene.chain.tip().header);
    assert_eq!(header["params"], json!([{"height": 113, "hex": hex}]));
    quiet.assert_silent();

    // Three blocks are replaced: both are back in the mempool.
    scene.reorganise(110, 4);
    assert_told(&mut client, &target, &[(parent_id, 0), (child_id, -1)]);
    quiet.notice_until(|notice| {
        notice["method"] == "blockchain.headers.subscribe" && notice["params"][0]["height"] == 114
    });
    scene.mine(vec![parent, child]);
    assert_told(&mut client, &target, &[(parent_id, 115), (child_id, 115)]);
    bystander.assert_silent();

    // What ends is ended.
    assert_eq!(
        client.call("blockchain.scripthash.unsubscribe", json!([name])),
        true
    );
    let metrics = scene.node.get("/metrics");
    assert!(
        metrics
            .text()
            .contains("pulse_electrum_connections{transport=\"tcp\"} 3"),
        "{}",
        metrics.text()
    );
}

#[test]
fn packages_are_taken_and_refused_with_reasons() {
    let mut scene = Scene::new();
    scene.fund();
    let mut client = Client::speaking(scene.addr(), "1.6");
    let parent = scene.pay(&other(9), 10_000_000);
    let child = scene.pay_all_from(&parent, &other(8));
    let package = json!([[serialize_hex(&parent), serialize_hex(&child)]]);
    let method = "blockchain.transaction.broadcast_package";
    assert_eq!(
        client.call(method, package.clone()),
        json!({"success": true})
    );
    let entry = client.call(
        "blockchain.scripthash.get_mempool",
        json!([scripthash(&other(8))]),
    );
    assert_eq!(entry[0]["tx_hash"], child.compute_txid().to_string());

    let verbose = json!([package[0], true]);
    let detail = client.call(method, verbose);
    assert_eq!(detail["package_msg"], "success");
    let result = &detail["tx-results"][parent.compute_wtxid().to_string()];
    assert_eq!(result["txid"], parent.compute_txid().to_string());

    // A child alone whose parent nobody knows.
    let mut unknown = child.clone();
    unknown.input[0].previous_output.txid = Txid::from_byte_array([7; 32]);
    let refused = client.call(method, json!([[serialize_hex(&unknown)]]));
    assert_eq!(refused["success"], false);
    let errors = refused["errors"].as_array().unwrap();
    assert_eq!(errors[0]["txid"], unknown.compute_txid().to_string());
    assert!(!errors[0]["error"].as_str().unwrap().is_empty());
    let (code, text) = client.error(method, json!([[]]));
    assert_eq!(code, 1);
    assert!(text.starts_with("the tx package was rejected by network rules.\n\n"));

    let (code, text) = client.error(
        "blockchain.transaction.broadcast",
        json!([serialize_hex(&unknown)]),
    );
    assert_eq!(code, 1);
    assert_eq!(
        text,
        "the transaction was rejected by network rules.\n\nbad-txns-inputs-missingorspent"
    );
    // Once more is no error.
    broadcast(&mut client, &parent);
    let fees = client.call("mempool.get_fee_histogram", json!([]));
    assert!(fees.is_array());
}

#[test]
fn a_stop_tells_what_is_pending_and_closes() {
    let mut scene = Scene::new();
    let mut client = scene.client();
    client.call("blockchain.headers.subscribe", json!([]));
    assert!(scene.node.terminate(super::DEADLINE).status.success());
    assert_eq!(client.line(), None);
}

#[test]
fn subscribers_of_a_transaction_are_told_of_its_height() {
    const SUBSCRIBE_TX: &str = "blockchain.transaction.subscribe";
    let mut scene = Scene::new();
    scene.fund();
    let coinbase = scene.chain.blocks()[2].txdata[0].compute_txid();
    let parent = scene.pay(&other(9), 10_000_000);
    let child = scene.pay_all_from(&parent, &other(8));
    let [parent_id, child_id] = [&parent, &child].map(Transaction::compute_txid);
    let mut client = Client::speaking(scene.addr(), "1.6");
    assert_eq!(client.call(SUBSCRIBE_TX, json!([coinbase])), 2);
    for txid in [parent_id, child_id] {
        assert_eq!(client.call(SUBSCRIBE_TX, json!([txid])), Value::Null);
    }
    let mut bystander = scene.client();
    assert_eq!(bystander.call(SUBSCRIBE_TX, json!([coinbase])), 2);
    let told = |client: &mut Client, txid: Txid, height: Value| {
        let expected = json!({"jsonrpc": "2.0", "method": SUBSCRIBE_TX, "params": [txid, height]});
        assert_eq!(client.notice(), expected);
    };

    let mut other_client = scene.client();
    broadcast(&mut other_client, &parent);
    told(&mut client, parent_id, json!(0));
    broadcast(&mut other_client, &child);
    told(&mut client, child_id, json!(0));
    // That its parent is in a block says nothing of the child.
    scene.mine(vec![parent.clone()]);
    told(&mut client, parent_id, json!(111));
    scene.mine(vec![child.clone()]);
    told(&mut client, child_id, json!(112));
    scene.reorganise(110, 3);
    let mut back = [client.notice(), client.notice()].map(|notice| notice["params"].clone());
    back.sort_by_key(|params| params[0] == child_id.to_string());
    assert_eq!(back, [json!([parent_id, 0]), json!([child_id, 0])]);

    let unsubscribe = "blockchain.transaction.unsubscribe";
    assert_eq!(client.call(unsubscribe, json!([parent_id])), true);
    assert_eq!(client.call(unsubscribe, json!([parent_id])), false);
    scene.mine(vec![parent, child]);
    told(&mut client, child_id, json!(114));
    client.assert_silent();
    bystander.assert_silent();
    assert_eq!(
        client.error(SUBSCRIBE_TX, json!(["11"])),
        (-32602, "non-hex tx_hash".to_owned())
    );
}
