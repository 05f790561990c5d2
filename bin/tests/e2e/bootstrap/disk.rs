//! Newcomers whose disk is full, fails, or loses its power amid a fetch.

use std::{fs, os::unix::fs::symlink, path::Path};

use pulse_primitives::bitcoin::Network;
use pulse_testkit::{ChainBuilder, PulseNode, ScriptedPeer};
use tempfile::TempDir;

use super::{
    super::{
        common::{DEADLINE, assert_blocks, digest, metric, params, served},
        mounts::{self, Mounted, copy_frozen, fill, image},
    },
    CHUNK, Fleet, RECEIVED, make, mine_large_blocks,
};

/// Room for the snapshot, and for what is left free beside it.
const DISK: u64 = 500 << 20;

/// A sibling that offers a snapshot with three chunks of blocks, slowly.
struct Scene {
    chain: ChainBuilder,
    gateway: PulseNode,
    fleet: Fleet,
    /// Where the disks are.
    place: TempDir,
    _peer: ScriptedPeer,
}

impl Scene {
    /// `None` where there can be no disks.
    fn new() -> Option<Self> {
        if !mounts::are_possible() {
            return None;
        }
        let mut chain = ChainBuilder::new(params(Network::Regtest));
        chain.mine_empty_blocks(20);
        mine_large_blocks(&mut chain, 45);
        let peer = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
        let fleet = Fleet::new();
        let mut gateway = fleet.offering(&[], "shelf", 6).connect(peer.addr()).start();
        gateway.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
        make(&gateway, &fleet.path("shelf/one"));
        Some(Self {
            chain,
            gateway,
            fleet,
            place: tempfile::tempdir().unwrap(),
            _peer: peer,
        })
    }

    fn mount(&self, image: &Path, name: &str, options: &str) -> Mounted {
        Mounted::new(image, self.place.path().join(name), options)
    }

    /// A newcomer on this disk that has got a chunk.
    fn begin(&self, disk: &Mounted) -> PulseNode {
        // Its log is beside the link, where there is room.
        let dir = self.place.path().join("node");
        fs::create_dir(disk.path().join("node")).unwrap();
        symlink(disk.path().join("node"), &dir).unwrap();
        let newcomer = self.fleet.newcomer(&[&self.gateway]).data_dir(dir);
        let mut newcomer = newcomer.start_listening();
        newcomer.wait_until("a chunk", DEADLINE, |node| metric(node, RECEIVED) >= CHUNK);
        newcomer
    }

    /// With the disk as it is now, the fetch goes on and completes as it would have without a fault.
    fn completes(&mut self, disk: &Mounted) {
        let dir = disk.path().join("node");
        assert!(dir.join("restore.partial/kernel/blocks").exists());
        let newcomer = self.fleet.newcomer(&[&self.gateway]).data_dir(&dir);
        let mut newcomer = newcomer.start_listening();
        newcomer.wait_synced_to_hash(self.chain.tip_hash(), DEADLINE);
        assert_blocks(&newcomer, self.chain.blocks());
        for node in [&mut newcomer, &mut self.gateway] {
            assert!(node.terminate(DEADLINE).status.success());
        }
        let expected = digest("regtest", self.gateway.data_dir());
        assert_eq!(digest("regtest", &dir), expected);
    }

    /// Runs a newcomer into a disk that takes no more than it has got. The disk when it works
    /// again, behind the one that it lies on.
    fn onto_a_failing_disk(&self, options: &str) -> (Mounted, Mounted) {
        let small = self.place.path().join("small.img");
        // Full in a moment.
        image(&small, 128 << 20);
        let outer = self.mount(&small, "outer", "loop");
        let file = outer.path().join("disk.img");
        image(&file, DISK);
        let disk = self.mount(&file, "inner", options);
        let mut newcomer = self.begin(&disk);
        let filler = outer.path().join("filler");
        fill(&filler);
        says_of_its_disk(&mut newcomer);
        drop((newcomer, disk));
        fs::remove_file(filler).unwrap();
        let disk = self.mount(&file, "inner", options);
        (outer, disk)
    }
}

/// The last words of a node that stops because of its disk.
fn says_of_its_disk(node: &mut PulseNode) -> String {
    let exit = node.wait_end(DEADLINE);
    assert_eq!(exit.status.code(), Some(1), "{}", exit.stderr);
    let said = exit.stderr.lines().last().unwrap().to_owned();
    assert!(said.contains("restore.partial/"), "{said}");
    assert!(said.contains("os error"), "{said}");
    said
}

#[test]
fn a_disk_that_is_full_stops_the_fetch_and_with_room_it_goes_on() {
    let Some(mut scene) = Scene::new() else {
        return;
    };
    let file = scene.place.path().join("disk.img");
    image(&file, DISK);
    let disk = scene.mount(&file, "disk", "loop");
    let mut newcomer = scene.begin(&disk);
    let filler = disk.path().join("filler");
    fill(&filler);
    let said = says_of_its_disk(&mut newcomer);
    assert!(said.contains("No space left on device"), "{said}");
    fs::remove_file(filler).unwrap();
    scene.completes(&disk);
}

#[test]
fn a_disk_that_fails_stops_the_fetch_and_when_it_works_it_goes_on() {
    if let Some(mut scene) = Scene::new() {
        let (_outer, disk) = scene.onto_a_failing_disk("loop");
        scene.completes(&disk);
    }
}

#[test]
fn a_disk_that_fails_behind_the_memory_of_its_file_system_is_noticed_as_well() {
    if let Some(mut scene) = Scene::new() {
        // This way the file system takes every write into its memory.
        let (_outer, disk) = scene.onto_a_failing_disk("loop,data=journal");
        scene.completes(&disk);
    }
}

#[test]
fn what_a_power_cut_amid_the_fetch_took_is_fetched_again() {
    let Some(mut scene) = Scene::new() else {
        return;
    };
    let place = scene.place.path();
    let (large, left) = (place.join("large.img"), place.join("left.img"));
    image(&large, 1 << 30);
    let outer = scene.mount(&large, "outer", "loop");
    let file = outer.path().join("disk.img");
    image(&file, DISK);
    let disk = scene.mount(&file, "inner", "loop,commit=1");
    let mut newcomer = scene.begin(&disk);
    copy_frozen(&outer, &file, &left);
    newcomer.kill();
    drop((newcomer, disk));
    let disk = scene.mount(&left, "inner", "loop");
    scene.completes(&disk);
}
