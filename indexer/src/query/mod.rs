//! Answers from the index. Read-only; each [`View`] is one RocksDB snapshot, so that
//! an answer never mixes two tips.
//!
//! # Correctness
//! Raw bytes come from the kernel's block files, whose positions can go stale. So
//! every read proves itself: a transaction by its txid, the outputs that it spends by
//! a keyed check, a whole block by its header hash and merkle root. What does not
//! prove itself is reported to the sync loop and answered with
//! [`QueryError::PositionRenewing`], never as absence and never as other bytes.
//!
//! Scripts are known to the index by a 64-bit keyed hash. Transactions and unspent
//! outputs of a script are compared with the script itself when they are read, so
//! that two scripts that share a hash do not see each other's; totals cannot be. The
//! chance that a given script of mainnet shares its hash with any other is 1 in 10^10.

mod balance;
mod block;
mod coins;
mod filters;
mod headers;
mod history;
mod merged;
mod merkle;
pub mod model;
mod outspend;
mod page;
mod place;
mod read;
mod remembered;
mod script;
mod tx;
mod unspent;

pub use self::{
    balance::{BalancePage, BalancePlace, NoBalance},
    page::{Cursor, Heights},
    script::HistoryPage,
    unspent::UnspentPage,
};

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use pulse_primitives::{
    Height,
    bitcoin::BlockHash,
    block::BlockPosition,
    ports::{BlockSource, BlockSourceError},
    tip::ChainTip,
};
use quick_cache::{Weighter, sync::Cache};
use tokio::sync::watch;

use self::{merkle::MerkleTree, model::BlockRef, remembered::Remembered, unspent::UnspentCache};
use crate::{
    index::Shared,
    store::{StoreError, audit::FamilyStats, reader::Reader},
};

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The block files no longer hold what the index recorded; positions are being
    /// renewed. Ask again shortly (503).
    #[error("the position of block {height} is being renewed; try again")]
    PositionRenewing {
        /// Height of the block whose position is stale.
        height: Height,
    },
    /// The block is not part of this view: it comes from another one, and a
    /// reorganisation lies between them. Ask again with a new view (503).
    #[error("block {hash} left the indexed chain meanwhile; try again")]
    NotInView {
        /// Hash of the block.
        hash: BlockHash,
    },
    /// The index cannot be read.
    #[error("index store")]
    Store(#[from] StoreError),
    /// The block files cannot be read.
    #[error("block files")]
    Source(#[from] BlockSourceError),
}

/// The scripthash of the REST API: SHA-256 of the script, not reversed.
pub type ScriptHash = [u8; 32];

/// Handle to the read side. Cheap to clone.
#[derive(Clone)]
pub struct Query {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    source: Arc<dyn BlockSource>,
    /// Ids of the transactions of whole blocks, proven by their merkle root.
    txids: Cache<BlockHash, Arc<MerkleTree>, TxidsWeight>,
    unspent: UnspentCache,
    remembered: Remembered,
}

#[derive(Clone)]
struct TxidsWeight;

impl Weighter<BlockHash, Arc<MerkleTree>> for TxidsWeight {
    fn weight(&self, _: &BlockHash, tree: &Arc<MerkleTree>) -> u64 {
        // The tree, and about as much as the cache keeps beside it.
        32 * tree.len() as u64 + 128
    }
}

/// One snapshot of the index.
pub struct View<'a> {
    query: &'a Inner,
    reader: Reader<'a>,
    tip: Option<ChainTip>,
    /// The block that was looked at last: what is read together is often of one block.
    last_block: Mutex<Option<BlockRef>>,
    last_position: Mutex<Option<(Height, BlockPosition)>>,
}

impl Query {
    pub(crate) fn new(shared: Arc<Shared>, source: Arc<dyn BlockSource>) -> Self {
        let cache_bytes = u64::from(shared.config.txids_cache_mib) << 20;
        // A block of mainnet has some 2,000 transactions.
        let blocks = usize::try_from(cache_bytes / 128_000).unwrap_or(usize::MAX);
        Self {
            inner: Arc::new(Inner {
                shared,
                source,
                txids: Cache::with_weighter(blocks, cache_bytes, TxidsWeight),
                unspent: UnspentCache::default(),
                remembered: Remembered::default(),
            }),
        }
    }

    /// A consistent view of the index as it is now.
    ///
    /// # Errors
    /// [`QueryError::Store`].
    pub fn view(&self) -> Result<View<'_>, QueryError> {
        let reader = self.inner.shared.store.reader();
        let tip = || Ok(reader.cursor()?.map(|cursor| cursor.tip));
        Ok(View {
            tip: self.inner.remembered.tip(reader.moment, tip)?,
            query: &self.inner,
            reader,
            last_block: Mutex::default(),
            last_position: Mutex::default(),
        })
    }

    /// Watch of the index tip (`None`: nothing indexed yet). A new tip is published
    /// only after its rows are readable.
    #[must_use]
    pub fn tip_watch(&self) -> watch::Receiver<Option<ChainTip>> {
        self.inner.shared.tip.subscribe()
    }

    /// Time until the index reaches the best header, as the initial sync measures it; `None`
    /// near the tip.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        let progress = (*self.inner.shared.progress.lock())?;
        Duration::try_from_secs_f64(progress.seconds_left?).ok()
    }

    /// Brings the metrics up to date that change although nothing is written: reads of the
    /// database, its sizes, and how far the index is behind the header at `best`. Cheap.
    ///
    /// # Errors
    /// [`QueryError::Store`].
    pub fn record_metrics(&self, best: Height) -> Result<(), QueryError> {
        let tip = self.inner.shared.tip.borrow().map_or(0, |tip| tip.height);
        crate::metrics::lag(best.saturating_sub(tip));
        let (from_files, from_cache) = self.inner.shared.store.blocks_read();
        crate::metrics::blocks_read(from_files, from_cache);
        Ok(self.inner.shared.record_metrics()?)
    }

    /// Sizes of the index by column family, as the database keeps them. Cheap.
    ///
    /// # Errors
    /// [`QueryError::Store`].
    pub fn index_stats(&self) -> Result<BTreeMap<&'static str, FamilyStats>, QueryError> {
        Ok(self.inner.shared.store.stats()?)
    }
}

impl View<'_> {
    /// Tip of this view.
    #[must_use]
    pub fn tip(&self) -> Option<ChainTip> {
        self.tip
    }
}
