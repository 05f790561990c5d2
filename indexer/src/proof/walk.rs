//! The rows that the blocks of the active chain make, block by block, without the sync
//! loop and without writing anything.
//!
//! # Correctness
//! Rows come from the code that makes them when a block is indexed. What a block needs of
//! the index besides, the numbers of the transactions that it spends from, is looked up
//! among the `tx` rows of the block that the undo data names; where those do not say it,
//! in that block itself. Each block follows the one before, and the last is the index's tip:
//! a reorganisation meanwhile ends the walk and is no difference.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, OutPoint, Txid},
    block::ConnectedBlock,
    ports::BlockSource,
};

use super::ProofError;
use crate::{
    batch::{IndexBatch, Repeated, ScriptEvents},
    prepared::{Inconsistent, Prepared},
    rows::{TxNum, delta::Delta, script, spend, tx},
    store::{
        Family, StoreError,
        reader::{Reader, TxLookup},
    },
};

/// Blocks whose ids are kept when the `tx` rows do not name a transaction.
const MAX_KEPT_BLOCKS: usize = 32;

/// A block with the rows that it makes.
pub(super) struct Walked {
    /// The block.
    pub block: Prepared,
    /// Its rows.
    pub batch: IndexBatch,
}

/// Goes over the blocks of the active chain from a height on.
pub(super) struct Walk<'a> {
    source: &'a dyn BlockSource,
    reader: &'a Reader<'a>,
    lookup: TxLookup<'a>,
    /// Number of the first transaction of each block, by height, and of the next one.
    first_txnums: Vec<TxNum>,
    /// The block before.
    last: Option<BlockHash>,
    /// Ids of blocks that had to be read for them.
    kept: BTreeMap<Height, Arc<Vec<Txid>>>,
}

impl<'a> Walk<'a> {
    /// Starts at `from`. Numbers of transactions before are taken from the index.
    pub(super) fn new(
        reader: &'a Reader<'a>,
        source: &'a dyn BlockSource,
        from: Height,
    ) -> Result<Self, StoreError> {
        const GAP: StoreError = StoreError::Damaged {
            family: "blk",
            what: "transaction numbers do not follow each other",
        };
        let mut first_txnums = vec![0];
        let mut follows = true;
        reader.for_each_block(0..from, |row| {
            follows &= first_txnums.last() == Some(&row.first_txnum);
            first_txnums.push(row.next_txnum());
        })?;
        if !follows || first_txnums.len() as u64 != u64::from(from) + 1 {
            return Err(GAP);
        }
        Ok(Self {
            source,
            reader,
            lookup: reader.tx_lookup(),
            first_txnums,
            last: None,
            kept: BTreeMap::new(),
        })
    }

    /// Number that the first transaction of the next block has.
    pub(super) fn next_txnum(&self) -> TxNum {
        self.first_txnums.last().copied().unwrap_or_default()
    }

    /// Whether the blocks were those of the chain that ends with `tip`, and no others that
    /// a reorganisation had put in their places meanwhile.
    pub(super) fn ended_with(&self, tip: &BlockHash) -> Result<(), ProofError> {
        match self.last.as_ref() == Some(tip) {
            true => Ok(()),
            false => Err(ProofError::ChainMoved),
        }
    }

    /// The next block. With `with_filter` its filter is built.
    pub(super) fn next(&mut self, with_filter: bool) -> Result<Walked, ProofError> {
        let height = Height::try_from(self.first_txnums.len() - 1).unwrap_or(Height::MAX);
        let first_txnum = self.next_txnum();
        let connected = self.load(height)?;
        let previous = connected.block.header.prev_blockhash;
        if self.last.is_some_and(|last| last != previous) {
            return Err(ProofError::ChainMoved);
        }
        let block = Prepared::new(connected, self.reader.keys, with_filter)?;
        self.last = Some(block.hash);
        let funding = self.funding(&block, first_txnum)?;
        let repeated = self.repeated(&block, first_txnum)?;
        let repeated = repeated.as_ref();
        let keys = self.reader.keys;
        let batch = IndexBatch::from_block(&block, first_txnum, &funding, repeated, keys)?;
        self.first_txnums.push(batch.row.next_txnum());
        Ok(Walked { block, batch })
    }

    fn load(&self, height: Height) -> Result<ConnectedBlock, ProofError> {
        let hash = self.source.hash_at(height);
        let hash = hash.ok_or(ProofError::ChainMoved)?;
        let unavailable = |source| ProofError::BlockUnavailable {
            height,
            hash,
            source,
        };
        self.source.load(&hash, height).map_err(unavailable)
    }

    /// Number of the transaction that created the output of each input.
    fn funding(&mut self, block: &Prepared, first: TxNum) -> Result<Vec<TxNum>, ProofError> {
        let connected = &block.connected;
        let own = (first..)
            .zip(&connected.txids)
            .map(|(txnum, txid)| (*txid, txnum))
            .collect::<BTreeMap<_, _>>();
        let mut funding = Vec::with_capacity(block.spent_scripts.len());
        for (tx, spent) in connected.block.txdata[1..].iter().zip(&connected.spent) {
            for (input, output) in tx.input.iter().zip(spent) {
                let outpoint = input.previous_output;
                let found = if output.height == connected.height {
                    own.get(&outpoint.txid).copied()
                } else {
                    self.funding_before(outpoint, output.height)?
                };
                funding.push(found.ok_or(Inconsistent {
                    height: connected.height,
                    what: "spends a transaction that its block does not have",
                })?);
            }
        }
        Ok(funding)
    }

    fn funding_before(
        &mut self,
        outpoint: OutPoint,
        height: Height,
    ) -> Result<Option<TxNum>, ProofError> {
        let Some([start, end]) = self.range(height) else {
            return Ok(None);
        };
        let hash = self.reader.keys.txid(&outpoint.txid);
        // Rows that cannot be read are reported where they are compared.
        if let Ok(&[txnum]) = self.lookup.candidates(hash, start..end).as_deref() {
            return Ok(Some(txnum));
        }
        let txids = self.txids(height)?;
        let found = (start..end).zip(txids.iter());
        let mut found = found.filter(|(_, txid)| **txid == outpoint.txid);
        Ok(found.next().map(|(txnum, _)| txnum))
    }

    /// The earlier transaction whose unspent outputs this block's coinbase replaces.
    fn repeated(&mut self, block: &Prepared, first: TxNum) -> Result<Option<Repeated>, ProofError> {
        let (Some(txid), Some(hash)) = (block.connected.txids.first(), block.tx_hashes.first())
        else {
            return Ok(None);
        };
        let candidates = self.lookup.candidates(*hash, 1..first.max(1));
        for txnum in candidates.unwrap_or_default().into_iter().rev() {
            let (_, earlier) = self.name(txnum);
            if earlier.as_ref() == Some(txid) {
                let spent = self.reader.spenders(txnum)?;
                return Ok(Some(Repeated {
                    txnum,
                    spent: spent.into_iter().map(|(vout, _)| vout).collect(),
                }));
            }
        }
        Ok(None)
    }

    fn range(&self, height: Height) -> Option<[TxNum; 2]> {
        let index = usize::try_from(height).ok()?;
        Some([
            *self.first_txnums.get(index)?,
            *self.first_txnums.get(index + 1)?,
        ])
    }

    fn txids(&mut self, height: Height) -> Result<Arc<Vec<Txid>>, ProofError> {
        if let Some(txids) = self.kept.get(&height) {
            return Ok(Arc::clone(txids));
        }
        let txids = Arc::new(self.load(height)?.txids);
        if self.kept.len() >= MAX_KEPT_BLOCKS {
            self.kept.pop_first();
        }
        self.kept.insert(height, Arc::clone(&txids));
        Ok(txids)
    }

    /// Height and id of a transaction, as far as they can be told.
    pub(super) fn name(&mut self, txnum: TxNum) -> (Option<Height>, Option<Txid>) {
        let behind = self.first_txnums.partition_point(|first| *first <= txnum);
        let height = behind.checked_sub(1).filter(|_| txnum < self.next_txnum());
        let height = height.and_then(|height| Height::try_from(height).ok());
        let Some((height, [start, _])) = height.and_then(|h| Some((h, self.range(h)?))) else {
            return (None, None);
        };
        let position = (txnum - start) as usize;
        let txid = self.txids(height).ok();
        let txid = txid.and_then(|txids| txids.get(position).copied());
        (Some(height), txid)
    }
}

/// Gives the rows of a block in families that are not in the order of the chain to `row`:
/// those that it makes with `true`, those of outputs that it spends with `false`. Outputs
/// of transactions before `first` are left out. `hist` values are without the sums of
/// what was spent, which not every row states.
pub(super) fn rows_of(
    batch: &IndexBatch,
    first: TxNum,
    mut row: impl FnMut(Family, &[u8], &[u8], bool),
) {
    let delta: &Delta = &batch.delta;
    for (txnum, prefix) in (delta.first_txnum..).zip(&delta.tx_prefixes) {
        row(Family::Tx, &tx::key(*prefix, txnum), &[], true);
    }
    for (txnum, range) in &batch.chunks {
        let value = &batch.chunk_bytes[range.clone()];
        row(Family::TxPos, &txnum.to_be_bytes(), value, true);
    }
    let events = ScriptEvents::new(delta.script_events().collect());
    for (script, txnum, change) in events.changes() {
        let key = script::hist_key(script, txnum);
        let value = change.without_spent_sum();
        row(Family::Hist, key.as_ref(), &value, true);
    }
    let mut value = Vec::new();
    for output in delta.created.iter().filter(|output| !output.spent_here) {
        value.clear();
        script::put_amount(&mut value, output.amount);
        let key = script::utxo_key(output.script, output.txnum, output.vout);
        row(Family::Utxo, key.as_ref(), &value, true);
    }
    for output in &delta.spent {
        value.clear();
        spend::put_spender(&mut value, output.txnum, output.spender);
        let key = spend::key(output.txnum, output.vout);
        row(Family::Spend, key.as_ref(), &value, true);
        if (first..delta.first_txnum).contains(&output.txnum) {
            value.clear();
            script::put_amount(&mut value, output.amount);
            let key = script::utxo_key(output.script, output.txnum, output.vout);
            row(Family::Utxo, key.as_ref(), &value, false);
        }
    }
    for (script, txnum, vout, amount) in delta.replaced() {
        if txnum >= first {
            value.clear();
            script::put_amount(&mut value, amount);
            let key = script::utxo_key(script, txnum, vout);
            row(Family::Utxo, key.as_ref(), &value, false);
        }
    }
}

/// Whether it was stopped.
pub(super) fn stopped(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Relaxed)
}
