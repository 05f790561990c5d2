//! Compact block filters, while blocks are indexed and for blocks that were indexed
//! before.
//!
//! # Correctness
//! Filters exist for all blocks below one height and for none above, whether they are
//! kept or not: a block that is taken back takes its filter along. New blocks get theirs
//! in their own batch as soon as none is missing below; until then, missing ones are made
//! up for from genesis on, a moment at a time, whenever the index has nothing else to do.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use pulse_primitives::{
    Height,
    bitcoin::{bip158::FilterHeader, hashes::Hash},
};

use super::{IndexSync, SyncError, chain::Chain};
use crate::{
    metrics,
    rows::filter::{FilterEntry, build},
    store::{StoreError, reader::Reader},
};

/// How long missing filters are made up for before the chain is looked at again.
const SLICE: Duration = Duration::from_millis(500);

/// How often that is told.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(30);

/// The newest block that has a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FilterTip {
    /// Height behind it.
    pub next: Height,
    /// Its filter header; zeros if there is none.
    pub header: FilterHeader,
}

impl FilterTip {
    /// Reads it from the store.
    pub(super) fn load(reader: &Reader<'_>) -> Result<Self, StoreError> {
        let next = reader.filters_next()?;
        let header = match next.checked_sub(1) {
            None => FilterHeader::all_zeros(),
            Some(height) => {
                let entry = reader.filter_entry(height)?;
                let missing = StoreError::Damaged {
                    family: "filter",
                    what: "the newest filter is missing",
                };
                entry.ok_or(missing)?.header
            }
        };
        Ok(Self { next, header })
    }

    /// Adds the next filter.
    pub(super) fn push(&mut self, entry: &FilterEntry) {
        self.next += 1;
        self.header = entry.header;
        metrics::filters(self.next);
    }
}

impl IndexSync {
    /// Makes up for missing filters, for a moment. Wakes whoever drives the index if
    /// more are missing.
    pub(super) fn make_up_filters(
        &mut self,
        chain: &mut Chain,
        stop: &AtomicBool,
    ) -> Result<(), SyncError> {
        if !self.shared.config.block_filters {
            return Ok(());
        }
        let store = &self.shared.store;
        let started = Instant::now();
        let tip = *self.source.tip().borrow();
        let first = chain.filters.next;
        while chain.filters.next < chain.next_height() {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            if started.elapsed() >= SLICE || *self.source.tip().borrow() != tip {
                self.shared.stale.wake();
                break;
            }
            let height = chain.filters.next;
            let row = store.reader().block(height)?;
            let hash = row.map(|row| row.hash()).ok_or(StoreError::Damaged {
                family: "blk",
                what: "missing",
            })?;
            let block = match self.source.load(&hash, height) {
                Ok(block) => block,
                // The node may still have to come forward to it. No filter is no harm.
                Err(err) => {
                    tracing::debug!(height, %hash, %err, "block for its filter is not available");
                    break;
                }
            };
            let filter = build(&block.block, &block.spent);
            let entry = FilterEntry::new(hash, &filter, &chain.filters.header);
            store.put_filter(height, &entry, &filter)?;
            chain.filters.push(&entry);
        }
        if chain.filters.next > first {
            self.tell_filter_progress(chain);
        }
        Ok(())
    }

    fn tell_filter_progress(&mut self, chain: &Chain) {
        let (next, count) = (chain.filters.next, chain.next_height());
        if next == count {
            tracing::info!(count, "every block has its filter");
        } else if self.last_filter_progress.elapsed() >= PROGRESS_INTERVAL {
            self.last_filter_progress = Instant::now();
            tracing::info!(height = next - 1, count, "block filters are being built");
        }
    }
}
