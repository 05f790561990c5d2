//! What was read and proven since the last write, for questions that come again: wallets and
//! services poll the same scripts and transactions.
//!
//! # Correctness
//! An entry belongs to the [`Moment`] of the view that made it, and is taken only by views of
//! the same moment. These have the same rows, so what was true for one is true for all; no
//! entry has to be found and removed when a block comes or goes.
//!
//! # Limits
//! The places of [`ENTRIES`] transactions, as many scripts, [`BLOCKS`] blocks: about 12 MB when full;
//! and [`PROVEN_BYTES`] of transactions.

use parking_lot::RwLock;
use pulse_primitives::{Height, bitcoin::Txid, block::BlockPosition, tip::ChainTip};
use quick_cache::{Weighter, sync::Cache};

use super::{QueryError, ScriptHash, View, model::ScriptStats, read::ProvenTx};
use crate::{
    rows::{TxNum, block::BlockRow, txpos::TxPos},
    store::reader::Moment,
};

const ENTRIES: usize = 32_768;
const BLOCKS: usize = 8_192;
/// Memory of the transactions that are remembered whole, in bytes.
const PROVEN_BYTES: u64 = 48 << 20;
/// What a common one of them takes, for a guess at how many these are.
const COMMON_BYTES: u64 = 1_500;

/// Something with the moment that it belongs to.
#[derive(Clone)]
struct Of<T>(Moment, T);

pub(super) struct Remembered {
    tip: RwLock<Option<Of<Option<ChainTip>>>>,
    rows: Cache<Height, Of<BlockRow>>,
    positions: Cache<Height, Of<BlockPosition>>,
    /// Where a transaction was read, and had that id.
    txs: Cache<Txid, Of<TxPos>>,
    /// Transactions that were proven, mostly with what they spend.
    proven: Cache<TxNum, Of<ProvenTx>, ProvenWeight>,
    totals: Cache<ScriptHash, Of<ScriptStats>>,
}

#[derive(Clone)]
struct ProvenWeight;

impl Weighter<TxNum, Of<ProvenTx>> for ProvenWeight {
    fn weight(&self, _: &TxNum, Of(_, tx): &Of<ProvenTx>) -> u64 {
        // Decoded, one commonly takes two to three times its bytes.
        3 * (u64::from(tx.pos.len) + u64::from(tx.pos.undo_len)) + 256
    }
}

impl Default for Remembered {
    fn default() -> Self {
        Self {
            tip: RwLock::default(),
            rows: Cache::new(BLOCKS),
            positions: Cache::new(BLOCKS),
            txs: Cache::new(ENTRIES),
            proven: Cache::with_weighter(
                usize::try_from(PROVEN_BYTES / COMMON_BYTES).unwrap_or(usize::MAX),
                PROVEN_BYTES,
                ProvenWeight,
            ),
            totals: Cache::new(ENTRIES),
        }
    }
}

impl Remembered {
    /// The tip at `moment`, read only if it is not remembered.
    pub(super) fn tip(
        &self,
        moment: Option<Moment>,
        read: impl FnOnce() -> Result<Option<ChainTip>, QueryError>,
    ) -> Result<Option<ChainTip>, QueryError> {
        let Some(moment) = moment else { return read() };
        if let Some(Of(at, tip)) = &*self.tip.read()
            && *at == moment
        {
            return Ok(*tip);
        }
        let tip = read()?;
        *self.tip.write() = Some(Of(moment, tip));
        Ok(tip)
    }
}

impl View<'_> {
    /// The row of a block, read only if it is not remembered.
    pub(super) fn remembered_row(
        &self,
        height: Height,
        read: impl FnOnce() -> Result<BlockRow, QueryError>,
    ) -> Result<BlockRow, QueryError> {
        self.remembered(&self.query.remembered.rows, &height, read)
    }

    /// The position of a block, read only if it is not remembered.
    pub(super) fn remembered_position(
        &self,
        height: Height,
        read: impl FnOnce() -> Result<BlockPosition, QueryError>,
    ) -> Result<BlockPosition, QueryError> {
        self.remembered(&self.query.remembered.positions, &height, read)
    }

    /// The totals of a script, counted only if they are not remembered.
    pub(super) fn remembered_totals(
        &self,
        script: &ScriptHash,
        count: impl FnOnce() -> Result<ScriptStats, QueryError>,
    ) -> Result<ScriptStats, QueryError> {
        self.remembered(&self.query.remembered.totals, script, count)
    }

    /// Where the transaction of that id was read at this moment, if that is remembered.
    pub(super) fn remembered_tx(&self, txid: &Txid) -> Option<TxPos> {
        let moment = self.reader.moment?;
        let Of(at, pos) = self.query.remembered.txs.get(txid)?;
        (at == moment).then_some(pos)
    }

    /// Remembers where a transaction was found and proven to have that id.
    pub(super) fn remember_tx(&self, txid: &Txid, pos: TxPos) {
        if let Some(moment) = self.reader.moment {
            self.query.remembered.txs.insert(*txid, Of(moment, pos));
        }
    }

    /// The transaction of that number as it was proven at this moment, if that is remembered.
    pub(super) fn remembered_proven(&self, txnum: TxNum) -> Option<ProvenTx> {
        let moment = self.reader.moment?;
        let Of(at, tx) = self.query.remembered.proven.get(&txnum)?;
        (at == moment).then_some(tx)
    }

    /// Remembers a transaction that was proven to be that of its number.
    pub(super) fn remember_proven(&self, tx: &ProvenTx) {
        if let Some(moment) = self.reader.moment {
            let entry = Of(moment, tx.clone());
            self.query.remembered.proven.insert(tx.pos.txnum, entry);
        }
    }

    fn remembered<K: std::hash::Hash + Eq + Copy, T: Clone>(
        &self,
        cache: &Cache<K, Of<T>>,
        key: &K,
        read: impl FnOnce() -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        let Some(moment) = self.reader.moment else {
            return read();
        };
        if let Some(Of(at, value)) = cache.get(key)
            && at == moment
        {
            return Ok(value);
        }
        let value = read()?;
        cache.insert(*key, Of(moment, value.clone()));
        Ok(value)
    }
}
