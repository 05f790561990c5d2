//! A signet of one's own.

use pulse_primitives::{bitcoin::Network, network::ChainParams};
use pulse_testkit::{ChainBuilder, PulseNode, ScriptedPeer, ServedChain};

use super::common::{DEADLINE, assert_blocks, options};

#[test]
fn a_custom_signet_syncs_between_two_nodes_of_ours() {
    let params = ChainParams::new(Network::Signet, Some(vec![0x51]));
    let mut chain = ChainBuilder::new(params.clone());
    chain.mine_empty_blocks(30);
    let peer = ScriptedPeer::honest(ServedChain::from_blocks(&params, chain.blocks()));
    let mut node = options("signet")
        .args(["--signet-challenge", "51", "--listen", "127.0.0.1:0"])
        .connect(peer.addr())
        .start();
    node.wait_synced_to(30, DEADLINE);
    assert_blocks(&node, chain.blocks());
    // A second node of ours, which knows nobody but the first.
    let mut second = options("signet")
        .args(["--signet-challenge", "51"])
        .connect(p2p_addr(&node))
        .start();
    second.wait_synced_to(30, DEADLINE);
    assert_blocks(&second, chain.blocks());
    let next = chain.mine_empty().clone();
    peer.push_block(&next);
    node.wait_synced_to_hash(next.block_hash(), DEADLINE);
    second.wait_synced_to_hash(next.block_hash(), DEADLINE);
}

/// Where the node serves other nodes.
fn p2p_addr(node: &PulseNode) -> std::net::SocketAddr {
    let text = std::fs::read_to_string(node.data_dir().join("listen.json")).unwrap();
    let listen: serde_json::Value = serde_json::from_str(&text).unwrap();
    listen["p2p"].as_str().unwrap().parse().unwrap()
}
