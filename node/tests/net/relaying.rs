//! Transactions between the node and peers at its socket, with the clock set forward.

use std::time::{Duration, Instant};

use pulse_node::{
    config::SyncConfig,
    p2p::{ConnectionKind, message::Message},
    relay::Relay,
};
use pulse_primitives::{
    bitcoin::{
        Amount, OutPoint, Transaction, Wtxid,
        hashes::Hash,
        p2p::{message::NetworkMessage, message_blockdata::Inventory},
        transaction::Version,
    },
    mempool::{SubmitLimits, TxSubmitter},
};
use tempfile::{TempDir, tempdir};
use tokio::net::TcpListener;

use super::{
    chain::{MemChain, coin_of, spend},
    common::{Client, Node, PATIENCE, in_time, limits, regtest, wait_until},
    mempool::Running,
};

const SECOND: Duration = Duration::from_secs(1);

/// A node with a mempool on a chain in memory, and a relay at its socket.
struct Scene {
    node: Node,
    running: Running,
    _dir: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let (chain, dir) = (MemChain::new(150), tempdir().unwrap());
        let mut running = Running::start(&chain, dir.path()).await;
        let config = SyncConfig {
            connect: vec!["127.0.0.1:1".to_owned()],
            ..SyncConfig::default()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let limits = limits(&config);
        let (node, open) = Node::start_open(listener, regtest(), config, limits, None).await;
        let notices = running.notices.take().unwrap();
        let relay = Relay::new(open.relay, notices, running.mempool.clone());
        let relay = relay.with_clock(node.net.clock().clone());
        tokio::spawn(relay.run(running.stop.clone()));
        Self {
            node,
            running,
            _dir: dir,
        }
    }

    /// Somebody of whom the relay knows, and the fee rate that it is told.
    async fn peer(&self) -> (Client, i64) {
        let mut client = Client::connect(self.node.addr).await;
        let rate = hears(&mut client, |message| match message {
            Message::FeeFilter(rate) => i64::try_from(*rate).ok(),
            _ => None,
        });
        let rate = rate.await;
        (client, rate)
    }

    fn coin(&self, height: u32) -> (OutPoint, Amount) {
        self.running.chain.coinbase(height)
    }

    /// Lets time pass, and the node take notice.
    async fn pass(&self, time: Duration) {
        self.node.net.clock().advance(time);
        tokio::time::sleep(Duration::from_millis(300)).await;
    }

    async fn submit(&self, tx: &Transaction) {
        let (mempool, tx) = (self.running.mempool.clone(), tx.clone());
        let submitted =
            tokio::task::spawn_blocking(move || mempool.submit(tx, SubmitLimits::default()));
        submitted.await.unwrap().unwrap();
    }

    async fn accepted(&self, tx: &Transaction) {
        let txid = tx.compute_txid();
        self.running.until(|view| view.tx(&txid).is_some()).await;
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.running.stop.cancel();
        self.node.end();
    }
}

/// What the next message is that `pick` finds something in.
async fn hears<T>(client: &mut Client, pick: impl Fn(&Message) -> Option<T>) -> T {
    loop {
        let message = client.receive().await.expect("the connection stands");
        if let Some(found) = pick(&message) {
            return found;
        }
    }
}

fn wtx(tx: &Transaction) -> Inventory {
    Inventory::WTx(tx.compute_wtxid())
}

async fn announce(client: &mut Client, tx: &Transaction) {
    client.send(NetworkMessage::Inv(vec![wtx(tx)])).await;
}

async fn send(client: &mut Client, tx: &Transaction) {
    client.send(NetworkMessage::Tx(tx.clone())).await;
}

/// Waits until the node asks for this.
async fn is_asked(client: &mut Client, entry: Inventory) {
    hears(client, |message| match message {
        Message::GetData(entries) => entries.contains(&entry).then_some(()),
        _ => None,
    })
    .await;
}

/// What the client was asked for, and what was announced to it, since it last listened.
async fn heard(client: &mut Client) -> (Vec<Inventory>, Vec<Inventory>) {
    let (mut asked, mut told) = (Vec::new(), Vec::new());
    for message in client.said().await {
        match message {
            Message::GetData(entries) => asked.extend(entries),
            Message::Inv(entries) => told.extend(entries),
            _ => {}
        }
    }
    (asked, told)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_deliver_in_a_minute_is_passed_over_for_another() {
    let scene = Scene::new().await;
    let (mut silent, _) = scene.peer().await;
    let (mut other, _) = scene.peer().await;
    let tx = spend(&[scene.coin(1)], 2, 1000);
    announce(&mut silent, &tx).await;
    assert!(silent.ping().await);
    scene.pass(5 * SECOND).await;
    is_asked(&mut silent, wtx(&tx)).await;
    announce(&mut other, &tx).await;
    assert!(other.ping().await);
    scene.pass(50 * SECOND).await;
    assert_eq!(heard(&mut other).await.0, []);
    scene.pass(10 * SECOND).await;
    is_asked(&mut other, wtx(&tx)).await;
    send(&mut other, &tx).await;
    scene.accepted(&tx).await;
    assert_eq!(heard(&mut silent).await.0, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_one_peer_five_thousand_announcements_are_taken() {
    let scene = Scene::new().await;
    let (mut flooding, _) = scene.peer().await;
    let entries = (0..6000_u32).map(|n| {
        let mut hash = [8; 32];
        hash[..4].copy_from_slice(&n.to_le_bytes());
        Inventory::WTx(Wtxid::from_byte_array(hash))
    });
    flooding.send(NetworkMessage::Inv(entries.collect())).await;
    let mut asked = heard(&mut flooding).await.0;
    for _ in 0..5 {
        scene.pass(3 * SECOND).await;
        asked.extend(heard(&mut flooding).await.0);
    }
    assert_eq!(asked.len(), 5000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_of_ours_is_announced_again_until_it_is_seen() {
    let scene = Scene::new().await;
    let (mut first, _) = scene.peer().await;
    let tx = spend(&[scene.coin(1)], 2, 1000);
    scene.submit(&tx).await;
    scene.pass(60 * SECOND).await;
    assert_eq!(heard(&mut first).await.1, [wtx(&tx)]);
    // Who comes later hears of it with the next round.
    let (mut second, _) = scene.peer().await;
    scene.pass(60 * SECOND).await;
    assert_eq!(heard(&mut second).await.1, []);
    scene.pass(15 * 60 * SECOND).await;
    scene.pass(60 * SECOND).await;
    assert_eq!(heard(&mut second).await.1, [wtx(&tx)]);
    assert_eq!(heard(&mut first).await.1, []);
    // That somebody announces it shows that the network has it.
    let mempool = scene.running.mempool.clone();
    let txid = tx.compute_txid();
    assert!(mempool.is_waiting_to_be_seen(&txid));
    announce(&mut second, &tx).await;
    wait_until("the notice", || !mempool.is_waiting_to_be_seen(&txid)).await;
    let (mut third, _) = scene.peer().await;
    for _ in 0..2 {
        scene.pass(16 * 60 * SECOND).await;
    }
    assert_eq!(heard(&mut third).await.1, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_pays_for_the_parent_that_was_refused_alone() {
    let scene = Scene::new().await;
    let (mut peer, _) = scene.peer().await;
    let mut parent = spend(&[scene.coin(1)], 2, 0);
    parent.version = Version(3);
    let mut child = spend(&[coin_of(&parent, 0)], 2, 5000);
    child.version = Version(3);
    send(&mut peer, &parent).await;
    send(&mut peer, &child).await;
    // Alone it was refused, so it is asked for again.
    let wanted = Inventory::WitnessTransaction(parent.compute_txid());
    let deadline = Instant::now() + PATIENCE;
    while !heard(&mut peer).await.0.contains(&wanted) {
        assert!(Instant::now() < deadline, "it is not asked for");
        scene.pass(5 * SECOND).await;
    }
    send(&mut peer, &parent).await;
    scene.accepted(&child).await;
    scene.accepted(&parent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fee_filters_hold_in_both_directions() {
    let scene = Scene::new().await;
    let (mut picky, rate) = scene.peer().await;
    assert!((100..1000).contains(&rate), "{rate}");
    picky.send(NetworkMessage::FeeFilter(50_000)).await;
    assert!(picky.ping().await);
    let cheap = spend(&[scene.coin(1)], 2, 1000);
    let dear = spend(&[scene.coin(2)], 2, 50_000);
    scene.submit(&cheap).await;
    scene.submit(&dear).await;
    scene.pass(60 * SECOND).await;
    assert_eq!(heard(&mut picky).await.1, [wtx(&dear)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_are_neither_announced_nor_served_before_their_time() {
    let scene = Scene::new().await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(scene.peer().await.0);
    }
    // All inbound peers share one timer, so they are told together or not at all.
    let tx = spend(&[scene.coin(1)], 2, 1000);
    scene.submit(&tx).await;
    let spy = &mut clients[0];
    spy.send(NetworkMessage::GetData(vec![wtx(&tx)])).await;
    let said = spy.said().await;
    let announced = said
        .iter()
        .any(|message| matches!(message, Message::Inv(entries) if entries.contains(&wtx(&tx))));
    let served = said.iter().any(|message| matches!(message, Message::Tx(_)));
    assert!(announced || !served);
    scene.pass(60 * SECOND).await;
    for client in &mut clients[1..] {
        assert_eq!(heard(client).await.1, [wtx(&tx)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_transactions_cost_nobody_the_connection_and_others_are_taken() {
    let scene = Scene::new().await;
    let (mut lying, _) = scene.peer().await;
    let (mut honest, _) = scene.peer().await;
    for height in 1..50 {
        let mut bad = spend(&[scene.coin(height)], 2, 1000);
        bad.output[0].value += Amount::from_int_btc(100);
        send(&mut lying, &bad).await;
    }
    let good = spend(&[scene.coin(50)], 2, 1000);
    send(&mut honest, &good).await;
    scene.accepted(&good).await;
    assert!(in_time(lying.ping()).await && honest.ping().await);
    let left = scene.node.peers_of(ConnectionKind::Inbound);
    assert_eq!(left.len(), 2);
    wait_until("the credit", || {
        left.iter().any(|peer| peer.last_tx().is_some())
    })
    .await;
}
