//! Blocks and transactions per minute, from samples of the index tip in a sliding window.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use pulse_indexer::query::{QueryError, View};
use pulse_primitives::Height;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::state::ApiState;

/// Time between two samples.
const INTERVAL: Duration = Duration::from_secs(5);
/// Age at which a sample leaves the window.
const WINDOW: Duration = Duration::from_secs(120);
/// Blocks of one interval whose transactions are counted; beyond it, evenly spread ones
/// stand for the others.
const COUNTED_BLOCKS: Height = 256;

/// The sliding window.
#[derive(Default)]
pub(crate) struct Sampler {
    samples: Mutex<VecDeque<Sample>>,
}

/// Work done since the first sample.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    /// Height of the index tip, if there was one.
    tip: Option<Height>,
    blocks: u64,
    txs: u64,
}

/// Speed of the index over the window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rates {
    pub(crate) blocks_per_minute: f64,
    pub(crate) txs_per_minute: f64,
}

impl Sampler {
    /// Speed over the window; zeros until there are two samples.
    pub(crate) fn rates(&self) -> Rates {
        let samples = self.samples.lock();
        let (Some(first), Some(last)) = (samples.front(), samples.back()) else {
            return Rates::new(0, 0, Duration::ZERO);
        };
        Rates::new(
            last.blocks - first.blocks,
            last.txs - first.txs,
            last.at - first.at,
        )
    }

    fn last(&self) -> Option<Sample> {
        self.samples.lock().back().copied()
    }

    fn push(&self, sample: Sample) {
        let mut samples = self.samples.lock();
        samples.push_back(sample);
        while samples.len() > 2
            && (samples.front()).is_some_and(|oldest| sample.at - oldest.at > WINDOW)
        {
            samples.pop_front();
        }
    }

    /// Adds what was indexed since the last sample.
    fn sample(&self, view: &View<'_>, at: Instant) -> Result<(), QueryError> {
        let tip = view.tip().map(|tip| tip.height);
        let mut sample = Sample {
            at,
            tip,
            blocks: 0,
            txs: 0,
        };
        if let Some(last) = self.last() {
            // Blocks that a reorganisation replaced are not counted again, unless it
            // went below the height of the last sample.
            let from = last.tip.map_or(0, |height| height + 1);
            let to = tip.map_or(0, |height| height + 1);
            sample.blocks = last.blocks + u64::from(to.saturating_sub(from));
            sample.txs = last.txs + count_txs(view, from, to)?;
        }
        self.push(sample);
        Ok(())
    }
}

impl Rates {
    #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn new(blocks: u64, txs: u64, time: Duration) -> Self {
        let per_minute = |count: u64| {
            if time.is_zero() {
                0.0
            } else {
                count as f64 * 60.0 / time.as_secs_f64()
            }
        };
        Self {
            blocks_per_minute: per_minute(blocks),
            txs_per_minute: per_minute(txs),
        }
    }
}

/// Transactions in the blocks `from..to`, estimated when there are many blocks.
fn count_txs(view: &View<'_>, from: Height, to: Height) -> Result<u64, QueryError> {
    let stride = to.saturating_sub(from).div_ceil(COUNTED_BLOCKS).max(1);
    let mut txs = 0;
    for height in (from..to).step_by(stride as usize) {
        if let Some(block) = view.block_at(height)? {
            txs += u64::from(block.tx_count) * u64::from(stride.min(to - height));
        }
    }
    Ok(txs)
}

/// Samples the index for `/stats`, and lets the metrics recorder tidy up, until `stop`.
/// Must run, or histograms that nobody scrapes grow without bound.
pub async fn run(state: ApiState, stop: CancellationToken) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        state.prometheus().run_upkeep();
        let worker = state.clone();
        let sampled = state.blocking().run(move || {
            let view = worker.query().view()?;
            worker.sampler().sample(&view, Instant::now())
        });
        match sampled.await {
            Ok(Ok(())) => {}
            Ok(Err(err)) => warn!(err = &err as &dyn std::error::Error, "index not sampled"),
            Err(err) => warn!(err = &err as &dyn std::error::Error, "index not sampled"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_per_minute_over_the_window() {
        let sampler = Sampler::default();
        assert_eq!(sampler.rates(), Rates::new(0, 0, Duration::ZERO));
        let start = Instant::now();
        for minute in 0..10_u32 {
            sampler.push(Sample {
                at: start + Duration::from_secs(60) * minute,
                tip: None,
                blocks: u64::from(minute) * 3,
                txs: u64::from(minute) * 3 * u64::from(minute),
            });
        }
        // The samples of minutes 7, 8 and 9 are left.
        assert_eq!(sampler.samples.lock().len(), 3);
        let rates = sampler.rates();
        assert!((rates.blocks_per_minute - 3.0).abs() < 1e-9);
        assert!((rates.txs_per_minute - f64::from(3 * 81 - 3 * 49) / 2.0).abs() < 1e-9);
    }
}
