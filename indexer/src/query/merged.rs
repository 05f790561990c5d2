//! The transactions of many scripts as one list, each once.
//!
//! # Limits
//! A page takes as many rows of each script as it has entries, and reads as many transactions.

use std::collections::{BTreeSet, HashSet};

use super::{Cursor, QueryError, ScriptHash, View, model::TxDetail, script::HistoryPage};
use crate::rows::TxNum;

impl View<'_> {
    /// Which transactions of any of `scripts` come after `cursor`, newest first, at most
    /// `limit`. `None` if the cursor's block is not in this view.
    ///
    /// # Errors
    /// [`QueryError::Store`].
    pub fn merged_page<'s>(
        &self,
        scripts: impl IntoIterator<Item = &'s ScriptHash>,
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
        let most = limit.saturating_add(1);
        let mut newest = BTreeSet::<TxNum>::new();
        for script in scripts {
            let key = self.reader.keys.script_hash(script);
            for txnum in self.reader.history(key, before) {
                let txnum = txnum?;
                if newest.len() == most {
                    // Older ones of this script would come behind the page, too.
                    if newest.first().is_some_and(|oldest| txnum < *oldest) {
                        break;
                    }
                    if newest.insert(txnum) {
                        newest.pop_first();
                    }
                } else {
                    newest.insert(txnum);
                }
            }
        }
        self.page_of(newest.into_iter().rev().collect(), limit)
            .map(Some)
    }

    /// The transactions of a page of [`View::merged_page`], one by one, each read when it is
    /// asked for.
    pub fn merged_txs<'v>(
        &'v self,
        scripts: &'v HashSet<ScriptHash>,
        page: &'v HistoryPage,
    ) -> impl Iterator<Item = Result<TxDetail, QueryError>> + 'v {
        let positions = self.reader.tx_positions();
        page.txnums().iter().filter_map(move |txnum| {
            let read = || {
                let detail = self.detail_of(&positions, *txnum)?;
                // Another script may share the key of one of them.
                Ok(Some(detail).filter(|detail| detail.touches_any(scripts)))
            };
            read().transpose()
        })
    }
}
