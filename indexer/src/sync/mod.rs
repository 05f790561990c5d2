//! Keeps the index in step with the active chain.
//!
//! cursor -> fork point -> roll back (newest first) -> apply (oldest first)
//!
//! # Correctness
//! The cursor commits in the same write batch as the rows of its blocks, so a crash
//! leaves both or neither, and starting again is the same code as running. What is
//! kept in memory is read from the store anew after every error.
//!
//! The node may be behind the index after a kill. As long as its tip is a block of
//! the indexed chain nothing is taken back; while it comes forward over the blocks
//! again, only their positions are renewed.
//!
//! # Limits
//! Forks within the ring of stored deltas roll back without reading a block; deeper
//! ones read each block that is taken back, at any depth. The index is never deleted
//! here.

mod apply;
mod chain;
mod checkpoints;
mod filters;
mod funding;
pub(crate) mod progress;
mod queue;
mod repeated;
mod settle;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, OutPoint},
    block::ConnectedBlock,
    ports::{BlockSource, BlockSourceError},
    tip::ChainTip,
    trace::TRACE_TARGET,
};
use tracing::{Span, trace_span};

use crate::{
    batch::IndexBatch,
    index::Shared,
    metrics,
    prepared::{Inconsistent, Prepared},
    proof::{ProofError, commitment},
    rows::{delta::Delta, meta::Cursor},
    store::StoreError,
};
use apply::Applied;
use chain::{Chain, RecentBlock};
use filters::FilterTip;
use funding::Rows;
use progress::Pace;
use settle::Settling;

/// Within this many blocks of the best header every block is written at once and
/// synced to disk.
const NEAR_TIP_BLOCKS: Height = 6;

/// How often is told how far the check after a bulk load has come.
const CHECK_PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// How often, and after which pause, a block that cannot be read is asked for again:
/// during a reorganisation that can pass.
const RETRIES: u32 = 30;
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// How often a block that queries cannot read is asked for again before it counts as
/// damaged.
const EXAMINATIONS: u32 = 3;

/// Why the index could not follow the chain. The index is unharmed: calling
/// [`IndexSync::catch_up`] again goes on where it stands.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// A block of the active chain cannot be read.
    #[error("block {hash} at height {height} is not available from the node")]
    BlockUnavailable {
        /// Height of the block.
        height: Height,
        /// Its hash.
        hash: BlockHash,
        /// Why not.
        #[source]
        source: BlockSourceError,
    },
    /// A block left the active chain, and nothing tells any more what it changed.
    #[error(
        "block {hash} at height {height} left the active chain, but the index no longer stores what it changed and the block files do not hold it. Hint: if this stays so after the node has caught up, stop it and run `pulse-node reindex`, which builds the index anew from the blocks on disk"
    )]
    RollbackImpossible {
        /// Height of the block.
        height: Height,
        /// Its hash.
        hash: BlockHash,
        /// Why the block could not be read.
        #[source]
        source: BlockSourceError,
    },
    /// The transaction that created a spent output is not in the block that the undo
    /// data names.
    #[error("the index has no transaction {} in block {height}, whose output is spent", outpoint.txid)]
    FundingMissing {
        /// The spent output.
        outpoint: OutPoint,
        /// Height at which it was created, by the undo data.
        height: Height,
    },
    /// The node's chain starts with another block.
    #[error("the node's chain starts with {found}, the index with {expected}")]
    OtherGenesis {
        /// Genesis of the index's network.
        expected: BlockHash,
        /// Genesis of the node's chain.
        found: BlockHash,
    },
    /// The source gave a block whose parts do not fit together.
    #[error("block from the node")]
    Inconsistent(#[from] Inconsistent),
    /// The rows of the unspent outputs do not add up to what the blocks left.
    #[error("check of the unspent outputs after the bulk load")]
    Proof(#[from] ProofError),
    /// The store failed.
    #[error("index store")]
    Store(#[from] StoreError),
}

/// Follows the active chain. One at a time does so; a second one waits.
pub struct IndexSync {
    shared: Arc<Shared>,
    source: Arc<dyn BlockSource>,
    /// `None` before the first call and after an error.
    chain: Option<Chain>,
    /// Positions up to this height are those of this run of the node.
    renewed_to: Option<Height>,
    last_sync: Instant,
    last_filter_progress: Instant,
    pace: Pace,
    settling: Settling,
    /// From the beginning of a bulk load to its end.
    bulk: Span,
}

/// What to do next.
enum Step {
    Apply,
    RollBack,
    /// The node stands at this height of the indexed chain.
    Rest(Height),
    /// The chain moved between two looks at it.
    LookAgain,
}

impl IndexSync {
    pub(crate) fn new(shared: Arc<Shared>, source: Arc<dyn BlockSource>) -> Self {
        Self {
            shared,
            source,
            chain: None,
            renewed_to: None,
            last_sync: Instant::now(),
            last_filter_progress: Instant::now(),
            pace: Pace::default(),
            settling: Settling::default(),
            bulk: Span::none(),
        }
    }

    /// Brings the index to the tip of the source, or returns early when `stop` is set.
    /// To be called at the start, when the source's tip changes, and when
    /// [`Index::renewals`](crate::Index::renewals) is notified. Blocks the thread.
    ///
    /// # Errors
    /// [`SyncError`]; everything written up to then stays and is consistent.
    pub fn catch_up(&mut self, stop: &AtomicBool) -> Result<(), SyncError> {
        let shared = Arc::clone(&self.shared);
        let _writing = shared.store.writing.lock();
        let result = self.follow(stop);
        if result.is_err() {
            self.chain = None;
        }
        result
    }

    fn follow(&mut self, stop: &AtomicBool) -> Result<(), SyncError> {
        let mut chain = match self.chain.take() {
            Some(chain) if chain.cursor == self.shared.store.reader().cursor()? => chain,
            _ => Chain::load(&self.shared.store.reader(), self.shared.config.recent_txs)?,
        };
        self.renew_all(self.shared.stale.take_unfound(), stop)?;
        self.renew_all(self.shared.stale.take_reported(), stop)?;
        let mut failures = 0;
        while !stop.load(Ordering::Relaxed) {
            match self.next_step(&chain)? {
                Step::Rest(height) => {
                    self.renew_up_to(&chain, height)?;
                    if self.is_near_tip(height) {
                        self.leave_bulk(stop)?;
                        self.settle()?;
                        self.make_checkpoints(stop)?;
                    }
                    self.make_up_filters(&mut chain, stop)?;
                    break;
                }
                Step::LookAgain => self.pause(&mut failures),
                Step::RollBack => {
                    self.roll_back(&mut chain, stop)?;
                    failures = 0;
                }
                Step::Apply => {
                    if let Some(cursor) = chain.cursor {
                        self.renew_up_to(&chain, cursor.tip.height)?;
                    }
                    let before = chain.next_height();
                    self.enter_bulk_if_far(before)?;
                    let applied = self.apply(&mut chain, stop)?;
                    if chain.next_height() > before {
                        failures = 0;
                        self.renewed_to = chain.cursor.map(|cursor| cursor.tip.height);
                    }
                    match applied {
                        Applied::All | Applied::Moved => {}
                        Applied::Unavailable(height, hash, source) if failures >= RETRIES => {
                            return Err(SyncError::BlockUnavailable {
                                height,
                                hash,
                                source,
                            });
                        }
                        Applied::Unavailable(..) => self.pause(&mut failures),
                    }
                }
            }
        }
        if stop.load(Ordering::Relaxed) && self.shared.store.is_bulk() {
            self.shared.store.flush()?;
        }
        self.chain = Some(chain);
        Ok(())
    }

    /// Whether a block at this height is written at once and synced to disk.
    fn is_near_tip(&self, height: Height) -> bool {
        height.saturating_add(NEAR_TIP_BLOCKS) >= self.source.best_header_height()
    }

    /// Begins a bulk load if the next block is far behind the best header.
    fn enter_bulk_if_far(&mut self, next: Height) -> Result<(), SyncError> {
        let (store, config) = (&self.shared.store, &self.shared.config);
        let best = self.source.best_header_height();
        if !store.is_bulk()
            && next.saturating_add(config.bulk_lag_blocks.max(NEAR_TIP_BLOCKS)) < best
        {
            store.enter_bulk()?;
            self.settling.needed();
            metrics::bulk(true);
            self.bulk =
                trace_span!(target: TRACE_TARGET, "index bulk load", height = next, count = best);
            tracing::info!(height = next, count = best, "bulk load of the index begins");
        }
        Ok(())
    }

    /// Ends a bulk load if there is one.
    fn leave_bulk(&mut self, stop: &AtomicBool) -> Result<(), SyncError> {
        let store = &self.shared.store;
        if store.is_bulk() {
            let started = Instant::now();
            store.leave_bulk()?;
            metrics::bulk(false);
            self.bulk = Span::none();
            let elapsed_ms = metrics::millis(started.elapsed());
            tracing::info!(elapsed_ms, "bulk load of the index has ended");
            self.check_utxos(stop)?;
        }
        Ok(())
    }

    /// Adds up the `utxo` rows once a bulk load has written them. Half a minute on mainnet. A
    /// stop leaves it to `verify`.
    fn check_utxos(&self, stop: &AtomicBool) -> Result<(), SyncError> {
        let started = Instant::now();
        let mut told = started;
        let mut progress = |rows| {
            if told.elapsed() >= CHECK_PROGRESS_INTERVAL {
                told = Instant::now();
                tracing::info!(count = rows, "unspent outputs are being added up");
            }
        };
        if let Some(found) = commitment::check(&self.shared.store, stop, &mut progress)? {
            let elapsed_ms = metrics::millis(started.elapsed());
            let count = found.outputs;
            tracing::info!(count, elapsed_ms, "unspent outputs equal their commitment");
        }
        Ok(())
    }

    fn pause(&self, failures: &mut u32) {
        *failures += 1;
        std::thread::sleep(RETRY_PAUSE);
    }

    fn next_step(&self, chain: &Chain) -> Result<Step, SyncError> {
        let Some(cursor) = chain.cursor else {
            return match self.source.hash_at(0) {
                Some(found) if found != self.shared.genesis => Err(SyncError::OtherGenesis {
                    expected: self.shared.genesis,
                    found,
                }),
                Some(_) => Ok(Step::Apply),
                None => Ok(Step::Rest(0)),
            };
        };
        let height = cursor.tip.height;
        match self.source.hash_at(height) {
            Some(hash) if hash == cursor.tip.hash => {
                Ok(match self.source.hash_at(height.saturating_add(1)) {
                    Some(_) => Step::Apply,
                    None => Step::Rest(height),
                })
            }
            Some(found) if height == 0 => Err(SyncError::OtherGenesis {
                expected: self.shared.genesis,
                found,
            }),
            Some(_) => Ok(Step::RollBack),
            None => {
                let tip = *self.source.tip().borrow();
                if tip.height >= height {
                    return Ok(Step::LookAgain);
                }
                let indexed = self.shared.store.reader().block(tip.height)?;
                let same = indexed.is_some_and(|row| row.hash() == tip.hash);
                Ok(if same {
                    Step::Rest(tip.height)
                } else {
                    Step::RollBack
                })
            }
        }
    }

    fn publish(&self, cursor: &Cursor) {
        metrics::tip(cursor.tip.height);
        self.shared.tip.send_replace(Some(cursor.tip));
    }

    /// Takes the newest block back.
    fn roll_back(&mut self, chain: &mut Chain, stop: &AtomicBool) -> Result<(), SyncError> {
        let Some(cursor) = chain.cursor else {
            return Ok(());
        };
        let ChainTip { height, hash, .. } = cursor.tip;
        let Some(delta) = self.delta(chain, &cursor, stop)? else {
            return Ok(());
        };
        let damaged = |what| StoreError::Damaged {
            family: "blk",
            what,
        };
        let previous_height = height.checked_sub(1).ok_or(damaged("genesis"))?;
        let store = &self.shared.store;
        let previous = store
            .reader()
            .block(previous_height)?
            .ok_or(damaged("missing"))?;
        let previous = Cursor {
            tip: ChainTip {
                height: previous_height,
                hash: previous.hash(),
                time: previous.header.time,
            },
            next_txnum: delta.first_txnum,
        };
        let ring = store.roll_back(&delta, &previous, chain.ring, chain.filters.next)?;
        chain.pop(previous, ring);
        if chain.filters.next > height {
            chain.filters = FilterTip::load(&store.reader())?;
        }
        self.renewed_to = self.renewed_to.map(|to| to.min(previous_height));
        self.publish(&previous);
        metrics::rolled_back();
        tracing::info!(height, %hash, "block taken back");
        Ok(())
    }

    /// What the newest block changed: as stored, or found out from the block again.
    /// `None` if it was stopped meanwhile.
    fn delta(
        &self,
        chain: &Chain,
        cursor: &Cursor,
        stop: &AtomicBool,
    ) -> Result<Option<Delta>, SyncError> {
        let ChainTip { height, hash, .. } = cursor.tip;
        let store = &self.shared.store;
        let reader = store.reader();
        if let Some(delta) = reader.delta(height)?.filter(|delta| delta.hash == hash) {
            return Ok(Some(delta));
        }
        let mut failures = 0;
        let connected = loop {
            match self.source.load(&hash, height) {
                Ok(connected) => break connected,
                Err(source) if failures >= RETRIES => {
                    return Err(SyncError::RollbackImpossible {
                        height,
                        hash,
                        source,
                    });
                }
                Err(_) if stop.load(Ordering::Relaxed) => return Ok(None),
                Err(_) => self.pause(&mut failures),
            }
        };
        let block = Prepared::new(connected, &store.keys, false)?;
        let first_txnum = chain.txnums_at(height).map(|range| range.start);
        let first_txnum = first_txnum.filter(|_| block.hash == hash);
        let first_txnum = first_txnum.ok_or(Inconsistent {
            height,
            what: "another block than asked for",
        })?;
        let table = RecentBlock::new(hash, first_txnum, &block.tx_hashes);
        let mut wanted = Vec::new();
        let (keys, place) = (&store.keys, 0);
        let funding = funding::in_memory(&block, place, &table, chain, keys, &mut wanted)?;
        let load = |hash: &BlockHash, height| self.load(hash, height);
        let mut lookup = reader.tx_lookup();
        let repeated = repeated::find(&block, first_txnum, chain, &reader, &mut lookup, load)?;
        let repeated = repeated.as_ref();
        let mut batch = IndexBatch::from_block(&block, first_txnum, &funding, repeated, keys)?;
        // What the block spent has no `utxo` rows.
        let load = |hash: &BlockHash, height| self.load(hash, height);
        let found = funding::stored(&mut wanted, Rows::Tx, chain, &reader, load)?;
        for (wanted, txnum) in wanted.iter().zip(found) {
            batch.delta.spent[wanted.input].txnum = txnum;
        }
        Ok(Some(batch.delta))
    }

    fn load(&self, hash: &BlockHash, height: Height) -> Result<ConnectedBlock, SyncError> {
        let unavailable = |source| SyncError::BlockUnavailable {
            height,
            hash: *hash,
            source,
        };
        self.source.load(hash, height).map_err(unavailable)
    }

    /// Looks the blocks up again that queries found moved.
    fn renew_all(&self, heights: BTreeSet<Height>, stop: &AtomicBool) -> Result<(), SyncError> {
        for height in heights {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            if !self.renew(height)? {
                self.examine(height)?;
            }
        }
        Ok(())
    }

    /// Records the positions of the blocks that the node has come over again.
    fn renew_up_to(&mut self, chain: &Chain, height: Height) -> Result<(), SyncError> {
        if chain.cursor.is_none() {
            return Ok(());
        }
        if let Some(renewed_to) = self.renewed_to {
            for height in renewed_to.saturating_add(1)..=height {
                self.renew(height)?;
            }
        }
        self.renewed_to = Some(height);
        Ok(())
    }

    /// Records where the block lies now. Whether it lies elsewhere than recorded.
    fn renew(&self, height: Height) -> Result<bool, SyncError> {
        let store = &self.shared.store;
        let reader = store.reader();
        let Some(row) = reader.block(height)? else {
            // Taken back since it was reported.
            self.shared.stale.settled(height);
            return Ok(true);
        };
        match self.source.locate(&row.hash(), height) {
            Ok(position) if reader.position(height)? != Some(position) => {
                store.renew_position(height, &position)?;
                self.shared.stale.settled(height);
                metrics::position_renewed();
                tracing::debug!(height, "block position renewed");
                Ok(true)
            }
            Ok(_) => Ok(false),
            Err(err) => {
                tracing::debug!(height, %err, "block position not found yet");
                self.shared.stale.unfound(height);
                Ok(false)
            }
        }
    }

    /// Looks at a block that reads did not find, although it lies where it is recorded or
    /// nowhere: if the node has it in its chain, its bytes have changed.
    fn examine(&self, height: Height) -> Result<(), SyncError> {
        let stale = &self.shared.stale;
        let reader = self.shared.store.reader();
        let Some(row) = reader.block(height)? else {
            return Ok(());
        };
        let hash = row.hash();
        let mut failures = 0;
        let err = loop {
            if self.source.hash_at(height) != Some(hash) {
                return Ok(());
            }
            match self.source.load(&hash, height) {
                Ok(_) => {
                    stale.settled(height);
                    return Ok(());
                }
                Err(BlockSourceError::Closed) => return Ok(()),
                // During a reorganisation it can pass.
                Err(err) if failures >= EXAMINATIONS || stale.is_damaged(height) => break err,
                Err(_) => self.pause(&mut failures),
            }
        };
        if !stale.is_damaged(height) {
            let file = reader.position(height)?.map(|position| position.file);
            let file = file.map_or_else(String::new, |n| format!("blk{n:05}.dat, rev{n:05}.dat"));
            tracing::error!(
                height, %hash, file, %err,
                "a block is damaged in the block files and not served. Stop the node, move the kernel/ directory aside and start again to download the blocks anew; the index stays"
            );
        }
        stale.damaged(height);
        Ok(())
    }
}
