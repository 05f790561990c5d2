//! `verify` and `reindex` from outside, and files that were damaged.

use std::{
    fs,
    path::{Path, PathBuf},
};

use pulse_primitives::bitcoin::{Block, Network};
use pulse_simulator::{Generator, GeneratorConfig};
use pulse_testkit::{ChainData, Exit, ScriptedPeer};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::common::{DEADLINE, SALT, digest, options, served};

/// Cases of damage, unless `PULSE_INDEX_DAMAGES` says otherwise.
const DAMAGES: u64 = 60;

fn command(network: &str, dir: &Path, args: &[&str]) -> Exit {
    options(network)
        .data_dir(dir)
        .env("PULSE_INDEX__SALT", SALT)
        .args(args.iter().copied())
        .run_to_exit(DEADLINE)
}

/// A node that synced these blocks and was stopped, in `dir`.
pub fn synced(network: &str, kind: Network, blocks: &[Block], dir: &Path) {
    let peer = ScriptedPeer::honest(served(kind, blocks));
    let mut node = options(network)
        .data_dir(dir)
        .env("PULSE_INDEX__SALT", SALT)
        .connect(peer.addr())
        .start();
    node.wait_synced_to(u32::try_from(blocks.len() - 1).unwrap(), DEADLINE);
    assert!(node.terminate(DEADLINE).status.success());
}

pub fn generated(blocks: u32) -> Vec<Block> {
    let mut generator = Generator::new(GeneratorConfig::regtest(11).txs_per_block(10));
    let mut chain = vec![generator.genesis()];
    chain.extend((0..blocks).map(|_| generator.next_block()));
    chain
}

#[test]
fn verify_prints_the_numbers_of_bitcoin_core() {
    let Some(data) = ChainData::locate() else {
        return;
    };
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("node");
    let blocks = data.regtest_kernel();
    synced("regtest", Network::Regtest, &blocks, &dir);
    let exit = command("regtest", &dir, &["verify", "--hash-serialized"]);
    assert!(exit.status.success(), "{}{}", exit.stdout, exit.stderr);
    let golden: serde_json::Value =
        serde_json::from_slice(&data.read("golden/core-utxo-stats.json")).unwrap();
    let golden = &golden["regtest_kernel_1_206"];
    let text = |key: &str| golden[key].as_str().unwrap().to_owned();
    for line in [
        "differences 0".to_owned(),
        format!("txouts {}", golden["txouts"]),
        format!("total_amount {}.00000000", text("total_amount")),
        format!("muhash {}", text("muhash")),
        format!("hash_serialized_3 {}", text("hash_serialized_3")),
    ] {
        assert!(
            exit.stdout.lines().any(|found| found == line),
            "{line}\n{}",
            exit.stdout
        );
    }
    let exit = command("regtest", &dir, &["verify", "--from", "200"]);
    assert!(exit.status.success(), "{}{}", exit.stdout, exit.stderr);
}

#[test]
fn reindex_gives_the_same_index_without_a_peer_and_keeps_the_old_one() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("node");
    synced("regtest", Network::Regtest, &generated(150), &dir);
    let before = digest("regtest", &dir);

    // A damaged index, and none at all.
    for (number, damage) in [(1, true), (2, false)] {
        if damage {
            fs::write(dir.join("index/CURRENT"), "nonsense\n").unwrap();
            let refused = command("regtest", &dir, &["digest"]);
            assert!(!refused.status.success());
        }
        let exit = command("regtest", &dir, &["reindex"]);
        assert!(exit.status.success(), "{}{}", exit.stdout, exit.stderr);
        assert!(dir.join(format!("index.old-{number}")).is_dir());
        assert_eq!(digest("regtest", &dir), before);
    }
    assert!(command("regtest", &dir, &["verify"]).status.success());

    // An index that was built in part only.
    fs::rename(dir.join("index"), parent.path().join("index")).unwrap();
    let exit = command("regtest", &dir, &["reindex", "--resume"]);
    assert!(exit.status.success(), "{}{}", exit.stdout, exit.stderr);
    assert_eq!(digest("regtest", &dir), before);

    let mut running = options("regtest").data_dir(&dir).start();
    let refused = command("regtest", &dir, &["reindex"]);
    assert!(!refused.status.success());
    assert!(refused.stderr.contains("in use"), "{}", refused.stderr);
    // The running node checks itself, and says the same.
    let alone = command("regtest", &dir, &["verify", "--hash-serialized"]);
    assert!(alone.status.success(), "{}", alone.stderr);
    assert!(
        alone.stdout.contains("\nhash_serialized_3 "),
        "{}",
        alone.stdout
    );
    assert!(running.terminate(DEADLINE).status.success());
    let offline = command("regtest", &dir, &["verify", "--hash-serialized"]);
    assert_eq!(alone.stdout, offline.stdout);
}

/// Flips a bit, or cuts a file short, somewhere in the index or the block files. Whatever it
/// is: either the check fails and says so, or all that the index has is right.
#[test]
fn no_damage_to_a_file_goes_unnoticed() {
    let parent = tempfile::tempdir().unwrap();
    let good = parent.path().join("good");
    synced("regtest", Network::Regtest, &generated(130), &good);
    let expected = digest("regtest", &good);
    let files = files(&good);
    let cases = std::env::var("PULSE_INDEX_DAMAGES");
    let cases = cases.map_or(DAMAGES, |cases| cases.parse().unwrap());
    let mut noticed = 0;
    for case in 0..cases {
        let mut random = StdRng::seed_from_u64(case);
        let dir = parent.path().join("damaged");
        copy(&good, &dir);
        let file = dir.join(&files[random.gen_range(0..files.len())]);
        let mut bytes = fs::read(&file).unwrap();
        if bytes.is_empty() {
            continue;
        }
        let at = random.gen_range(0..bytes.len());
        let what = if random.gen_bool(0.3) {
            bytes.truncate(at);
            "cut"
        } else {
            bytes[at] ^= 1 << random.gen_range(0..8);
            "flipped"
        };
        fs::write(&file, bytes).unwrap();
        let context = format!("case {case}: {} {what} at {at}", file.display());
        let exit = command("regtest", &dir, &["verify"]);
        let code = exit.status.code();
        assert!(
            code == Some(0) || code == Some(1),
            "{context}: {}",
            exit.stderr
        );
        if code == Some(1) {
            noticed += 1;
            let errors = exit.stderr.lines();
            let errors = errors.filter(|line| line.starts_with("pulse-node: error: "));
            assert_eq!(errors.count(), 1, "{context}: {}", exit.stderr);
        } else {
            // Only the newest blocks may be gone, which the node indexes again.
            let tip = expected.lines().next().unwrap().split(' ').nth(2).unwrap();
            if exit.stdout.contains(tip) {
                assert_eq!(digest("regtest", &dir), expected, "{context}");
            }
        }
        fs::remove_dir_all(&dir).unwrap();
    }
    assert!(noticed > 0);
}

/// The files of the index and the kernel's block files, relative to the data directory.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in ["index", "kernel/blocks"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let is_block_file = ["blk", "rev"].iter().any(|start| name.starts_with(start));
            let is_ours = folder == "index" && !name.starts_with("LO");
            if is_block_file || is_ours {
                files.push(Path::new(folder).join(name));
            }
        }
    }
    files.sort();
    files
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            copy(&entry.path(), &target);
        } else if kind.is_file() {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
