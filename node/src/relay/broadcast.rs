//! Transactions that were handed in here, until the network has them.
//!
//! # Correctness
//! A transaction is announced at once, and again every ten to fifteen minutes, until a
//! peer announces it to us, it is confirmed, or it leaves the mempool. The set is kept
//! in the mempool's file, so a restart does not forget it.
//!
//! # Limits
//! [`MAX_PENDING`] transactions; beyond that the oldest is not announced again.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use pulse_primitives::bitcoin::{Txid, Wtxid};
use rand::Rng;

/// Transactions that wait to be seen.
pub const MAX_PENDING: usize = 5_000;
/// Shortest time between two rounds.
const INTERVAL: Duration = Duration::from_secs(600);
/// Random part of that time: peers cannot tell this node by its rhythm.
const INTERVAL_SPREAD: Duration = Duration::from_secs(300);

/// Transactions that were handed in here. Not shared: its owner drives it.
#[derive(Debug)]
pub struct Broadcasts {
    pending: HashMap<Txid, Wtxid>,
    order: VecDeque<Txid>,
    next: Instant,
}

impl Broadcasts {
    /// None yet; the first round is due after the usual time.
    pub fn new(now: Instant, rng: &mut impl Rng) -> Self {
        Self {
            pending: HashMap::new(),
            order: VecDeque::new(),
            next: next_round(now, rng),
        }
    }

    /// Adds a transaction that the caller announces now.
    pub fn add(&mut self, txid: Txid, wtxid: Wtxid) {
        if self.pending.insert(txid, wtxid).is_none() {
            self.order.push_back(txid);
        }
        while self.pending.len() > MAX_PENDING
            && let Some(oldest) = self.order.pop_front()
        {
            self.pending.remove(&oldest);
        }
        if self.order.len() > 2 * MAX_PENDING {
            self.order.retain(|txid| self.pending.contains_key(txid));
        }
    }

    /// A peer has it, a block has it, or the mempool has it no more. `true` if it waited.
    pub fn done(&mut self, txid: &Txid) -> bool {
        self.pending.remove(txid).is_some()
    }

    /// Whether the transaction waits to be seen.
    #[must_use]
    pub fn contains(&self, txid: &Txid) -> bool {
        self.pending.contains_key(txid)
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// What to announce again now; empty unless a round is due.
    pub fn due(&mut self, now: Instant, rng: &mut impl Rng) -> Vec<(Txid, Wtxid)> {
        if now < self.next {
            return Vec::new();
        }
        self.next = next_round(now, rng);
        self.pending
            .iter()
            .map(|(txid, wtxid)| (*txid, *wtxid))
            .collect()
    }

    /// When the next round is due.
    #[must_use]
    pub fn next_time(&self) -> Instant {
        self.next
    }
}

fn next_round(now: Instant, rng: &mut impl Rng) -> Instant {
    now + INTERVAL + INTERVAL_SPREAD.mul_f64(rng.r#gen())
}

#[cfg(test)]
mod tests {
    use pulse_primitives::bitcoin::hashes::{Hash, sha256d};
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    fn ids(n: u32) -> (Txid, Wtxid) {
        let hash = sha256d::Hash::hash(&n.to_le_bytes());
        (Txid::from_raw_hash(hash), Wtxid::from_raw_hash(hash))
    }

    #[test]
    fn announced_again_after_ten_to_fifteen_minutes_until_seen() {
        let (mut rng, now) = (StdRng::seed_from_u64(1), Instant::now());
        let mut broadcasts = Broadcasts::new(now, &mut rng);
        let (txid, wtxid) = ids(1);
        broadcasts.add(txid, wtxid);
        let mut at = now;
        for _ in 0..20 {
            let due = broadcasts.next_time();
            assert!((INTERVAL..=INTERVAL + INTERVAL_SPREAD).contains(&(due - at)));
            assert!(
                broadcasts
                    .due(due - Duration::from_millis(1), &mut rng)
                    .is_empty()
            );
            assert_eq!(broadcasts.due(due, &mut rng), [(txid, wtxid)]);
            at = due;
        }
        assert!(broadcasts.done(&txid));
        assert!(broadcasts.due(broadcasts.next_time(), &mut rng).is_empty());
        assert!(!broadcasts.done(&txid));
    }

    #[test]
    fn the_oldest_make_room() {
        let (mut rng, now) = (StdRng::seed_from_u64(1), Instant::now());
        let mut broadcasts = Broadcasts::new(now, &mut rng);
        for n in 0..20_000 {
            let (txid, wtxid) = ids(n);
            broadcasts.add(txid, wtxid);
            if n % 3 == 0 {
                broadcasts.done(&txid);
            }
            assert!(broadcasts.pending.len() <= MAX_PENDING);
            assert!(broadcasts.order.len() <= 2 * MAX_PENDING + 1);
        }
        assert!(broadcasts.contains(&ids(19_999).0));
        assert!(!broadcasts.contains(&ids(1).0));
    }
}
