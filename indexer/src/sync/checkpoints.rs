//! Checkpoints of busy scripts, when the index has come to the tip.
//!
//! Made by one scan of all histories, a moment at a time, whenever the index has nothing else
//! to do. Answers are exact without them; with them those of busy scripts are fast.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use super::{IndexSync, SyncError};
use crate::rows::meta::Checkpoints;

/// How long checkpoints are made before the chain is looked at again.
const SLICE: Duration = Duration::from_millis(500);

impl IndexSync {
    /// Makes missing checkpoints, for a moment. Wakes whoever drives the index if more are
    /// missing. A new block of the node ends the moment.
    pub(super) fn make_checkpoints(&self, stop: &AtomicBool) -> Result<(), SyncError> {
        let store = &self.shared.store;
        if store.reader().checkpoints()? == Checkpoints::All {
            return Ok(());
        }
        let (started, tip) = (Instant::now(), *self.source.tip().borrow());
        let pause = || {
            stop.load(Ordering::Relaxed)
                || started.elapsed() >= SLICE
                || *self.source.tip().borrow() != tip
        };
        loop {
            if store.make_checkpoints(pause)? == Checkpoints::All {
                tracing::info!("busy scripts have their checkpoints");
                return Ok(());
            }
            if pause() {
                self.shared.stale.wake();
                return Ok(());
            }
        }
    }
}
