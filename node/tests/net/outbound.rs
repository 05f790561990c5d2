//! Whom the node connects to by itself.

use std::{collections::HashSet, sync::Arc, time::Duration};

use pulse_node::{
    config::SyncConfig,
    p2p::{ConnectionKind, NetAddress, anchors},
};
use pulse_primitives::{
    bitcoin::Network,
    network::ChainParams,
    ports::{PeerStore, StoreKey},
};

use super::{
    common::{MemStore, Node, limits, regtest, wait_until},
    internet::{Behaviour, Internet, entries, store_with},
};

/// One address in each of `count` groups.
fn honest(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!("{}.1.1.1:18444", 20 + n))
        .collect()
}

async fn start(internet: &Internet, store: &Arc<MemStore>) -> Node {
    let config = SyncConfig {
        proxy: Some(internet.proxy),
        ..SyncConfig::default()
    };
    let limits = limits(&config);
    Node::start_with(config, limits, Some(Arc::clone(store))).await
}

fn addresses_of(node: &Node, kind: ConnectionKind) -> HashSet<String> {
    let peers = node.peers_of(kind);
    peers.iter().map(|peer| peer.addr.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_and_two_peers_are_chosen_and_one_network_gets_one_of_them() {
    let internet = Internet::start(&regtest(), Behaviour::Quiet).await;
    let mut addresses = honest(30);
    addresses.extend((0..2000).map(|n| format!("66.66.{}.{}:18444", n / 250, n % 250 + 1)));
    let node = start(&internet, &store_with(&addresses)).await;
    node.wait_for(ConnectionKind::FullRelay, 8).await;
    node.wait_for(ConnectionKind::BlockRelay, 2).await;
    let full = addresses_of(&node, ConnectionKind::FullRelay);
    let blocks = addresses_of(&node, ConnectionKind::BlockRelay);
    let all: HashSet<_> = full.union(&blocks).collect();
    assert_eq!(all.len(), 10);
    let hostile = all.iter().filter(|addr| addr.starts_with("66.66."));
    assert!(hostile.count() <= 1, "{all:?}");
    // Nobody is told what is wanted on a connection for blocks alone.
    for peer in node.peers_of(ConnectionKind::BlockRelay) {
        assert!(!peer.relays_txs());
    }
    for peer in node.peers_of(ConnectionKind::FullRelay) {
        assert!(peer.relays_txs());
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_peers_for_blocks_are_dialled_first_after_a_restart() {
    let internet = Internet::start(&regtest(), Behaviour::Quiet).await;
    let store = store_with(&honest(40));
    let node = start(&internet, &store).await;
    node.wait_for(ConnectionKind::FullRelay, 8).await;
    node.wait_for(ConnectionKind::BlockRelay, 2).await;
    let before = addresses_of(&node, ConnectionKind::BlockRelay);
    node.stop().await;
    assert!(store.load(StoreKey::Addresses).is_some());
    let saved = anchors::decode(&store.load(StoreKey::Anchors).unwrap()).unwrap();
    let saved: HashSet<_> = saved.iter().map(NetAddress::to_string).collect();
    assert_eq!(saved, before);

    let dialled = internet.dialled().len();
    let node = start(&internet, &store).await;
    node.wait_for(ConnectionKind::BlockRelay, 2).await;
    node.wait_for(ConnectionKind::FullRelay, 8).await;
    assert_eq!(addresses_of(&node, ConnectionKind::BlockRelay), before);
    // Each with the encrypted transport, and without it.
    let first: HashSet<_> = internet.dialled()[dialled..][..4].iter().cloned().collect();
    assert_eq!(first, before);
    // If one of them makes the node crash, the next start is without them.
    assert_eq!(store.load(StoreKey::Anchors), None);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_misbehaves_is_not_dialled_again() {
    let internet = Internet::start(&regtest(), Behaviour::Quiet).await;
    let store = store_with(&honest(2));
    internet.set("20.1.1.1:18444", Behaviour::Greedy);
    let node = start(&internet, &store).await;
    wait_until("the drop", || node.net.peers_dropped() == 1).await;
    node.wait_for(ConnectionKind::FullRelay, 1).await;
    // Longer than a hundred choices take.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let dialled = internet.dialled();
    let count = |text| dialled.iter().filter(|target| *target == text).count();
    assert_eq!(count("20.1.1.1:18444"), 1);
    assert_eq!(count("21.1.1.1:18444"), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_proxy_seeds_are_asked_through_it_and_what_they_tell_is_dialled() {
    let params = ChainParams::new(Network::Signet, None);
    let told: Vec<_> = (0..100)
        .map(|n| format!("{}.1.1.1:38333", 20 + n))
        .collect();
    let internet = Internet::start(&params, Behaviour::Tells(entries(&told))).await;
    let config = SyncConfig {
        proxy: Some(internet.proxy),
        ..SyncConfig::default()
    };
    let limits = limits(&config);
    let node = Node::start_on(params, config, limits, None).await;
    node.wait_for(ConnectionKind::FullRelay, 8).await;
    let dialled = internet.dialled();
    assert!(dialled[0].starts_with("x9.seed.signet."), "{}", dialled[0]);
    let full = addresses_of(&node, ConnectionKind::FullRelay);
    assert!(full.iter().all(|addr| told.contains(addr)), "{full:?}");
    // The seeds were asked and left.
    node.wait_for(ConnectionKind::AddrFetch, 0).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_connect_nobody_else_is_dialled_and_with_add_node_others_are() {
    let internet = Internet::start(&regtest(), Behaviour::Quiet).await;
    let store = store_with(&honest(10));
    let mut config = SyncConfig {
        connect: vec!["99.1.1.1".to_owned()],
        proxy: Some(internet.proxy),
        v2_transport: false,
        ..SyncConfig::default()
    };
    let node = Node::start_with(config.clone(), limits(&config), Some(store.clone())).await;
    node.wait_for(ConnectionKind::Manual, 1).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(internet.dialled(), ["99.1.1.1:18444"]);
    node.stop().await;

    config.add_node = std::mem::take(&mut config.connect);
    let node = Node::start_with(config.clone(), limits(&config), Some(store)).await;
    node.wait_for(ConnectionKind::Manual, 1).await;
    node.wait_for(ConnectionKind::FullRelay, 8).await;
    node.stop().await;
}
