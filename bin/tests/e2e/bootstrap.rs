//! Nodes that begin with a snapshot of a sibling.

mod disk;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use pulse_primitives::bitcoin::{Amount, Network, ScriptBuf, TxOut, hashes::Hash};
use pulse_snapshot::{CHUNK_LEN, ChunkHash, Draft, FileEntry, Manifest, Progress};
use pulse_testkit::{ChainBuilder, NodeOptions, PulseNode, ScriptedPeer};
use serde_json::Value;
use tempfile::TempDir;

use super::common::{DEADLINE, assert_blocks, digest, metric, options, params, served};

const CHUNK: f64 = 16.0 * 1024.0 * 1024.0;
const RECEIVED: &str = "pulse_fleet_snapshot_bytes_total{direction=\"received\"}";

/// A fleet's key, and folders.
pub struct Fleet {
    dir: TempDir,
}

impl Fleet {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("key"), "77".repeat(32)).unwrap();
        Self { dir }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A node with these siblings as its seeds.
    pub fn node(&self, seeds: &[&PulseNode]) -> NodeOptions {
        let seeds: Vec<_> = seeds.iter().map(|node| address(node)).collect();
        options("regtest")
            .env("PULSE_FLEET__LISTEN", "127.0.0.1:0")
            .env("PULSE_FLEET__KEY_FILE", self.path("key").to_str().unwrap())
            .env("PULSE_FLEET__LOOKUP_SECS", "1")
            .env("PULSE_FLEET__SEEDS", &format!("{seeds:?}"))
    }

    /// The same, offering the snapshots in a folder with so many MiB a second.
    pub fn offering(&self, seeds: &[&PulseNode], shelf: &str, rate: u32) -> NodeOptions {
        self.node(seeds)
            .env(
                "PULSE_FLEET__SNAPSHOTS_DIR",
                self.path(shelf).to_str().unwrap(),
            )
            .env("PULSE_FLEET__SNAPSHOT_MIB_PER_SECOND", &rate.to_string())
    }

    /// A node that begins with a snapshot, and knows nobody but its siblings.
    pub fn newcomer(&self, seeds: &[&PulseNode]) -> NodeOptions {
        self.node(seeds)
            .env("PULSE_FLEET__ONLY_SIBLINGS", "true")
            .args(["--bootstrap", "snapshot"])
    }
}

/// Where a node listens for siblings.
fn address(node: &PulseNode) -> String {
    let stats: Value = node.get_json("/stats");
    let addrs = stats["fleet"]["listen"].as_array().unwrap().iter();
    let mut addrs = addrs.map(|addr| addr.as_str().unwrap());
    addrs
        .find(|addr| addr.contains("/tcp/"))
        .unwrap()
        .to_owned()
}

/// Mines blocks of almost a megabyte.
pub fn mine_large_blocks(chain: &mut ChainBuilder, count: u32) {
    for number in 0..count {
        let mut script = vec![0x6a];
        script.extend_from_slice(&number.to_le_bytes());
        script.resize(980_000, 0x51);
        let output = TxOut {
            value: Amount::ZERO,
            script_pubkey: ScriptBuf::from_bytes(script),
        };
        chain.mine_outputs(vec![output], vec![]);
    }
}

/// Snapshots in a folder.
fn shelved(shelf: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(shelf) else {
        return Vec::new();
    };
    let dirs = entries.map(|entry| entry.unwrap().path());
    dirs.filter(|dir| dir.extension().is_none() && dir.join("manifest.json").is_file())
        .collect()
}

/// Has a node make a snapshot in the folder `dir`.
pub fn make(node: &PulseNode, dir: &Path) {
    fs::create_dir_all(dir.parent().unwrap()).unwrap();
    let exit = options("regtest")
        .data_dir(node.data_dir())
        .args(["snapshot", "create", dir.to_str().unwrap()])
        .run_to_exit(DEADLINE);
    assert!(exit.status.success(), "{}", exit.stderr);
}

fn copy_tree(from: &Path, to: &Path, change: &impl Fn(&str, &mut Vec<u8>)) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &to, change);
            continue;
        }
        let mut bytes = fs::read(entry.path()).unwrap();
        change(entry.file_name().to_str().unwrap(), &mut bytes);
        fs::write(to, bytes).unwrap();
    }
}

#[test]
fn a_newcomer_goes_on_with_a_snapshot_where_it_was_killed_and_serves() {
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    chain.mine_empty_blocks(20);
    mine_large_blocks(&mut chain, 45);
    let peer = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
    let fleet = Fleet::new();
    // It makes the snapshot by itself, being asked for one an hour.
    let mut gateway = fleet
        .offering(&[], "shelf", 12)
        .env("PULSE_FLEET__SNAPSHOT_EVERY_HOURS", "1")
        .connect(peer.addr())
        .start();
    gateway.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    let shelf = fleet.path("shelf");
    gateway.wait_until("a snapshot", DEADLINE, |_| !shelved(&shelf).is_empty());

    let mut newcomer = fleet.newcomer(&[&gateway]).start_listening();
    newcomer.wait_until("a chunk", DEADLINE, |node| metric(node, RECEIVED) >= CHUNK);
    let health = newcomer.get("/health");
    assert_eq!(health.status, 503, "{}", health.text());
    assert!(health.text().contains("snapshot"), "{}", health.text());
    newcomer.kill();
    assert!(newcomer.data_dir().join("restore.partial").exists());
    // It is not taken for something else meanwhile.
    let by_blocks = fleet
        .node(&[&gateway])
        .args(["--http-addr", "127.0.0.1:0"])
        .data_dir(newcomer.data_dir());
    let exit = by_blocks.run_to_exit(DEADLINE);
    assert!(!exit.status.success());
    assert!(
        exit.stderr.contains("--bootstrap snapshot"),
        "{}",
        exit.stderr
    );

    newcomer = newcomer.restart();
    newcomer.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    let manifest = fs::read(shelved(&shelf)[0].join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let sizes = manifest["files"].as_array().unwrap().iter();
    let total: u64 = sizes.map(|file| file["size"].as_u64().unwrap()).sum();
    let again = metric(&newcomer, RECEIVED);
    assert!(
        again > 0.0 && again + CHUNK <= total as f64,
        "{again} of {total}"
    );
    assert!(!newcomer.data_dir().join("restore.partial").exists());

    // Both go on, and say the same.
    let before = chain.blocks().len();
    chain.mine_empty_blocks(3);
    peer.push_blocks(&chain.blocks()[before..]);
    for node in [&mut gateway, &mut newcomer] {
        node.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    }
    assert_blocks(&newcomer, chain.blocks());
    for node in [&mut gateway, &mut newcomer] {
        assert!(node.terminate(DEADLINE).status.success());
    }
    assert_eq!(
        digest("regtest", newcomer.data_dir()),
        digest("regtest", gateway.data_dir())
    );
    // A second start finds everything in its place, and computes anew what it was given.
    newcomer = newcomer.restart();
    newcomer.wait_until("its own word", DEADLINE, |node| trust(node) == "validated");
    assert_eq!(newcomer.tip_height(), Some(chain.height()));
    assert!(!newcomer.data_dir().join("replay").exists());
    let metrics = newcomer.get("/metrics");
    assert!(
        metrics
            .text()
            .contains("pulse_chain_trust{trust=\"validated\"} 1")
    );
    assert!(
        metrics
            .text()
            .contains("pulse_chain_trust{trust=\"sibling\"} 0")
    );
}

fn trust(node: &PulseNode) -> String {
    let stats: Value = node.get_json("/stats");
    stats["trust"].as_str().unwrap().to_owned()
}

#[test]
fn a_state_that_cannot_be_computed_anew_stays_a_siblings_word() {
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    chain.mine_empty_blocks(20);
    let peer = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
    let fleet = Fleet::new();
    let mut sibling = fleet
        .offering(&[], "shelf", 100)
        .connect(peer.addr())
        .start();
    assert_eq!(trust(&sibling), "validated");
    sibling.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    make(&sibling, &fleet.path("shelf/one"));
    let mut newcomer = fleet.newcomer(&[&sibling]).start();
    newcomer.wait_until("its own word", DEADLINE, |node| trust(node) == "validated");
    newcomer.terminate(DEADLINE);
    // As if it had been stopped before, and what it compares with were lost.
    let path = newcomer.data_dir().join("trust.json");
    let text = fs::read_to_string(&path).unwrap();
    let on_trust = text.replace("\"validated\"", "\"sibling\"");
    assert_ne!(text, on_trust);
    fs::write(&path, on_trust).unwrap();
    newcomer = newcomer.restart();
    newcomer.wait_until("the complaint", DEADLINE, |node| {
        node.log().contains("it stays on trust")
    });
    newcomer.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    let stats: Value = newcomer.get_json("/stats");
    assert_eq!(stats["trust"], "sibling");
    assert_eq!(stats["replay"]["target"], 20);
    let metrics = newcomer.get("/metrics");
    assert!(
        metrics
            .text()
            .contains("pulse_chain_trust{trust=\"sibling\"} 1")
    );
}

/// A snapshot like that in `from` without the first output of block 3, with hashes that fit.
fn forge(from: &Path, work: &Path, to: &Path, chain: &ChainBuilder) {
    copy_tree(from, work, &|_, _| ());
    let chainstate = work.join("kernel/chainstate");
    let options = rusty_leveldb::Options {
        create_if_missing: false,
        ..rusty_leveldb::Options::default()
    };
    let mut db = rusty_leveldb::DB::open(&chainstate, options).unwrap();
    let txid = chain.blocks()[3].txdata[0].compute_txid();
    let coin = [&b"C"[..], txid.as_byte_array(), &[0]].concat();
    assert!(db.get(&coin).is_some());
    db.delete(&coin).unwrap();
    db.close().unwrap();
    drop(db);
    let (manifest, _) = Manifest::read(from).unwrap();
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    let draft = Draft::begin(to).unwrap();
    for entry in fs::read_dir(&chainstate).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !name.starts_with("LO") {
            let place = format!("kernel/chainstate/{name}");
            draft.copy(&path, &place, &Progress::default()).unwrap();
        }
    }
    let others = manifest.files.iter();
    for file in others.filter(|file| !file.path.starts_with("kernel/chainstate/")) {
        let path = work.join(&file.path);
        draft.copy(&path, &file.path, &Progress::default()).unwrap();
    }
    draft
        .finish(manifest.snapshot, &Progress::default())
        .unwrap();
}

#[test]
fn a_snapshot_with_false_coins_is_found_out_and_the_node_stops_answering() {
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    chain.mine_empty_blocks(30);
    let peer = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
    let fleet = Fleet::new();
    let mut liar = fleet
        .offering(&[], "shelf", 100)
        .connect(peer.addr())
        .start();
    liar.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    make(&liar, &fleet.path("true/one"));
    let shelf = fleet.path("shelf/one");
    forge(&fleet.path("true/one"), &fleet.path("work"), &shelf, &chain);
    let mut newcomer = fleet.newcomer(&[&liar]).start_listening();
    let data_dir = newcomer.data_dir().to_owned();
    let refuted = || {
        let text = fs::read_to_string(data_dir.join("trust.json")).unwrap_or_default();
        text.contains("\"refuted\"").then_some(text)
    };
    newcomer.wait_until("the finding", DEADLINE, |_| refuted().is_some());
    let record: Value = serde_json::from_str(&refuted().unwrap()).unwrap();
    assert_eq!(record["vouchers"][0]["peer_id"], peer_id(&liar));
    let reason = record["reason"].as_str().unwrap();
    assert!(
        reason.contains("29 coins") && reason.contains("30 coins"),
        "{reason}"
    );

    // The process goes on, at another port of its choice, and refuses; so does the next one.
    let ask = |path: &str| {
        let text = fs::read_to_string(data_dir.join("listen.json")).ok()?;
        let listen: Value = serde_json::from_str(&text).ok()?;
        let url = format!("http://{}{path}", listen["http"].as_str()?);
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .build()
            .into();
        let mut reply = agent.get(url).call().ok()?;
        Some((
            reply.status().as_u16(),
            reply.body_mut().read_to_string().ok()?,
        ))
    };
    let refuses = |path: &str| {
        ask(path).is_some_and(|(status, text)| status == 503 && text.contains("A false snapshot"))
    };
    newcomer.wait_until("refusals", DEADLINE, |_| refuses("/blocks/tip/height"));
    assert!(refuses("/health") && refuses("/stats"));
    assert_eq!(ask("/health/live").unwrap().0, 200);
    let metrics = ask("/metrics").unwrap().1;
    assert!(
        metrics.contains("pulse_chain_trust{trust=\"refuted\"} 1"),
        "{metrics}"
    );
    // Nothing is deleted.
    for name in ["kernel", "index", "replay"] {
        assert!(data_dir.join(name).exists());
    }
    assert!(newcomer.terminate(DEADLINE).status.success());
    let newcomer = newcomer.restart();
    let reply = newcomer.get("/blocks/tip/height");
    assert_eq!(reply.status, 503);
    assert!(reply.text().contains("A false snapshot"));
}

fn peer_id(node: &PulseNode) -> Value {
    node.get_json::<Value>("/stats")["fleet"]["peer_id"].take()
}

#[test]
fn a_sibling_with_bad_chunks_is_cut_off_and_a_newcomer_starts_from_the_other() {
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    chain.mine_empty_blocks(30);
    let peer = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
    let fleet = Fleet::new();
    let mut good = fleet.offering(&[], "good", 3).connect(peer.addr()).start();
    good.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    make(&good, &fleet.path("good/one"));
    // The other has the same snapshot, with a byte changed in each file that has some.
    copy_tree(
        &fleet.path("good/one"),
        &fleet.path("bad/one"),
        &|name, bytes| {
            if !name.starts_with("manifest") && !bytes.is_empty() {
                bytes[0] ^= 1;
            }
        },
    );
    let bad = fleet.offering(&[&good], "bad", 100).start();
    let mut newcomer = fleet.newcomer(&[&good, &bad]).start();
    newcomer.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    assert_blocks(&newcomer, chain.blocks());
    assert!(metric(&newcomer, "pulse_fleet_punished_total") >= 1.0);
    assert!(
        newcomer
            .log()
            .contains("a chunk that does not meet its hash")
    );
}

#[test]
fn a_snapshot_that_was_begun_is_gone_on_with_and_given_up_only_after_a_while() {
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    chain.mine_empty_blocks(20);
    mine_large_blocks(&mut chain, 45);
    let peer = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
    let fleet = Fleet::new();
    let offering = |shelf| fleet.offering(&[], shelf, 12).connect(peer.addr()).start();
    let mut first = offering("first");
    first.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    make(&first, &fleet.path("first/one"));
    let before = chain.blocks().len();
    chain.mine_empty_blocks(1);
    peer.push_blocks(&chain.blocks()[before..]);
    // Has a snapshot with more work.
    let mut second = offering("second");
    second.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    make(&second, &fleet.path("second/one"));

    let dir = fleet.path("newcomer");
    let begin = |seeds: &[&PulseNode]| fleet.newcomer(seeds).data_dir(&dir).start_listening();
    let begins = |snapshot: &str| {
        let (_, hash) = Manifest::read(&fleet.path(snapshot)).unwrap();
        format!("fetching a snapshot manifest={hash}")
    };
    let (one, other) = (begins("first/one"), begins("second/one"));
    let mut newcomer = begin(&[&first]);
    newcomer.wait_until("a chunk", DEADLINE, |node| metric(node, RECEIVED) >= CHUNK);
    newcomer.kill();
    // All starts write to one log.
    let before = newcomer.log().len();
    let mut newcomer = begin(&[&first, &second]);
    newcomer.wait_until("the fetch", DEADLINE, |node| {
        node.log()[before..].contains("fetching a snapshot")
    });
    newcomer.kill();
    assert!(newcomer.log()[before..].contains(&one));
    drop(first);
    let begun = Instant::now();
    let mut newcomer = begin(&[&second]);
    newcomer.wait_until(&other, DEADLINE, |node| node.log().contains(&other));
    // Whoever has the other one might have come in this time.
    assert!(begun.elapsed() >= Duration::from_secs(10));
    newcomer.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
}

/// Has the snapshot in `dir` claim more work than any, and `change` what else it claims.
fn claim(dir: &Path, change: impl FnOnce(&mut Manifest)) {
    let (mut manifest, _) = Manifest::read(dir).unwrap();
    let work = &mut manifest.snapshot.chain_work;
    assert_eq!(&work[..2], "00");
    work.replace_range(..2, "ff");
    change(&mut manifest);
    let text = serde_json::to_string_pretty(&manifest).unwrap();
    let proof = format!("{}  manifest.json\n", blake3::hash(text.as_bytes()));
    fs::write(dir.join("manifest.json"), text).unwrap();
    fs::write(dir.join("manifest.b3"), proof).unwrap();
}

/// A file that no disk of a test has room for.
fn endless_file(dir: &Path) -> FileEntry {
    const CHUNKS: u32 = 1 << 18;
    let path = "kernel/blocks/blk00009.dat";
    let size = u64::from(CHUNKS) * CHUNK_LEN;
    let file = fs::File::create(dir.join(path)).unwrap();
    // 4 TiB of nothing.
    file.set_len(size).unwrap();
    FileEntry {
        path: path.to_owned(),
        size,
        chunks: vec![ChunkHash::of(b""); CHUNKS as usize],
    }
}

#[test]
fn a_snapshot_that_there_is_no_room_for_is_left_for_another() {
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    chain.mine_empty_blocks(30);
    let peer = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
    let fleet = Fleet::new();
    let mut good = fleet
        .offering(&[], "good", 100)
        .connect(peer.addr())
        .start();
    good.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    make(&good, &fleet.path("good/one"));
    let dir = fleet.path("large/one");
    copy_tree(&fleet.path("good/one"), &dir, &|_, _| ());
    let file = endless_file(&dir);
    claim(&dir, |manifest| {
        manifest.files.push(file);
        manifest.files.sort_by(|a, b| a.path.cmp(&b.path));
    });
    let large = fleet.offering(&[&good], "large", 100).start();
    let mut newcomer = fleet.newcomer(&[&large, &good]).start_listening();
    newcomer.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    drop(newcomer);
    // With that alone it ends, and says why.
    drop(good);
    let exit = fleet.newcomer(&[&large]).run_to_exit(DEADLINE);
    assert!(!exit.status.success());
    assert!(exit.stderr.contains("bytes free"), "{}", exit.stderr);
}

#[test]
fn a_snapshot_that_claims_more_work_than_its_headers_have_is_refused() {
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    chain.mine_empty_blocks(30);
    let peer = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
    let fleet = Fleet::new();
    let mut good = fleet
        .offering(&[], "good", 100)
        .connect(peer.addr())
        .start();
    good.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    make(&good, &fleet.path("good/one"));
    copy_tree(&fleet.path("good/one"), &fleet.path("bad/one"), &|_, _| ());
    claim(&fleet.path("bad/one"), |_| ());
    let bad = fleet.offering(&[&good], "bad", 100).start();
    let seeds = [&bad, &good];
    // With the liar alone there is nothing to begin with.
    let mut newcomer = fleet.newcomer(&seeds[..1]).start_listening();
    newcomer.wait_until("the refusal", DEADLINE, |node| {
        node.log().contains("another work than it claims")
    });
    newcomer.kill();
    assert!(!newcomer.data_dir().join("kernel").exists());
    let mut newcomer = newcomer.restart_with(fleet.newcomer(&seeds));
    newcomer.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
}
