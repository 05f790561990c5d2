//! How the memory of the index (`index.memory_mib`) is divided.
//!
//! | part | bulk load | at the tip |
//! |-|-|-|
//! | rows not yet in table files (memtables, those being written out included) | 1/2 | at most 1/4 |
//! | block cache, with the indexes and filters of table files | 1/4 | 5/8 |
//! | a group of blocks: its rows until they are in the database | 1/8 | 1/8 |
//! | blocks that wait between loading and indexing | 1/8 | 1/8 |
//!
//! # Limits
//! Each part may go over its share by one block, as a block is taken whole or not at all:
//! some 30 MiB for the largest that consensus allows. Not in it: the numbers of recent
//! transactions (`index.recent_txs`), 4 bytes per block, the cache of txids
//! (`index.txids_cache_mib`), and what compactions read and write (some MiB each).

/// Shares in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Rows in memory: one half fills while the other is written out.
    pub rows: usize,
    /// Block cache during the bulk load.
    pub cache: usize,
    /// Block cache at the tip.
    pub cache_at_tip: usize,
    /// Rows of a group of blocks.
    pub group: usize,
    /// Blocks before the group.
    pub queue: usize,
    /// Size of the write-ahead log from which rows are written out.
    pub log: usize,
}

impl Budget {
    /// Divides this many MiB.
    pub(crate) fn of(memory_mib: u32) -> Self {
        let total = usize::try_from(u64::from(memory_mib) << 20).unwrap_or(usize::MAX);
        Self {
            rows: total / 2,
            cache: total / 4,
            cache_at_tip: total / 8 * 5,
            group: total / 8,
            queue: total / 8,
            // Rows take about three times as much in memory as in the log.
            log: total / 16,
        }
    }

    /// Rows in memory from which they are written out.
    pub(crate) fn full_rows(&self) -> usize {
        self.rows / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_no_more_than_the_whole() {
        for mib in [8, 64, 512, 16_384] {
            let budget = Budget::of(mib);
            let whole = (mib as usize) << 20;
            assert!(budget.rows + budget.cache + budget.group + budget.queue <= whole);
            let at_tip = 4 * budget.log + budget.cache_at_tip;
            assert!(at_tip + budget.queue <= whole);
        }
    }
}
