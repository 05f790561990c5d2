//! Power cuts: what was written and not synced is gone.
//!
//! The data directory is on a file system of its own, in a file on another one. At the cut
//! the outer one is frozen and the file copied: the copy has what the inner file system had
//! handed to its disk, in an order that a disk would have, and nothing of what was still in
//! memory. The node goes on from the copy.
//!
//! Needs the superuser (mounts, loop devices); for others the scene is left out.

use std::{path::Path, thread, time::Duration};

use pulse_primitives::bitcoin::{Block, Network};
use pulse_simulator::{Generator, GeneratorConfig};
use pulse_testkit::{AnswerOrder, Behaviour, NodeOptions, ScriptedPeer};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    common::{DEADLINE, SALT, assert_blocks, digest, options, served},
    mounts::{self, Mounted, copy, copy_frozen, image},
};

const HEIGHT: u32 = 260;

fn generated() -> Vec<Block> {
    let mut generator = Generator::new(GeneratorConfig::regtest(7).txs_per_block(12));
    let mut chain = vec![generator.genesis()];
    chain.extend((0..HEIGHT).map(|_| generator.next_block()));
    chain
}

fn node(dir: &Path, peers: [&ScriptedPeer; 2], lag: &str) -> NodeOptions {
    let salted = options("regtest")
        .data_dir(dir)
        .env("PULSE_INDEX__SALT", SALT)
        // Little memory, so that rows are written out on the way.
        .env("PULSE_INDEX__MEMORY_MIB", "2")
        .env("PULSE_INDEX__BULK_LAG_BLOCKS", lag);
    peers
        .iter()
        .fold(salted, |options, peer| options.connect(peer.addr()))
}

#[test]
#[ignore = "mounts file systems, for the superuser"]
fn after_a_power_cut_the_node_goes_on_to_the_same_index() {
    const ROUNDS: u32 = 6;
    const CUTS: u32 = 3;
    if !mounts::are_possible() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let blocks = generated();
    let chain = served(Network::Regtest, &blocks);
    let slow = Behaviour::Delay(Duration::from_millis(8));
    let forward = ScriptedPeer::start(chain.clone(), &[slow]);
    let shuffled = Behaviour::Order(AnswerOrder::Shuffled(3));
    let backward = ScriptedPeer::start(chain, &[slow, shuffled]);
    let plain = place.path().join("plain");
    let mut undisturbed = node(&plain, [&forward, &backward], "10").start();
    undisturbed.wait_synced_to(HEIGHT, DEADLINE);
    assert!(undisturbed.terminate(DEADLINE).status.success());
    let expected = digest("regtest", &plain);

    let outer_image = place.path().join("outer.img");
    image(&outer_image, 3 << 30);
    let outer = Mounted::new(&outer_image, place.path().join("outer"), "loop");
    let mut random = StdRng::seed_from_u64(40);
    for round in 0..ROUNDS {
        let disk = outer.path().join("disk.img");
        image(&disk, 800 << 20);
        // Without a log in every other round, as in a bulk load.
        let lag = ["10", "1000000"][(round % 2) as usize];
        for _ in 0..CUTS {
            // File system metadata is committed each second, data when it pleases.
            let options = "loop,commit=1";
            let inner = Mounted::new(&disk, place.path().join("inner"), options);
            let dir = inner.path().join("node");
            let mut running = node(&dir, [&forward, &backward], lag).start();
            thread::sleep(Duration::from_millis(random.gen_range(200..2500)));
            if random.gen_bool(0.3) {
                // All is flushed, and at the cut it is being gone on with.
                assert!(running.terminate(DEADLINE).status.success());
                running = running.restart();
                thread::sleep(Duration::from_millis(random.gen_range(0..500)));
            }
            let left = place.path().join("left.img");
            copy_frozen(&outer, &disk, &left);
            running.kill();
            drop(running);
            drop(inner);
            copy(&left, &disk);
        }
        let inner = Mounted::new(&disk, place.path().join("inner"), "loop");
        let dir = inner.path().join("node");
        let mut running = node(&dir, [&forward, &backward], lag).start();
        running.wait_until("the kernel has caught up", DEADLINE, |node| {
            let stats: serde_json::Value = node.get_json("/stats");
            stats["active_tip"]["height"] == HEIGHT
        });
        running.wait_synced_to(HEIGHT, DEADLINE);
        running.wait_until("all positions", DEADLINE, |node| {
            let raw = |block: &Block| node.get(&format!("/block/{}/raw", block.block_hash()));
            blocks.iter().all(|block| raw(block).status == 200)
        });
        assert_blocks(&running, &blocks);
        assert!(running.terminate(DEADLINE).status.success());
        assert_eq!(digest("regtest", &dir), expected, "round {round}");
        drop(running);
    }
}
