//! `--simulate`: a living chain without anybody else.

use pulse_testkit::{NodeOptions, PulseNode};
use serde_json::Value;

use super::common::DEADLINE;

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
