//! How fast a block is everywhere in a fleet, and what siblings cost that do nothing.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use pulse_primitives::bitcoin::{Amount, BlockHash, Network, ScriptBuf, TxOut};
use pulse_testkit::{ChainBuilder, NodeOptions, PulseNode, ScriptedPeer};

use crate::e2e::{
    common::{DEADLINE, params, served},
    fleet::{Fleet, wait_for_siblings},
};

/// Nodes beside the gateway.
const SIBLINGS: usize = 7;
const ROUNDS: usize = 9;
/// Blocks before the first of these.
const BLOCKS_BEFORE: u32 = 5;
/// Outputs of a block, as many as a real one of a megabyte has, with the bytes that its inputs have
/// beside them.
const OUTPUTS: u32 = 6_000;
const OUTPUT_LEN: usize = 156;
/// How long idle nodes are watched.
const IDLE: Duration = Duration::from_secs(20);

/// A gateway and its siblings, all connected with each other.
fn fleet_of(
    fleet: &Fleet,
    siblings: usize,
    peer: &ScriptedPeer,
    tip: BlockHash,
    change: impl Fn(NodeOptions) -> NodeOptions,
) -> Vec<PulseNode> {
    let mut nodes = vec![change(fleet.node(&[]).connect(peer.addr())).start()];
    for _ in 0..siblings {
        let node = change(fleet.private(&[&nodes[0]])).start();
        nodes.push(node);
    }
    for number in 0..nodes.len() {
        let (before, rest) = nodes.split_at_mut(number);
        let (node, after) = rest.split_first_mut().unwrap();
        let others: Vec<_> = before.iter().chain(after.iter()).collect();
        node.wait_synced_to_hash(tip, DEADLINE);
        wait_for_siblings(node, &others);
    }
    nodes
}

/// Prints, for each block, the time from the first node's having its bytes until all have them, and
/// until the last one has connected it, after the first had.
#[test]
#[ignore = "a measurement, for a quiet machine"]
#[allow(clippy::print_stdout, reason = "the figures are what it is for")]
fn a_block_to_seven_siblings() {
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    // Ten minutes apart, the last one now: new blocks as they are at the tip of a network.
    let rounds = u32::try_from(ROUNDS).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = u32::try_from(now.as_secs()).unwrap();
    chain.not_before(now - (BLOCKS_BEFORE + rounds) * 600);
    chain.mine_empty_blocks(1);
    chain.not_before(0);
    chain.mine_empty_blocks(BLOCKS_BEFORE);
    let peer = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
    let fleet = Fleet::new("b1");
    let mut nodes = fleet_of(&fleet, SIBLINGS, &peer, chain.tip_hash(), |options| {
        options.env("PULSE_LOG__FILTER", "info,pulse_node::sync=debug")
    });
    println!("| bytes at all ms | connected by all ms | kernel, mean of the nodes, ms |");
    let mut all = Vec::new();
    for round in 0..ROUNDS {
        let outputs = (0..OUTPUTS).map(|number| {
            let mut script = vec![0x51; OUTPUT_LEN];
            script[1..5].copy_from_slice(&number.to_le_bytes());
            script[5] = u8::try_from(round).unwrap();
            TxOut {
                value: Amount::ZERO,
                script_pubkey: ScriptBuf::from_bytes(script),
            }
        });
        let block = chain.mine_outputs(outputs.collect(), Vec::new()).clone();
        peer.push_block(&block);
        for node in &mut nodes {
            node.wait_synced_to_hash(block.block_hash(), DEADLINE);
        }
        let hash = block.block_hash().to_string();
        let spread = |what: &str| {
            let times = nodes.iter().map(|node| logged(node, what, &hash).0);
            let times: Vec<_> = times.collect();
            let first = times.iter().copied().fold(f64::INFINITY, f64::min);
            let last = times.iter().copied().fold(0.0, f64::max);
            (last - first) * 1e3
        };
        let (bytes, connected) = (spread("block received"), spread("block judged"));
        let kernel: f64 = nodes
            .iter()
            .map(|node| {
                let (_, line) = logged(node, "block judged", &hash);
                let (_, elapsed) = line.split_once("elapsed_ms=").unwrap();
                elapsed.split(' ').next().unwrap().parse::<f64>().unwrap()
            })
            .sum();
        let count = f64::from(u32::try_from(nodes.len()).unwrap());
        println!("| {bytes:.1} | {connected:.1} | {:.1} |", kernel / count);
        all.push(bytes);
    }
    all.sort_by(f64::total_cmp);
    println!(
        "bytes at all of {SIBLINGS} siblings: median {:.1} ms, least {:.1}, most {:.1}",
        all[ROUNDS / 2],
        all[0],
        all[ROUNDS - 1]
    );
}

/// When a node wrote a line about a block, in seconds of the day, and the line.
fn logged(node: &PulseNode, what: &str, hash: &str) -> (f64, String) {
    let log = plain(&node.log());
    let line = log
        .lines()
        .find(|line| line.contains(what) && line.contains(hash))
        .unwrap_or_else(|| panic!("no {what} of {hash}\n{log}"));
    let (_, time) = line.split_once('T').unwrap();
    let (time, _) = time.split_once('Z').unwrap();
    let parts = time.split(':').map(|part| part.parse::<f64>().unwrap());
    let seconds = parts.fold(0.0, |sum, part| sum * 60.0 + part);
    (seconds, line.to_owned())
}

/// Without the colours of a terminal.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut parts = text.split('\u{1b}');
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        plain.push_str(part.split_once('m').map_or("", |(_, rest)| rest));
    }
    plain
}

/// Prints what a node costs that does nothing, alone and with siblings that do nothing.
#[test]
#[ignore = "a measurement, for a quiet machine"]
#[allow(clippy::print_stdout, reason = "the figures are what it is for")]
fn siblings_that_do_nothing() {
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    chain.mine_empty_blocks(20);
    let peer = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
    println!("| siblings | CPU ms per second | memory MiB |");
    for siblings in [0, 1, 3, SIBLINGS] {
        let fleet = Fleet::new("b2");
        let nodes = fleet_of(&fleet, siblings, &peer, chain.tip_hash(), |options| options);
        let before = (Instant::now(), cpu_seconds(&nodes[0]));
        std::thread::sleep(IDLE);
        let cpu = cpu_seconds(&nodes[0]) - before.1;
        let per_second = cpu * 1e3 / before.0.elapsed().as_secs_f64();
        println!(
            "| {siblings} | {per_second:.1} | {} |",
            memory_mib(&nodes[0])
        );
    }
}

/// User and system time of a node.
fn cpu_seconds(node: &PulseNode) -> f64 {
    let text = fs::read_to_string(format!("/proc/{}/stat", node.pid())).unwrap();
    let rest = text.rsplit_once(") ").unwrap().1;
    let mut fields = rest.split(' ').skip(11);
    let mut ticks = || fields.next().unwrap().parse::<f64>().unwrap();
    let tick = Command::new("getconf").arg("CLK_TCK").output().unwrap();
    let tick = String::from_utf8(tick.stdout).unwrap();
    (ticks() + ticks()) / tick.trim().parse::<f64>().unwrap()
}

/// Memory of a node that is its own.
fn memory_mib(node: &PulseNode) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() >> 10
}
