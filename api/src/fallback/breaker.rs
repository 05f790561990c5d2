//! Whether it is worth asking the other server.

use std::time::{Duration, Instant};

/// Failures in a row after which it is left alone.
const MOST_FAILURES: u32 = 3;
/// First pause; doubled with each failure after it, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Counts failures in a row. After some it is open: nobody asks for a while, then one does,
/// and the next pause is longer if that fails as well.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    last_failure: Option<Instant>,
    /// End of the pause.
    pause_until: Option<Instant>,
}

impl Breaker {
    /// Whether to ask now. After a pause one caller may, for as long as an attempt takes.
    pub(super) fn admits(&mut self, now: Instant, attempt: Duration) -> bool {
        match self.pause_until {
            None => true,
            Some(until) if now < until => false,
            Some(_) => {
                self.pause_until = Some(now + attempt);
                true
            }
        }
    }

    /// It has answered as it should.
    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// It has not, when asked at `since`. What was asked before the last failure was known
    /// is no further one.
    pub(super) fn failed(&mut self, since: Instant, now: Instant) {
        if self.last_failure.is_some_and(|last| since < last) {
            return;
        }
        self.last_failure = Some(now);
        self.failures = self.failures.saturating_add(1);
        if let Some(beyond) = self.failures.checked_sub(MOST_FAILURES) {
            let pause = FIRST_PAUSE * 2_u32.pow(beyond.min(6));
            self.pause_until = Some(now + pause.min(LONGEST_PAUSE));
        }
    }

    /// It is not to be asked: it cannot become right by itself.
    pub(super) fn refused(&mut self, now: Instant) {
        self.failures = u32::MAX;
        self.last_failure = Some(now);
        self.pause_until = Some(now + LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ATTEMPT: Duration = Duration::from_secs(10);

    #[test]
    fn failures_in_a_row_open_it_for_longer_and_longer_and_a_success_closes_it() {
        let mut breaker = Breaker::default();
        let mut now = Instant::now();
        for _ in 0..2 {
            breaker.failed(now, now);
            assert!(breaker.admits(now, ATTEMPT));
        }
        let mut pause = FIRST_PAUSE;
        for _ in 0..12 {
            breaker.failed(now, now);
            assert!(!breaker.admits(now + pause - Duration::from_millis(1), ATTEMPT));
            now += pause;
            // One may try; the others wait for what it finds.
            assert!(breaker.admits(now, ATTEMPT));
            assert!(!breaker.admits(now, ATTEMPT));
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
        breaker.succeeded();
        assert!(breaker.admits(now, ATTEMPT) && breaker.admits(now, ATTEMPT));
    }

    #[test]
    fn attempts_that_fail_together_are_one_failure() {
        let mut breaker = Breaker::default();
        let since = Instant::now();
        for n in 1..100 {
            breaker.failed(since, since + n * Duration::from_millis(1));
        }
        assert!(breaker.admits(since + ATTEMPT, ATTEMPT));
    }

    #[test]
    fn an_attempt_that_is_never_heard_of_again_does_not_keep_it_open() {
        let mut breaker = Breaker::default();
        let now = Instant::now();
        breaker.refused(now);
        assert!(!breaker.admits(now + LONGEST_PAUSE / 2, ATTEMPT));
        assert!(breaker.admits(now + LONGEST_PAUSE, ATTEMPT));
        assert!(breaker.admits(now + LONGEST_PAUSE + ATTEMPT, ATTEMPT));
    }
}
