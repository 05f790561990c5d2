//! Reorganisations of real chains.

use std::fs;

use pulse_primitives::bitcoin::Network;
use pulse_testkit::{ChainData, ScriptedPeer};

use super::{
    common::{
        DEADLINE, SALT, assert_blocks, assert_golden, assert_gone, digest, options, served, start,
    },
    proof::copy,
};

#[test]
fn a_reorganisation_of_2016_real_blocks_leaves_nothing_of_the_old_branch() {
    let Some(data) = ChainData::locate() else {
        return;
    };
    let (alt, main) = (data.mainnet_alt(), data.mainnet());
    let first = ScriptedPeer::honest(served(Network::Bitcoin, &alt));
    let mut node = options("mainnet")
        .connect(first.addr())
        .env("PULSE_INDEX__SALT", SALT)
        .start();
    node.wait_synced_to_hash(alt[2016].block_hash(), DEADLINE);
    assert!(node.terminate(DEADLINE).status.success());

    let second = ScriptedPeer::honest(served(Network::Bitcoin, &main));
    let dir = node.data_dir().to_owned();
    let mut other = options("mainnet")
        .data_dir(&dir)
        .connect(second.addr())
        .start();
    other.wait_synced_to(4312, DEADLINE);
    assert_golden(&other, &data.golden("mainnet-0-4312"));
    assert_gone(&other, &alt[1..]);
    assert!(other.terminate(DEADLINE).status.success());

    // Row for row as if the old branch had never been.
    let mut plain = options("mainnet")
        .connect(second.addr())
        .env("PULSE_INDEX__SALT", SALT)
        .start();
    plain.wait_synced_to(4312, DEADLINE);
    assert!(plain.terminate(DEADLINE).status.success());
    assert_eq!(digest("mainnet", &dir), digest("mainnet", plain.data_dir()));
}

#[test]
fn a_live_reorganisation_is_followed_while_the_node_runs() {
    let Some(data) = ChainData::locate() else {
        return;
    };
    let (old, new) = data.regtest_reorg();
    let peer = ScriptedPeer::honest(served(Network::Regtest, &old));
    let mut node = start("regtest", &[peer.addr()]);
    node.wait_synced_to_hash(old[10].block_hash(), DEADLINE);
    peer.push_blocks(&new);
    node.wait_synced_to_hash(new[16].block_hash(), DEADLINE);
    assert_blocks(&node, &new);
    assert_gone(&node, &old[6..]);
}

/// The changes that are stored of the newest blocks do not reach back to the fork, and the
/// block files no longer have the stale blocks.
#[test]
fn a_reorganisation_that_nothing_can_take_back_says_what_to_do() {
    let Some(data) = ChainData::locate() else {
        return;
    };
    let (old, new) = data.regtest_reorg();
    let peers = [&old, &new].map(|blocks| ScriptedPeer::honest(served(Network::Regtest, blocks)));
    let salted = |peer: usize| {
        options("regtest")
            .connect(peers[peer].addr())
            .env("PULSE_INDEX__SALT", SALT)
            .env("PULSE_INDEX__UNDO_BLOCKS", "2")
    };
    let mut node = salted(0).start();
    node.wait_synced_to_hash(old[10].block_hash(), DEADLINE);
    assert!(node.terminate(DEADLINE).status.success());
    let mut plain = salted(1).start();
    plain.wait_synced_to_hash(new[16].block_hash(), DEADLINE);
    assert!(plain.terminate(DEADLINE).status.success());
    let dir = node.data_dir().to_owned();
    fs::remove_dir_all(dir.join("kernel")).unwrap();
    copy(&plain.data_dir().join("kernel"), &dir.join("kernel"));

    let mut lost = salted(1).data_dir(&dir).start_listening();
    let exit = lost.wait_end(DEADLINE);
    assert_eq!(exit.status.code(), Some(1));
    let told = exit.stderr.lines().last().unwrap();
    // Two blocks were taken back; this is the first that could not be.
    assert!(told.contains(&old[8].block_hash().to_string()), "{told}");
    assert!(told.contains("pulse-node reindex"), "{told}");
    let command = |name: &str| salted(1).data_dir(&dir).args([name]).run_to_exit(DEADLINE);
    let exit = command("digest");
    assert!(exit.stdout.contains(&old[8].block_hash().to_string()));
    // And that helps.
    let exit = command("reindex");
    assert!(exit.status.success(), "{}", exit.stderr);
    let mut node = salted(1).data_dir(&dir).start();
    node.wait_synced_to_hash(new[16].block_hash(), DEADLINE);
    assert!(node.terminate(DEADLINE).status.success());
    assert_eq!(digest("regtest", &dir), digest("regtest", plain.data_dir()));
}
