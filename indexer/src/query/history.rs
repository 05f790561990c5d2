//! What happened to a script, as bare pairs of height and id: for status hashes and lists
//! of wallets, which name every transaction of a script at once.
//!
//! # Limits
//! Each transaction is read (most often one read of the block files) unless the ids of its
//! block are at hand. The caller says how many it can take.

use std::ops::Range;

use pulse_primitives::{Height, bitcoin::Txid};

use super::{
    QueryError, ScriptHash, View,
    read::{is_of, missing},
};
use crate::{rows::txpos::TxPos, store::Family};

impl View<'_> {
    /// Confirmed transactions of a script in the blocks at `heights`, in the order of the
    /// chain. `None` if there are more than `limit`.
    ///
    /// # Errors
    /// [`QueryError::PositionRenewing`] if one is not where the index says, or a failed
    /// read.
    pub fn script_history(
        &self,
        script: &ScriptHash,
        heights: Range<Height>,
        limit: usize,
    ) -> Result<Option<Vec<(Height, Txid)>>, QueryError> {
        let key = self.reader.keys.script_hash(script);
        let Some(start) = self.reader.block(heights.start)? else {
            return Ok(Some(Vec::new()));
        };
        // `None`: to the end of the index.
        let end = self.reader.block(heights.end)?.map(|row| row.first_txnum);
        let mut txnums = Vec::new();
        for txnum in self.reader.history(key, end) {
            let txnum = txnum?;
            if txnum < start.first_txnum {
                break;
            }
            if txnums.len() == limit {
                return Ok(None);
            }
            txnums.push(txnum);
        }
        let positions = self.reader.tx_positions();
        let mut history = Vec::with_capacity(txnums.len());
        // Most of one block's transactions follow each other: one look for all of them.
        let mut block = None;
        for txnum in txnums.into_iter().rev() {
            let pos = self.tx_pos(&positions, txnum)?;
            let known = match block {
                Some((height, _)) if height == pos.height => block.as_ref(),
                _ => {
                    let row = self.row(pos.height)?;
                    let txids = self.query.txids.get(&row.hash());
                    block = Some((pos.height, txids.map(|txids| (row.first_txnum, txids))));
                    block.as_ref()
                }
            };
            let txid = match known.and_then(|(_, txids)| txids.as_ref()) {
                Some((first, txids)) => {
                    let index = usize::try_from(txnum - first).ok();
                    let txid = index.and_then(|index| txids.txids().get(index));
                    Some(*txid.ok_or_else(|| missing(Family::Blk))?)
                }
                None => self.txid_touching(pos, script)?,
            };
            if let Some(txid) = txid {
                history.push((pos.height, txid));
            }
        }
        Ok(Some(history))
    }

    /// Id of the transaction at `pos`, if it pays the script or spends from it: another
    /// script may share the key.
    fn txid_touching(&self, pos: TxPos, script: &ScriptHash) -> Result<Option<Txid>, QueryError> {
        let tx = self.read_tx(pos)?;
        let pays = tx.tx.output.iter().any(|out| is_of(out, script));
        if pays {
            return Ok(Some(tx.txid));
        }
        let spent = self.read_prevouts(&tx)?;
        if spent.iter().any(|out| is_of(out, script)) {
            return Ok(Some(tx.txid));
        }
        self.note_collision(script)?;
        Ok(None)
    }
}
