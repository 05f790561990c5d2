//! Snapshots of a running node and of one that does not run; and what is refused.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use pulse_primitives::bitcoin::{Amount, Block, Network, ScriptBuf, TxOut};
use pulse_simulator::{Generator, GeneratorConfig};
use pulse_testkit::{
    Behaviour, ChainBuilder, ChainData, Exit, NodeOptions, PulseNode, ScriptedPeer,
};
use serde_json::Value;

use super::common::{
    DEADLINE, SALT, assert_blocks, assert_gone, digest, metric, options, params, served,
};

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
        let exit = options("regtest")
            .data_dir(&target)
            .args(["verify"])
            .run_to_exit(DEADLINE);
        assert!(exit.status.success(), "{}{}", exit.stdout, exit.stderr);
        assert!(exit.stdout.lines().any(|line| line == "differences 0"));
    }
    let manifest: Value =
        serde_json::from_slice(&fs::read(first.join("manifest.json")).unwrap()).unwrap();
    let commitment = manifest["snapshot"]["utxo_commitment"].as_str().unwrap();
    assert_eq!(commitment.len(), 64);
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
    let refused = |command: &str, name: &str| {
        let exit = snapshot(command, &dir, &target);
        assert!(
            !exit.status.success() && exit.stderr.contains(name),
            "{}",
            exit.stderr
        );
    };
    // Names, sizes and the manifest are looked at before anything is written.
    let (name, other) = ("kernel/blocks/blk00000.dat", "kernel/blocks/xor.dat");
    let (file, extra) = (dir.join(name), dir.join("index/extra.sst"));
    let good = fs::read(&file).unwrap();
    let write = |path: &Path, bytes: &[u8]| {
        // It may have the node's file for its other name.
        let _ = fs::remove_file(path);
        fs::write(path, bytes).unwrap();
    };
    write(&file, &good[..good.len() - 1]);
    refused("restore", name);
    fs::remove_file(&file).unwrap();
    refused("restore", name);
    write(&file, &good);
    write(&extra, b"extra");
    refused("restore", "index/extra.sst");
    fs::remove_file(&extra).unwrap();
    let saved = fs::read(dir.join(other)).unwrap();
    fs::remove_file(dir.join(other)).unwrap();
    refused("verify", other);
    write(&dir.join(other), &saved);
    let manifest = dir.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    write(
        &manifest,
        text.replace("\"height\": 110", "\"height\": 111")
            .as_bytes(),
    );
    refused("restore", "manifest");
    write(&manifest, text.as_bytes());
    assert!(!target.exists());
    // A changed byte shows when it is read; nothing starts then.
    let mut bad = good.clone();
    bad[1000] ^= 1;
    write(&file, &bad);
    refused("verify", name);
    refused("restore", name);
    let exit = salted(&peer).data_dir(&target).run_to_exit(DEADLINE);
    assert!(!exit.status.success() && exit.stderr.contains("restore"));
    write(&file, &good);
    assert!(snapshot("restore", &dir, &target).status.success());
    let mut restored = salted(&peer).data_dir(&target).start();
    restored.wait_synced_to(110, DEADLINE);
}

#[test]
fn a_killed_create_leaves_no_snapshot_and_an_unharmed_node() {
    let blocks = generated(130);
    let peer = ScriptedPeer::honest(served(Network::Regtest, &blocks));
    let place = tempfile::tempdir().unwrap();
    let mut node = salted(&peer).start();
    node.wait_synced_to(130, DEADLINE);
    let data_dir = node.data_dir().to_owned();
    let dir = place.path().join("snapshot");
    for pause in [5, 20, 60] {
        thread::scope(|scope| {
            let asked = scope.spawn(|| snapshot("create", &dir, &data_dir));
            let partial = dir.with_extension("partial");
            let start = Instant::now();
            while !partial.exists() && !dir.exists() && start.elapsed() < DEADLINE {
                thread::sleep(Duration::from_millis(1));
            }
            thread::sleep(Duration::from_millis(pause));
            node.kill();
            let exit = asked.join().unwrap();
            // It may have been done before the kill; then it is whole.
            assert_eq!(exit.status.success() || dir.exists(), dir.exists());
        });
        if dir.exists() {
            assert!(snapshot("verify", &dir, &data_dir).status.success());
            fs::remove_dir_all(&dir).unwrap();
        }
        node = node.restart();
        node.wait_synced_to(130, DEADLINE);
    }
    assert_blocks(&node, &blocks);
    let exit = snapshot("create", &dir, &data_dir);
    assert!(exit.status.success(), "{}", exit.stderr);
    assert!(snapshot("verify", &dir, &data_dir).status.success());
    assert!(node.terminate(DEADLINE).status.success());
    let expected = digest("regtest", &data_dir);

    // A killed restore goes on with the same command.
    let target = place.path().join("target");
    let mut command = Command::new(env!("CARGO_BIN_EXE_pulse-node"));
    command
        .args(["--network", "regtest", "--data-dir"])
        .arg(&target);
    command.args(["snapshot", "restore"]).arg(&dir);
    let mut restoring = command.spawn().unwrap();
    let start = Instant::now();
    while !target.join("restore.partial").exists()
        && !target.join("node.json").exists()
        && start.elapsed() < DEADLINE
    {
        thread::sleep(Duration::from_millis(1));
    }
    let _ = restoring.kill();
    restoring.wait().unwrap();
    if !target.join("node.json").exists() {
        let exit = snapshot("restore", &dir, &target);
        assert!(exit.status.success(), "{}", exit.stderr);
    }
    let mut restored = salted(&peer).data_dir(&target).start();
    restored.wait_synced_to(130, DEADLINE);
    assert!(restored.terminate(DEADLINE).status.success());
    assert_eq!(digest("regtest", &target), expected);
}

/// A file that is copied while the kernel is closed and takes a while, so that it can be
/// seen that it is.
struct Padding(PathBuf);

impl Padding {
    const BYTES: u64 = 1 << 30;

    fn put(data_dir: &Path) -> Self {
        let path = data_dir.join("kernel/chainstate/padding");
        fs::File::create(&path)
            .unwrap()
            .set_len(Self::BYTES)
            .unwrap();
        Self(path)
    }

    /// Asks for a snapshot and waits until the padding is being copied.
    fn ask(dir: &Path, data_dir: &Path) -> Child {
        let partial = dir.with_extension("partial");
        if partial.exists() {
            // Of a node that was killed.
            fs::remove_dir_all(&partial).unwrap();
        }
        let child = create_process(dir, data_dir).spawn().unwrap();
        let copied = partial.join("kernel/chainstate/padding");
        let start = Instant::now();
        while !copied.exists() {
            assert!(start.elapsed() < DEADLINE);
            thread::sleep(Duration::from_millis(1));
        }
        child
    }
}

fn create_process(dir: &Path, data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pulse-node"));
    command.args(["--network", "regtest", "--data-dir"]);
    command.arg(data_dir).args(["snapshot", "create"]).arg(dir);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// A block of almost a megabyte.
fn large_block(chain: &mut ChainBuilder, number: u32) -> Block {
    let mut script = vec![0x6a];
    script.extend_from_slice(&number.to_le_bytes());
    script.resize(980_000, 0x51);
    let output = TxOut {
        value: Amount::ZERO,
        script_pubkey: ScriptBuf::from_bytes(script),
    };
    chain.mine_outputs(vec![output], vec![]).clone()
}

const REOPENED: &str = "chain closed and opened again";

fn reopened(node: &PulseNode) -> usize {
    node.log().matches(REOPENED).count()
}

#[test]
fn a_kill_or_a_stop_while_the_kernel_is_closed_harms_nothing() {
    let blocks = generated(150);
    let peer = ScriptedPeer::honest(served(Network::Regtest, &blocks[..=130]));
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("snapshot");
    let mut node = salted(&peer).start();
    node.wait_synced_to(130, DEADLINE);
    let data_dir = node.data_dir().to_owned();
    let padding = Padding::put(&data_dir);

    // The node is killed: its log does not say that the kernel was opened again.
    let mut hit = false;
    for _ in 0..5 {
        let before = reopened(&node);
        let mut asked = Padding::ask(&dir, &data_dir);
        node.kill();
        assert!(!asked.wait().unwrap().success());
        hit = reopened(&node) == before;
        assert!(!dir.exists());
        node = node.restart();
        node.wait_synced_to(130, DEADLINE);
        if hit {
            break;
        }
    }
    assert!(hit, "the kernel was open again each time");

    // The client goes away: copying ends, the kernel opens, and blocks are taken again.
    let partial = dir.with_extension("partial");
    let mut cut_short = false;
    for _ in 0..5 {
        let before = reopened(&node);
        let mut asked = Padding::ask(&dir, &data_dir);
        asked.kill().unwrap();
        asked.wait().unwrap();
        node.wait_until("the end of the copy", DEADLINE, |node| {
            !partial.exists() && reopened(node) == before + 1
        });
        cut_short = !dir.exists();
        if cut_short {
            break;
        }
        fs::remove_dir_all(&dir).unwrap();
    }
    assert!(cut_short, "the copy was finished each time");
    peer.push_blocks(&blocks[131..]);
    node.wait_synced_to(150, DEADLINE);

    // The node is stopped: it does not wait for the copy.
    let mut asked = Padding::ask(&dir, &data_dir);
    assert!(node.terminate(DEADLINE).status.success());
    assert_eq!(asked.wait().unwrap().success(), dir.exists());
    assert!(!partial.exists());
    if dir.exists() {
        fs::remove_dir_all(&dir).unwrap();
    }
    fs::remove_file(&padding.0).unwrap();
    let exit = snapshot("create", &dir, &data_dir);
    assert!(exit.status.success(), "{}", exit.stderr);
    assert!(snapshot("verify", &dir, &data_dir).status.success());
}

#[test]
fn a_restored_node_follows_a_reorganisation_at_once() {
    let Some(data) = ChainData::locate() else {
        return;
    };
    let (old, new) = data.regtest_reorg();
    let (first, second) = (
        ScriptedPeer::honest(served(Network::Regtest, &old)),
        ScriptedPeer::honest(served(Network::Regtest, &new)),
    );
    let mut node = salted(&first).start();
    node.wait_synced_to_hash(old[10].block_hash(), DEADLINE);
    let place = tempfile::tempdir().unwrap();
    let (dir, target) = (place.path().join("snapshot"), place.path().join("target"));
    let exit = snapshot("create", &dir, node.data_dir());
    assert!(exit.status.success(), "{}", exit.stderr);
    assert!(snapshot("restore", &dir, &target).status.success());
    let mut restored = salted(&second).data_dir(&target).start();
    restored.wait_synced_to_hash(new[16].block_hash(), DEADLINE);
    assert_blocks(&restored, &new);
    assert_gone(&restored, &old[6..]);
    assert!(restored.terminate(DEADLINE).status.success());
    let mut plain = salted(&second).start();
    plain.wait_synced_to_hash(new[16].block_hash(), DEADLINE);
    assert!(plain.terminate(DEADLINE).status.success());
    assert_eq!(
        digest("regtest", &target),
        digest("regtest", plain.data_dir())
    );
}

#[test]
fn a_snapshot_in_the_bulk_load_is_one_of_a_block_on_the_way() {
    let blocks = generated(260);
    let chain = served(Network::Regtest, &blocks);
    let slow = ScriptedPeer::start(
        chain.clone(),
        &[Behaviour::Delay(Duration::from_millis(15))],
    );
    let fast = ScriptedPeer::honest(chain);
    let mut node = salted(&slow)
        .env("PULSE_INDEX__BULK_LAG_BLOCKS", "10")
        .start();
    node.wait_until("some blocks", DEADLINE, |node| {
        let accepted = metric(node, "pulse_sync_blocks_total{verdict=\"accepted\"}");
        accepted >= 30.0
    });
    let place = tempfile::tempdir().unwrap();
    let (dir, target) = (place.path().join("snapshot"), place.path().join("target"));
    let exit = snapshot("create", &dir, node.data_dir());
    assert!(exit.status.success(), "{}", exit.stderr);
    // The snapshot may be made before the kernel is open again.
    node.wait_until("the kernel", DEADLINE, |node| node.log().contains(REOPENED));
    let log = node.log();
    let begun = log.find("bulk load of the index begins").unwrap();
    let closed = log.find(REOPENED).unwrap();
    let ended = log.find("bulk load of the index has ended");
    assert!(
        begun < closed && ended.is_none_or(|ended| closed < ended),
        "{log}"
    );
    assert!(snapshot("verify", &dir, node.data_dir()).status.success());
    // The load goes on beside it.
    node.wait_synced_to(260, DEADLINE);
    assert!(node.terminate(DEADLINE).status.success());
    let expected = digest("regtest", node.data_dir());
    let exit = snapshot("restore", &dir, &target);
    assert!(exit.status.success(), "{}", exit.stderr);
    let mut restored = salted(&fast).data_dir(&target).start();
    restored.wait_synced_to(260, DEADLINE);
    assert!(restored.terminate(DEADLINE).status.success());
    assert_eq!(digest("regtest", &target), expected);
}

#[test]
fn a_place_that_cannot_be_written_leaves_nothing_behind_and_the_node_goes_on() {
    let blocks = generated(140);
    let peer = ScriptedPeer::honest(served(Network::Regtest, &blocks[..=130]));
    let mut node = salted(&peer).start();
    node.wait_synced_to(130, DEADLINE);
    let data_dir = node.data_dir().to_owned();
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("snapshot");
    let refused = |dir: &Path, part: &str| {
        let exit = snapshot("create", dir, &data_dir);
        assert!(!exit.status.success());
        assert!(exit.stderr.contains(part), "{}", exit.stderr);
        assert!(!dir.exists() && !dir.with_extension("partial").exists());
    };
    // Where nothing can be made, not even by the superuser.
    refused(Path::new("/proc/snapshot"), "/proc/snapshot.partial");
    // What has to be copied does not fit.
    let large = data_dir.join("kernel/blocks/blk99999.dat");
    fs::File::create(&large).unwrap().set_len(8 << 40).unwrap();
    refused(&dir, "bytes");
    fs::remove_file(&large).unwrap();
    peer.push_blocks(&blocks[131..]);
    node.wait_synced_to(140, DEADLINE);
    assert!(node.terminate(DEADLINE).status.success());

    // The disk becomes full while the kernel's files are copied: a limit on the size of files
    // stands for it.
    let padding = data_dir.join("kernel/chainstate/padding");
    fs::File::create(&padding)
        .unwrap()
        .set_len(64 << 20)
        .unwrap();
    let create = create_process(&dir, &data_dir);
    let exit = Command::new("bash")
        .args(["-c", r#"trap "" XFSZ; ulimit -f 32768; exec "$@""#, "bash"])
        .arg(create.get_program())
        .args(create.get_args())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&exit.stderr);
    assert_eq!(exit.status.code(), Some(1), "{text}");
    assert!(
        text.contains("padding") && text.contains("File too large"),
        "{text}"
    );
    assert!(!dir.exists() && !dir.with_extension("partial").exists());
    fs::remove_file(&padding).unwrap();
    let exit = snapshot("create", &dir, &data_dir);
    assert!(exit.status.success(), "{}", exit.stderr);
    let mut node = salted(&peer).data_dir(&data_dir).start();
    node.wait_synced_to(140, DEADLINE);
}

/// Block files of full size, 128 MiB: what the kernel has left for good has two names.
#[test]
#[ignore = "300 MB of blocks"]
fn settled_block_files_are_linked_and_all_others_copied() {
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    let mut blocks = vec![params(Network::Regtest).genesis()];
    for number in 0..300u32 {
        blocks.push(large_block(&mut chain, number));
    }
    let peer = ScriptedPeer::honest(served(Network::Regtest, &blocks[..=290]));
    let mut node = salted(&peer).start();
    node.wait_synced_to(290, DEADLINE);
    let data_dir = node.data_dir().to_owned();
    let dir = data_dir.with_file_name("snapshot");
    let exit = snapshot("create", &dir, &data_dir);
    assert!(exit.status.success(), "{}", exit.stderr);
    let same = |name: &str| {
        let inode = |root: &Path| {
            fs::metadata(root.join("kernel/blocks").join(name))
                .unwrap()
                .ino()
        };
        inode(&dir) == inode(&data_dir)
    };
    for name in ["blk00000.dat", "rev00000.dat"] {
        assert!(same(name), "{name}");
    }
    for name in [
        "blk00001.dat",
        "rev00001.dat",
        "blk00002.dat",
        "rev00002.dat",
    ] {
        assert!(!same(name), "{name}");
    }
    // What the node writes from now on does not reach the snapshot.
    peer.push_blocks(&blocks[291..]);
    node.wait_synced_to(300, DEADLINE);
    assert!(node.terminate(DEADLINE).status.success());
    let exit = snapshot("verify", &dir, &data_dir);
    assert!(exit.status.success(), "{}", exit.stderr);
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("target");
    assert!(snapshot("restore", &dir, &target).status.success());
    fs::remove_dir_all(&dir).unwrap();
    let mut restored = salted(&peer).data_dir(&target).start();
    restored.wait_synced_to(300, DEADLINE);
    assert!(restored.terminate(DEADLINE).status.success());
    assert_eq!(digest("regtest", &target), digest("regtest", &data_dir));
}
