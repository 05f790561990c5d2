//! What the rows have answered since the last write, for questions that come again: wallets
//! and services poll the same scripts and transactions.
//!
//! # Correctness
//! An entry belongs to the [`Moment`] of the view that made it, and is taken only by views of
//! the same moment. These have the same rows, so what was true for one is true for all; no
//! entry has to be found and removed when a block comes or goes.
//!
//! # Limits
//! [`ENTRIES`] transactions by id, as many by number, and as many scripts, [`BLOCKS`] blocks: about
//! 15 MB when full.

use parking_lot::RwLock;
use pulse_primitives::{Height, bitcoin::Txid, block::BlockPosition, tip::ChainTip};
use quick_cache::sync::Cache;

use super::{QueryError, ScriptHash, View, model::ScriptStats};
use crate::{
    rows::{TxNum, block::BlockRow, txpos::TxPos},
    store::reader::Moment,
};

const ENTRIES: usize = 32_768;
const BLOCKS: usize = 8_192;

/// Something with the moment that it belongs to.
#[derive(Clone)]
struct Of<T>(Moment, T);

pub(super) struct Remembered {
    tip: RwLock<Option<Of<Option<ChainTip>>>>,
    rows: Cache<Height, Of<BlockRow>>,
    positions: Cache<Height, Of<BlockPosition>>,
    /// Where a transaction was read, and had that id.
    txs: Cache<Txid, Of<TxPos>>,
    /// The id that the transaction of a number has.
    ids: Cache<TxNum, Of<Txid>>,
    totals: Cache<ScriptHash, Of<ScriptStats>>,
}

impl Default for Remembered {
    fn default() -> Self {
        Self {
            tip: RwLock::default(),
            rows: Cache::new(BLOCKS),
            positions: Cache::new(BLOCKS),
            txs: Cache::new(ENTRIES),
            ids: Cache::new(ENTRIES),
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

    /// Whether the transaction of that number has this id: the index has a row that says so, looked
    /// for only if it is not remembered.
    pub(super) fn is_tx(&self, txid: &Txid, txnum: TxNum) -> Result<bool, QueryError> {
        let look = || Ok(self.reader.is_tx(self.reader.keys.txid(txid), txnum)?);
        let Some(moment) = self.reader.moment else {
            return look();
        };
        let ids = &self.query.remembered.ids;
        if ids
            .get(&txnum)
            .is_some_and(|Of(at, id)| at == moment && id == *txid)
        {
            return Ok(true);
        }
        let is_tx = look()?;
        if is_tx {
            ids.insert(txnum, Of(moment, *txid));
        }
        Ok(is_tx)
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
