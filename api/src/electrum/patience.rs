//! How a request waits while the node is between two states, instead of being refused.
//!
//! # Correctness
//! In a reorganisation, and after a pause of the network, a node that follows the chain has
//! no answer for a moment ([`ElectrumError::passes`]). Wallets hang up over any error that
//! they get in the background (Electrum does, whatever its code), so the request is made
//! again until there is an answer.
//!
//! # Limits
//! A message waits [`LONGEST`] at most, however many requests it has, and no longer than
//! until a stop. While it waits it has no slot to read the index.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::error::ElectrumError;

/// Most that a message waits. The shortest time-out of a wallet that is known is 10 seconds
/// for what the user waits for, and 30 for the rest (Electrum).
const LONGEST: Duration = Duration::from_secs(8);
/// First pause between two attempts; doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// What is left of the time that a message may wait.
pub(super) struct Patience {
    until: Instant,
    stop: CancellationToken,
}

impl Patience {
    /// Patience for one message.
    pub(super) fn new(stop: &CancellationToken) -> Self {
        Self::of(LONGEST, stop)
    }

    fn of(longest: Duration, stop: &CancellationToken) -> Self {
        Self {
            until: Instant::now() + longest,
            stop: stop.clone(),
        }
    }

    /// The first result of `attempt` that waiting would not change, or the last one.
    pub(super) async fn result<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, ElectrumError>
    where
        F: Future<Output = Result<T, ElectrumError>>,
    {
        let mut pause = FIRST_PAUSE;
        loop {
            let result = attempt().await;
            let next = Instant::now() + pause;
            if !matches!(&result, Err(error) if error.passes()) || next > self.until {
                return result;
            }
            tokio::select! {
                () = self.stop.cancelled() => return result,
                () = sleep_until(next) => {}
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn catching_up() -> ElectrumError {
        ElectrumError::CatchingUp {
            reason: "indexed 1 of 9 blocks".to_owned(),
        }
    }

    /// How often it was attempted, and what came of it, if the first `failures` are `error`.
    async fn attempts(
        patience: &Patience,
        failures: usize,
        error: fn() -> ElectrumError,
    ) -> (usize, Result<usize, ElectrumError>) {
        let count = Cell::new(0);
        let result = patience
            .result(|| async {
                count.set(count.get() + 1);
                match count.get() <= failures {
                    true => Err(error()),
                    false => Ok(7),
                }
            })
            .await;
        (count.get(), result)
    }

    #[tokio::test]
    async fn what_passes_is_waited_for() {
        let patience = Patience::new(&CancellationToken::new());
        for error in [catching_up, || ElectrumError::MempoolBehind] {
            let (count, result) = attempts(&patience, 5, error).await;
            assert_eq!((count, result.unwrap()), (6, 7));
        }
    }

    #[tokio::test]
    async fn what_does_not_pass_is_told_at_once() {
        let patience = Patience::new(&CancellationToken::new());
        let not_synced = || ElectrumError::NotSynced {
            reason: "indexed 1 of 900 blocks".to_owned(),
        };
        for error in [not_synced, || ElectrumError::NoTx] {
            let (count, result) = attempts(&patience, 1, error).await;
            assert_eq!(count, 1);
            assert!(result.is_err());
        }
    }

    #[tokio::test]
    async fn the_requests_of_a_message_wait_no_longer_than_one() {
        let longest = Duration::from_millis(100);
        let patience = Patience::of(longest, &CancellationToken::new());
        let (count, result) = attempts(&patience, usize::MAX, catching_up).await;
        assert!(count > 1);
        assert_eq!(result.unwrap_err().code(), 2);
        tokio::time::sleep_until(patience.until).await;
        let (count, _) = attempts(&patience, usize::MAX, catching_up).await;
        assert_eq!(count, 1);
    }

    #[tokio::test]
    async fn a_stop_ends_the_wait() {
        let stop = CancellationToken::new();
        let patience = Patience::of(Duration::from_secs(3600), &stop);
        let waiting = attempts(&patience, usize::MAX, catching_up);
        let stopping = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            stop.cancel();
        };
        let ((_, result), ()) = tokio::join!(waiting, stopping);
        assert!(matches!(result, Err(ElectrumError::CatchingUp { .. })));
    }
}
