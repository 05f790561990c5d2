//! Blocks: what they are, their bytes, their transactions.

use std::{ops::Deref, sync::Arc};

use pulse_primitives::{
    Height,
    bitcoin::{Block, BlockHash, Txid, consensus::deserialize},
};

use super::{
    QueryError, View,
    merkle::MerkleTree,
    model::{BlockInfo, TxDetail},
};
use crate::{rows::block::BlockRow, store::Family};

/// Blocks whose times make up the median time (`nMedianTimeSpan` of Bitcoin Core).
const MEDIAN_TIME_SPAN: Height = 11;

/// Ids of a block's transactions, in block order. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BlockTxids(Arc<MerkleTree>);

impl Deref for BlockTxids {
    type Target = [Txid];

    fn deref(&self) -> &[Txid] {
        self.0.txids()
    }
}

impl View<'_> {
    /// The block at `height`, `None` above the tip.
    ///
    /// # Errors
    /// [`QueryError::Store`].
    pub fn block_at(&self, height: Height) -> Result<Option<BlockInfo>, QueryError> {
        let first = (height.saturating_add(1)).saturating_sub(MEDIAN_TIME_SPAN);
        let mut times = Vec::new();
        let mut last = None;
        let heights = first..height.saturating_add(1);
        let expected = heights.len();
        self.reader.for_each_block(heights, |row| {
            times.push(row.header.time);
            last = Some(row.clone());
        })?;
        let Some(row) = last.filter(|_| times.len() == expected) else {
            return Ok(None);
        };
        times.sort_unstable();
        Ok(Some(info(height, &row, times[times.len() / 2])))
    }

    /// The block of that hash, `None` if unknown, not yet indexed, or stale.
    ///
    /// # Errors
    /// [`QueryError::Store`].
    pub fn block_by_hash(&self, hash: &BlockHash) -> Result<Option<BlockInfo>, QueryError> {
        let Some(height) = self.query.source.header_height(hash) else {
            return Ok(None);
        };
        let info = self.block_at(height)?;
        Ok(info.filter(|info| info.hash == *hash))
    }

    /// Whether the header of that hash is known, indexed or not (to tell 503 from 404 while syncing).
    #[must_use]
    pub fn header_known(&self, hash: &BlockHash) -> bool {
        self.query.source.header_height(hash).is_some()
    }

    /// The serialised block.
    ///
    /// # Errors
    /// [`QueryError::PositionRenewing`] if it is not where the index says,
    /// [`QueryError::NotInView`], or a failed read.
    pub fn block_raw(&self, block: &BlockInfo) -> Result<Vec<u8>, QueryError> {
        self.row_of(block)?;
        let (bytes, decoded, _) = self.read_block(block.height, &block.hash)?;
        // The merkle root does not cover the witnesses.
        if !decoded.check_witness_commitment() {
            return Err(self.stale(block.height));
        }
        Ok(bytes)
    }

    /// Ids of the block's transactions, in block order.
    ///
    /// # Errors
    /// As [`View::block_raw`].
    pub fn block_txids(&self, block: &BlockInfo) -> Result<BlockTxids, QueryError> {
        self.row_of(block)?;
        Ok(BlockTxids(self.tree(block.height, &block.hash)?))
    }

    /// Merkle tree of the block of this view at `height`, which has that hash.
    pub(super) fn tree(
        &self,
        height: Height,
        hash: &BlockHash,
    ) -> Result<Arc<MerkleTree>, QueryError> {
        if let Some(tree) = self.query.txids.get(hash) {
            return Ok(tree);
        }
        let (_, _, tree) = self.read_block(height, hash)?;
        let tree = Arc::new(tree);
        self.query.txids.insert(*hash, Arc::clone(&tree));
        Ok(tree)
    }

    /// Up to `count` transactions of the block from position `start`.
    ///
    /// # Errors
    /// As [`View::block_raw`].
    pub fn block_txs(
        &self,
        block: &BlockInfo,
        start: u32,
        count: u32,
    ) -> Result<Vec<TxDetail>, QueryError> {
        let height = block.height;
        let row = self.row_of(block)?;
        let end = start.saturating_add(count).min(row.tx_count);
        if start >= end {
            return Ok(Vec::new());
        }
        let txnums = row.first_txnum + start..row.first_txnum + end;
        let known = txnums.clone().map(|txnum| self.remembered_proven(txnum));
        if let Some(known) = known.collect::<Option<Vec<_>>>() {
            return known.into_iter().map(|tx| self.detail(tx)).collect();
        }
        let found = self.reader.tx_positions().range(txnums.clone())?;
        let (Some(first), Some(last)) = (found.first(), found.last()) else {
            return Err(super::read::missing(Family::TxPos));
        };
        if found.len() != txnums.len() || found.iter().any(|pos| pos.height != height) {
            return Err(super::read::missing(Family::TxPos));
        }

        // The transactions lie side by side, and so do their undo entries.
        let position = self.position(height)?;
        let source = &self.query.source;
        let stale = |err| self.source_error(height, err);
        let len = last.offset + last.len - first.offset;
        let raw = source
            .read_block(&position, first.offset, len)
            .map_err(stale)?;
        // They are proven in runs, so the first and the last run are read whole.
        let undo_offset = found.iter().find(|pos| pos.run.len > 0);
        let undo_offset = undo_offset.map_or(last.undo_offset, |pos| pos.run.offset);
        let undo_end = if last.run.len > 0 {
            last.run.offset + last.run.len
        } else {
            undo_offset
        };
        let undo = if undo_end > undo_offset {
            source
                .read_undo(&position, undo_offset, undo_end - undo_offset)
                .map_err(stale)?
        } else {
            Vec::new()
        };

        let mut raw = raw.as_slice();
        let mut proven = None;
        found
            .iter()
            .map(|pos| {
                let tx = take(&mut raw, pos.len).ok_or_else(|| self.stale(height))?;
                let mut tx = self.prove(*pos, tx, None)?;
                if pos.undo_len > 0 {
                    let start = (pos.run.offset - undo_offset) as usize;
                    let run = undo.get(start..start + pos.run.len as usize);
                    let run = run.ok_or_else(|| self.stale(height))?;
                    if proven != Some(pos.run.offset) {
                        self.prove_run(pos, run)?;
                        proven = Some(pos.run.offset);
                    }
                    tx.prevouts = Some(self.decode_prevouts(&tx, run)?);
                    self.remember_proven(&tx);
                }
                self.detail(tx)
            })
            .collect()
    }

    /// The row of a block of this view.
    fn row_of(&self, block: &BlockInfo) -> Result<BlockRow, QueryError> {
        let row = self.reader.block(block.height)?;
        row.filter(|row| row.hash() == block.hash)
            .ok_or(QueryError::NotInView { hash: block.hash })
    }

    /// Reads a whole block and proves it by header hash and merkle root.
    fn read_block(
        &self,
        height: Height,
        hash: &BlockHash,
    ) -> Result<(Vec<u8>, Block, MerkleTree), QueryError> {
        let position = self.position(height)?;
        let read = self
            .query
            .source
            .read_block(&position, 0, position.block_len);
        let bytes = read.map_err(|err| self.source_error(height, err))?;
        match prove_block(&bytes, hash) {
            Some((block, tree)) => Ok((bytes, block, tree)),
            None => Err(self.stale(height)),
        }
    }
}

/// Decodes a block if its header has that hash and its transactions that merkle root.
fn prove_block(bytes: &[u8], hash: &BlockHash) -> Option<(Block, MerkleTree)> {
    let block = deserialize::<Block>(bytes).ok()?;
    if block.block_hash() != *hash {
        return None;
    }
    let txids = block
        .txdata
        .iter()
        .map(|tx| tx.compute_txid())
        .collect::<Vec<_>>();
    let tree = MerkleTree::new(txids);
    let root = tree.root()?.to_raw_hash();
    (root == block.header.merkle_root.to_raw_hash()).then_some((block, tree))
}

/// Takes `len` bytes from the front.
fn take<'a>(bytes: &mut &'a [u8], len: u32) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(usize::try_from(len).ok()?)?;
    *bytes = rest;
    Some(head)
}

fn info(height: Height, row: &BlockRow, median_time: u32) -> BlockInfo {
    BlockInfo {
        height,
        hash: row.hash(),
        header: row.header,
        tx_count: row.tx_count,
        size: row.size,
        weight: row.weight,
        median_time,
    }
}
