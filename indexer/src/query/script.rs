//! Scripts: totals, transactions, unspent outputs.

use std::ops::Range;

use pulse_primitives::bitcoin::{TxOut, Txid};

use super::{
    Cursor, Heights, QueryError, ScriptHash, View,
    model::{ScriptStats, TxDetail},
    read::is_of,
};
use crate::{
    rows::TxNum,
    store::{StoreError, reader::TxPositions},
};

impl View<'_> {
    /// Confirmed totals of a script; zeros if it was never used.
    ///
    /// Once it was noticed (by reading transactions of the one or the other) that another
    /// script has the same key, the transactions of both are read to tell them apart.
    ///
    /// # Errors
    /// [`QueryError::Store`]; with such a script also as [`View::script_txs`].
    pub fn script_stats(&self, script: &ScriptHash) -> Result<ScriptStats, QueryError> {
        let key = self.reader.keys.script_hash(script);
        if self.query.shared.store.collides(key) {
            return self.count_script(script);
        }
        self.remembered_totals(script, || Ok(self.reader.totals(key)?))
    }

    /// Remembers that another script has the key of this one.
    pub(super) fn note_collision(&self, script: &ScriptHash) -> Result<(), StoreError> {
        let key = self.reader.keys.script_hash(script);
        self.query.shared.store.note_collision(key)
    }

    /// Totals of a script by reading all transactions under its key.
    fn count_script(&self, script: &ScriptHash) -> Result<ScriptStats, QueryError> {
        let key = self.reader.keys.script_hash(script);
        let positions = self.reader.tx_positions();
        let mut stats = ScriptStats::default();
        for txnum in self.reader.history(key, None) {
            let tx = self.read_tx(self.tx_pos(&positions, txnum?)?)?;
            let prevouts = self.read_prevouts(&tx)?;
            let sum = |outputs: &[TxOut]| {
                let own = outputs.iter().filter(|o| is_of(o, script));
                own.fold((0, 0), |(count, sum): (u64, u64), output| {
                    (count + 1, sum.wrapping_add(output.value.to_sat()))
                })
            };
            let (funded, spent) = (sum(&tx.tx.output), sum(&prevouts));
            if funded.0 + spent.0 > 0 {
                stats.tx_count += 1;
            }
            stats.funded_txo_count += funded.0;
            stats.funded_txo_sum = stats.funded_txo_sum.wrapping_add(funded.1);
            stats.spent_txo_count += spent.0;
            stats.spent_txo_sum = stats.spent_txo_sum.wrapping_add(spent.1);
        }
        Ok(stats)
    }

    /// Up to `limit` confirmed transactions of a script, newest first, starting after
    /// `after` (exclusive). Empty when `after` is not in the history.
    ///
    /// # Errors
    /// [`QueryError::PositionRenewing`] if one is not where the index says, or a
    /// failed read.
    pub fn script_txs(
        &self,
        script: &ScriptHash,
        after: Option<&Txid>,
        limit: usize,
    ) -> Result<Vec<TxDetail>, QueryError> {
        let mut txs = Vec::new();
        let mut before = match after {
            None => None,
            Some(txid) => match self.history_txnum(script, txid)? {
                Some(txnum) => Some(txnum),
                None => return Ok(Vec::new()),
            },
        };
        // More than one round only if another script has the same key.
        while txs.len() < limit {
            let end = before.unwrap_or(TxNum::MAX);
            let page = self.history_within(script, 0..end, limit - txs.len())?;
            for tx in self.page_txs(script, &page) {
                txs.push(tx?);
            }
            before = page.txnums.last().copied();
            if page.next.is_none() {
                break;
            }
        }
        Ok(txs)
    }

    /// Which transactions of a script in the blocks of `heights` come after `cursor`, newest
    /// first, at most `limit`. `None` if the cursor's block is not in this view.
    ///
    /// # Errors
    /// [`QueryError::Store`].
    pub fn history_page(
        &self,
        script: &ScriptHash,
        heights: Heights,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Option<HistoryPage>, QueryError> {
        let before = match cursor {
            None => TxNum::MAX,
            Some(cursor) => match self.at_cursor(cursor)? {
                Some(txnum) => txnum,
                None => return Ok(None),
            },
        };
        self.page_before(script, heights, before, limit).map(Some)
    }

    /// As [`View::history_page`], after a transaction. `None` if that is not in the history.
    ///
    /// # Errors
    /// As [`View::script_txs`].
    pub fn history_page_after(
        &self,
        script: &ScriptHash,
        heights: Heights,
        after: &Txid,
        limit: usize,
    ) -> Result<Option<HistoryPage>, QueryError> {
        match self.history_txnum(script, after)? {
            Some(txnum) => self.page_before(script, heights, txnum, limit).map(Some),
            None => Ok(None),
        }
    }

    /// Of a script in the blocks of `heights`, what comes before a transaction of the chain.
    fn page_before(
        &self,
        script: &ScriptHash,
        heights: Heights,
        before: TxNum,
        limit: usize,
    ) -> Result<HistoryPage, QueryError> {
        match self.txnums(heights)? {
            Some(range) => {
                let end = before.min(range.end);
                self.history_within(script, range.start..end, limit)
            }
            None => self.page_of(Vec::new(), limit),
        }
    }

    /// The transactions of a page, one by one, each read when it is asked for.
    pub fn page_txs<'v>(
        &'v self,
        script: &'v ScriptHash,
        page: &'v HistoryPage,
    ) -> impl Iterator<Item = Result<TxDetail, QueryError>> + 'v {
        let positions = self.reader.tx_positions();
        let txnums = page.txnums.iter();
        txnums.filter_map(move |txnum| self.history_tx(script, &positions, *txnum).transpose())
    }

    fn history_txnum(&self, script: &ScriptHash, txid: &Txid) -> Result<Option<TxNum>, QueryError> {
        let key = self.reader.keys.script_hash(script);
        Ok(match self.find_tx_pos(txid)? {
            Some(pos) if self.reader.has_history(key, pos.txnum)? => Some(pos.txnum),
            _ => None,
        })
    }

    fn history_within(
        &self,
        script: &ScriptHash,
        range: Range<TxNum>,
        limit: usize,
    ) -> Result<HistoryPage, QueryError> {
        let key = self.reader.keys.script_hash(script);
        let before = Some(range.end).filter(|end| *end < TxNum::MAX);
        let rows = self.reader.history(key, before);
        let rows = rows.take_while(|row| row.as_ref().map_or(true, |txnum| *txnum >= range.start));
        let rows = rows.take(limit.saturating_add(1));
        self.page_of(rows.collect::<Result<Vec<_>, _>>()?, limit)
    }

    /// The page that `limit` of these are, with one more if others follow.
    pub(super) fn page_of(
        &self,
        mut txnums: Vec<TxNum>,
        limit: usize,
    ) -> Result<HistoryPage, QueryError> {
        let next = match (txnums.len() > limit, limit) {
            (true, 1..) => Some(self.cursor_of(txnums[limit - 1], u32::MAX)?),
            _ => None,
        };
        txnums.truncate(limit);
        Ok(HistoryPage { txnums, next })
    }

    /// A transaction of a script's history; `None` if it is another script's that has the
    /// same key.
    fn history_tx(
        &self,
        script: &ScriptHash,
        positions: &TxPositions<'_>,
        txnum: TxNum,
    ) -> Result<Option<TxDetail>, QueryError> {
        let detail = self.detail_of(positions, txnum)?;
        let mut outputs = detail.prevouts.iter().chain(&detail.tx.output);
        if outputs.any(|output| is_of(output, script)) {
            return Ok(Some(detail));
        }
        self.note_collision(script)?;
        Ok(None)
    }
}

/// Transactions of a script that follow each other in its history.
#[derive(Debug)]
pub struct HistoryPage {
    /// Newest first.
    txnums: Vec<TxNum>,
    /// The last of them, if older ones follow.
    next: Option<Cursor>,
}

impl HistoryPage {
    pub(super) fn txnums(&self) -> &[TxNum] {
        &self.txnums
    }

    /// Where the next page begins; `None` after the last one.
    #[must_use]
    pub fn next(&self) -> Option<Cursor> {
        self.next
    }
}
