//! Wallets by descriptor on real chains: what the golden answers say about the scripts of the
//! keys that the chain shows.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pulse_primitives::bitcoin::{
    Block, Network, PublicKey, ScriptBuf, Transaction, script::Instruction,
};
use pulse_testkit::{ChainData, Golden, GoldenScript, PulseNode, ScriptedPeer};
use serde_json::{Value, json};

use super::common::{DEADLINE, options, scripthash, served};

/// Descriptors in one request.
const AT_ONCE: usize = 20;

/// Keys that the chain shows: in outputs to a key, and in what spends others.
fn keys(blocks: &[Block]) -> BTreeSet<PublicKey> {
    fn pushed(script: &ScriptBuf) -> Vec<Vec<u8>> {
        let pushes = script.instructions().filter_map(|part| match part {
            Ok(Instruction::PushBytes(bytes)) => Some(bytes.as_bytes().to_vec()),
            _ => None,
        });
        pushes.collect()
    }
    let of_tx = |tx: &Transaction| -> Vec<Vec<u8>> {
        let inputs = tx.input.iter().flat_map(|input| {
            let witness = input.witness.iter().map(<[u8]>::to_vec);
            pushed(&input.script_sig).into_iter().chain(witness)
        });
        let outputs = tx
            .output
            .iter()
            .flat_map(|output| pushed(&output.script_pubkey));
        inputs.chain(outputs).collect()
    };
    let candidates = blocks
        .iter()
        .flat_map(|block| &block.txdata)
        .flat_map(of_tx);
    candidates
        .filter(|bytes| matches!(bytes.len(), 33 | 65))
        .filter_map(|bytes| PublicKey::from_slice(&bytes).ok())
        .collect()
}

/// Each way to pay to a key alone, as a descriptor and (by the bitcoin crate) as a script.
fn ways(key: &PublicKey) -> Vec<(String, ScriptBuf)> {
    let mut ways = vec![
        (format!("pk({key})"), ScriptBuf::new_p2pk(key)),
        (
            format!("pkh({key})"),
            ScriptBuf::new_p2pkh(&key.pubkey_hash()),
        ),
    ];
    if let Ok(hash) = key.wpubkey_hash() {
        let script = ScriptBuf::new_p2wpkh(&hash);
        let nested = ScriptBuf::new_p2sh(&script.script_hash());
        ways.push((format!("wpkh({key})"), script));
        ways.push((format!("sh(wpkh({key}))"), nested));
    }
    ways
}

fn post(node: &PulseNode, path: &str, descriptors: &[&str]) -> Value {
    let reply = node.post(path, &json!({"descriptors": descriptors}).to_string());
    assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    reply.json()
}

/// Compares the answers about these descriptors with what is golden about their scripts.
fn compare(
    node: &PulseNode,
    part: &[(String, ScriptBuf)],
    golden: &HashMap<&ScriptBuf, &GoldenScript>,
) {
    let descriptors: Vec<&str> = part.iter().map(|(text, _)| text.as_str()).collect();
    let scripts = || part.iter().map(|(_, script)| golden.get(script).copied());
    let found = post(node, "/descriptors", &descriptors);
    let keychains = found["keychains"].as_array().unwrap();
    assert_eq!(keychains.len(), part.len());
    for (at, ((text, script), golden)) in part.iter().zip(scripts()).enumerate() {
        let keychain = &keychains[at];
        assert_eq!(
            (&keychain["descriptor"], &keychain["branch"]),
            (&json!(at), &json!(0))
        );
        assert_eq!(keychain["next_index"], Value::Null);
        let used = keychain["used"].as_array().unwrap();
        let Some(golden) = golden else {
            assert!(used.is_empty(), "{text}");
            continue;
        };
        let [used] = used.as_slice() else {
            panic!("{text} is used");
        };
        assert_eq!(used["scripthash"], scripthash(script.as_bytes()));
        assert_eq!(
            used["chain_stats"],
            json!({
                "funded_txo_count": golden.funded_txo_count,
                "funded_txo_sum": golden.funded_txo_sum,
                "spent_txo_count": golden.spent_txo_count,
                "spent_txo_sum": golden.spent_txo_sum,
                "tx_count": golden.tx_count,
            }),
            "{text}"
        );
    }
    let utxos = || scripts().flatten().flat_map(|golden| &golden.utxos);
    let balance: u64 = utxos().map(|utxo| utxo.value).sum();
    assert_eq!(
        found["balance"],
        json!({"confirmed": balance, "unconfirmed": 0})
    );

    let found = post(node, "/descriptors/utxo", &descriptors);
    let mut unspent: Vec<_> = (found["utxos"].as_array().unwrap().iter())
        .map(|utxo| {
            let number = |key: &str| utxo[key].as_u64().unwrap();
            (
                utxo["txid"].as_str().unwrap().to_owned(),
                number("vout"),
                number("value"),
                utxo["status"]["block_height"].as_u64().unwrap(),
                number("keychain"),
            )
        })
        .collect();
    let mut wanted = Vec::new();
    for (keychain, golden) in (0..).zip(scripts()) {
        wanted.extend(golden.iter().flat_map(|golden| &golden.utxos).map(|utxo| {
            let height = u64::from(utxo.height);
            (
                utxo.txid.to_string(),
                u64::from(utxo.vout),
                utxo.value,
                height,
                keychain,
            )
        }));
    }
    unspent.sort();
    wanted.sort();
    assert_eq!(unspent, wanted);

    let found = post(node, "/descriptors/txs?limit=1000", &descriptors);
    let txs: Vec<_> = (found["txs"].as_array().unwrap().iter())
        .map(|tx| tx["txid"].as_str().unwrap().to_owned())
        .collect();
    let history: BTreeMap<_, _> = scripts()
        .flatten()
        .flat_map(|golden| &golden.history)
        .map(|(height, position, txid)| ((*height, *position), txid.to_string()))
        .collect();
    let newest_first: Vec<_> = history.into_values().rev().collect();
    assert_eq!(txs, newest_first);
}

/// Compares all ways to pay to `count` keys of the chain, those with the most history.
fn check(name: &str, network: Network, blocks: &[Block], golden: &Golden, count: usize) {
    let scripts: HashMap<_, _> = (golden.scripts.iter())
        .map(|golden| (&golden.script, golden))
        .collect();
    let mut keys: Vec<_> = (keys(blocks).iter())
        .map(|key| {
            let ways = ways(key);
            let found = ways.iter().filter_map(|(_, script)| scripts.get(script));
            let busy: u64 = found
                .map(|golden| golden.tx_count + golden.spent_txo_count)
                .sum();
            (busy, ways)
        })
        .collect();
    keys.sort_by(|one, other| other.cmp(one));
    keys.truncate(count);
    assert!(
        keys.first().is_some_and(|(busy, _)| *busy > 2),
        "keys are used"
    );
    let ways: Vec<_> = keys.into_iter().flat_map(|(_, ways)| ways).collect();
    let used = ways
        .iter()
        .filter(|(_, script)| scripts.contains_key(script));
    assert!(used.count() < ways.len(), "and some ways to pay are not");

    let peer = ScriptedPeer::honest(served(network, blocks));
    let mut node = options(name).connect(peer.addr()).start();
    node.wait_synced_to(golden.tip_height, DEADLINE);
    for part in ways.chunks(AT_ONCE) {
        compare(&node, part, &scripts);
    }
}

#[test]
fn keys_of_the_mainnet_run_have_their_golden_answers() {
    let Some(data) = ChainData::locate() else {
        return;
    };
    let golden = data.golden("mainnet-0-4312");
    check("mainnet", Network::Bitcoin, &data.mainnet(), &golden, 150);
}

#[test]
fn keys_of_the_regtest_run_have_their_golden_answers() {
    let Some(data) = ChainData::locate() else {
        return;
    };
    let golden = data.golden("regtest-kernel-0-206");
    check(
        "regtest",
        Network::Regtest,
        &data.regtest_kernel(),
        &golden,
        60,
    );
}
