//! Snapshots of a running node and of one that does not run; and what is refused.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use pulse_primitives::bitcoin::{Block, Network};
use pulse_simulator::{Generator, GeneratorConfig};
use pulse_testkit::{Exit, NodeOptions, ScriptedPeer};

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
    }
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
    let file = dir.join("kernel/blocks/blk00000.dat");
    let good = fs::read(&file).unwrap();
    let mut bad = good.clone();
    bad[1000] ^= 1;
    fs::write(&file, bad).unwrap();
    let exit = snapshot("restore", &dir, &target);
    assert!(!exit.status.success() && exit.stderr.contains("kernel/blocks/blk00000.dat"));
    let exit = salted(&peer).data_dir(&target).run_to_exit(DEADLINE);
    assert!(!exit.status.success() && exit.stderr.contains("restore"));
    fs::write(&file, good).unwrap();
    assert!(snapshot("restore", &dir, &target).status.success());
    let mut restored = salted(&peer).data_dir(&target).start();
    restored.wait_synced_to(110, DEADLINE);
}
