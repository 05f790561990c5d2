//! Bitcoin Core as the only peer: blocks, transactions and reorganisations both ways.

use std::{net::SocketAddr, time::Duration};

use pulse_primitives::bitcoin::{BlockHash, consensus::encode::serialize_hex};
use pulse_testkit::{Bitcoind, ChainBuilder, PulseNode, ScriptedPeer, ServedChain, TxGen};
use serde_json::{Value, json};

use super::chain;
use crate::e2e::common::{DEADLINE, options};

/// Someone to mine for, whose address every regtest node knows.
const DESCRIPTOR: &str = "raw(51)#8lvh9jxk";

fn bitcoind_with(chain: &ChainBuilder, args: &[&str]) -> Bitcoind {
    let bitcoind = Bitcoind::start(args);
    for block in &chain.blocks()[1..] {
        assert_eq!(bitcoind.submit_block(block), None);
    }
    bitcoind
}

/// A node that follows `bitcoind`.
fn follow(bitcoind: &Bitcoind, args: &[&str]) -> PulseNode {
    let mut node = options("regtest")
        .connect(bitcoind.p2p_addr())
        .args(args.iter().copied())
        .start();
    node.wait_synced_to_hash(bitcoind.tip(), DEADLINE);
    node
}

/// A node with the blocks of `chain`, which others can connect to.
fn listening(chain: &ChainBuilder) -> (ScriptedPeer, PulseNode) {
    let served = ServedChain::from_blocks(chain.params(), chain.blocks());
    let peer = ScriptedPeer::honest(served);
    let mut node = options("regtest")
        .connect(peer.addr())
        .args(["--listen", "127.0.0.1:0"])
        .start();
    node.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    (peer, node)
}

fn connect(bitcoind: &Bitcoind, addr: SocketAddr, v2: bool) {
    let _ = bitcoind.call("addnode", &json!([addr.to_string(), "add", v2]));
}

fn mine(bitcoind: &Bitcoind, count: u32) -> BlockHash {
    let hashes = bitcoind.call("generatetodescriptor", &json!([count, DESCRIPTOR]));
    hashes
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

fn only_peer(bitcoind: &Bitcoind) -> Value {
    let peers = bitcoind.call("getpeerinfo", &json!([]));
    peers
        .as_array()
        .unwrap()
        .last()
        .cloned()
        .unwrap_or(Value::Null)
}

fn wait_in_mempool(node: &PulseNode, txid: &str) {
    let deadline = std::time::Instant::now() + DEADLINE;
    while node.get(&format!("/tx/{txid}")).status != 200 {
        assert!(std::time::Instant::now() < deadline, "{}", node.log_tail());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn wait_in_core(bitcoind: &Bitcoind, txid: &str) {
    bitcoind.wait_until(DEADLINE, "the transaction", |node| {
        node.try_call("getmempoolentry", &json!([txid])).is_ok()
    });
}

#[test]
#[ignore = "needs BITCOIND=/path/to/bitcoind"]
fn the_node_syncs_from_bitcoin_core_over_v2_and_v1() {
    let (chain, _) = chain::funded(1, 2);
    let bitcoind = bitcoind_with(&chain, &[]);
    let node = follow(&bitcoind, &[]);
    assert_eq!(only_peer(&bitcoind)["transport_protocol_type"], "v2");
    drop(node);
    let old = bitcoind_with(&chain, &["-v2transport=0"]);
    let _node = follow(&old, &[]);
    assert_eq!(only_peer(&old)["transport_protocol_type"], "v1");
}

#[test]
#[ignore = "needs BITCOIND=/path/to/bitcoind"]
fn bitcoin_core_syncs_from_the_node_over_v2_and_v1() {
    let (chain, _) = chain::funded(1, 2);
    let (_peer, node) = listening(&chain);
    for v2 in [true, false] {
        let bitcoind = Bitcoind::start(&[]);
        connect(&bitcoind, node.p2p_addr().unwrap(), v2);
        bitcoind.wait_for_tip(chain.tip_hash(), DEADLINE);
        let transport = if v2 { "v2" } else { "v1" };
        assert_eq!(only_peer(&bitcoind)["transport_protocol_type"], transport);
    }
}

#[test]
#[ignore = "needs BITCOIND=/path/to/bitcoind"]
fn transactions_are_relayed_both_ways() {
    let (chain, mut txgen) = chain::funded(2, 10);
    let bitcoind = bitcoind_with(&chain, &[]);
    let node = follow(&bitcoind, &[]);
    let txs = txgen.prelude();
    for (number, tx) in txs.iter().enumerate() {
        let (hex, txid) = (serialize_hex(tx), tx.compute_txid().to_string());
        if number % 2 == 0 {
            let reply = node.post("/tx", &hex);
            assert_eq!(reply.status, 200, "{}", reply.text());
        } else if let Err(err) = bitcoind.try_call("sendrawtransaction", &json!([hex, 0])) {
            // It builds upon one that is still on its way.
            assert!(err.message.contains("missingorspent"), "{err}");
            wait_in_core(&bitcoind, &tx.input[0].previous_output.txid.to_string());
            let _ = bitcoind.call("sendrawtransaction", &json!([hex, 0]));
        }
        if number % 2 == 1 {
            wait_in_mempool(&node, &txid);
        }
    }
    for tx in &txs {
        let txid = tx.compute_txid().to_string();
        wait_in_core(&bitcoind, &txid);
        wait_in_mempool(&node, &txid);
    }
}

#[test]
#[ignore = "needs BITCOIND=/path/to/bitcoind"]
fn compact_blocks_come_and_go() {
    let (chain, mut txgen) = chain::funded(3, 10);
    let bitcoind = bitcoind_with(&chain, &[]);
    let mut node = follow(&bitcoind, &["--listen", "127.0.0.1:0"]);
    let second = Bitcoind::start(&[]);
    connect(&second, node.p2p_addr().unwrap(), true);
    second.wait_for_tip(chain.tip_hash(), DEADLINE);
    for tx in txgen.prelude() {
        let _ = bitcoind.call("sendrawtransaction", &json!([serialize_hex(&tx), 0]));
        wait_in_core(&second, &tx.compute_txid().to_string());
    }
    for _ in 0..5 {
        let tip = mine(&bitcoind, 1);
        node.wait_synced_to_hash(tip, DEADLINE);
        second.wait_for_tip(tip, DEADLINE);
    }
    let sent = &only_peer(&bitcoind)["bytessent_per_msg"]["cmpctblock"];
    assert!(sent.as_u64() > Some(0), "{}", only_peer(&bitcoind));
    let got = &only_peer(&second)["bytesrecv_per_msg"]["cmpctblock"];
    assert!(got.as_u64() > Some(0), "{}", only_peer(&second));
}

#[test]
#[ignore = "needs BITCOIND=/path/to/bitcoind"]
fn reorganisations_are_followed_both_ways() {
    let (chain, mut txgen): (ChainBuilder, TxGen) = chain::funded(4, 10);
    let bitcoind = bitcoind_with(&chain, &[]);
    let mut node = follow(&bitcoind, &["--listen", "127.0.0.1:0"]);
    let second = Bitcoind::start(&[]);
    connect(&second, node.p2p_addr().unwrap(), true);
    second.wait_for_tip(chain.tip_hash(), DEADLINE);
    let txs = txgen.prelude();
    for tx in &txs {
        let _ = bitcoind.call("sendrawtransaction", &json!([serialize_hex(tx), 0]));
    }
    let first = mine(&bitcoind, 1);
    let _ = mine(&bitcoind, 2);
    node.wait_synced_to_hash(bitcoind.tip(), DEADLINE);
    second.wait_for_tip(bitcoind.tip(), DEADLINE);

    // The same height again without the transactions, and one more.
    let _ = bitcoind.call("invalidateblock", &json!([first.to_string()]));
    for _ in 0..4 {
        let _ = bitcoind.call("generateblock", &json!([DESCRIPTOR, []]));
    }
    node.wait_synced_to_hash(bitcoind.tip(), DEADLINE);
    second.wait_for_tip(bitcoind.tip(), DEADLINE);
    for tx in &txs {
        wait_in_mempool(&node, &tx.compute_txid().to_string());
    }
}
