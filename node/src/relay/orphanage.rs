//! Transactions whose parents are not known yet.
//!
//! # Security
//! Nobody knows whether an orphan is valid, so what may be kept is bounded: by weight
//! ([`RESERVED_WEIGHT`] times the peers that have orphans here) and by a score of the
//! work that blocks make with them ([`MAX_SCORE`] in all, shared equally). A peer may
//! use more while there is room. When a bound is passed, the peer that uses most of its
//! share loses its oldest announcements: no peer can push out what another one sent
//! within its own share. These are the rules of Bitcoin Core's `node/txorphanage.cpp`.
//!
//! # Correctness
//! An orphan stays as long as one peer announces it. At most one of its announcements
//! is in a work set.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use pulse_p2p::peer::PeerId;
use pulse_primitives::bitcoin::{Block, OutPoint, Transaction, Txid, Wtxid};
use rand::Rng;

/// Weight that each peer may keep here, in weight units.
pub const RESERVED_WEIGHT: u64 = 404_000;
/// Greatest sum of scores: each announcement counts one, and each orphan one more for
/// every ten inputs.
pub const MAX_SCORE: u64 = 3_000;
/// Orphans heavier than a standard transaction are not kept.
const MAX_WEIGHT: u64 = 400_000;

/// One transaction, with who announced it.
#[derive(Debug)]
struct Orphan {
    tx: Arc<Transaction>,
    weight: u64,
    /// Score of the inputs: one for every ten.
    input_score: u64,
    /// Order of announcement by each peer.
    announcers: BTreeMap<PeerId, u64>,
    /// The peer in whose work set it is.
    reconsider: Option<PeerId>,
}

#[derive(Debug, Default)]
struct PeerUsage {
    weight: u64,
    score: u64,
    /// Its announcements: those not in the work set first, then by age.
    order: BTreeSet<(bool, u64, Wtxid)>,
}

/// The orphans. Not shared: its owner drives it.
#[derive(Debug)]
pub struct Orphanage {
    orphans: HashMap<Wtxid, Orphan>,
    by_outpoint: HashMap<OutPoint, BTreeSet<Wtxid>>,
    peers: HashMap<PeerId, PeerUsage>,
    announcements: u64,
    input_scores: u64,
    weight: u64,
    sequence: u64,
    max_score: u64,
    reserved_weight: u64,
}

impl Default for Orphanage {
    fn default() -> Self {
        Self::with_limits(MAX_SCORE, RESERVED_WEIGHT)
    }
}

impl Orphanage {
    /// An empty orphanage with other limits than [`MAX_SCORE`] and [`RESERVED_WEIGHT`].
    #[must_use]
    pub fn with_limits(max_score: u64, reserved_weight: u64) -> Self {
        Self {
            orphans: HashMap::new(),
            by_outpoint: HashMap::new(),
            peers: HashMap::new(),
            announcements: 0,
            input_scores: 0,
            weight: 0,
            sequence: 0,
            max_score,
            reserved_weight,
        }
    }

    /// Keeps an orphan that `peer` announced. `true` if it is new here.
    pub fn add(&mut self, tx: &Arc<Transaction>, wtxid: Wtxid, peer: PeerId) -> bool {
        let weight = tx.weight().to_wu();
        if weight > MAX_WEIGHT {
            return false;
        }
        let is_new = !self.orphans.contains_key(&wtxid);
        if is_new {
            let input_score = tx.input.len() as u64 / 10;
            for input in &tx.input {
                self.by_outpoint
                    .entry(input.previous_output)
                    .or_default()
                    .insert(wtxid);
            }
            self.weight += weight;
            self.input_scores += input_score;
            self.orphans.insert(
                wtxid,
                Orphan {
                    tx: Arc::clone(tx),
                    weight,
                    input_score,
                    announcers: BTreeMap::new(),
                    reconsider: None,
                },
            );
        }
        self.add_announcer(&wtxid, peer);
        is_new
    }

    /// Notes that `peer` announced an orphan too. `false` if it is not here, or was
    /// announced by this peer before.
    pub fn add_announcer(&mut self, wtxid: &Wtxid, peer: PeerId) -> bool {
        let Some(orphan) = self.orphans.get_mut(wtxid) else {
            return false;
        };
        if orphan.announcers.contains_key(&peer) {
            return false;
        }
        orphan.announcers.insert(peer, self.sequence);
        let usage = self.peers.entry(peer).or_default();
        usage.weight += orphan.weight;
        usage.score += 1 + orphan.input_score;
        usage.order.insert((false, self.sequence, *wtxid));
        self.announcements += 1;
        self.sequence += 1;
        self.trim();
        true
    }

    /// An orphan.
    #[must_use]
    pub fn get(&self, wtxid: &Wtxid) -> Option<&Arc<Transaction>> {
        self.orphans.get(wtxid).map(|orphan| &orphan.tx)
    }

    /// Whether the orphan is here.
    #[must_use]
    pub fn contains(&self, wtxid: &Wtxid) -> bool {
        self.orphans.contains_key(wtxid)
    }

    /// Whether `peer` announced the orphan.
    #[must_use]
    pub fn is_announced_by(&self, wtxid: &Wtxid, peer: PeerId) -> bool {
        self.orphans
            .get(wtxid)
            .is_some_and(|orphan| orphan.announcers.contains_key(&peer))
    }

    /// Puts the orphans that spend outputs of `parent` into the work set of one of their
    /// announcers each, chosen at random, so that none can hold one up. Tells which
    /// peers have work now.
    pub fn parent_arrived(
        &mut self,
        parent: &Transaction,
        txid: Txid,
        rng: &mut impl Rng,
    ) -> BTreeSet<PeerId> {
        let mut peers = BTreeSet::new();
        for vout in (0..).take(parent.output.len()) {
            let Some(children) = self.by_outpoint.get(&OutPoint::new(txid, vout)) else {
                continue;
            };
            for wtxid in children.clone() {
                peers.extend(self.enqueue(&wtxid, rng));
            }
        }
        peers
    }

    /// Puts an orphan into the work set of one of its announcers; `None` if it is not
    /// here or in one already.
    pub fn enqueue(&mut self, wtxid: &Wtxid, rng: &mut impl Rng) -> Option<PeerId> {
        let orphan = self.orphans.get_mut(wtxid)?;
        if orphan.reconsider.is_some() || orphan.announcers.is_empty() {
            return None;
        }
        let nth = rng.gen_range(0..orphan.announcers.len());
        let (peer, sequence) = orphan.announcers.iter().nth(nth)?;
        let (peer, sequence) = (*peer, *sequence);
        orphan.reconsider = Some(peer);
        self.move_in_order(peer, sequence, *wtxid, true);
        Some(peer)
    }

    /// Takes an orphan from the work set of `peer`, oldest first. It stays here.
    pub fn next_work(&mut self, peer: PeerId) -> Option<Arc<Transaction>> {
        let usage = self.peers.get(&peer)?;
        let (_, sequence, wtxid) = *usage.order.range((true, 0, lowest())..).next()?;
        self.move_in_order(peer, sequence, wtxid, false);
        let orphan = self.orphans.get_mut(&wtxid)?;
        orphan.reconsider = None;
        Some(Arc::clone(&orphan.tx))
    }

    /// Whether `peer` has orphans in its work set.
    #[must_use]
    pub fn has_work(&self, peer: PeerId) -> bool {
        self.peers
            .get(&peer)
            .and_then(|usage| usage.order.last())
            .is_some_and(|(reconsider, ..)| *reconsider)
    }

    /// Orphans that `peer` announced and that spend outputs of `parent`: those in its
    /// work set first, then the newest first.
    #[must_use]
    pub fn children_from(&self, parent: Txid, peer: PeerId) -> Vec<Arc<Transaction>> {
        let Some(usage) = self.peers.get(&peer) else {
            return Vec::new();
        };
        let is_child = |tx: &Transaction| {
            tx.input
                .iter()
                .any(|input| input.previous_output.txid == parent)
        };
        usage
            .order
            .iter()
            .rev()
            .filter_map(|(.., wtxid)| self.get(wtxid))
            .filter(|tx| is_child(tx))
            .cloned()
            .collect()
    }

    /// Drops an orphan. `false` if it was not here.
    pub fn erase(&mut self, wtxid: &Wtxid) -> bool {
        let erased = self.erase_all_announcements(wtxid);
        self.trim();
        erased
    }

    /// Forgets a peer; orphans that nobody else announced go with it.
    pub fn erase_peer(&mut self, peer: PeerId) {
        let Some(usage) = self.peers.get(&peer) else {
            return;
        };
        for (.., wtxid) in usage.order.clone() {
            self.erase_announcement(&wtxid, peer);
        }
        self.trim();
    }

    /// Drops what a block confirmed or made impossible.
    pub fn erase_for_block(&mut self, block: &Block) {
        if self.orphans.is_empty() {
            return;
        }
        let gone: BTreeSet<Wtxid> = block
            .txdata
            .iter()
            .flat_map(|tx| &tx.input)
            .filter_map(|input| self.by_outpoint.get(&input.previous_output))
            .flatten()
            .copied()
            .collect();
        for wtxid in gone {
            self.erase_all_announcements(&wtxid);
        }
        self.trim();
    }

    /// Orphans here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.orphans.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.orphans.is_empty()
    }

    /// Weight of all orphans, each counted once.
    #[must_use]
    pub fn total_weight(&self) -> u64 {
        self.weight
    }

    /// Announcements by `peer`.
    #[must_use]
    pub fn announced_by(&self, peer: PeerId) -> usize {
        self.peers.get(&peer).map_or(0, |usage| usage.order.len())
    }

    fn erase_all_announcements(&mut self, wtxid: &Wtxid) -> bool {
        let Some(orphan) = self.orphans.get(wtxid) else {
            return false;
        };
        let peers: Vec<PeerId> = orphan.announcers.keys().copied().collect();
        for peer in peers {
            self.erase_announcement(wtxid, peer);
        }
        true
    }

    fn erase_announcement(&mut self, wtxid: &Wtxid, peer: PeerId) {
        let Some(orphan) = self.orphans.get_mut(wtxid) else {
            return;
        };
        let Some(sequence) = orphan.announcers.remove(&peer) else {
            return;
        };
        let reconsider = orphan.reconsider == Some(peer);
        if reconsider {
            orphan.reconsider = None;
        }
        self.announcements -= 1;
        if let Some(usage) = self.peers.get_mut(&peer) {
            usage.weight -= orphan.weight;
            usage.score -= 1 + orphan.input_score;
            usage.order.remove(&(reconsider, sequence, *wtxid));
            if usage.order.is_empty() {
                self.peers.remove(&peer);
            }
        }
        if !orphan.announcers.is_empty() {
            return;
        }
        self.weight -= orphan.weight;
        self.input_scores -= orphan.input_score;
        let Some(orphan) = self.orphans.remove(wtxid) else {
            return;
        };
        for input in &orphan.tx.input {
            if let Some(children) = self.by_outpoint.get_mut(&input.previous_output) {
                children.remove(wtxid);
                if children.is_empty() {
                    self.by_outpoint.remove(&input.previous_output);
                }
            }
        }
    }

    fn move_in_order(&mut self, peer: PeerId, sequence: u64, wtxid: Wtxid, reconsider: bool) {
        if let Some(usage) = self.peers.get_mut(&peer) {
            usage.order.remove(&(!reconsider, sequence, wtxid));
            usage.order.insert((reconsider, sequence, wtxid));
        }
    }

    fn needs_trim(&self) -> bool {
        let peers = (self.peers.len() as u64).max(1);
        self.announcements + self.input_scores > self.max_score
            || self.weight > self.reserved_weight * peers
    }

    /// Drops the oldest announcements of whoever uses most of its share, until all fits.
    fn trim(&mut self) {
        if !self.needs_trim() {
            return;
        }
        // The same shares throughout, though peers may drop out meanwhile.
        let peer_score = (self.max_score / (self.peers.len() as u64).max(1)).max(1);
        while self.needs_trim() {
            let worst = self
                .peers
                .iter()
                .map(|(peer, usage)| (share(usage, peer_score, self.reserved_weight), *peer))
                .filter(|(share, _)| share.used > share.allowed)
                .max();
            let Some((_, peer)) = worst else {
                return;
            };
            let Some((.., wtxid)) = self.peers[&peer].order.first().copied() else {
                return;
            };
            self.erase_announcement(&wtxid, peer);
        }
    }
}

/// The smallest wtxid, to start a range at.
fn lowest() -> Wtxid {
    use pulse_primitives::bitcoin::hashes::Hash;
    Wtxid::all_zeros()
}

/// How much of a resource a peer uses. Ordered by the ratio; of equal ratios the one of
/// the scarcer resource is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    used: u64,
    allowed: u64,
}

impl Ord for Share {
    fn cmp(&self, other: &Self) -> Ordering {
        let left = u128::from(self.used) * u128::from(other.allowed);
        let right = u128::from(other.used) * u128::from(self.allowed);
        left.cmp(&right).then(other.allowed.cmp(&self.allowed))
    }
}

impl PartialOrd for Share {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The resource of which the peer uses most.
fn share(usage: &PeerUsage, peer_score: u64, reserved_weight: u64) -> Share {
    let score = Share {
        used: usage.score,
        allowed: peer_score,
    };
    let weight = Share {
        used: usage.weight,
        allowed: reserved_weight,
    };
    score.max(weight)
}

#[cfg(test)]
mod tests;
