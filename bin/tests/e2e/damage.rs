//! Files that are damaged under a running node, and files other than the index and the
//! blocks that are damaged before a start.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use pulse_primitives::bitcoin::{Block, Network};
use pulse_testkit::{NodeOptions, PulseNode, ScriptedPeer};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    common::{DEADLINE, SALT, digest, metric, options, scripthash, served},
    proof::{copy, generated, synced},
};

/// Damages of files before a start, unless `PULSE_INDEX_DAMAGES` says otherwise.
const DAMAGES: u64 = 16;

fn salted(dir: &Path) -> NodeOptions {
    options("regtest")
        .data_dir(dir)
        .env("PULSE_INDEX__SALT", SALT)
}

/// Paths whose answers are the same as long as the chain is, some of each kind.
fn paths(blocks: &[Block]) -> Vec<String> {
    let mut paths = vec!["/blocks/tip/hash".to_owned(), "/blocks".to_owned()];
    let mut scripts = BTreeSet::new();
    for block in blocks.iter().step_by(5) {
        let hash = block.block_hash();
        for what in ["", "/raw", "/txids", "/txs"] {
            paths.push(format!("/block/{hash}{what}"));
        }
        for tx in block.txdata.iter().step_by(4) {
            let txid = tx.compute_txid();
            for what in ["", "/raw", "/status", "/outspends", "/merkle-proof"] {
                paths.push(format!("/tx/{txid}{what}"));
            }
            scripts.insert(scripthash(tx.output[0].script_pubkey.as_bytes()));
        }
    }
    for script in scripts.iter().step_by(3) {
        for what in ["", "/txs", "/utxo"] {
            paths.push(format!("/scripthash/{script}{what}"));
        }
    }
    paths
}

type Answer = (u16, Vec<u8>);

fn answers(node: &PulseNode, paths: &[String]) -> Vec<Answer> {
    let answer = |path: &String| {
        let reply = node.get(path);
        if reply.status == 503 {
            // What a client is told, and nothing of the inside.
            let text = reply.text();
            let renewing = text.starts_with("the position of block ")
                && text.ends_with(" is being renewed; try again");
            assert!(text == "index read failed" || renewing, "{path}: {text}");
            assert!(reply.retry_after.is_some(), "{path}");
            assert_eq!(reply.content_type.as_deref(), Some("text/plain"));
        }
        (reply.status, reply.body)
    };
    paths.iter().map(answer).collect()
}

/// Answers that are not as they were; each must be a 503.
fn missing(node: &PulseNode, paths: &[String], right: &[Answer], context: &str) -> usize {
    let found = answers(node, paths);
    let mut missing = 0;
    for ((path, found), right) in paths.iter().zip(&found).zip(right) {
        if found != right {
            assert_eq!(found.0, 503, "{context}: {path}");
            missing += 1;
        }
    }
    missing
}

/// All files of a data directory but the locks, logs and sockets.
fn files(root: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            let name = entry.file_name().into_string().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() && !name.starts_with("LO") && name != ".lock" {
                found.insert(entry.path().strip_prefix(root).unwrap().to_owned());
            }
        }
    }
    found
}

/// Flips a bit of every 64th byte of the part of a file that is written.
fn spoil(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for byte in bytes[..used].iter_mut().step_by(64) {
        *byte ^= 0x20;
    }
    put(path, &bytes);
}

/// Writes a file in its place, so that whoever has it open sees it.
fn put(path: &Path, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
}

/// Cuts a file in the middle of what is written.
fn cut(path: &Path) {
    let bytes = fs::read(path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(used as u64 / 2).unwrap();
}

#[test]
fn damage_under_a_running_node_is_told_of_and_never_served() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("node");
    let blocks = generated(130);
    synced("regtest", Network::Regtest, &blocks, &dir);
    let paths = paths(&blocks);
    let peer = ScriptedPeer::honest(served(Network::Regtest, &blocks));
    let mut node = salted(&dir).connect(peer.addr()).start();
    node.wait_synced_to(130, DEADLINE);
    let right = answers(&node, &paths);
    assert!(right.iter().all(|(status, _)| *status == 200));
    let all = files(&dir);
    assert_eq!(metric(&node, "pulse_db_errors_total"), 0.0);
    let tables: Vec<PathBuf> = all
        .iter()
        .filter(|path| path.starts_with("index") && path.extension().is_some_and(|e| e == "sst"))
        .cloned()
        .collect();
    assert!(!tables.is_empty());
    let block_file = [PathBuf::from("kernel/blocks/blk00000.dat")];
    let undo_file = [PathBuf::from("kernel/blocks/rev00000.dat")];
    // Nothing reads these of a running node.
    let unread: Vec<PathBuf> = all
        .iter()
        .filter(|path| {
            let in_index = path.starts_with("index") && !tables.contains(path);
            in_index || path.starts_with("meta") || path.ends_with("headers.dat")
        })
        .cloned()
        .collect();
    type Damage = fn(&Path);
    let scenes: [(&[PathBuf], Damage, &str); 6] = [
        (&tables, spoil, ".sst"),
        (&tables, cut, ".sst"),
        (&block_file, spoil, "blk00000.dat"),
        (&block_file, cut, "blk00000.dat"),
        (&undo_file, spoil, "rev00000.dat"),
        // The last: some of them may be written between the damage and the repair.
        (&unread, spoil, ""),
    ];
    for (number, (damaged, damage, told)) in scenes.into_iter().enumerate() {
        let context = format!("scene {number}");
        // With nothing read before.
        assert!(node.terminate(DEADLINE).status.success());
        node = node.restart();
        node.wait_synced_to(130, DEADLINE);
        let log_before = node.log().len();
        let before = files(&dir);
        let saved: Vec<_> = before
            .iter()
            .filter(|path| damaged.contains(path))
            .map(|path| (dir.join(path), fs::read(dir.join(path)).unwrap()))
            .collect();
        for (path, bytes) in &saved {
            if !bytes.is_empty() {
                damage(path);
            }
        }
        let gone = missing(&node, &paths, &right, &context);
        assert_eq!(
            metric(&node, "pulse_rest_handler_panics_total"),
            0.0,
            "{context}"
        );
        assert!(files(&dir).is_superset(&before), "{context}");
        if told.is_empty() {
            assert_eq!(gone, 0, "{context}");
            break;
        } else {
            assert!(gone > 0, "{context}");
            let of_index = told == ".sst";
            let (hint, name) = match of_index {
                true => ("pulse-node reindex", "pulse_db_errors_total"),
                false => (
                    "move the kernel/ directory aside",
                    "pulse_index_damaged_blocks",
                ),
            };
            node.wait_until("the log and the metric", DEADLINE, |node| {
                let log = node.log().split_off(log_before);
                let is_told = |line: &str| line.contains(told) && line.contains(hint);
                log.lines().any(is_told) && metric(node, name) > 0.0
            });
        }
        for (path, bytes) in &saved {
            put(path, bytes);
        }
        assert_eq!(missing(&node, &paths, &right, &context), 0, "{context}");
    }
}

/// A block that cannot be indexed because of the damage: the node ends and says why, and
/// what it has stays.
#[test]
fn a_node_that_cannot_write_its_index_ends_with_what_to_do() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("node");
    let blocks = generated(140);
    synced("regtest", Network::Regtest, &blocks[..=130], &dir);
    let expected = digest("regtest", &dir);
    let peer = ScriptedPeer::honest(served(Network::Regtest, &blocks[..=130]));
    let mut node = salted(&dir).connect(peer.addr()).start();
    node.wait_synced_to(130, DEADLINE);
    let before = files(&dir);
    let tables = before
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "sst"));
    let saved: Vec<_> = tables
        .map(|path| (dir.join(path), fs::read(dir.join(path)).unwrap()))
        .collect();
    for (path, _) in &saved {
        spoil(path);
    }
    peer.push_blocks(&blocks[131..]);
    let exit = node.wait_end(DEADLINE);
    assert_eq!(exit.status.code(), Some(1));
    let told = exit.stderr.lines().last().unwrap();
    assert!(
        told.contains(".sst") && told.contains("pulse-node reindex"),
        "{told}"
    );
    assert!(files(&dir).is_superset(&before));
    for (path, bytes) in &saved {
        put(path, bytes);
    }
    // Whole again, it goes on from where it was.
    let left = digest("regtest", &dir);
    assert_eq!(left, expected);
    let mut node = salted(&dir).connect(peer.addr()).start();
    node.wait_synced_to(140, DEADLINE);
}

/// What the log says when block files are damaged: move `kernel/` aside and start again.
#[test]
fn blocks_are_downloaded_anew_for_an_index_that_stays() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("node");
    let blocks = generated(130);
    synced("regtest", Network::Regtest, &blocks, &dir);
    let expected = digest("regtest", &dir);
    fs::rename(dir.join("kernel"), parent.path().join("kernel.old")).unwrap();
    let peer = ScriptedPeer::honest(served(Network::Regtest, &blocks));
    let mut node = salted(&dir).connect(peer.addr()).start();
    node.wait_until("the blocks", DEADLINE, |node| {
        let stats: serde_json::Value = node.get_json("/stats");
        stats["active_tip"]["height"] == 130
    });
    node.wait_synced_to(130, DEADLINE);
    let paths = paths(&blocks);
    node.wait_until("all positions", DEADLINE, |node| {
        answers(node, &paths)
            .iter()
            .all(|(status, _)| *status == 200)
    });
    assert!(node.terminate(DEADLINE).status.success());
    assert_eq!(digest("regtest", &dir), expected);
}

/// The files beside index and blocks: with one damaged, the node either refuses to start and
/// says why, or answers as before.
#[test]
fn no_damage_to_a_small_file_makes_a_wrong_answer() {
    let parent = tempfile::tempdir().unwrap();
    let good = parent.path().join("good");
    let blocks = generated(130);
    synced("regtest", Network::Regtest, &blocks, &good);
    let targets: Vec<PathBuf> = files(&good)
        .into_iter()
        .filter(|path| !path.starts_with("index") && !path.starts_with("kernel"))
        .collect();
    for name in ["headers.dat", "node.json", "identity.key", "meta/db"] {
        assert!(
            targets.iter().any(|path| path.ends_with(name)),
            "{targets:?}"
        );
    }
    let paths: Vec<String> = paths(&blocks).into_iter().step_by(20).collect();
    let peer = ScriptedPeer::honest(served(Network::Regtest, &blocks));
    let node_in = |dir: &Path| salted(dir).connect(peer.addr()).start();
    let mut node = node_in(&good);
    node.wait_synced_to(130, DEADLINE);
    let right = answers(&node, &paths);
    assert!(node.terminate(DEADLINE).status.success());
    let cases = std::env::var("PULSE_INDEX_DAMAGES");
    // A node is started for each, so that they are a tenth of those of other files.
    let cases = cases.map_or(DAMAGES, |cases| cases.parse::<u64>().unwrap() / 10);
    let mut refused = 0;
    for case in 0..cases {
        let mut random = StdRng::seed_from_u64(case);
        let dir = parent.path().join(format!("damaged-{case}"));
        copy(&good, &dir);
        let target = &targets[usize::try_from(case).unwrap() % targets.len()];
        let mut bytes = fs::read(dir.join(target)).unwrap();
        let Some(last) = bytes.iter().rposition(|byte| *byte != 0) else {
            continue;
        };
        let at = random.gen_range(0..=last);
        let what = if random.gen_bool(0.3) {
            bytes.truncate(at);
            "cut"
        } else {
            bytes[at] ^= 1 << random.gen_range(0..8);
            "flipped"
        };
        fs::write(dir.join(target), bytes).unwrap();
        let context = format!("case {case}: {} {what} at {at}", target.display());
        match catch_unwind(AssertUnwindSafe(|| node_in(&dir))) {
            Ok(mut node) => {
                node.wait_synced_to(130, DEADLINE);
                assert_eq!(missing(&node, &paths, &right, &context), 0, "{context}");
                assert!(node.terminate(DEADLINE).status.success(), "{context}");
            }
            Err(_) => {
                refused += 1;
                let log = fs::read_to_string(dir.with_extension("log")).unwrap();
                let told = log.lines().last().unwrap();
                let name = target.file_name().unwrap().to_str().unwrap();
                assert!(told.starts_with("pulse-node: error: "), "{context}: {told}");
                // `node.json` says what the directory is, so damage may make it another's.
                let is_named = told.contains(name) || told.contains("data directory");
                assert!(is_named, "{context}: {told}");
            }
        }
        fs::remove_dir_all(&dir).unwrap();
    }
    assert!(refused > 0);
}
