//! Bitcoin Core on the other side, by hand: `BITCOIND=/path/to/bitcoind cargo test
//! --release -p pulse-node --test sync -- --ignored bitcoind`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use pulse_primitives::{
    bitcoin::{
        Block, BlockHash, Transaction, Work,
        consensus::{
            encode::{deserialize_hex, serialize_hex},
            serialize,
        },
    },
    network::ChainParams,
    ports::NodeStatus,
};
use pulse_testkit::Bitcoind;
use serde_json::{Value, json};
use tokio::task::{block_in_place, spawn_blocking};

use crate::{
    common::{Node, branch, config, mine, regtest, remine, tip_header},
    compact::{Seen, now, spend},
};

/// Anyone can spend it, and every regtest node can mine for it.
const DESCRIPTOR: &str = "raw(51)#8lvh9jxk";
const PATIENCE: Duration = Duration::from_secs(60);

async fn start(args: &'static [&'static str]) -> Bitcoind {
    spawn_blocking(move || Bitcoind::start(args)).await.unwrap()
}

fn call(core: &Bitcoind, method: &str, params: Value) -> Value {
    block_in_place(|| core.call(method, &params))
}

/// Mines at Core; the blocks.
fn generate(core: &Bitcoind, count: usize) -> Vec<Block> {
    let hashes = call(core, "generatetodescriptor", json!([count, DESCRIPTOR]));
    let hashes = hashes.as_array().unwrap().iter();
    hashes
        .map(|hash| call(core, "getblock", json!([hash, 0])))
        .map(|hex| deserialize_hex(hex.as_str().unwrap()).unwrap())
        .collect()
}

fn tip(core: &Bitcoind) -> BlockHash {
    block_in_place(|| core.tip())
}

fn wait_for_core(core: &Bitcoind, hash: BlockHash) {
    block_in_place(|| core.wait_for_tip(hash, PATIENCE));
}

/// Bytes of a kind of message that Core has sent to, or received from, its only peer.
fn bytes(core: &Bitcoind, direction: &str, command: &str) -> u64 {
    let peers = call(core, "getpeerinfo", json!([]));
    peers[0][direction][command].as_u64().unwrap_or(0)
}

fn connect(core: &Bitcoind, addr: SocketAddr, v2: bool) {
    let params = json!([addr.to_string(), "onetry", v2]);
    let _ = call(core, "addnode", params);
}

/// Regtest where a chain needs the work of that many blocks above genesis.
fn needs(blocks: usize) -> ChainParams {
    let mut params = regtest();
    let one = params.genesis().header.work();
    params.min_chain_work = (0..blocks).fold(one, |sum: Work, _| sum + one);
    params
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs BITCOIND=/path/to/bitcoind"]
async fn bitcoind_is_followed_by_compact_blocks_after_a_presync() {
    let core = start(&["-acceptnonstdtxn=1"]).await;
    let blocks = generate(&core, 2300);
    let mut config = config(&[]);
    config.connect.push(core.p2p_addr().to_string());
    config.headers_timeout_secs = 60;
    config.v2_transport = true;
    let seen = Arc::new(Seen::default());
    let dir = tempfile::tempdir().unwrap();
    let source = Arc::clone(&seen) as _;
    let node = Node::start_with(dir, config, needs(2250), None, source).await;
    node.wait_for_tip(tip(&core)).await;

    // None of its transactions at hand, then all.
    for round in 0..2 {
        let txs: Vec<Transaction> = blocks[10 * round..10 * round + 10]
            .iter()
            .map(spend)
            .collect();
        for tx in &txs {
            let _ = call(&core, "sendrawtransaction", json!([serialize_hex(tx)]));
        }
        if round == 1 {
            seen.0.lock().extend(txs.into_iter().map(Arc::new));
        }
        let asked = bytes(&core, "bytesrecv_per_msg", "getblocktxn");
        let next = generate(&core, 1);
        assert_eq!(next[0].txdata.len(), 11);
        node.wait_for_tip(next[0].block_hash()).await;
        let asks = bytes(&core, "bytesrecv_per_msg", "getblocktxn") > asked;
        assert_eq!(asks, round == 0);
    }
    assert!(bytes(&core, "bytessent_per_msg", "cmpctblock") > 0);
    let peers = call(&core, "getpeerinfo", json!([]));
    assert_eq!(peers[0]["bip152_hb_from"], json!(true));
    assert_eq!(peers[0]["transport_protocol_type"], json!("v2"));
    assert_eq!(node.handle.report().peers_dropped, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs BITCOIND=/path/to/bitcoind"]
async fn bitcoind_syncs_from_us_with_a_presync_and_takes_our_compact_blocks() {
    // 2250 blocks of regtest have the work 2 * 2251.
    let core = start(&["-minimumchainwork=0x1196", "-connect=0"]).await;
    let node = Node::listening(config(&[])).await;
    let mut blocks = branch(&[], 0, 2299, 1);
    let recent = mine(&tip_header(&blocks), 2300, 1);
    blocks.push(remine(recent, Vec::new(), now() - 60));
    for block in &blocks {
        node.handle.submit_local(serialize(block)).await.unwrap();
    }
    for v2 in [false, true] {
        connect(&core, node.addr.unwrap(), v2);
        let height = u32::try_from(blocks.len()).unwrap();
        wait_for_core(&core, blocks[height as usize - 1].block_hash());
        // The first new block makes us one of those that announce at once.
        for round in 1..=3 {
            let next = mine(&tip_header(&blocks), height + round, 1);
            let txs = vec![spend(&blocks[(height + round) as usize - 2300])];
            let next = remine(next, txs, now() - 30);
            node.handle.submit_local(serialize(&next)).await.unwrap();
            wait_for_core(&core, next.block_hash());
            blocks.push(next);
        }
        assert!(bytes(&core, "bytesrecv_per_msg", "cmpctblock") > 0);
        assert!(bytes(&core, "bytesrecv_per_msg", "blocktxn") > 0);
        let peers = call(&core, "getpeerinfo", json!([]));
        assert_eq!(peers[0]["bip152_hb_to"], json!(true));
        let id = peers[0]["id"].clone();
        let _ = call(&core, "disconnectnode", json!(["", id]));
        block_in_place(|| {
            core.wait_until(PATIENCE, "the end of the connection", |core| {
                core.call("getpeerinfo", &json!([])) == json!([])
            });
        });
    }
    node.stop().await;
}
