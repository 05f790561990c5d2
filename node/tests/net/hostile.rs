//! Peers that flood, lie, say nothing, or do not listen.

use std::{net::Ipv4Addr, time::Duration};

use pulse_node::{
    config::SyncConfig,
    net::NetLimits,
    p2p::{AddrEntry, MAX_ADDR, message::Outgoing},
};
use pulse_primitives::bitcoin::{
    hashes::Hash,
    p2p::{ServiceFlags, message::NetworkMessage, message_blockdata::Inventory},
};

use tokio::net::TcpListener;

use super::{
    common::{Client, Node, in_time, limits, regtest, wait_until},
    internet::now,
};

fn addresses(count: usize) -> Vec<AddrEntry> {
    (0..u32::try_from(count).unwrap())
        .map(|n| AddrEntry {
            time: u32::try_from(now()).unwrap(),
            services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
            addr: Ipv4Addr::from((20 << 24) + (n << 12) + 1).into(),
            port: 8333,
        })
        .collect()
}

/// Limits of a node that has no time.
fn hasty() -> NetLimits {
    let short = Duration::from_millis(300);
    NetLimits {
        transport: short,
        handshake: short,
        write: short,
        ..limits(&SyncConfig::default())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_addresses_that_nobody_asked_for_next_to_none_are_taken() {
    let node = Node::start(SyncConfig::default()).await;
    let mut flooding = Client::connect(node.addr).await;
    for _ in 0..20 {
        let flood = Outgoing::addr(&addresses(MAX_ADDR), true);
        in_time(flooding.0.write(&flood)).await.unwrap();
    }
    assert!(flooding.ping().await);
    assert!(
        node.net.known_addresses() <= 10,
        "{}",
        node.net.known_addresses()
    );
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_too_much_or_sends_nonsense_is_dropped_and_others_are_not() {
    let node = Node::start(SyncConfig::default()).await;
    let mut honest = Client::connect(node.addr).await;
    let block = Inventory::WitnessBlock(pulse_primitives::bitcoin::BlockHash::all_zeros());
    let too_much = Outgoing::Message(NetworkMessage::GetData(vec![block; 1001]));
    let malformed = Outgoing::raw("inv", vec![0xff; 9]);
    let too_many: Vec<u8> = [vec![0xfd, 0xe9, 0x03], vec![0; 1001 * 30]].concat();
    let too_many = Outgoing::raw("addr", too_many);
    for (count, message) in (1..).zip([too_much, malformed, too_many]) {
        let mut hostile = Client::connect(node.addr).await;
        in_time(hostile.0.write(&message)).await.unwrap();
        hostile.is_closed().await;
        wait_until("the drop", || node.net.peers_dropped() == count).await;
    }
    assert!(honest.ping().await);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_is_closed() {
    let limits = NetLimits {
        idle: Duration::from_millis(300),
        ..hasty()
    };
    let node = Node::start_with(SyncConfig::default(), limits, None).await;
    let mut silent = Client::connect(node.addr).await;
    silent.is_closed().await;
    // Not even a handshake.
    let stream = tokio::net::TcpStream::connect(node.addr).await.unwrap();
    let mut mute = Client(pulse_node::p2p::transport::Connection::v1(stream, [0; 4]));
    mute.is_closed().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_answer_pings_is_closed_however_much_it_says() {
    let limits = NetLimits {
        ping_interval: Duration::from_millis(100),
        ping_timeout: Duration::from_millis(300),
        ..hasty()
    };
    let node = Node::start_with(SyncConfig::default(), limits, None).await;
    let mut rude = Client::connect(node.addr).await;
    let ping = Outgoing::Message(NetworkMessage::Ping(1));
    in_time(async {
        while rude.0.write(&ping).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(node.net.peers().is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_is_closed() {
    let node = Node::start_with(SyncConfig::default(), hasty(), None).await;
    let mut deaf = Client::connect(node.addr).await;
    // Answers fill its way, then the node stops reading, then it gives up.
    let ping = Outgoing::Message(NetworkMessage::Ping(1));
    in_time(async { while deaf.0.write(&ping).await.is_ok() {} }).await;
    wait_until("its end", || node.net.peers().is_empty()).await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_to_ourselves_is_noticed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = SyncConfig {
        connect: vec![listener.local_addr().unwrap().to_string()],
        ..SyncConfig::default()
    };
    let limits = limits(&config);
    let node = Node::start_behind(listener, regtest(), config, limits, None).await;
    wait_until("both ends", || node.net.peers_dropped() >= 1).await;
    assert!(node.net.peers().is_empty());
    node.stop().await;
}
