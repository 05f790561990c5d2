//! After a bulk load: merges the sorted runs that it left into one per family, in the
//! background. Queries and new blocks go on meanwhile.
//!
//! # Correctness
//! `meta/unsettled` says that it is to be done. It goes only when all runs were merged, and
//! only on the thread that follows the chain, so that a bulk load that begins meanwhile cannot
//! lose its own. A kill or stop leaves the row; merging begins again with the families that
//! have not been finished.

use std::{
    sync::Arc,
    thread::{Builder, JoinHandle},
    time::Instant,
};

use super::{IndexSync, SyncError};
use crate::{index::Shared, metrics, store::StoreError};

/// The thread that merges, if there is one.
#[derive(Default)]
pub(super) struct Settling {
    thread: Option<JoinHandle<Result<bool, StoreError>>>,
    /// Whether it is known that nothing is left to be merged.
    done: bool,
    shared: Option<Arc<Shared>>,
}

impl Settling {
    /// Merging will be needed again.
    pub(super) fn needed(&mut self) {
        self.done = false;
    }
}

impl IndexSync {
    /// Begins to merge what a bulk load left, or notes that it is done. To be called near the
    /// tip.
    pub(super) fn settle(&mut self) -> Result<(), SyncError> {
        let store = &self.shared.store;
        match self.settling.thread.take() {
            Some(thread) if !thread.is_finished() => self.settling.thread = Some(thread),
            Some(thread) => match thread.join() {
                Ok(merged) => {
                    // `done` is false again if another bulk load began meanwhile.
                    if merged? && self.settling.done {
                        store.set_settled()?;
                    }
                }
                Err(panic) => std::panic::resume_unwind(panic),
            },
            None if self.settling.done => {}
            None => {
                self.settling.done = true;
                if store.is_unsettled()? {
                    self.settling.shared = Some(Arc::clone(&self.shared));
                    let shared = Arc::clone(&self.shared);
                    let thread = Builder::new().name("index-merge".to_owned());
                    let thread = thread.spawn(move || merge(&shared));
                    self.settling.thread = Some(thread.expect("the system can start a thread"));
                }
            }
        }
        Ok(())
    }
}

fn merge(shared: &Shared) -> Result<bool, StoreError> {
    let started = Instant::now();
    metrics::merging(true);
    tracing::info!("sorted runs of the bulk load are being merged");
    let merged = shared.store.merge_runs();
    metrics::merging(false);
    let elapsed_ms = metrics::millis(started.elapsed());
    match &merged {
        Ok(true) => tracing::info!(elapsed_ms, "sorted runs of the bulk load are merged"),
        Ok(false) => tracing::info!(elapsed_ms, "merging goes on at the next start"),
        Err(err) => tracing::warn!(%err, "sorted runs of the bulk load cannot be merged"),
    }
    // Has the chain followed once more, which notes the end.
    shared.stale.wake();
    merged
}

impl Drop for Settling {
    /// Merging takes long, and whoever drops this is about to close the index.
    fn drop(&mut self) {
        if let (Some(thread), Some(shared)) = (self.thread.take(), self.shared.take()) {
            if !thread.is_finished()
                && let Err(err) = shared.store.end_background_work()
            {
                tracing::warn!(%err, "rows in memory could not be written to files");
            }
            // What went wrong was told in the log.
            drop(thread.join());
        }
    }
}
