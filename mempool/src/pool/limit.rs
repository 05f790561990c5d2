//! What leaves without being replaced or confirmed: the old, and the worst when memory runs
//! out; and the lowest fee rate that follows from it.

use pulse_primitives::mempool::RemovalReason;

use super::Mempool;
use crate::{
    events::LeftReason,
    feerate::{FeeFrac, rate_sat_kvb},
    metrics,
    policy::vsize,
};

/// Time in which the rolling minimum halves, in seconds.
const HALF_LIFE_SECS: f64 = 12.0 * 3600.0;
/// The rolling minimum falls in steps not shorter than this, in seconds.
const STEP_SECS: u64 = 10;

/// The fee rate that evictions have set, falling after the next block.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RollingFee {
    rate_sat_kvb: f64,
    since: u64,
    /// A block has come since the last eviction.
    falls: bool,
}

impl RollingFee {
    /// A block was connected.
    pub fn block(&mut self, now: u64) {
        self.since = now;
        self.falls = true;
    }

    /// Transactions were evicted; who comes now must pay at least `rate_sat_kvb`.
    fn evicted(&mut self, rate_sat_kvb: f64) {
        if rate_sat_kvb > self.rate_sat_kvb {
            self.rate_sat_kvb = rate_sat_kvb;
            self.falls = false;
        }
    }

    fn at(mut self, now: u64, usage: u64, limit: u64, incremental: f64) -> Self {
        if !self.falls || self.rate_sat_kvb == 0.0 || now <= self.since + STEP_SECS {
            return self;
        }
        let half_life = if usage < limit / 4 {
            HALF_LIFE_SECS / 4.0
        } else if usage < limit / 2 {
            HALF_LIFE_SECS / 2.0
        } else {
            HALF_LIFE_SECS
        };
        self.rate_sat_kvb /= ((now - self.since) as f64 / half_life).exp2();
        self.since = now;
        if self.rate_sat_kvb < incremental / 2.0 {
            self.rate_sat_kvb = 0.0;
        }
        self
    }
}

impl Mempool {
    fn rolling_at(&self, now: u64) -> RollingFee {
        let incremental = self.config.incremental_fee_sat_kvb as f64;
        let usage = self.usage_bytes();
        self.rolling
            .at(now, usage, self.config.max_bytes(), incremental)
    }

    /// The lowest fee rate that evictions still ask for, in sat per 1000 vB; 0 if none.
    #[must_use]
    pub fn rolling_min_fee_rate(&self, now: u64) -> u64 {
        let rolling = self.rolling_at(now);
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rounded rate, never negative; the cast saturates"
        )]
        let rate = rolling.rate_sat_kvb.round() as u64;
        if rolling.rate_sat_kvb == 0.0 || !rolling.falls {
            return rate;
        }
        rate.max(self.config.incremental_fee_sat_kvb)
    }

    /// The lowest fee rate that is accepted now, in sat per 1000 vB.
    #[must_use]
    pub fn min_fee_rate(&self, now: u64) -> u64 {
        self.rolling_min_fee_rate(now)
            .max(self.config.min_relay_fee_sat_kvb)
    }

    /// Removes what has waited too long, with all that depends on it. Returns how many.
    pub fn remove_expired(&mut self, now: u64) -> usize {
        let Some(oldest) = now.checked_sub(self.config.expiry_secs()) else {
            return 0;
        };
        let old = self.by_time.iter().take_while(|(time, _)| *time < oldest);
        let old: Vec<_> = old.map(|&(_, slot)| slot).collect();
        let all = self.with_descendants(old);
        let count = all.len();
        let reason = LeftReason::Removed(RemovalReason::Expired);
        let removed = all.into_iter().map(|slot| (slot, reason.clone()));
        self.remove_all(removed.collect(), now);
        count
    }

    /// Removes the worst chunks until the memory is within its cap. Returns how many
    /// transactions.
    pub fn trim_to_size(&mut self, now: u64) -> usize {
        let mut count = 0;
        self.rolling = self.rolling_at(now);
        while self.usage_bytes() > self.config.max_bytes() {
            let Some((rate, slots)) = self.clusters.worst() else {
                break;
            };
            let floor = chunk_rate_sat_kvb(rate) + self.config.incremental_fee_sat_kvb;
            self.rolling.evicted(floor as f64);
            count += slots.len();
            let reason = LeftReason::Removed(RemovalReason::SizeLimit);
            let removed = slots.into_iter().map(|slot| (slot, reason.clone()));
            self.remove_all(removed.collect(), now);
        }
        metrics::min_fee_rate(self.min_fee_rate(now));
        count
    }
}

/// Rate of a chunk in sat per 1000 vB, rounded down.
fn chunk_rate_sat_kvb(rate: FeeFrac) -> u64 {
    rate_sat_kvb(rate.fee.unsigned_abs(), vsize(rate.size.unsigned_abs()))
}
