//! Reads of the block files that prove what they read.

use std::{collections::HashSet, sync::Arc};

use pulse_primitives::{
    Height,
    bitcoin::{Transaction, TxOut, Txid, consensus::deserialize, hashes::Hash},
    block::BlockPosition,
    ports::BlockSourceError,
};

use super::{
    QueryError, ScriptHash, View,
    model::{BlockRef, TxDetail},
};
use crate::{
    keys::is_unspendable,
    rows::{TxNum, block::BlockRow, txpos::TxPos},
    store::{Family, faults, reader::TxPositions},
};

/// A transaction whose bytes were proven to be those of its number. Cheap to clone.
#[derive(Clone)]
pub(super) struct ProvenTx {
    pub pos: TxPos,
    pub tx: Arc<Transaction>,
    pub txid: Txid,
    /// What it spends, once that was proven as well.
    pub prevouts: Option<Arc<[TxOut]>>,
}

/// The error for a row that must exist because another one does.
pub(super) fn missing(family: Family) -> QueryError {
    const WHAT: &str = "a row is missing that another one refers to";
    QueryError::Store(faults::row(family, WHAT))
}

impl View<'_> {
    /// Reports the position of a block as stale, and says so to the client.
    pub(super) fn stale(&self, height: Height) -> QueryError {
        self.query.shared.stale.report(height);
        QueryError::PositionRenewing { height }
    }

    pub(super) fn source_error(&self, height: Height, err: BlockSourceError) -> QueryError {
        match err {
            BlockSourceError::Stale { .. } => self.stale(height),
            err => QueryError::Source(err),
        }
    }

    pub(super) fn row(&self, height: Height) -> Result<BlockRow, QueryError> {
        self.remembered_row(height, || {
            self.reader
                .block(height)?
                .ok_or_else(|| missing(Family::Blk))
        })
    }

    pub(super) fn position(&self, height: Height) -> Result<BlockPosition, QueryError> {
        if let Some((at, position)) = *self.last_position.lock()
            && at == height
        {
            return Ok(position);
        }
        let position = self.remembered_position(height, || {
            self.reader
                .position(height)?
                .ok_or_else(|| missing(Family::Pos))
        })?;
        *self.last_position.lock() = Some((height, position));
        Ok(position)
    }

    /// The block at `height` as a confirmation.
    pub(super) fn block_ref(&self, height: Height) -> Result<BlockRef, QueryError> {
        if let Some(block) = *self.last_block.lock()
            && block.height == height
        {
            return Ok(block);
        }
        let row = self.row(height)?;
        let block = BlockRef {
            height,
            hash: row.hash(),
            time: row.header.time,
        };
        *self.last_block.lock() = Some(block);
        Ok(block)
    }

    /// Where transaction `txnum` lies.
    pub(super) fn tx_pos(
        &self,
        positions: &TxPositions<'_>,
        txnum: TxNum,
    ) -> Result<TxPos, QueryError> {
        positions.find(txnum)?.ok_or_else(|| missing(Family::TxPos))
    }

    /// Reads a transaction and proves it, if it is not remembered.
    pub(super) fn read_tx(&self, pos: TxPos) -> Result<ProvenTx, QueryError> {
        match self.remembered_proven(pos.txnum) {
            Some(tx) => Ok(tx),
            None => self.prove(pos, &self.read_bytes(pos)?, None),
        }
    }

    /// As [`View::read_tx`] of that number, and remembers it.
    pub(super) fn tx_of(
        &self,
        positions: &TxPositions<'_>,
        txnum: TxNum,
    ) -> Result<ProvenTx, QueryError> {
        if let Some(tx) = self.remembered_proven(txnum) {
            return Ok(tx);
        }
        let tx = self.read_tx(self.tx_pos(positions, txnum)?)?;
        self.remember_proven(&tx);
        Ok(tx)
    }

    /// As [`View::read_tx`] of a candidate for `txid`, `None` if it is another.
    pub(super) fn read_candidate(
        &self,
        pos: TxPos,
        txid: &Txid,
    ) -> Result<Option<ProvenTx>, QueryError> {
        let tx = match self.remembered_proven(pos.txnum) {
            Some(tx) => tx,
            None => self.prove(pos, &self.read_bytes(pos)?, Some(txid))?,
        };
        Ok(Some(tx).filter(|tx| tx.txid == *txid))
    }

    fn read_bytes(&self, pos: TxPos) -> Result<Vec<u8>, QueryError> {
        let block = self.position(pos.height)?;
        let read = self.query.source.read_block(&block, pos.offset, pos.len);
        read.map_err(|err| self.source_error(pos.height, err))
    }

    /// Proves that `bytes` are those of the transaction at `pos`: they must decode,
    /// and the txid must be the one that was indexed under its number. `expected` is an id
    /// whose row has led to `pos`, so that it need not be looked up again.
    pub(super) fn prove(
        &self,
        pos: TxPos,
        bytes: &[u8],
        expected: Option<&Txid>,
    ) -> Result<ProvenTx, QueryError> {
        let Ok(tx) = deserialize::<Transaction>(bytes) else {
            return Err(self.stale(pos.height));
        };
        let txid = tx.compute_txid();
        let is_its = || self.reader.is_tx(self.reader.keys.txid(&txid), pos.txnum);
        if expected != Some(&txid) && !is_its()? {
            return Err(self.stale(pos.height));
        }
        Ok(ProvenTx {
            pos,
            tx: Arc::new(tx),
            txid,
            prevouts: None,
        })
    }

    /// Reads the outputs that a transaction spends and proves them.
    pub(super) fn read_prevouts(&self, tx: &ProvenTx) -> Result<Arc<[TxOut]>, QueryError> {
        if let Some(prevouts) = &tx.prevouts {
            return Ok(Arc::clone(prevouts));
        }
        let pos = &tx.pos;
        if pos.undo_len == 0 {
            return Ok(Arc::default());
        }
        let block = self.position(pos.height)?;
        let source = &self.query.source;
        let run = &pos.run;
        let read = source.read_undo(&block, run.offset, run.len);
        let bytes = read.map_err(|err| self.source_error(pos.height, err))?;
        self.prove_run(pos, &bytes)?;
        self.decode_prevouts(tx, &bytes)
    }

    /// Proves that `bytes` are the run of undo entries of the transaction at `pos`: they
    /// must have the check that was recorded.
    pub(super) fn prove_run(&self, pos: &TxPos, bytes: &[u8]) -> Result<(), QueryError> {
        if self.reader.keys.undo_check(bytes) == pos.run.check {
            Ok(())
        } else {
            Err(self.stale(pos.height))
        }
    }

    /// What a transaction spends, by its proven run of undo entries: there must be one output
    /// per input.
    pub(super) fn decode_prevouts(
        &self,
        tx: &ProvenTx,
        run: &[u8],
    ) -> Result<Arc<[TxOut]>, QueryError> {
        let TxPos { height, .. } = tx.pos;
        let start = tx.pos.undo_offset - tx.pos.run.offset;
        let bytes = run.get(start as usize..(start + tx.pos.undo_len) as usize);
        let bytes = bytes.ok_or_else(|| self.stale(height))?;
        let decoded = self.query.source.decode_undo(bytes);
        let spent = decoded.map_err(|err| self.source_error(height, err))?;
        if spent.len() != tx.tx.input.len() {
            return Err(self.stale(height));
        }
        Ok(spent.into_iter().map(|spent| spent.output).collect())
    }

    /// The transaction of that number with what it spends, read only if it is not remembered.
    pub(super) fn detail_of(
        &self,
        positions: &TxPositions<'_>,
        txnum: TxNum,
    ) -> Result<TxDetail, QueryError> {
        let tx = match self.remembered_proven(txnum) {
            Some(tx) => tx,
            None => self.read_tx(self.tx_pos(positions, txnum)?)?,
        };
        self.detail(tx)
    }

    /// Puts a proven transaction together with what it spends.
    pub(super) fn detail(&self, mut tx: ProvenTx) -> Result<TxDetail, QueryError> {
        let prevouts = self.read_prevouts(&tx)?;
        if tx.prevouts.is_none() {
            tx.prevouts = Some(Arc::clone(&prevouts));
            self.remember_proven(&tx);
        }
        Ok(TxDetail {
            block: self.block_ref(tx.pos.height)?,
            tx: tx.tx,
            txid: tx.txid,
            prevouts,
        })
    }
}

impl TxDetail {
    /// Whether it pays one of these scripts or spends from it.
    pub(super) fn touches_any(&self, scripts: &HashSet<ScriptHash>) -> bool {
        let mut outputs = self.prevouts.iter().chain(&self.tx.output);
        outputs.any(|output| {
            scripts.contains(&script_hash(output)) && !is_unspendable(&output.script_pubkey)
        })
    }
}

/// Whether an output is indexed under this script. Those that can never be spent are not.
pub(super) fn is_of(output: &TxOut, script: &ScriptHash) -> bool {
    script_hash(output) == *script && !is_unspendable(&output.script_pubkey)
}

/// SHA-256 of a script, as queries name it.
fn script_hash(output: &TxOut) -> ScriptHash {
    use pulse_primitives::bitcoin::hashes::sha256;
    sha256::Hash::hash(output.script_pubkey.as_bytes()).to_byte_array()
}
