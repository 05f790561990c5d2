//! What is due only after minutes or hours: the node's clock is set forward.

use std::{collections::HashSet, net::IpAddr, sync::Arc, time::Duration};

use pulse_node::{
    config::SyncConfig,
    net::NetLimits,
    p2p::{AddrEntry, ConnectionKind, MAX_ADDR, NetAddress, message::Message, message::Outgoing},
};
use pulse_primitives::bitcoin::{
    BlockHash,
    hashes::Hash,
    p2p::{
        Address, ServiceFlags, message::NetworkMessage, message_blockdata::Inventory,
        message_network::VersionMessage,
    },
};
use pulse_testkit::{ChainBuilder, ScriptedPeer, ServedChain};

use super::{
    common::{Client, MemStore, Node, in_time, limits, regtest, wait_until},
    internet::{Behaviour, Internet, entries, now, store_with},
};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Address `127.0.0.n` of this machine.
fn local(n: u8) -> IpAddr {
    [127, 0, 0, n].into()
}

/// One address in each of `count` groups.
fn honest(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!("{}.1.1.1:18444", 20 + n))
        .collect()
}

fn behind(internet: &Internet) -> SyncConfig {
    SyncConfig {
        proxy: Some(internet.proxy),
        ..SyncConfig::default()
    }
}

/// A node with all the peers that it chooses.
async fn connected(internet: &Internet, config: SyncConfig) -> Node {
    let limits = limits(&config);
    let node = Node::start_with(config, limits, Some(store_with(&honest(40)))).await;
    node.wait_for(ConnectionKind::FullRelay, 8).await;
    node.wait_for(ConnectionKind::BlockRelay, 2).await;
    assert_eq!(internet.dialled().len(), 10);
    node
}

/// A node that dials nobody, with these addresses.
async fn waiting(addresses: &[String]) -> Node {
    let config = SyncConfig {
        connect: vec!["127.0.0.1:1".to_owned()],
        ..SyncConfig::default()
    };
    Node::start_with(config.clone(), limits(&config), Some(store_with(addresses))).await
}

fn addresses_of(node: &Node, kind: ConnectionKind) -> HashSet<String> {
    let peers = node.peers_of(kind);
    peers.iter().map(|peer| peer.addr.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feeler_sees_whether_an_address_is_alive_and_leaves() {
    let internet = Internet::start(&regtest(), Behaviour::Quiet).await;
    let node = connected(&internet, behind(&internet)).await;
    let before: HashSet<_> = internet.dialled().into_iter().collect();
    node.pass_until("a feeler", MINUTE, || !internet.left().is_empty())
        .await;
    let left = internet.left();
    assert!(!before.contains(&left[0]));
    assert_eq!(internet.dialled()[10], left[0]);
    node.wait_for(ConnectionKind::Feeler, 0).await;
    // All others are still there.
    assert_eq!(node.peers_of(ConnectionKind::FullRelay).len(), 8);
    assert_eq!(node.peers_of(ConnectionKind::BlockRelay).len(), 2);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tip_that_stays_old_brings_one_more_peer_and_the_one_of_least_use_goes() {
    let internet = Internet::start(&regtest(), Behaviour::Quiet).await;
    let node = connected(&internet, behind(&internet)).await;
    let peers = node.peers_of(ConnectionKind::FullRelay);
    let useless = peers[3].id;
    for peer in peers.iter().filter(|peer| peer.id != useless) {
        peer.note_announcement();
    }
    node.net.clock().advance(29 * MINUTE);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(node.peers_of(ConnectionKind::FullRelay).len(), 8);
    node.net.clock().advance(2 * MINUTE);
    let has = |id| {
        let peers = node.peers_of(ConnectionKind::FullRelay);
        peers.iter().any(|peer| peer.id == id)
    };
    let youngest = || {
        let peers = node.peers_of(ConnectionKind::FullRelay);
        peers.into_iter().max_by_key(|peer| peer.id).unwrap()
    };
    let oldest_ids: HashSet<_> = peers.iter().map(|peer| peer.id).collect();
    wait_until("one more", || !oldest_ids.contains(&youngest().id)).await;
    let extra = youngest();
    extra.note_announcement();
    // It is compared with the others only after a while.
    node.net.clock().advance(MINUTE);
    wait_until("one to go", || !has(useless)).await;
    assert_eq!(node.peers_of(ConnectionKind::FullRelay).len(), 8);
    assert!(has(extra.id));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_third_peer_for_blocks_alone_comes_now_and_then_and_the_youngest_goes() {
    let internet = Internet::start(&regtest(), Behaviour::Quiet).await;
    let node = connected(&internet, behind(&internet)).await;
    let before = addresses_of(&node, ConnectionKind::BlockRelay);
    // Not while the chain is old.
    node.net.clock().advance(20 * MINUTE);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(addresses_of(&node, ConnectionKind::BlockRelay), before);
    node.make_block().await;
    let count = || node.peers_of(ConnectionKind::BlockRelay).len();
    node.pass_until("a third", MINUTE / 4, || count() == 3)
        .await;
    node.pass_until("its end", MINUTE / 4, || count() == 2)
        .await;
    assert_eq!(addresses_of(&node, ConnectionKind::BlockRelay), before);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_address_is_told_to_those_who_relay_all_and_to_no_others() {
    let internet = Internet::start(&regtest(), Behaviour::Quiet).await;
    let own: NetAddress = "8.8.4.4:18444".parse().unwrap();
    let config = SyncConfig {
        external: own.socket_addr(),
        ..behind(&internet)
    };
    let node = connected(&internet, config).await;
    // Not while the chain is old: nobody could make use of this node.
    node.net.clock().advance(10 * MINUTE);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(internet.told().is_empty());
    node.make_block().await;
    let heard = || -> HashSet<_> { internet.told().into_iter().map(|(to, _)| to).collect() };
    node.pass_until("all to hear", MINUTE, || heard().len() >= 8)
        .await;
    let full = addresses_of(&node, ConnectionKind::FullRelay);
    assert!(heard().is_subset(&full) || heard().is_superset(&full));
    for to in addresses_of(&node, ConnectionKind::BlockRelay) {
        assert!(!heard().contains(&to));
    }
    for (_, entry) in internet.told() {
        assert_eq!(entry.address(), own);
        assert!(entry.services.has(ServiceFlags::NETWORK));
    }
    node.stop().await;
}

/// Addresses that the client was told since it was last asked.
async fn told(client: &mut Client) -> Vec<AddrEntry> {
    let said = client.said().await;
    let addresses = said.into_iter().filter_map(|message| match message {
        Message::Addr(entries) => Some(entries),
        _ => None,
    });
    addresses.flatten().collect()
}

/// What each of the clients is told within ten minutes.
async fn told_to_all(node: &Node, clients: &mut [Client]) -> Vec<Vec<AddrEntry>> {
    let mut all = vec![Vec::new(); clients.len()];
    for _ in 0..4 {
        node.net.clock().advance(3 * MINUTE);
        tokio::time::sleep(Duration::from_millis(100)).await;
        for (client, all) in clients.iter_mut().zip(&mut all) {
            all.extend(told(client).await);
        }
    }
    all
}

/// A stranger of 2015: no `addrv2`.
async fn plain(node: &Node) -> Client {
    let stream = tokio::net::TcpStream::connect(node.addr).await.unwrap();
    let connection = pulse_node::p2p::transport::Connection::v1(stream, regtest().magic);
    let mut client = Client(connection);
    let nobody = Address::new(&([0, 0, 0, 0], 0).into(), ServiceFlags::NONE);
    let (services, agent) = (ServiceFlags::NETWORK, "/old:1/".to_owned());
    let mut version = VersionMessage::new(services, 0, nobody.clone(), nobody, 1, agent, 0);
    version.version = 70_015;
    client.send(NetworkMessage::Version(version)).await;
    client.send(NetworkMessage::Verack).await;
    while client.receive().await.unwrap() != Message::Verack {}
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_news_goes_to_two_peers_and_old_or_many_to_none() {
    let node = waiting(&[]).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = Client::connect(node.addr).await;
        client.send(NetworkMessage::GetAddr).await;
        assert!(client.ping().await);
        clients.push(client);
    }
    let mut teller = Client::connect(node.addr).await;
    let old = AddrEntry {
        time: u32::try_from(now() - 2 * 3600).unwrap(),
        ..entries(&["21.1.1.1:18444".to_owned()])[0]
    };
    let many: Vec<_> = (0..11).map(|n| format!("22.{n}.1.1:18444")).collect();
    let news = "20.1.1.1:18444".parse::<NetAddress>().unwrap();
    for message in [
        vec![old],
        entries(&many),
        entries(&[news.to_string()]),
        entries(&[news.to_string()]),
    ] {
        let message = Outgoing::addr(&message, true);
        in_time(teller.0.write(&message)).await.unwrap();
        assert!(teller.ping().await);
        // For the next one there is a token again.
        node.net.clock().advance(2 * MINUTE);
    }
    let all = told_to_all(&node, &mut clients).await;
    let told: Vec<_> = all.concat().iter().map(AddrEntry::address).collect();
    assert_eq!(told, [news, news]);
    assert!(all.iter().all(|told| told.len() <= 1));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_onion_address_is_told_only_to_those_who_know_addrv2() {
    let node = waiting(&[]).await;
    let (mut old, mut new) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let mut client = plain(&node).await;
        client.send(NetworkMessage::GetAddr).await;
        assert!(client.ping().await);
        old.push(client);
        let mut client = Client::connect(node.addr).await;
        client.send(NetworkMessage::GetAddr).await;
        assert!(client.ping().await);
        new.push(client);
    }
    let onion = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion:8333";
    let address: NetAddress = onion.parse().unwrap();
    let mut teller = Client::connect(node.addr).await;
    let message = Outgoing::addr(&entries(&[onion.to_owned()]), true);
    in_time(teller.0.write(&message)).await.unwrap();
    assert!(teller.ping().await);
    let told = told_to_all(&node, &mut new).await.concat();
    assert!((1..=2).contains(&told.len()), "{told:?}");
    assert!(told.iter().all(|entry| entry.address() == address));
    assert!(told_to_all(&node, &mut old).await.concat().is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_may_tell_one_address_in_ten_seconds() {
    let node = waiting(&[]).await;
    let mut flooding = Client::connect(node.addr).await;
    let flood = |first: usize| {
        let addresses: Vec<_> = (first..first + MAX_ADDR)
            .map(|n| format!("{}.{}.1.1:18444", 20 + n / 200, n % 200))
            .collect();
        Outgoing::addr(&entries(&addresses), true)
    };
    in_time(flooding.0.write(&flood(0))).await.unwrap();
    assert!(flooding.ping().await);
    assert!(node.net.known_addresses() <= 2);
    node.net.clock().advance(Duration::from_secs(1000));
    in_time(flooding.0.write(&flood(1000))).await.unwrap();
    assert!(flooding.ping().await);
    let known = node.net.known_addresses();
    assert!((90..=103).contains(&known), "{known}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_to_getaddr_stays_the_same_for_a_day() {
    let addresses: Vec<_> = (0..1000)
        .map(|n| format!("{}.{}.1.1:8333", 20 + n / 100, n % 100))
        .collect();
    let node = waiting(&addresses).await;
    wait_until("the addresses", || node.net.known_addresses() > 900).await;
    let mut answers = Vec::new();
    for hours in [0, 20, 8] {
        node.net.clock().advance(hours * HOUR);
        let mut client = Client::connect(node.addr).await;
        client.send(NetworkMessage::GetAddr).await;
        let mut answer = loop {
            match client.receive().await.unwrap() {
                Message::Addr(entries) => break entries,
                _ => continue,
            }
        };
        answer.sort_by_key(|entry| entry.addr);
        answers.push(answer);
    }
    assert_eq!(answers[0], answers[1]);
    assert_ne!(answers[1], answers[2]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ban_of_a_network_ends_at_its_time() {
    let node = waiting(&[]).await;
    let mut banned = Client::connect_from(local(3), node.addr).await.unwrap();
    let target = "127.0.0.2/31".parse().unwrap();
    assert_eq!(node.net.ban(target, HOUR), Ok(true));
    banned.is_closed().await;
    for n in [2, 3] {
        assert!(Client::connect_from(local(n), node.addr).await.is_none());
    }
    assert!(Client::connect_from(local(4), node.addr).await.is_some());
    node.net.clock().advance(HOUR + MINUTE);
    assert!(Client::connect_from(local(3), node.addr).await.is_some());
    assert!(node.net.bans().is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_misbehaved_is_let_in_only_while_there_is_room() {
    let config = SyncConfig {
        max_peers: 4,
        connect: vec!["127.0.0.1:1".to_owned()],
        ..SyncConfig::default()
    };
    let limits = NetLimits {
        spare_local: false,
        ..limits(&config)
    };
    let node = Node::start_with(config, limits, None).await;
    let mut greedy = Client::connect_from(local(2), node.addr).await.unwrap();
    let block = Inventory::WitnessBlock(BlockHash::all_zeros());
    greedy
        .send(NetworkMessage::GetData(vec![block; 1001]))
        .await;
    greedy.is_closed().await;
    node.wait_for(ConnectionKind::Inbound, 0).await;
    let mut clients = Vec::new();
    for n in [2, 3, 4] {
        let client = Client::connect_from(local(n), node.addr).await;
        clients.push(client.expect("there is room"));
    }
    // The last place is for others.
    assert!(Client::connect_from(local(2), node.addr).await.is_none());
    assert!(Client::connect_from(local(5), node.addr).await.is_some());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_of_one_network_group_fill_at_most_their_share() {
    // Twenty attackers of one group, who tell of addresses all over the internet.
    let internet = Internet::start(&regtest(), Behaviour::Quiet).await;
    let attackers: Vec<_> = (0..20).map(|n| format!("66.66.{n}.1:18444")).collect();
    for (n, attacker) in attackers.iter().enumerate() {
        let lies: Vec<_> = (0..MAX_ADDR)
            .map(|m| format!("{}.{}.{}.9:18444", 80 + n, m / 250, m % 250))
            .collect();
        internet.set(attacker, Behaviour::Tells(entries(&lies)));
    }
    let config = SyncConfig {
        connect: attackers.clone(),
        v2_transport: false,
        ..behind(&internet)
    };
    let store = Arc::new(MemStore::default());
    let node = Node::start_with(config.clone(), limits(&config), Some(store)).await;
    node.wait_for(ConnectionKind::Manual, 20).await;
    wait_until("the lies", || node.net.known_addresses() > 2500).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    // 64 buckets of 64 places, of 1024 buckets.
    let known = node.net.known_addresses();
    assert!(known <= 64 * 64, "{known}");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_of_use_keep_their_places_among_a_hundred() {
    const PLACES: usize = 100;
    let config = SyncConfig {
        max_peers: PLACES,
        max_inbound_per_address: PLACES,
        ..SyncConfig::default()
    };
    let node = Node::start(config).await;
    let mut clients = Vec::new();
    for _ in 0..PLACES {
        clients.push(Client::connect(node.addr).await);
    }
    node.wait_for(ConnectionKind::Inbound, PLACES).await;
    let peers = node.net.peers();
    // Young ones, which no age protects.
    let useful: HashSet<_> = peers[90..98].iter().map(|peer| peer.id).collect();
    for peer in &peers[90..94] {
        peer.note_tx();
    }
    for peer in &peers[94..98] {
        peer.note_block();
    }
    for _ in 0..60 {
        let client = Client::connect_from(local(2), node.addr).await;
        clients.push(client.expect("one makes room"));
    }
    wait_until("the others to go", || node.net.peers().len() == PLACES).await;
    let left: HashSet<_> = node.net.peers().iter().map(|peer| peer.id).collect();
    assert!(useful.is_subset(&left));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_follow_the_chain_makes_room() {
    let mut chain = ChainBuilder::new(regtest());
    chain.mine_empty_blocks(10);
    let served = |len: usize| ServedChain::from_blocks(&regtest(), &chain.blocks()[..=len]);
    let (good, behind_it) = (
        ScriptedPeer::honest(served(10)),
        // Whose chain was as good as ours when it was told would be spared.
        ScriptedPeer::honest(served(0)),
    );
    let internet = Internet::start(&regtest(), Behaviour::Quiet).await;
    internet.set("20.1.1.1:18444", Behaviour::At(good.addr()));
    internet.set("21.1.1.1:18444", Behaviour::At(behind_it.addr()));
    let config = SyncConfig {
        v2_transport: false,
        ..behind(&internet)
    };
    let node = Node::start_syncing(config, Some(store_with(&honest(2)))).await;
    node.wait_for(ConnectionKind::FullRelay, 2).await;
    wait_until("the chain", || node.height() == 10).await;
    let asked = behind_it.log().getheaders;
    // Twenty minutes to follow, then a question, then two minutes for the answer.
    tokio::time::sleep(Duration::from_millis(300)).await;
    node.net.clock().advance(21 * MINUTE);
    wait_until("the question", || behind_it.log().getheaders > asked).await;
    node.wait_for(ConnectionKind::FullRelay, 2).await;
    node.net.clock().advance(3 * MINUTE);
    node.wait_for(ConnectionKind::FullRelay, 1).await;
    assert_eq!(
        addresses_of(&node, ConnectionKind::FullRelay),
        ["20.1.1.1:18444".to_owned()].into()
    );
    node.stop().await;
}
