//! Scripts: totals, transactions, unspent outputs.

use pulse_primitives::bitcoin::{OutPoint, TxOut, Txid};

use super::{
    QueryError, ScriptHash, View,
    model::{ScriptStats, TxDetail, Utxo},
    read::{missing, script_hash},
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
        Ok(self.reader.totals(key)?)
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
                let own = outputs.iter().filter(|o| script_hash(o) == *script);
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
            } else {
                self.query.shared.store.note_collision(key)?;
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
        // Some of the rows may be another script's.
        let shared = self.query.shared.store.collides(key);
        let most = if shared { usize::MAX } else { limit };
        let rows = self.reader.utxos(key, most.saturating_add(1))?;
        if rows.len() > most {
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
                } else {
                    self.query.shared.store.note_collision(key)?;
                }
            }
        }
        Ok(Some(utxos).filter(|utxos| utxos.len() <= limit))
    }
}
