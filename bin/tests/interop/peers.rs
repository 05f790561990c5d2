//! Bitcoin Core as the only peer: blocks, transactions and reorganisations both ways.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use pulse_primitives::bitcoin::{BlockHash, Transaction, consensus::encode::serialize_hex};
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

fn wait_in_mempool(node: &PulseNode, txs: &[Transaction]) {
    let deadline = Instant::now() + DEADLINE;
    for tx in txs {
        let path = format!("/tx/{}", tx.compute_txid());
        while node.get(&path).status != 200 {
            assert!(Instant::now() < deadline, "{path}: {}", node.log_tail());
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn wait_in_core(bitcoind: &Bitcoind, txs: &[Transaction]) {
    for tx in txs {
        let txid = tx.compute_txid().to_string();
        bitcoind.wait_until(DEADLINE, "the transaction", |node| {
            node.try_call("getmempoolentry", &json!([txid])).is_ok()
        });
    }
}

fn send_to_core(bitcoind: &Bitcoind, txs: &[Transaction]) {
    for tx in txs {
        let _ = bitcoind.call("sendrawtransaction", &json!([serialize_hex(tx), 0]));
    }
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
    // Later ones build upon earlier ones, wherever those were handed in.
    let (theirs, ours) = txs.split_at(txs.len() / 2);
    send_to_core(&bitcoind, theirs);
    wait_in_mempool(&node, theirs);
    for tx in ours {
        let reply = node.post("/tx", &serialize_hex(tx));
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    wait_in_core(&bitcoind, ours);
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
    // Peers are asked for compact blocks at once after they were first with a block.
    for _ in 0..2 {
        let tip = mine(&bitcoind, 1);
        node.wait_synced_to_hash(tip, DEADLINE);
        second.wait_for_tip(tip, DEADLINE);
    }
    let txs = txgen.prelude();
    send_to_core(&bitcoind, &txs);
    wait_in_core(&second, &txs);
    let full = block_bytes(&bitcoind, &second);
    let tip = mine(&bitcoind, 1);
    node.wait_synced_to_hash(tip, DEADLINE);
    second.wait_for_tip(tip, DEADLINE);
    let block = bitcoind.call("getblock", &json!([tip.to_string()]));
    assert_eq!(block["nTx"], txs.len() + 1);
    assert_eq!(block_bytes(&bitcoind, &second), full, "it came in full");
    let sent = &only_peer(&bitcoind)["bytessent_per_msg"]["cmpctblock"];
    assert!(sent.as_u64() > Some(0), "{}", only_peer(&bitcoind));
    let got = &only_peer(&second)["bytesrecv_per_msg"]["cmpctblock"];
    assert!(got.as_u64() > Some(0), "{}", only_peer(&second));
}

/// Bytes of whole blocks, and of transactions that compact ones lacked, that `from` has
/// sent and `to` has received.
fn block_bytes(from: &Bitcoind, to: &Bitcoind) -> [Value; 4] {
    let (from, to) = (only_peer(from), only_peer(to));
    let (sent, got) = (&from["bytessent_per_msg"], &to["bytesrecv_per_msg"]);
    [
        &sent["block"],
        &sent["blocktxn"],
        &got["block"],
        &got["blocktxn"],
    ]
    .map(Value::clone)
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
    send_to_core(&bitcoind, &txs);
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
    wait_in_mempool(&node, &txs);
}
