//! `blockchain.transaction.get` in detail against Bitcoin Core's `getrawtransaction`.

use std::{collections::BTreeMap, net::SocketAddr};

use pulse_primitives::bitcoin::{Txid, consensus::encode::serialize_hex};
use pulse_testkit::{Bitcoind, PulseNode};
use serde_json::{Value, json};

use super::{chain, odd};
use crate::e2e::{
    common::{DEADLINE, options},
    electrum::raw::Client,
};

/// A node and `bitcoind` with the same chain and mempool of many kinds of transactions.
pub fn both(seed: u64, start: impl FnOnce(SocketAddr) -> PulseNode) -> (Bitcoind, PulseNode) {
    let (mut chain, mut txgen) = chain::funded(seed, 60);
    odd::mine(&mut chain, seed);
    let bitcoind = Bitcoind::start(&["-txindex=1"]);
    for (height, block) in chain.blocks().iter().enumerate().skip(1) {
        assert_eq!(bitcoind.submit_block(block), None, "block {height}");
    }
    let mut node = start(bitcoind.p2p_addr());
    node.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    for tx in txgen.prelude() {
        let hex = serialize_hex(&tx);
        let theirs = bitcoind.try_call("sendrawtransaction", &json!([hex, 0, 21_000_000]));
        let ours = node.post("/tx", &hex);
        assert_eq!(theirs.is_ok(), ours.status == 200, "{theirs:?}");
    }
    let mut expected = txids(&bitcoind.call("getrawmempool", &json!([])));
    expected.sort_unstable();
    node.wait_until("the mempool", DEADLINE, |node| {
        let mut found = txids(&node.get_json("/mempool/txids"));
        found.sort_unstable();
        found == expected
    });
    bitcoind.wait_until(DEADLINE, "its index", |bitcoind| {
        bitcoind.call("getindexinfo", &json!([]))["txindex"]["synced"] == true
    });
    (bitcoind, node)
}

/// A list of ids.
pub fn txids(list: &Value) -> Vec<Txid> {
    let list = list.as_array().expect("a list").iter();
    list.map(|txid| {
        txid.as_str()
            .and_then(|txid| txid.parse().ok())
            .expect("an id")
    })
    .collect()
}

/// Where two values differ.
pub fn differences(path: &str, theirs: &Value, ours: &Value, found: &mut Vec<(String, String)>) {
    match (theirs, ours) {
        (Value::Object(their), Value::Object(our)) => {
            for key in their
                .keys()
                .chain(our.keys().filter(|key| !their.contains_key(*key)))
            {
                let (their, our) = (their.get(key), our.get(key));
                let path = format!("{path}.{key}");
                match (their, our) {
                    (Some(their), Some(our)) => differences(&path, their, our, found),
                    _ => found.push((path, format!("theirs {their:?}, ours {our:?}"))),
                }
            }
        }
        (Value::Array(their), Value::Array(our)) if their.len() == our.len() => {
            for (their, our) in their.iter().zip(our) {
                differences(&format!("{path}[]"), their, our, found);
            }
        }
        _ if theirs == ours => {}
        // As many digits as a float has.
        (Value::Number(their), Value::Number(our)) if their.as_f64() == our.as_f64() => {}
        _ => found.push((path.to_owned(), format!("theirs {theirs}, ours {ours}"))),
    }
}

/// Every transaction of the chain and of the mempool, field by field.
#[test]
#[ignore = "needs BITCOIND=/path/to/bitcoind"]
#[allow(clippy::print_stdout, reason = "the report is what the test is for")]
fn transactions_are_shown_as_bitcoin_core_shows_them() {
    let (bitcoind, node) = both(1, |peer| {
        let options = options("regtest").connect(peer);
        options.env("PULSE_ELECTRUM__ADDR", "127.0.0.1:0").start()
    });
    let mut client = Client::connect(node.electrum_addr("tcp").unwrap());
    let mut all = txids(&bitcoind.call("getrawmempool", &json!([])));
    let height = bitcoind.call("getblockcount", &json!([])).as_u64().unwrap();
    // Bitcoin Core does not show the coinbase of genesis.
    for height in 1..=height {
        let hash = bitcoind.call("getblockhash", &json!([height]));
        let block = bitcoind.call("getblock", &json!([hash, 1]));
        all.extend(txids(&block["tx"]));
    }
    let mut differing: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let (mut inputs, mut outputs) = (0, 0);
    for txid in &all {
        let theirs = bitcoind.call("getrawtransaction", &json!([txid, true]));
        let ours = client.call("blockchain.transaction.get", json!([txid, true]));
        inputs += theirs["vin"].as_array().unwrap().len();
        outputs += theirs["vout"].as_array().unwrap().len();
        let mut found = Vec::new();
        differences("tx", &theirs, &ours, &mut found);
        for (path, values) in found {
            let entry = differing.entry(path);
            entry.or_insert_with(|| (0, format!("{txid}: {values}"))).0 += 1;
        }
    }
    println!(
        "{} transactions, {inputs} inputs, {outputs} outputs",
        all.len()
    );
    for (path, (count, example)) in &differing {
        println!("{count:6} {path}: {example}");
    }
    assert!(differing.is_empty(), "{} fields differ", differing.len());
}
