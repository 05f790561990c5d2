//! Scripts: totals, transactions, unspent outputs.

use pulse_primitives::bitcoin::Txid;

use super::{
    Cursor, QueryError, ScriptHash, View,
    model::{ScriptStats, TxDetail},
    read::script_hash,
};
use crate::{rows::TxNum, store::reader::TxPositions};

impl View<'_> {
    /// Confirmed totals of a script; zeros if it was never used.
    ///
    /// # Errors
    /// [`QueryError::Store`].
    pub fn script_stats(&self, script: &ScriptHash) -> Result<ScriptStats, QueryError> {
        Ok(self.reader.totals(self.reader.keys.script_hash(script))?)
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
            let page = self.history_before(script, before, limit - txs.len())?;
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

    /// Which transactions of a script come after `cursor`, newest first, at most `limit`.
    /// `None` if the cursor's block is not in this view.
    ///
    /// # Errors
    /// [`QueryError::Store`].
    pub fn history_page(
        &self,
        script: &ScriptHash,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Option<HistoryPage>, QueryError> {
        let before = match cursor {
            None => None,
            Some(cursor) => match self.at_cursor(cursor)? {
                Some(txnum) => Some(txnum),
                None => return Ok(None),
            },
        };
        self.history_before(script, before, limit).map(Some)
    }

    /// As [`View::history_page`], after a transaction. `None` if that is not in the history.
    ///
    /// # Errors
    /// As [`View::script_txs`].
    pub fn history_page_after(
        &self,
        script: &ScriptHash,
        after: &Txid,
        limit: usize,
    ) -> Result<Option<HistoryPage>, QueryError> {
        match self.history_txnum(script, after)? {
            Some(txnum) => self.history_before(script, Some(txnum), limit).map(Some),
            None => Ok(None),
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

    fn history_before(
        &self,
        script: &ScriptHash,
        before: Option<TxNum>,
        limit: usize,
    ) -> Result<HistoryPage, QueryError> {
        let key = self.reader.keys.script_hash(script);
        let rows = self.reader.history(key, before);
        let rows = rows.take(limit.saturating_add(1));
        let mut txnums = rows.collect::<Result<Vec<_>, _>>()?;
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
        let tx = self.read_tx(self.tx_pos(positions, txnum)?)?;
        let block = self.block_ref(tx.pos.height)?;
        let detail = self.detail(tx, block)?;
        let mut outputs = detail.prevouts.iter().chain(&detail.tx.output);
        let found = outputs.any(|output| script_hash(output) == *script);
        Ok(Some(detail).filter(|_| found))
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
    /// Where the next page begins; `None` after the last one.
    #[must_use]
    pub fn next(&self) -> Option<Cursor> {
        self.next
    }
}
