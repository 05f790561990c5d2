//! A rate in bytes that all who send share.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::sleep_until;

/// What may be sent at once after a pause, in time of the rate.
const BURST: Duration = Duration::from_millis(100);

/// A number of bytes a second.
#[derive(Debug)]
pub(super) struct Rate {
    bytes_per_second: f64,
    /// When what has been granted so far is sent.
    free: Mutex<Instant>,
}

impl Rate {
    pub(super) fn new(mib_per_second: u32) -> Self {
        Self {
            bytes_per_second: f64::from(mib_per_second) * f64::from(1 << 20),
            free: Mutex::new(Instant::now()),
        }
    }

    /// Waits until so many bytes may be sent.
    pub(super) async fn take(&self, bytes: u32) {
        let at = self.grant(bytes, Instant::now());
        sleep_until(at.into()).await;
    }

    /// When so many bytes may be sent that are asked for at `now`.
    fn grant(&self, bytes: u32, now: Instant) -> Instant {
        let time = Duration::from_secs_f64(f64::from(bytes) / self.bytes_per_second);
        let mut free = self.free.lock();
        let start = (*free).max(now.checked_sub(BURST).unwrap_or(now));
        *free = start + time;
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_together_get_the_rate_and_a_pause_earns_only_a_burst() {
        let rate = Rate::new(1);
        let now = Instant::now() + Duration::from_secs(60);
        let granted: Vec<_> = (0..4).map(|_| rate.grant(1 << 20, now)).collect();
        assert!(granted[0] <= now);
        // The fourth begins when three are sent, less the burst.
        assert_eq!(granted[3], now + Duration::from_millis(2900));
    }
}
