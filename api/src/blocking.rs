//! The single bridge from async handlers to the synchronous core.

use std::{
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::spawn_blocking,
    time::{Instant, timeout},
};

use crate::metrics;

/// Why a piece of synchronous work has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BlockingError {
    /// No slot became free in time; the work was not started.
    #[error("all query slots are taken")]
    Busy,
    /// The work did not end in time. It goes on, and keeps its slot until it ends.
    #[error("the query takes too long")]
    TimedOut,
    /// The work panicked.
    #[error("the query panicked")]
    Panicked,
}

/// Runs synchronous work on threads that may block, a bounded number at a time.
///
/// # Limits
/// A slot belongs to the work, not to the client: it is given back when the work ends,
/// even if the client has long left, so that impatient clients cannot pile up work.
///
/// Short work runs on the thread that serves the connection, which is cheaper than
/// handing it over and back. One thread of the runtime is always kept from that, so that
/// connections and timers go on however slow the disk is.
pub(crate) struct Blocking {
    slots: Arc<Semaphore>,
    /// Threads of the runtime that may be busy with short work.
    inline: Semaphore,
    wait: Duration,
    limit: Duration,
}

impl Blocking {
    /// At most `slots` pieces of work at a time; one waits up to `wait` for its slot
    /// and is given up after `limit`.
    pub(crate) fn new(slots: NonZeroUsize, wait: Duration, limit: Duration) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(slots.get())),
            inline: Semaphore::new(spare_threads()),
            wait,
            limit,
        }
    }

    /// Result of work that reads a few rows and no more than a few pieces of the block
    /// files. Without a limit of time, since it has an end of its own.
    pub(crate) async fn run_short<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BlockingError> {
        let Ok(_thread) = self.inline.try_acquire() else {
            return self.run(work).await;
        };
        // What it touches is dropped with it, or read-only.
        catch_unwind(AssertUnwindSafe(work)).map_err(|_| {
            metrics::handler_panicked();
            BlockingError::Panicked
        })
    }

    /// Result of `work`.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, BlockingError> {
        let slot = self.slot().await?;
        let task = spawn_blocking(move || {
            let result = work();
            drop(slot);
            result
        });
        match timeout(self.limit, task).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_)) => {
                metrics::handler_panicked();
                Err(BlockingError::Panicked)
            }
            Err(_) => Err(BlockingError::TimedOut),
        }
    }

    /// Result of `work` when it ends, or the one that it gives before. It keeps its slot
    /// until it ends, which it must by the deadline.
    pub(crate) async fn run_long<T: Send + 'static>(
        &self,
        work: impl FnOnce(Early<T>) -> T + Send + 'static,
    ) -> Result<T, BlockingError> {
        let slot = self.slot().await?;
        let (result, early) = oneshot::channel();
        let early_end = Early {
            result,
            deadline: Instant::now() + self.limit,
        };
        let task = spawn_blocking(move || {
            let result = work(early_end);
            drop(slot);
            result
        });
        let first = async {
            tokio::select! {
                biased;
                Ok(result) = early => Ok(result),
                result = task => result.map_err(|_| {
                    metrics::handler_panicked();
                    BlockingError::Panicked
                }),
            }
        };
        let first = timeout(self.limit, first).await;
        first.unwrap_or(Err(BlockingError::TimedOut))
    }

    async fn slot(&self) -> Result<OwnedSemaphorePermit, BlockingError> {
        let Ok(slot) = timeout(self.wait, self.slots.clone().acquire_owned()).await else {
            metrics::query_refused();
            return Err(BlockingError::Busy);
        };
        Ok(slot.expect("the semaphore is never closed"))
    }
}

/// For work that gives its result before it ends, and goes on to feed it.
pub(crate) struct Early<T> {
    /// Takes the result.
    pub(crate) result: oneshot::Sender<T>,
    /// When the work must end.
    pub(crate) deadline: Instant,
}

impl<T> Early<T> {
    /// Whether nobody waits for the result any more: the deadline is over, or the client left.
    pub(crate) fn is_over(&self) -> bool {
        self.result.is_closed() || Instant::now() >= self.deadline
    }
}

/// Threads of the runtime besides the one that must always be there for connections.
fn spare_threads() -> usize {
    match Handle::try_current() {
        Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => {
            runtime.metrics().num_workers() - 1
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn one_slot(wait: Duration, limit: Duration) -> Blocking {
        Blocking::new(NonZeroUsize::MIN, wait, limit)
    }

    #[tokio::test]
    async fn work_that_panics_frees_its_slot() {
        let blocking = one_slot(Duration::from_secs(5), Duration::from_secs(5));
        let result: Result<(), _> = blocking.run(|| panic!("on purpose")).await;
        assert_eq!(result, Err(BlockingError::Panicked));
        assert_eq!(blocking.run(|| 7).await, Ok(7));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn short_work_leaves_one_thread_to_connections() {
        let blocking = Arc::new(one_slot(Duration::from_secs(5), Duration::from_secs(5)));
        let result: Result<(), _> = blocking.run_short(|| panic!("on purpose")).await;
        assert_eq!(result, Err(BlockingError::Panicked));
        let (finish, finished) = mpsc::channel::<()>();
        let (started, is_started) = mpsc::channel::<()>();
        let slow = tokio::spawn({
            let blocking = Arc::clone(&blocking);
            async move {
                let work = move || {
                    started.send(()).unwrap();
                    finished.recv().is_ok()
                };
                blocking.run_short(work).await
            }
        });
        spawn_blocking(move || is_started.recv())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(blocking.inline.available_permits(), 0);
        // The next one takes a slot, on a thread that may block.
        assert_eq!(blocking.run_short(|| 7).await, Ok(7));
        finish.send(()).unwrap();
        assert_eq!(slow.await.unwrap(), Ok(true));
        assert_eq!(blocking.inline.available_permits(), 1);
    }

    #[tokio::test]
    async fn on_a_single_thread_nothing_runs_inline() {
        let blocking = one_slot(Duration::from_secs(5), Duration::from_secs(5));
        assert_eq!(blocking.inline.available_permits(), 0);
        assert_eq!(blocking.run_short(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn abandoned_work_keeps_its_slot_until_it_ends() {
        let blocking = one_slot(Duration::from_millis(20), Duration::from_millis(20));
        let (finish, finished) = mpsc::channel::<()>();
        let slow = blocking.run(move || finished.recv().is_ok()).await;
        assert_eq!(slow, Err(BlockingError::TimedOut));
        assert_eq!(blocking.run(|| 1).await, Err(BlockingError::Busy));

        finish.send(()).unwrap();
        timeout(Duration::from_secs(10), async {
            while blocking.run(|| 1).await != Ok(1) {}
        })
        .await
        .expect("the slot is free again");
    }
}
