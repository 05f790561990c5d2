//! Typed rows of one snapshot.

use std::{
    cell::RefCell,
    cmp,
    ops::{ControlFlow, Range},
    sync::atomic::Ordering,
};

use pulse_primitives::{Height, block::BlockPosition};
use rocksdb::{AsColumnFamilyRef, DB, DBRawIterator, ReadOptions, Snapshot};

use super::{Family, Store, StoreError};
use crate::{
    keys::{Keys, ScriptKey},
    proof::UtxoSummary,
    rows::{
        TxNum, block as block_rows, codec::BadRow, delta::Delta, filter, meta, script, spend, tx,
        txpos,
    },
};

/// How far a scan of a whole family reads ahead.
const SCAN_READAHEAD_BYTES: usize = 2 << 20;

/// The time between two writes: how many there were before. Not kept over a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(u64);

/// Rows as they were at one moment.
pub(crate) struct Reader<'a> {
    store: &'a Store,
    snapshot: Snapshot<'a>,
    pub(crate) keys: &'a Keys,
    /// Readers of the same moment have the same rows. `None` if a write was under way, which
    /// the snapshot may or may not hold.
    pub(crate) moment: Option<Moment>,
}

impl Store {
    /// Rows as they are now.
    pub(crate) fn reader(&self) -> Reader<'_> {
        let ended = self.writes.ended.load(Ordering::SeqCst);
        let snapshot = self.db.snapshot();
        let begun = self.writes.begun.load(Ordering::SeqCst);
        Reader {
            store: self,
            snapshot,
            keys: &self.keys,
            moment: (begun == ended).then_some(Moment(ended)),
        }
    }
}

impl Reader<'_> {
    pub(super) fn get<T>(
        &self,
        family: Family,
        key: impl AsRef<[u8]>,
        decode: impl FnOnce(&[u8]) -> Result<T, BadRow>,
    ) -> Result<Option<T>, StoreError> {
        match self.snapshot.get_pinned_cf(self.store.cf(family), key)? {
            Some(value) => Ok(Some(decode(&value).map_err(|row| family.damaged(row))?)),
            None => Ok(None),
        }
    }

    pub(super) fn iter(&self, family: Family, options: ReadOptions) -> DBRawIterator<'_> {
        let family = self.store.cf(family);
        self.snapshot.raw_iterator_cf_opt(family, options)
    }

    /// How far the index has come; `None` while it is empty.
    pub(crate) fn cursor(&self) -> Result<Option<meta::Cursor>, StoreError> {
        self.get(Family::Meta, meta::CURSOR, meta::Cursor::decode)
    }

    /// What the indexed blocks left unspent. Empty while nothing is indexed.
    pub(crate) fn utxo_summary(&self) -> Result<UtxoSummary, StoreError> {
        match self.get(Family::Meta, meta::UTXO_COMMITMENT, UtxoSummary::decode)? {
            Some(summary) => Ok(summary),
            None if self.cursor()?.is_none() => Ok(UtxoSummary::default()),
            None => Err(Family::Meta.damaged(BadRow("no utxo_commitment with the cursor"))),
        }
    }

    /// The bytes of a row.
    pub(crate) fn raw(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.get(family, key, |value| Ok(value.to_vec()))
    }

    /// The rows of a family from a key on, in key order. Leaves the cache as it is, and reads
    /// ahead.
    pub(crate) fn rows(&self, family: Family, from: &[u8]) -> Rows<'_> {
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        options.fill_cache(false);
        options.set_readahead_size(SCAN_READAHEAD_BYTES);
        let mut iter = self.iter(family, options);
        iter.seek(from);
        Rows { iter }
    }

    /// A cursor over `spend` rows, to be asked in chain order.
    pub(crate) fn spent_in_order(&self) -> SpentInOrder<'_> {
        SpentInOrder {
            rows: self.rows(Family::Spend, &[]),
        }
    }

    /// Gives every row of a family to `visit` in key order, until that says to stop. Leaves
    /// the cache as it is, and reads ahead.
    pub(crate) fn scan(
        &self,
        family: Family,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, BadRow>,
    ) -> Result<ControlFlow<()>, StoreError> {
        let mut rows = self.rows(family, &[]);
        while let Some((key, value)) = rows.item() {
            let flow = visit(key, value).map_err(|row| family.damaged(row))?;
            if flow.is_break() {
                return Ok(flow);
            }
            rows.next();
        }
        rows.status()?;
        Ok(ControlFlow::Continue(()))
    }

    /// Heights that may have a stored delta.
    pub(crate) fn ring(&self) -> Result<meta::Ring, StoreError> {
        let ring = self.get(Family::Meta, meta::RING, meta::Ring::decode)?;
        Ok(ring.unwrap_or_default())
    }

    /// Height behind the highest that has a block filter.
    pub(crate) fn filters_next(&self) -> Result<Height, StoreError> {
        let next = self.get(Family::Meta, meta::FILTERS, meta::filters)?;
        Ok(next.unwrap_or_default())
    }

    /// What is known of the block filter at `height`.
    pub(crate) fn filter_entry(
        &self,
        height: Height,
    ) -> Result<Option<filter::FilterEntry>, StoreError> {
        let decode = filter::FilterEntry::decode;
        self.get(Family::FilterHdr, block_rows::key(height), decode)
    }

    /// The block filter at `height`.
    pub(crate) fn filter(&self, height: Height) -> Result<Option<Vec<u8>>, StoreError> {
        let key = block_rows::key(height);
        self.get(Family::Filter, key, |value| Ok(value.to_vec()))
    }

    /// The stored delta of the block at `height`, if there is one.
    pub(crate) fn delta(&self, height: Height) -> Result<Option<Delta>, StoreError> {
        self.get(Family::Undo, block_rows::key(height), Delta::decode)
    }

    /// The block at `height`.
    pub(crate) fn block(&self, height: Height) -> Result<Option<block_rows::BlockRow>, StoreError> {
        let decode = block_rows::BlockRow::decode;
        self.get(Family::Blk, block_rows::key(height), decode)
    }

    /// Gives each block of a range of heights to `visit`, lowest first. Missing ones
    /// are left out.
    pub(crate) fn for_each_block(
        &self,
        heights: Range<Height>,
        mut visit: impl FnMut(&block_rows::BlockRow),
    ) -> Result<(), StoreError> {
        let mut options = ReadOptions::default();
        options.set_iterate_range(block_rows::key(heights.start)..block_rows::key(heights.end));
        let mut iter = self.iter(Family::Blk, options);
        iter.seek_to_first();
        while let Some(value) = iter.value() {
            let row = block_rows::BlockRow::decode(value);
            visit(&row.map_err(|row| Family::Blk.damaged(row))?);
            iter.next();
        }
        Ok(iter.status()?)
    }

    /// Where the block at `height` lies.
    pub(crate) fn position(&self, height: Height) -> Result<Option<BlockPosition>, StoreError> {
        let decode = block_rows::decode_position;
        self.get(Family::Pos, block_rows::key(height), decode)
    }

    /// Numbers of the transactions that may have the id with this keyed hash, newest
    /// first.
    pub(crate) fn tx_candidates(&self, hash: u64) -> Result<Vec<TxNum>, StoreError> {
        let mut candidates = self.tx_lookup().candidates(hash, 0..TxNum::MAX)?;
        candidates.reverse();
        Ok(candidates)
    }

    /// A cursor over `tx` rows, for many look-ups.
    pub(crate) fn tx_lookup(&self) -> TxLookup<'_> {
        let mut options = ReadOptions::default();
        options.set_prefix_same_as_start(true);
        TxLookup {
            iter: self.iter(Family::Tx, options),
        }
    }

    /// A cursor over `utxo` rows, for many look-ups.
    pub(crate) fn utxo_lookup(&self) -> UtxoLookup<'_> {
        let mut options = ReadOptions::default();
        options.set_prefix_same_as_start(true);
        UtxoLookup {
            iter: self.iter(Family::Utxo, options),
        }
    }

    /// Whether transaction `txnum` has an id with this keyed hash: the proof that
    /// bytes read at its position are its bytes.
    pub(crate) fn is_tx(&self, hash: u64, txnum: TxNum) -> Result<bool, StoreError> {
        let key = tx::key(tx::prefix(hash), txnum);
        Ok(self.get(Family::Tx, key, |_| Ok(()))?.is_some())
    }

    /// A cursor over `txpos` rows.
    pub(crate) fn tx_positions(&self) -> TxPositions<'_> {
        TxPositions {
            iter: RefCell::new(self.iter(Family::TxPos, ReadOptions::default())),
        }
    }

    /// Transactions of a script, newest first, from those before `before` on.
    pub(crate) fn history(
        &self,
        script: ScriptKey,
        before: Option<TxNum>,
    ) -> impl Iterator<Item = Result<TxNum, StoreError>> {
        self.hist_rows(script, before, |key, _| script::hist_txnum(key))
    }

    /// The same, with what each does to the script.
    pub(crate) fn changes(
        &self,
        script: ScriptKey,
        before: Option<TxNum>,
    ) -> impl Iterator<Item = Result<(TxNum, script::Change), StoreError>> {
        self.hist_rows(script, before, |key, value| {
            Ok((script::hist_txnum(key)?, script::Change::decode(value)?))
        })
    }

    fn hist_rows<T>(
        &self,
        script: ScriptKey,
        before: Option<TxNum>,
        decode: impl Fn(&[u8], &[u8]) -> Result<T, BadRow>,
    ) -> impl Iterator<Item = Result<T, StoreError>> {
        let mut options = ReadOptions::default();
        options.set_prefix_same_as_start(true);
        options.set_iterate_lower_bound(script::hist_key(script, 0).as_ref());
        let mut iter = self.iter(Family::Hist, options);
        let upper = before.map_or(Some(TxNum::MAX), |before| before.checked_sub(1));
        if let Some(upper) = upper {
            iter.seek_for_prev(script::hist_key(script, upper));
        }
        let prefix = script.to_be_bytes();
        std::iter::from_fn(move || {
            let Some((key, value)) = iter.item().filter(|(key, _)| key.starts_with(&prefix)) else {
                return iter.status().err().map(|err| Err(err.into()));
            };
            let row = decode(key, value).map_err(|row| Family::Hist.damaged(row));
            iter.prev();
            Some(row)
        })
    }

    /// Whether a script occurs in a transaction.
    pub(crate) fn has_history(&self, script: ScriptKey, txnum: TxNum) -> Result<bool, StoreError> {
        let key = script::hist_key(script, txnum);
        Ok(self.get(Family::Hist, key, |_| Ok(()))?.is_some())
    }

    /// Unspent outputs of a script in chain order, as transaction, index and
    /// satoshis, from that output on; at most `limit`.
    pub(crate) fn utxos_from(
        &self,
        script: ScriptKey,
        from: (TxNum, u32),
        limit: usize,
    ) -> Result<Vec<(TxNum, u32, u64)>, StoreError> {
        let mut utxos = Vec::new();
        if limit > 0 {
            self.for_each_utxo_from(script, from, |txnum, vout, amount| {
                utxos.push((txnum, vout, amount));
                utxos.len() < limit
            })?;
        }
        Ok(utxos)
    }

    /// Gives the unspent outputs of a script to `visit` in chain order, as long as that says
    /// to go on.
    pub(super) fn for_each_utxo(
        &self,
        script: ScriptKey,
        visit: impl FnMut(TxNum, u32, u64) -> bool,
    ) -> Result<(), StoreError> {
        self.for_each_utxo_from(script, (0, 0), visit)
    }

    fn for_each_utxo_from(
        &self,
        script: ScriptKey,
        (txnum, vout): (TxNum, u32),
        mut visit: impl FnMut(TxNum, u32, u64) -> bool,
    ) -> Result<(), StoreError> {
        let mut options = ReadOptions::default();
        options.set_prefix_same_as_start(true);
        let mut iter = self.iter(Family::Utxo, options);
        let prefix = script.to_be_bytes();
        iter.seek(script::utxo_key(script, txnum, vout));
        while let Some((key, value)) = iter.item() {
            if !key.starts_with(&prefix) {
                break;
            }
            let row = script::utxo_outpoint(key)
                .and_then(|(txnum, vout)| Ok((txnum, vout, script::amount(value)?)));
            let (txnum, vout, amount) = row.map_err(|row| Family::Utxo.damaged(row))?;
            if !visit(txnum, vout, amount) {
                return Ok(());
            }
            iter.next();
        }
        Ok(iter.status()?)
    }

    /// The transaction that spends an output.
    pub(crate) fn spender(&self, funding: TxNum, vout: u32) -> Result<Option<TxNum>, StoreError> {
        let decode = |value: &[u8]| spend::spender(funding, value);
        self.get(Family::Spend, spend::key(funding, vout), decode)
    }

    /// The spent outputs of a transaction with their spenders, by rising index.
    pub(crate) fn spenders(&self, funding: TxNum) -> Result<Vec<(u32, TxNum)>, StoreError> {
        let mut iter = self.iter(Family::Spend, ReadOptions::default());
        let prefix = funding.to_be_bytes();
        let mut spenders = Vec::new();
        iter.seek(prefix);
        while let Some((key, value)) = iter.item() {
            if !key.starts_with(&prefix) {
                break;
            }
            let row = spend::output(key)
                .and_then(|(_, vout)| Ok((vout, spend::spender(funding, value)?)));
            spenders.push(row.map_err(|row| Family::Spend.damaged(row))?);
            iter.next();
        }
        iter.status()?;
        Ok(spenders)
    }
}

/// A cursor over the rows of a family. When there is no row any more,
/// [`status`](Self::status) tells whether that is the end or an error.
pub(crate) struct Rows<'a> {
    iter: DBRawIterator<'a>,
}

impl Rows<'_> {
    /// Key and value of the row that it stands at.
    pub(crate) fn item(&self) -> Option<(&[u8], &[u8])> {
        self.iter.item()
    }

    /// Goes on to the next row. Not to be called behind the last one.
    pub(crate) fn next(&mut self) {
        self.iter.next();
    }

    /// The error that ended it, if one did.
    pub(crate) fn status(&self) -> Result<(), StoreError> {
        Ok(self.iter.status()?)
    }
}

/// Says which outputs are spent, for many outputs in chain order.
pub(crate) struct SpentInOrder<'a> {
    rows: Rows<'a>,
}

impl SpentInOrder<'_> {
    /// Whether this output has a `spend` row. To be asked in chain order: rows before it are
    /// passed for good.
    pub(crate) fn is_spent(&mut self, funding: TxNum, vout: u32) -> Result<bool, StoreError> {
        let wanted = spend::key(funding, vout);
        while let Some((key, _)) = self.rows.item() {
            match key.cmp(wanted.as_ref()) {
                cmp::Ordering::Less => self.rows.next(),
                cmp::Ordering::Equal => return Ok(true),
                cmp::Ordering::Greater => return Ok(false),
            }
        }
        self.rows.status()?;
        Ok(false)
    }
}

/// Finds transaction numbers by keyed hash.
pub(crate) struct TxLookup<'a> {
    iter: DBRawIterator<'a>,
}

impl TxLookup<'_> {
    /// Numbers within `range` of the transactions that may have the id with this
    /// keyed hash, oldest first.
    pub(crate) fn candidates(
        &mut self,
        hash: u64,
        range: Range<TxNum>,
    ) -> Result<Vec<TxNum>, StoreError> {
        let prefix = tx::prefix(hash);
        let mut candidates = Vec::new();
        self.iter.seek(tx::key(prefix, range.start));
        while let Some(key) = self.iter.key().filter(|key| key.starts_with(&prefix)) {
            let txnum = tx::txnum(key).map_err(|row| Family::Tx.damaged(row))?;
            if txnum >= range.end {
                break;
            }
            candidates.push(txnum);
            self.iter.next();
        }
        self.iter.status()?;
        Ok(candidates)
    }
}

/// Finds unspent outputs.
pub(crate) struct UtxoLookup<'a> {
    iter: DBRawIterator<'a>,
}

/// A block with more outputs of a script than this is looked through in another way.
const MAX_UTXOS: usize = 32;

impl UtxoLookup<'_> {
    /// The only transaction within `range` that has an unspent output of this script at this
    /// index. `None` if there are several, or none, or too many outputs to look at.
    pub(crate) fn only(
        &mut self,
        script: ScriptKey,
        range: Range<TxNum>,
        vout: u32,
    ) -> Result<Option<TxNum>, StoreError> {
        let prefix = script.to_be_bytes();
        let (mut only, mut visited) = (None, 0);
        self.iter.seek(script::utxo_key(script, range.start, 0));
        while let Some(key) = self.iter.key().filter(|key| key.starts_with(&prefix)) {
            let row = script::utxo_outpoint(key).map_err(|row| Family::Utxo.damaged(row))?;
            if row.0 >= range.end {
                break;
            }
            visited += 1;
            if visited > MAX_UTXOS || (row.1 == vout && only.is_some()) {
                return Ok(None);
            }
            if row.1 == vout {
                only = Some(row.0);
            }
            self.iter.next();
        }
        self.iter.status()?;
        Ok(only)
    }
}

/// Finds the positions of transactions.
pub(crate) struct TxPositions<'a> {
    iter: RefCell<DBRawIterator<'a>>,
}

impl TxPositions<'_> {
    /// Position of transaction `txnum`; `None` behind the last one.
    pub(crate) fn find(&self, txnum: TxNum) -> Result<Option<txpos::TxPos>, StoreError> {
        let mut iter = self.iter.borrow_mut();
        iter.seek_for_prev(txnum.to_be_bytes());
        let Some((key, value)) = iter.item() else {
            iter.status()?;
            return Ok(None);
        };
        let damaged = |row| Family::TxPos.damaged(row);
        for pos in txpos::iter_chunk(key, value).map_err(damaged)? {
            let pos = pos.map_err(damaged)?;
            if pos.txnum == txnum {
                return Ok(Some(pos));
            }
        }
        Ok(None)
    }

    /// Positions of a range of transactions, in chain order; shorter if it goes
    /// behind the last one.
    pub(crate) fn range(&self, range: Range<TxNum>) -> Result<Vec<txpos::TxPos>, StoreError> {
        let mut iter = self.iter.borrow_mut();
        let mut found = Vec::with_capacity(range.len());
        let damaged = |row| Family::TxPos.damaged(row);
        iter.seek_for_prev(range.start.to_be_bytes());
        while let Some((key, value)) = iter.item() {
            for pos in txpos::iter_chunk(key, value).map_err(damaged)? {
                let pos = pos.map_err(damaged)?;
                if pos.txnum >= range.end {
                    return Ok(found);
                }
                if pos.txnum >= range.start {
                    found.push(pos);
                }
            }
            iter.next();
        }
        iter.status()?;
        Ok(found)
    }
}

/// Reads a whole family in key order, whatever its prefix filter says.
pub(super) fn for_each_row(
    db: &DB,
    cf: &impl AsColumnFamilyRef,
    mut row: impl FnMut(&[u8], &[u8]),
) -> Result<(), StoreError> {
    let mut options = ReadOptions::default();
    options.set_total_order_seek(true);
    options.fill_cache(false);
    let mut iter = db.raw_iterator_cf_opt(cf, options);
    iter.seek_to_first();
    while let Some((key, value)) = iter.item() {
        row(key, value);
        iter.next();
    }
    Ok(iter.status()?)
}
