//! Applies the blocks that follow the cursor in the active chain.
//!
//! load and hash (threads of their own) -> queue -> number, find what is spent in memory
//! -> find the rest in the store, all of the group together -> rows -> commit
//!
//! # Correctness
//! Within a group the store is read as it was before it; what the group adds is found in
//! memory. A group is one batch with the cursor of its last block.

use std::{
    collections::HashSet,
    mem::size_of,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use pulse_primitives::{
    Height,
    bitcoin::BlockHash,
    block::ConnectedBlock,
    ports::{BlockSource, BlockSourceError},
    tip::ChainTip,
    trace::TRACE_TARGET,
};
use tracing::trace_span;

use super::{
    IndexSync, NEAR_TIP_BLOCKS, SyncError,
    chain::{Chain, RecentBlock},
    funding::{self, Rows, Wanted},
    queue::Queue,
    repeated,
};
use crate::{
    batch::IndexBatch,
    index::Shared,
    metrics,
    prepared::{Inconsistent, Prepared},
    rows::{
        delta::{Created, Spent},
        filter::FilterEntry,
        meta::Cursor,
    },
    store::{reader::Reader, writer::Group},
};

/// With a log, a group of blocks is written when it takes this many bytes; without one it
/// may take all of its budget.
const GROUP_BYTES: usize = 64 << 20;

/// A group is written when it has been collecting for this long.
const GROUP_TIME: Duration = Duration::from_secs(1);
const BULK_GROUP_TIME: Duration = Duration::from_secs(5);

/// Rows and what they are made from take this many times the memory of a block's changes.
const ROWS_PER_CHANGES: usize = 4;

/// Far from the tip the next block is waited for this long before a group is written:
/// large groups cost a fraction of small ones.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_PAUSE: Duration = Duration::from_millis(10);

/// Far from the tip the write-ahead log is synced this often. A power cut takes back
/// whole groups that are younger.
const SYNC_INTERVAL: Duration = Duration::from_secs(5);

/// Most threads that load blocks. One is enough to feed the index on two processors.
const LOADERS: usize = 4;

/// How a run of blocks ended.
pub(super) enum Applied {
    /// With the last block there was.
    All,
    /// With a block that does not follow the one before: the chain moved.
    Moved,
    /// With a block that could not be read.
    Unavailable(Height, BlockHash, BlockSourceError),
}

/// A loaded block, or why there is none.
type Loaded = Result<Result<Prepared, Inconsistent>, (Height, BlockHash, BlockSourceError)>;

/// The blocks of a group before their rows are made.
#[derive(Default)]
struct Blocks {
    batches: Vec<IndexBatch>,
    wanted: Vec<Wanted>,
    bytes: usize,
    near_tip: bool,
    /// One that has to wait until those before it are written.
    waiting: Option<Prepared>,
}

impl IndexSync {
    /// Applies the blocks that follow the cursor in the active chain. Other threads load
    /// and hash them, this one builds and writes the rows.
    pub(super) fn apply(
        &mut self,
        chain: &mut Chain,
        stop: &AtomicBool,
    ) -> Result<Applied, SyncError> {
        let first = chain.next_height();
        let with_filter = self.shared.config.block_filters && chain.filters.next == first;
        let queue = Queue::new(self.shared.store.budget.queue);
        let loader = Loader {
            source: Arc::clone(&self.source),
            shared: Arc::clone(&self.shared),
            queue: &queue,
            first,
            next: AtomicU32::new(0),
            with_filter,
            stop,
        };
        std::thread::scope(|scope| {
            for _ in 0..loader.threads() {
                std::thread::Builder::new()
                    .name("index-load".to_owned())
                    .spawn_scoped(scope, || loader.run())
                    .expect("the system can start a thread");
            }
            // Dropped before the scope waits for the threads, however this ends.
            let _closes = queue.closes();
            self.consume(chain, &queue, stop)
        })
    }

    fn consume(
        &mut self,
        chain: &mut Chain,
        queue: &Queue<Loaded>,
        stop: &AtomicBool,
    ) -> Result<Applied, SyncError> {
        let shared = Arc::clone(&self.shared);
        let (store, config) = (&shared.store, &shared.config);
        // A block that has to wait until those before it are written.
        let mut waiting = None;
        loop {
            let reader = store.reader();
            let mut group = store.group(chain.ring);
            let mut blocks = Blocks {
                waiting: waiting.take(),
                ..Blocks::default()
            };
            let ended = self.collect(chain, queue, stop, &reader, &mut group, &mut blocks)?;
            waiting = blocks.waiting.take();
            blocks.resolve(chain, &reader, |hash, height| self.load(hash, height))?;
            drop(reader);
            let best = self.source.best_header_height();
            group.reserve(&blocks.batches);
            for batch in blocks.batches {
                let height = batch.delta.height;
                let store_delta = height.saturating_add(config.undo_blocks) > best;
                group.add(&batch, config.undo_blocks, store_delta);
                metrics::transactions(u64::from(batch.row.tx_count));
            }
            self.commit(chain, group, blocks.near_tip)?;
            if blocks.near_tip {
                self.leave_bulk(stop)?;
            }
            self.renew_all(self.shared.stale.take_reported(), stop)?;
            match ended {
                None if stop.load(Ordering::Relaxed) => return Ok(Applied::All),
                None => {}
                Some(ended) => return Ok(ended),
            }
        }
    }

    /// Takes blocks for a group from the queue, until it is full or there are no more.
    fn collect(
        &self,
        chain: &mut Chain,
        queue: &Queue<Loaded>,
        stop: &AtomicBool,
        reader: &Reader<'_>,
        group: &mut Group<'_>,
        blocks: &mut Blocks,
    ) -> Result<Option<Applied>, SyncError> {
        let store = &self.shared.store;
        let (most_bytes, most_time) = if store.is_bulk() {
            (store.budget.group, BULK_GROUP_TIME)
        } else {
            (store.budget.group.min(GROUP_BYTES), GROUP_TIME)
        };
        let started = Instant::now();
        let mut lookup = reader.tx_lookup();
        let mut coinbases = HashSet::new();
        loop {
            let full = blocks.bytes + group.size() >= most_bytes || started.elapsed() >= most_time;
            let stopped = stop.load(Ordering::Relaxed);
            if !blocks.batches.is_empty() && (full || blocks.near_tip || stopped) {
                return Ok(None);
            }
            let next = blocks.waiting.take().map(|block| Ok(Ok(block)));
            let block = match next.or_else(|| queue.pop()) {
                None => return Ok(Some(Applied::All)),
                Some(Ok(block)) => block?,
                Some(Err((height, hash, err))) => {
                    return Ok(Some(Applied::Unavailable(height, hash, err)));
                }
            };
            if !chain.connects(&block) {
                return Ok(Some(Applied::Moved));
            }
            let height = block.connected.height;
            let first_txnum = chain.next_txnum();
            let load = |hash: &BlockHash, height| self.load(hash, height);
            let repeated = repeated::find(&block, first_txnum, chain, reader, &mut lookup, load)?;
            let coinbase = block.tx_hashes.first().copied();
            if repeated.is_some() && !blocks.batches.is_empty() || !coinbases.insert(coinbase) {
                blocks.waiting = Some(block);
                return Ok(None);
            }
            let table = RecentBlock::new(block.hash, first_txnum, &block.tx_hashes);
            let place = blocks.batches.len();
            let wanted = &mut blocks.wanted;
            let funding = funding::in_memory(&block, place, &table, chain, &store.keys, wanted)?;
            let batch = IndexBatch::from_block(
                &block,
                first_txnum,
                &funding,
                repeated.as_ref(),
                &store.keys,
            )?;
            if let Some(filter) = block
                .filter
                .as_ref()
                .filter(|_| chain.filters.next == height)
            {
                let entry = FilterEntry::new(block.hash, filter, &chain.filters.header);
                group.add_filter(height, &entry, filter);
                chain.filters.push(&entry);
            }
            let tip = ChainTip {
                height,
                hash: block.hash,
                time: batch.row.header.time,
            };
            let next_txnum = batch.row.next_txnum();
            chain.push(table, Cursor { tip, next_txnum });
            blocks.bytes += ROWS_PER_CHANGES * changes_bytes(&batch);
            blocks.batches.push(batch);
            blocks.near_tip = self.is_near_tip(height);
        }
    }

    fn commit(
        &mut self,
        chain: &mut Chain,
        group: Group<'_>,
        near_tip: bool,
    ) -> Result<(), SyncError> {
        let store = &self.shared.store;
        let started = Instant::now();
        let blocks = group.blocks();
        let _span =
            trace_span!(target: TRACE_TARGET, "index write", count = blocks, near_tip).entered();
        let sync = self.last_sync.elapsed() >= SYNC_INTERVAL;
        let committed = group.commit(near_tip, sync)?;
        store.flush_if_full()?;
        chain.committed(committed.ring);
        if sync || near_tip {
            self.last_sync = Instant::now();
        }
        if let Some(cursor) = committed.cursor {
            metrics::committed(blocks, committed.rows, started.elapsed());
            self.publish(&cursor);
            self.tell_progress(&cursor);
            let ChainTip { height, hash, .. } = cursor.tip;
            tracing::debug!(height, %hash, count = blocks, "blocks indexed");
        }
        Ok(())
    }
}

impl Blocks {
    /// Finds the numbers that were not in memory.
    fn resolve(
        &mut self,
        chain: &Chain,
        reader: &Reader<'_>,
        load: impl Fn(&BlockHash, Height) -> Result<ConnectedBlock, SyncError> + Sync,
    ) -> Result<(), SyncError> {
        let found = funding::stored(&mut self.wanted, Rows::Utxo, chain, reader, load)?;
        for (wanted, txnum) in self.wanted.iter().zip(found) {
            self.batches[wanted.block].delta.spent[wanted.input].txnum = txnum;
        }
        self.wanted = Vec::new();
        Ok(())
    }
}

/// Memory of what a block changes, without what follows from it.
fn changes_bytes(batch: &IndexBatch) -> usize {
    batch.delta.created.len() * size_of::<Created>()
        + batch.delta.spent.len() * size_of::<Spent>()
        + batch.delta.tx_prefixes.len() * 5
        + batch.chunk_bytes.len()
}

/// What the threads share that load blocks.
struct Loader<'a> {
    source: Arc<dyn BlockSource>,
    shared: Arc<Shared>,
    queue: &'a Queue<Loaded>,
    /// Height of the first block to load.
    first: Height,
    /// How many have been taken in hand.
    next: AtomicU32,
    with_filter: bool,
    stop: &'a AtomicBool,
}

impl Loader<'_> {
    /// How many threads are worth while.
    fn threads(&self) -> usize {
        if self.is_far(self.first) {
            let processors = std::thread::available_parallelism();
            processors.map_or(1, |count| (count.get() / 4).clamp(1, LOADERS))
        } else {
            1
        }
    }

    fn is_far(&self, height: Height) -> bool {
        height.saturating_add(NEAR_TIP_BLOCKS) < self.source.best_header_height()
    }

    fn run(&self) {
        // Also when this ends by a panic.
        let _closes = self.queue.closes_on_panic();
        loop {
            let place = self.next.fetch_add(1, Ordering::Relaxed);
            let height = self.first.saturating_add(place);
            let Some(hash) = self.wait_for(height) else {
                self.queue.end(place);
                return;
            };
            let loaded = match self.source.load(&hash, height) {
                Ok(connected) => {
                    let keys = &self.shared.store.keys;
                    Ok(Prepared::new(connected, keys, self.with_filter))
                }
                Err(err) => Err((height, hash, err)),
            };
            let bytes = match &loaded {
                Ok(Ok(block)) => block.memory_bytes(),
                _ => 0,
            };
            let last = !matches!(loaded, Ok(Ok(_)));
            if !self.queue.push(place, loaded, bytes) {
                return;
            }
            if last {
                self.queue.end(place.saturating_add(1));
                return;
            }
        }
    }

    /// Hash of the block at `height`, for which this waits a moment if many are to come.
    fn wait_for(&self, height: Height) -> Option<BlockHash> {
        let started = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            if let Some(hash) = self.source.hash_at(height) {
                return Some(hash);
            }
            if !self.is_far(height) || started.elapsed() >= LINGER || self.queue.is_closed() {
                return None;
            }
            std::thread::sleep(LINGER_PAUSE);
        }
        None
    }
}
