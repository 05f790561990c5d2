//! A signet of one's own.

use pulse_primitives::{bitcoin::Network, network::ChainParams};
use pulse_testkit::{ChainBuilder, ScriptedPeer, ServedChain};

use super::common::{DEADLINE, assert_blocks, options};

#[test]
fn a_custom_signet_syncs_and_its_index_answers() {
    let params = ChainParams::new(Network::Signet, Some(vec![0x51]));
    let mut chain = ChainBuilder::new(params.clone());
    chain.mine_empty_blocks(30);
    let peer = ScriptedPeer::honest(ServedChain::from_blocks(&params, chain.blocks()));
    let mut node = options("signet")
        .args(["--signet-challenge", "51"])
        .connect(peer.addr())
        .start();
    node.wait_synced_to(30, DEADLINE);
    assert_blocks(&node, chain.blocks());
    let next = chain.mine_empty().clone();
    peer.push_block(&next);
    node.wait_synced_to_hash(next.block_hash(), DEADLINE);
}
