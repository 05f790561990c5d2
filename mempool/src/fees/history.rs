//! What became of the transactions that were seen entering the mempool, and the fee rates
//! that follow from it (Bitcoin Core's `CBlockPolicyEstimator`, economical mode).
//!
//! enter -> waits in a bucket of its fee rate -> confirmed | left unconfirmed
//!
//! # Correctness
//! Blocks not above the highest one seen teach nothing: those of reorganisations. Their
//! transactions stop being tracked.

use std::collections::HashMap;

use pulse_primitives::{Height, bitcoin::Txid};

use super::{
    EnteredTx,
    buckets::Buckets,
    horizon::{Horizon, LONG, MEDIUM, SHORT},
};

/// Share that must confirm within half the target.
const HALF_SUCCESS: f64 = 0.60;
/// Share that must confirm within the target.
const SUCCESS: f64 = 0.85;
/// Share that must confirm within twice the target.
const DOUBLE_SUCCESS: f64 = 0.95;
/// History that ends this many blocks ago says nothing about how long data were gathered.
const OLDEST_HISTORY: u32 = 6 * 1008;
/// Transactions tracked at most; a mempool of the default size does not hold so many.
const MAX_TRACKED: usize = 1_000_000;

/// A transaction whose fate is awaited.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tracked {
    /// Tip when it entered.
    height: Height,
    bucket: usize,
    /// Fee rate in sat/kvB.
    rate: f64,
}

/// Heights of the first block with data and of the newest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: Height,
    pub(super) last: Height,
}

impl Range {
    fn len(self) -> u32 {
        self.last.saturating_sub(self.first)
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct History {
    buckets: Buckets,
    short: Horizon,
    medium: Horizon,
    long: Horizon,
    tracked: HashMap<Txid, Tracked>,
    /// Height of the highest block seen; 0 before the first.
    best: Height,
    /// First block with a tracked transaction since the start.
    first_recorded: Option<Height>,
    /// Blocks that the restored averages are from.
    restored: Option<Range>,
}

impl History {
    pub(super) fn new() -> Self {
        let buckets = Buckets::new();
        Self {
            short: Horizon::new(SHORT, buckets.len()),
            medium: Horizon::new(MEDIUM, buckets.len()),
            long: Horizon::new(LONG, buckets.len()),
            buckets,
            tracked: HashMap::new(),
            best: 0,
            first_recorded: None,
            restored: None,
        }
    }

    /// What [`History::horizons`], [`History::best`] and [`History::best_range`] told, with
    /// nothing tracked.
    pub(super) fn restored(horizons: [Horizon; 3], best: Height, range: Option<Range>) -> Self {
        let [short, medium, long] = horizons;
        Self {
            short,
            medium,
            long,
            best,
            restored: range,
            ..Self::new()
        }
    }

    /// Short, medium, long.
    pub(super) fn horizons(&self) -> [&Horizon; 3] {
        [&self.short, &self.medium, &self.long]
    }

    fn horizons_mut(&mut self) -> [&mut Horizon; 3] {
        [&mut self.short, &mut self.medium, &mut self.long]
    }

    /// Height of the highest block seen; 0 before the first.
    pub(super) fn best(&self) -> Height {
        self.best
    }

    /// Transactions whose fate is awaited.
    pub(super) fn tracked_count(&self) -> usize {
        self.tracked.len()
    }

    /// Tracks `tx` if it entered on top of the highest block seen.
    pub(super) fn enter(&mut self, tx: &EnteredTx) {
        let room = self.tracked.len() < MAX_TRACKED;
        if !room || tx.height != self.best || self.tracked.contains_key(&tx.txid) {
            return;
        }
        let rate = tx.fee_sat as f64 * 1000.0 / tx.vsize.max(1) as f64;
        let bucket = self.buckets.index(rate);
        for horizon in self.horizons_mut() {
            horizon.enter(tx.height, bucket);
        }
        self.tracked.insert(
            tx.txid,
            Tracked {
                height: tx.height,
                bucket,
                rate,
            },
        );
    }

    /// Stops tracking a transaction, without a verdict.
    pub(super) fn forget(&mut self, txid: &Txid) {
        self.stop(txid);
    }

    fn stop(&mut self, txid: &Txid) -> Option<Tracked> {
        let tx = self.tracked.remove(txid)?;
        let best = self.best;
        for horizon in self.horizons_mut() {
            horizon.leave(tx.height, best, tx.bucket);
        }
        Some(tx)
    }

    /// A transaction left unconfirmed.
    pub(super) fn fail(&mut self, txid: &Txid) {
        if let Some(tx) = self.stop(txid) {
            let waited = self.best.saturating_sub(tx.height);
            for horizon in self.horizons_mut() {
                horizon.fail(waited, tx.bucket);
            }
        }
    }

    /// Forgets all tracked transactions, without a verdict.
    pub(super) fn forget_all(&mut self) {
        let txids: Vec<Txid> = self.tracked.keys().copied().collect();
        for txid in txids {
            self.forget(&txid);
        }
    }

    /// Counts all tracked transactions as having left unconfirmed now (Bitcoin Core's
    /// `FlushUnconfirmed`).
    pub(super) fn fail_all(&mut self) {
        let txids: Vec<Txid> = self.tracked.keys().copied().collect();
        for txid in txids {
            self.fail(&txid);
        }
    }

    /// A block was connected. Returns whether it is the highest so far.
    pub(super) fn block<'a>(
        &mut self,
        height: Height,
        confirmed: impl IntoIterator<Item = &'a Txid>,
    ) -> bool {
        if height <= self.best {
            confirmed.into_iter().for_each(|txid| self.forget(txid));
            return false;
        }
        let previous = std::mem::replace(&mut self.best, height);
        for horizon in self.horizons_mut() {
            horizon.advance(previous, height);
        }
        let mut any = false;
        for txid in confirmed {
            let Some(tx) = self.stop(txid) else { continue };
            any = true;
            let blocks = height - tx.height;
            for horizon in self.horizons_mut() {
                horizon.succeed(blocks, tx.bucket, tx.rate);
            }
        }
        if any && self.first_recorded.is_none() {
            self.first_recorded = Some(height);
        }
        true
    }

    /// Blocks that the averages are from: gathered since the start, or restored,
    /// whichever is said to be better by Bitcoin Core's rule for its file.
    pub(super) fn best_range(&self) -> Option<Range> {
        let own = self.own_range();
        let restored = self.restored_range();
        match (own, restored) {
            (Some(own), Some(restored)) if own.len() <= restored.len() / 2 => Some(restored),
            (Some(own), _) => Some(own),
            (None, restored) => restored,
        }
    }

    fn own_range(&self) -> Option<Range> {
        self.first_recorded.map(|first| Range {
            first,
            last: self.best,
        })
    }

    fn restored_range(&self) -> Option<Range> {
        self.restored
            .filter(|range| self.best.saturating_sub(range.last) <= OLDEST_HISTORY)
    }

    /// Longest target that the data allow, in blocks: half of what they cover, so that
    /// there was time to fail. Below 2 there are too few data for any.
    pub(super) fn max_usable_target(&self) -> u32 {
        let covered = |range: Option<Range>| range.map_or(0, Range::len);
        let blocks = covered(self.own_range()).max(covered(self.restored_range()));
        LONG.max_target().min(blocks / 2)
    }

    /// Fee rate in sat/kvB to confirm within `target` blocks, or within the longest
    /// usable target if that is shorter; `None` if the data do not tell. 1 is answered
    /// as 2.
    ///
    /// The highest of: what 60 % need for half the target, 85 % for the target, 95 % for
    /// twice the target; each from the shortest horizon that reaches so far, or from a
    /// shorter one at its end if that says less.
    pub(super) fn estimate(&self, target: u32) -> Option<f64> {
        let target = target.max(2).min(self.max_usable_target());
        if target < 2 {
            return None;
        }
        let highest = [
            self.combined(target / 2, HALF_SUCCESS),
            self.combined(target, SUCCESS),
            self.combined(2 * target, DOUBLE_SUCCESS),
        ]
        .into_iter()
        .flatten()
        .reduce(f64::max);
        highest.or_else(|| self.conservative(2 * target))
    }

    /// Estimate of the shortest horizon that tracks `target`, or a lower one of shorter
    /// horizons at their longest targets.
    fn combined(&self, target: u32, threshold: f64) -> Option<f64> {
        let horizons = [
            (&self.short, SHORT),
            (&self.medium, MEDIUM),
            (&self.long, LONG),
        ];
        let reaching = horizons
            .iter()
            .position(|(_, span)| target <= span.max_target())?;
        horizons[..=reaching]
            .iter()
            .filter_map(|(horizon, span)| {
                horizon.estimate(target.min(span.max_target()), threshold, self.best)
            })
            .reduce(f64::min)
    }

    /// What 95 % need for `target` blocks by the longer horizons, the highest.
    fn conservative(&self, target: u32) -> Option<f64> {
        let medium = (target <= SHORT.max_target()).then_some(&self.medium);
        let long = (target <= MEDIUM.max_target()).then_some(&self.long);
        [medium, long]
            .into_iter()
            .flatten()
            .filter_map(|horizon| horizon.estimate(target, DOUBLE_SUCCESS, self.best))
            .reduce(f64::max)
    }
}
