//! Chains that do not have enough work leave no trace; those that have are synced, by
//! downloading their headers twice.

use pulse_node::{headers::HeaderStore, p2p::codec::Message};
use pulse_primitives::{
    bitcoin::{Block, Work, p2p::message::NetworkMessage},
    network::ChainParams,
    ports::NodeStatus,
};

use crate::common::{
    Node, branch, config, peer::TestPeer, regtest, tip_hash, wait_until, wire::Wire,
};

fn chain(len: usize) -> Vec<Block> {
    branch(&[], 0, len, 1)
}

/// Regtest where a chain needs the work of that many blocks above genesis.
fn needs(blocks: usize) -> ChainParams {
    let mut params = regtest();
    let one = params.genesis().header.work();
    params.min_chain_work = (0..blocks).fold(one, |sum: Work, _| sum + one);
    params
}

fn file_len(node: &Node) -> u64 {
    let path = node.dir.path().join("headers.dat");
    std::fs::metadata(path).unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_with_just_enough_work_is_synced_after_two_passes() {
    let blocks = chain(4300);
    let peer = TestPeer::honest(blocks.clone()).await;
    let node = Node::start(config(&[&peer]), needs(4300)).await;
    node.wait_for_tip(tip_hash(&blocks)).await;
    assert_eq!(node.handle.report().peers_dropped, 0);
    // Three messages a pass, and one more that is not full.
    assert!((6..=7).contains(&peer.header_requests()));
    assert_eq!(peer.requested().len(), 4300);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_of_a_chain_with_too_little_work_leave_nothing() {
    let blocks = chain(4300);
    let peer = TestPeer::honest(blocks.clone()).await;
    let node = Node::start(config(&[&peer]), needs(4301)).await;
    wait_until("the headers", || node.handle.report().headers_answered).await;
    let empty = file_len(&node);
    assert_eq!(node.store.len(), 1);
    assert_eq!(node.store.best().tip.height, 0);
    assert_eq!(peer.header_requests(), 3);

    // Announcements of single headers and whole messages change nothing either.
    for message in [
        blocks[..1].iter(),
        blocks[..2000].iter(),
        blocks[..1999].iter(),
    ] {
        let headers = message.map(|block| block.header).collect();
        peer.say(NetworkMessage::Headers(headers));
    }
    peer.announce(blocks.clone(), true);
    wait_until("requests", || peer.header_requests() > 6).await;
    assert_eq!(node.store.len(), 1);
    assert_eq!(file_len(&node), empty);
    assert!(peer.requested().is_empty());
    assert_eq!(node.handle.report().peers.len(), 1);
    let dir = node.stop().await;
    let store = HeaderStore::open(&dir.path().join("headers.dat"), &regtest()).unwrap();
    assert_eq!(store.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_too_little_work_does_not_keep_another_from_being_asked() {
    let blocks = chain(2600);
    let poor = TestPeer::honest(branch(&[], 0, 2100, 2)).await;
    let rich = TestPeer::honest(blocks.clone()).await;
    let node = Node::start(config(&[&poor, &rich]), needs(2500)).await;
    node.wait_for_tip(tip_hash(&blocks)).await;
    assert_eq!(node.store.len(), 2601);
    assert!(poor.requested().is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_far_below_the_tip_is_not_stored_once_the_chain_has_grown() {
    let blocks = chain(400);
    let peer = TestPeer::honest(blocks.clone()).await;
    let node = Node::start(config(&[&peer]), regtest()).await;
    node.wait_for_tip(tip_hash(&blocks)).await;
    let stored = node.store.len();
    // 144 blocks below the tip is the limit.
    for (from, len) in [(1, 200), (100, 155)] {
        let stale = branch(&blocks, from, len, 3);
        let headers = stale[from..].iter().map(|block| block.header).collect();
        peer.say(NetworkMessage::Headers(headers));
    }
    let near = branch(&blocks, 100, 157, 4);
    let headers = near[100..].iter().map(|block| block.header).collect();
    peer.say(NetworkMessage::Headers(headers));
    wait_until("the nearer branch", || {
        node.store.contains(&tip_hash(&near))
    })
    .await;
    assert_eq!(node.store.len(), stored + 157);
    assert_eq!(node.handle.report().peers_dropped, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_announcement_in_the_middle_of_a_presync_does_not_end_it() {
    let blocks = chain(4500);
    let headers = |range: std::ops::Range<usize>| {
        NetworkMessage::Headers(blocks[range].iter().map(|block| block.header).collect())
    };
    let asked_from = |message: &Message| match message {
        Message::GetHeaders(wanted) => Some(wanted.locator_hashes[0]),
        _ => None,
    };
    let (listener, addr) = Wire::listen().await;
    let mut config = config(&[]);
    config.connect.push(addr);
    config.headers_timeout_secs = 60;
    let node = Node::start(config, needs(4400)).await;
    let mut peer = Wire::accept(&listener).await;
    peer.until(asked_from).await;
    for pass in 0..2 {
        for start in [0, 2000, 4000] {
            // A new block, far ahead, and an old one.
            peer.send(headers(4499..4500)).await;
            peer.send(headers(10..11)).await;
            peer.send(headers(start..blocks.len().min(start + 2000)))
                .await;
            if (pass, start) == (1, 4000) {
                break;
            }
            let from = match (pass, start) {
                (0, 4000) => regtest().genesis_hash(),
                _ => blocks[start + 1999].block_hash(),
            };
            assert_eq!(peer.until(asked_from).await, from);
        }
    }
    wait_until("the headers", || node.store.best().tip.height == 4500).await;
    assert_eq!(node.handle.report().peers_dropped, 0);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_shows_one_chain_and_sends_another_gets_nothing_stored() {
    let shown = chain(4500);
    let other = branch(&[], 0, 4500, 2);
    let asked = |message: &Message| matches!(message, Message::GetHeaders(_)).then_some(());
    let (listener, addr) = Wire::listen().await;
    let mut config = config(&[]);
    config.connect.push(addr);
    config.headers_timeout_secs = 60;
    let node = Node::start(config, needs(4400)).await;
    let mut peer = Wire::accept(&listener).await;
    for blocks in [&shown, &other] {
        for part in blocks.chunks(2000) {
            peer.until(asked).await;
            let headers = part.iter().map(|block| block.header).collect();
            peer.send(NetworkMessage::Headers(headers)).await;
        }
    }
    // What does not fit begins a presync of its own, whose headers are asked for.
    peer.until(asked).await;
    assert_eq!(node.store.len(), 1);
    node.stop().await;
}
