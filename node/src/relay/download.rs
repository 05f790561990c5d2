//! Which transactions to ask peers for, and what follows from each verdict.
//!
//! ```text
//! inv -> have it? -> TxRequests -> getdata -> tx -> to be judged -> accepted: children's turn
//!                        ^                              |
//!                        |                              +-> missing inputs: orphan
//!                        +---- parents, by txid <-------+
//!                                                       +-> fee too low alone: with a child
//!                                                       +-> rejected: remembered until the next block
//! ```
//!
//! The rules are those of Bitcoin Core's `node/txdownloadman_impl.cpp`. Pure: the
//! mempool is asked through [`Pool`], times and random numbers are given.
//!
//! # Correctness
//! A transaction that is being judged counts as known, so that it is neither asked for
//! nor judged twice; its judge must report with [`Downloads::accepted`] or
//! [`Downloads::rejected`].

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use pulse_p2p::peer::PeerId;
use pulse_primitives::bitcoin::{Block, Transaction, Txid, Wtxid, hashes::Hash};
use rand::{SeedableRng, rngs::StdRng};

use super::{
    ids::{GenTxid, has_witness},
    orphanage::Orphanage,
    recent::Recent,
    requests::{
        MAX_ANNOUNCEMENTS, MAX_IN_FLIGHT, NON_PREFERRED_DELAY, OVERLOADED_DELAY, REQUEST_TIMEOUT,
        TXID_DELAY, TxRequests,
    },
};

/// What is in the mempool.
pub trait Pool {
    /// Whether a transaction of that id is in the mempool.
    fn contains(&self, id: &GenTxid) -> bool;
}

/// What matters of a peer here.
#[derive(Debug, Clone, Copy)]
pub struct PeerInfo {
    /// Asked before others: we chose it (outbound).
    pub preferred: bool,
    /// Announces by wtxid (BIP 339).
    pub wtxid_relay: bool,
}

/// Why the mempool refused a transaction, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// An input is unknown.
    MissingInputs,
    /// Its witness is missing: another one may be fine.
    WitnessStripped,
    /// Its fee is too low, but a child could pay for it.
    Reconsiderable,
    /// It spends a non-standard output: no other witness could help.
    InputsNotStandard,
    /// Anything else.
    Other,
}

/// A transaction with the ids that were computed once.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The transaction.
    pub tx: Arc<Transaction>,
    /// Its id.
    pub txid: Txid,
    /// Its id with witnesses.
    pub wtxid: Wtxid,
}

impl Candidate {
    /// Computes the ids.
    #[must_use]
    pub fn new(tx: Arc<Transaction>) -> Self {
        Self {
            txid: tx.compute_txid(),
            wtxid: tx.compute_wtxid(),
            tx,
        }
    }
}

/// What to do with a transaction that arrived.
#[derive(Debug)]
pub enum Arrival {
    /// Nothing: it is known.
    Known,
    /// Judge it.
    Judge(Candidate),
    /// Judge it together with its child: alone its fee is too low.
    JudgePackage(Box<[Candidate; 2]>),
}

/// What follows from a refusal.
#[derive(Debug, Default)]
pub struct Aftermath {
    /// A package to judge: the refused transaction and its child.
    pub package: Option<Box<[Candidate; 2]>>,
    /// The parents of an orphan: the peer that sent it has them.
    pub parents: Vec<Txid>,
    /// Whether it is worth keeping for compact blocks.
    pub keep_for_blocks: bool,
}

/// The downloads of all peers. Not shared: its owner drives it.
#[derive(Debug)]
pub struct Downloads {
    peers: HashMap<PeerId, PeerInfo>,
    requests: TxRequests,
    orphanage: Orphanage,
    recent: Recent,
    judging: HashSet<Wtxid>,
    rng: StdRng,
}

impl Downloads {
    /// Nothing known yet. `seed` makes choices unpredictable.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        let mut rng = StdRng::from_seed(seed);
        Self {
            peers: HashMap::new(),
            requests: TxRequests::new(&mut rng),
            orphanage: Orphanage::default(),
            recent: Recent::new(&mut rng),
            judging: HashSet::new(),
            rng,
        }
    }

    /// A peer that relays transactions is there.
    pub fn connected(&mut self, peer: PeerId, info: PeerInfo) {
        self.peers.insert(peer, info);
    }

    /// A peer is gone.
    pub fn closed(&mut self, peer: PeerId) {
        self.orphanage.erase_peer(peer);
        self.requests.forget_peer(peer);
        self.peers.remove(&peer);
    }

    /// The chain has a new tip.
    pub fn tip_changed(&mut self) {
        self.recent.tip_changed();
    }

    /// A block was connected; `txids` are those of its transactions, in order.
    pub fn block_connected(&mut self, block: &Block, txids: &[Txid]) {
        self.orphanage.erase_for_block(block);
        self.recent.block_connected(block, txids);
        for (tx, txid) in block.txdata.iter().zip(txids) {
            self.requests.forget(txid.as_byte_array());
            if has_witness(tx) {
                self.requests.forget(tx.compute_wtxid().as_byte_array());
            }
        }
    }

    /// A block was disconnected.
    pub fn block_disconnected(&mut self) {
        self.recent.block_disconnected();
    }

    /// A peer announced a transaction.
    pub fn announced(&mut self, peer: PeerId, id: GenTxid, now: Instant, pool: &dyn Pool) {
        if let GenTxid::Wtxid(wtxid) = id
            && let Some(orphan) = self.orphanage.get(&wtxid).map(Arc::clone)
        {
            // Whoever has the orphan has its parents.
            let missing = self.missing_parents(&orphan, pool);
            if !missing.is_empty() && self.ask_for_parents(&missing, &wtxid, peer, now) {
                self.orphanage.add_announcer(&wtxid, peer);
            }
            return;
        }
        if self.has(&id, true, pool) {
            return;
        }
        let Some(info) = self.peers.get(&peer).copied() else {
            return;
        };
        if self.requests.count(peer) >= MAX_ANNOUNCEMENTS {
            return;
        }
        let by_txid = matches!(id, GenTxid::Txid(_));
        let delay = self.delay(peer, info, by_txid);
        self.requests
            .announce(peer, id, info.preferred, now + delay);
    }

    /// What to ask `peer` for now.
    pub fn requests(&mut self, peer: PeerId, now: Instant, pool: &dyn Pool) -> Vec<GenTxid> {
        let mut asked = Vec::new();
        for id in self.requests.requestable(peer, now) {
            let hash = id.hash();
            if self.has(&id, false, pool) {
                self.requests.forget(&hash);
            } else {
                self.requests.requested(peer, &hash, now + REQUEST_TIMEOUT);
                asked.push(id);
            }
        }
        asked
    }

    /// When [`Self::requests`] may have something new for any peer.
    #[must_use]
    pub fn next_time(&self) -> Option<Instant> {
        self.requests.next_time()
    }

    /// A peer does not have what it was asked for.
    pub fn not_found(&mut self, peer: PeerId, id: &GenTxid) {
        self.requests.received(peer, &id.hash());
    }

    /// A peer sent a transaction.
    pub fn arrived(&mut self, peer: PeerId, tx: Arc<Transaction>, pool: &dyn Pool) -> Arrival {
        let candidate = Candidate::new(tx);
        let (txid, wtxid) = (candidate.txid, candidate.wtxid);
        self.requests.received(peer, txid.as_byte_array());
        if has_witness(&candidate.tx) {
            self.requests.received(peer, wtxid.as_byte_array());
        }
        if self.has(&GenTxid::Wtxid(wtxid), false, pool) {
            return Arrival::Known;
        }
        if self.recent.is_rejected_alone(wtxid.as_byte_array()) {
            return match self.package_for(&candidate, peer) {
                Some(package) => {
                    self.judging.extend(package.iter().map(|tx| tx.wtxid));
                    Arrival::JudgePackage(package)
                }
                None => Arrival::Known,
            };
        }
        self.judging.insert(wtxid);
        Arrival::Judge(candidate)
    }

    /// The mempool took a transaction in. Tells which peers have orphans to judge now.
    pub fn accepted(&mut self, tx: &Candidate) -> BTreeSet<PeerId> {
        self.judging.remove(&tx.wtxid);
        self.requests.forget(tx.txid.as_byte_array());
        self.requests.forget(tx.wtxid.as_byte_array());
        let peers = self
            .orphanage
            .parent_arrived(&tx.tx, tx.txid, &mut self.rng);
        self.orphanage.erase(&tx.wtxid);
        peers
    }

    /// The mempool refused a transaction that `peer` sent. `first` is false for orphans
    /// and for members of a package, whose first refusal was reported before.
    pub fn rejected(
        &mut self,
        peer: PeerId,
        tx: &Candidate,
        refusal: Refusal,
        first: bool,
        now: Instant,
        pool: &dyn Pool,
    ) -> Aftermath {
        self.judging.remove(&tx.wtxid);
        let mut aftermath = Aftermath {
            keep_for_blocks: first,
            ..Aftermath::default()
        };
        let (txid_hash, wtxid_hash) = (tx.txid.to_byte_array(), tx.wtxid.to_byte_array());
        match refusal {
            Refusal::MissingInputs => {
                if first && !self.recent.is_rejected(&wtxid_hash) {
                    self.orphan(peer, tx, now, pool, &mut aftermath);
                }
                return aftermath;
            }
            Refusal::WitnessStripped => aftermath.keep_for_blocks = false,
            Refusal::Reconsiderable => {
                self.recent.reject_alone(&tx.wtxid);
                self.requests.forget(&wtxid_hash);
                if first {
                    aftermath.package = self.package_for(tx, peer);
                    if let Some(package) = &aftermath.package {
                        self.judging.extend(package.iter().map(|tx| tx.wtxid));
                    }
                }
            }
            Refusal::InputsNotStandard | Refusal::Other => {
                self.recent.reject(&wtxid_hash);
                self.requests.forget(&wtxid_hash);
                if refusal == Refusal::InputsNotStandard && has_witness(&tx.tx) {
                    self.recent.reject(&txid_hash);
                    self.requests.forget(&txid_hash);
                }
            }
        }
        self.orphanage.erase(&tx.wtxid);
        aftermath
    }

    /// The mempool refused a package as a whole.
    pub fn package_rejected(&mut self, package: &[Candidate]) {
        let wtxids: Vec<Wtxid> = package.iter().map(|tx| tx.wtxid).collect();
        self.recent.reject_package(&wtxids);
    }

    /// The judge was not asked after all, or gave no verdict.
    pub fn not_judged(&mut self, wtxid: &Wtxid) {
        self.judging.remove(wtxid);
    }

    /// The next orphan from the work set of `peer`, to be judged.
    pub fn next_orphan(&mut self, peer: PeerId) -> Option<Candidate> {
        let candidate = Candidate::new(self.orphanage.next_work(peer)?);
        self.judging.insert(candidate.wtxid);
        Some(candidate)
    }

    /// Whether `peer` has orphans to judge.
    #[must_use]
    pub fn has_work(&self, peer: PeerId) -> bool {
        self.orphanage.has_work(peer)
    }

    /// Announcements of `peer` that are not dealt with yet.
    #[must_use]
    pub fn announced_by(&self, peer: PeerId) -> usize {
        self.requests.count(peer)
    }

    /// Requests without an answer, announcements, orphans: for metrics.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize) {
        (self.requests.len(), self.orphanage.len())
    }

    /// Keeps an orphan and asks for its parents, unless one of them was rejected.
    fn orphan(
        &mut self,
        peer: PeerId,
        tx: &Candidate,
        now: Instant,
        pool: &dyn Pool,
        aftermath: &mut Aftermath,
    ) {
        let parents = unique_parents(&tx.tx);
        // One parent whose fee was too low may be paid for by this child; two may not.
        let mut reconsiderable = 0;
        let hopeless = parents.iter().any(|parent| {
            let hash = parent.as_byte_array();
            if self.recent.is_rejected(hash) {
                return true;
            }
            if self.recent.is_rejected_alone(hash) && !pool.contains(&GenTxid::Txid(*parent)) {
                reconsiderable += 1;
            }
            reconsiderable > 1
        });
        let (txid, wtxid) = (tx.txid.to_byte_array(), tx.wtxid.to_byte_array());
        if hopeless {
            // Whatever its witness, it cannot pass: both ids.
            self.recent.reject(&txid);
            self.recent.reject(&wtxid);
        } else {
            let missing = self.missing_parents(&tx.tx, pool);
            aftermath.keep_for_blocks &= !self.orphanage.contains(&tx.wtxid);
            let mut holders = vec![peer];
            holders.extend(self.requests.candidates(&txid));
            if has_witness(&tx.tx) {
                holders.extend(self.requests.candidates(&wtxid));
            }
            for holder in holders {
                if self.ask_for_parents(&missing, &tx.wtxid, holder, now) {
                    self.orphanage.add(&tx.tx, tx.wtxid, holder);
                }
            }
            // The parents came while it was judged: it is its turn at once.
            if missing.is_empty() {
                self.orphanage.enqueue(&tx.wtxid, &mut self.rng);
            }
            aftermath.parents = missing;
        }
        self.requests.forget(&txid);
        self.requests.forget(&wtxid);
    }

    /// Notes that `peer`, which has the orphan, has its parents as well. `false` if the
    /// peer announced the orphan before, or announced too much.
    fn ask_for_parents(
        &mut self,
        parents: &[Txid],
        orphan: &Wtxid,
        peer: PeerId,
        now: Instant,
    ) -> bool {
        let Some(info) = self.peers.get(&peer).copied() else {
            return false;
        };
        if self.orphanage.is_announced_by(orphan, peer)
            || self.requests.count(peer) + parents.len() > MAX_ANNOUNCEMENTS
        {
            return false;
        }
        // Parents are asked for by txid. They often come by themselves meanwhile.
        let delay = self.delay(peer, info, true);
        for parent in parents {
            self.requests
                .announce(peer, GenTxid::Txid(*parent), info.preferred, now + delay);
        }
        true
    }

    fn delay(&self, peer: PeerId, info: PeerInfo, by_txid: bool) -> Duration {
        let mut delay = Duration::ZERO;
        if !info.preferred {
            delay += NON_PREFERRED_DELAY;
        }
        if by_txid && self.peers.values().any(|info| info.wtxid_relay) {
            delay += TXID_DELAY;
        }
        if self.requests.in_flight(peer) >= MAX_IN_FLIGHT {
            delay += OVERLOADED_DELAY;
        }
        delay
    }

    fn missing_parents(&self, tx: &Transaction, pool: &dyn Pool) -> Vec<Txid> {
        let mut parents = unique_parents(tx);
        parents.retain(|parent| !self.has(&GenTxid::Txid(*parent), false, pool));
        parents
    }

    /// Whether a transaction need not be asked for.
    ///
    /// The orphanage is asked by wtxid only, also for a txid (which is the wtxid of a
    /// transaction without witnesses): whoever sends an orphan with a spoiled witness
    /// must not keep the real one away.
    fn has(&self, id: &GenTxid, reconsiderable: bool, pool: &dyn Pool) -> bool {
        let wtxid = Wtxid::from_byte_array(id.hash());
        self.orphanage.contains(&wtxid)
            || self.judging.contains(&wtxid)
            || (reconsiderable && self.recent.is_rejected_alone(&id.hash()))
            || self.recent.contains(id)
            || pool.contains(id)
    }

    /// A child of `parent` from the same peer with which it may pass: a peer that wants
    /// to keep a transaction away cannot offer its own children for it.
    fn package_for(&self, parent: &Candidate, peer: PeerId) -> Option<Box<[Candidate; 2]>> {
        self.orphanage
            .children_from(parent.txid, peer)
            .into_iter()
            .map(Candidate::new)
            .find(|child| {
                !self
                    .recent
                    .is_package_rejected(&[parent.wtxid, child.wtxid])
                    && !self.recent.is_rejected(child.txid.as_byte_array())
                    && !self.judging.contains(&child.wtxid)
            })
            .map(|child| Box::new([parent.clone(), child]))
    }
}

fn unique_parents(tx: &Transaction) -> Vec<Txid> {
    let parents: BTreeSet<Txid> = tx
        .input
        .iter()
        .map(|input| input.previous_output.txid)
        .collect();
    parents.into_iter().collect()
}

#[cfg(test)]
mod tests;
