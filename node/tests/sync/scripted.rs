//! Peers that behave and peers that do not, on regtest.

use std::time::Duration;

use crate::common::{
    Node, branch, config, mine_paying,
    peer::{Reply, TestPeer, block_frame},
    regtest, tip_hash, tip_header, wait_until,
};
use pulse_node::{p2p::codec::encode_frame, sync::SubmitError};
use pulse_primitives::{
    bitcoin::{Amount, Block, consensus::serialize, p2p::message::NetworkMessage},
    ports::NodeStatus,
};

fn chain(len: usize) -> Vec<Block> {
    branch(&[], 0, len, 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_of_one_peer_is_synced_and_followed() {
    let blocks = chain(300);
    let peer = TestPeer::honest(blocks[..290].to_vec()).await;
    let node = Node::start(config(&[&peer]), regtest()).await;
    node.wait_for_tip(blocks[289].block_hash()).await;
    assert_eq!(peer.requested().len(), 290);

    let report = node.handle.report();
    assert!(report.headers_answered);
    assert_eq!(report.best_header.height, 290);
    assert_eq!(report.active_tip.hash, blocks[289].block_hash());
    assert_eq!(report.blocks_received, 290);
    assert_eq!(report.peers_dropped, 0);
    assert_eq!(report.peers.len(), 1);
    assert_eq!(report.peers[0].user_agent, "/scripted:1/");
    assert!(report.bytes_received > 290 * 200);

    // A header that connects, an inv, and a header whose parents are not known yet.
    peer.announce(blocks[..291].to_vec(), false);
    node.wait_for_tip(blocks[290].block_hash()).await;
    peer.announce(blocks[..292].to_vec(), true);
    node.wait_for_tip(blocks[291].block_hash()).await;
    peer.announce(blocks.clone(), false);
    node.wait_for_tip(tip_hash(&blocks)).await;
    assert_eq!(peer.connections(), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_asks_only_for_what_is_missing() {
    let blocks = chain(200);
    let peer = TestPeer::scripted(blocks.clone(), |height, _| {
        if height <= 100 {
            Reply::Block
        } else {
            Reply::Nothing
        }
    })
    .await;
    let node = Node::start(config(&[&peer]), regtest()).await;
    node.wait_for_tip(blocks[99].block_hash()).await;
    let dir = node.stop().await;

    let peer = TestPeer::honest(blocks.clone()).await;
    let node = Node::start_in(dir, config(&[&peer]), regtest()).await;
    assert_eq!(node.store.best().tip.height, 200);
    assert_eq!(node.chain.active_height(), 100);
    node.wait_for_tip(tip_hash(&blocks)).await;
    let requested: Vec<_> = blocks[100..].iter().map(Block::block_hash).collect();
    assert_eq!(peer.requested(), requested);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_peers_share_the_work() {
    let blocks = chain(500);
    let a = TestPeer::honest(blocks.clone()).await;
    let b = TestPeer::honest(blocks.clone()).await;
    a.hold(true);
    b.hold(true);
    let node = Node::start(config(&[&a, &b]), regtest()).await;
    wait_until("requests to both", || {
        a.requested().len() == 16 && b.requested().len() == 16
    })
    .await;
    assert_eq!(node.handle.report().blocks_in_flight, 32);
    a.hold(false);
    b.hold(false);
    node.wait_for_tip(tip_hash(&blocks)).await;
    // No block was asked for twice.
    assert_eq!(a.requested().len() + b.requested().len(), 500);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_keeps_back_blocks_is_left_for_the_other() {
    let blocks = chain(300);
    let stalling = TestPeer::scripted(blocks.clone(), |_, _| Reply::Nothing).await;
    let honest = TestPeer::honest(blocks.clone()).await;
    honest.hold(true);
    let mut config = config(&[&stalling, &honest]);
    config.window_blocks = 64;
    let node = Node::start(config, regtest()).await;
    wait_until("requests to both", || {
        stalling.requested().len() == 16 && honest.requested().len() == 16
    })
    .await;
    honest.hold(false);
    node.wait_for_tip(tip_hash(&blocks)).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_patience_with_stalling_peers_doubles_with_each() {
    let blocks = chain(100);
    let mut peers = Vec::new();
    for _ in 0..3 {
        let peer = TestPeer::honest(blocks.clone()).await;
        peer.hold(true);
        peers.push(peer);
    }
    let mut config = config(&[&peers[0], &peers[1], &peers[2]]);
    // Who is asked first has all that may be asked for, and holds up everything.
    config.window_blocks = 16;
    config.stall_timeout_secs = 20;
    config.headers_timeout_secs = 900;
    config.retry_max_secs = 1_000_000;
    let node = Node::start(config, regtest()).await;
    let connected = || node.handle.report().peers.len();
    let pass = async |secs| {
        node.clock.advance(Duration::from_secs(secs));
        tokio::time::sleep(Duration::from_millis(700)).await;
    };
    wait_until("all of them", || connected() == 3).await;
    wait_until("requests", || node.handle.report().blocks_in_flight == 16).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    pass(10).await;
    assert_eq!(connected(), 3);
    pass(15).await;
    assert_eq!(connected(), 2);
    wait_until("requests", || node.handle.report().blocks_in_flight == 16).await;
    pass(25).await;
    assert_eq!(connected(), 2);
    pass(20).await;
    assert_eq!(connected(), 1);
    for peer in &peers {
        peer.hold(false);
    }
    node.wait_for_tip(tip_hash(&blocks)).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_never_answers_does_not_hold_up_the_headers() {
    let blocks = chain(20);
    let silent = TestPeer::silent().await;
    let honest = TestPeer::honest(blocks.clone()).await;
    let node = Node::start(config(&[&silent, &honest]), regtest()).await;
    node.wait_for_tip(tip_hash(&blocks)).await;
    node.stop().await;
}

/// A peer does `script`: it is dropped, and the sync completes with another one.
async fn syncs_despite(script: fn(usize, &Block) -> Reply) {
    let blocks = chain(100);
    let liar = TestPeer::scripted(blocks.clone(), script).await;
    let honest = TestPeer::honest(Vec::new()).await;
    let node = Node::start(config(&[&liar, &honest]), regtest()).await;
    wait_until("the drop", || node.handle.report().peers_dropped == 1).await;
    wait_until("the other", || node.handle.report().peers.len() == 1).await;
    honest.announce(blocks.clone(), true);
    node.wait_for_tip(tip_hash(&blocks)).await;
    assert_eq!(liar.connections(), 1);
    assert_eq!(node.handle.report().peers.len(), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_belong_to_its_header_is_fetched_elsewhere() {
    syncs_despite(|height, block| {
        let mut block = block.clone();
        if height % 7 == 3 {
            block.txdata[0].output[0].value += Amount::ONE_SAT;
        }
        Reply::Bytes(block_frame(&block))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_block_is_fetched_elsewhere() {
    syncs_despite(|_, block| {
        let bytes = serialize(block);
        let cut = &bytes[..bytes.len() - 20];
        Reply::Bytes(encode_frame("block", cut, regtest().magic))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_was_not_requested_costs_the_peer_its_connection() {
    syncs_despite(|_, _| Reply::Bytes(block_frame(&regtest().genesis()))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_with_bad_proof_of_work_costs_the_peer_its_connection() {
    syncs_despite(|_, block| {
        let mut block = block.clone();
        while block.header.validate_pow(block.header.target()).is_ok() {
            block.header.nonce += 1;
        }
        Reply::Bytes(block_frame(&block))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_claims_80_mb_costs_the_peer_its_connection() {
    syncs_despite(|_, _| {
        let mut frame = encode_frame("block", &[], regtest().magic);
        frame[16..20].copy_from_slice(&80_000_000_u32.to_le_bytes());
        Reply::Bytes(frame)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_checksum_costs_the_peer_its_connection() {
    syncs_despite(|_, block| {
        let mut frame = block_frame(block);
        frame[20] ^= 1;
        Reply::Bytes(frame)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_hangs_up_in_the_middle_of_a_block_is_tried_again() {
    let blocks = chain(100);
    let rude = TestPeer::scripted(blocks.clone(), |height, block| {
        let frame = block_frame(block);
        if height.is_multiple_of(20) {
            Reply::HangUp(frame[..frame.len() / 2].to_vec())
        } else {
            Reply::Block
        }
    })
    .await;
    let honest = TestPeer::honest(Vec::new()).await;
    let node = Node::start(config(&[&rude, &honest]), regtest()).await;
    wait_until("another attempt", || rude.connections() > 1).await;
    honest.announce(blocks.clone(), true);
    node.wait_for_tip(tip_hash(&blocks)).await;
    assert_eq!(node.handle.report().peers_dropped, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_block_ends_its_chain_and_the_next_best_is_synced() {
    let good = chain(50);
    // A longer chain, of which block 31 pays itself too much.
    let mut bad = good[..30].to_vec();
    let claim = Amount::from_int_btc(51);
    bad.push(mine_paying(&tip_header(&bad), 31, 2, claim));
    let bad = branch(&bad, 31, 40, 2);
    let liar = TestPeer::honest(bad.clone()).await;
    let node = Node::start(config(&[&liar]), regtest()).await;
    wait_until("the drop", || node.handle.report().peers_dropped == 1).await;
    node.wait_for_tip(good[29].block_hash()).await;
    assert!(node.store.is_invalid(&tip_hash(&bad)));
    assert_eq!(node.store.best().tip.height, 30);
    let dir = node.stop().await;

    // After the restart the mark is gone from the store; the kernel still refuses.
    let honest = TestPeer::honest(good.clone()).await;
    let node = Node::start_in(dir, config(&[&liar, &honest]), regtest()).await;
    node.wait_for_tip(tip_hash(&good)).await;
    wait_until("the best header", || {
        node.store.best().tip.hash == tip_hash(&good)
    })
    .await;
    wait_until("the drop", || node.handle.report().peers_dropped == 1).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_more_work_reorganises_deeper_than_the_window() {
    let old = chain(120);
    let new = branch(&old, 10, 120, 2);
    let first = TestPeer::honest(old.clone()).await;
    let second = TestPeer::honest(old[..10].to_vec()).await;
    let mut config = config(&[&first, &second]);
    config.window_blocks = 32;
    let node = Node::start(config, regtest()).await;
    node.wait_for_tip(tip_hash(&old)).await;
    wait_until("both peers", || node.handle.report().peers.len() == 2).await;
    second.announce(new.clone(), true);
    node.wait_for_tip(tip_hash(&new)).await;
    assert_eq!(node.handle.report().peers_dropped, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_without_proof_of_work_or_that_never_connect_cost_the_peer_its_connection() {
    let blocks = chain(10);
    let mut forged = blocks[9].header;
    while forged.validate_pow(forged.target()).is_ok() {
        forged.nonce += 1;
    }
    let stranger = branch(&branch(&[], 0, 3, 9), 3, 1, 9)[3].header;
    for (header, times) in [(forged, 1), (stranger, 11)] {
        let peer = TestPeer::honest(blocks[..9].to_vec()).await;
        let node = Node::start(config(&[&peer]), regtest()).await;
        node.wait_for_tip(blocks[8].block_hash()).await;
        for _ in 0..times {
            peer.say(NetworkMessage::Headers(vec![header]));
        }
        wait_until("the drop", || node.handle.report().peers_dropped == 1).await;
        assert!(node.handle.report().peers.is_empty());
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_made_here_are_taken_in_without_a_peer() {
    let blocks = chain(20);
    let mut config = config(&[]);
    config.simulate = true;
    let node = Node::start(config, regtest()).await;
    assert!(node.handle.report().headers_answered);
    for block in &blocks {
        node.handle.submit_local(serialize(block)).await.unwrap();
    }
    assert_eq!(node.chain.active_tip().hash, tip_hash(&blocks));
    assert_eq!(node.store.best().tip.hash, tip_hash(&blocks));
    node.handle
        .submit_local(serialize(&blocks[19]))
        .await
        .unwrap();

    let stranger = branch(&branch(&[], 0, 3, 9), 3, 1, 9).remove(3);
    assert!(matches!(
        node.handle.submit_local(serialize(&stranger)).await,
        Err(SubmitError::HeaderRefused { .. })
    ));
    let greedy = mine_paying(&tip_header(&blocks), 21, 1, Amount::from_int_btc(51));
    assert!(matches!(
        node.handle.submit_local(serialize(&greedy)).await,
        Err(SubmitError::Invalid(_))
    ));
    assert_eq!(node.store.best().tip.hash, tip_hash(&blocks));
    assert!(matches!(
        node.handle.submit_local(vec![0; 79]).await,
        Err(SubmitError::Malformed)
    ));
    node.stop().await;
}
