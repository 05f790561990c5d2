//! How much may be uploaded in a day.
//!
//! Pure; time is passed in.
//!
//! # Limits
//! The target is no hard limit: new blocks are always served, and a share is kept back
//! for them. What it stops is the download of the whole chain from this node (Bitcoin
//! Core's `-maxuploadtarget`).

use std::time::{Duration, Instant};

/// Length of a cycle.
const CYCLE: Duration = Duration::from_secs(24 * 60 * 60);
/// Average time between blocks.
const BLOCK_INTERVAL: Duration = Duration::from_secs(600);
/// Longest block, in bytes.
const MAX_BLOCK_BYTES: u64 = 4_000_000;

/// Counts what is uploaded.
#[derive(Debug)]
pub(super) struct UploadTarget {
    /// Bytes per cycle; 0 for any number.
    limit_bytes: u64,
    since: Instant,
    sent_bytes: u64,
}

impl UploadTarget {
    /// Nothing sent. `mib_per_day` of 0 is no target.
    pub fn new(mib_per_day: u64, now: Instant) -> Self {
        Self {
            limit_bytes: mib_per_day.saturating_mul(1 << 20),
            since: now,
            sent_bytes: 0,
        }
    }

    /// So many bytes were sent, of whatever kind.
    pub fn sent(&mut self, bytes: u64, now: Instant) {
        self.begin_cycle(now);
        self.sent_bytes = self.sent_bytes.saturating_add(bytes);
    }

    /// Whether old blocks may not be served any more: what is left of the target would
    /// be needed to serve each new block of the cycle once.
    pub fn is_reached(&mut self, now: Instant) -> bool {
        if self.limit_bytes == 0 {
            return false;
        }
        self.begin_cycle(now);
        let left = CYCLE.saturating_sub(now.duration_since(self.since));
        let kept_back = left.as_secs() / BLOCK_INTERVAL.as_secs() * MAX_BLOCK_BYTES;
        self.sent_bytes.saturating_add(kept_back) >= self.limit_bytes
    }

    fn begin_cycle(&mut self, now: Instant) {
        if now.duration_since(self.since) >= CYCLE {
            self.since = now;
            self.sent_bytes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn without_a_target_nothing_is_refused() {
        let now = Instant::now();
        let mut target = UploadTarget::new(0, now);
        target.sent(u64::MAX, now);
        assert!(!target.is_reached(now));
    }

    #[test]
    fn a_share_is_kept_back_for_new_blocks_and_shrinks_through_the_day() {
        let now = Instant::now();
        let mut target = UploadTarget::new(800, now);
        // 144 blocks of 4 MB are 549.3 MiB.
        target.sent(250 * MIB, now);
        assert!(!target.is_reached(now));
        target.sent(MIB, now);
        assert!(target.is_reached(now));
        let noon = now + CYCLE / 2;
        assert!(!target.is_reached(noon));
        target.sent(300 * MIB, noon);
        assert!(target.is_reached(noon));
        let next_day = now + CYCLE;
        assert!(!target.is_reached(next_day));
        target.sent(250 * MIB, next_day);
        assert!(!target.is_reached(next_day));
    }

    #[test]
    fn a_target_below_the_share_of_new_blocks_never_serves_old_ones() {
        let now = Instant::now();
        assert!(UploadTarget::new(500, now).is_reached(now));
    }
}
