//! Fee estimates: the rate to pay now to be confirmed within so many blocks.
//!
//! mempool events -> history of confirmations ┐
//! chunks in mining order -> depth of the mempool ┼> highest -> estimates by target
//! rate below which the mempool refuses ┘
//!
//! # Correctness
//! - The history must know a rate for a target, or be old enough to be trusted while the
//!   mempool itself is as deep as the target; otherwise the target is absent.
//! - Estimates do not rise with the target: what confirms soon confirms later as well.
//! - No estimate is below what the mempool accepts.
//!
//! # Security
//! Only transactions that came alone, without unconfirmed parents and while the node was
//! in step teach the history; what was never mined counts as failure, so rates that are
//! offered and not paid do not lower the estimates. Rates that are offered and stay in
//! the mempool raise those of the next blocks: outbidding them is what they cost.
//!
//! # Limits
//! A parent that is mined for its child's fee counts with its own rate, as in Bitcoin
//! Core.

mod buckets;
mod history;
mod horizon;
mod persist;
#[cfg(test)]
mod tests;

use pulse_primitives::{
    Height,
    bitcoin::Txid,
    mempool::{FeeEstimates, RemovalReason},
};

use crate::{
    events::{LeftReason, PoolEvent},
    projected::DepthCurve,
};
use history::History;
pub use persist::RestoreError;

/// Targets that are estimated for, in blocks: 1 to 25, 144, 504, 1008.
pub fn targets() -> impl Iterator<Item = u16> {
    (1..=25).chain([144, 504, 1008])
}

/// A tip older than this teaches nothing about fees, in seconds (Bitcoin Core's
/// `MAX_FEE_ESTIMATION_TIP_AGE`).
const MAX_TIP_AGE_TO_LEARN: u64 = 3 * 3600;
/// With a tip older than this there are no estimates, in seconds: Bitcoin Core does not
/// regard such a chain as current.
const MAX_TIP_AGE_TO_ESTIMATE: u64 = 24 * 3600;

/// A transaction that entered the mempool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnteredTx {
    /// Its id.
    pub txid: Txid,
    /// Its fee, in sat.
    pub fee_sat: u64,
    /// Its virtual size as policy sees it, in vB.
    pub vsize: u64,
    /// Height of the block that the mempool built upon.
    pub height: Height,
    /// When it entered, in seconds since 1970.
    pub time: u64,
    /// Whether how long it waits tells what its fee is worth: the node was in step with
    /// its peers, and the transaction came alone (not in a package, not back from a
    /// disconnected block or from disk) and has no unconfirmed parents.
    pub telling: bool,
}

/// What an estimate rests on beside the history.
#[derive(Debug, Clone, Copy)]
pub struct Market<'a> {
    /// The mempool's fee rates by depth.
    pub depth: &'a DepthCurve,
    /// Lowest fee rate that the mempool accepts now, in sat per 1000 vB.
    pub min_fee_rate_sat_kvb: u64,
    /// Whether the node is in step with its peers.
    pub synced: bool,
    /// Time now, in seconds since 1970.
    pub now: u64,
}

/// Learns from the mempool and from blocks, and estimates.
///
/// Memory is about 3 MB and 60 bytes for each transaction whose fate is awaited.
#[derive(Debug, Clone, PartialEq)]
pub struct FeeEstimator {
    history: History,
    /// Time in the header of the highest block seen, in seconds since 1970.
    tip_time: u64,
}

impl Default for FeeEstimator {
    fn default() -> Self {
        Self::new()
    }
}

impl FeeEstimator {
    /// An estimator that knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self {
            history: History::new(),
            tip_time: 0,
        }
    }

    /// Something happened in the mempool. `in_step`: the node was in step with its peers,
    /// and not taking back transactions from disk. Events are due before
    /// [`FeeEstimator::block`] is told of a later block; what a block confirms is told there.
    pub fn event(&mut self, event: &PoolEvent, in_step: bool) {
        match event {
            PoolEvent::Entered(tx) => self.entered(&EnteredTx {
                txid: tx.txid,
                fee_sat: tx.fee.to_sat(),
                vsize: tx.vsize,
                height: tx.height,
                time: tx.time,
                telling: in_step && !tx.has_unconfirmed_parents && !tx.in_package_or_reorg,
            }),
            PoolEvent::Left { txid, reason, .. } => match reason {
                LeftReason::Confirmed(_) => {}
                LeftReason::Removed(RemovalReason::Reorg) => self.history.forget(txid),
                LeftReason::Removed(_) => self.left(txid),
            },
        }
    }

    /// A transaction entered the mempool.
    pub fn entered(&mut self, tx: &EnteredTx) {
        if tx.telling && tx.time.saturating_sub(self.tip_time) <= MAX_TIP_AGE_TO_LEARN {
            self.history.enter(tx);
        }
    }

    /// A transaction left the mempool without being confirmed by a block: replaced, in
    /// conflict with a block, expired, or evicted.
    pub fn left(&mut self, txid: &Txid) {
        self.history.fail(txid);
    }

    /// The mempool was emptied for reasons of the node, which say nothing about fees.
    pub fn cleared(&mut self) {
        self.history.forget_all();
    }

    /// A block was connected; `time` is that of its header, `txids` are (at least) its
    /// transactions that were in the mempool. To be called for every block, also while
    /// the node catches up; disconnected blocks need no call.
    pub fn block<'a>(
        &mut self,
        height: Height,
        time: u32,
        txids: impl IntoIterator<Item = &'a Txid>,
    ) {
        if self.history.block(height, txids) {
            self.tip_time = time.into();
        }
    }

    /// Transactions whose fate is awaited.
    #[must_use]
    pub fn tracked_count(&self) -> usize {
        self.history.tracked_count()
    }

    /// Estimates for all [`targets`] that can be told.
    ///
    /// Each is the highest of: what the mempool pays at the end of the target-th projected
    /// block, what was needed so far for the target, and the least that the mempool
    /// accepts. In full thousandths of a sat/vB.
    #[must_use]
    pub fn estimates(&self, market: &Market<'_>) -> FeeEstimates {
        let tip_age = market.now.saturating_sub(self.tip_time);
        let seasoned = self.history.max_usable_target() >= 2;
        if !market.synced || !seasoned || tip_age > MAX_TIP_AGE_TO_ESTIMATE {
            return FeeEstimates::default();
        }
        let mut shorter = f64::INFINITY;
        let mut by_target = Vec::new();
        for target in targets() {
            let needed = self.history.estimate(target.into()).map(f64::round);
            let outbid = market
                .depth
                .at_block(target)
                .map(|rate| (rate * 1000.0).ceil());
            let Some(rate) = needed.into_iter().chain(outbid).reduce(f64::max) else {
                continue;
            };
            let rate = rate.max(market.min_fee_rate_sat_kvb as f64).min(shorter);
            shorter = rate;
            by_target.push((target, rate / 1000.0));
        }
        FeeEstimates { by_target }
    }
}
