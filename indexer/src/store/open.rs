//! Opens the database: options, format version, binding to a network.
//!
//! A database of another format or network is refused, never changed or deleted.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize},
};

use parking_lot::{Mutex, RwLock};
use pulse_primitives::{bitcoin::hashes::Hash, network::ChainParams};
use rand::{RngCore, rngs::OsRng};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompactionStyle, DBCompressionType,
    Options, SliceTransform, UniversalCompactOptions, WriteBatch, WriteBufferManager, WriteOptions,
    statistics::StatsLevel,
};

use super::{Family, Store, StoreError, Writes, totals::Hot};
use crate::{
    budget::Budget,
    config::IndexConfig,
    keys::{Keys, Salt},
    rows::{meta, script, tx},
};

/// Version of the row formats. docs/schema.md has its history.
pub(crate) const FORMAT_VERSION: u32 = 2;

/// Why the index could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another version of the program wrote it.
    #[error(
        "the index has format version {found}, this program reads {expected}. Hint: use `pulse-node reindex` to build it anew from the blocks on disk, or the program that wrote it"
    )]
    FormatVersion {
        /// Version of the index.
        found: u32,
        /// Version of this program.
        expected: u32,
    },
    /// It belongs to another network (or another custom signet).
    #[error(
        "the index belongs to another network than {network}. Hint: each network needs a data directory of its own"
    )]
    OtherNetwork {
        /// The network that was asked for.
        network: &'static str,
    },
    /// The directory holds a RocksDB database that is not an index.
    #[error("the index directory holds something else: {what}")]
    NotAnIndex {
        /// What gives it away.
        what: String,
    },
    /// The configured salt is not 32 hex digits.
    #[error("index.salt must be 32 hex digits")]
    Salt,
    /// The database cannot be read or written, or is open in another process.
    #[error("index store")]
    Store(#[from] StoreError),
}

impl From<rocksdb::Error> for OpenError {
    fn from(err: rocksdb::Error) -> Self {
        Self::Store(err.into())
    }
}

impl Store {
    /// Opens the database in the directory `path`, or makes a new one there.
    pub(crate) fn open(
        path: &Path,
        config: &IndexConfig,
        params: &ChainParams,
    ) -> Result<Self, OpenError> {
        let budget = Budget::of(config.memory_mib);
        let options = database_options(config, &budget);
        if path.join("CURRENT").exists() {
            refuse_strangers(&options, path)?;
        }
        let cache = Cache::new_lru_cache(budget.cache_at_tip);
        let descriptors = Family::ALL.map(|family| {
            ColumnFamilyDescriptor::new(family.name(), family_options(family, &cache, &budget))
        });
        let db = DB::open_cf_descriptors(&options, path, descriptors)?;
        let mut store = Self {
            db,
            options,
            cache,
            budget,
            bulk: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            #[cfg(test)]
            hook: Mutex::new(None),
            salt: Salt::default(),
            keys: Keys::new(&Salt::default()),
            hot: Hot::default(),
            collisions: RwLock::default(),
            writing: Mutex::new(()),
            batch_bytes: AtomicUsize::new(0),
            writes: Writes::default(),
        };
        store.salt = store.bind(config, params)?;
        store.keys = Keys::new(&store.salt);
        store.load_collisions()?;
        Ok(store)
    }

    /// Checks what the database is, or says it of a new one. Returns its salt.
    fn bind(&self, config: &IndexConfig, params: &ChainParams) -> Result<Salt, OpenError> {
        let meta_cf = self.cf(Family::Meta);
        let configured = config.salt.as_deref().map(parse_salt).transpose()?;
        let mut chain = params.magic.to_vec();
        chain.extend_from_slice(params.genesis_hash().as_byte_array());

        let Some(version) = self.db.get_cf(meta_cf, meta::VERSION)? else {
            self.refuse_rows_without_version()?;
            let salt = configured.unwrap_or_else(|| {
                let mut salt = Salt::default();
                OsRng.fill_bytes(&mut salt);
                salt
            });
            let mut batch = WriteBatch::default();
            batch.put_cf(meta_cf, meta::VERSION, FORMAT_VERSION.to_be_bytes());
            batch.put_cf(meta_cf, meta::CHAIN, &chain);
            batch.put_cf(meta_cf, meta::SALT, salt);
            let mut sync = WriteOptions::default();
            sync.set_sync(true);
            self.db.write_opt(batch, &sync)?;
            return Ok(salt);
        };

        let damaged = |what| StoreError::Damaged {
            family: Family::Meta.name(),
            what,
        };
        let found = <[u8; 4]>::try_from(version.as_slice()).map_err(|_| damaged("version"))?;
        let found = u32::from_be_bytes(found);
        if found != FORMAT_VERSION {
            return Err(OpenError::FormatVersion {
                found,
                expected: FORMAT_VERSION,
            });
        }
        if self.db.get_cf(meta_cf, meta::CHAIN)?.as_ref() != Some(&chain) {
            return Err(OpenError::OtherNetwork {
                network: params.name(),
            });
        }
        let salt = self.db.get_cf(meta_cf, meta::SALT)?;
        let salt = salt.and_then(|salt| Salt::try_from(salt).ok());
        Ok(salt.ok_or_else(|| damaged("salt"))?)
    }

    fn refuse_rows_without_version(&self) -> Result<(), OpenError> {
        for family in Family::ALL {
            let mut iter = self.db.raw_iterator_cf(self.cf(family));
            iter.seek_to_first();
            iter.status()?;
            if iter.valid() {
                return Err(OpenError::NotAnIndex {
                    what: format!("rows in {} but no format version", family.name()),
                });
            }
        }
        Ok(())
    }
}

/// Refuses a database with column families that are not ours, before opening it
/// could add ours to it.
fn refuse_strangers(options: &Options, path: &Path) -> Result<(), OpenError> {
    let ours = Family::ALL
        .map(Family::name)
        .into_iter()
        .collect::<BTreeSet<_>>();
    let found = DB::list_cf(options, path)?;
    match found
        .iter()
        .find(|name| *name != "default" && !ours.contains(name.as_str()))
    {
        Some(name) => Err(OpenError::NotAnIndex {
            what: format!("column family {name}"),
        }),
        None => Ok(()),
    }
}

fn parse_salt(hex: &str) -> Result<Salt, OpenError> {
    let mut salt = Salt::default();
    hex::decode_to_slice(hex, &mut salt).map_err(|_| OpenError::Salt)?;
    Ok(salt)
}

/// Sorted runs of a family from which the newest ones of like size are merged.
const MOST_RUNS: i32 = 10;

/// Sorted runs at which writing is slowed down, and at which it waits, for merging that does
/// not keep up.
const RUNS_SLOW: i32 = 40;
const RUNS_STOP: i32 = 60;

/// Percentage of the oldest run that all newer ones together may have before everything is
/// merged into one. A chain that grows is rewritten each time that it has grown fourfold:
/// a third more is written in all.
const NEWER_PERCENT: i32 = 300;

/// Levels of Zstandard for runs that are merged again, and for the last one. Against LZ4 the
/// former saves a sixth of all that is written, for a tenth of a microsecond per transaction
/// (docs/decisions/0008).
const ZSTD_FAST: i32 = 1;
const ZSTD_GOOD: i32 = 3;

/// Bits of the compressor's window; RocksDB's default, of use to zlib only.
const ZSTD_WINDOW: i32 = -14;

/// Memory is taken in blocks of this size for the rows of each family.
const ARENA_BLOCK: usize = 256 << 10;

fn database_options(config: &IndexConfig, budget: &Budget) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    options.set_max_open_files(i32::try_from(config.max_open_files).unwrap_or(i32::MAX));
    options.set_max_background_jobs(i32::try_from(config.background_jobs).unwrap_or(i32::MAX));
    // See store/durability.rs: whatever causes a flush, all families take part.
    options.set_atomic_flush(true);
    options.enable_statistics();
    options.set_statistics_level(StatsLevel::ExceptHistogramOrTimers);
    // Rows are written out before this: in the bulk load by hand, at the tip by the size
    // of the log.
    options.set_write_buffer_manager(&WriteBufferManager::new_write_buffer_manager(
        budget.rows,
        false,
    ));
    options.set_max_total_wal_size(budget.log as u64);
    options.set_max_subcompactions(config.background_jobs);
    options.set_bytes_per_sync(1 << 20);
    options.set_wal_bytes_per_sync(1 << 20);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(4 << 20);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

fn family_options(family: Family, cache: &Cache, budget: &Budget) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_block_size(8 << 10);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_optimize_filters_for_memory(true);

    let mut options = Options::default();
    // The defaults would rewrite the whole database every 30 days for nothing.
    options.set_ttl(0);
    options.set_periodic_compaction_seconds(0);
    if family.is_tiered() {
        // Each row is written when it is flushed, when ten runs become one, and when all
        // become one; by levels it would be some ten times on a large chain.
        let mut tiers = UniversalCompactOptions::default();
        tiers.set_min_merge_width(2);
        tiers.set_max_size_amplification_percent(NEWER_PERCENT);
        options.set_compaction_style(DBCompactionStyle::Universal);
        options.set_universal_compaction_options(&tiers);
        options.set_level_zero_file_num_compaction_trigger(MOST_RUNS);
        // What is merged again soon is compressed fast, the last run well.
        options.set_compression_type(DBCompressionType::Zstd);
        options.set_compression_options(ZSTD_WINDOW, ZSTD_FAST, 0, 0);
        options.set_bottommost_compression_type(DBCompressionType::Zstd);
        options.set_bottommost_compression_options(ZSTD_WINDOW, ZSTD_GOOD, 0, 0, true);
    } else {
        // Keys that grow: files are moved from level to level, not rewritten.
        options.set_level_compaction_dynamic_level_bytes(true);
        options.set_compression_type(DBCompressionType::Zstd);
    }
    options.set_level_zero_slowdown_writes_trigger(RUNS_SLOW);
    options.set_level_zero_stop_writes_trigger(RUNS_STOP);
    options.set_soft_pending_compaction_bytes_limit(0);
    options.set_hard_pending_compaction_bytes_limit(0);
    // No family is flushed for itself; one lot fills while another is written out.
    options.set_write_buffer_size(budget.rows);
    options.set_arena_block_size(ARENA_BLOCK.min(budget.rows / 64));
    options.set_max_write_buffer_number(2);

    match family {
        Family::Tx => prefix_filter(&mut options, &mut table, tx::PREFIX_LEN),
        Family::Hist | Family::Utxo => prefix_filter(&mut options, &mut table, script::PREFIX_LEN),
        Family::Agg => {
            key_filter(&mut options, &mut table);
            // Nearly all scripts have none, and their filters, in the last level too, save
            // each a read. Only busy scripts have one, so they are small.
            options.set_optimize_filters_for_hits(false);
        }
        Family::Spend => key_filter(&mut options, &mut table),
        // Read by neighbouring keys that exist, so a filter would never say no.
        Family::TxPos
        | Family::Blk
        | Family::Pos
        | Family::Undo
        | Family::Meta
        | Family::Filter
        | Family::FilterHdr => {}
    }
    // Measured in docs/decisions/0007: long runs of rows share more of their keys, and larger
    // blocks compress better. A read decodes half a run more, a tenth of a microsecond.
    if matches!(family, Family::Tx | Family::Hist | Family::Spend) {
        table.set_block_restart_interval(32);
    }
    if matches!(family, Family::Hist | Family::Spend) {
        table.set_block_size(16 << 10);
    }
    if matches!(family, Family::Filter | Family::FilterHdr) {
        // Hashes and coded sets: nothing that a compressor could use.
        options.set_compression_type(DBCompressionType::None);
    }
    options.set_block_based_table_factory(&table);
    options
}

/// Filters on the first `len` bytes of the keys, for families that are read by prefix.
fn prefix_filter(options: &mut Options, table: &mut BlockBasedOptions, len: usize) {
    options.set_prefix_extractor(SliceTransform::create_fixed_prefix(len));
    table.set_whole_key_filtering(false);
    filter(options, table);
}

/// Filters on whole keys, for families that are read by key.
fn key_filter(options: &mut Options, table: &mut BlockBasedOptions) {
    filter(options, table);
}

fn filter(options: &mut Options, table: &mut BlockBasedOptions) {
    table.set_hybrid_ribbon_filter(10.0, 1);
    // Most look-ups find something, and then in the last level, where nine tenths of
    // the filters would be.
    options.set_optimize_filters_for_hits(true);
}
