//! The index as a whole: opened once, shared by the sync loop and the queries.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use parking_lot::Mutex;
use pulse_primitives::{
    Height, bitcoin::BlockHash, network::ChainParams, ports::BlockSource, tip::ChainTip,
};
use tokio::sync::{Notify, watch};

use crate::{
    config::IndexConfig,
    metrics,
    proof::{
        self, CoreStats, ProofError, UtxoSummary, VerifyOptions, VerifyReport, VerifyStep,
        commitment,
    },
    query::Query,
    stale::StalePositions,
    store::{Store, StoreError, audit::FamilyStats, durability::WrittenBytes, open::OpenError},
    sync::{IndexSync, progress::Progress},
};

/// What the sync loop and the queries share.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) config: IndexConfig,
    pub(crate) genesis: BlockHash,
    pub(crate) tip: watch::Sender<Option<ChainTip>>,
    pub(crate) stale: StalePositions,
    pub(crate) progress: Mutex<Option<Progress>>,
}

impl Shared {
    /// Writes the sizes of the database to the metrics. Cheap.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    pub(crate) fn record_metrics(&self) -> Result<(), StoreError> {
        for (name, stats) in self.store.stats()? {
            metrics::family(name, &stats);
        }
        metrics::cache(self.store.cache_bytes()?);
        metrics::written(&self.store.written());
        Ok(())
    }
}

/// The open index of one network. Cheap to clone; the last clone, query and syncer
/// to go closes it.
#[derive(Clone)]
pub struct Index {
    pub(crate) shared: Arc<Shared>,
}

impl Index {
    /// Opens the index in the directory `path`, or makes a new one there.
    ///
    /// # Errors
    /// [`OpenError`] if the directory belongs to another network or format version,
    /// is open in another process, or is damaged. Nothing is deleted.
    pub fn open(
        path: &Path,
        config: &IndexConfig,
        params: &ChainParams,
    ) -> Result<Self, OpenError> {
        Self::of(Store::open(path, config, params)?, config, params)
    }

    /// Opens an index that a test changes first.
    #[cfg(test)]
    pub(crate) fn open_changed(
        path: &Path,
        config: &IndexConfig,
        params: &ChainParams,
        change: impl FnOnce(&mut Store),
    ) -> Result<Self, OpenError> {
        let mut store = Store::open(path, config, params)?;
        change(&mut store);
        Self::of(store, config, params)
    }

    fn of(store: Store, config: &IndexConfig, params: &ChainParams) -> Result<Self, OpenError> {
        let tip = store.reader().cursor()?.map(|cursor| cursor.tip);
        if let Some(tip) = &tip {
            metrics::tip(tip.height);
        }
        Ok(Self {
            shared: Arc::new(Shared {
                store,
                config: config.clone(),
                genesis: params.genesis_hash(),
                tip: watch::Sender::new(tip),
                stale: StalePositions::default(),
                progress: Mutex::new(None),
            }),
        })
    }

    /// The read side, which reads raw bytes through `source`.
    #[must_use]
    pub fn query(&self, source: Arc<dyn BlockSource>) -> Query {
        Query::new(Arc::clone(&self.shared), source)
    }

    /// What keeps the index in step with the active chain of `source`.
    #[must_use]
    pub fn syncer(&self, source: Arc<dyn BlockSource>) -> IndexSync {
        IndexSync::new(Arc::clone(&self.shared), source)
    }

    /// Watch of the newest indexed block, `None` while there is none.
    #[must_use]
    pub fn tip(&self) -> watch::Receiver<Option<ChainTip>> {
        self.shared.tip.subscribe()
    }

    /// Notified when there is work besides that of each change of the source's tip: a query
    /// met a stale block position, or block filters are missing. Time for
    /// [`IndexSync::catch_up`].
    #[must_use]
    pub fn renewals(&self) -> Arc<Notify> {
        self.shared.stale.woken()
    }

    /// How far the index has come while it is far behind the best header; `None` otherwise,
    /// and for the first seconds.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        *self.shared.progress.lock()
    }

    /// Bytes that the database has written since it was opened.
    #[must_use]
    pub fn written(&self) -> WrittenBytes {
        self.shared.store.written()
    }

    /// SHA-256 over every row that an answer depends on, and the salt. Two indexes
    /// with the same salt that stand at the same block have the same digest, however
    /// they got there. Reads the whole index.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    pub fn digest(&self) -> Result<[u8; 32], StoreError> {
        self.shared.store.digest()
    }

    /// Adds up all `utxo` rows and compares the sum with the commitment that was kept with
    /// the cursor. `Some` when they are equal, `None` if it was stopped or nothing is
    /// indexed. `progress` is told now and then how many rows were read. One sequential
    /// read of a snapshot, while the index may go on.
    ///
    /// # Errors
    /// [`ProofError::UtxosDiffer`] with what to do, [`ProofError::Store`].
    pub fn check_utxos(
        &self,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Option<UtxoSummary>, ProofError> {
        commitment::check(&self.shared.store, stop, progress)
    }

    /// Checks every row of the blocks from `options.from` on against those blocks, which
    /// `source` has, the commitment against all `utxo` rows, and the totals of all scripts.
    /// Checks a snapshot, while the index may go on. `None` if it was stopped.
    ///
    /// # Errors
    /// [`ProofError`] if the check could not be made. Differences are no error: they are
    /// in the report.
    pub fn verify(
        &self,
        source: &dyn BlockSource,
        options: &VerifyOptions<'_>,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(VerifyStep),
    ) -> Result<Option<VerifyReport>, ProofError> {
        proof::verify::verify(&self.shared, source, options, stop, progress)
    }

    /// What Bitcoin Core's `gettxoutsetinfo` prints at the index's tip, computed from the rows
    /// and the blocks. With a directory for temporary files, which is made and removed,
    /// `hash_serialized_3` too. `None` if it was stopped. `progress` is told the
    /// height of each block that was read.
    ///
    /// # Errors
    /// [`ProofError::BlockUnavailable`], [`ProofError::Store`], [`ProofError::Temporary`].
    pub fn core_stats(
        &self,
        source: &dyn BlockSource,
        sorted_in: Option<&Path>,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(Height),
    ) -> Result<Option<CoreStats>, ProofError> {
        proof::core_stats(&self.shared, source, sorted_in, stop, progress)
    }

    /// Exact number of rows by column family. Reads the whole index.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    pub fn row_counts(&self) -> Result<BTreeMap<&'static str, u64>, StoreError> {
        self.shared.store.row_counts()
    }

    /// Sizes by column family, as the database keeps them. Cheap.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    pub fn stats(&self) -> Result<BTreeMap<&'static str, FamilyStats>, StoreError> {
        self.shared.store.stats()
    }

    /// Makes a second index in the directory `path`, which must not exist: what this one
    /// held at one moment. Table files are shared where the file system can; nobody writes
    /// them again. Gives the newest block in it and what it holds unspent. Reads and writes
    /// go on meanwhile.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be written; what is there then is of no use.
    pub fn checkpoint(&self, path: &Path) -> Result<Option<(ChainTip, UtxoSummary)>, StoreError> {
        self.shared.store.checkpoint(path)
    }

    /// The newest block of the index in the directory `path`, which nobody has open, and what
    /// it says to hold unspent.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    pub fn read_state(path: &Path) -> Result<Option<(ChainTip, UtxoSummary)>, StoreError> {
        crate::store::checkpoint::read_state(path)
    }

    /// Writes everything in memory to files and waits until it is on disk. Not
    /// needed for safety; makes the next start faster.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be written.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.shared.store.flush()
    }
}
