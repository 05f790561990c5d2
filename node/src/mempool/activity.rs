//! When the mempool starts: once the node has caught up.

use std::sync::atomic::{AtomicBool, Ordering};

use pulse_primitives::{
    status::{NodeReport, Readiness},
    tip::ChainTip,
};

/// Says whether the node has caught up once. Never changes back, like Bitcoin Core's
/// `IsInitialBlockDownload`; unlike there the age of the tip does not count, so that
/// there is one meaning of synced ([`NodeReport::readiness`]) and one view of index and
/// mempool on any chain.
#[derive(Debug, Default)]
pub struct Activity {
    reached: AtomicBool,
}

impl Activity {
    /// Whether the node has caught up.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        self.reached.load(Ordering::Acquire)
    }

    /// Looks whether it has.
    pub fn update(&self, report: &NodeReport, index_tip: Option<ChainTip>) -> bool {
        if !self.is_reached() && report.readiness(index_tip) == Readiness::Synced {
            self.reached.store(true, Ordering::Release);
        }
        self.is_reached()
    }
}

#[cfg(test)]
mod tests {
    use pulse_primitives::bitcoin::{BlockHash, Work, hashes::Hash};

    use super::*;

    fn tip(height: u32) -> ChainTip {
        ChainTip {
            height,
            hash: BlockHash::all_zeros(),
            time: 0,
        }
    }

    fn report(best: ChainTip) -> NodeReport {
        NodeReport {
            best_header: best,
            best_hashes: vec![best.hash],
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
    fn once_reached_it_stays() {
        let activity = Activity::default();
        let best = tip(100);
        assert!(activity.update(&report(best), Some(best)));
        assert!(activity.update(&report(tip(900)), None));
    }

    #[test]
    fn an_index_that_lags_is_waited_for() {
        let activity = Activity::default();
        assert!(!activity.update(&report(tip(100)), Some(tip(90))));
        assert!(!activity.update(&report(tip(100)), None));
    }
}
