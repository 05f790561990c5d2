//! The encrypted transport and the other one.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use pulse_node::{
    config::SyncConfig,
    p2p::{
        ConnectionKind, TransportKind,
        transport::Connection,
        version::{Nonces, handshake},
    },
};
use tokio::net::{TcpListener, TcpStream};

use super::common::{Client, Node, PATIENCE, local, regtest, wait_until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inbound_peers_choose_their_transport() {
    let node = Node::start(SyncConfig::default()).await;
    let mut plain = Client::connect(node.addr).await;
    assert!(plain.ping().await);
    let stream = TcpStream::connect(node.addr).await.unwrap();
    let encrypted = Connection::connect_v2(stream, regtest().magic, PATIENCE).await;
    let mut encrypted = Client::greet(encrypted.unwrap()).await.unwrap();
    assert!(encrypted.ping().await);
    let kinds: Vec<_> = node.net.peers().iter().map(|peer| peer.transport).collect();
    assert_eq!(kinds, [TransportKind::V1, TransportKind::V2]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_of_ours_speak_the_encrypted_transport() {
    let first = Node::start(SyncConfig::default()).await;
    let second = Node::start(SyncConfig {
        connect: vec![first.addr.to_string()],
        ..SyncConfig::default()
    })
    .await;
    second.wait_for(ConnectionKind::Manual, 1).await;
    first.wait_for(ConnectionKind::Inbound, 1).await;
    for node in [&first, &second] {
        assert_eq!(node.net.peers()[0].transport, TransportKind::V2);
    }
    second.stop().await;
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_a_peer_speaks_v1_only_is_remembered() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&accepted);
    // Hangs up after each handshake.
    let task = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let mut connection = Connection::v1(stream, regtest().magic);
            let nonces = Nonces::default();
            let shaken = handshake(&mut connection, &local(&nonces), ConnectionKind::Inbound).await;
            if shaken.is_ok() {
                // Until the node has taken notice.
                let _ = connection.read().await;
            }
        }
    });
    let node = Node::start(SyncConfig {
        connect: vec![addr.to_string()],
        ..SyncConfig::default()
    })
    .await;
    // Once with v2, once with v1; then with v1 at once.
    wait_until("two attempts", || accepted.load(Ordering::SeqCst) == 2).await;
    wait_until("the next", || accepted.load(Ordering::SeqCst) == 3).await;
    wait_until("its handshake", || {
        !node.net.peers().is_empty() || accepted.load(Ordering::SeqCst) > 3
    })
    .await;
    node.stop().await;
    task.abort();
}
