//! Reorganisations of real chains.

use pulse_primitives::bitcoin::Network;
use pulse_testkit::{ChainData, ScriptedPeer};

use super::common::{
    DEADLINE, SALT, assert_blocks, assert_golden, assert_gone, digest, options, served, start,
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
