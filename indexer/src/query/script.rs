//! Scripts: totals, transactions, unspent outputs.

use pulse_primitives::bitcoin::{OutPoint, Txid};

use super::{
    QueryError, ScriptHash, View,
    model::{ScriptStats, TxDetail, Utxo},
    read::{missing, script_hash},
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

    /// Confirmed unspent outputs of a script in chain order, `None` when there are
    /// more than `limit`.
    ///
    /// # Errors
    /// As [`View::script_txs`].
    pub fn script_utxos(
        &self,
        script: &ScriptHash,
        limit: usize,
    ) -> Result<Option<Vec<Utxo>>, QueryError> {
        let key = self.reader.keys.script_hash(script);
        let rows = self.reader.utxos(key, limit.saturating_add(1))?;
        if rows.len() > limit {
            return Ok(None);
        }
        let positions = self.reader.tx_positions();
        let mut utxos = Vec::with_capacity(rows.len());
        for outputs in rows.chunk_by(|a, b| a.0 == b.0) {
            let tx = self.read_tx(self.tx_pos(&positions, outputs[0].0)?)?;
            let block = self.block_ref(tx.pos.height)?;
            for (_, vout, value) in outputs {
                let index = usize::try_from(*vout).ok();
                let output = index.and_then(|index| tx.tx.output.get(index));
                let output = output.ok_or_else(|| missing("utxo"))?;
                if script_hash(output) == *script {
                    utxos.push(Utxo {
                        outpoint: OutPoint {
                            txid: tx.txid,
                            vout: *vout,
                        },
                        value: *value,
                        block,
                    });
                }
            }
        }
        Ok(Some(utxos))
    }
}
