//! The set of unspent outputs of real chains, against what Bitcoin Core printed of it.

use std::sync::{Arc, atomic::AtomicBool};

use pulse_primitives::{bitcoin::Network, network::ChainParams, ports::BlockSource};
use serde_json::Value;

use super::{
    Fixture, check_utxos, config,
    golden::{chaindata, frames},
    memchain::{Coins, MemChain, connect_raw},
    scratch_dir,
};
use crate::CoreStats;

const GOLDEN: &str = "golden/core-utxo-stats.json";

/// An index over a chain that starts with the genesis of `network`.
fn fixture(network: Network, dir: &tempfile::TempDir) -> Fixture {
    let params = ChainParams::new(network, None);
    let chain = Arc::new(MemChain::new(&params));
    Fixture::open_with(dir.path(), chain, &config(), &params)
}

fn connect(fixture: &Fixture, blocks: &[Vec<u8>]) {
    let mut coins: Coins = fixture.chain.coins();
    for block in blocks {
        connect_raw(&fixture.chain, &mut coins, block);
    }
}

/// Indexes up to `height` and computes Core's numbers.
fn stats(fixture: &mut Fixture, height: u32) -> CoreStats {
    fixture.chain.show(height);
    fixture.chain.set_best_header(height);
    fixture.catch_up().unwrap();
    check_utxos_at(fixture, height);
    let temporary = scratch_dir();
    let source = Arc::clone(&fixture.chain) as Arc<dyn BlockSource>;
    let sorted_in = temporary.path().join("sorted");
    let stop = AtomicBool::new(false);
    let mut last = None;
    let stats = fixture
        .index
        .core_stats(&*source, Some(&sorted_in), &stop, &mut |height| {
            last = Some(height);
        });
    assert_eq!(last, Some(height));
    assert!(!sorted_in.exists(), "temporary files are gone");
    stats.unwrap().unwrap()
}

fn check_utxos_at(fixture: &Fixture, height: u32) {
    if height as usize + 1 == fixture.chain.active().len() {
        check_utxos(fixture);
    }
}

/// Compares with an entry of the golden file, as far as that goes.
fn check(stats: &CoreStats, golden: &Value) {
    assert_eq!(stats.txouts, golden["txouts"].as_u64().unwrap());
    let coins = golden["total_amount"]
        .as_str()
        .unwrap()
        .parse::<f64>()
        .unwrap();
    assert_eq!(stats.total_sats, (coins * 1e8).round() as u64);
    for (key, value) in [
        ("muhash", Some(&stats.muhash)),
        ("hash_serialized_3", stats.hash_serialized.as_ref()),
    ] {
        if let Some(expected) = golden[key].as_str() {
            assert_eq!(value.unwrap(), expected, "{key}");
        }
    }
}

/// Checks each height that the golden file lists.
fn check_heights(fixture: &mut Fixture, golden: &Value) {
    let listed = golden["utxo_stats"].as_array().unwrap();
    assert!(!listed.is_empty());
    for entry in listed {
        let height = entry["height"].as_u64().unwrap() as u32;
        let stats = stats(fixture, height);
        check(&stats, entry);
        if golden["tip"] == entry["height"] {
            let expected = golden["hash_serialized_3"].as_str().unwrap();
            assert_eq!(stats.hash_serialized.unwrap(), expected);
        }
    }
}

fn golden(key: &str) -> Option<Value> {
    let golden = serde_json::from_slice::<Value>(&chaindata(GOLDEN)?).unwrap();
    Some(golden[key].clone())
}

#[test]
fn mainnet_and_a_fork_of_2016_blocks_have_the_sets_of_bitcoin_core() {
    let (Some(run), Some(fork)) = (
        chaindata("runs/mainnet-0-4312.blk.zst"),
        chaindata("runs/mainnet-alt-1-2016.blk.zst"),
    ) else {
        return;
    };
    let dir = scratch_dir();
    let mut fixture = fixture(Network::Bitcoin, &dir);
    connect(&fixture, &frames(&fork));
    let alt = golden("mainnet_alt_1_2016").unwrap();
    check(&stats(&mut fixture, 2016), &alt);
    fixture.chain.disconnect(2016);
    connect(&fixture, &frames(&run)[1..]);
    check_heights(&mut fixture, &golden("mainnet_0_4312").unwrap());
}

#[test]
fn testnet3_has_the_set_of_bitcoin_core() {
    let Some(run) = chaindata("runs/testnet3-0-394.blk.zst") else {
        return;
    };
    let dir = scratch_dir();
    let mut fixture = fixture(Network::Testnet, &dir);
    connect(&fixture, &frames(&run)[1..]);
    check_heights(&mut fixture, &golden("testnet3_0_394").unwrap());
}

#[test]
fn signet_has_the_set_of_bitcoin_core() {
    let Some(run) = chaindata("runs/signet-0-120.blocks.json.zst") else {
        return;
    };
    let run = serde_json::from_slice::<Value>(&run).unwrap();
    let blocks = run.as_array().unwrap()[1..]
        .iter()
        .map(|entry| hex::decode(entry["block"].as_str().unwrap()).unwrap())
        .collect::<Vec<_>>();
    let dir = scratch_dir();
    let mut fixture = fixture(Network::Signet, &dir);
    connect(&fixture, &blocks);
    check(&stats(&mut fixture, 120), &golden("signet_0_120").unwrap());
}

#[test]
fn regtest_has_the_set_of_bitcoin_core() {
    let Some(run) = chaindata("runs/regtest-kernel-1-206.txt") else {
        return;
    };
    let lines = std::str::from_utf8(&run).unwrap().lines();
    let blocks = lines
        .map(|line| hex::decode(line).unwrap())
        .collect::<Vec<_>>();
    let dir = scratch_dir();
    let mut fixture = fixture(Network::Regtest, &dir);
    connect(&fixture, &blocks);
    let golden = golden("regtest_kernel_1_206").unwrap();
    check(&stats(&mut fixture, 206), &golden);
}

#[test]
fn regtest_after_a_reorganisation_has_the_set_of_bitcoin_core() {
    let Some(run) = chaindata("runs/regtest-reorg.json") else {
        return;
    };
    let run = serde_json::from_slice::<Vec<Vec<String>>>(&run).unwrap();
    let [first, second] = run.as_slice() else {
        panic!("two branches");
    };
    let bytes = |blocks: &[String]| -> Vec<Vec<u8>> {
        let blocks = blocks.iter();
        blocks.map(|block| hex::decode(block).unwrap()).collect()
    };
    let dir = scratch_dir();
    let mut fixture = fixture(Network::Regtest, &dir);
    connect(&fixture, &bytes(first));
    stats(&mut fixture, 10);
    fixture.chain.disconnect(5);
    connect(&fixture, &bytes(second));
    let golden = golden("regtest_reorg").unwrap();
    check(&stats(&mut fixture, 16), &golden);
}
