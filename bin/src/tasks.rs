//! Named tasks that live and end together.
//!
//! The first end, good or bad, stops all: a node that lost one of its tasks would
//! answer from a state that nobody keeps up any more. After the stop each task is
//! awaited until the deadline.

use std::{
    collections::HashMap,
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, anyhow};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    task::{Id, JoinError, JoinSet},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

/// Exit code when a second signal cuts the stop short, as shells count SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

/// A set of named tasks with one stop for all of them.
#[derive(Debug)]
pub struct Tasks {
    stop: CancellationToken,
    running: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    /// No tasks yet. `stop` ends all that will be spawned.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        Self {
            stop,
            running: JoinSet::new(),
            names: HashMap::new(),
        }
    }

    /// Runs a task, which must end soon after its token is cancelled.
    pub fn spawn<F>(&mut self, name: &'static str, task: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let handle = self.running.spawn(task(self.stop.clone()));
        self.names.insert(handle.id(), name);
    }

    /// Waits for the first end or for the stop, whichever comes first; stops all; waits
    /// for each until `timeout` is over.
    ///
    /// # Errors
    /// The first failure of a task, or a task that ended although nobody had asked it
    /// to, or the names of those that did not end in time.
    pub async fn finish(mut self, timeout: Duration) -> anyhow::Result<()> {
        let mut result = Ok(());
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {}
            Some(ended) = self.running.join_next_with_id() => {
                result = self.ended(ended, true);
            }
        }
        info!(count = self.running.len(), "stopping");
        self.stop.cancel();

        let started = Instant::now();
        let deadline = started + timeout;
        while !self.running.is_empty() {
            match timeout_at(deadline, self.running.join_next_with_id()).await {
                Ok(Some(ended)) => result = result.and(self.ended(ended, false)),
                Ok(None) => break,
                Err(_) => {
                    let mut names = self.names.into_values().collect::<Vec<_>>();
                    names.sort_unstable();
                    let names = names.join(", ");
                    return result.and(Err(anyhow!(
                        "did not stop within {} s: {names}",
                        timeout.as_secs()
                    )));
                }
            }
        }
        let elapsed_ms = started.elapsed().as_millis();
        info!(elapsed_ms, "all tasks have stopped");
        result
    }

    fn ended(
        &mut self,
        ended: Result<(Id, anyhow::Result<()>), JoinError>,
        is_early: bool,
    ) -> anyhow::Result<()> {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(err) => err.id(),
        };
        let name = self.names.remove(&id).unwrap_or("unnamed");
        let result = match ended {
            Ok((_, Ok(()))) if is_early => Err(anyhow!("ended although nobody had asked it to")),
            Ok((_, result)) => result,
            Err(err) => Err(anyhow!("panicked: {}", panic_message(err))),
        };
        match &result {
            Ok(()) => debug!(task = name, "task stopped"),
            Err(err) => error!(task = name, err = format!("{err:#}"), "task failed"),
        }
        result.with_context(|| format!("task {name}"))
    }
}

fn panic_message(err: JoinError) -> String {
    let Ok(panic) = err.try_into_panic() else {
        return "it was cancelled".to_owned();
    };
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "without a message".to_owned())
}

/// Whether the node has been told to stop, and wants no more clients.
#[derive(Debug, Clone, Default)]
pub struct Drain(Arc<AtomicBool>);

impl Drain {
    /// Whether it has begun.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// The flag itself.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

/// Cancels `stop` at SIGTERM or SIGINT, for SIGTERM after `drain`: until then the node
/// answers as before, but says that it is not healthy, so that balancers send clients
/// elsewhere. A second signal ends the process at once, which loses nothing that the next
/// start does not restore.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn stop_on_signals(stop: CancellationToken, drain: Duration) -> io::Result<Drain> {
    let draining = Drain::default();
    let begun = draining.clone();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        let signal = next_signal(&mut terminate, &mut interrupt).await;
        begun.0.store(true, Ordering::Release);
        let second = next_signal(&mut terminate, &mut interrupt);
        tokio::pin!(second);
        if signal == "SIGTERM" && !drain.is_zero() {
            let seconds = drain.as_secs();
            info!(signal, seconds, "draining; a second signal ends at once");
            let _ = timeout(drain, &mut second).await.map(end_at_once);
        }
        info!(signal, "stopping; a second signal ends at once");
        stop.cancel();
        let signal = second.await;
        end_at_once(signal);
    });
    Ok(draining)
}

fn end_at_once(signal: &'static str) {
    error!(signal, "second signal: ending at once");
    // Not std's exit: destructors of C++ statics would run under live threads.
    signal_hook::low_level::exit(EXIT_INTERRUPTED);
}

async fn next_signal(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn waiter(tasks: &mut Tasks, name: &'static str) -> Arc<AtomicBool> {
        let stopped = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stopped);
        tasks.spawn(name, |stop| async move {
            stop.cancelled().await;
            flag.store(true, Ordering::SeqCst);
            Ok(())
        });
        stopped
    }

    #[tokio::test]
    async fn the_stop_ends_all_and_is_no_error() {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new(stop.clone());
        let async_stopped = waiter(&mut tasks, "one");
        let other_stopped = waiter(&mut tasks, "two");
        stop.cancel();
        tasks.finish(TIMEOUT).await.unwrap();
        assert!(async_stopped.load(Ordering::SeqCst));
        assert!(other_stopped.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn the_first_failure_stops_the_others_and_is_reported_with_its_name() {
        let mut tasks = Tasks::new(CancellationToken::new());
        let stopped = waiter(&mut tasks, "waits");
        tasks.spawn("fails", |_| async { Err(anyhow!("the disk is full")) });
        let err = tasks.finish(TIMEOUT).await.unwrap_err();
        assert_eq!(format!("{err:#}"), "task fails: the disk is full");
        assert!(stopped.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_task_that_ends_well_but_early_stops_the_others_too() {
        let mut tasks = Tasks::new(CancellationToken::new());
        let stopped = waiter(&mut tasks, "waits");
        tasks.spawn("ends", |_| async { Ok(()) });
        let err = tasks.finish(TIMEOUT).await.unwrap_err();
        assert!(format!("{err:#}").starts_with("task ends: "), "{err:#}");
        assert!(stopped.load(Ordering::SeqCst));
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_with_its_message() {
        let mut tasks = Tasks::new(CancellationToken::new());
        tasks.spawn("panics", |_| async { panic!("out of {}", "luck") });
        let err = tasks.finish(TIMEOUT).await.unwrap_err();
        assert_eq!(format!("{err:#}"), "task panics: panicked: out of luck");
    }

    #[tokio::test]
    async fn a_task_that_ignores_the_stop_is_named_after_the_deadline() {
        let stop = CancellationToken::new();
        let mut tasks = Tasks::new(stop.clone());
        waiter(&mut tasks, "obeys");
        tasks.spawn("ignores", |_| std::future::pending());
        stop.cancel();
        let err = tasks.finish(Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(format!("{err:#}"), "did not stop within 0 s: ignores");
    }
}
