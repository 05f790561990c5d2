//! Figures about the mempool that cost a walk through it, kept for some seconds.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pulse_mempool::{
    Mempool,
    fees::{FeeEstimator, Market},
    projected::DepthCurve,
};
use pulse_primitives::mempool::{Backlog, FeeEstimates, ProjectedBlock};

/// Figures are at least this fresh.
const MAX_AGE: Duration = Duration::from_secs(2);

/// The figures and when they were made.
#[derive(Default)]
pub(super) struct Figures {
    made: Option<(Instant, u64)>,
    depth: DepthCurve,
    backlog: Arc<Backlog>,
    projected: Option<Arc<[ProjectedBlock]>>,
    estimates: Arc<FeeEstimates>,
}

impl Figures {
    /// Whether the figures are too old to be shown.
    pub fn is_stale(&self, now: Instant) -> bool {
        self.made
            .is_none_or(|(made, _)| now.saturating_duration_since(made) >= MAX_AGE)
    }

    /// Walks through the pool, unless it is as it was.
    pub fn renew_pool(&mut self, pool: &Mempool, now: Instant) {
        let changes = pool.changes();
        if self.made.is_none_or(|(_, seen)| seen != changes) {
            self.backlog = Arc::new(pool.backlog());
            let projection = pool.project();
            self.projected = Some(projection.blocks.into());
            self.depth = projection.depth;
        }
        self.made = Some((now, changes));
    }

    /// Estimates anew from the figures and the history.
    pub fn renew_estimates(&mut self, estimator: &FeeEstimator, min_rate: u64, synced: bool) {
        self.estimates = Arc::new(estimator.estimates(&Market {
            depth: &self.depth,
            min_fee_rate_sat_kvb: min_rate,
            synced,
            now: super::now(),
        }));
        pulse_mempool::metrics::fee_estimates(&self.estimates);
    }

    pub fn backlog(&self) -> Arc<Backlog> {
        Arc::clone(&self.backlog)
    }

    pub fn projected(&self) -> Arc<[ProjectedBlock]> {
        self.projected.clone().unwrap_or_else(|| Arc::from([]))
    }

    pub fn estimates(&self) -> Arc<FeeEstimates> {
        Arc::clone(&self.estimates)
    }
}
