//! The Esplora contract, item by item, against a live node.

use pulse_primitives::bitcoin::{Address, Block, Network, ScriptBuf, WPubkeyHash, hashes::Hash};
use pulse_testkit::{ChainData, PulseNode, ScriptedPeer};
use serde_json::{Value, json};

use super::common::{DEADLINE, served, start};

fn synced() -> Option<(PulseNode, ScriptedPeer, Vec<Block>)> {
    let blocks = ChainData::locate()?.regtest_kernel();
    let peer = ScriptedPeer::honest(served(Network::Regtest, &blocks));
    let mut node = start("regtest", &[peer.addr()]);
    node.wait_synced_to(206, DEADLINE);
    Some((node, peer, blocks))
}

fn assert_text(node: &PulseNode, path: &str, status: u16, body: &str) {
    for path in [path.to_owned(), format!("/api{path}")] {
        let reply = node.get(&path);
        let shown = body.replace("PATH", &path);
        assert_eq!(
            (reply.status, reply.text()),
            (status, shown.as_str()),
            "{path}"
        );
        assert_eq!(reply.content_type.as_deref(), Some("text/plain"), "{path}");
    }
}

#[test]
fn errors_have_the_contract_s_status_and_words() {
    let Some((node, _peer, blocks)) = synced() else {
        return;
    };
    let hash = blocks[206].block_hash();
    let txid = blocks[206].txdata[0].compute_txid();
    let unknown = "11".repeat(32);
    for (path, status, body) in [
        (
            "/nonsense".to_owned(),
            404,
            "endpoint does not exist \"PATH\"",
        ),
        (
            format!("/tx/{txid}/"),
            404,
            "endpoint does not exist \"PATH\"",
        ),
        ("/block/abc".to_owned(), 400, "Invalid hex string"),
        (format!("/block/{hash}0"), 400, "Invalid hex string"),
        (format!("/block/{unknown}"), 404, "Block not found"),
        (format!("/block/{unknown}/header"), 404, "Block not found"),
        (format!("/block/{unknown}/raw"), 404, "Block not found"),
        (format!("/block/{unknown}/txids"), 404, "Block not found"),
        (format!("/block/{unknown}/txs"), 404, "Block not found"),
        ("/blocks/207".to_owned(), 404, "Block not found"),
        ("/block-height/207".to_owned(), 404, "Block not found"),
        ("/block-height/-1".to_owned(), 400, "Invalid number"),
        (format!("/block/{hash}/txid/x"), 400, "Invalid number"),
        (
            format!("/block/{hash}/txid/99999"),
            404,
            "tx index out of range",
        ),
        (
            format!("/block/{hash}/txs/1"),
            400,
            "start index must be a multiple of 25",
        ),
        (
            format!("/block/{hash}/txs/25"),
            400,
            "start index out of range",
        ),
        ("/tx/abc".to_owned(), 400, "Invalid hex string"),
        (format!("/tx/{unknown}"), 404, "Transaction not found"),
        (format!("/tx/{unknown}/hex"), 404, "Transaction not found"),
        (format!("/tx/{unknown}/raw"), 404, "Transaction not found"),
        (
            format!("/tx/{unknown}/outspends"),
            404,
            "Transaction not found",
        ),
        (
            format!("/tx/{unknown}/merkle-proof"),
            404,
            "Transaction not found or is unconfirmed",
        ),
        (
            format!("/tx/{unknown}/merkleblock-proof"),
            404,
            "Transaction not found or is unconfirmed",
        ),
        (format!("/tx/{txid}/outspend/x"), 400, "Invalid number"),
        ("/scripthash/abc".to_owned(), 400, "Invalid scripthash"),
        (
            "/address/bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq".to_owned(),
            400,
            "Address on invalid network",
        ),
    ] {
        assert_text(&node, &path, status, body);
    }
}

#[test]
fn what_never_is_an_error_is_none() {
    let Some((node, _peer, blocks)) = synced() else {
        return;
    };
    let unknown = "11".repeat(32);
    let status: Value = node.get_json(&format!("/block/{unknown}/status"));
    assert_eq!(
        status,
        json!({"in_best_chain": false, "height": null, "next_best": null})
    );
    let status: Value = node.get_json(&format!("/tx/{unknown}/status"));
    assert_eq!(status, json!({"confirmed": false}));
    let spend: Value = node.get_json(&format!("/tx/{unknown}/outspend/0"));
    assert_eq!(spend, json!({"spent": false}));
    let tip = blocks[206].block_hash();
    let status: Value = node.get_json(&format!("/block/{tip}/status"));
    assert_eq!(
        status,
        json!({"in_best_chain": true, "height": 206, "next_best": null})
    );
    let before = blocks[205].block_hash();
    let status: Value = node.get_json(&format!("/block/{before}/status"));
    assert_eq!(status["next_best"], tip.to_string());
    let unused = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([7; 20]));
    let unused = Address::from_script(&unused, Network::Regtest).unwrap();
    let address: Value = node.get_json(&format!("/address/{unused}"));
    assert_eq!(address["address"], unused.to_string());
    assert_eq!(address["chain_stats"]["tx_count"], 0);
    assert_eq!(address["mempool_stats"]["funded_txo_count"], 0);
}

#[test]
fn lists_of_blocks_page_as_clients_expect() {
    let Some((node, _peer, blocks)) = synced() else {
        return;
    };
    let heights = |path: &str| -> Vec<u64> {
        let list: Vec<Value> = node.get_json(path);
        list.iter()
            .map(|block| block["height"].as_u64().unwrap())
            .collect()
    };
    let newest: Vec<u64> = (197..=206).rev().collect();
    for path in [
        "/blocks",
        "/blocks/",
        "/blocks/abc",
        "/blocks/tip",
        "/api/blocks",
    ] {
        assert_eq!(heights(path), newest, "{path}");
    }
    assert_eq!(heights("/blocks/3"), [3, 2, 1, 0]);
    let genesis: Vec<Value> = node.get_json("/blocks/0");
    assert_eq!(genesis.len(), 1);
    assert_eq!(genesis[0]["previousblockhash"], Value::Null);
    assert_eq!(genesis[0]["size"], 285);
    assert_eq!(genesis[0]["weight"], 1140);
    let hash = blocks[206].block_hash();
    for path in ["txs", "txs/", "txs/0", "txs/abc", "txs/-25"] {
        let txs: Vec<Value> = node.get_json(&format!("/block/{hash}/{path}"));
        assert_eq!(txs.len(), blocks[206].txdata.len(), "{path}");
    }
    for (height, block) in blocks.iter().enumerate().skip(200) {
        let info: Value = node.get_json(&format!("/block/{}", block.block_hash()));
        let keys: Vec<&String> = info.as_object().unwrap().keys().collect();
        assert_eq!(keys.len(), 13, "{keys:?}");
        assert_eq!(info["height"], height);
        assert_eq!(info["tx_count"], block.txdata.len());
        assert_eq!(info["weight"], block.weight().to_wu());
        assert_eq!(info["size"], block.total_size());
        assert_eq!(info["merkle_root"], block.header.merkle_root.to_string());
        let mut times: Vec<u32> = blocks[height - 10..=height]
            .iter()
            .map(|block| block.header.time)
            .collect();
        times.sort_unstable();
        assert_eq!(info["mediantime"], times[5]);
    }
}

#[test]
fn text_bodies_have_no_line_end() {
    let Some((node, _peer, blocks)) = synced() else {
        return;
    };
    let block = &blocks[206];
    let (hash, txid) = (block.block_hash(), block.txdata[0].compute_txid());
    for path in [
        "/blocks/tip/hash".to_owned(),
        "/blocks/tip/height".to_owned(),
        "/block-height/0".to_owned(),
        format!("/block/{hash}/header"),
        format!("/block/{hash}/txid/0"),
        format!("/tx/{txid}/hex"),
        format!("/tx/{txid}/merkleblock-proof"),
    ] {
        let reply = node.get(&path);
        assert_eq!(reply.status, 200, "{path}");
        assert_eq!(reply.content_type.as_deref(), Some("text/plain"), "{path}");
        assert!(!reply.text().contains(char::is_whitespace), "{path}");
    }
}
