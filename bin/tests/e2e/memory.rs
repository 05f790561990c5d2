//! Memory of the index when blocks are made to need much of it.

use std::fs;

use pulse_primitives::bitcoin::{Amount, Block, Network, ScriptBuf, TxOut};
use pulse_testkit::{ChainBuilder, PulseNode, ScriptedPeer};

use super::common::{DEADLINE, metric, options, params, served};

/// Blocks of as many outputs as fit, each to a script of its own: 75,000 rows of history and
/// as many unspent outputs in a megabyte.
fn hostile(count: u32) -> Vec<Block> {
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    for block in 0..count {
        let outputs = (0..75_000u32).map(|output| {
            let mut script = vec![0x51];
            script.extend_from_slice(&(block << 17 | output).to_le_bytes()[..3]);
            TxOut {
                value: Amount::ZERO,
                script_pubkey: ScriptBuf::from_bytes(script),
            }
        });
        chain.mine_outputs(outputs.collect(), vec![]);
    }
    chain.blocks().to_vec()
}

/// Most memory that a node has had, in bytes.
pub fn most_memory(node: &PulseNode) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.unwrap().trim().trim_end_matches(" kB");
    kib.parse::<u64>().unwrap() << 10
}

#[test]
#[ignore = "a million outputs, three times"]
fn blocks_full_of_outputs_keep_the_index_within_its_memory() {
    const BLOCKS: u32 = 12;
    const MEMORY_MIB: u64 = 64;
    /// As the index may go over its shares by a block each, and the allocator keeps some.
    const SPARE_MIB: u64 = 160;
    let blocks = hostile(BLOCKS);
    let peer = ScriptedPeer::honest(served(Network::Regtest, &blocks));
    let measured = |is_indexed: bool, lag: &str| {
        let mut node = options("regtest")
            .connect(peer.addr())
            .env(
                "PULSE_INDEX__ENABLED",
                if is_indexed { "true" } else { "false" },
            )
            .env("PULSE_INDEX__MEMORY_MIB", &MEMORY_MIB.to_string())
            .env("PULSE_INDEX__BULK_LAG_BLOCKS", lag)
            .start();
        let name = match is_indexed {
            true => "pulse_index_tip_height",
            false => "pulse_sync_blocks_total{verdict=\"accepted\"}",
        };
        node.wait_until("all blocks", DEADLINE, |node| {
            metric(node, name) >= f64::from(BLOCKS)
        });
        most_memory(&node)
    };
    let without = measured(false, "10");
    // With a log, and without one as on a large chain.
    for lag in ["1000000", "10"] {
        let with = measured(true, lag);
        let more_mib = with.saturating_sub(without) >> 20;
        assert!(
            more_mib <= MEMORY_MIB + SPARE_MIB,
            "{more_mib} MiB more than {} MiB",
            without >> 20
        );
    }
}
