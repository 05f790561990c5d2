//! Scripts: totals, transactions, unspent outputs.

use pulse_primitives::bitcoin::Txid;

use super::{
    QueryError, ScriptHash, View,
    model::{ScriptStats, TxDetail},
    read::script_hash,
};

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
        let key = self.reader.keys.script_hash(script);
        let before = match after {
            None => None,
            Some(txid) => match self.find_tx_pos(txid)? {
                Some(pos) if self.reader.has_history(key, pos.txnum)? => Some(pos.txnum),
                _ => return Ok(Vec::new()),
            },
        };
        let positions = self.reader.tx_positions();
        let mut txs = Vec::new();
        for txnum in self.reader.history(key, before) {
            if txs.len() == limit {
                break;
            }
            let tx = self.read_tx(self.tx_pos(&positions, txnum?)?)?;
            let block = self.block_ref(tx.pos.height)?;
            let detail = self.detail(tx, block)?;
            let mut outputs = detail.prevouts.iter().chain(&detail.tx.output);
            if outputs.any(|output| script_hash(output) == *script) {
                txs.push(detail);
            }
        }
        Ok(txs)
    }
}
