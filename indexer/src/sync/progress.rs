//! How far a long run of the index has come, for people and monitors.

use std::time::{Duration, Instant};

use pulse_primitives::Height;

use super::IndexSync;
use crate::{
    metrics,
    rows::{TxNum, meta::Cursor},
};

/// How often the log tells it.
const INTERVAL: Duration = Duration::from_secs(10);

/// Fewer blocks behind than this are nothing to talk about.
const LEAST_LAG: Height = 50;

/// How far the index has come.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Progress {
    /// Blocks that are still to be indexed.
    pub lag_blocks: u32,
    /// Transactions indexed per second, over the last ten seconds.
    pub transactions_per_second: f64,
    /// Time left, in seconds, if the blocks to come are like those of the last ten seconds; on
    /// a chain whose blocks get fuller this is too little. `None` while nothing is known.
    pub seconds_left: Option<f64>,
}

/// Where the index was when progress was told last.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    told: Option<(Instant, Height, TxNum)>,
}

impl Pace {
    /// Speed since the last time, if that is long enough ago.
    fn step(&mut self, now: Instant, cursor: &Cursor, lag_blocks: Height) -> Option<Progress> {
        let height = cursor.tip.height;
        let (then, from, first) = match self.told {
            Some(told) if told.1 <= height && told.2 <= cursor.next_txnum => told,
            _ => {
                self.told = Some((now, height, cursor.next_txnum));
                return None;
            }
        };
        let elapsed = now.duration_since(then);
        if elapsed < INTERVAL {
            return None;
        }
        self.told = Some((now, height, cursor.next_txnum));
        let seconds = elapsed.as_secs_f64();
        let blocks = f64::from(height - from);
        Some(Progress {
            lag_blocks,
            transactions_per_second: f64::from(cursor.next_txnum - first) / seconds,
            seconds_left: (blocks > 0.0).then(|| f64::from(lag_blocks) * seconds / blocks),
        })
    }
}

impl IndexSync {
    /// Tells how far the index is, now and then while it is far behind.
    pub(super) fn tell_progress(&mut self, cursor: &Cursor) {
        let height = cursor.tip.height;
        let best = self.source.best_header_height();
        let lag_blocks = best.saturating_sub(height);
        metrics::lag(lag_blocks);
        if lag_blocks < LEAST_LAG {
            if self.pace.told.take().is_some() {
                self.shared.progress.lock().take();
                metrics::seconds_left(0.0);
            }
            return;
        }
        let Some(progress) = self.pace.step(Instant::now(), cursor, lag_blocks) else {
            return;
        };
        *self.shared.progress.lock() = Some(progress);
        metrics::seconds_left(progress.seconds_left.unwrap_or_default());
        let percent = 100.0 * f64::from(height) / f64::from(best.max(1));
        tracing::info!(
            height,
            count = best,
            percent = format!("{percent:.1}"),
            transactions_per_second = format!("{:.0}", progress.transactions_per_second),
            seconds_left = progress.seconds_left.map(|seconds| format!("{seconds:.0}")),
            "indexing"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulse_primitives::{
        bitcoin::{BlockHash, hashes::Hash},
        tip::ChainTip,
    };

    fn at(height: Height, next_txnum: TxNum) -> Cursor {
        let tip = ChainTip {
            height,
            hash: BlockHash::all_zeros(),
            time: 0,
        };
        Cursor { tip, next_txnum }
    }

    #[test]
    fn speed_and_time_left_are_those_of_the_last_interval() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        assert_eq!(pace.step(start, &at(100, 1000), 900), None);
        let soon = start + Duration::from_secs(1);
        assert_eq!(pace.step(soon, &at(110, 2000), 890), None);
        let later = start + Duration::from_secs(20);
        let progress = pace.step(later, &at(200, 41_000), 800).unwrap();
        assert!((progress.transactions_per_second - 2000.0).abs() < 0.1);
        assert!((progress.seconds_left.unwrap() - 160.0).abs() < 0.1);
        // A reorganisation starts anew.
        assert_eq!(pace.step(later + INTERVAL, &at(150, 39_000), 850), None);
    }
}
