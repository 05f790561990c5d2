//! Every method with its result and its errors.

use pulse_primitives::bitcoin::{
    Block, BlockHash, Network, ScriptBuf, TxMerkleNode, Txid,
    consensus::encode::serialize_hex,
    hashes::{Hash, HashEngine, sha256d},
    merkle_tree::calculate_root,
};
use pulse_testkit::{ChainData, PulseNode, ScriptedPeer};
use serde_json::{Value, json};

use super::{raw::Client, scripthash, synced};

fn regtest() -> Option<(PulseNode, ScriptedPeer, Vec<Block>)> {
    let blocks = ChainData::locate()?.regtest_kernel();
    let (node, peer) = synced("regtest", Network::Regtest, &blocks);
    Some((node, peer, blocks))
}

fn speaking(node: &PulseNode, version: &str) -> Client {
    Client::speaking(node.electrum_addr("tcp").unwrap(), version)
}

#[test]
fn the_server_tells_of_itself() {
    let Some((node, _peer, blocks)) = regtest() else {
        return;
    };
    let mut client = Client::connect(node.electrum_addr("tcp").unwrap());
    let version = client.call("server.version", json!(["x", ["1.4", "1.6"], "more"]));
    let software = format!("pulse-node {}", env!("CARGO_PKG_VERSION"));
    assert_eq!(version, json!([software, "1.6"]));
    assert_eq!(
        client.error("server.version", json!([])),
        (1, "server.version already sent".to_owned())
    );
    assert_eq!(
        client.call("server.features", json!([])),
        json!({
            "genesis_hash": blocks[0].block_hash(), "hosts": {}, "protocol_max": "1.6",
            "protocol_min": "1.4", "pruning": null, "server_version": software,
            "hash_function": "sha256", "broadcast_package": true,
        })
    );
    assert_eq!(
        client.call("server.banner", json!([])),
        format!("Welcome to {software}")
    );
    assert_eq!(client.call("server.donation_address", json!([])), "");
    assert_eq!(client.call("server.peers.subscribe", json!([])), json!([]));
    assert_eq!(client.call("server.add_peer", json!([{}])), false);
    assert_eq!(client.call("server.ping", json!([])), Value::Null);

    let mut old = Client::connect(node.electrum_addr("tcp").unwrap());
    let refused = old.error("server.version", json!(["x", "1.2"]));
    assert_eq!(refused, (1, "unsupported protocol version: 1.2".to_owned()));
    assert_eq!(old.line(), None, "it is disconnected");
}

#[test]
fn requests_that_are_none_have_the_contract_s_errors() {
    let Some((node, _peer, _)) = regtest() else {
        return;
    };
    let mut client = speaking(&node, "1.6");
    for (line, code, message, id) in [
        ("{", -32700, "parse error", json!(null)),
        ("7", -32600, "invalid request", json!(null)),
        (r#"{"id":5}"#, -32600, "invalid request", json!(5)),
        (
            r#"{"id":"a","method":"blockchain.nonsense","params":[]}"#,
            -32601,
            "unknown method blockchain.nonsense",
            json!("a"),
        ),
    ] {
        client.send(&format!("{line}   \n"));
        let answer = client.line().unwrap();
        assert_eq!(
            answer,
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
        );
    }
    // Several at once, padded, and cut anywhere.
    let ping = r#"{"id":1,"method":"server.ping","params":[]}"#;
    client.send(&format!("{ping}     \n\n{}", &ping[..10]));
    client.send(&format!("{}\n[]\n", &ping[10..]));
    let pong = json!({"jsonrpc": "2.0", "id": 1, "result": null});
    assert_eq!(client.line(), Some(pong.clone()));
    assert_eq!(client.line(), Some(pong.clone()));
    assert_eq!(client.line(), Some(json!([])));
    client.send(&format!("[{ping},7,{ping}]\n"));
    let bad = json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32600, "message": "invalid request"}});
    assert_eq!(client.line(), Some(json!([pong, bad, pong])));

    let unused = scripthash(&ScriptBuf::from_bytes(vec![0x52]));
    for (method, params, message) in [
        (
            "blockchain.scripthash.get_balance",
            json!([]),
            "missing scripthash",
        ),
        (
            "blockchain.scripthash.get_history",
            json!(["xy"]),
            "non-hex scripthash",
        ),
        (
            "blockchain.scripthash.listunspent",
            json!([7]),
            "non-hex scripthash",
        ),
        (
            "blockchain.scripthash.subscribe",
            json!([&unused[2..]]),
            "non-hex scripthash",
        ),
        (
            "blockchain.transaction.get",
            json!(["11"]),
            "non-hex tx_hash",
        ),
        (
            "blockchain.transaction.get",
            json!([unused, "x"]),
            "non-boolean verbose",
        ),
        (
            "blockchain.block.header",
            json!([-1]),
            "height is not a non-negative integer",
        ),
        ("blockchain.block.headers", json!([0]), "missing count"),
        ("blockchain.estimatefee", json!([]), "missing number"),
        ("blockchain.estimatefee", json!([2, "x"]), "unknown mode"),
        (
            "blockchain.transaction.broadcast",
            json!([7]),
            "non-string raw_tx",
        ),
        (
            "blockchain.transaction.broadcast_package",
            json!([7]),
            "raw_txs is not a list",
        ),
    ] {
        assert_eq!(
            client.error(method, params),
            (-32602, message.to_owned()),
            "{method}"
        );
    }
    let by_name = client.call(
        "blockchain.scripthash.get_balance",
        json!({"scripthash": unused}),
    );
    assert_eq!(by_name, json!({"confirmed": 0, "unconfirmed": 0}));
    assert_eq!(
        client.call("blockchain.scripthash.get_history", json!([unused])),
        json!([])
    );
    assert_eq!(
        client.call("blockchain.scripthash.subscribe", json!([unused])),
        Value::Null
    );
    assert_eq!(
        client.call("blockchain.scripthash.unsubscribe", json!([unused])),
        true
    );
    assert_eq!(
        client.call("blockchain.scripthash.unsubscribe", json!([unused])),
        false
    );
    assert_eq!(
        client.call("blockchain.scripthash.get_first_use", json!([unused])),
        Value::Null
    );
}

#[test]
fn headers_come_alone_in_rows_and_with_proofs() {
    let Some((node, _peer, blocks)) = regtest() else {
        return;
    };
    let (mut old, mut new) = (speaking(&node, "1.4"), speaking(&node, "1.6"));
    let hex = |height: usize| serialize_hex(&blocks[height].header);
    let tip = json!({"height": 206, "hex": hex(206)});
    assert_eq!(new.call("blockchain.headers.subscribe", json!([])), tip);
    assert_eq!(new.call("blockchain.headers.get_tip", json!([])), tip);
    assert_eq!(new.call("blockchain.headers.unsubscribe", json!([])), true);
    assert_eq!(new.call("blockchain.block.header", json!([0])), hex(0));
    let by_hash = new.call("blockchain.header.get", json!([blocks[7].block_hash()]));
    assert_eq!(by_hash, json!({"height": 7, "hex": hex(7)}));
    assert_eq!(
        new.error("blockchain.block.header", json!([207])),
        (1, "height 207 out of range".to_owned())
    );
    let row = old.call("blockchain.block.headers", json!([204, 10]));
    let joined: String = (204..=206).map(hex).collect();
    assert_eq!(row, json!({"count": 3, "hex": joined, "max": 2016}));
    let row = new.call("blockchain.block.headers", json!([204, 2]));
    let list: Vec<String> = (204..=205).map(hex).collect();
    assert_eq!(row, json!({"count": 2, "headers": list, "max": 2016}));
    let empty = new.call("blockchain.block.headers", json!([300, 2]));
    assert_eq!(empty, json!({"count": 0, "headers": [], "max": 2016}));
    let empty = old.call("blockchain.block.headers", json!([300, 2]));
    assert_eq!(empty, json!({"count": 0, "hex": "", "max": 2016}));

    let root = |cp: usize| {
        let hashes = blocks[..=cp]
            .iter()
            .map(|block| block.block_hash().to_raw_hash());
        calculate_root(hashes).unwrap()
    };
    for (height, cp) in [(0, 1), (5, 8), (8, 8), (100, 206), (206, 206)] {
        let proof = new.call("blockchain.block.header", json!([height, cp]));
        assert_eq!(proof["header"], hex(height));
        assert_eq!(proof["root"], root(cp).to_string());
        let leaf = blocks[height].block_hash().to_raw_hash();
        assert_eq!(climb(leaf, height, &proof["branch"]), root(cp));
    }
    let row = new.call("blockchain.block.headers", json!([3, 4, 100]));
    let last = blocks[6].block_hash().to_raw_hash();
    assert_eq!(climb(last, 6, &row["branch"]), root(100));
    for (height, cp) in [(9, 8), (9, 207)] {
        let error = new.error("blockchain.block.header", json!([height, cp]));
        let text = format!(
            "header height {height} must be <= cp_height {cp} which must be <= chain height 206"
        );
        assert_eq!(error, (1, text));
    }
}

/// Where a branch leads to.
fn climb(leaf: sha256d::Hash, mut index: usize, branch: &Value) -> sha256d::Hash {
    let mut node = leaf;
    for sibling in branch.as_array().unwrap() {
        let sibling: BlockHash = sibling.as_str().unwrap().parse().unwrap();
        let mut engine = sha256d::Hash::engine();
        let pair = match index % 2 {
            0 => [node, sibling.to_raw_hash()],
            _ => [sibling.to_raw_hash(), node],
        };
        for half in pair {
            engine.input(half.as_byte_array());
        }
        node = sha256d::Hash::from_engine(engine);
        index /= 2;
    }
    node
}

#[test]
fn transactions_come_as_bytes_in_detail_and_with_proofs() {
    let Some((node, _peer, blocks)) = regtest() else {
        return;
    };
    let mut client = speaking(&node, "1.6");
    let (height, block) = blocks
        .iter()
        .enumerate()
        .find(|(_, block)| block.txdata.len() > 2)
        .expect("the run has such a block");
    for (pos, tx) in block.txdata.iter().enumerate() {
        let txid = tx.compute_txid();
        let get = |verbose: Value| json!([txid, verbose]);
        assert_eq!(
            client.call("blockchain.transaction.get", get(json!(false))),
            serialize_hex(tx)
        );
        let detail = client.call("blockchain.transaction.get", get(json!(true)));
        assert_eq!(detail["txid"], txid.to_string());
        assert_eq!(detail["hash"], tx.compute_wtxid().to_string());
        assert_eq!(detail["hex"], serialize_hex(tx));
        assert_eq!(detail["blockhash"], block.block_hash().to_string());
        assert_eq!(detail["confirmations"], 206 - height + 1);
        assert_eq!(detail["time"], block.header.time);
        assert_eq!(detail["vsize"], tx.vsize());
        assert_eq!(detail["vout"].as_array().unwrap().len(), tx.output.len());
        for (n, output) in tx.output.iter().enumerate() {
            let found = &detail["vout"][n];
            assert_eq!(found["value"], output.value.to_btc());
            assert_eq!(found["n"], n);
            let hex = output.script_pubkey.to_hex_string();
            assert_eq!(found["scriptPubKey"]["hex"], hex);
        }
        let proof = client.call("blockchain.transaction.get_merkle", json!([txid, height]));
        assert_eq!(
            (&proof["block_height"], &proof["pos"]),
            (&json!(height), &json!(pos))
        );
        let root = climb(txid.to_raw_hash(), pos, &proof["merkle"]);
        assert_eq!(TxMerkleNode::from_raw_hash(root), block.header.merkle_root);
        let id = client.call("blockchain.transaction.id_from_pos", json!([height, pos]));
        assert_eq!(id, txid.to_string());
        let both = client.call(
            "blockchain.transaction.id_from_pos",
            json!([height, pos, true]),
        );
        assert_eq!(both, json!({"tx_hash": txid, "merkle": proof["merkle"]}));
        let found = client.call("blockchain.transaction.get_height", json!([txid]));
        assert_eq!(found, height);
        let wrong = client.error("blockchain.transaction.get_merkle", json!([txid, 1]));
        assert_eq!(wrong, (1, format!("tx {txid} not in block at height 1")));
    }
    let count = block.txdata.len();
    for (params, text) in [
        (
            json!([height, count]),
            format!("no tx at position {count} in block at height {height}"),
        ),
        (json!([207, 0]), "height 207 out of range".to_owned()),
    ] {
        let error = client.error("blockchain.transaction.id_from_pos", params);
        assert_eq!(error, (1, text));
    }
    let unknown = Txid::from_byte_array([0x11; 32]);
    assert_eq!(
        client.error("blockchain.transaction.get", json!([unknown])),
        (2, "No such mempool or blockchain transaction. Use gettransaction for wallet transactions.".to_owned())
    );
    let height = client.call("blockchain.transaction.get_height", json!([unknown]));
    assert_eq!(height, Value::Null);
    let none = "No confirmed transaction matching the requested hash was found";
    assert_eq!(
        client.error(
            "blockchain.transaction.get_confirmed_blockhash",
            json!([unknown])
        ),
        (2, none.to_owned())
    );
    assert_eq!(
        client.call("blockchain.utxo.get_info", json!([unknown, 0])),
        Value::Null
    );
    let (code, text) = client.error("blockchain.transaction.broadcast", json!(["00"]));
    assert_eq!(code, 1);
    assert!(text.starts_with("the transaction was rejected by network rules.\n\nTX decode failed"));
}

#[test]
fn fees_and_methods_follow_the_version() {
    let Some((node, _peer, _)) = regtest() else {
        return;
    };
    let (mut old, mut new) = (speaking(&node, "1.4.2"), speaking(&node, "1.6"));
    assert_eq!(
        new.call("blockchain.estimatefee", json!([6, "ECONOMICAL"])),
        -1
    );
    assert_eq!(old.call("blockchain.estimatefee", json!([2])), -1);
    assert_eq!(new.call("mempool.get_fee_histogram", json!([])), json!([]));
    assert_eq!(
        new.call("mempool.get_info", json!([])),
        json!({"mempoolminfee": 1e-6, "minrelaytxfee": 1e-6, "incrementalrelayfee": 1e-6})
    );
    assert_eq!(old.call("blockchain.relayfee", json!([])), 1e-6);
    let unknown = |method: &str| (-32601, format!("unknown method {method}"));
    let method = "blockchain.relayfee";
    assert_eq!(new.error(method, json!([])), unknown(method));
    for method in [
        "mempool.get_info",
        "blockchain.transaction.broadcast_package",
    ] {
        assert_eq!(old.error(method, json!([])), unknown(method));
    }
}
