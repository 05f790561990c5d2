//! How rows come to the disk: with a write-ahead log or without one.
//!
//! - **Logged**, near the tip and whenever the database was just opened: each batch goes to
//!   the log first. After a kill every batch is there; a power cut spares those that were
//!   synced.
//! - **Bulk**, far from the tip: no log. Rows collect in memory and are flushed to table
//!   files of all families at once, which are sorted runs that are merged ten at a time.
//!
//! # Correctness
//! Flushes are atomic over all families (`atomic_flush`) and fall between batches, and the
//! cursor is in each batch. So after a kill in the bulk load the database is what it was at
//! the last flush, the cursor included, and the blocks behind it are indexed again.
//!
//! Log and bulk never overlap: everything is flushed before the bulk load writes its first
//! row, so nothing is left in the log that belongs before it, and again before the first row
//! that goes to the log after it. A log that is replayed therefore never has a gap.
//!
//! Every write goes through [`Store::write`], which knows the way. `meta/unsettled` is
//! written with the first rows of a bulk load and goes when its runs have been merged into
//! one per family, which a kill only delays.

use std::sync::atomic::Ordering;

use rocksdb::{CompactOptions, FlushOptions, WriteBatch, WriteOptions, properties};

use super::{Family, Store, StoreError};
use crate::rows::meta;

/// Bytes that the database has written since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WrittenBytes {
    /// To the write-ahead log.
    pub logged: u64,
    /// To table files, from memory.
    pub flushed: u64,
    /// To table files, from other table files.
    pub compacted: u64,
}

impl Store {
    /// Writes a batch, whole or not at all. With `sync` it survives a power cut when this
    /// returns, except in the bulk load.
    pub(crate) fn write(&self, batch: WriteBatch, sync: bool) -> Result<(), StoreError> {
        let mut options = WriteOptions::default();
        if self.is_bulk() {
            options.disable_wal(true);
        } else {
            options.set_sync(sync);
        }
        self.point("before a write");
        let write = self.writes.begin();
        self.db.write_opt(batch, &options)?;
        drop(write);
        self.point("after a write");
        Ok(())
    }

    /// Whether rows are written without a log.
    pub(crate) fn is_bulk(&self) -> bool {
        self.bulk.load(Ordering::Acquire)
    }

    /// Begins a bulk load.
    pub(crate) fn enter_bulk(&self) -> Result<(), StoreError> {
        self.flush()?;
        self.set_cache(self.budget.cache);
        self.bulk.store(true, Ordering::Release);
        self.point("bulk load begins");
        let mut batch = WriteBatch::default();
        batch.put_cf(self.cf(Family::Meta), meta::UNSETTLED, []);
        // Rows of the bulk load do not state what a renewal of checkpoints needs.
        batch.delete_cf(self.cf(Family::Meta), meta::CHECKPOINTS);
        self.write(batch, false)
    }

    /// Ends a bulk load: what it wrote is on the disk when this returns, and whatever is
    /// written from now on is logged.
    pub(crate) fn leave_bulk(&self) -> Result<(), StoreError> {
        self.flush()?;
        self.bulk.store(false, Ordering::Release);
        self.set_cache(self.budget.cache_at_tip);
        self.point("bulk load ended");
        Ok(())
    }

    /// In the bulk load, begins to write rows out if there are many. Waits while those of the
    /// last time are still being written out, so that there are never more than two lots.
    pub(crate) fn flush_if_full(&self) -> Result<(), StoreError> {
        if !self.is_bulk() {
            return Ok(());
        }
        let mut bytes = 0;
        for family in Family::ALL {
            let name = properties::CUR_SIZE_ACTIVE_MEM_TABLE;
            let value = self.db.property_int_value_cf(self.cf(family), name)?;
            bytes += value.unwrap_or_default();
        }
        if bytes >= self.budget.full_rows() as u64 {
            self.flush_families(false)?;
        }
        Ok(())
    }

    /// Writes everything in memory to files and waits until it is on the disk.
    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        if self.is_ending() {
            // Done when that began; nothing was written since.
            return Ok(());
        }
        self.point("before a flush");
        self.flush_families(true)?;
        self.point("after a flush");
        Ok(())
    }

    fn flush_families(&self, wait: bool) -> Result<(), StoreError> {
        let mut options = FlushOptions::default();
        options.set_wait(wait);
        Ok(self.db.flush_cfs_opt(&self.families().0, &options)?)
    }

    fn set_cache(&self, bytes: usize) {
        self.cache.clone().set_capacity(bytes);
    }

    /// Whether a bulk load left several sorted runs that are still to be merged.
    pub(crate) fn is_unsettled(&self) -> Result<bool, StoreError> {
        let row = self
            .db
            .get_pinned_cf(self.cf(Family::Meta), meta::UNSETTLED)?;
        Ok(row.is_some())
    }

    /// Records that the runs of the bulk load have been merged.
    pub(crate) fn set_settled(&self) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        batch.delete_cf(self.cf(Family::Meta), meta::UNSETTLED);
        self.write(batch, false)
    }

    /// Merges the sorted runs of each family into one in the last level, where rows take the
    /// least room, which takes long. Reads and writes go
    /// on meanwhile. `false` if it was ended by [`Store::end_background_work`].
    pub(crate) fn merge_runs(&self) -> Result<bool, StoreError> {
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        for family in Family::ALL.into_iter().filter(|family| family.is_tiered()) {
            if self.is_ending() {
                return Ok(false);
            }
            if !self.is_merged(family)? {
                let all = None::<&[u8]>;
                self.db
                    .compact_range_cf_opt(self.cf(family), all, all, &options);
            }
        }
        Ok(!self.is_ending())
    }

    /// Whether all rows of a family in table files lie in the last level.
    fn is_merged(&self, family: Family) -> Result<bool, StoreError> {
        for level in 0..LEVELS - 1 {
            let name = properties::num_files_at_level(level);
            let files = self.db.property_int_value_cf(self.cf(family), &name)?;
            if files.unwrap_or_default() > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Number of sorted runs of a family in table files.
    #[cfg(test)]
    pub(crate) fn runs(&self, family: Family) -> Result<u64, StoreError> {
        let files = |level| {
            let name = properties::num_files_at_level(level);
            self.db.property_int_value_cf(self.cf(family), &name)
        };
        let mut runs = files(0)?.unwrap_or_default();
        for level in 1..LEVELS {
            runs += u64::from(files(level)?.unwrap_or_default() > 0);
        }
        Ok(runs)
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Writes everything in memory to files and ends merging early. Nothing may be written
    /// afterwards.
    pub(crate) fn end_background_work(&self) -> Result<(), StoreError> {
        let flushed = self.flush();
        self.ending.store(true, Ordering::Release);
        self.db.cancel_all_background_work(true);
        flushed
    }

    /// Bytes written since the database was opened.
    pub(crate) fn written(&self) -> WrittenBytes {
        use rocksdb::statistics::Ticker;
        let count = |ticker| self.options.get_ticker_count(ticker);
        WrittenBytes {
            logged: count(Ticker::WalFileBytes),
            flushed: count(Ticker::FlushWriteBytes),
            compacted: count(Ticker::CompactWriteBytes),
        }
    }

    /// A moment at which a kill would leave something else on the disk than before. Tests
    /// look at the disk here.
    #[cfg_attr(not(test), allow(clippy::unused_self))]
    pub(crate) fn point(&self, _what: &'static str) {
        #[cfg(test)]
        if let Some(hook) = &mut *self.hook.lock() {
            // The table files of a moment must not go while it is looked at.
            self.db.disable_file_deletions().unwrap();
            hook(_what);
            self.db.enable_file_deletions().unwrap();
        }
    }
}

/// Levels of each family, RocksDB's default.
pub(super) const LEVELS: usize = 7;

/// Called at each [`Store::point`].
#[cfg(test)]
pub(crate) type Hook = Box<dyn FnMut(&'static str) + Send>;
