//! Blocks, transactions and address events as Parquet files, for analytics.
//!
//! ```text
//! BlockSource -> block with what it spent -> rows -> three tables -> files of a range of heights
//! ```
//!
//! A range has a fixed number of blocks and one file in each of the folders `blocks`,
//! `transactions` and `address_events`. docs/archive.md has the columns and examples.
//!
//! # Correctness
//! Only whole ranges are written whose last block is buried under [`FINAL_DEPTH`] blocks, so
//! that files need not change. A file says in its footer which block it ends with; one that
//! ends with another is written anew. Blocks and what they spent are those that the source has
//! checked.
//!
//! # Limits
//! One block and one row group of each table are in memory.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests may"))]

mod rows;
pub mod schema;
mod table;
#[cfg(test)]
mod tests;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, Network},
    ports::{BlockSource, BlockSourceError},
};
use tracing::info;

use rows::Tables;
use table::{Table, TableError};

/// Blocks that must stand above the last one of a range.
pub const FINAL_DEPTH: Height = 100;

/// What to write.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// Folder of the archive; made if it is not there.
    pub dir: &'a Path,
    /// Network of the chain, for addresses.
    pub network: Network,
    /// First height; rounded up to the beginning of a range.
    pub from: Height,
    /// Last height; rounded down to the end of a range. `None`: as far as blocks are final.
    pub to: Option<Height>,
    /// Blocks of a range.
    pub blocks_per_file: Height,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Ranges that were written.
    pub written: u32,
    /// Ranges that were there already.
    pub kept: u32,
    /// Height behind the last range that is there now.
    pub next: Height,
    /// Rows written, of all tables.
    pub rows: u64,
    /// Bytes of the files written.
    pub bytes: u64,
}

/// Why an archive could not be written. What is there already is whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// No blocks make no range.
    #[error("a file must have at least one block")]
    NoBlocks,
    /// A block cannot be read.
    #[error("block {hash} at height {height} cannot be read")]
    Block {
        /// Its height.
        height: Height,
        /// Its hash.
        hash: BlockHash,
        /// Why not.
        source: BlockSourceError,
    },
    /// A reorganisation deeper than [`FINAL_DEPTH`] came between.
    #[error("the chain changed at height {height} meanwhile. Hint: run it again")]
    ChainMoved {
        /// Where it changed.
        height: Height,
    },
    /// A file cannot be written.
    #[error("{}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: TableError,
    },
    /// A folder cannot be made.
    #[error("{}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

pub use table::TableError as FileError;

/// Folders of the archive, one for each table.
pub const FOLDERS: [&str; 3] = ["blocks", "transactions", "address_events"];

/// Writes all ranges of `options` that are not there yet. `None` if it was stopped.
/// `progress` is told the height of each block, and the last one. Blocks the thread.
///
/// # Errors
/// [`ArchiveError`].
pub fn write(
    source: &dyn BlockSource,
    options: &Options<'_>,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(Height, Height),
) -> Result<Option<Summary>, ArchiveError> {
    let count = options.blocks_per_file;
    if count == 0 {
        return Err(ArchiveError::NoBlocks);
    }
    for folder in FOLDERS {
        let path = options.dir.join(folder);
        fs::create_dir_all(&path).map_err(|source| ArchiveError::Folder { path, source })?;
    }
    let tip = source.tip().borrow().height;
    // Number of blocks that may be in a range.
    let available = (tip + 1).saturating_sub(FINAL_DEPTH);
    let end = match options.to {
        Some(to) => available.min(to.saturating_add(1)),
        None => available,
    };
    let end = end - end % count;
    let mut summary = Summary::default();
    let mut first = options.from.div_ceil(count).saturating_mul(count);
    while first < end {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let range = Range::new(source, options, first)?;
        if range.is_complete() {
            summary.kept += 1;
        } else {
            let mut progress = |height| progress(height, end - 1);
            let Some((rows, bytes)) = range.write(source, options.network, stop, &mut progress)?
            else {
                return Ok(None);
            };
            summary.written += 1;
            summary.rows += rows;
            summary.bytes += bytes;
            info!(height = range.last, rows, bytes, "archived");
        }
        first += count;
        summary.next = first;
    }
    Ok(Some(summary))
}

/// Blocks that go into one file of each table.
struct Range {
    first: Height,
    last: Height,
    last_hash: BlockHash,
    files: [PathBuf; 3],
    facts: Vec<(&'static str, String)>,
}

impl Range {
    fn new(
        source: &dyn BlockSource,
        options: &Options<'_>,
        first: Height,
    ) -> Result<Self, ArchiveError> {
        let last = first + options.blocks_per_file - 1;
        let moved = ArchiveError::ChainMoved { height: last };
        let last_hash = source.hash_at(last).ok_or(moved)?;
        let name = format!("{first:08}-{last:08}.parquet");
        let facts = vec![
            ("pulse.format", schema::FORMAT.to_owned()),
            ("pulse.network", options.network.to_string()),
            ("pulse.first_height", first.to_string()),
            ("pulse.last_height", last.to_string()),
            ("pulse.last_hash", last_hash.to_string()),
        ];
        Ok(Self {
            first,
            last,
            last_hash,
            files: FOLDERS.map(|folder| options.dir.join(folder).join(&name)),
            facts,
        })
    }

    fn is_complete(&self) -> bool {
        let mut files = self.files.iter();
        files.all(|file| table::is_complete(file, &self.facts))
    }

    /// Rows and bytes of all files; `None` if it was stopped.
    fn write(
        &self,
        source: &dyn BlockSource,
        network: Network,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(Height),
    ) -> Result<Option<(u64, u64)>, ArchiveError> {
        let [blocks, transactions, address_events] = &self.files;
        let failed = |path: &PathBuf| {
            let path = path.clone();
            move |source| ArchiveError::Table { path, source }
        };
        let begin =
            |path: &PathBuf, schema| Table::begin(path, schema, &self.facts).map_err(failed(path));
        let mut tables = Tables {
            blocks: begin(blocks, schema::BLOCKS)?,
            transactions: begin(transactions, schema::TRANSACTIONS)?,
            address_events: begin(address_events, schema::ADDRESS_EVENTS)?,
        };
        let mut previous = None;
        for height in self.first..=self.last {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let moved = ArchiveError::ChainMoved { height };
            let Some(hash) = source.hash_at(height) else {
                return Err(moved);
            };
            let block = source.load(&hash, height);
            let block = block.map_err(|source| ArchiveError::Block {
                height,
                hash,
                source,
            })?;
            if previous.is_some_and(|previous| previous != block.block.header.prev_blockhash) {
                return Err(moved);
            }
            previous = Some(hash);
            tables
                .add(&block, network)
                .map_err(failed(address_events))?;
            progress(height);
        }
        if previous != Some(self.last_hash) {
            return Err(ArchiveError::ChainMoved { height: self.last });
        }
        let mut sum = (0, 0);
        for (table, path) in [
            (tables.address_events, address_events),
            (tables.transactions, transactions),
            (tables.blocks, blocks),
        ] {
            let (rows, bytes) = table.finish().map_err(failed(path))?;
            sum = (sum.0 + rows, sum.1 + bytes);
        }
        Ok(Some(sum))
    }
}
