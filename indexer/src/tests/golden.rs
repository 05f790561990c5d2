//! Real chains, against answers that another program computed.

use std::{path::PathBuf, sync::Arc};

use pulse_primitives::{
    bitcoin::{Network, consensus::Decodable},
    network::ChainParams,
};
use serde_json::Value;

use super::{
    Fixture, config,
    memchain::{Coins, MemChain, connect_raw},
    scratch_dir,
};
use crate::{IndexConfig, query::model::ScriptStats};

/// A file of the chain data, or `None` (only outside of CI) if it is not there.
#[allow(clippy::print_stderr, reason = "a skipped test must be seen")]
pub(super) fn chaindata(path: &str) -> Option<Vec<u8>> {
    let root = std::env::var_os("PULSE_CHAINDATA").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/chaindata"),
        PathBuf::from,
    );
    let file = root.join(path);
    match std::fs::read(&file) {
        Ok(bytes) if path.ends_with(".zst") => Some(zstd::decode_all(bytes.as_slice()).unwrap()),
        Ok(bytes) => Some(bytes),
        Err(err) => {
            let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!ci, "{}: {err}", file.display());
            eprintln!("skipped: {} is not there", file.display());
            None
        }
    }
}

/// Blocks of a file with blk framing.
pub(super) fn frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut blocks = Vec::new();
    while !bytes.is_empty() {
        bytes = &bytes[4..];
        let len = u32::consensus_decode(&mut bytes).unwrap() as usize;
        blocks.push(bytes[..len].to_vec());
        bytes = &bytes[len..];
    }
    blocks
}

/// Indexes `blocks` (without genesis) and compares every script with the golden file.
fn check(network: Network, blocks: &[Vec<u8>], golden: &[u8]) {
    let params = ChainParams::new(network, None);
    let chain = Arc::new(MemChain::new(&params));
    let mut coins = Coins::new();
    for block in blocks {
        connect_raw(&chain, &mut coins, block);
    }
    let dir = scratch_dir();
    let config = IndexConfig {
        recent_txs: 100,
        undo_blocks: 10,
        ..config()
    };
    let mut fixture = Fixture::open_with(dir.path(), chain, &config, &params);
    fixture.catch_up().unwrap();
    fixture.index.flush().unwrap();
    let view = fixture.query.view().unwrap();

    let mut scripts = 0;
    for line in golden
        .split(|byte| *byte == b'\n')
        .skip(1)
        .filter(|line| !line.is_empty())
    {
        let wanted = serde_json::from_slice::<Value>(line).unwrap();
        let mut hash: [u8; 32] = hex::decode(wanted["scripthash"].as_str().unwrap())
            .unwrap()
            .try_into()
            .unwrap();
        hash.reverse();
        let unspendable = wanted["unspendable"].as_bool().unwrap_or_default();
        let number = |key: &str| wanted[key].as_u64().unwrap();
        let stats = view.script_stats(&hash).unwrap();
        let history = view.script_txs(&hash, None, usize::MAX).unwrap();
        let utxos = view.script_utxos(&hash, usize::MAX).unwrap().unwrap();
        scripts += 1;
        if unspendable {
            assert_eq!(stats, ScriptStats::default());
            assert_eq!((history.len(), utxos.len()), (0, 0));
            continue;
        }
        assert_eq!(stats.tx_count, number("tx_count"));
        assert_eq!(stats.funded_txo_count, number("funded_txo_count"));
        assert_eq!(stats.funded_txo_sum, number("funded_txo_sum"));
        assert_eq!(stats.spent_txo_count, number("spent_txo_count"));
        assert_eq!(stats.spent_txo_sum, number("spent_txo_sum"));
        let history = history
            .iter()
            .rev()
            .map(|tx| {
                let proof = view.merkle_proof(&tx.txid).unwrap().unwrap();
                Value::from(vec![
                    Value::from(tx.block.height),
                    Value::from(proof.pos),
                    Value::from(tx.txid.to_string()),
                ])
            })
            .collect::<Vec<_>>();
        assert_eq!(wanted["history"], Value::from(history));
        let mut utxos = utxos
            .iter()
            .map(|utxo| {
                vec![
                    Value::from(utxo.outpoint.txid.to_string()),
                    Value::from(utxo.outpoint.vout),
                    Value::from(utxo.value),
                    Value::from(utxo.block.height),
                ]
            })
            .map(Value::from)
            .collect::<Vec<_>>();
        let mut golden_utxos = wanted["utxos"].as_array().unwrap().clone();
        golden_utxos.sort_by_key(Value::to_string);
        utxos.sort_by_key(Value::to_string);
        assert_eq!(golden_utxos, utxos);
    }
    assert!(scripts > 20, "the golden file has {scripts} scripts");
}

#[test]
fn mainnet_to_4312_equals_the_golden_answers() {
    let (Some(run), Some(golden)) = (
        chaindata("runs/mainnet-0-4312.blk.zst"),
        chaindata("golden/scripthash-mainnet-0-4312.jsonl.zst"),
    ) else {
        return;
    };
    check(Network::Bitcoin, &frames(&run)[1..], &golden);
}

#[test]
fn testnet3_to_394_equals_the_golden_answers() {
    let (Some(run), Some(golden)) = (
        chaindata("runs/testnet3-0-394.blk.zst"),
        chaindata("golden/scripthash-testnet3-0-394.jsonl.zst"),
    ) else {
        return;
    };
    check(Network::Testnet, &frames(&run)[1..], &golden);
}

#[test]
fn regtest_with_segwit_equals_the_golden_answers() {
    let (Some(run), Some(golden)) = (
        chaindata("runs/regtest-kernel-1-206.txt"),
        chaindata("golden/scripthash-regtest-kernel-0-206.jsonl.zst"),
    ) else {
        return;
    };
    let lines = std::str::from_utf8(&run).unwrap().lines();
    let blocks = lines
        .map(|line| hex::decode(line).unwrap())
        .collect::<Vec<_>>();
    check(Network::Regtest, &blocks, &golden);
}
