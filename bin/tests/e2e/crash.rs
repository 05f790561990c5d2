//! SIGKILL at any moment, and a kernel that is older than the index.

use std::{fs, path::Path, thread, time::Duration};

use pulse_primitives::bitcoin::{Block, Network};
use pulse_simulator::{Generator, GeneratorConfig};
use pulse_testkit::{AnswerOrder, Behaviour, NodeOptions, PulseNode, ScriptedPeer};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::common::{DEADLINE, SALT, assert_blocks, digest, options, served};

fn generated(blocks: u32, txs: u32) -> Vec<Block> {
    let mut generator = Generator::new(GeneratorConfig::regtest(7).txs_per_block(txs));
    let mut chain = vec![generator.genesis()];
    chain.extend((0..blocks).map(|_| generator.next_block()));
    chain
}

fn salted(peers: &[&ScriptedPeer]) -> NodeOptions {
    peers.iter().fold(
        options("regtest").env("PULSE_INDEX__SALT", SALT),
        |options, peer| options.connect(peer.addr()),
    )
}

/// The digest of a sync that nobody disturbed.
fn undisturbed(peer: &ScriptedPeer, height: u32) -> String {
    let mut node = salted(&[peer]).start();
    node.wait_synced_to(height, DEADLINE);
    assert!(node.terminate(DEADLINE).status.success());
    digest("regtest", node.data_dir())
}

#[test]
fn kills_at_random_points_lose_nothing() {
    const ROUNDS: u32 = 20;
    let blocks = generated(260, 12);
    let height = 260;
    let chain = served(Network::Regtest, &blocks);
    let slow = Behaviour::Delay(Duration::from_millis(4));
    let forward = ScriptedPeer::start(chain.clone(), &[slow]);
    let backward = ScriptedPeer::start(chain, &[slow, Behaviour::Order(AnswerOrder::Shuffled(3))]);
    let expected = undisturbed(&forward, height);
    let mut random = StdRng::seed_from_u64(20);
    for round in 0..ROUNDS {
        let peers = match round % 2 {
            0 => [&forward, &backward],
            _ => [&backward, &forward],
        };
        // Without a log in every other pair of rounds, as in a bulk load.
        let lag = ["10", "1000000"][(round / 2 % 2) as usize];
        let mut node = salted(&peers)
            .env("PULSE_INDEX__BULK_LAG_BLOCKS", lag)
            .start();
        for _ in 0..=round % 2 {
            thread::sleep(Duration::from_millis(random.gen_range(0..900)));
            node.kill();
            node = node.restart();
        }
        node.wait_synced_to(height, DEADLINE);
        assert_transactions(&node, &blocks);
        assert!(node.terminate(DEADLINE).status.success());
        assert_eq!(
            digest("regtest", node.data_dir()),
            expected,
            "round {round}"
        );
    }
}

/// Every transaction reads back as it was generated.
fn assert_transactions(node: &PulseNode, blocks: &[Block]) {
    for (height, block) in blocks.iter().enumerate() {
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            let path = format!("/tx/{txid}/raw");
            let mut reply = node.get(&path);
            // A stale position is renewed, never answered from.
            for _ in 0..100 {
                if reply.status != 503 {
                    break;
                }
                thread::sleep(Duration::from_millis(20));
                reply = node.get(&path);
            }
            assert_eq!(reply.status, 200, "{txid} at {height}");
            assert_eq!(
                reply.body,
                pulse_primitives::bitcoin::consensus::serialize(tx)
            );
        }
    }
}

#[test]
fn a_kernel_200_blocks_older_than_the_index_catches_up() {
    let blocks = generated(330, 8);
    let peer = ScriptedPeer::honest(served(Network::Regtest, &blocks[..=130]));
    let mut node = salted(&[&peer]).start();
    node.wait_synced_to(130, DEADLINE);
    assert!(node.terminate(DEADLINE).status.success());
    let kernel = node.data_dir().join("kernel");
    let backup = tempfile::tempdir().unwrap();
    copy(&kernel, &backup.path().join("kernel"));

    peer.push_blocks(&blocks[131..]);
    let mut node = node.restart();
    node.wait_synced_to(330, DEADLINE);
    assert!(node.terminate(DEADLINE).status.success());
    let before = digest("regtest", node.data_dir());

    fs::remove_dir_all(&kernel).unwrap();
    copy(&backup.path().join("kernel"), &kernel);
    // Blocks come in another order, so that they are stored elsewhere.
    peer.set_behaviours(&[Behaviour::Order(AnswerOrder::Reversed)]);
    let mut node = node.restart();
    node.wait_until("the kernel has caught up", DEADLINE, |node| {
        let stats: serde_json::Value = node.get_json("/stats");
        stats["active_tip"]["height"] == 330
    });
    node.wait_synced_to(330, DEADLINE);
    assert_blocks(&node, &blocks[..=130]);
    assert_transactions(&node, &blocks);
    assert!(node.terminate(DEADLINE).status.success());
    assert_eq!(digest("regtest", node.data_dir()), before);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
