//! When the mempool starts: once the node has caught up.

use std::sync::atomic::{AtomicBool, Ordering};

use pulse_primitives::{
    status::{NodeReport, Readiness},
    tip::ChainTip,
};

/// A tip older than this means that blocks are missing still, in seconds (Bitcoin Core's
/// `DEFAULT_MAX_TIP_AGE`).
const MAX_TIP_AGE: u64 = 24 * 3600;

/// Says whether the node has caught up once. Never changes back, like Bitcoin Core's
/// `IsInitialBlockDownload`.
#[derive(Debug, Default)]
pub struct Activity {
    reached: AtomicBool,
    /// Old tips are fine: blocks of this network come when someone wants them (regtest).
    any_age: bool,
}

impl Activity {
    /// Not caught up yet. With `any_age` the age of the tip does not count.
    #[must_use]
    pub fn new(any_age: bool) -> Self {
        Self {
            reached: AtomicBool::new(false),
            any_age,
        }
    }

    /// Whether the node has caught up.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.reached.load(Ordering::Acquire)
    }

    /// Looks whether it has, at `now` (seconds since 1970): answers could be drawn from
    /// the index, and its tip is of today.
    pub fn update(&self, report: &NodeReport, index_tip: Option<ChainTip>, now: u64) -> bool {
        if self.is_reached() {
            return true;
        }
        let is_synced = report.readiness(index_tip) == Readiness::Synced;
        let is_new = index_tip.is_some_and(|tip| u64::from(tip.time) + MAX_TIP_AGE > now);
        if is_synced && (is_new || self.any_age) {
            self.reached.store(true, Ordering::Release);
        }
        self.is_reached()
    }
}

#[cfg(test)]
mod tests {
    use pulse_primitives::bitcoin::{BlockHash, Work, hashes::Hash};

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn tip(height: u32, age: u64) -> ChainTip {
        ChainTip {
            height,
            hash: BlockHash::all_zeros(),
            time: u32::try_from(NOW - age).unwrap(),
        }
    }

    fn report(best: ChainTip) -> NodeReport {
        NodeReport {
            best_header: best,
            best_header_work: Work::from_be_bytes([1; 32]),
            min_chain_work: Work::from_be_bytes([0; 32]),
            headers_answered: true,
            active_tip: best,
            peers: Vec::new(),
            blocks_in_flight: 0,
            blocks_received: 0,
            bytes_received: 0,
            peers_dropped: 0,
        }
    }

    #[test]
    fn an_old_tip_means_that_blocks_are_missing() {
        let activity = Activity::default();
        let old = tip(100, MAX_TIP_AGE);
        assert!(!activity.update(&report(old), Some(old), NOW));
        let new = tip(100, MAX_TIP_AGE - 1);
        assert!(activity.update(&report(new), Some(new), NOW));
    }

    #[test]
    fn once_reached_it_stays() {
        let activity = Activity::default();
        let new = tip(100, 0);
        activity.update(&report(new), Some(new), NOW);
        assert!(activity.update(&report(tip(900, 0)), None, NOW + MAX_TIP_AGE * 9));
    }

    #[test]
    fn an_index_that_lags_is_waited_for() {
        let activity = Activity::default();
        assert!(!activity.update(&report(tip(100, 0)), Some(tip(90, 0)), NOW));
        assert!(!activity.update(&report(tip(100, 0)), None, NOW));
    }

    #[test]
    fn where_blocks_come_at_will_their_age_does_not_count() {
        let activity = Activity::new(true);
        let old = tip(100, 1_000_000_000);
        assert!(activity.update(&report(old), Some(old), NOW));
    }
}
