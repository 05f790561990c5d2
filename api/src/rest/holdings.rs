//! What one script holds and did, as lists of answers have it: its unspent outputs, and its
//! transactions, each with the unconfirmed part that was copied at the same block.
//!
//! found (nothing is read yet that would be long) -> limits -> written into a [`List`]

use std::collections::HashSet;

use pulse_indexer::query::{Cursor, Heights, HistoryPage, ScriptHash, UnspentPage};
use pulse_primitives::{
    bitcoin::{
        Amount, OutPoint, Script, ScriptBuf,
        hashes::{Hash, sha256},
    },
    mempool::{MempoolTx, ScriptOutputs},
};

use super::{
    error::RestError,
    list::List,
    model::{TxJson, UtxoJson},
    params::Page,
    snapshot::Snapshot,
};

/// The unspent outputs of a script, or a page of them: confirmed ones in chain order, then
/// unconfirmed ones, without those that the mempool spends.
pub(super) struct Unspent {
    script: ScriptHash,
    page: UnspentPage,
    /// Confirmed or not; the mempool spends them.
    spent: HashSet<OutPoint>,
    unconfirmed: Vec<(OutPoint, Amount)>,
}

impl Unspent {
    /// Finds the page that is asked for, or all of them if there are no more than `most`.
    /// `outputs` is what the mempool of the same block says.
    ///
    /// # Errors
    /// [`RestError::TooManyUtxos`], [`RestError::CursorGone`], or a failed read.
    pub(super) fn find(
        at: &Snapshot<'_>,
        script: &ScriptHash,
        outputs: ScriptOutputs,
        heights: Heights,
        asked: Option<Page>,
        most: usize,
    ) -> Result<Self, RestError> {
        let (limit, cursor) = asked.map_or((most, None), |page| (page.limit, page.cursor));
        let spent: HashSet<_> = outputs.spent.into_iter().collect();
        // Of a whole answer the limit is on what is left after the mempool's spends.
        let rows = match asked {
            Some(_) => limit,
            None => limit.saturating_add(spent.len()),
        };
        let page = at
            .view
            .unspent_page(script, heights, cursor.as_ref(), rows)?;
        let found = Self {
            script: *script,
            page: page.ok_or(RestError::CursorGone)?,
            spent,
            // They will be above all blocks.
            unconfirmed: match heights.to {
                None => outputs.unspent,
                Some(_) => Vec::new(),
            },
        };
        if asked.is_none() {
            found.require_at_most(limit, at)?;
        }
        Ok(found)
    }

    fn require_at_most(&self, limit: usize, at: &Snapshot<'_>) -> Result<(), RestError> {
        if self.page.has_more() {
            return Err(RestError::TooManyUtxos);
        }
        if self.page.len() + self.unconfirmed.len() > limit {
            let mut left = self.unconfirmed.len();
            at.view.page_utxos(&self.script, &self.page, |utxo| {
                left += usize::from(!self.spent.contains(&utxo.outpoint));
                Ok::<_, RestError>(())
            })?;
            if left > limit {
                return Err(RestError::TooManyUtxos);
            }
        }
        Ok(())
    }

    /// Most that it can be: those that the mempool spends are counted.
    pub(super) fn len(&self) -> usize {
        self.page.len() + self.unconfirmed.len()
    }

    /// Where the next page begins.
    pub(super) fn next(&self) -> Option<Cursor> {
        self.page.next()
    }

    /// Adds them to `list`; unconfirmed ones only on the last page. With the script, if that
    /// is given.
    ///
    /// # Errors
    /// A failed read, or that of [`List::push`].
    pub(super) fn write(
        self,
        at: &Snapshot<'_>,
        script: Option<&Script>,
        list: &mut List,
    ) -> Result<(), RestError> {
        self.each(at, |utxo| list.push(&utxo.with_script(script)))
    }

    /// The script itself, if there is an output to read it from: of the index, or of the
    /// mempool, whose `entries` are some transactions of the script.
    ///
    /// # Errors
    /// A failed read.
    pub(super) fn script(
        &self,
        at: &Snapshot<'_>,
        entries: &[MempoolTx],
    ) -> Result<Option<ScriptBuf>, RestError> {
        if let Some(script) = at.view.page_script(&self.script, &self.page)? {
            return Ok(Some(script));
        }
        let outputs =
            (entries.iter()).flat_map(|entry| entry.tx.output.iter().chain(&*entry.prevouts));
        let mut scripts = outputs.map(|output| &output.script_pubkey);
        let own = scripts
            .find(|script| sha256::Hash::hash(script.as_bytes()).to_byte_array() == self.script);
        Ok(own.cloned())
    }

    /// Gives them to `visit` in that order.
    ///
    /// # Errors
    /// A failed read, or that of `visit`.
    pub(super) fn each(
        self,
        at: &Snapshot<'_>,
        mut visit: impl FnMut(UtxoJson<'static>) -> Result<(), RestError>,
    ) -> Result<(), RestError> {
        at.view.page_utxos(&self.script, &self.page, |utxo| {
            match self.spent.contains(&utxo.outpoint) {
                true => Ok(()),
                false => visit(UtxoJson::from(utxo)),
            }
        })?;
        if self.page.next().is_none() {
            for (outpoint, value) in self.unconfirmed {
                visit(UtxoJson::unconfirmed(outpoint, value))?;
            }
        }
        Ok(())
    }
}

/// Transactions of a script: unconfirmed ones, oldest arrival first, then a page of the
/// confirmed ones, newest first.
pub(super) struct History {
    script: ScriptHash,
    unconfirmed: Vec<MempoolTx>,
    page: HistoryPage,
}

impl History {
    /// Finds the newest `limit` confirmed ones of some blocks. `unconfirmed` is what the mempool of the same
    /// block has of the script.
    ///
    /// # Errors
    /// A failed read.
    pub(super) fn newest(
        at: &Snapshot<'_>,
        script: &ScriptHash,
        unconfirmed: Vec<MempoolTx>,
        heights: Heights,
        limit: usize,
    ) -> Result<Self, RestError> {
        let page = at.view.history_page(script, heights, None, limit)?;
        Ok(Self {
            script: *script,
            unconfirmed: match heights.to {
                None => unconfirmed,
                Some(_) => Vec::new(),
            },
            page: page.ok_or(RestError::CursorGone)?,
        })
    }

    /// Where the next page begins.
    pub(super) fn next(&self) -> Option<Cursor> {
        self.page.next()
    }

    /// Adds them to `list`.
    ///
    /// # Errors
    /// A failed read, or that of [`List::push`].
    pub(super) fn write(&self, at: &Snapshot<'_>, list: &mut List) -> Result<(), RestError> {
        for entry in &self.unconfirmed {
            // Whatever the mempool says, what is confirmed is listed once, as confirmed.
            if at.view.tx_block(&entry.txid)?.is_none() {
                list.push(&TxJson::unconfirmed(entry, at.rendering())?)?;
            }
        }
        for detail in at.view.page_txs(&self.script, &self.page) {
            list.push(&TxJson::new(&detail?, at.rendering())?)?;
        }
        Ok(())
    }
}
