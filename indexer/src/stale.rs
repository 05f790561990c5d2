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
    heights: Mutex<Heights>,
    woken: Arc<Notify>,
}

#[derive(Default)]
struct Heights {
    /// Reported, and not yet looked up again.
    reported: BTreeSet<Height>,
    /// Looked up in vain. Only a new block of the node can change that.
    unfound: BTreeSet<Height>,
}

impl StalePositions {
    /// Notified when a height is reported that was not yet known.
    pub(crate) fn woken(&self) -> Arc<Notify> {
        Arc::clone(&self.woken)
    }

    /// Has the sync loop look at the chain again.
    pub(crate) fn wake(&self) {
        self.woken.notify_one();
    }

    /// A read found other bytes than recorded.
    pub(crate) fn report(&self, height: Height) {
        metrics::stale_position();
        let mut heights = self.heights.lock();
        if !heights.unfound.contains(&height) && heights.reported.insert(height) {
            tracing::warn!(height, "block position is stale");
            self.woken.notify_one();
        }
    }

    /// The block could not be found at present.
    pub(crate) fn unfound(&self, height: Height) {
        self.heights.lock().unfound.insert(height);
    }

    /// Heights reported since the last call.
    pub(crate) fn take_reported(&self) -> BTreeSet<Height> {
        std::mem::take(&mut self.heights.lock().reported)
    }

    /// Heights that could not be found up to now.
    pub(crate) fn take_unfound(&self) -> BTreeSet<Height> {
        std::mem::take(&mut self.heights.lock().unfound)
    }
}
