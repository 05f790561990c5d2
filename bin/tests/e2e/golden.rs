//! Syncs real chains from a peer and compares every answer with independent ones.

use pulse_primitives::bitcoin::{Block, Network};
use pulse_testkit::{ChainData, Golden, PulseNode, ScriptedPeer};
use serde_json::Value;

use super::common::{DEADLINE, assert_blocks, assert_golden, served, start};

fn sync(name: &str, network: Network, blocks: &[Block]) -> (PulseNode, ScriptedPeer) {
    let peer = ScriptedPeer::honest(served(network, blocks));
    let mut node = start(name, &[peer.addr()]);
    node.wait_synced_to(u32::try_from(blocks.len() - 1).unwrap(), DEADLINE);
    (node, peer)
}

fn check(name: &str, network: Network, blocks: &[Block], golden: &Golden) {
    let (node, _peer) = sync(name, network, blocks);
    assert_golden(&node, golden);
    assert_blocks(&node, blocks);
}

#[test]
fn mainnet_answers_equal_the_golden_ones_for_every_script() {
    let Some(data) = ChainData::locate() else {
        return;
    };
    let golden = data.golden("mainnet-0-4312");
    check("mainnet", Network::Bitcoin, &data.mainnet(), &golden);
}

#[test]
fn testnet3_answers_equal_the_golden_ones_for_every_script() {
    let Some(data) = ChainData::locate() else {
        return;
    };
    let golden = data.golden("testnet3-0-394");
    check("testnet3", Network::Testnet, &data.testnet3(), &golden);
}

#[test]
fn regtest_answers_equal_the_golden_ones_for_every_script() {
    let Some(data) = ChainData::locate() else {
        return;
    };
    let golden = data.golden("regtest-kernel-0-206");
    check("regtest", Network::Regtest, &data.regtest_kernel(), &golden);
}

#[test]
fn the_default_signet_syncs() {
    let Some(data) = ChainData::locate() else {
        return;
    };
    let blocks = data.signet();
    let (node, _peer) = sync("signet", Network::Signet, &blocks);
    assert_blocks(&node, &blocks);
}

#[test]
fn sizes_weights_and_fees_equal_core_s_block_statistics() {
    let Some(data) = ChainData::locate() else {
        return;
    };
    let (blocks, stats) = data.regtest_stats();
    let (node, _peer) = sync("regtest", Network::Regtest, &blocks);
    assert!(!stats.is_empty());
    for stat in stats {
        let hash = stat["blockhash"].as_str().unwrap();
        let info: Value = node.get_json(&format!("/block/{hash}"));
        assert_eq!(info["height"], stat["height"]);
        assert_eq!(info["tx_count"], stat["txs"]);
        assert_eq!(info["mediantime"], stat["mediantime"]);
        assert_eq!(info["timestamp"], stat["time"]);
        let txs: Vec<Value> = node.get_json(&format!("/block/{hash}/txs"));
        let sum = |key: &str| -> u64 { txs[1..].iter().map(|tx| tx[key].as_u64().unwrap()).sum() };
        // Core counts all but the coinbase.
        assert_eq!(sum("fee"), stat["totalfee"].as_u64().unwrap());
        assert_eq!(sum("size"), stat["total_size"].as_u64().unwrap());
        assert_eq!(sum("weight"), stat["total_weight"].as_u64().unwrap());
    }
}
