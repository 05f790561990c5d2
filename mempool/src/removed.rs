//! Memory of the transactions that left without being confirmed.

use std::collections::{HashMap, VecDeque};

use bitcoin::Txid;
use pulse_primitives::{
    bitcoin,
    mempool::{RemovalReason, RemovedTx},
};

/// Most transactions that are remembered.
const MAX_REMEMBERED: usize = 10_000;
/// How long one is remembered, in seconds.
const REMEMBERED_SECS: u64 = 24 * 3600;

/// Removed transactions of the last day, at most 10,000: the oldest are forgotten first.
#[derive(Debug, Default)]
pub(crate) struct RemovedTxs {
    by_txid: HashMap<Txid, RemovedTx>,
    /// In the order of removal. May name transactions that were removed again later, or
    /// that came back: then `by_txid` says another time, or nothing.
    order: VecDeque<(u64, Txid)>,
}

impl RemovedTxs {
    /// Remembers that `txid` left at `now`.
    pub fn insert(&mut self, txid: Txid, reason: RemovalReason, now: u64) {
        self.by_txid.insert(txid, RemovedTx { reason, time: now });
        self.order.push_back((now, txid));
        while let Some(&(time, oldest)) = self.order.front() {
            let fresh = time.saturating_add(REMEMBERED_SECS) > now;
            if self.order.len() <= MAX_REMEMBERED && fresh {
                break;
            }
            self.order.pop_front();
            if self.by_txid.get(&oldest).is_some_and(|tx| tx.time == time) {
                self.by_txid.remove(&oldest);
            }
        }
    }

    /// Forgets `txid`: it is back, or confirmed.
    pub fn forget(&mut self, txid: &Txid) {
        self.by_txid.remove(txid);
    }

    /// What is remembered of `txid`.
    pub fn get(&self, txid: &Txid) -> Option<&RemovedTx> {
        self.by_txid.get(txid)
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;

    use super::*;

    fn txid(n: u32) -> Txid {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        Txid::from_byte_array(bytes)
    }

    #[test]
    fn the_oldest_are_forgotten_first() {
        let mut removed = RemovedTxs::default();
        for n in 0..10_001 {
            removed.insert(txid(n), RemovalReason::Expired, u64::from(n / 100));
        }
        assert!(removed.get(&txid(0)).is_none());
        assert!(removed.get(&txid(1)).is_some());
        assert_eq!(removed.by_txid.len(), MAX_REMEMBERED);
    }

    #[test]
    fn a_day_later_nothing_is_remembered() {
        let mut removed = RemovedTxs::default();
        removed.insert(txid(1), RemovalReason::Expired, 1_000);
        removed.insert(txid(2), RemovalReason::SizeLimit, 1_000 + REMEMBERED_SECS);
        assert!(removed.get(&txid(1)).is_none());
        assert!(removed.get(&txid(2)).is_some());
    }

    #[test]
    fn what_came_back_is_forgotten() {
        let mut removed = RemovedTxs::default();
        removed.insert(txid(1), RemovalReason::Reorg, 5);
        removed.forget(&txid(1));
        assert!(removed.get(&txid(1)).is_none());
    }
}
