//! Transaction relay among played peers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pulse_mempool::AcceptOptions;
use pulse_node::{
    clock::Clock,
    net::{
        ConnectionKind, Outgoing, Peer, PeerEvent, PeerEventKind, PeerInfo, Queued, TransportKind,
        outbox,
    },
    p2p::{PeerAddr, message::Message, peer::PeerId, version::RemoteVersion},
    relay::Relay,
};
use pulse_primitives::{
    bitcoin::{
        Amount, OutPoint, Sequence, Transaction, Txid, Witness,
        hashes::Hash,
        p2p::{ServiceFlags, message::NetworkMessage, message_blockdata::Inventory},
        transaction::Version,
    },
    mempool::{MempoolSource, SubmitLimits, TxSubmitter},
};
use tempfile::{TempDir, tempdir};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    chain::{MemChain, coin_of, spend},
    common::{PATIENCE, Running},
};

/// A node with a relay, and the peers that the test plays.
struct Scene {
    running: Running,
    events: mpsc::Sender<PeerEvent>,
    stop: CancellationToken,
    next: u64,
    _dir: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let (chain, dir) = (MemChain::new(150), tempdir().unwrap());
        let mut running = Running::start(&chain, dir.path()).await;
        let (events, receiver) = mpsc::channel(64);
        let notices = running.notices.take().unwrap();
        let relay = Relay::new(receiver, notices, running.mempool.clone());
        let stop = CancellationToken::new();
        tokio::spawn(relay.run(stop.clone()));
        Self {
            running,
            events,
            stop,
            next: 1,
            _dir: dir,
        }
    }

    /// A peer connects, which knows wtxids and wants transactions.
    async fn peer(&mut self, kind: ConnectionKind) -> Player {
        self.peer_with(kind, true, true).await
    }

    async fn peer_with(&mut self, kind: ConnectionKind, wtxid_relay: bool, relay: bool) -> Player {
        let (outbox, waiting) = outbox();
        let info = PeerInfo {
            id: PeerId(self.next),
            addr: PeerAddr::parse("127.0.0.1", 8333).unwrap(),
            host: None,
            kind,
            remote: RemoteVersion {
                version: 70_016,
                services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
                user_agent: "/played/".to_owned(),
                start_height: 0,
                relay,
                wtxid_relay,
                addr_v2: true,
                time: 0,
                our_addr: None,
            },
            transport: TransportKind::V1,
            clock: Clock::default(),
        };
        self.next += 1;
        let peer = Arc::new(Peer::new(info, outbox, CancellationToken::new()));
        let mut player = Player {
            peer,
            waiting,
            events: self.events.clone(),
            fee_filter: None,
        };
        player.tell(PeerEventKind::Connected).await;
        // By its first message the relay shows that it knows the peer.
        if kind != ConnectionKind::BlockRelay {
            let rate = player.hear(|message| match message {
                NetworkMessage::FeeFilter(rate) => Some(*rate),
                _ => None,
            });
            player.fee_filter = Some(rate.await);
        }
        player
    }

    fn coin(&self, height: u32) -> (OutPoint, Amount) {
        self.running.chain.coinbase(height)
    }

    async fn accepted(&self, tx: &Transaction) {
        let txid = tx.compute_txid();
        self.running.until(|view| view.tx(&txid).is_some()).await;
    }

    async fn submit(&self, tx: &Transaction) {
        let (mempool, tx) = (self.running.mempool.clone(), tx.clone());
        tokio::task::spawn_blocking(move || mempool.submit(tx, SubmitLimits::default()))
            .await
            .unwrap()
            .unwrap();
    }

    fn contains(&self, tx: &Transaction) -> bool {
        let view = self.running.mempool.view();
        view.tx(&tx.compute_txid()).is_some()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.stop.cancel();
        self.running.stop.cancel();
    }
}

struct Player {
    peer: Arc<Peer>,
    waiting: mpsc::Receiver<Queued>,
    events: mpsc::Sender<PeerEvent>,
    /// What the node told when it connected.
    fee_filter: Option<i64>,
}

impl Player {
    async fn tell(&self, kind: PeerEventKind) {
        let event = PeerEvent {
            peer: Arc::clone(&self.peer),
            kind,
        };
        self.events.send(event).await.unwrap();
    }

    async fn say(&self, message: Message) {
        self.tell(PeerEventKind::Message(message)).await;
    }

    async fn announce(&self, tx: &Transaction) {
        self.say(Message::Inv(vec![Inventory::WTx(tx.compute_wtxid())]))
            .await;
    }

    async fn send(&self, tx: &Transaction) {
        self.say(Message::Tx(Box::new(tx.clone()))).await;
    }

    /// What the next message is that `pick` finds something in.
    async fn hear<T>(&mut self, pick: impl Fn(&NetworkMessage) -> Option<T>) -> T {
        let heard = timeout(PATIENCE * 2, async {
            loop {
                let queued = self.waiting.recv().await.expect("the node is there");
                if let Outgoing::Message(message) = &queued.message
                    && let Some(found) = pick(message)
                {
                    return found;
                }
            }
        });
        heard.await.expect("the node says it in time")
    }

    /// Waits until the node asks for this.
    async fn is_asked(&mut self, entry: Inventory) {
        self.hear(|message| match message {
            NetworkMessage::GetData(entries) => entries.contains(&entry).then_some(()),
            _ => None,
        })
        .await;
    }

    /// Waits until the node announces this, and gives all that came with it.
    async fn is_told(&mut self, entry: Inventory) -> Vec<Inventory> {
        self.hear(|message| match message {
            NetworkMessage::Inv(entries) => entries.contains(&entry).then(|| entries.clone()),
            _ => None,
        })
        .await
    }

    async fn gets_tx(&mut self) -> Result<Transaction, Vec<Inventory>> {
        self.hear(|message| match message {
            NetworkMessage::Tx(tx) => Some(Ok(tx.clone())),
            NetworkMessage::NotFound(entries) => Some(Err(entries.clone())),
            _ => None,
        })
        .await
    }

    async fn is_disconnected(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.peer.is_closing() {
            assert!(Instant::now() < deadline, "it was not disconnected");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn wtx(tx: &Transaction) -> Inventory {
    Inventory::WTx(tx.compute_wtxid())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_announced_transaction_is_asked_for_accepted_and_announced_on() {
    let mut scene = Scene::new().await;
    let mut from = scene.peer(ConnectionKind::FullRelay).await;
    let mut to = scene.peer(ConnectionKind::FullRelay).await;
    let tx = spend(&[scene.coin(1)], 2, 1000);
    from.announce(&tx).await;
    from.is_asked(wtx(&tx)).await;
    from.send(&tx).await;
    scene.accepted(&tx).await;
    to.is_told(wtx(&tx)).await;
    to.say(Message::GetData(vec![wtx(&tx)])).await;
    assert_eq!(to.gets_tx().await, Ok(tx));
    assert!(from.peer.last_tx().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_without_wtxids_is_told_txids() {
    let mut scene = Scene::new().await;
    let mut to = scene
        .peer_with(ConnectionKind::FullRelay, false, true)
        .await;
    let tx = spend(&[scene.coin(1)], 2, 1000);
    scene.submit(&tx).await;
    let entry = Inventory::Transaction(tx.compute_txid());
    to.is_told(entry).await;
    to.say(Message::GetData(vec![entry])).await;
    assert_eq!(to.gets_tx().await, Ok(tx));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orphan_is_accepted_when_its_parent_comes() {
    let mut scene = Scene::new().await;
    let mut peer = scene.peer(ConnectionKind::FullRelay).await;
    let parent = spend(&[scene.coin(1)], 2, 1000);
    let child = spend(&[coin_of(&parent, 0)], 2, 1000);
    peer.send(&child).await;
    peer.is_asked(Inventory::WitnessTransaction(parent.compute_txid()))
        .await;
    assert!(!scene.contains(&child));
    peer.send(&parent).await;
    scene.accepted(&child).await;
    assert!(scene.contains(&parent));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_pays_for_a_parent_whose_fee_is_too_low() {
    let mut scene = Scene::new().await;
    let mut peer = scene.peer(ConnectionKind::FullRelay).await;
    let mut parent = spend(&[scene.coin(1)], 2, 0);
    parent.version = Version(3);
    let mut child = spend(&[coin_of(&parent, 0)], 2, 5000);
    child.version = Version(3);
    peer.send(&child).await;
    peer.is_asked(Inventory::WitnessTransaction(parent.compute_txid()))
        .await;
    peer.send(&parent).await;
    scene.accepted(&child).await;
    assert!(scene.contains(&parent));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peers_fee_filter_is_respected() {
    let mut scene = Scene::new().await;
    let mut picky = scene.peer(ConnectionKind::FullRelay).await;
    picky.say(Message::FeeFilter(50_000)).await;
    let cheap = spend(&[scene.coin(1)], 2, 1000);
    let dear = spend(&[scene.coin(2)], 2, 50_000);
    scene.submit(&cheap).await;
    scene.submit(&dear).await;
    let told = picky.is_told(wtx(&dear)).await;
    assert_eq!(told, [wtx(&dear)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_are_told_our_fee_filter() {
    let mut scene = Scene::new().await;
    let peer = scene.peer(ConnectionKind::Inbound).await;
    let rate = peer.fee_filter.unwrap();
    assert!((100..1000).contains(&rate), "{rate}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_moves_on_when_a_peer_does_not_have_it_or_is_gone() {
    let mut scene = Scene::new().await;
    let mut peers = Vec::new();
    for _ in 0..3 {
        peers.push(scene.peer(ConnectionKind::FullRelay).await);
    }
    let tx = spend(&[scene.coin(1)], 2, 1000);
    peers[0].announce(&tx).await;
    peers[0].is_asked(wtx(&tx)).await;
    peers[1].announce(&tx).await;
    peers[0].say(Message::NotFound(vec![wtx(&tx)])).await;
    peers[1].is_asked(wtx(&tx)).await;
    peers[2].announce(&tx).await;
    peers[1].tell(PeerEventKind::Closed).await;
    peers[2].is_asked(wtx(&tx)).await;
    peers[2].send(&tx).await;
    scene.accepted(&tx).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_peer_does_not_hold_up_another() {
    let mut scene = Scene::new().await;
    let flooder = scene.peer(ConnectionKind::Inbound).await;
    let mut honest = scene.peer(ConnectionKind::FullRelay).await;
    for n in 0..3_000u32 {
        let mut parent = [9; 32];
        parent[..4].copy_from_slice(&n.to_le_bytes());
        let outpoint = OutPoint::new(Txid::from_byte_array(parent), 0);
        flooder
            .send(&spend(&[(outpoint, Amount::ONE_BTC)], 2, 1000))
            .await;
    }
    let hashes = (0..50_000u32).map(|n| {
        let mut hash = [8; 32];
        hash[..4].copy_from_slice(&n.to_le_bytes());
        Inventory::WTx(pulse_primitives::bitcoin::Wtxid::from_byte_array(hash))
    });
    flooder.say(Message::Inv(hashes.collect())).await;
    let tx = spend(&[scene.coin(1)], 2, 1000);
    honest.announce(&tx).await;
    honest.is_asked(wtx(&tx)).await;
    honest.send(&tx).await;
    scene.accepted(&tx).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_is_not_served_before_it_was_announced() {
    let mut scene = Scene::new().await;
    let mut spy = scene.peer_with(ConnectionKind::Inbound, true, true).await;
    let mut other = scene.peer(ConnectionKind::FullRelay).await;
    let tx = spend(&[scene.coin(1)], 2, 1000);
    let (mempool, given) = (scene.running.mempool.clone(), Arc::new(tx.clone()));
    let accepted =
        tokio::task::spawn_blocking(move || mempool.accept(&given, AcceptOptions::default()));
    accepted.await.unwrap().unwrap();
    spy.say(Message::GetData(vec![wtx(&tx)])).await;
    // Unless its timer has just run, which bunches what there is.
    if let Err(missing) = spy.gets_tx().await {
        assert_eq!(missing, [wtx(&tx)]);
    }
    // What is in the newest block is served to everyone.
    scene.running.chain.mine(vec![tx.clone()]);
    scene.running.settled().await;
    other.say(Message::GetData(vec![wtx(&tx)])).await;
    assert_eq!(other.gets_tx().await, Ok(tx));
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_break_the_rules_of_relay_are_disconnected() {
    let mut scene = Scene::new().await;
    let tx = spend(&[scene.coin(1)], 2, 1000);
    let announcing = scene.peer(ConnectionKind::BlockRelay).await;
    announcing.announce(&tx).await;
    announcing.is_disconnected().await;
    let sending = scene.peer(ConnectionKind::BlockRelay).await;
    sending.send(&tx).await;
    sending.is_disconnected().await;
    let asking = scene.peer(ConnectionKind::Inbound).await;
    asking.say(Message::Mempool).await;
    asking.is_disconnected().await;
    assert!(!scene.contains(&tx));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sibling_gets_what_was_there_before_it_in_pieces_and_an_end() {
    let mut scene = Scene::new().await;
    let txs: Vec<_> = (1..=3)
        .map(|height| spend(&[scene.coin(height)], 2, 1000))
        .collect();
    for tx in &txs {
        scene.submit(tx).await;
    }
    let mut sibling = scene.peer(ConnectionKind::Sibling { inbound: true }).await;
    sibling.say(Message::Mempool).await;
    let told = sibling.is_told(wtx(&txs[0])).await;
    assert_eq!(told, txs.iter().map(wtx).collect::<Vec<_>>());
    sibling.say(Message::GetData(told)).await;
    for tx in &txs {
        assert_eq!(sibling.gets_tx().await.as_ref(), Ok(tx));
    }
    sibling.say(Message::Mempool).await;
    let is_end = |message: &NetworkMessage| match message {
        NetworkMessage::Inv(entries) => entries.is_empty().then_some(()),
        _ => None,
    };
    sibling.hear(is_end).await;
    assert!(!sibling.peer.is_closing());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sibling_is_asked_for_its_mempool_until_it_has_no_more() {
    let mut scene = Scene::new().await;
    let mut sibling = scene.peer(ConnectionKind::Sibling { inbound: true }).await;
    let asks = |message: &NetworkMessage| match message {
        NetworkMessage::MemPool => Some(()),
        _ => None,
    };
    for height in 1..=2 {
        sibling.hear(asks).await;
        let tx = spend(&[scene.coin(height)], 2, 1000);
        sibling.announce(&tx).await;
        sibling.is_asked(wtx(&tx)).await;
        sibling.send(&tx).await;
        scene.accepted(&tx).await;
    }
    sibling.hear(asks).await;
    sibling.say(Message::Inv(Vec::new())).await;
    // Whatever it announces later is no reason to ask again.
    let tx = spend(&[scene.coin(3)], 2, 1000);
    sibling.announce(&tx).await;
    sibling.is_asked(wtx(&tx)).await;
    sibling.send(&tx).await;
    scene.accepted(&tx).await;
    while let Ok(queued) = sibling.waiting.try_recv() {
        assert!(!matches!(
            queued.message,
            Outgoing::Message(NetworkMessage::MemPool)
        ));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_sends_invalid_transactions_stays_connected() {
    let mut scene = Scene::new().await;
    let mut peer = scene.peer(ConnectionKind::FullRelay).await;
    let mut bad = spend(&[scene.coin(1)], 2, 1000);
    bad.input[0].witness = Witness::from_slice(&[[1]]);
    peer.send(&bad).await;
    let mut young = spend(&[scene.coin(149)], 2, 1000);
    young.input[0].sequence = Sequence::MAX;
    peer.send(&young).await;
    // The good one is judged after both.
    let good = spend(&[scene.coin(2)], 2, 1000);
    peer.announce(&good).await;
    peer.is_asked(wtx(&good)).await;
    peer.send(&good).await;
    scene.accepted(&good).await;
    assert!(!peer.peer.is_closing());
    assert!(!scene.contains(&bad) && !scene.contains(&young));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_wants_no_transactions_is_told_none_and_gives_some() {
    let mut scene = Scene::new().await;
    let mut quiet = scene
        .peer_with(ConnectionKind::FullRelay, true, false)
        .await;
    let mut other = scene.peer(ConnectionKind::FullRelay).await;
    let tx = spend(&[scene.coin(1)], 2, 1000);
    quiet.announce(&tx).await;
    quiet.is_asked(wtx(&tx)).await;
    quiet.send(&tx).await;
    other.is_told(wtx(&tx)).await;
    let second = spend(&[scene.coin(2)], 2, 1000);
    scene.submit(&second).await;
    other.is_told(wtx(&second)).await;
    quiet.tell(PeerEventKind::Closed).await;
    while let Ok(queued) = quiet.waiting.try_recv() {
        assert!(!matches!(
            queued.message,
            Outgoing::Message(NetworkMessage::Inv(_))
        ));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_ours_waits_to_be_seen_back() {
    let mut scene = Scene::new().await;
    let mut to = scene.peer(ConnectionKind::FullRelay).await;
    let from = scene.peer(ConnectionKind::FullRelay).await;
    let tx = spend(&[scene.coin(1)], 2, 1000);
    scene.submit(&tx).await;
    to.is_told(wtx(&tx)).await;
    let waits = scene.running.mempool.clone();
    let txid = tx.compute_txid();
    assert!(waits.is_waiting_to_be_seen(&txid));
    from.announce(&tx).await;
    let deadline = Instant::now() + PATIENCE;
    while waits.is_waiting_to_be_seen(&txid) {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
