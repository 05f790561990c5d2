//! What the scenes share: a node of our binary, and comparisons with what is true.

use std::{net::SocketAddr, path::Path, time::Duration};

use pulse_primitives::bitcoin::{
    Block, BlockHash, Network, Txid,
    consensus::serialize,
    hashes::{Hash, sha256},
};
use pulse_primitives::network::ChainParams;
use pulse_testkit::{Exit, Golden, GoldenScript, NodeOptions, PulseNode, ServedChain};
use serde_json::Value;

/// Longest that any scene may wait for anything.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// A salt for all indexes that are to be compared.
pub const SALT: &str = "000102030405060708090a0b0c0d0e0f";

pub fn options(network: &str) -> NodeOptions {
    NodeOptions::new(env!("CARGO_BIN_EXE_pulse-node")).network(network)
}

pub fn start(network: &str, peers: &[SocketAddr]) -> PulseNode {
    peers
        .iter()
        .fold(options(network), |options, peer| options.connect(*peer))
        .start()
}

pub fn params(network: Network) -> ChainParams {
    ChainParams::new(network, None)
}

pub fn served(network: Network, blocks: &[Block]) -> ServedChain {
    ServedChain::from_blocks(&params(network), blocks)
}

/// The digest of the index of a node that has ended: one line, and the row counts without those
/// that depend on how the index came to its tip (facts about the database, checkpoints, stored
/// deltas).
pub fn digest(network: &str, data_dir: &Path) -> String {
    let exit: Exit = options(network)
        .data_dir(data_dir)
        .args(["digest"])
        .run_to_exit(DEADLINE);
    assert!(exit.status.success(), "{}", exit.stderr);
    let differing = ["meta ", "agg ", "undo "];
    let lines = exit.stdout.lines();
    lines
        .filter(|line| !differing.iter().any(|family| line.starts_with(family)))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Sum of the values of a metric, whose name may go on with labels.
pub fn metric(node: &PulseNode, name: &str) -> f64 {
    let reply = node.get_ops("/metrics");
    let lines = reply.text().lines();
    let values = lines.filter_map(|line| line.strip_prefix(name));
    let numbers = values.map(|rest| rest.rsplit(' ').next().unwrap().parse::<f64>().unwrap());
    numbers.sum()
}

/// SHA-256 of a script as the REST API names it.
pub fn scripthash(script: &[u8]) -> String {
    sha256::Hash::hash(script)
        .to_byte_array()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Every answer about every script equals the golden one.
pub fn assert_golden(node: &PulseNode, golden: &Golden) {
    assert_eq!(
        node.get("/blocks/tip/hash").text(),
        golden.tip_hash.to_string()
    );
    for script in &golden.scripts {
        assert_script(node, script);
    }
}

fn assert_script(node: &PulseNode, golden: &GoldenScript) {
    let hash = scripthash(golden.script.as_bytes());
    let base = format!("/scripthash/{hash}");
    let stats: Value = node.get_json(&base);
    let stats = &stats["chain_stats"];
    let zero = |n: u64| if golden.unspendable { 0 } else { n };
    for (key, value) in [
        ("tx_count", golden.tx_count),
        ("funded_txo_count", golden.funded_txo_count),
        ("funded_txo_sum", golden.funded_txo_sum),
        ("spent_txo_count", golden.spent_txo_count),
        ("spent_txo_sum", golden.spent_txo_sum),
    ] {
        assert_eq!(stats[key], zero(value), "{key} of {hash}");
    }
    let mut expected: Vec<(u64, String)> = golden
        .history
        .iter()
        .rev()
        .map(|(height, _, txid)| (u64::from(*height), txid.to_string()))
        .collect();
    let mut utxos: Vec<(String, u64, u64, u64)> = golden
        .utxos
        .iter()
        .map(|utxo| {
            let height = utxo.height.into();
            (utxo.txid.to_string(), utxo.vout.into(), utxo.value, height)
        })
        .collect();
    if golden.unspendable {
        expected.clear();
        utxos.clear();
    }
    assert_eq!(history(node, &base), expected, "history of {hash}");
    let answer: Vec<Value> = node.get_json(&format!("{base}/utxo"));
    let mut found: Vec<(String, u64, u64, u64)> = answer
        .iter()
        .map(|utxo| {
            (
                utxo["txid"].as_str().unwrap().to_owned(),
                utxo["vout"].as_u64().unwrap(),
                utxo["value"].as_u64().unwrap(),
                utxo["status"]["block_height"].as_u64().unwrap(),
            )
        })
        .collect();
    found.sort();
    utxos.sort();
    assert_eq!(found, utxos, "unspent outputs of {hash}");
}

/// All pages of a history: height and txid, newest first.
pub fn history(node: &PulseNode, base: &str) -> Vec<(u64, String)> {
    let mut all: Vec<(u64, String)> = Vec::new();
    loop {
        let page: Vec<Value> = match all.last() {
            None => node.get_json(&format!("{base}/txs")),
            Some((_, last)) => node.get_json(&format!("{base}/txs/chain/{last}")),
        };
        all.extend(page.iter().map(|tx| {
            (
                tx["status"]["block_height"].as_u64().unwrap(),
                tx["txid"].as_str().unwrap().to_owned(),
            )
        }));
        if page.len() < 25 {
            return all;
        }
    }
}

/// Every block and every transaction reads back as it is.
pub fn assert_blocks(node: &PulseNode, blocks: &[Block]) {
    for (height, block) in blocks.iter().enumerate() {
        let hash = block.block_hash();
        assert_eq!(
            node.get(&format!("/block-height/{height}")).text(),
            hash.to_string()
        );
        assert_eq!(
            node.get(&format!("/block/{hash}/raw")).body,
            serialize(block)
        );
        let txids: Vec<Txid> = node.get_json(&format!("/block/{hash}/txids"));
        let expected: Vec<Txid> = block.txdata.iter().map(|tx| tx.compute_txid()).collect();
        assert_eq!(txids, expected);
        for (tx, txid) in block.txdata.iter().zip(&txids) {
            assert_eq!(node.get(&format!("/tx/{txid}/raw")).body, serialize(tx));
        }
    }
}

/// None of these blocks is in the chain any more, nor their coinbases.
pub fn assert_gone(node: &PulseNode, blocks: &[Block]) {
    for block in blocks {
        let hash: BlockHash = block.block_hash();
        let status: Value = node.get_json(&format!("/block/{hash}/status"));
        assert_eq!(status["in_best_chain"], false);
        assert_eq!(node.get(&format!("/block/{hash}")).status, 404);
        let coinbase = block.txdata[0].compute_txid();
        assert_eq!(node.get(&format!("/tx/{coinbase}")).status, 404);
    }
}
