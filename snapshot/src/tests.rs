//! A snapshot of made-up files: whole, and tampered with in every way.

use std::{
    fs,
    os::unix::fs::{FileExt, MetadataExt, symlink},
    path::{Path, PathBuf},
};

use pulse_primitives::bitcoin::{BlockHash, hashes::Hash};

use super::*;
use crate::manifest::is_known_path;

const FILES: [(&str, usize); 5] = [
    ("headers.dat", 136),
    ("index/000012.sst", 40_000),
    ("kernel/blocks/blk00000.dat", 16 * 1024 * 1024 + 5),
    ("kernel/blocks/index/CURRENT", 16),
    ("kernel/chainstate/000005.ldb", 0),
];

struct Fixture {
    root: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let fixture = Self { root };
        for (path, len) in FILES {
            let file = fixture.path("source").join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            let bytes: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
            fs::write(file, bytes).unwrap();
        }
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn draft(&self) -> Draft {
        let draft = Draft::begin(&self.path("snapshot")).unwrap();
        for (path, _) in FILES {
            let from = self.path("source").join(path);
            if path.ends_with(".ldb") || path.ends_with(".sst") {
                draft.link(&from, path, &Progress::default()).unwrap();
            } else {
                draft.copy(&from, path, &Progress::default()).unwrap();
            }
        }
        draft
    }

    /// A snapshot, made.
    fn made() -> Self {
        let fixture = Self::new();
        let draft = fixture.draft();
        draft.finish(head(), &Progress::default()).unwrap();
        fixture
    }

    fn restore(&self) -> Result<(), SnapshotError> {
        let target = self.path("target");
        fs::create_dir_all(&target).unwrap();
        Snapshot::open(&self.path("snapshot"))?.restore_into(&target, &Progress::default())?;
        Staging::clear(&target)
    }

    fn assert_restored(&self) {
        for (path, _) in FILES {
            let file = |root: &str| fs::read(self.path(root).join(path)).unwrap();
            assert!(file("target") == file("source"), "{path}");
        }
        assert_eq!(fs::read_dir(self.path("target")).unwrap().count(), 3);
    }

    /// Rewrites the manifest, with a proof that fits.
    fn rewrite(&self, change: impl Fn(&str) -> String) {
        let path = self.path("snapshot").join("manifest.json");
        let text = change(&fs::read_to_string(&path).unwrap());
        let proof = format!("{}  manifest.json\n", blake3::hash(text.as_bytes()));
        fs::write(&path, text).unwrap();
        fs::write(path.with_file_name("manifest.b3"), proof).unwrap();
    }
}

fn head() -> ManifestHead {
    let block = BlockRef {
        height: 7,
        hash: BlockHash::all_zeros(),
    };
    ManifestHead {
        program: "0.1.0".to_owned(),
        created: 1,
        origin: Origin {
            layout: 1,
            network: "regtest".to_owned(),
            genesis: BlockHash::all_zeros(),
            signet_challenge: None,
            simulated: false,
            seed: None,
        },
        tip: block,
        chain_work: "00".repeat(32),
        indexed: Some(block),
        utxo_commitment: None,
    }
}

#[test]
fn what_was_put_in_comes_out_again() {
    let fixture = Fixture::made();
    let snapshot = Snapshot::open(&fixture.path("snapshot")).unwrap();
    snapshot.verify(&Progress::default()).unwrap();
    assert_eq!(snapshot.manifest().snapshot, head());
    assert_eq!(snapshot.manifest().files.len(), FILES.len());
    let linked = fixture.path("source").join("index/000012.sst");
    assert_eq!(fs::metadata(linked).unwrap().nlink(), 2);
    fixture.restore().unwrap();
    fixture.assert_restored();
    // The restored files are nobody else's.
    let restored = fixture.path("target").join("index/000012.sst");
    assert_eq!(fs::metadata(restored).unwrap().nlink(), 1);
}

#[test]
fn the_manifest_is_proven_by_a_file_that_b3sum_reads() {
    let fixture = Fixture::made();
    let read = |name: &str| fs::read(fixture.path("snapshot").join(name)).unwrap();
    let hash = blake3::hash(&read("manifest.json"));
    assert_eq!(
        String::from_utf8(read("manifest.b3")).unwrap(),
        format!("{hash}  manifest.json\n")
    );
}

#[test]
fn an_existing_place_is_refused_and_an_unfinished_one_replaced() {
    let fixture = Fixture::made();
    let begin = |name: &str| Draft::begin(&fixture.path(name));
    let refused = |result| matches!(result, Err(SnapshotError::Exists { .. }));
    assert!(refused(begin("snapshot")));
    assert!(refused(begin("source")));
    fs::create_dir(fixture.path("other.partial")).unwrap();
    assert!(refused(begin("other")));

    // As after a kill: nothing is dropped.
    let draft = begin("next").unwrap();
    fs::write(draft.root().join("headers.dat"), b"half").unwrap();
    std::mem::forget(draft);
    let draft = begin("next").unwrap();
    assert!(!draft.root().join("headers.dat").exists());
    let partial = draft.root().to_owned();
    drop(draft);
    assert!(!partial.exists());
    assert!(!fixture.path("next").exists());
}

#[test]
fn a_cancelled_draft_leaves_nothing() {
    let fixture = Fixture::new();
    let draft = fixture.draft();
    let progress = Progress::default();
    progress.cancel();
    let partial = draft.root().to_owned();
    assert!(matches!(
        draft.finish(head(), &progress),
        Err(SnapshotError::Cancelled)
    ));
    assert!(!partial.exists() && !fixture.path("snapshot").exists());
}

#[test]
fn an_unfinished_snapshot_is_none() {
    let fixture = Fixture::new();
    let draft = fixture.draft();
    assert!(matches!(
        Snapshot::open(draft.root()),
        Err(SnapshotError::NoManifest { .. })
    ));
}

/// The file that an error names.
fn named(result: Result<(), SnapshotError>) -> String {
    match result.unwrap_err() {
        SnapshotError::File { path, .. } => path,
        other => panic!("{other}"),
    }
}

#[test]
fn a_changed_byte_anywhere_is_refused_by_the_name_of_its_file() {
    let fixture = Fixture::made();
    for (path, len) in FILES {
        for at in [0, len / 2, len.saturating_sub(1)] {
            if len == 0 {
                continue;
            }
            let open = fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(fixture.path("snapshot").join(path))
                .unwrap();
            let mut byte = [0];
            open.read_exact_at(&mut byte, at as u64).unwrap();
            open.write_all_at(&[byte[0] ^ 0x10], at as u64).unwrap();
            let snapshot = Snapshot::open(&fixture.path("snapshot")).unwrap();
            assert_eq!(named(snapshot.verify(&Progress::default())), path);
            assert_eq!(named(fixture.restore()), path);
            open.write_all_at(&byte, at as u64).unwrap();
            // A restore that failed has put nothing in its place.
            for name in TOP_LEVEL {
                assert!(!fixture.path("target").join(name).exists());
            }
        }
    }
    // With the bytes right again it goes on where it was. The second name of a file has
    // shown the change to the source as well.
    fixture.restore().unwrap();
    fixture.assert_restored();
}

#[test]
fn damage_at_any_place_is_refused_by_the_name_of_the_file() {
    let cases = std::env::var("PULSE_INDEX_DAMAGES");
    let cases: u64 = cases.map_or(60, |cases| cases.parse().unwrap());
    let fixture = Fixture::made();
    let manifests = ["manifest.json", "manifest.b3"];
    let written = FILES.iter().filter(|(_, len)| *len > 0);
    let names: Vec<&str> = written.map(|(path, _)| *path).chain(manifests).collect();
    for case in 0..cases {
        let random = blake3::hash(&case.to_le_bytes());
        let [a, b, c, d, place, kind, ..] = *random.as_bytes();
        let name = names[usize::from(place) % names.len()];
        let path = fixture.path("snapshot").join(name);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        let at = u32::from_le_bytes([a, b, c, d]) as usize % bad.len();
        if kind.is_multiple_of(3) {
            bad.truncate(at);
        } else {
            bad[at] ^= 1 << (kind % 8);
        }
        let put = |bytes: &[u8]| {
            // It may be the source's file by another name.
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
        };
        put(&bad);
        let verified = Snapshot::open(&fixture.path("snapshot"))
            .and_then(|snapshot| snapshot.verify(&Progress::default()));
        if manifests.contains(&name) {
            assert!(verified.is_err(), "case {case}: {name} at {at}");
            assert!(fixture.restore().is_err(), "case {case}: {name} at {at}");
        } else {
            assert_eq!(named(verified), name, "case {case}: at {at}");
            assert_eq!(named(fixture.restore()), name, "case {case}: at {at}");
        }
        for name in TOP_LEVEL {
            assert!(!fixture.path("target").join(name).exists(), "case {case}");
        }
        put(&good);
        // What was proven would not be read again.
        let _ = fs::remove_dir_all(fixture.path("target"));
    }
    fixture.restore().unwrap();
    fixture.assert_restored();
}

#[test]
fn files_that_are_short_long_missing_added_or_links_are_refused() {
    for (path, len) in FILES {
        let fixture = Fixture::made();
        let file = fixture.path("snapshot").join(path);
        let moved = fixture.path("moved");
        fs::rename(&file, &moved).unwrap();
        assert_eq!(named(fixture.restore()), path);
        symlink(&moved, &file).unwrap();
        assert_eq!(named(fixture.restore()), path);
        fs::remove_file(&file).unwrap();
        fs::copy(&moved, &file).unwrap();
        let set_len = |len: usize| {
            let open = fs::OpenOptions::new().write(true).open(&file).unwrap();
            open.set_len(len as u64).unwrap();
        };
        set_len(len + 1);
        assert_eq!(named(fixture.restore()), path);
        if len > 0 {
            set_len(len - 1);
            assert_eq!(named(fixture.restore()), path);
        }
        fs::copy(&moved, &file).unwrap();
        let extra = file.with_file_name("extra.dat");
        fs::write(&extra, b"").unwrap();
        assert!(named(fixture.restore()).ends_with("extra.dat"));
    }
}

#[test]
fn a_manifest_with_any_bit_changed_is_refused() {
    let fixture = Fixture::made();
    for name in ["manifest.json", "manifest.b3"] {
        let path = fixture.path("snapshot").join(name);
        let good = fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 7);
            fs::write(&path, &bad).unwrap();
            assert!(Snapshot::open(&fixture.path("snapshot")).is_err(), "{at}");
        }
        fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert!(Snapshot::open(&fixture.path("snapshot")).is_err());
        fs::write(&path, &good).unwrap();
    }
    Snapshot::open(&fixture.path("snapshot")).unwrap();
}

#[test]
fn a_manifest_that_its_author_made_wrong_is_refused() {
    let changes: [(&str, &str); 9] = [
        ("\"format\": 1", "\"format\": 2"),
        ("\"headers.dat\"", "\"../headers.dat\""),
        ("\"headers.dat\"", "\"/etc/passwd\""),
        ("\"headers.dat\"", "\"index/../headers.dat\""),
        ("\"headers.dat\"", "\"identity.key\""),
        ("\"headers.dat\"", "\"index/000012.sst\""),
        ("\"size\": 136", "\"size\": 0"),
        ("\"size\": 136", "\"size\": 18446744073709551615"),
        ("\"chunk_len\": 16777216", "\"chunk_len\": 0"),
    ];
    for (from, to) in changes {
        let fixture = Fixture::made();
        fixture.rewrite(|text| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        });
        assert!(fixture.restore().is_err(), "{to}");
        assert!(!fixture.path("target/restore.partial").exists());
        assert!(!fixture.path("headers.dat").exists());
    }
    let fixture = Fixture::made();
    fixture.rewrite(|text| text.replacen("\"format\": 1", "\"format\": 2", 1));
    assert!(matches!(
        fixture.restore(),
        Err(SnapshotError::Format { found: 2, .. })
    ));
}

#[test]
fn names_are_plain_and_in_known_folders() {
    for good in [
        "headers.dat",
        "index/MANIFEST-000004",
        "index/OPTIONS-000007",
        "kernel/blocks/xor.dat",
        "kernel/blocks/index/000003.log",
        "kernel/chainstate/000003.ldb",
    ] {
        assert!(is_known_path(good), "{good}");
    }
    for bad in [
        "",
        "/",
        "identity.key",
        "node.json",
        "manifest.json",
        "index/",
        "index/..",
        "index/.hidden",
        "index//a",
        "index/a/b",
        "/index/a",
        "./index/a",
        "meta/db",
        "kernel/a",
        "index/headers.dat\0",
        "index/a b",
        "kernel/blocks/../chainstate/a",
        "kernel/blocks/headers.dat/..",
    ] {
        assert!(!is_known_path(bad), "{bad}");
    }
}

#[test]
fn a_restore_cut_short_goes_on_also_with_another_snapshot() {
    let fixture = Fixture::made();
    let target = fixture.path("target");
    fs::create_dir_all(&target).unwrap();
    let snapshot = Snapshot::open(&fixture.path("snapshot")).unwrap();
    // Cut while copying: one good chunk, one bad one, a stranger.
    let staging = Staging::open(&target, snapshot.manifest().clone()).unwrap();
    let bytes = fs::read(fixture.path("source").join("headers.dat")).unwrap();
    staging.put_chunk(0, 0, &bytes).unwrap();
    assert!(staging.put_chunk(1, 0, &bytes).is_err());
    assert!(matches!(
        staging.place(),
        Err(SnapshotError::Incomplete { .. })
    ));
    let staged = |path: &str| target.join(STAGING_FOLDER).join(path);
    fs::write(staged("index/000012.sst"), vec![1; 40_000]).unwrap();
    fs::write(staged("index/999999.sst"), b"of another snapshot").unwrap();
    // Cut while placing.
    fs::rename(staged("kernel"), target.join("kernel")).unwrap();
    fixture.restore().unwrap();
    fixture.assert_restored();
}

#[test]
fn the_space_is_asked_for_before_anything_is_written() {
    let fixture = Fixture::made();
    let mut manifest = Snapshot::open(&fixture.path("snapshot"))
        .unwrap()
        .manifest()
        .clone();
    manifest.files[0].size = 1 << 60;
    let target = fixture.path("target");
    fs::create_dir(&target).unwrap();
    assert!(matches!(
        Staging::open(&target, manifest),
        Err(SnapshotError::NoSpace { .. })
    ));
    assert!(is_empty(&target.join(STAGING_FOLDER)));
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().next().is_none()
}
