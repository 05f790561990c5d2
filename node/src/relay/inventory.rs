//! Which transactions are announced to one peer, and when.
//!
//! ```text
//! queue -> (Poisson timer) -> best fee rate first -> inv
//! ```
//!
//! # Security
//! Announcements wait for a random time and go out in bunches sorted by fee rate, so
//! that a peer cannot tell when and from whom we got a transaction. Inbound peers share
//! one timer: connecting often shows no more than connecting once. A transaction that
//! arrived after the last bunch is not served to a peer that asks for it.
//!
//! # Limits
//! [`MAX_QUEUED`] transactions wait per peer. Between 25,000 and 50,000 ids that the
//! peer knows are remembered, in at most 0.6 MB.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use pulse_primitives::bitcoin::{
    Txid, Wtxid, hashes::Hash, p2p::message_blockdata::Inventory as Entry,
};
use rand::Rng;

use super::{
    ids::{TxHash, exponential},
    recent::RecentSet,
};

/// Mean time between bunches to inbound peers.
const INBOUND_INTERVAL: Duration = Duration::from_secs(5);
/// Mean time between bunches to outbound peers, with which privacy matters less.
const OUTBOUND_INTERVAL: Duration = Duration::from_secs(2);
/// Usual size of a bunch: 14 transactions a second for five seconds.
const BUNCH: usize = 14 * 5;
/// Greatest size of a bunch.
const MAX_BUNCH: usize = 1_000;
/// Transactions that wait for one peer. More are not announced to it.
pub const MAX_QUEUED: usize = 50_000;
/// Ids that the peer knows and that are remembered at least.
const KNOWN: usize = 25_000;

/// What the mempool knows of a transaction that is to be announced. `R` orders
/// transactions as they would be mined, the first one least.
#[derive(Debug, Clone, Copy)]
pub struct Announceable<R> {
    /// Its id without witnesses.
    pub txid: Txid,
    /// Its fee, in sat.
    pub fee: u64,
    /// Its virtual size, in vB.
    pub vsize: u64,
    /// Its place among those to be mined.
    pub rank: R,
}

/// The timer that all inbound peers share.
#[derive(Debug, Default)]
pub struct InboundTimer(Option<Instant>);

impl InboundTimer {
    fn next(&mut self, now: Instant, rng: &mut impl Rng) -> Instant {
        match self.0 {
            Some(next) if next > now => next,
            _ => {
                let next = now + exponential(rng, INBOUND_INTERVAL);
                self.0 = Some(next);
                next
            }
        }
    }
}

/// Announcements to one peer.
#[derive(Debug)]
pub struct Inventory {
    inbound: bool,
    /// Nothing waits: the peer is one of our own, from whom nothing is hidden.
    at_once: bool,
    wtxid_relay: bool,
    queue: HashSet<Wtxid>,
    known: RecentSet,
    fee_filter: u64,
    next: Instant,
    last_sequence: u64,
}

impl Inventory {
    /// For a peer that has just connected. What the mempool holds at `sequence` is
    /// served to it; only what comes later is announced.
    pub fn new(
        inbound: bool,
        wtxid_relay: bool,
        sequence: u64,
        now: Instant,
        timer: &mut InboundTimer,
        rng: &mut impl Rng,
    ) -> Self {
        let mut inventory = Self {
            inbound,
            at_once: false,
            wtxid_relay,
            queue: HashSet::new(),
            known: RecentSet::new(KNOWN, rng),
            fee_filter: 0,
            next: now,
            last_sequence: sequence,
        };
        inventory.set_next(now, timer, rng);
        inventory
    }

    /// The same, for a peer of our own: what is queued is always due.
    #[must_use]
    pub fn at_once(mut self, now: Instant) -> Self {
        self.at_once = true;
        self.next = now;
        self
    }

    /// Queues a transaction, unless the peer knows it.
    pub fn queue(&mut self, txid: Txid, wtxid: Wtxid) {
        if self.queue.len() < MAX_QUEUED && !self.known.contains(&self.hash(txid, wtxid)) {
            self.queue.insert(wtxid);
        }
    }

    /// Notes that the peer has a transaction: it announced or sent it.
    pub fn note_known(&mut self, hash: &TxHash) {
        self.known.insert(hash);
    }

    /// The announcement of these, whatever else waits; the mempool's next number is `sequence`.
    pub fn tell(&mut self, ids: Vec<(Txid, Wtxid)>, sequence: u64) -> Vec<Entry> {
        self.last_sequence = sequence;
        ids.into_iter()
            .map(|(txid, wtxid)| self.announcement(txid, wtxid))
            .collect()
    }

    /// Takes the peer's `feefilter`, in sat per 1000 vB. Impossible values are ignored.
    pub fn set_fee_filter(&mut self, rate: u64) {
        const MAX_MONEY: u64 = 2_100_000_000_000_000;
        if rate <= MAX_MONEY {
            self.fee_filter = rate;
        }
    }

    /// When the next bunch is due.
    #[must_use]
    pub fn next_time(&self) -> Instant {
        self.next
    }

    /// Transactions that wait.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Transactions that the mempool took in before this number may be served.
    #[must_use]
    pub fn served_before(&self) -> u64 {
        self.last_sequence
    }

    /// The bunch to announce now, best first; empty unless it is time. `find` looks up
    /// transactions in the mempool, whose next number is `sequence`.
    pub fn bunch<R: Ord>(
        &mut self,
        now: Instant,
        sequence: u64,
        timer: &mut InboundTimer,
        rng: &mut impl Rng,
        find: impl Fn(&Wtxid) -> Option<Announceable<R>>,
    ) -> Vec<Entry> {
        if now < self.next {
            return Vec::new();
        }
        self.set_next(now, timer, rng);
        self.last_sequence = sequence;
        let limit = (BUNCH + self.queue.len() / 1000 * 5).min(MAX_BUNCH);
        let mut candidates: Vec<(R, Wtxid, Txid)> = Vec::with_capacity(self.queue.len());
        let mut dropped = Vec::new();
        for wtxid in &self.queue {
            let wanted = find(wtxid).filter(|tx| {
                tx.fee >= fee_at(self.fee_filter, tx.vsize)
                    && !self.known.contains(&self.hash(tx.txid, *wtxid))
            });
            match wanted {
                Some(tx) => candidates.push((tx.rank, *wtxid, tx.txid)),
                // It left the mempool, or the peer knows it or does not want it.
                None => dropped.push(*wtxid),
            }
        }
        for wtxid in dropped {
            self.queue.remove(&wtxid);
        }
        if candidates.len() > limit {
            candidates.select_nth_unstable_by(limit, |a, b| a.0.cmp(&b.0));
            candidates.truncate(limit);
        }
        candidates.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        candidates
            .into_iter()
            .map(|(_, wtxid, txid)| {
                self.queue.remove(&wtxid);
                self.announcement(txid, wtxid)
            })
            .collect()
    }

    /// The peer knows the transaction from then on.
    fn announcement(&mut self, txid: Txid, wtxid: Wtxid) -> Entry {
        let hash = self.hash(txid, wtxid);
        self.known.insert(&hash);
        match self.wtxid_relay {
            true => Entry::WTx(wtxid),
            false => Entry::Transaction(txid),
        }
    }

    fn hash(&self, txid: Txid, wtxid: Wtxid) -> TxHash {
        match self.wtxid_relay {
            true => wtxid.to_byte_array(),
            false => txid.to_byte_array(),
        }
    }

    fn set_next(&mut self, now: Instant, timer: &mut InboundTimer, rng: &mut impl Rng) {
        self.next = match self.inbound {
            _ if self.at_once => now,
            true => timer.next(now, rng),
            false => now + exponential(rng, OUTBOUND_INTERVAL),
        };
    }
}

/// Fee at `rate` (sat per 1000 vB), rounded up as Bitcoin Core's `CFeeRate` does.
fn fee_at(rate: u64, vsize: u64) -> u64 {
    u64::try_from((u128::from(rate) * u128::from(vsize)).div_ceil(1000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use pulse_primitives::bitcoin::hashes::sha256d;
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    fn ids(n: u32) -> (Txid, Wtxid) {
        let hash = |tag: u32| sha256d::Hash::hash(&[n.to_le_bytes(), tag.to_le_bytes()].concat());
        (Txid::from_raw_hash(hash(0)), Wtxid::from_raw_hash(hash(1)))
    }

    struct Scene {
        inventory: Inventory,
        timer: InboundTimer,
        rng: StdRng,
        now: Instant,
    }

    impl Scene {
        fn new(inbound: bool, wtxid_relay: bool) -> Self {
            let mut rng = StdRng::seed_from_u64(1);
            let (mut timer, now) = (InboundTimer::default(), Instant::now());
            let inventory = Inventory::new(inbound, wtxid_relay, 0, now, &mut timer, &mut rng);
            Self {
                inventory,
                timer,
                rng,
                now,
            }
        }

        fn queue(&mut self, numbers: impl IntoIterator<Item = u32>) {
            for n in numbers {
                let (txid, wtxid) = ids(n);
                self.inventory.queue(txid, wtxid);
            }
        }

        /// Announces the next bunch; every transaction has a fee rate of 1 sat/vB.
        fn bunch(&mut self, pool: std::ops::Range<u32>) -> Vec<Entry> {
            self.now = self.inventory.next_time();
            let find = |wtxid: &Wtxid| {
                pool.clone()
                    .find(|n| ids(*n).1 == *wtxid)
                    .map(|n| Announceable {
                        txid: ids(n).0,
                        fee: 100,
                        vsize: 100,
                        rank: std::cmp::Reverse(n),
                    })
            };
            self.inventory
                .bunch(self.now, 7, &mut self.timer, &mut self.rng, find)
        }
    }

    fn wtx(n: u32) -> Entry {
        Entry::WTx(ids(n).1)
    }

    #[test]
    fn to_one_of_our_own_nothing_waits() {
        let mut scene = Scene::new(true, true);
        scene.inventory = scene.inventory.at_once(scene.now);
        for n in 0..3 {
            scene.queue([n]);
            assert_eq!(scene.inventory.next_time(), scene.now);
            assert_eq!(scene.bunch(0..3), [wtx(n)]);
        }
    }

    #[test]
    fn nothing_goes_out_before_the_timer() {
        let mut scene = Scene::new(false, true);
        scene.queue(0..3);
        let early = scene.inventory.next_time() - Duration::from_millis(1);
        let none = scene
            .inventory
            .bunch(early, 7, &mut scene.timer, &mut scene.rng, |_| {
                None::<Announceable<u32>>
            });
        assert!(none.is_empty());
        assert_eq!(scene.inventory.queued(), 3);
    }

    #[test]
    fn the_best_to_mine_come_first() {
        let mut scene = Scene::new(true, true);
        scene.queue(0..4);
        assert_eq!(scene.bunch(0..4), [wtx(3), wtx(2), wtx(1), wtx(0)]);
    }

    #[test]
    fn peers_without_wtxids_get_txids() {
        let mut scene = Scene::new(true, false);
        scene.queue([1]);
        assert_eq!(scene.bunch(0..4), [Entry::Transaction(ids(1).0)]);
    }

    #[test]
    fn a_transaction_is_not_announced_twice() {
        let mut scene = Scene::new(true, true);
        scene.queue([1]);
        assert_eq!(scene.bunch(0..4), [wtx(1)]);
        scene.queue([1]);
        assert!(scene.bunch(0..4).is_empty());
    }

    #[test]
    fn what_the_peer_has_is_not_announced() {
        let mut scene = Scene::new(true, true);
        scene.queue([1, 2]);
        scene.inventory.note_known(&ids(1).1.to_byte_array());
        assert_eq!(scene.bunch(0..4), [wtx(2)]);
    }

    #[test]
    fn what_left_the_mempool_is_not_announced() {
        let mut scene = Scene::new(true, true);
        scene.queue(0..4);
        assert_eq!(scene.bunch(2..4), [wtx(3), wtx(2)]);
        assert_eq!(scene.inventory.queued(), 0);
    }

    #[test]
    fn the_peers_fee_filter_is_respected() {
        let mut scene = Scene::new(true, true);
        scene.queue([1]);
        scene.inventory.set_fee_filter(1001);
        assert!(scene.bunch(0..4).is_empty());
        scene.queue([2]);
        scene.inventory.set_fee_filter(1000);
        scene.inventory.set_fee_filter(u64::MAX);
        assert_eq!(scene.bunch(0..4), [wtx(2)]);
    }

    #[test]
    fn a_bunch_is_bounded_and_grows_with_the_queue() {
        let mut scene = Scene::new(true, true);
        scene.queue(0..200);
        assert_eq!(scene.bunch(0..200).len(), BUNCH);
        assert_eq!(scene.inventory.queued(), 200 - BUNCH);
        let mut scene = Scene::new(true, true);
        scene.queue(0..2100);
        assert_eq!(scene.bunch(0..2100).len(), BUNCH + 10);
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut scene = Scene::new(true, true);
        scene.queue(0..60_000);
        assert_eq!(scene.inventory.queued(), MAX_QUEUED);
    }

    #[test]
    fn only_what_was_there_at_the_last_bunch_is_served() {
        let mut scene = Scene::new(true, true);
        assert_eq!(scene.inventory.served_before(), 0);
        scene.bunch(0..0);
        assert_eq!(scene.inventory.served_before(), 7);
    }

    #[test]
    fn inbound_peers_share_a_timer_and_outbound_ones_do_not() {
        let mut rng = StdRng::seed_from_u64(1);
        let (mut timer, now) = (InboundTimer::default(), Instant::now());
        let mut next =
            |inbound| Inventory::new(inbound, true, 0, now, &mut timer, &mut rng).next_time();
        assert_eq!(next(true), next(true));
        assert_ne!(next(false), next(false));
    }
}
