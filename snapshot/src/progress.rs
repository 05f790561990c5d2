//! How far a long piece of work has come, and the way to stop it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::error::SnapshotError;

/// Shared by the one who works and those who watch.
#[derive(Debug)]
pub struct Progress {
    step: Mutex<&'static str>,
    done: AtomicU64,
    total: AtomicU64,
    cancelled: AtomicBool,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            step: Mutex::new("starting"),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            cancelled: AtomicBool::new(false),
        }
    }
}

impl Progress {
    /// Begins a step of `total` bytes; 0 when that is not known.
    pub fn begin(&self, step: &'static str, total: u64) {
        *self.step.lock() = step;
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    /// Adds bytes that are done.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The step, bytes done and bytes in all.
    #[must_use]
    pub fn now(&self) -> (&'static str, u64, u64) {
        let done = self.done.load(Ordering::Relaxed);
        (*self.step.lock(), done, self.total.load(Ordering::Relaxed))
    }

    /// Asks the work to end soon.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Becomes true when the work is asked to end.
    #[must_use]
    pub fn cancelled(&self) -> &AtomicBool {
        &self.cancelled
    }

    /// Sets how much is done.
    pub fn set(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
    }

    /// For the one who works, every few megabytes.
    ///
    /// # Errors
    /// [`SnapshotError::Cancelled`] when it was asked to end.
    pub fn check(&self) -> Result<(), SnapshotError> {
        match self.cancelled.load(Ordering::Relaxed) {
            true => Err(SnapshotError::Cancelled),
            false => Ok(()),
        }
    }
}
