//! Single peers: what they send, and what is sent to them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pulse_primitives::bitcoin::{
    Transaction, Txid, Wtxid,
    hashes::Hash,
    p2p::{message::NetworkMessage, message_blockdata::Inventory as Entry},
};
use tokio::sync::mpsc;
use tracing::debug;

use super::Manager;
use crate::{
    mempool::MempoolHandle,
    metrics,
    net::{Fault, Peer},
    p2p::{message::Message, peer::PeerId},
    relay::{
        download::{Arrival, PeerInfo},
        feefilter::FeeFilter,
        ids::{GenTxid, has_witness},
        inventory::Inventory,
        joining::{Asking, Telling},
        judges::Job,
    },
};

/// Questions for transactions that may wait per peer, 50,000 entries each.
const QUESTIONS: usize = 8;
/// Transactions that are looked up at a time.
const LOOKUPS: usize = 32;
/// Most entries of a `getdata` (Bitcoin Core's `MAX_GETDATA_SZ`).
const MAX_GETDATA: usize = 1_000;
/// First version with `feefilter` (BIP 133).
const FEEFILTER_VERSION: u32 = 70_013;
/// How long an answer may wait for room in the outbox.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// A peer as the relay sees it.
pub(super) struct RelayPeer {
    pub peer: Arc<Peer>,
    /// What is announced to it; `None` if it wants nothing.
    pub inventory: Option<Inventory>,
    pub fee_filter: FeeFilter,
    /// Whether transactions are taken from it and it knows `feefilter`.
    pub takes_txs: bool,
    /// Of a sibling: what we ask of its mempool, until that is over, and what it was told of ours.
    pub joining: Option<(Asking, Telling)>,
    questions: mpsc::Sender<Question>,
}

/// Transactions that a peer asks for.
struct Question {
    entries: Vec<Entry>,
    /// Only transactions that arrived before this number are served.
    before: u64,
}

impl Manager {
    pub(super) fn connected(&mut self, peer: Arc<Peer>) {
        let (id, now) = (peer.id, self.clock.now());
        let relays = peer.kind.wants_txs();
        if relays {
            self.downloads.connected(
                id,
                PeerInfo {
                    preferred: !peer.is_inbound() || peer.kind.is_sibling(),
                    wtxid_relay: peer.remote.wtxid_relay,
                },
            );
            self.judges.connected(id);
        }
        let inventory = (relays && peer.remote.relay).then(|| {
            let inventory = Inventory::new(
                peer.is_inbound(),
                peer.remote.wtxid_relay,
                self.mempool.next_sequence(),
                now,
                &mut self.timer,
                &mut self.rng,
            );
            match peer.kind.is_sibling() {
                true => inventory.at_once(now),
                false => inventory,
            }
        });
        let (questions, waiting) = mpsc::channel(QUESTIONS);
        if inventory.is_some() {
            tokio::spawn(answer(Arc::clone(&peer), self.mempool.clone(), waiting));
        }
        let joining = peer.kind.is_sibling().then(Default::default);
        let takes_txs = relays && peer.remote.version >= FEEFILTER_VERSION;
        self.peers.insert(
            id,
            RelayPeer {
                peer,
                inventory,
                fee_filter: FeeFilter::default(),
                takes_txs,
                joining,
                questions,
            },
        );
    }

    pub(super) fn closed(&mut self, id: PeerId) {
        self.peers.remove(&id);
        self.downloads.closed(id);
        for wtxid in self.judges.closed(id) {
            self.downloads.not_judged(&wtxid);
        }
    }

    pub(super) fn message(&mut self, id: PeerId, message: Message) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        match message {
            Message::Inv(entries) => self.announced(id, &entries),
            Message::Tx(tx) => self.arrived(id, Arc::new(*tx)),
            Message::NotFound(entries) => {
                for entry in entries.iter().filter_map(GenTxid::from_inventory) {
                    self.downloads.not_found(id, &entry);
                }
            }
            Message::GetData(entries) => asked(peer, entries),
            Message::FeeFilter(rate) => {
                if let Some(inventory) = &mut peer.inventory {
                    inventory.set_fee_filter(rate);
                }
            }
            Message::Mempool => match (&mut peer.joining, &mut peer.inventory) {
                (Some((_, telling)), Some(inventory)) => {
                    let (ids, sequence) = self.mempool.tell(telling);
                    let piece = inventory.tell(ids, sequence);
                    peer.peer.send(NetworkMessage::Inv(piece));
                }
                _ => peer.peer.disconnect(Fault::Useless("mempool_request")),
            },
            _ => {}
        }
    }

    fn announced(&mut self, id: PeerId, entries: &[Entry]) {
        let now = self.clock.now();
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if let Some((asking, _)) = &mut peer.joining {
            asking.heard(entries.len());
        }
        let wtxid_relay = peer.peer.remote.wtxid_relay;
        let mut ids = Vec::new();
        for entry in entries {
            let Some(gtxid) = GenTxid::from_inventory(entry) else {
                continue;
            };
            // One kind of id per peer; the other is ignored.
            if matches!(gtxid, GenTxid::Wtxid(_)) == wtxid_relay {
                ids.push(gtxid);
            }
        }
        if ids.is_empty() {
            return;
        }
        if !peer.peer.kind.wants_txs() {
            peer.peer.disconnect(Fault::Useless("transaction_inv"));
            return;
        }
        if let Some(inventory) = &mut peer.inventory {
            for gtxid in &ids {
                inventory.note_known(&gtxid.hash());
            }
        }
        self.mempool.seen(&ids);
        if !self.mempool.is_active() {
            return;
        }
        for gtxid in ids {
            self.downloads.announced(id, gtxid, now, &self.mempool);
        }
        self.request(id, now);
    }

    fn arrived(&mut self, id: PeerId, tx: Arc<Transaction>) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        if !peer.peer.kind.wants_txs() {
            peer.peer.disconnect(Fault::Useless("transaction"));
            return;
        }
        if !self.mempool.is_active() {
            return;
        }
        metrics::relay_received();
        let (txid, wtxid) = (tx.compute_txid(), tx.compute_wtxid());
        let gtxid = match peer.peer.remote.wtxid_relay {
            true => GenTxid::Wtxid(wtxid),
            false => GenTxid::Txid(txid),
        };
        if let Some(inventory) = &mut peer.inventory {
            inventory.note_known(&gtxid.hash());
        }
        self.mempool.seen(&[GenTxid::Txid(txid)]);
        let job = match self.downloads.arrived(id, tx, &self.mempool) {
            Arrival::Known => return,
            Arrival::Judge(tx) => Job::Single { tx, first: true },
            Arrival::JudgePackage(package) => Job::Package(package),
        };
        self.push_job(id, job);
    }

    /// Asks a peer for what it is its turn to deliver.
    pub(super) fn request(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let ids = self.downloads.requests(id, now, &self.mempool);
        for chunk in ids.chunks(MAX_GETDATA) {
            let entries = chunk.iter().map(|gtxid| gtxid.to_request()).collect();
            peer.peer.send(NetworkMessage::GetData(entries));
        }
    }

    /// Asks a sibling for the next piece of its mempool, if it is time.
    pub(super) fn ask_for_more(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some((asking, _)) = &mut peer.joining else {
            return;
        };
        if asking.is_over() || !self.mempool.is_active() {
            return;
        }
        let on_their_way = self.downloads.announced_by(id) + self.judges.waiting_of(id);
        if asking.is_due(now, on_their_way) {
            peer.peer.send(NetworkMessage::MemPool);
        }
    }

    /// Announces to a peer what is due.
    pub(super) fn send_inventory(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let Some(inventory) = &mut peer.inventory else {
            return;
        };
        if now < inventory.next_time() {
            return;
        }
        let (timer, rng) = (&mut self.timer, &mut self.rng);
        let entries = self
            .mempool
            .announceable(|find, sequence| inventory.bunch(now, sequence, timer, rng, find));
        if !entries.is_empty() {
            metrics::relay_announced(entries.len());
            peer.peer.send(NetworkMessage::Inv(entries));
        }
    }

    /// Queues an announcement for every peer that does not know the transaction.
    pub(super) fn announce(&mut self, txid: Txid, wtxid: Wtxid) {
        for inventory in self
            .peers
            .values_mut()
            .filter_map(|peer| peer.inventory.as_mut())
        {
            inventory.queue(txid, wtxid);
        }
        let now = self.clock.now();
        let siblings: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.peer.kind.is_sibling())
            .map(|(id, _)| *id)
            .collect();
        for id in siblings {
            self.send_inventory(id, now);
        }
    }

    /// Notes that a peer has transactions, by their txids.
    pub(super) fn note_known(&mut self, id: PeerId, txids: &[Txid]) {
        if let Some(inventory) = self
            .peers
            .get_mut(&id)
            .and_then(|peer| peer.inventory.as_mut())
        {
            for txid in txids {
                inventory.note_known(txid.as_byte_array());
            }
        }
    }
}

/// Hands a question to the peer's own task.
fn asked(peer: &RelayPeer, entries: Vec<Entry>) {
    // Those who want no announcements, and block-relay peers, are not served.
    let Some(inventory) = &peer.inventory else {
        return;
    };
    let question = Question {
        entries,
        before: inventory.served_before(),
    };
    if peer.questions.try_send(question).is_err() {
        peer.peer.disconnect(Fault::Slow("not_reading"));
    }
}

/// Answers the questions of one peer in order, as fast as it reads.
async fn answer(peer: Arc<Peer>, mempool: MempoolHandle, mut questions: mpsc::Receiver<Question>) {
    while let Some(question) = questions.recv().await {
        let mut missing = Vec::new();
        let before = question.before;
        for chunk in question.entries.chunks(LOOKUPS) {
            let (mempool, entries) = (mempool.clone(), chunk.to_vec());
            let found = tokio::task::spawn_blocking(move || {
                entries
                    .into_iter()
                    .map(|entry| (entry, find(&mempool, &entry, before)))
                    .collect::<Vec<_>>()
            })
            .await;
            let Ok(found) = found else {
                return;
            };
            for (entry, tx) in found {
                match tx {
                    Some(tx) => {
                        if !send(&peer, NetworkMessage::Tx(tx)).await {
                            return;
                        }
                    }
                    None => missing.push(entry),
                }
            }
        }
        if !missing.is_empty() && !send(&peer, NetworkMessage::NotFound(missing)).await {
            return;
        }
    }
}

async fn send(peer: &Peer, message: NetworkMessage) -> bool {
    let sent = tokio::time::timeout(ANSWER_TIMEOUT, peer.answer(message)).await;
    match sent {
        Ok(sent) => sent,
        Err(_) => {
            debug!(peer = %peer.id, "a peer does not read what it asked for");
            peer.disconnect(Fault::Slow("not_reading"));
            false
        }
    }
}

/// A transaction that the peer may have: announced to it, or in the newest block.
fn find(mempool: &MempoolHandle, entry: &Entry, before: u64) -> Option<Transaction> {
    let id = GenTxid::from_inventory(entry)?;
    let tx = mempool
        .find(&id)
        .filter(|(_, sequence)| *sequence < before)
        .map(|(tx, _)| tx)
        .or_else(|| mempool.find_in_last_block(&id))?;
    let mut tx = Transaction::clone(&tx);
    if matches!(entry, Entry::Transaction(_)) && has_witness(&tx) {
        for input in &mut tx.input {
            input.witness.clear();
        }
    }
    Some(tx)
}
