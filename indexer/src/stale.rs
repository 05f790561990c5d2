//! Heights whose recorded position no longer holds their block.
//!
//! Queries report them, the sync loop looks the blocks up again. See
//! [`BlockPosition`](pulse_primitives::block::BlockPosition) for how they come about.

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::Mutex;
use pulse_primitives::Height;
use tokio::sync::Notify;

use crate::metrics;

#[derive(Default)]
pub(crate) struct StalePositions {
    heights: Mutex<BTreeSet<Height>>,
    woken: Arc<Notify>,
}

impl StalePositions {
    /// Notified when a height is reported that was not yet known.
    pub(crate) fn woken(&self) -> Arc<Notify> {
        Arc::clone(&self.woken)
    }

    /// A read found other bytes than recorded.
    pub(crate) fn report(&self, height: Height) {
        metrics::stale_position();
        if self.heights.lock().insert(height) {
            tracing::warn!(height, "block position is stale");
            self.woken.notify_one();
        }
    }

    /// The block could not be found at present. Kept for the next round, without
    /// waking anybody: only a new block can change that.
    pub(crate) fn keep(&self, height: Height) {
        self.heights.lock().insert(height);
    }

    /// The position was recorded anew.
    pub(crate) fn healed(&self, height: Height) {
        self.heights.lock().remove(&height);
    }

    /// All heights known to be stale.
    pub(crate) fn heights(&self) -> Vec<Height> {
        self.heights.lock().iter().copied().collect()
    }
}
