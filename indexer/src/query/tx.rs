//! Transactions by id.

use pulse_primitives::bitcoin::{Txid, consensus::serialize};

use super::{
    QueryError, View,
    model::{BlockRef, TxDetail},
    read::ProvenTx,
};
use crate::rows::txpos::TxPos;

impl View<'_> {
    /// The confirmed transaction of that id. Of two with the same id (BIP 30) the
    /// later one.
    ///
    /// # Errors
    /// [`QueryError::PositionRenewing`] if it is not where the index says, or a
    /// failed read.
    pub fn tx(&self, txid: &Txid) -> Result<Option<TxDetail>, QueryError> {
        let Some(tx) = self.find_tx(txid)? else {
            return Ok(None);
        };
        self.detail(tx).map(Some)
    }

    /// Its serialised bytes and the confirming block.
    ///
    /// # Errors
    /// As [`View::tx`].
    pub fn tx_raw(&self, txid: &Txid) -> Result<Option<(Vec<u8>, BlockRef)>, QueryError> {
        let Some(tx) = self.find_tx(txid)? else {
            return Ok(None);
        };
        // A transaction has no other bytes than these that would have been decoded.
        Ok(Some((serialize(&*tx.tx), self.block_ref(tx.pos.height)?)))
    }

    /// The block that confirms the transaction.
    ///
    /// # Errors
    /// As [`View::tx`].
    pub fn tx_block(&self, txid: &Txid) -> Result<Option<BlockRef>, QueryError> {
        match self.find_tx_pos(txid)? {
            Some(pos) => Ok(Some(self.block_ref(pos.height)?)),
            None => Ok(None),
        }
    }

    /// Number of outputs of the confirmed transaction of that id.
    ///
    /// # Errors
    /// As [`View::tx`].
    pub fn output_count(&self, txid: &Txid) -> Result<Option<usize>, QueryError> {
        Ok(self.find_tx(txid)?.map(|tx| tx.tx.output.len()))
    }

    /// Finds a transaction by id, and reads it if it is not remembered.
    pub(super) fn find_tx(&self, txid: &Txid) -> Result<Option<ProvenTx>, QueryError> {
        if let Some(pos) = self.remembered_tx(txid) {
            return self.read_candidate(pos, txid);
        }
        let positions = self.reader.tx_positions();
        for txnum in self.reader.tx_candidates(self.reader.keys.txid(txid))? {
            let pos = self.tx_pos(&positions, txnum)?;
            if let Some(tx) = self.read_candidate(pos, txid)? {
                self.remember_tx(txid, pos);
                return Ok(Some(tx));
            }
        }
        Ok(None)
    }

    /// Finds a transaction by id, without reading it if that was done at this moment, or if
    /// its block's ids are at hand.
    pub(super) fn find_tx_pos(&self, txid: &Txid) -> Result<Option<TxPos>, QueryError> {
        if let Some(pos) = self.remembered_tx(txid) {
            return Ok(Some(pos));
        }
        let positions = self.reader.tx_positions();
        for txnum in self.reader.tx_candidates(self.reader.keys.txid(txid))? {
            let pos = self.tx_pos(&positions, txnum)?;
            let block = self.block_ref(pos.height)?;
            let found = match self.query.txids.get(&block.hash) {
                Some(tree) => {
                    let first = self.row(pos.height)?.first_txnum;
                    let index = usize::try_from(txnum - first).ok();
                    index.and_then(|index| tree.txids().get(index)) == Some(txid)
                }
                None => self.read_candidate(pos, txid)?.is_some(),
            };
            if found {
                self.remember_tx(txid, pos);
                return Ok(Some(pos));
            }
        }
        Ok(None)
    }
}
