//! Those who connect to the node.

use std::{net::IpAddr, time::Duration};

use pulse_node::{
    config::SyncConfig,
    p2p::{ConnectionKind, message::Message},
};
use pulse_primitives::bitcoin::p2p::message::NetworkMessage;

use super::{
    common::{Client, MemStore, Node, in_time, limits, wait_until},
    internet::store_with,
};

/// Address `127.0.0.n` of this machine.
fn local(n: u8) -> IpAddr {
    [127, 0, 0, n].into()
}

/// A configuration that takes so many peers, and as many from one address.
fn taking(max_peers: usize) -> SyncConfig {
    SyncConfig {
        max_peers,
        max_inbound_per_address: max_peers.max(1),
        ..SyncConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_peers_are_served_at_a_time() {
    let node = Node::start(taking(125)).await;
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(Client::connect(node.addr).await);
    }
    node.wait_for(ConnectionKind::Inbound, 100).await;
    for client in &mut clients {
        assert!(client.ping().await);
    }
    drop(clients);
    node.wait_for(ConnectionKind::Inbound, 0).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_address_gets_its_share_and_others_theirs() {
    let config = SyncConfig {
        max_inbound_per_address: 2,
        ..SyncConfig::default()
    };
    let node = Node::start(config).await;
    let first = Client::connect_from(local(1), node.addr).await.unwrap();
    let mut second = Client::connect_from(local(1), node.addr).await.unwrap();
    assert!(Client::connect_from(local(1), node.addr).await.is_none());
    let mut other = Client::connect_from(local(2), node.addr).await.unwrap();
    assert!(other.ping().await && second.ping().await);
    drop(first);
    node.wait_for(ConnectionKind::Inbound, 2).await;
    in_time(async {
        while Client::connect_from(local(1), node.addr).await.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_node_ends_one_peer_that_is_of_no_use_for_a_new_one() {
    const PLACES: usize = 40;
    let node = Node::start(taking(PLACES)).await;
    let mut clients = Vec::new();
    for _ in 0..PLACES {
        clients.push(Client::connect(node.addr).await);
    }
    node.wait_for(ConnectionKind::Inbound, PLACES).await;
    let before = node.net.peers();
    let mut late = Client::connect_from(local(2), node.addr).await.unwrap();
    assert!(late.ping().await);
    wait_until("one to go", || node.net.peers().len() == PLACES).await;
    let after = node.net.peers();
    let gone: Vec<_> = before
        .iter()
        .filter(|peer| after.iter().all(|other| other.id != peer.id))
        .collect();
    assert_eq!(gone.len(), 1);
    // The half that has been there for longest is protected.
    let place = before.iter().position(|peer| peer.id == gone[0].id);
    assert!(place.unwrap() >= PLACES / 4, "{place:?}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_few_peers_are_all_protected_and_a_new_one_is_refused() {
    let node = Node::start(taking(4)).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Client::connect(node.addr).await);
    }
    assert!(Client::connect_from(local(2), node.addr).await.is_none());
    for client in &mut clients {
        assert!(client.ping().await);
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_banned_host_is_ended_and_refused_after_a_restart_too() {
    let store = std::sync::Arc::new(MemStore::default());
    let config = SyncConfig::default();
    let start = || Node::start_with(config.clone(), limits(&config), Some(store.clone()));
    let node = start().await;
    let mut banned = Client::connect_from(local(2), node.addr).await.unwrap();
    let target = "127.0.0.2".parse().unwrap();
    let day = Duration::from_secs(86_400);
    assert_eq!(node.net.ban(target, day), Ok(true));
    banned.is_closed().await;
    assert!(Client::connect_from(local(2), node.addr).await.is_none());
    assert!(Client::connect_from(local(3), node.addr).await.is_some());
    node.stop().await;

    let node = start().await;
    wait_until("the bans", || node.net.bans().len() == 1).await;
    assert!(Client::connect_from(local(2), node.addr).await.is_none());
    assert!(node.net.unban(&target));
    assert!(Client::connect_from(local(2), node.addr).await.is_some());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn getaddr_is_answered_once_with_a_sample_that_stays_the_same() {
    let addresses: Vec<_> = (0..1000)
        .map(|n| format!("{}.{}.1.1:8333", 20 + n / 100, n % 100))
        .collect();
    let config = SyncConfig {
        // Nobody is dialled.
        connect: vec!["127.0.0.1:1".to_owned()],
        ..SyncConfig::default()
    };
    let store = store_with(&addresses);
    let node = Node::start_with(config.clone(), limits(&config), Some(store)).await;
    wait_until("the addresses", || node.net.known_addresses() > 900).await;
    let mut samples = Vec::new();
    for n in [1, 2] {
        let mut client = Client::connect_from(local(n), node.addr).await.unwrap();
        client.send(NetworkMessage::GetAddr).await;
        let mut told = loop {
            match client.receive().await.unwrap() {
                Message::Addr(told) => break told,
                _ => continue,
            }
        };
        told.sort_by_key(|entry| entry.addr);
        samples.push(told);
        // What is asked again is not answered again.
        client.send(NetworkMessage::GetAddr).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        client.send(NetworkMessage::Ping(7)).await;
        loop {
            match client.receive().await.unwrap() {
                Message::Pong(_) => break,
                Message::Addr(told) => panic!("{} more", told.len()),
                _ => {}
            }
        }
    }
    let known = node.net.known_addresses();
    assert_eq!(samples[0].len(), known * 23 / 100);
    assert_eq!(samples[0], samples[1]);
    node.stop().await;
}
