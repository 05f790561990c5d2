//! The lowest fee rate that we tell a peer to announce (BIP 133), and when.
//!
//! # Security
//! The exact minimum of the mempool would tell one node from another: it is rounded to
//! one of a few values, up or down at random, and sent at random times.

use std::time::{Duration, Instant};

use rand::Rng;

use super::ids::exponential;

/// Mean time between two `feefilter` messages.
const INTERVAL: Duration = Duration::from_secs(600);
/// After a substantial change the next one comes at most this much later.
const CHANGE_DELAY: Duration = Duration::from_secs(300);
/// Highest fee rate that is told, in sat per 1000 vB.
const MAX_RATE: f64 = 1e7;
/// Ratio of one rounded value to the one before.
const SPACING: f64 = 1.1;
/// Asks for no transactions at all, in sat per 1000 vB: all the money there is.
const NOTHING: u64 = 2_100_000_000_000_000;

/// Rounds fee rates to a few values.
#[derive(Debug)]
pub struct FeeFilterRounder {
    rates: Vec<u64>,
}

impl FeeFilterRounder {
    /// A rounder whose lowest value above zero is half of `incremental`, in sat per
    /// 1000 vB.
    #[must_use]
    pub fn new(incremental: u64) -> Self {
        let mut rates = vec![0];
        let mut rate = ((incremental / 2).max(1)) as f64;
        while rate <= MAX_RATE {
            // At most MAX_RATE, and positive.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            rates.push(rate as u64);
            rate *= SPACING;
        }
        Self { rates }
    }

    /// One of the two values around `rate`: the lower one twice in three times.
    pub fn round(&self, rate: u64, rng: &mut impl Rng) -> u64 {
        let above = self.rates.partition_point(|value| *value < rate);
        let down = above == self.rates.len() || (above > 0 && rng.gen_range(0..3u32) != 0);
        self.rates[above - usize::from(down)]
    }

    /// The highest value.
    fn highest(&self) -> u64 {
        self.rates.last().copied().unwrap_or(0)
    }
}

/// What one peer was told, and when it is told next.
#[derive(Debug, Default)]
pub struct FeeFilter {
    sent: u64,
    next: Option<Instant>,
}

/// What the mempool accepts.
#[derive(Debug, Clone, Copy)]
pub struct AcceptedRates {
    /// Its minimum now, in sat per 1000 vB. `None` while nothing is accepted at all
    /// (the node is catching up).
    pub mempool_min: Option<u64>,
    /// The minimum of relay, in sat per 1000 vB.
    pub min_relay: u64,
}

impl FeeFilter {
    /// The value to send now, if it is time and it differs from the last one.
    pub fn poll(
        &mut self,
        now: Instant,
        rates: AcceptedRates,
        rounder: &FeeFilterRounder,
        rng: &mut impl Rng,
    ) -> Option<u64> {
        let current = rates.mempool_min.unwrap_or(NOTHING);
        if rates.mempool_min.is_some() && self.sent == rounder.highest() {
            // The node has caught up: tell at once.
            self.next = None;
        }
        if self.next.is_none_or(|next| now >= next) {
            let told = rounder.round(current, rng).max(rates.min_relay);
            self.next = Some(now + exponential(rng, INTERVAL));
            if told == self.sent {
                return None;
            }
            self.sent = told;
            return Some(told);
        }
        let changed = current < 3 * self.sent / 4 || current > 4 * self.sent / 3;
        if changed && self.next.is_some_and(|next| now + CHANGE_DELAY < next) {
            self.next = Some(now + CHANGE_DELAY.mul_f64(rng.r#gen()));
        }
        None
    }

    /// When to ask again.
    #[must_use]
    pub fn next_time(&self) -> Option<Instant> {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    fn rates(min: u64) -> AcceptedRates {
        AcceptedRates {
            mempool_min: Some(min),
            min_relay: 100,
        }
    }

    #[test]
    fn rates_are_rounded_down_twice_in_three_times() {
        let (rounder, mut rng) = (FeeFilterRounder::new(1000), StdRng::seed_from_u64(1));
        let mut counts: HashMap<u64, u32> = HashMap::new();
        for _ in 0..30_000 {
            *counts.entry(rounder.round(1000, &mut rng)).or_default() += 1;
        }
        assert_eq!(counts.len(), 2);
        let low = counts[&974];
        assert!((19_000..21_000).contains(&low), "{counts:?}");
        assert_eq!(counts[&1071], 30_000 - low);
    }

    #[test]
    fn nothing_lies_outside_the_values() {
        let (rounder, mut rng) = (FeeFilterRounder::new(100), StdRng::seed_from_u64(1));
        assert_eq!(rounder.round(0, &mut rng), 0);
        assert_eq!(rounder.round(NOTHING, &mut rng), rounder.highest());
        assert!(rounder.highest() <= 10_000_000 && rounder.highest() > 9_000_000);
        assert!(rounder.rates.is_sorted() && rounder.rates.len() < 150);
    }

    #[test]
    fn a_node_that_catches_up_asks_for_nothing_and_then_tells_at_once() {
        let (rounder, mut rng) = (FeeFilterRounder::new(100), StdRng::seed_from_u64(1));
        let (mut filter, now) = (FeeFilter::default(), Instant::now());
        let syncing = AcceptedRates {
            mempool_min: None,
            min_relay: 100,
        };
        let told = filter.poll(now, syncing, &rounder, &mut rng);
        assert_eq!(told, Some(rounder.highest()));
        assert_eq!(filter.poll(now, syncing, &rounder, &mut rng), None);
        assert_eq!(filter.poll(now, rates(0), &rounder, &mut rng), Some(100));
    }

    #[test]
    fn the_same_value_is_not_sent_twice() {
        let (rounder, mut rng) = (FeeFilterRounder::new(100), StdRng::seed_from_u64(1));
        let (mut filter, mut now) = (FeeFilter::default(), Instant::now());
        let sent = (0..100)
            .filter(|_| {
                now += Duration::from_secs(3600 * 4);
                filter.poll(now, rates(0), &rounder, &mut rng).is_some()
            })
            .count();
        assert_eq!(sent, 1);
    }

    #[test]
    fn a_substantial_change_is_told_within_five_minutes() {
        let rounder = FeeFilterRounder::new(100);
        for seed in 0..200 {
            let mut rng = StdRng::seed_from_u64(seed);
            let (mut filter, now) = (FeeFilter::default(), Instant::now());
            filter.poll(now, rates(100), &rounder, &mut rng);
            let told = (0..=301).any(|second| {
                let now = now + Duration::from_secs(second);
                filter.poll(now, rates(5_000), &rounder, &mut rng).is_some()
            });
            assert!(told, "seed {seed}");
        }
    }
}
