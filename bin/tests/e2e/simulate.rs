//! `--simulate`: a living chain without anybody else.

use std::time::Instant;

use bdk_esplora::{EsploraExt, esplora_client::Builder};
use bdk_wallet::{KeychainKind, SignOptions, Wallet};
use pulse_primitives::bitcoin::{
    Amount, FeeRate, Network, Transaction, bip32::Xpriv, consensus::encode::serialize_hex,
};
use pulse_testkit::{NodeOptions, PulseNode};
use serde_json::Value;

use super::common::DEADLINE;

/// The wallet that the README opens.
const KEY: &str = "tprv8ZgxMBicQKsPcu8PNvCC4FnKz4t5N5SMq6dsKdqm1QVTyTp8hyRJ6VUAsUxnBQD6iJSNEmad9wcpcwswaqfUioBnvrnrtRSDrx4GWnKwtqt";

fn simulated() -> NodeOptions {
    NodeOptions::new(env!("CARGO_BIN_EXE_pulse-node"))
        .args(["--simulate"])
        .env("PULSE_NODE__SIMULATE_INTERVAL_SECS", "1")
}

fn wait_for_height(node: &mut PulseNode, height: u32) {
    node.wait_until("the chain grows", DEADLINE, |node| {
        node.get("/health").status == 200 && node.tip_height() >= Some(height)
    });
}

#[test]
fn the_chain_lives_and_goes_on_after_a_restart_and_a_kill() {
    let mut node = simulated().start();
    wait_for_height(&mut node, 132);
    let hash = node.get("/block-height/132").text().to_owned();
    let txs: Vec<Value> = node.get_json(&format!("/block/{hash}/txs"));
    assert!(txs.len() > 5, "blocks carry transactions");
    for tx in &txs[1..] {
        assert!(tx["fee"].as_u64().unwrap() > 0);
        let vin = &tx["vin"][0];
        let (parent, vout) = (vin["txid"].as_str().unwrap(), vin["vout"].as_u64().unwrap());
        let spend: Value = node.get_json(&format!("/tx/{parent}/outspend/{vout}"));
        assert_eq!(spend["spent"], true);
        assert_eq!(spend["txid"], tx["txid"]);
        assert_eq!(spend["vin"], 0);
    }
    let exit = node.terminate(DEADLINE);
    assert!(exit.status.success(), "{}", exit.stderr);
    let mut node = node.restart();
    wait_for_height(&mut node, 134);
    assert_eq!(node.get("/block-height/132").text(), hash);
    node.kill();
    let mut node = node.restart();
    wait_for_height(&mut node, 136);
}

/// A payment of the README's wallet to itself, once it has coins.
fn payment(node: &PulseNode) -> Option<Transaction> {
    let chain = |chain: u32| format!("wpkh({KEY}/84'/1'/0'/{chain}/*)");
    let mut wallet = Wallet::create(chain(0), chain(1))
        .network(Network::Regtest)
        .create_wallet_no_persist()
        .unwrap();
    let client = Builder::new(&node.api_url()).build_blocking();
    let update = client.full_scan(wallet.start_full_scan(), 20, 4).unwrap();
    wallet.apply_update(update).unwrap();
    let to = wallet.next_unused_address(KeychainKind::External);
    let mut builder = wallet.build_tx();
    builder
        .add_recipient(to.script_pubkey(), Amount::from_sat(20_000))
        .fee_rate(FeeRate::from_sat_per_vb(20).unwrap());
    let mut psbt = builder.finish().ok()?;
    let key: Xpriv = KEY.parse().unwrap();
    psbt.sign(&key, wallet.secp_ctx()).unwrap();
    assert!(
        wallet
            .finalize_psbt(&mut psbt, SignOptions::default())
            .unwrap()
    );
    Some(psbt.extract_tx().unwrap())
}

#[test]
fn a_transaction_that_a_user_posts_is_mined() {
    let options = simulated().env("PULSE_NODE__SIMULATE_INTERVAL_SECS", "2");
    let mut node = options.start();
    wait_for_height(&mut node, 131);
    // The wallet need not have coins in the first blocks.
    let deadline = Instant::now() + 2 * DEADLINE;
    let txid = loop {
        assert!(Instant::now() < deadline, "no payment was accepted");
        // Just after a block there is time to look before the next one.
        let height = node.tip_height().unwrap();
        wait_for_height(&mut node, height + 1);
        let Some(tx) = payment(&node) else { continue };
        // The chain's own wallets may spend the same coin first.
        if node.post("/tx", &serialize_hex(&tx)).status == 200 {
            break tx.compute_txid();
        }
    };
    let status = |node: &PulseNode| node.get_json::<Value>(&format!("/tx/{txid}/status"));
    assert_eq!(status(&node)["confirmed"], false);
    node.wait_until("the payment is mined", DEADLINE, |node| {
        status(node)["confirmed"] == true
    });
    let confirmed = status(&node);
    assert!(node.terminate(DEADLINE).status.success());
    let mut node = node.restart();
    let height = node.tip_height().unwrap();
    wait_for_height(&mut node, height + 2);
    assert_eq!(status(&node), confirmed);
}

#[test]
fn a_directory_that_is_not_simulated_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let binary = env!("CARGO_BIN_EXE_pulse-node");
    let mut node = NodeOptions::new(binary)
        .network("regtest")
        .data_dir(dir.path())
        .start();
    assert!(node.terminate(DEADLINE).status.success());
    let exit = simulated().data_dir(dir.path()).run_to_exit(DEADLINE);
    assert!(!exit.status.success());
    assert!(
        exit.stderr.contains("pulse-node: error: "),
        "{}",
        exit.stderr
    );
}
