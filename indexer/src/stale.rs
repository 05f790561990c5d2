//! Heights whose recorded position no longer holds their block.
//!
//! Queries report them, the sync loop looks the blocks up again. See
//! [`BlockPosition`](pulse_primitives::block::BlockPosition) for how they come about. Where
//! the node has the block in its chain and its files do not hold it, they are damaged: the
//! operator is told once, and the block is looked for again with each new one.

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
    /// Those of them that the node should have.
    damaged: BTreeSet<Height>,
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

    /// The block could not be found, although the node has it in its chain.
    pub(crate) fn damaged(&self, height: Height) {
        let mut heights = self.heights.lock();
        heights.unfound.insert(height);
        heights.damaged.insert(height);
        metrics::damaged_blocks(heights.damaged.len());
    }

    /// Whether the block could not be found the last time, although it should have been.
    pub(crate) fn is_damaged(&self, height: Height) -> bool {
        self.heights.lock().damaged.contains(&height)
    }

    /// The block is where its position says, or is none of the chain any more.
    pub(crate) fn settled(&self, height: Height) {
        let mut heights = self.heights.lock();
        if heights.damaged.remove(&height) {
            metrics::damaged_blocks(heights.damaged.len());
        }
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
