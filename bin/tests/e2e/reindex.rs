//! A reindex that is killed, or that meets damaged block files: the old index stays, and what
//! was built goes on.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use pulse_primitives::bitcoin::Network;
use pulse_testkit::{Exit, ScriptedPeer};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    common::{DEADLINE, SALT, digest, options, served},
    proof::{copy, generated, synced},
};

fn reindex(dir: &Path, args: &[&str]) -> Exit {
    options("regtest")
        .data_dir(dir)
        .env("PULSE_INDEX__SALT", SALT)
        .args(std::iter::once("reindex").chain(args.iter().copied()))
        .run_to_exit(DEADLINE)
}

/// All files of a folder with their bytes.
fn bytes(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let names = entries.filter(|path| {
        !path
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("LO")
    });
    names
        .map(|path| (path.file_name().unwrap().into(), fs::read(&path).unwrap()))
        .collect()
}

#[test]
fn a_killed_reindex_goes_on_or_begins_again_and_the_old_index_stays() {
    const ROUNDS: u64 = 6;
    let parent = tempfile::tempdir().unwrap();
    let good = parent.path().join("good");
    let blocks = generated(200);
    synced("regtest", Network::Regtest, &blocks, &good);
    let expected = digest("regtest", &good);
    let old = bytes(&good.join("index"));
    let peer = ScriptedPeer::honest(served(Network::Regtest, &blocks));
    let mut cut_short = 0;
    for round in 0..ROUNDS {
        let mut random = StdRng::seed_from_u64(round);
        let dir = parent.path().join("node");
        copy(&good, &dir);
        // Without a log in every other round, as on a large chain.
        let lag = ["10", "1000000"][usize::try_from(round % 2).unwrap()];
        let mut child = Command::new(env!("CARGO_BIN_EXE_pulse-node"))
            .args(["--network", "regtest", "--data-dir"])
            .arg(&dir)
            .arg("reindex")
            .env("PULSE_INDEX__SALT", SALT)
            .env("PULSE_INDEX__BULK_LAG_BLOCKS", lag)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // From the moment on at which the old one has been put aside.
        let aside = dir.join("index.old-1");
        let started = Instant::now();
        while !aside.exists() && started.elapsed() < DEADLINE {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(random.gen_range(0..120)));
        let _ = child.kill();
        cut_short += u32::from(!child.wait().unwrap().success());
        assert_eq!(bytes(&aside), old, "round {round}");
        match round % 3 {
            0 => {
                let exit = reindex(&dir, &["--resume"]);
                assert!(exit.status.success(), "{}", exit.stderr);
            }
            1 => {
                let exit = reindex(&dir, &[]);
                assert!(exit.status.success(), "{}", exit.stderr);
                // What the first try left is kept too, if it had come that far.
                let left = dir.join("index.old-2").exists();
                assert_eq!(exit.stdout.contains("index.old-2"), left);
            }
            // The node goes on by itself.
            _ => {
                let node = options("regtest").data_dir(&dir).connect(peer.addr());
                let mut node = node.env("PULSE_INDEX__SALT", SALT).start();
                node.wait_synced_to(200, DEADLINE);
                assert!(node.terminate(DEADLINE).status.success());
            }
        }
        assert_eq!(digest("regtest", &dir), expected, "round {round}");
        assert_eq!(bytes(&aside), old, "round {round}");
        fs::remove_dir_all(&dir).unwrap();
    }
    assert!(cut_short > 0);
}

#[test]
fn a_reindex_over_damaged_block_files_says_so_and_goes_on_when_they_are_whole() {
    let parent = tempfile::tempdir().unwrap();
    let good = parent.path().join("good");
    synced("regtest", Network::Regtest, &generated(150), &good);
    let expected = digest("regtest", &good);
    let old = bytes(&good.join("index"));
    for (name, is_lost) in [
        ("blk00000.dat", false),
        ("rev00000.dat", false),
        ("rev00000.dat", true),
    ] {
        let dir = parent.path().join("node");
        copy(&good, &dir);
        let file = dir.join("kernel/blocks").join(name);
        let whole = fs::read(&file).unwrap();
        if is_lost {
            fs::remove_file(&file).unwrap();
        } else {
            // Far enough from the end that the kernel does not look at it when it opens.
            let mut spoilt = whole.clone();
            let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
            spoilt[used / 2] ^= 1;
            fs::write(&file, spoilt).unwrap();
        }
        let context = format!("{name}, lost: {is_lost}");
        let exit = reindex(&dir, &[]);
        assert_eq!(exit.status.code(), Some(1), "{context}: {}", exit.stdout);
        let errors = exit.stderr.lines();
        let errors = errors.filter(|line| line.starts_with("pulse-node: error: "));
        assert_eq!(errors.count(), 1, "{context}: {}", exit.stderr);
        if !is_lost {
            assert!(exit.stderr.contains("block "), "{context}: {}", exit.stderr);
        }
        // Wherever it is, the old one is as it was.
        let aside = dir.join("index.old-1");
        let kept = if aside.exists() {
            &aside
        } else {
            &dir.join("index")
        };
        assert_eq!(bytes(kept), old, "{context}");
        fs::write(&file, whole).unwrap();
        let resume: &[&str] = if aside.exists() { &["--resume"] } else { &[] };
        let exit = reindex(&dir, resume);
        assert!(exit.status.success(), "{context}: {}", exit.stderr);
        assert_eq!(digest("regtest", &dir), expected, "{context}");
        fs::remove_dir_all(&dir).unwrap();
    }
}
