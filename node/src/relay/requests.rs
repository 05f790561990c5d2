//! Whom to ask for which announced transaction, and when.
//!
//! ```text
//! announce -> delayed -(its time comes)-> ready -(best of its hash)-> asked -> completed
//!                                                                      |  time-out, notfound, invalid
//!                                                                      +-> the next best peer
//! ```
//!
//! # Correctness
//! One request per hash is out at a time. A peer is asked once for a hash as long as
//! another one might still have it. When nobody is left, all is forgotten. The rules
//! are those of Bitcoin Core's `txrequest.h`.
//!
//! # Security
//! Among peers whose time has come, preferred ones (outbound) go first, then the choice
//! is random by a key that peers do not know: announcing fast or often does not help to
//! be asked, and so to withhold a transaction.
//!
//! # Limits
//! Callers bound the announcements of a peer ([`MAX_ANNOUNCEMENTS`]). Work per call is
//! proportional to the peers that announced a hash.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::{Duration, Instant},
};

use pulse_p2p::peer::PeerId;
use pulse_primitives::bitcoin::hashes::siphash24;
use rand::Rng;

use super::ids::{GenTxid, TxHash};

/// Announcements that are tracked for one peer.
pub const MAX_ANNOUNCEMENTS: usize = 5_000;
/// Requests in flight from which a peer counts as overloaded.
pub const MAX_IN_FLIGHT: usize = 100;
/// Delay for peers that are not preferred.
pub const NON_PREFERRED_DELAY: Duration = Duration::from_secs(2);
/// Delay for announcements by txid while some peer announces by wtxid.
pub const TXID_DELAY: Duration = Duration::from_secs(2);
/// Delay for overloaded peers.
pub const OVERLOADED_DELAY: Duration = Duration::from_secs(2);
/// After this long the next peer is asked.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// What is known of one peer's announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not to be asked before this time.
    Delayed(Instant),
    /// Could be asked.
    Ready,
    /// Is the one to ask.
    Best,
    /// Was asked; until this time.
    Requested(Instant),
    /// Did not deliver. Kept so that it is not asked again.
    Completed,
}

#[derive(Debug)]
struct Announcement {
    peer: PeerId,
    id: GenTxid,
    preferred: bool,
    sequence: u64,
    state: State,
}

#[derive(Debug, Default)]
struct PeerState {
    hashes: HashSet<TxHash>,
    /// Where this peer is the one to ask, by order of announcement.
    best: BTreeMap<u64, TxHash>,
    in_flight: usize,
}

/// The tracker. Not shared: its owner drives it.
#[derive(Debug)]
pub struct TxRequests {
    by_hash: HashMap<TxHash, Vec<Announcement>>,
    peers: HashMap<PeerId, PeerState>,
    timers: BTreeSet<(Instant, TxHash, PeerId)>,
    sequence: u64,
    keys: (u64, u64),
}

impl TxRequests {
    /// An empty tracker whose choices depend on `rng`.
    pub fn new(rng: &mut impl Rng) -> Self {
        Self {
            by_hash: HashMap::new(),
            peers: HashMap::new(),
            timers: BTreeSet::new(),
            sequence: 0,
            keys: (rng.r#gen(), rng.r#gen()),
        }
    }

    /// Notes that `peer` has a transaction, which it may be asked for from `at` on.
    /// Nothing changes if this peer announced the hash already.
    pub fn announce(&mut self, peer: PeerId, id: GenTxid, preferred: bool, at: Instant) {
        let hash = id.hash();
        if !self.peers.entry(peer).or_default().hashes.insert(hash) {
            return;
        }
        self.by_hash.entry(hash).or_default().push(Announcement {
            peer,
            id,
            preferred,
            sequence: self.sequence,
            state: State::Delayed(at),
        });
        self.sequence += 1;
        self.timers.insert((at, hash, peer));
    }

    /// What to ask `peer` for now, in the order in which it announced. Each is to be
    /// followed by [`Self::requested`] or [`Self::forget`].
    pub fn requestable(&mut self, peer: PeerId, now: Instant) -> Vec<GenTxid> {
        self.advance(now);
        let Some(state) = self.peers.get(&peer) else {
            return Vec::new();
        };
        state
            .best
            .values()
            .filter_map(|hash| {
                let announcements = self.by_hash.get(hash)?;
                announcements
                    .iter()
                    .find(|announcement| announcement.peer == peer)
                    .map(|announcement| announcement.id)
            })
            .collect()
    }

    /// Notes that `peer` has been asked, until `expiry`. Nothing changes unless it was
    /// the one to ask.
    pub fn requested(&mut self, peer: PeerId, hash: &TxHash, expiry: Instant) {
        let Some(announcement) = self.find(peer, hash) else {
            return;
        };
        if announcement.state != State::Best {
            return;
        }
        announcement.state = State::Requested(expiry);
        let sequence = announcement.sequence;
        self.timers.insert((expiry, *hash, peer));
        if let Some(state) = self.peers.get_mut(&peer) {
            state.best.remove(&sequence);
            state.in_flight += 1;
        }
    }

    /// Notes that `peer` answered (with the transaction, or that it has none): the next
    /// peer may be asked. Nothing changes if it never announced the hash.
    pub fn received(&mut self, peer: PeerId, hash: &TxHash) {
        if self.find(peer, hash).is_some() {
            self.complete(peer, hash);
        }
    }

    /// Forgets a transaction: it arrived, or is not wanted any more.
    pub fn forget(&mut self, hash: &TxHash) {
        for announcement in self.by_hash.remove(hash).unwrap_or_default() {
            self.unlink(&announcement, hash);
            self.drop_from_peer(announcement.peer, hash);
        }
    }

    /// Forgets a peer. What it was asked for goes to the next one.
    pub fn forget_peer(&mut self, peer: PeerId) {
        let Some(state) = self.peers.get(&peer) else {
            return;
        };
        let hashes: Vec<TxHash> = state.hashes.iter().copied().collect();
        for hash in hashes {
            self.complete(peer, &hash);
            // Still there if others might have it.
            if let Some(announcements) = self.by_hash.get_mut(&hash) {
                announcements.retain(|announcement| announcement.peer != peer);
            }
            self.drop_from_peer(peer, &hash);
        }
        self.peers.remove(&peer);
    }

    /// Peers that announced the hash and have not failed to deliver it.
    #[must_use]
    pub fn candidates(&self, hash: &TxHash) -> Vec<PeerId> {
        self.by_hash
            .get(hash)
            .map_or_else(Vec::new, |announcements| {
                announcements
                    .iter()
                    .filter(|announcement| announcement.state != State::Completed)
                    .map(|announcement| announcement.peer)
                    .collect()
            })
    }

    /// Announcements of `peer`.
    #[must_use]
    pub fn count(&self, peer: PeerId) -> usize {
        self.peers.get(&peer).map_or(0, |state| state.hashes.len())
    }

    /// Requests to `peer` without an answer yet.
    #[must_use]
    pub fn in_flight(&self, peer: PeerId) -> usize {
        self.peers.get(&peer).map_or(0, |state| state.in_flight)
    }

    /// All announcements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_hash.values().map(Vec::len).sum()
    }

    /// Whether nothing is tracked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_hash.is_empty()
    }

    /// When something changes by itself next.
    #[must_use]
    pub fn next_time(&self) -> Option<Instant> {
        self.timers.first().map(|(at, ..)| *at)
    }

    /// Applies delays and time-outs that have passed.
    fn advance(&mut self, now: Instant) {
        while let Some((at, hash, peer)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            let Some(announcement) = self.find(peer, &hash) else {
                continue;
            };
            match announcement.state {
                State::Delayed(_) => {
                    announcement.state = State::Ready;
                    self.select(&hash);
                }
                State::Requested(_) => self.complete(peer, &hash),
                State::Ready | State::Best | State::Completed => {}
            }
        }
    }

    fn find(&mut self, peer: PeerId, hash: &TxHash) -> Option<&mut Announcement> {
        self.by_hash
            .get_mut(hash)?
            .iter_mut()
            .find(|announcement| announcement.peer == peer)
    }

    /// Turns the announcement into a completed one and selects another; forgets the hash
    /// when only completed ones are left.
    fn complete(&mut self, peer: PeerId, hash: &TxHash) {
        let Some(announcement) = self.find(peer, hash) else {
            return;
        };
        let old = std::mem::replace(&mut announcement.state, State::Completed);
        let sequence = announcement.sequence;
        self.unlink_state(peer, sequence, old, hash);
        let exhausted = self.by_hash.get(hash).is_some_and(|announcements| {
            announcements
                .iter()
                .all(|announcement| announcement.state == State::Completed)
        });
        if exhausted {
            self.forget(hash);
        } else {
            self.select(hash);
        }
    }

    /// Makes the best ready announcement the one to ask, unless one is asked already.
    fn select(&mut self, hash: &TxHash) {
        let keys = self.keys;
        let Some(announcements) = self.by_hash.get_mut(hash) else {
            return;
        };
        if announcements
            .iter()
            .any(|announcement| matches!(announcement.state, State::Requested(_)))
        {
            return;
        }
        let best = announcements
            .iter()
            .filter(|announcement| matches!(announcement.state, State::Ready | State::Best))
            .max_by_key(|announcement| priority(keys, hash, announcement))
            .map(|announcement| announcement.peer);
        for announcement in announcements {
            let is_best = Some(announcement.peer) == best;
            match announcement.state {
                State::Best if !is_best => {
                    announcement.state = State::Ready;
                    if let Some(state) = self.peers.get_mut(&announcement.peer) {
                        state.best.remove(&announcement.sequence);
                    }
                }
                State::Ready if is_best => {
                    announcement.state = State::Best;
                    if let Some(state) = self.peers.get_mut(&announcement.peer) {
                        state.best.insert(announcement.sequence, *hash);
                    }
                }
                _ => {}
            }
        }
    }

    /// Takes an announcement out of timers, choices and counts.
    fn unlink(&mut self, announcement: &Announcement, hash: &TxHash) {
        self.unlink_state(
            announcement.peer,
            announcement.sequence,
            announcement.state,
            hash,
        );
    }

    fn unlink_state(&mut self, peer: PeerId, sequence: u64, old: State, hash: &TxHash) {
        let state = self.peers.get_mut(&peer);
        match old {
            State::Delayed(at) => {
                self.timers.remove(&(at, *hash, peer));
            }
            State::Requested(at) => {
                self.timers.remove(&(at, *hash, peer));
                if let Some(state) = state {
                    state.in_flight = state.in_flight.saturating_sub(1);
                }
            }
            State::Best => {
                if let Some(state) = state {
                    state.best.remove(&sequence);
                }
            }
            State::Ready | State::Completed => {}
        }
    }

    fn drop_from_peer(&mut self, peer: PeerId, hash: &TxHash) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.hashes.remove(hash);
            if state.hashes.is_empty() {
                self.peers.remove(&peer);
            }
        }
    }
}

/// Higher goes first: preferred peers, then by a secret order.
fn priority((k0, k1): (u64, u64), hash: &TxHash, announcement: &Announcement) -> (bool, u64) {
    let mut data = [0; 40];
    data[..32].copy_from_slice(hash);
    data[32..].copy_from_slice(&announcement.peer.0.to_le_bytes());
    let low = siphash24::Hash::hash_to_u64_with_keys(k0, k1, &data);
    (announcement.preferred, low)
}

#[cfg(test)]
mod tests;
