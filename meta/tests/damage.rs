//! Damaged and abruptly left databases, from the outside.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test")]

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use pulse_meta::{MetaError, MetaStore, Opened};
use pulse_primitives::ports::StoreKey;
use rand::{Rng, SeedableRng, rngs::StdRng};

/// Damages tried by the test; a few hundred more by `PULSE_META_DAMAGES`.
const DAMAGES: u64 = 150;
const KILLS: u64 = 20;

/// A database with some contents, closed well.
fn fill(dir: &Path) {
    let (store, _) = MetaStore::open(dir).unwrap();
    for run in 0..5 {
        store.record_start(run * 10).unwrap();
        for peer in 0..20 {
            let addr = format!("198.51.100.{peer}:8333");
            store
                .record_peer(&addr, "/Satoshi:31.0.0/", run * 10 + peer)
                .unwrap();
        }
        store.add_blocks_indexed(1_000).unwrap();
        store.record_stop(run * 10 + 9).unwrap();
    }
    store.save_value(StoreKey::Addresses, &value(0)).unwrap();
}

/// A value of several pieces, all bytes of which are the same.
fn value(number: u64) -> Vec<u8> {
    vec![number.to_le_bytes()[0]; 20_000]
}

/// Whether a value is one of [`value`], whole.
fn is_whole(value: &[u8]) -> bool {
    value.len() == 20_000 && value.iter().all(|byte| *byte == value[0])
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn files_in(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_in(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Damages one file of the database and says how.
fn damage(meta: &Path, rng: &mut StdRng) -> String {
    let files = files_in(meta);
    let file = &files[rng.gen_range(0..files.len())];
    let mut bytes = fs::read(file).unwrap();
    let what = match rng.gen_range(0..4) {
        0 => {
            bytes.truncate(rng.gen_range(0..=bytes.len()));
            "cut"
        }
        1 if !bytes.is_empty() => {
            // Most of the file is padding: aim at what is written.
            let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
            for _ in 0..rng.gen_range(1..32) {
                bytes[rng.gen_range(0..used)] ^= 1 << rng.gen_range(0..8);
            }
            "bits flipped in"
        }
        2 if !bytes.is_empty() => {
            let start = rng.gen_range(0..bytes.len());
            let end = (start + rng.gen_range(1..4096)).min(bytes.len());
            bytes[start..end].fill(0);
            "zeroed"
        }
        _ => {
            rng.fill(bytes.as_mut_slice());
            "randomised"
        }
    };
    fs::write(file, &bytes).unwrap();
    format!("{what} {}", file.file_name().unwrap().to_string_lossy())
}

/// Whether every call works; an error must be [`MetaError::Damaged`].
fn works(store: &MetaStore) -> bool {
    let result = store
        .record_start(1_000)
        .and_then(|_| store.record_peer("192.0.2.1:8333", "/x/", 1_001))
        .and_then(|()| store.peers())
        .and_then(|peers| {
            assert!(peers.iter().any(|peer| peer.addr == "192.0.2.1:8333"));
            store.save_value(StoreKey::Bans, &value(7))?;
            assert_eq!(store.load_value(StoreKey::Bans)?, Some(value(7)));
            store.record_stop(1_002)
        });
    match result {
        Ok(_) => true,
        Err(MetaError::Damaged { .. }) => false,
        Err(err) => panic!("unexpected error: {err:?}"),
    }
}

#[test]
fn damaged_files_never_stop_a_start_and_the_identity_stays() {
    let template = tempfile::tempdir().unwrap();
    fill(template.path());
    let id = MetaStore::read_peer_id(template.path()).unwrap().unwrap();
    let damages = env::var("PULSE_META_DAMAGES").map_or(DAMAGES, |n| n.parse().unwrap());

    let mut recovered = 0;
    for seed in 0..damages {
        let dir = tempfile::tempdir().unwrap();
        copy_tree(template.path(), dir.path());
        let what = damage(&dir.path().join("meta"), &mut StdRng::seed_from_u64(seed));
        let damaged = files_in(&dir.path().join("meta")).len();

        let (store, opened) = MetaStore::open(dir.path()).unwrap();
        eprintln!("{seed} {what}: {opened:?}");
        assert_eq!(store.peer_id(), id, "seed {seed}: {what}");
        if let Opened::Recovered { moved_to, .. } = &opened {
            recovered += 1;
            assert!(files_in(moved_to).len() >= damaged, "seed {seed}: {what}");
            assert!(works(&store), "seed {seed}: {what}");
        }
        let worked = works(&store);
        if let Ok(Some(saved)) = store.load_value(StoreKey::Addresses) {
            assert_eq!(saved, value(0), "seed {seed}: {what}");
        }
        drop(store);

        // What opened and failed later is replaced at the next start at the latest.
        let (store, _) = MetaStore::open(dir.path()).unwrap();
        assert_eq!(store.peer_id(), id, "seed {seed}: {what}");
        assert!(
            works(&store),
            "seed {seed}: {what}, worked before: {worked}"
        );
    }
    assert!(
        recovered > 0,
        "no damage was bad enough to test the recovery"
    );
}

#[test]
fn a_killed_writer_never_stops_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let id = MetaStore::read_peer_id(dir.path()).unwrap().unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..KILLS {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "writer_process", "--ignored", "--nocapture"])
            .env("PULSE_META_WRITER", dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let ready = dir.path().join("ready");
        let deadline = Instant::now() + Duration::from_secs(30);
        while !ready.exists() {
            assert!(Instant::now() < deadline, "the writer did not start");
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(rng.gen_range(0..60)));
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_file(&ready).unwrap();

        let (store, opened) = MetaStore::open(dir.path()).unwrap();
        assert_eq!(store.peer_id(), id);
        let saved = store.load_value(StoreKey::Addresses).unwrap();
        if opened == Opened::Existing {
            assert!(saved.is_some_and(|saved| is_whole(&saved)));
        } else {
            store.save_value(StoreKey::Addresses, &value(0)).unwrap();
        }
        assert!(works(&store));
    }
}

/// Not a test of its own: the process that the test above kills.
#[test]
#[ignore = "run as a child of a_killed_writer_never_stops_the_next_start"]
fn writer_process() {
    let Some(dir) = env::var_os("PULSE_META_WRITER").map(PathBuf::from) else {
        return;
    };
    let (store, _) = MetaStore::open(&dir).unwrap();
    fs::write(dir.join("ready"), b"").unwrap();
    for i in 0_u64.. {
        store.record_start(i).unwrap();
        store
            .record_peer(&format!("peer{i}:8333"), "/writer/", i)
            .unwrap();
        store.save_value(StoreKey::Addresses, &value(i)).unwrap();
    }
}
