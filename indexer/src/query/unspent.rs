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
    bitcoin::{OutPoint, ScriptBuf, Txid},
    tip::ChainTip,
};
use quick_cache::{Weighter, sync::Cache};

use super::{
    Cursor, Heights, QueryError, ScriptHash, View,
    model::Utxo,
    read::{is_of, missing},
};
use crate::{
    rows::TxNum,
    store::{Family, reader::TxPositions},
};

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

/// Unspent outputs of a script that follow each other in the chain.
#[derive(Debug)]
pub struct UnspentPage {
    /// Transaction, index and satoshis, in chain order.
    rows: Vec<(TxNum, u32, u64)>,
    next: Option<Cursor>,
    has_more: bool,
}

impl UnspentPage {
    /// Number of outputs, those of other scripts with the same key included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether more outputs follow.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// Where the next page begins; `None` after the last one, and after an empty one.
    #[must_use]
    pub fn next(&self) -> Option<Cursor> {
        self.next
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
        // Some of the rows may be another script's.
        let most = match self.query.shared.store.collides(key) {
            true => usize::MAX,
            false => limit,
        };
        let Some(page) = self.unspent_page(script, Heights::ALL, None, most)? else {
            return Ok(None);
        };
        if page.has_more {
            return Ok(None);
        }
        let mut utxos = Vec::with_capacity(page.len());
        self.page_utxos(script, &page, |utxo| {
            utxos.push(utxo);
            Ok::<_, QueryError>(())
        })?;
        Ok(Some(utxos).filter(|utxos| utxos.len() <= limit))
    }

    /// Which unspent outputs of a script that the blocks of `heights` made come after `cursor`
    /// in the chain, at most `limit`. `None` if the cursor's block is not in this view.
    ///
    /// # Errors
    /// [`QueryError::Store`].
    pub fn unspent_page(
        &self,
        script: &ScriptHash,
        heights: Heights,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Option<UnspentPage>, QueryError> {
        let from = match cursor {
            None => (0, 0),
            Some(cursor) => match self.at_cursor(cursor)? {
                Some(txnum) => (txnum, cursor.vout.saturating_add(1)),
                None => return Ok(None),
            },
        };
        let key = self.reader.keys.script_hash(script);
        let mut rows = match self.txnums(heights)? {
            None => Vec::new(),
            Some(range) => {
                let from = from.max((range.start, 0));
                let mut rows = (self.reader).utxos_from(key, from, limit.saturating_add(1))?;
                rows.truncate(rows.partition_point(|(txnum, ..)| *txnum < range.end));
                rows
            }
        };
        let next = match rows.get(limit) {
            Some(_) if limit > 0 => {
                let (txnum, vout, _) = rows[limit - 1];
                Some(self.cursor_of(txnum, vout)?)
            }
            _ => None,
        };
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        Ok(Some(UnspentPage {
            rows,
            next,
            has_more,
        }))
    }

    /// The script itself, read from an output of a page; `None` if the page has none.
    ///
    /// # Errors
    /// As [`View::script_utxos`].
    pub fn page_script(
        &self,
        script: &ScriptHash,
        page: &UnspentPage,
    ) -> Result<Option<ScriptBuf>, QueryError> {
        let positions = self.reader.tx_positions();
        for (txnum, ..) in &page.rows {
            let tx = self.read_tx(self.tx_pos(&positions, *txnum)?)?;
            if let Some(output) = tx.tx.output.iter().find(|output| is_of(output, script)) {
                return Ok(Some(output.script_pubkey.clone()));
            }
        }
        Ok(None)
    }

    /// Gives the outputs of a page to `visit`, one by one, each transaction read when it is
    /// its turn. Ends with the first error of `visit`; what was proven until then is
    /// remembered all the same, so that impatient clients get further each time.
    ///
    /// # Errors
    /// As [`View::script_utxos`], or that of `visit`.
    pub fn page_utxos<E: From<QueryError>>(
        &self,
        script: &ScriptHash,
        page: &UnspentPage,
        visit: impl FnMut(Utxo) -> Result<(), E>,
    ) -> Result<(), E> {
        let known = match page.len() >= MANY {
            true => self.known_outputs(script)?,
            false => None,
        };
        let mut known = known.as_ref().map_or(&[][..], |known| &known.outputs);
        let remembered = known.len();
        let mut outputs = Vec::new();
        let result = self.visit_page(script, page, &mut known, &mut outputs, visit);
        let has_new = outputs.iter().any(|(_, is_new)| *is_new);
        let outputs = outputs.into_iter().map(|(output, _)| output);
        // Behind an error is what was known before.
        let outputs: Vec<_> = match result {
            Ok(()) => outputs.collect(),
            Err(_) => outputs.chain(known.iter().copied()).collect(),
        };
        // One page of many does not take the place of all of them.
        let is_worth_it = has_new && outputs.len() >= remembered.max(MANY);
        if let Some(tip) = self.tip.filter(|_| is_worth_it) {
            let proven = Arc::new(Proven { tip, outputs });
            self.query.unspent.0.insert(*script, proven);
        }
        result
    }

    /// [`View::page_utxos`] with what is known of the outputs, in chain order, which it leaves
    /// behind the last visited transaction. Notes each output, and whether it had to be read.
    fn visit_page<E: From<QueryError>>(
        &self,
        script: &ScriptHash,
        page: &UnspentPage,
        known: &mut &[ProvenOutput],
        outputs: &mut Vec<(ProvenOutput, bool)>,
        mut visit: impl FnMut(Utxo) -> Result<(), E>,
    ) -> Result<(), E> {
        let positions = self.reader.tx_positions();
        for group in page.rows.chunk_by(|a, b| a.0 == b.0) {
            let txnum = group[0].0;
            let skip = known.partition_point(|output| output.txnum < txnum);
            let rest = &known[skip..];
            let of_tx = rest.iter().take_while(|output| output.txnum == txnum);
            let (of_tx, rest) = rest.split_at(of_tx.count());
            *known = rest;
            let mut read = None;
            for (_, vout, value) in group {
                let found = of_tx.iter().find(|output| output.vout == *vout);
                let output = match found {
                    Some(output) => Some(*output),
                    None => self.prove_output(script, &positions, (txnum, *vout), &mut read)?,
                };
                let Some(output) = output else { continue };
                outputs.push((output, found.is_none()));
                visit(Utxo {
                    outpoint: OutPoint::new(output.txid, *vout),
                    value: *value,
                    block: self.block_ref(output.height)?,
                })?;
            }
        }
        Ok(())
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
        let output = output.ok_or_else(|| missing(Family::Utxo))?;
        if !is_of(output, script) {
            self.note_collision(script)?;
            return Ok(None);
        }
        Ok(Some(ProvenOutput {
            txnum,
            vout,
            height: tx.pos.height,
            txid: tx.txid,
        }))
    }
}
