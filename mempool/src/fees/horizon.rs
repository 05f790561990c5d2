//! How long transactions of each fee rate took to confirm, over one horizon of time:
//! averages that decay with every block (Bitcoin Core's `TxConfirmStats`).

use pulse_primitives::Height;

/// What makes a horizon.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span {
    /// Periods that are told apart.
    pub(super) periods: usize,
    /// Blocks in a period.
    pub(super) scale: u32,
    /// Factor of all averages per block.
    pub(super) decay: f64,
    /// Transactions per block, on average, that a range of buckets must have to count.
    pub(super) sufficient: f64,
}

/// Confirmations up to 12 blocks; half-life 18 blocks, about 3 hours.
pub(super) const SHORT: Span = Span {
    periods: 12,
    scale: 1,
    decay: 0.962,
    sufficient: 0.5,
};
/// Confirmations up to 48 blocks; half-life 144 blocks, about a day.
pub(super) const MEDIUM: Span = Span {
    periods: 24,
    scale: 2,
    decay: 0.9952,
    sufficient: 0.1,
};
/// Confirmations up to 1008 blocks; half-life 1008 blocks, about a week.
pub(super) const LONG: Span = Span {
    periods: 42,
    scale: 24,
    decay: 0.99931,
    sufficient: 0.1,
};

impl Span {
    /// Longest confirmation that is tracked, in blocks.
    pub(super) fn max_target(&self) -> u32 {
        self.scale * u32::try_from(self.periods).expect("a few dozen periods")
    }

    /// Number of values in [`Horizon::averages`].
    pub(super) fn averages_len(&self, buckets: usize) -> usize {
        buckets * (2 + 2 * self.periods)
    }
}

/// Statistics of one horizon. Tables are row after row, a row having one entry per bucket.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Horizon {
    span: Span,
    buckets: usize,
    /// Confirmed transactions.
    confirmed: Vec<f64>,
    /// Sum of their fee rates, in sat/kvB.
    rate_sum: Vec<f64>,
    /// Row `i`: transactions confirmed within `i + 1` periods.
    within: Vec<f64>,
    /// Row `i`: transactions that left unconfirmed after at least `i + 1` periods.
    failed: Vec<f64>,
    /// Row `height % max_target`: tracked transactions that entered at `height`.
    waiting: Vec<u32>,
    /// Tracked transactions that entered before the oldest row of `waiting`.
    waiting_long: Vec<u32>,
}

impl Horizon {
    pub(super) fn new(span: Span, buckets: usize) -> Self {
        Self {
            span,
            buckets,
            confirmed: vec![0.0; buckets],
            rate_sum: vec![0.0; buckets],
            within: vec![0.0; buckets * span.periods],
            failed: vec![0.0; buckets * span.periods],
            waiting: vec![0; buckets * span.max_target() as usize],
            waiting_long: vec![0; buckets],
        }
    }

    /// What is kept across restarts, in a fixed order: `confirmed`, `rate_sum`, `within`,
    /// `failed`.
    pub(super) fn averages(&self) -> impl Iterator<Item = f64> + '_ {
        [&self.confirmed, &self.rate_sum, &self.within, &self.failed]
            .into_iter()
            .flatten()
            .copied()
    }

    /// The horizon with these [`Horizon::averages`] and nothing waiting. `None` if their
    /// number is wrong.
    pub(super) fn from_averages(span: Span, buckets: usize, averages: &[f64]) -> Option<Self> {
        if averages.len() != span.averages_len(buckets) {
            return None;
        }
        let (confirmed, rest) = averages.split_at(buckets);
        let (rate_sum, rest) = rest.split_at(buckets);
        let (within, failed) = rest.split_at(buckets * span.periods);
        Some(Self {
            confirmed: confirmed.to_vec(),
            rate_sum: rate_sum.to_vec(),
            within: within.to_vec(),
            failed: failed.to_vec(),
            ..Self::new(span, buckets)
        })
    }

    /// Index in `waiting` of `bucket` in the row of `height`.
    fn waiting_index(&self, height: Height, bucket: usize) -> usize {
        (height % self.span.max_target()) as usize * self.buckets + bucket
    }

    /// A block at `height` was connected, the one before being `previous`: makes room for
    /// those that enter at `height` and lets averages decay. Skipped heights decay too.
    pub(super) fn advance(&mut self, previous: Height, height: Height) {
        let rows = self.span.max_target();
        for rolled in (previous + 1).max((height + 1).saturating_sub(rows))..=height {
            let row = self.waiting_index(rolled, 0);
            for bucket in 0..self.buckets {
                self.waiting_long[bucket] += std::mem::take(&mut self.waiting[row + bucket]);
            }
        }
        let decay = self
            .span
            .decay
            .powi(i32::try_from(height - previous).unwrap_or(i32::MAX));
        for table in [
            &mut self.confirmed,
            &mut self.rate_sum,
            &mut self.within,
            &mut self.failed,
        ] {
            table.iter_mut().for_each(|value| *value *= decay);
        }
    }

    /// A transaction entered on top of the block at `height`.
    pub(super) fn enter(&mut self, height: Height, bucket: usize) {
        let index = self.waiting_index(height, bucket);
        self.waiting[index] += 1;
    }

    /// A transaction that entered at `entered` stops waiting; the tip is at `best`.
    pub(super) fn leave(&mut self, entered: Height, best: Height, bucket: usize) {
        let count = if best.saturating_sub(entered) >= self.span.max_target() {
            &mut self.waiting_long[bucket]
        } else {
            let index = self.waiting_index(entered, bucket);
            &mut self.waiting[index]
        };
        *count = count.saturating_sub(1);
    }

    /// A transaction that paid `rate` (sat/kvB) was confirmed `blocks` blocks after it
    /// entered, counted from 1.
    pub(super) fn succeed(&mut self, blocks: u32, bucket: usize, rate: f64) {
        let periods = blocks.div_ceil(self.span.scale).max(1) as usize;
        for period in periods..=self.span.periods {
            self.within[(period - 1) * self.buckets + bucket] += 1.0;
        }
        self.confirmed[bucket] += 1.0;
        self.rate_sum[bucket] += rate;
    }

    /// A transaction left unconfirmed, `blocks` blocks after it entered. Counts for the
    /// periods that it waited through in whole.
    pub(super) fn fail(&mut self, blocks: u32, bucket: usize) {
        let periods = ((blocks / self.span.scale) as usize).min(self.span.periods);
        for period in 0..periods {
            self.failed[period * self.buckets + bucket] += 1.0;
        }
    }

    /// Lowest fee rate, in sat/kvB, whose transactions confirm within `target` blocks
    /// with a probability of at least `threshold`; `None` if the data do not tell. The tip
    /// is at `best`.
    ///
    /// From the highest rates down, buckets are joined to ranges with enough confirmed
    /// transactions; the last range before the share of success drops for good is the
    /// answer, and of it the mean rate of the bucket with the median transaction.
    pub(super) fn estimate(&self, target: u32, threshold: f64, best: Height) -> Option<f64> {
        if target == 0 || target > self.span.max_target() {
            return None;
        }
        let row = (target.div_ceil(self.span.scale) as usize - 1) * self.buckets;
        let still_waiting = self.waiting_at_least(target, best);
        let enough = self.span.sufficient / (1.0 - self.span.decay);

        let mut passed = None;
        let (mut within, mut all, mut in_range) = (0.0, 0.0, 0.0);
        let mut top = self.buckets - 1;
        for bucket in (0..self.buckets).rev() {
            within += self.within[row + bucket];
            in_range += self.confirmed[bucket];
            all +=
                self.confirmed[bucket] + self.failed[row + bucket] + still_waiting[bucket] as f64;
            if in_range < enough {
                continue;
            }
            in_range = 0.0;
            // A range that fails is joined with those below, which may still pass with it.
            if within / all < threshold {
                continue;
            }
            passed = Some((bucket, top));
            (within, all) = (0.0, 0.0);
            top = bucket.saturating_sub(1);
        }
        self.median_rate(passed?)
    }

    /// By bucket: transactions that have waited for at least `blocks` blocks.
    fn waiting_at_least(&self, blocks: u32, best: Height) -> Vec<u64> {
        let mut sums: Vec<u64> = self
            .waiting_long
            .iter()
            .map(|&count| count.into())
            .collect();
        for age in blocks..self.span.max_target().min(best + 1) {
            let row = self.waiting_index(best - age, 0);
            for (sum, &count) in sums.iter_mut().zip(&self.waiting[row..row + self.buckets]) {
                *sum += u64::from(count);
            }
        }
        sums
    }

    /// Mean rate of the bucket that holds the median transaction of buckets `low..=high`.
    fn median_rate(&self, (low, high): (usize, usize)) -> Option<f64> {
        let mut left = self.confirmed[low..=high].iter().sum::<f64>() / 2.0;
        if left <= 0.0 {
            return None;
        }
        for bucket in low..=high {
            if self.confirmed[bucket] >= left {
                return Some(self.rate_sum[bucket] / self.confirmed[bucket]);
            }
            left -= self.confirmed[bucket];
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUCKETS: usize = 10;

    /// `count` transactions of `bucket`, paying 1000 times its number, confirmed after
    /// `blocks` blocks.
    fn confirm(horizon: &mut Horizon, count: u32, bucket: usize, blocks: u32) {
        for _ in 0..count {
            horizon.succeed(blocks, bucket, bucket as f64 * 1000.0);
        }
    }

    #[test]
    fn nothing_seen_is_nothing_said() {
        assert_eq!(Horizon::new(SHORT, BUCKETS).estimate(2, 0.85, 100), None);
    }

    #[test]
    fn too_few_transactions_say_nothing() {
        let mut horizon = Horizon::new(SHORT, BUCKETS);
        confirm(&mut horizon, 13, 5, 1);
        // 0.5 / (1 - 0.962) = 13.2
        assert_eq!(horizon.estimate(2, 0.85, 100), None);
        confirm(&mut horizon, 1, 5, 1);
        assert_eq!(horizon.estimate(2, 0.85, 100), Some(5000.0));
    }

    #[test]
    fn lowest_passing_range_is_the_answer() {
        let mut horizon = Horizon::new(SHORT, BUCKETS);
        confirm(&mut horizon, 20, 8, 1);
        confirm(&mut horizon, 20, 6, 2);
        confirm(&mut horizon, 20, 3, 5);
        assert_eq!(horizon.estimate(1, 0.85, 100), Some(8000.0));
        assert_eq!(horizon.estimate(2, 0.85, 100), Some(6000.0));
        assert_eq!(horizon.estimate(5, 0.85, 100), Some(3000.0));
    }

    #[test]
    fn threshold_decides() {
        let mut horizon = Horizon::new(SHORT, BUCKETS);
        confirm(&mut horizon, 80, 5, 2);
        confirm(&mut horizon, 20, 5, 9);
        assert_eq!(horizon.estimate(2, 0.80, 100), Some(5000.0));
        assert_eq!(horizon.estimate(2, 0.85, 100), None);
    }

    #[test]
    fn period_rounds_blocks_up() {
        let mut horizon = Horizon::new(LONG, BUCKETS);
        confirm(&mut horizon, 200, 5, 25);
        assert_eq!(horizon.estimate(24, 0.85, 100), None);
        assert_eq!(horizon.estimate(25, 0.85, 100), Some(5000.0));
    }

    #[test]
    fn failures_count_against_the_periods_they_waited_through() {
        let mut horizon = Horizon::new(SHORT, BUCKETS);
        confirm(&mut horizon, 20, 5, 1);
        (0..20).for_each(|_| horizon.fail(3, 5));
        assert_eq!(horizon.estimate(3, 0.85, 100), None);
        assert_eq!(horizon.estimate(4, 0.85, 100), Some(5000.0));
    }

    #[test]
    fn waiting_transactions_count_once_they_waited_for_the_target() {
        let mut horizon = Horizon::new(SHORT, BUCKETS);
        confirm(&mut horizon, 20, 5, 1);
        (0..20).for_each(|_| horizon.enter(98, 5));
        assert_eq!(horizon.estimate(2, 0.85, 100), None);
        assert_eq!(horizon.estimate(3, 0.85, 100), Some(5000.0));
    }

    #[test]
    fn waiting_transactions_are_not_forgotten_when_their_row_is_needed() {
        let mut horizon = Horizon::new(SHORT, BUCKETS);
        (0..20).for_each(|_| horizon.enter(98, 5));
        (98..140).for_each(|height| horizon.advance(height, height + 1));
        assert_eq!(horizon.waiting_at_least(12, 140)[5], 20);
        (0..20).for_each(|_| horizon.leave(98, 140, 5));
        assert_eq!(horizon.waiting_at_least(1, 140)[5], 0);
    }

    #[test]
    fn skipped_heights_are_as_blocks_without_transactions() {
        let mut stepwise = Horizon::new(SHORT, BUCKETS);
        confirm(&mut stepwise, 20, 5, 1);
        (0..20).for_each(|_| stepwise.enter(98, 5));
        let mut at_once = stepwise.clone();
        (98..130).for_each(|height| stepwise.advance(height, height + 1));
        at_once.advance(98, 130);
        assert_eq!(
            at_once.waiting_at_least(1, 130),
            stepwise.waiting_at_least(1, 130)
        );
        let differ = at_once
            .averages()
            .zip(stepwise.averages())
            .any(|(a, b)| (a - b).abs() > 1e-9);
        assert!(!differ);
    }

    #[test]
    fn half_life_of_the_short_horizon_is_eighteen_blocks() {
        let mut horizon = Horizon::new(SHORT, BUCKETS);
        confirm(&mut horizon, 100, 5, 1);
        horizon.advance(100, 118);
        assert!(
            (horizon.confirmed[5] - 50.0).abs() < 0.5,
            "{}",
            horizon.confirmed[5]
        );
    }

    #[test]
    fn averages_survive_a_round_trip() {
        let mut horizon = Horizon::new(MEDIUM, BUCKETS);
        confirm(&mut horizon, 100, 5, 7);
        horizon.fail(9, 4);
        let averages: Vec<f64> = horizon.averages().collect();
        assert_eq!(
            Horizon::from_averages(MEDIUM, BUCKETS, &averages),
            Some(horizon)
        );
        assert_eq!(Horizon::from_averages(SHORT, BUCKETS, &averages), None);
    }
}
