//! Snapshots of a running node and of one that does not run; and what is refused.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use pulse_primitives::bitcoin::{Block, Network};
use pulse_simulator::{Generator, GeneratorConfig};
use pulse_testkit::{Exit, NodeOptions, ScriptedPeer};
use serde_json::Value;

use super::common::{DEADLINE, SALT, assert_blocks, digest, options, served};

fn generated(blocks: u32) -> Vec<Block> {
    let mut generator = Generator::new(GeneratorConfig::regtest(7).txs_per_block(6));
    let mut chain = vec![generator.genesis()];
    chain.extend((0..blocks).map(|_| generator.next_block()));
    chain
}

fn salted(peer: &ScriptedPeer) -> NodeOptions {
    options("regtest")
        .env("PULSE_INDEX__SALT", SALT)
        .connect(peer.addr())
}

fn snapshot(command: &str, dir: &Path, data_dir: &Path) -> Exit {
    options("regtest")
        .data_dir(data_dir)
        .args(["snapshot", command, dir.to_str().unwrap()])
        .run_to_exit(DEADLINE)
}

#[test]
fn a_snapshot_of_a_running_node_serves_and_goes_on() {
    let blocks = generated(160);
    let peer = ScriptedPeer::honest(served(Network::Regtest, &blocks[..=130]));
    let mut node = salted(&peer).start();
    node.wait_synced_to(130, DEADLINE);
    let place = tempfile::tempdir().unwrap();
    let (first, second) = (place.path().join("first"), place.path().join("second"));

    // Blocks arrive and answers are asked for meanwhile; none fails.
    let done = AtomicBool::new(false);
    let data_dir = node.data_dir().to_owned();
    thread::scope(|scope| {
        scope.spawn(|| {
            let hash = blocks[100].block_hash();
            while !done.load(Ordering::Relaxed) {
                assert_eq!(node.get("/block-height/100").text(), hash.to_string());
                assert_eq!(node.get(&format!("/block/{hash}/raw")).status, 200);
            }
        });
        scope.spawn(|| peer.push_blocks(&blocks[131..=150]));
        for dir in [&first, &second] {
            let exit = snapshot("create", dir, &data_dir);
            assert!(exit.status.success(), "{}", exit.stderr);
        }
        done.store(true, Ordering::Relaxed);
    });
    let exit = snapshot("create", &first, &data_dir);
    assert!(!exit.status.success() && exit.stderr.contains("exists already"));
    node.wait_synced_to(150, DEADLINE);
    assert!(node.terminate(DEADLINE).status.success());
    let expected = digest("regtest", node.data_dir());
    let offline = place.path().join("offline");
    let exit = snapshot("create", &offline, &data_dir);
    assert!(exit.status.success(), "{}", exit.stderr);

    for (dir, name) in [(&first, "a"), (&offline, "b")] {
        let target = place.path().join(name);
        let exit = snapshot("restore", dir, &target);
        assert!(exit.status.success(), "{}", exit.stderr);
        assert!(!target.join("identity.key").exists());
        let again = snapshot("restore", dir, &target);
        assert!(!again.status.success() && again.stderr.contains("not empty"));
        let mut restored = salted(&peer).data_dir(&target).start();
        restored.wait_synced_to(150, DEADLINE);
        assert_blocks(&restored, &blocks[..=150]);
        assert!(restored.terminate(DEADLINE).status.success());
        assert_eq!(digest("regtest", &target), expected);
        let exit = options("regtest")
            .data_dir(&target)
            .args(["verify"])
            .run_to_exit(DEADLINE);
        assert!(exit.status.success(), "{}{}", exit.stdout, exit.stderr);
        assert!(exit.stdout.lines().any(|line| line == "differences 0"));
    }
    let manifest: Value =
        serde_json::from_slice(&fs::read(first.join("manifest.json")).unwrap()).unwrap();
    let commitment = manifest["snapshot"]["utxo_commitment"].as_str().unwrap();
    assert_eq!(commitment.len(), 64);
}

#[test]
fn a_tampered_snapshot_is_refused_by_name_and_nothing_starts_from_it() {
    let blocks = generated(110);
    let peer = ScriptedPeer::honest(served(Network::Regtest, &blocks));
    let mut node = salted(&peer).start();
    node.wait_synced_to(110, DEADLINE);
    assert!(node.terminate(DEADLINE).status.success());
    let place = tempfile::tempdir().unwrap();
    let (dir, target) = (place.path().join("snapshot"), place.path().join("target"));
    assert!(snapshot("create", &dir, node.data_dir()).status.success());
    let refused = |command: &str, name: &str| {
        let exit = snapshot(command, &dir, &target);
        assert!(
            !exit.status.success() && exit.stderr.contains(name),
            "{}",
            exit.stderr
        );
    };
    // Names, sizes and the manifest are looked at before anything is written.
    let (name, other) = ("kernel/blocks/blk00000.dat", "kernel/blocks/xor.dat");
    let (file, extra) = (dir.join(name), dir.join("index/extra.sst"));
    let good = fs::read(&file).unwrap();
    let write = |path: &Path, bytes: &[u8]| {
        // It may have the node's file for its other name.
        let _ = fs::remove_file(path);
        fs::write(path, bytes).unwrap();
    };
    write(&file, &good[..good.len() - 1]);
    refused("restore", name);
    fs::remove_file(&file).unwrap();
    refused("restore", name);
    write(&file, &good);
    write(&extra, b"extra");
    refused("restore", "index/extra.sst");
    fs::remove_file(&extra).unwrap();
    let saved = fs::read(dir.join(other)).unwrap();
    fs::remove_file(dir.join(other)).unwrap();
    refused("verify", other);
    write(&dir.join(other), &saved);
    let manifest = dir.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    write(
        &manifest,
        text.replace("\"height\": 110", "\"height\": 111")
            .as_bytes(),
    );
    refused("restore", "manifest");
    write(&manifest, text.as_bytes());
    assert!(!target.exists());
    // A changed byte shows when it is read; nothing starts then.
    let mut bad = good.clone();
    bad[1000] ^= 1;
    write(&file, &bad);
    refused("verify", name);
    refused("restore", name);
    let exit = salted(&peer).data_dir(&target).run_to_exit(DEADLINE);
    assert!(!exit.status.success() && exit.stderr.contains("restore"));
    write(&file, &good);
    assert!(snapshot("restore", &dir, &target).status.success());
    let mut restored = salted(&peer).data_dir(&target).start();
    restored.wait_synced_to(110, DEADLINE);
}

#[test]
fn a_killed_create_leaves_no_snapshot_and_an_unharmed_node() {
    let blocks = generated(130);
    let peer = ScriptedPeer::honest(served(Network::Regtest, &blocks));
    let place = tempfile::tempdir().unwrap();
    let mut node = salted(&peer).start();
    node.wait_synced_to(130, DEADLINE);
    let data_dir = node.data_dir().to_owned();
    let dir = place.path().join("snapshot");
    for pause in [5, 20, 60] {
        thread::scope(|scope| {
            let asked = scope.spawn(|| snapshot("create", &dir, &data_dir));
            let partial = dir.with_extension("partial");
            let start = Instant::now();
            while !partial.exists() && !dir.exists() && start.elapsed() < DEADLINE {
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_millis(pause));
            node.kill();
            let exit = asked.join().unwrap();
            // It may have been done before the kill; then it is whole.
            assert_eq!(exit.status.success() || dir.exists(), dir.exists());
        });
        if dir.exists() {
            assert!(snapshot("verify", &dir, &data_dir).status.success());
            fs::remove_dir_all(&dir).unwrap();
        }
        node = node.restart();
        node.wait_synced_to(130, DEADLINE);
    }
    assert_blocks(&node, &blocks);
    let exit = snapshot("create", &dir, &data_dir);
    assert!(exit.status.success(), "{}", exit.stderr);
    assert!(snapshot("verify", &dir, &data_dir).status.success());
    assert!(node.terminate(DEADLINE).status.success());
    let expected = digest("regtest", &data_dir);

    // A killed restore goes on with the same command.
    let target = place.path().join("target");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pulse-node"));
    command
        .args(["--network", "regtest", "--data-dir"])
        .arg(&target);
    command.args(["snapshot", "restore"]).arg(&dir);
    let mut restoring = command.spawn().unwrap();
    let start = Instant::now();
    while !target.join("restore.partial").exists()
        && !target.join("node.json").exists()
        && start.elapsed() < DEADLINE
    {
        thread::sleep(Duration::from_millis(1));
    }
    let _ = restoring.kill();
    restoring.wait().unwrap();
    if !target.join("node.json").exists() {
        let exit = snapshot("restore", &dir, &target);
        assert!(exit.status.success(), "{}", exit.stderr);
    }
    let mut restored = salted(&peer).data_dir(&target).start();
    restored.wait_synced_to(130, DEADLINE);
    assert!(restored.terminate(DEADLINE).status.success());
    assert_eq!(digest("regtest", &target), expected);
}
