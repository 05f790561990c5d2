//! How long a new node of a fleet takes from an empty directory to its first answer, with a
//! sibling's snapshot, beside a plain copy of the same files.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::Path,
    time::{Duration, Instant},
};

use pulse_primitives::bitcoin::{Network, consensus::serialize};
use pulse_testkit::{ChainBuilder, PulseNode, ScriptedPeer, ServedChain};

use super::fleet::plain;
use crate::e2e::{
    bootstrap::{Fleet, make, mine_large_blocks},
    common::params,
};

const DEADLINE: Duration = Duration::from_secs(3600);
/// Blocks that are mined between two writes to the file.
const RUN: u32 = 64;

/// `PULSE_SPEED_GIB` gibibytes of blocks (1 if it is not set), padded with `OP_RETURN` data.
/// Prints bytes a second of the copy, synced to the disk, and of the start.
#[test]
#[ignore = "a measurement, for a quiet machine"]
#[allow(clippy::print_stdout, reason = "the figures are what it is for")]
fn from_an_empty_directory_to_the_first_answer() {
    let gib: u32 = std::env::var("PULSE_SPEED_GIB").map_or(1, |text| text.parse().unwrap());
    let fleet = Fleet::new();
    let (file, tip, hash) = padded_chain(&fleet.path("chain"), gib);
    let served = ServedChain::from_file(&params(Network::Regtest), &file).unwrap();
    let peer = ScriptedPeer::honest(served);
    let mut gateway = fleet
        .offering(&[], "shelf", 1_000_000)
        .connect(peer.addr())
        .start();
    gateway.wait_synced_to_hash(hash, DEADLINE);
    drop(peer);
    fs::remove_file(file).unwrap();
    let snapshot = fleet.path("shelf/one");
    let started = Instant::now();
    make(&gateway, &snapshot);
    println!("snapshot made in {:.1} s", started.elapsed().as_secs_f64());

    let copied = fleet.path("copied");
    let started = Instant::now();
    let bytes = copy_synced(&snapshot, &copied).unwrap();
    let copy = started.elapsed();
    fs::remove_dir_all(copied).unwrap();

    let started = Instant::now();
    let newcomer = fleet.newcomer(&[&gateway]).start_listening();
    let serving = first_answer(&newcomer, tip, started);
    let rate = |time: Duration| bytes as f64 / 1e6 / time.as_secs_f64();
    println!(
        "| bytes | copy and sync s | MB/s | empty directory to first answer s | of that until all is in place | MB/s | of the copy's rate |"
    );
    println!(
        "| {bytes} | {:.1} | {:.0} | {:.1} | {:.1} | {:.0} | {:.0} % |",
        copy.as_secs_f64(),
        rate(copy),
        serving.as_secs_f64(),
        in_place(&newcomer).as_secs_f64(),
        rate(serving),
        100.0 * copy.as_secs_f64() / serving.as_secs_f64()
    );
}

/// How long a node says that it took to fetch its snapshot.
fn in_place(node: &PulseNode) -> Duration {
    let log = plain(&node.log());
    let line = log.lines().find(|line| line.contains("snapshot fetched"));
    let (_, elapsed) = line.unwrap().split_once("elapsed_ms=").unwrap();
    Duration::from_millis(elapsed.trim().parse().unwrap())
}

/// Writes a chain with blocks of almost a megabyte; gives its file, height and tip.
fn padded_chain(
    path: &Path,
    gib: u32,
) -> (
    std::path::PathBuf,
    u32,
    pulse_primitives::bitcoin::BlockHash,
) {
    let params = params(Network::Regtest);
    let mut chain = ChainBuilder::new(params.clone());
    let mut file = BufWriter::new(File::create(path).unwrap());
    let mut written = 0u64;
    while written < u64::from(gib) << 30 {
        let before = chain.blocks().len();
        mine_large_blocks(&mut chain, RUN);
        for block in &chain.blocks()[before..] {
            let bytes = serialize(block);
            let len = u32::try_from(bytes.len()).unwrap();
            file.write_all(&params.magic).unwrap();
            file.write_all(&len.to_le_bytes()).unwrap();
            file.write_all(&bytes).unwrap();
            written += u64::from(len);
        }
    }
    file.flush().unwrap();
    (path.to_owned(), chain.height(), chain.tip_hash())
}

/// Copies a folder and waits for the disk, as what is compared with it does.
fn copy_synced(from: &Path, to: &Path) -> io::Result<u64> {
    fs::create_dir_all(to)?;
    let mut bytes = 0;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            bytes += copy_synced(&entry.path(), &to)?;
        } else {
            bytes += fs::copy(entry.path(), &to)?;
            File::open(&to)?.sync_all()?;
        }
    }
    Ok(bytes)
}

/// Time until the node tells its tip.
fn first_answer(node: &PulseNode, tip: u32, started: Instant) -> Duration {
    let tip = tip.to_string();
    loop {
        let reply = node.try_get("/blocks/tip/height");
        if reply.is_ok_and(|reply| reply.status == 200 && reply.body == tip.as_bytes()) {
            return started.elapsed();
        }
        assert!(started.elapsed() < DEADLINE, "{}", node.log_tail());
        std::thread::sleep(Duration::from_millis(10));
    }
}
