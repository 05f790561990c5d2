//! Starting, stopping, and being refused.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
};

use pulse_primitives::bitcoin::Network;
use pulse_testkit::{ChainBuilder, ChainData, NodeOptions, ScriptedPeer};

use super::common::{DEADLINE, assert_blocks, options, params, served, start};

fn refused(options: NodeOptions, words: &[&str]) {
    let exit = options.run_to_exit(DEADLINE);
    assert!(!exit.status.success());
    let errors: Vec<&str> = exit
        .stderr
        .lines()
        .filter(|line| line.starts_with("pulse-node: error: "))
        .collect();
    assert_eq!(errors.len(), 1, "{}", exit.stderr);
    for word in words {
        assert!(errors[0].contains(word), "{word:?} in {}", errors[0]);
    }
}

#[test]
fn what_makes_no_sense_stops_the_start_with_one_line() {
    refused(
        options("regtest").args(["--http-addr", "nonsense"]),
        &["nonsense"],
    );
    refused(options("main"), &["main"]);
    refused(
        options("regtest").args(["--connect", "host:port"]),
        &["host:port"],
    );
    refused(options("regtest").args(["--nonsense"]), &["--nonsense"]);
    refused(options("mainnet").args(["--simulate"]), &["regtest"]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, "[http]\nadress = \"127.0.0.1:1\"\n").unwrap();
    let path = file.to_str().unwrap();
    refused(
        options("regtest").args(["--config", path]),
        &["adress", "config.toml"],
    );
}

#[test]
fn a_taken_port_stops_the_start() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    refused(
        options("regtest").args(["--http-addr", &addr]),
        &["http.addr", &addr],
    );
}

#[test]
fn a_directory_in_use_of_another_network_or_of_somebody_else_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node");
    let mut node = options("regtest").data_dir(&path).start();
    let again = ["--http-addr", "127.0.0.1:0"];
    refused(options("regtest").data_dir(&path).args(again), &["in use"]);
    assert!(node.terminate(DEADLINE).status.success());
    refused(options("signet").data_dir(&path).args(again), &["regtest"]);
    let foreign = dir.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("thesis.txt"), "mine").unwrap();
    refused(
        options("regtest").data_dir(&foreign).args(again),
        &["foreign"],
    );
    assert_eq!(std::fs::read(foreign.join("thesis.txt")).unwrap(), b"mine");
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mute = dir.path().join("mute");
    let node = env!("CARGO_BIN_EXE_pulse-node");
    let script = format!("#!/bin/sh\nexec '{node}' \"$@\" >/dev/full 2>/dev/full\n");
    fs::write(&mute, script).unwrap();
    fs::set_permissions(&mute, fs::Permissions::from_mode(0o755)).unwrap();
    let mute = || NodeOptions::new(&mute).network("regtest");
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    chain.mine_empty_blocks(30);
    let peer = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
    let mut node = mute()
        .env("PULSE_LOG__FILTER", "debug")
        .connect(peer.addr())
        .start();
    node.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    assert_blocks(&node, chain.blocks());
    assert!(node.terminate(DEADLINE).status.success());
    // How it ends is told by the status.
    let exit = mute().args(["--config", "/none"]).run_to_exit(DEADLINE);
    assert_eq!(exit.status.code(), Some(2));
    fs::write(node.data_dir().join("node.json"), "{").unwrap();
    let exit = mute().data_dir(node.data_dir()).run_to_exit(DEADLINE);
    assert_eq!(exit.status.code(), Some(1));
}

#[test]
fn both_signals_stop_the_node_cleanly() {
    let mut node = start("regtest", &[]);
    assert!(node.terminate(DEADLINE).status.success());
    let mut node = node.restart();
    assert!(node.interrupt(DEADLINE).status.success());
}

#[test]
fn a_node_without_peers_is_alive_but_not_synced_and_says_why() {
    let node = start("regtest", &[]);
    assert_eq!(node.get("/health/live").status, 200);
    let health = node.get("/health");
    assert_eq!(health.status, 503);
    assert!(health.retry_after.is_some());
    assert!(health.text().contains("no peer"), "{}", health.text());
    let script = super::common::scripthash(b"anything");
    for path in [
        format!("/scripthash/{script}"),
        format!("/scripthash/{script}/utxo"),
        format!("/scripthash/{script}/txs"),
        format!("/tx/{script}"),
        format!("/tx/{script}/status"),
        format!("/tx/{script}/outspend/0"),
        format!("/block/{script}"),
    ] {
        let reply = node.get(&path);
        assert_eq!(reply.status, 503, "{path}");
        assert!(reply.retry_after.is_some(), "{path}");
    }
    // Genesis cannot change.
    let hash = node.get("/block-height/0");
    assert_eq!(hash.status, 200);
    assert_eq!(node.get(&format!("/block/{}", hash.text())).status, 200);
}

#[test]
fn metrics_move_to_the_operators_listener_when_there_is_one() {
    let node = options("regtest")
        .args(["--ops-addr", "127.0.0.1:0"])
        .start();
    assert_eq!(node.get("/metrics").status, 404);
    let metrics = node.get_ops("/metrics");
    assert_eq!(metrics.status, 200);
    assert!(metrics.text().contains("pulse_build_info{"));
    assert_eq!(node.get_ops("/health/live").status, 200);
}

#[test]
fn damaged_metadata_is_moved_aside_and_the_node_runs_on() {
    let Some(data) = ChainData::locate() else {
        return;
    };
    let blocks = data.regtest_kernel();
    let peer = ScriptedPeer::honest(served(Network::Regtest, &blocks));
    let mut node = start("regtest", &[peer.addr()]);
    node.wait_synced_to(206, DEADLINE);
    node.kill();
    let meta = node.data_dir().join("meta");
    let mut damaged = 0;
    for entry in std::fs::read_dir(&meta).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes.iter_mut().for_each(|byte| *byte = !*byte);
            bytes.truncate(bytes.len() / 2);
            std::fs::write(&path, bytes).unwrap();
            damaged += 1;
        }
    }
    assert!(damaged > 0);
    let mut node = node.restart();
    node.wait_synced_to(206, DEADLINE);
    let aside = std::fs::read_dir(node.data_dir()).unwrap().any(|entry| {
        let name = entry.unwrap().file_name();
        name.to_string_lossy().starts_with("meta.damaged-")
    });
    assert!(aside, "{}", node.log_tail());
}

#[test]
fn systemd_hears_of_the_start_of_life_and_of_the_stop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let heard = || {
        let mut buffer = [0; 256];
        let count = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..count].to_vec()).unwrap()
    };
    let mut node = options("regtest")
        .env("NOTIFY_SOCKET", path.to_str().unwrap())
        .env("WATCHDOG_USEC", "200000")
        .start_listening();
    assert_eq!(heard().trim(), "READY=1");
    for _ in 0..3 {
        assert_eq!(heard().trim(), "WATCHDOG=1");
    }
    assert!(node.terminate(DEADLINE).status.success());
    let last = std::iter::repeat_with(heard).find(|word| word.trim() != "WATCHDOG=1");
    assert_eq!(last.unwrap().trim(), "STOPPING=1");
}
