//! Unspent outputs of a script.
//!
//! The rows say which outputs are unspent, but not their txids, which stand in the block
//! files. Reading thousands of transactions for one answer takes a while, so the txids
//! that were proven for a script with many outputs are remembered.
//!
//! # Correctness
//! What was proven in one view holds in another if the other's chain contains the tip of
//! the first: numbers of transactions up to that tip then mean the same transactions.
//! Whether an output is unspent is always read from the rows of the view.

use std::sync::Arc;

use pulse_primitives::{
    bitcoin::{OutPoint, Txid},
    tip::ChainTip,
};
use quick_cache::{Weighter, sync::Cache};

use super::{
    QueryError, ScriptHash, View,
    model::Utxo,
    read::{missing, script_hash},
};
use crate::{rows::TxNum, store::reader::TxPositions};

/// Outputs from which remembering is worth it.
const MANY: usize = 64;
/// Bytes of all that is remembered.
const CACHE_BYTES: u64 = 32 << 20;

/// What is remembered, by script.
pub(super) struct UnspentCache(Cache<ScriptHash, Arc<Proven>, ProvenWeight>);

impl Default for UnspentCache {
    fn default() -> Self {
        // The least that is remembered takes about four kilobytes.
        Self(Cache::with_weighter(1_024, CACHE_BYTES, ProvenWeight))
    }
}

/// Outputs of one script, proven in one view.
struct Proven {
    /// Tip of that view.
    tip: ChainTip,
    /// In chain order.
    outputs: Vec<ProvenOutput>,
}

#[derive(Clone, Copy)]
struct ProvenOutput {
    txnum: TxNum,
    vout: u32,
    height: u32,
    txid: Txid,
}

#[derive(Clone)]
struct ProvenWeight;

impl Weighter<ScriptHash, Arc<Proven>> for ProvenWeight {
    fn weight(&self, _: &ScriptHash, proven: &Arc<Proven>) -> u64 {
        (size_of::<ProvenOutput>() * proven.outputs.capacity()) as u64 + 256
    }
}

impl View<'_> {
    /// Confirmed unspent outputs of a script in chain order, `None` when there are
    /// more than `limit`.
    ///
    /// # Errors
    /// [`QueryError::PositionRenewing`] if a transaction is not where the index says, or
    /// a failed read.
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
        let known = match rows.len() >= MANY {
            true => self.known_outputs(script)?,
            false => None,
        };
        let mut known = known.as_ref().map_or(&[][..], |known| &known.outputs);
        let positions = self.reader.tx_positions();
        let (mut outputs, mut utxos) = (Vec::new(), Vec::with_capacity(rows.len()));
        let mut has_new = false;
        for group in rows.chunk_by(|a, b| a.0 == b.0) {
            let txnum = group[0].0;
            let skip = known.iter().take_while(|output| output.txnum < txnum);
            known = &known[skip.count()..];
            let of_tx = known.iter().take_while(|output| output.txnum == txnum);
            let of_tx = &known[..of_tx.count()];
            let mut read = None;
            for (_, vout, value) in group {
                let found = of_tx.iter().find(|output| output.vout == *vout);
                let output = match found {
                    Some(output) => Some(*output),
                    None => {
                        has_new = true;
                        self.prove_output(script, &positions, (txnum, *vout), &mut read)?
                    }
                };
                let Some(output) = output else { continue };
                outputs.push(output);
                utxos.push(Utxo {
                    outpoint: OutPoint::new(output.txid, *vout),
                    value: *value,
                    block: self.block_ref(output.height)?,
                });
            }
        }
        if let Some(tip) = self.tip.filter(|_| has_new && outputs.len() >= MANY) {
            let proven = Arc::new(Proven { tip, outputs });
            self.query.unspent.0.insert(*script, proven);
        }
        Ok(Some(utxos))
    }

    /// What is remembered of a script, if it holds in this view.
    fn known_outputs(&self, script: &ScriptHash) -> Result<Option<Arc<Proven>>, QueryError> {
        let Some(proven) = self.query.unspent.0.get(script) else {
            return Ok(None);
        };
        let row = self.reader.block(proven.tip.height)?;
        let holds = row.is_some_and(|row| row.hash() == proven.tip.hash);
        Ok(holds.then_some(proven))
    }

    /// Reads the transaction of an output unless `read` holds it already; `None` if the
    /// output is another script's.
    fn prove_output(
        &self,
        script: &ScriptHash,
        positions: &TxPositions<'_>,
        (txnum, vout): (TxNum, u32),
        read: &mut Option<super::read::ProvenTx>,
    ) -> Result<Option<ProvenOutput>, QueryError> {
        let tx = match read {
            Some(tx) => tx,
            None => read.insert(self.read_tx(self.tx_pos(positions, txnum)?)?),
        };
        let index = usize::try_from(vout).ok();
        let output = index.and_then(|index| tx.tx.output.get(index));
        let output = output.ok_or_else(|| missing("utxo"))?;
        Ok((script_hash(output) == *script).then_some(ProvenOutput {
            txnum,
            vout,
            height: tx.pos.height,
            txid: tx.txid,
        }))
    }
}
