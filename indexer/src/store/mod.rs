//! The RocksDB database: the only place that knows of it.
//!
//! - [`open`]: options, format version, binding to a network
//! - [`reader`]: one snapshot, typed rows
//! - [`writer`]: one batch per group of blocks, the cursor in it
//! - [`durability`]: with a log or without, flushes, merging of what a bulk load wrote
//! - [`totals`]: totals of scripts and their checkpoints
//! - [`audit`]: digest, counts and sizes of all rows
//! - [`checkpoint`]: a second database that is as this one was at one moment
//! - [`faults`]: what the operator is told of errors

pub(crate) mod audit;
pub(crate) mod checkpoint;
pub(crate) mod durability;
pub(crate) mod faults;
pub(crate) mod open;
pub(crate) mod reader;
pub(crate) mod totals;
pub(crate) mod writer;

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use parking_lot::{Mutex, RwLock};
use rocksdb::{Cache, ColumnFamily, DB, Options, WriteBatch, statistics::Ticker};

use crate::{
    budget::Budget,
    keys::{Keys, Salt, ScriptKey},
    rows::{codec::BadRow, meta},
};

/// Why the index could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// RocksDB refused: the disk is full or broken, or a file is damaged.
    #[error(
        "index database (if one of its files is damaged, stop the node and run `pulse-node reindex`)"
    )]
    Rocks(#[source] rocksdb::Error),
    /// The operating system refused to tidy up a copy of the index.
    #[error("copy of the index")]
    Checkpoint {
        /// What it said.
        source: std::io::Error,
    },
    /// A row does not decode, or contradicts another.
    #[error(
        "row of column family {family} is damaged: {what}. Hint: stop the node and run `pulse-node reindex`, which builds the index anew from the blocks on disk"
    )]
    Damaged {
        /// Column family of the row.
        family: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl From<rocksdb::Error> for StoreError {
    fn from(err: rocksdb::Error) -> Self {
        // Here, so that none is missed.
        faults::refused(&err);
        Self::Rocks(err)
    }
}

/// A column family. docs/schema.md says what each holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    Tx,
    TxPos,
    Hist,
    Agg,
    Utxo,
    Spend,
    Blk,
    Pos,
    Undo,
    Meta,
    Filter,
    FilterHdr,
}

impl Family {
    pub(crate) const ALL: [Self; 12] = [
        Self::Tx,
        Self::TxPos,
        Self::Hist,
        Self::Agg,
        Self::Utxo,
        Self::Spend,
        Self::Blk,
        Self::Pos,
        Self::Undo,
        Self::Meta,
        Self::Filter,
        Self::FilterHdr,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tx => "tx",
            Self::TxPos => "txpos",
            Self::Hist => "hist",
            Self::Agg => "agg",
            Self::Utxo => "utxo",
            Self::Spend => "spend",
            Self::Blk => "blk",
            Self::Pos => "pos",
            Self::Undo => "undo",
            Self::Meta => "meta",
            Self::Filter => "filter",
            Self::FilterHdr => "filterhdr",
        }
    }

    /// Whether the keys of this family come in no order, so that it is written in sorted
    /// runs, which are merged several at a time. The others grow at their end.
    pub(crate) fn is_tiered(self) -> bool {
        matches!(
            self,
            Self::Tx | Self::Hist | Self::Agg | Self::Utxo | Self::Spend
        )
    }

    /// The error for a row of this family that does not decode.
    pub(crate) fn damaged(self, row: BadRow) -> StoreError {
        faults::row(self, row.0)
    }
}

/// Counts writes, so that snapshots between the same two of them are known to be the same.
#[derive(Default)]
struct Writes {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Writes {
    /// To be kept until the write has ended, whether it succeeds or not.
    fn begin(&self) -> impl Drop + '_ {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Ended(&self.ended)
    }
}

struct Ended<'a>(&'a AtomicU64);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// The open database of one network.
pub(crate) struct Store {
    db: DB,
    /// Kept for its statistics.
    options: Options,
    cache: Cache,
    /// How its memory is divided.
    pub(crate) budget: Budget,
    /// Whether rows are written without a log.
    bulk: AtomicBool,
    /// Whether background work is being ended.
    ending: AtomicBool,
    #[cfg(test)]
    pub(crate) hook: Mutex<Option<durability::Hook>>,
    salt: Salt,
    /// Keyed hashes under the database's salt.
    pub(crate) keys: Keys,
    /// Which scripts get checkpoints, and when.
    pub(crate) hot: totals::Hot,
    /// Script keys that several scripts share, as far as it was noticed.
    collisions: RwLock<BTreeSet<ScriptKey>>,
    /// Held by whoever follows the chain, so that two never do.
    pub(crate) writing: Mutex<()>,
    /// Length in bytes of the last group's batch, until the next one has taken it.
    batch_bytes: AtomicUsize,
    writes: Writes,
}

impl Store {
    fn cf(&self, family: Family) -> &ColumnFamily {
        self.db
            .cf_handle(family.name())
            .expect("every family was opened")
    }

    /// Handles of all families, looked up once per snapshot or batch.
    fn families(&self) -> Families<'_> {
        Families(Family::ALL.map(|family| self.cf(family)))
    }

    /// Whether it was noticed that several scripts share this key.
    pub(crate) fn collides(&self, script: ScriptKey) -> bool {
        self.collisions.read().contains(&script)
    }

    /// Notes that several scripts share a key, for this run and later ones.
    pub(crate) fn note_collision(&self, script: ScriptKey) -> Result<(), StoreError> {
        if self.collisions.write().insert(script) {
            tracing::warn!("two scripts share a key; their totals are counted from now on");
            let mut batch = WriteBatch::default();
            batch.put_cf(self.cf(Family::Meta), meta::collision(script), []);
            self.write(batch, false)?;
        }
        Ok(())
    }

    /// Reads the collisions that were noted.
    fn load_collisions(&self) -> Result<(), StoreError> {
        let mut iter = self.db.raw_iterator_cf(self.cf(Family::Meta));
        iter.seek(meta::COLLISION);
        while let Some(key) = iter.key() {
            let Some(script) = key.strip_prefix(meta::COLLISION) else {
                break;
            };
            let script = script
                .try_into()
                .map_err(|_| Family::Meta.damaged(BadRow("collision")))?;
            self.collisions
                .write()
                .insert(ScriptKey::from_be_bytes(script));
            iter.next();
        }
        Ok(iter.status()?)
    }

    /// Blocks of table files that were read from the files and from the cache, since the
    /// start.
    pub(crate) fn blocks_read(&self) -> (u64, u64) {
        let count = |ticker| self.options.get_ticker_count(ticker);
        (count(Ticker::BlockCacheMiss), count(Ticker::BlockCacheHit))
    }

    /// Puts a row that the index would not write itself.
    #[cfg(test)]
    pub(crate) fn put_raw(&self, family: Family, key: &[u8], value: &[u8]) {
        let _write = self.writes.begin();
        self.db.put_cf(self.cf(family), key, value).unwrap();
    }

    /// A write that changes nothing, after which nothing is remembered.
    #[cfg(test)]
    pub(crate) fn forget(&self) {
        drop(self.writes.begin());
    }

    /// Deletes a row that the index would keep.
    #[cfg(test)]
    pub(crate) fn delete_raw(&self, family: Family, key: &[u8]) {
        let _write = self.writes.begin();
        self.db.delete_cf(self.cf(family), key).unwrap();
    }

    /// All rows of a family.
    #[cfg(test)]
    pub(crate) fn rows_raw(&self, family: Family) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        reader::for_each_row(&self.db, self.cf(family), |key, value| {
            rows.push((key.to_vec(), value.to_vec()));
        })
        .unwrap();
        rows
    }

    /// Waits until all compactions that are due are done.
    #[cfg(test)]
    pub(crate) fn settle(&self) {
        let options = rocksdb::WaitForCompactOptions::default();
        self.db.wait_for_compact(&options).unwrap();
    }
}

/// Handles of all families.
#[derive(Clone, Copy)]
struct Families<'a>([&'a ColumnFamily; 12]);

impl<'a> std::ops::Index<Family> for Families<'a> {
    type Output = &'a ColumnFamily;

    fn index(&self, family: Family) -> &Self::Output {
        &self.0[family as usize]
    }
}
