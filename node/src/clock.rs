//! The time that the node goes by towards its peers.
//!
//! It is that of the system, unless a test sets it forward: what takes minutes or hours
//! (feelers, requests that time out, peers that fall behind) is then due at once. Limits
//! of single reads and writes go by the runtime's own time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// A clock. Clones show the same time.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    /// How far it is set forward, in milliseconds.
    ahead_ms: Arc<AtomicU64>,
}

impl Clock {
    /// Now, to measure times with.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::now() + self.ahead()
    }

    /// Now, in seconds since 1970.
    #[must_use]
    pub fn unix(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| (since + self.ahead()).as_secs())
    }

    /// Sets the clock and all its clones forward.
    pub fn advance(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.ahead_ms.fetch_add(by, Ordering::Relaxed);
    }

    fn ahead(&self) -> Duration {
        Duration::from_millis(self.ahead_ms.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_clones_are_set_forward() {
        let clock = Clock::default();
        let (other, before, unix) = (clock.clone(), clock.now(), clock.unix());
        other.advance(Duration::from_secs(3600));
        assert!(clock.now() >= before + Duration::from_secs(3600));
        assert!(clock.unix() >= unix + 3600);
    }
}
