//! Every script of real chains against independent answers.

use pulse_primitives::bitcoin::{Block, Network};
use pulse_testkit::{ChainData, Golden, GoldenScript};
use serde_json::{Value, json};

use super::{raw::Client, synced};

/// Scripts asked about at once.
const AT_ONCE: usize = 100;

const METHODS: [&str; 4] = ["subscribe", "get_history", "get_balance", "listunspent"];

fn check(name: &str, network: Network, blocks: &[Block], golden: &Golden) {
    let (node, _peer) = synced(name, network, blocks);
    let mut client = Client::speaking(node.electrum_addr("tcp").unwrap(), "1.6");
    for scripts in golden.scripts.chunks(AT_ONCE) {
        let calls: Vec<Value> = scripts
            .iter()
            .enumerate()
            .flat_map(|(n, script)| {
                METHODS.map(|method| {
                    let method = format!("blockchain.scripthash.{method}");
                    json!({"id": [n, method], "method": method, "params": [script.scripthash]})
                })
            })
            .collect();
        client.send(&format!("{}\n", Value::Array(calls)));
        let answers = client.line().unwrap();
        let answers = answers.as_array().unwrap();
        assert_eq!(answers.len(), METHODS.len() * scripts.len());
        for (script, answers) in scripts.iter().zip(answers.chunks(METHODS.len())) {
            check_script(script, answers);
        }
    }
}

fn check_script(golden: &GoldenScript, answers: &[Value]) {
    let [status, history, balance, unspent] = answers else {
        panic!("four answers");
    };
    let name = &golden.scripthash;
    if golden.unspendable {
        assert_eq!(status["result"], Value::Null, "{name}");
        assert_eq!(history["result"], json!([]), "{name}");
        return;
    }
    assert_eq!(status["result"], json!(golden.electrum_status), "{name}");
    let expected: Vec<Value> = (golden.history.iter())
        .map(|(height, _, txid)| json!({"height": height, "tx_hash": txid}))
        .collect();
    assert_eq!(history["result"], Value::Array(expected), "{name}");
    let confirmed = golden.funded_txo_sum - golden.spent_txo_sum;
    assert_eq!(
        balance["result"],
        json!({"confirmed": confirmed, "unconfirmed": 0}),
        "{name}"
    );
    // The golden ones stand by height only.
    let mut utxos = golden.utxos.clone();
    utxos.sort_by_key(|utxo| {
        let mut made = golden.history.iter();
        let made = made.find(|(_, _, txid)| *txid == utxo.txid).unwrap();
        (made.0, made.1, utxo.vout)
    });
    let expected: Vec<Value> = (utxos.iter())
        .map(|utxo| json!({"height": utxo.height, "tx_hash": utxo.txid, "tx_pos": utxo.vout, "value": utxo.value}))
        .collect();
    assert_eq!(unspent["result"], Value::Array(expected), "{name}");
}

#[test]
fn mainnet_scripts_have_the_golden_status_history_balance_and_outputs() {
    let Some(data) = ChainData::locate() else {
        return;
    };
    let golden = data.golden("mainnet-0-4312");
    check("mainnet", Network::Bitcoin, &data.mainnet(), &golden);
}

#[test]
fn regtest_scripts_have_the_golden_status_history_balance_and_outputs() {
    let Some(data) = ChainData::locate() else {
        return;
    };
    let golden = data.golden("regtest-kernel-0-206");
    check("regtest", Network::Regtest, &data.regtest_kernel(), &golden);
}
