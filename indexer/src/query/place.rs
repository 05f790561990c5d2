//! Places of transactions: from an id to where its block stands, and from a page of a history
//! to positions in blocks.

use std::collections::HashSet;

use pulse_primitives::bitcoin::Txid;

use super::{Cursor, QueryError, ScriptHash, View, model::TxDetail, script::HistoryPage};

impl View<'_> {
    /// Where the confirmed transaction of that id stands in the chain, if it is in the history
    /// of one of `scripts`.
    ///
    /// # Errors
    /// As [`View::tx_block`].
    pub fn place_of<'s>(
        &self,
        txid: &Txid,
        scripts: impl IntoIterator<Item = &'s ScriptHash>,
    ) -> Result<Option<Cursor>, QueryError> {
        let Some(pos) = self.find_tx_pos(txid)? else {
            return Ok(None);
        };
        for script in scripts {
            let key = self.reader.keys.script_hash(script);
            if self.reader.has_history(key, pos.txnum)? {
                return self.cursor_of(pos.txnum, u32::MAX).map(Some);
            }
        }
        Ok(None)
    }

    /// The transactions of a page of [`View::merged_page`] with their positions in their
    /// blocks, one by one, each read when it is asked for.
    pub fn placed_txs<'v>(
        &'v self,
        scripts: &'v HashSet<ScriptHash>,
        page: &'v HistoryPage,
    ) -> impl Iterator<Item = Result<(u32, TxDetail), QueryError>> + 'v {
        let positions = self.reader.tx_positions();
        page.txnums().iter().filter_map(move |txnum| {
            let read = || {
                let detail = self.detail_of(&positions, *txnum)?;
                let index = txnum.saturating_sub(self.row(detail.block.height)?.first_txnum);
                // Another script may share the key of one of them.
                Ok(Some((index, detail)).filter(|(_, detail)| detail.touches_any(scripts)))
            };
            read().transpose()
        })
    }
}
