//! Real mainnet blocks.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use crate::common::{Node, config, peer::TestPeer, tip_hash, wait_until};
use pulse_primitives::{
    bitcoin::{Block, Network, Work, consensus::deserialize},
    network::ChainParams,
    ports::NodeStatus,
};

/// The blocks of a run without genesis, or `None` (said aloud) where it is not at hand.
fn run(name: &str) -> Option<Vec<Block>> {
    let root = env::var_os("PULSE_CHAINDATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/chaindata"),
        PathBuf::from,
    );
    if !root.is_dir() {
        assert!(
            env::var_os("CI").is_none_or(|ci| ci != "true"),
            "{} is missing, and CI must not skip it",
            root.display()
        );
        eprintln!("skipped: {} is missing", root.display());
        return None;
    }
    let packed = fs::read(root.join("runs").join(name)).unwrap();
    let bytes = zstd::decode_all(packed.as_slice()).unwrap();
    let genesis = ChainParams::new(Network::Bitcoin, None).genesis_hash();
    let mut rest = bytes.as_slice();
    let mut blocks = Vec::new();
    while let Some((head, tail)) = rest.split_first_chunk::<8>() {
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let block: Block = deserialize(&tail[..len]).unwrap();
        if block.block_hash() != genesis {
            blocks.push(block);
        }
        rest = &tail[len..];
    }
    Some(blocks)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_chain_replaces_the_alternative_one_2016_blocks_deep() {
    let (Some(alternative), Some(real)) = (
        run("mainnet-alt-1-2016.blk.zst"),
        run("mainnet-0-4312.blk.zst"),
    ) else {
        return;
    };
    assert_eq!((alternative.len(), real.len()), (2016, 4312));
    let mut params = ChainParams::new(Network::Bitcoin, None);
    params.min_chain_work = Work::from_be_bytes([0; 32]);
    let first = TestPeer::honest_on(params.magic, alternative.clone()).await;
    let second = TestPeer::honest_on(params.magic, Vec::new()).await;
    let node = Node::start(config(&[&first, &second]), params).await;
    node.wait_for_tip(tip_hash(&alternative)).await;
    wait_until("both peers", || node.handle.report().peers.len() == 2).await;

    second.announce(real.clone(), true);
    node.wait_for_tip(tip_hash(&real)).await;
    assert_eq!(node.handle.report().best_header.height, 4312);
    assert_eq!(node.handle.report().peers_dropped, 0);
    node.stop().await;
}
