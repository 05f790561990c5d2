//! What is known of one address, and what it is worth.

use pulse_primitives::bitcoin::p2p::ServiceFlags;

use super::{select::Selected, source::AddrSource};
use crate::netaddr::NetAddress;

/// Seconds in an hour.
pub(super) const HOUR: u64 = 60 * 60;

/// An address not heard of for this long, in seconds, is not worth keeping.
const HORIZON: u64 = 30 * 24 * HOUR;
/// Failures after which an address that was never reached is not worth keeping.
const RETRIES: u32 = 3;
/// Failures in a row after which an address that was reached is not worth keeping, if
/// that was longer ago than [`MIN_FAIL`].
const MAX_FAILURES: u32 = 10;
/// Seconds; see [`MAX_FAILURES`].
const MIN_FAIL: u64 = 7 * 24 * HOUR;

/// An address with what its entry in an `addr` message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddrRecord {
    /// Where it listens.
    pub address: NetAddress,
    /// Services that it is said to offer.
    pub services: ServiceFlags,
    /// When it was last seen, in seconds since 1970.
    pub time: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) record: AddrRecord,
    /// Who told of it first.
    pub(super) source: AddrSource,
    /// Last time that we reached it; 0 for never.
    pub(super) last_success: u64,
    /// Failures since then.
    pub(super) attempts: u32,
    /// Last time that we dialled it; 0 for never. Memory only.
    pub(super) last_try: u64,
    /// Last time that this counted as a failure. Memory only.
    pub(super) last_counted_try: u64,
    /// Places in new; 0 if in tried.
    pub(super) places: u8,
    pub(super) in_tried: bool,
}

impl Entry {
    pub(super) fn new(record: AddrRecord, source: AddrSource) -> Self {
        Self {
            record,
            source,
            last_success: 0,
            attempts: 0,
            last_try: 0,
            last_counted_try: 0,
            places: 0,
            in_tried: false,
        }
    }

    /// Whether it may make room for any other, and is not passed on.
    pub(super) fn is_terrible(&self, now: u64) -> bool {
        if now.saturating_sub(self.last_try) <= 60 {
            return false; // being dialled
        }
        let age = now.saturating_sub(self.record.time);
        let since_success = now.saturating_sub(self.last_success);
        self.record.time > now + 10 * 60 // from the future
            || age > HORIZON
            || (self.last_success == 0 && self.attempts >= RETRIES)
            || (since_success > MIN_FAIL && self.attempts >= MAX_FAILURES)
    }

    /// Chance, between 0 and 1, that it is taken when a random place turns it up.
    pub(super) fn chance(&self, now: u64) -> f64 {
        let recent = if now.saturating_sub(self.last_try) < 10 * 60 {
            0.01
        } else {
            1.0
        };
        let failures = i32::try_from(self.attempts.min(8)).expect("at most 8");
        recent * 0.66_f64.powi(failures)
    }

    pub(super) fn selected(&self) -> Selected {
        Selected {
            record: self.record,
            last_try: self.last_try,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn entry() -> Entry {
        let record = AddrRecord {
            address: "1.2.3.4:8333".parse().unwrap(),
            services: ServiceFlags::NETWORK,
            time: NOW - HOUR,
        };
        Entry::new(record, record.address.addr.into())
    }

    #[test]
    fn an_address_from_the_future_or_the_distant_past_is_terrible() {
        let mut entry = entry();
        for (time, is_terrible) in [
            (NOW + 10 * 60, false),
            (NOW + 10 * 60 + 1, true),
            (NOW - HORIZON, false),
            (NOW - HORIZON - 1, true),
        ] {
            entry.record.time = time;
            assert_eq!(entry.is_terrible(NOW), is_terrible, "{time}");
        }
    }

    #[test]
    fn three_failures_make_an_address_terrible_that_was_never_reached() {
        let mut entry = entry();
        entry.attempts = 2;
        assert!(!entry.is_terrible(NOW));
        entry.attempts = 3;
        assert!(entry.is_terrible(NOW));
        entry.last_success = NOW - HOUR;
        assert!(!entry.is_terrible(NOW));
    }

    #[test]
    fn ten_failures_make_an_address_terrible_that_was_not_reached_for_a_week() {
        let mut entry = entry();
        entry.attempts = 10;
        entry.last_success = NOW - MIN_FAIL;
        assert!(!entry.is_terrible(NOW));
        entry.last_success = NOW - MIN_FAIL - 1;
        assert!(entry.is_terrible(NOW));
        entry.attempts = 9;
        assert!(!entry.is_terrible(NOW));
    }

    #[test]
    fn what_was_dialled_within_a_minute_is_not_terrible() {
        let mut entry = entry();
        entry.attempts = 3;
        entry.last_try = NOW - 60;
        assert!(!entry.is_terrible(NOW));
        entry.last_try = NOW - 61;
        assert!(entry.is_terrible(NOW));
    }

    #[test]
    fn recent_dials_and_failures_lower_the_chance() {
        let mut entry = entry();
        assert!((entry.chance(NOW) - 1.0).abs() < 1e-9);
        entry.attempts = 1;
        assert!((entry.chance(NOW) - 0.66).abs() < 1e-9);
        entry.attempts = 100;
        assert!((entry.chance(NOW) - 0.66_f64.powi(8)).abs() < 1e-9);
        entry.attempts = 0;
        entry.last_try = NOW - 599;
        assert!((entry.chance(NOW) - 0.01).abs() < 1e-9);
    }
}
