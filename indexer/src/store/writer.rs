//! Writes: a group of blocks forward, or one block back, each in one batch with the
//! cursor.
//!
//! # Correctness
//! RocksDB makes a batch durable as a whole or not at all, so the cursor never
//! disagrees with the rows, whenever the process is killed. Within a batch operations
//! take effect in the order of writing, so a block may spend what an earlier block of
//! its group created.

use pulse_primitives::{Height, block::BlockPosition, tip::ChainTip};
use rocksdb::{WriteBatch, WriteOptions};

use super::{Families, Family, Store, StoreError};
use crate::{
    batch::IndexBatch,
    query::model::ScriptStats,
    rows::{
        block,
        delta::Delta,
        meta::{self, Cursor, Ring},
        script, spend, tx,
    },
};

/// Blocks on their way into the store.
pub(crate) struct Group<'a> {
    store: &'a Store,
    cfs: Families<'a>,
    batch: WriteBatch,
    cursor: Option<Cursor>,
    ring: Ring,
    value: Vec<u8>,
    blocks: u64,
}

impl Store {
    /// A group without blocks. `ring` says which heights may have an `undo` row.
    pub(crate) fn group(&self, ring: Ring) -> Group<'_> {
        Group {
            store: self,
            cfs: self.families(),
            batch: WriteBatch::default(),
            cursor: None,
            ring,
            value: Vec::new(),
            blocks: 0,
        }
    }

    /// Takes the newest block back; `previous` is the cursor of the block before it.
    ///
    /// Not synced to disk: a rollback that a power cut undoes is simply done again.
    pub(crate) fn roll_back(
        &self,
        delta: &Delta,
        previous: &Cursor,
        ring: Ring,
    ) -> Result<Ring, StoreError> {
        let cfs = self.families();
        let mut batch = WriteBatch::default();
        for (txnum, prefix) in (delta.first_txnum..).zip(&delta.tx_prefixes) {
            batch.delete_cf(cfs[Family::Tx], tx::key(*prefix, txnum));
        }
        for txnum in delta.chunk_keys() {
            batch.delete_cf(cfs[Family::TxPos], txnum.to_be_bytes());
        }
        for output in delta.created.iter().filter(|output| !output.spent_here) {
            let key = script::utxo_key(output.script, output.txnum, output.vout);
            batch.delete_cf(cfs[Family::Utxo], key);
        }
        let mut value = Vec::new();
        for output in &delta.spent {
            batch.delete_cf(cfs[Family::Spend], spend::key(output.txnum, output.vout));
            if output.txnum < delta.first_txnum {
                value.clear();
                script::put_amount(&mut value, output.amount);
                let key = script::utxo_key(output.script, output.txnum, output.vout);
                batch.put_cf(cfs[Family::Utxo], key, &value);
            }
        }
        let changes = delta.script_changes();
        for (script, txnum) in &changes.postings {
            batch.delete_cf(cfs[Family::Hist], script::hist_key(*script, *txnum));
        }
        for (script, change) in &changes.totals {
            let key = script.to_be_bytes();
            let totals = self
                .db
                .get_pinned_cf(cfs[Family::Agg], key)?
                .map(|value| script::totals(&value))
                .transpose()
                .map_err(|row| Family::Agg.damaged(row))?
                .unwrap_or_default();
            if totals.tx_count < change.tx_count {
                return Err(StoreError::Damaged {
                    family: Family::Agg.name(),
                    what: "fewer transactions than the block takes back",
                });
            }
            let totals = script::combine(&totals, change, u64::wrapping_sub);
            if totals == ScriptStats::default() {
                batch.delete_cf(cfs[Family::Agg], key);
            } else {
                value.clear();
                script::put_totals(&mut value, &totals);
                batch.put_cf(cfs[Family::Agg], key, &value);
            }
        }
        let key = block::key(delta.height);
        for family in [Family::Blk, Family::Pos, Family::Undo] {
            batch.delete_cf(cfs[family], key);
        }
        let ring = Ring {
            low: ring.low.min(delta.height),
            next: ring.next.min(delta.height),
        };
        batch.put_cf(cfs[Family::Meta], meta::RING, ring.encode());
        batch.put_cf(cfs[Family::Meta], meta::CURSOR, previous.encode());
        self.db.write(batch)?;
        Ok(ring)
    }

    /// Records where a block lies now.
    pub(crate) fn renew_position(
        &self,
        height: Height,
        position: &BlockPosition,
    ) -> Result<(), StoreError> {
        let value = block::encode_position(position);
        Ok(self
            .db
            .put_cf(self.cf(Family::Pos), block::key(height), value)?)
    }
}

impl Group<'_> {
    /// Adds the next block, with its delta if `store_delta` says so. Deltas of blocks
    /// that are not among the newest `undo_blocks` are dropped. Returns the cursor
    /// behind the block.
    pub(crate) fn add(
        &mut self,
        block: &IndexBatch,
        undo_blocks: u32,
        store_delta: bool,
    ) -> Cursor {
        let (cfs, delta) = (self.cfs, &block.delta);
        for (txnum, prefix) in (delta.first_txnum..).zip(&delta.tx_prefixes) {
            self.batch
                .put_cf(cfs[Family::Tx], tx::key(*prefix, txnum), []);
        }
        for (txnum, range) in &block.chunks {
            let value = &block.chunk_bytes[range.clone()];
            self.batch
                .put_cf(cfs[Family::TxPos], txnum.to_be_bytes(), value);
        }
        for output in delta.created.iter().filter(|output| !output.spent_here) {
            self.value.clear();
            script::put_amount(&mut self.value, output.amount);
            let key = script::utxo_key(output.script, output.txnum, output.vout);
            self.batch.put_cf(cfs[Family::Utxo], key, &self.value);
        }
        for output in &delta.spent {
            self.batch.put_cf(
                cfs[Family::Spend],
                spend::key(output.txnum, output.vout),
                output.spender.to_be_bytes(),
            );
            if output.txnum < delta.first_txnum {
                let key = script::utxo_key(output.script, output.txnum, output.vout);
                self.batch.delete_cf(cfs[Family::Utxo], key);
            }
        }
        let changes = delta.script_changes();
        for (script, txnum) in &changes.postings {
            self.batch
                .put_cf(cfs[Family::Hist], script::hist_key(*script, *txnum), []);
        }
        for (script, change) in &changes.totals {
            self.value.clear();
            script::put_totals(&mut self.value, change);
            self.batch
                .merge_cf(cfs[Family::Agg], script.to_be_bytes(), &self.value);
        }
        let key = block::key(delta.height);
        self.batch.put_cf(cfs[Family::Blk], key, block.row.encode());
        self.batch.put_cf(
            cfs[Family::Pos],
            key,
            block::encode_position(&block.position),
        );
        self.add_delta(delta, undo_blocks, store_delta);
        let cursor = Cursor {
            tip: ChainTip {
                height: delta.height,
                hash: delta.hash,
                time: block.row.header.time,
            },
            next_txnum: block.row.next_txnum(),
        };
        self.cursor = Some(cursor);
        self.blocks += 1;
        cursor
    }

    fn add_delta(&mut self, delta: &Delta, undo_blocks: u32, store_delta: bool) {
        let undo = self.cfs[Family::Undo];
        let keep_from = (delta.height + 1).saturating_sub(undo_blocks);
        let before = self.ring;
        while self.ring.low < keep_from.min(self.ring.next) {
            self.batch.delete_cf(undo, block::key(self.ring.low));
            self.ring.low += 1;
        }
        if store_delta {
            self.batch
                .put_cf(undo, block::key(delta.height), delta.encode());
            if self.ring.low >= self.ring.next {
                self.ring.low = delta.height;
            }
            self.ring.next = delta.height + 1;
        }
        if self.ring != before {
            let value = self.ring.encode();
            self.batch.put_cf(self.cfs[Family::Meta], meta::RING, value);
        }
    }

    /// Size of the group in bytes.
    pub(crate) fn size(&self) -> usize {
        self.batch.size_in_bytes()
    }

    /// Number of blocks in the group.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Number of rows in the group.
    pub(crate) fn rows(&self) -> u64 {
        self.batch.len() as u64
    }

    /// Writes the group. With `sync` it survives a power cut when this returns;
    /// without, a power cut may take the newest groups back whole.
    ///
    /// Returns the new cursor (`None` for a group without blocks) and ring.
    pub(crate) fn commit(mut self, sync: bool) -> Result<(Option<Cursor>, Ring), StoreError> {
        if let Some(cursor) = &self.cursor {
            let meta = self.cfs[Family::Meta];
            self.batch.put_cf(meta, meta::CURSOR, cursor.encode());
            let mut options = WriteOptions::default();
            options.set_sync(sync);
            options.set_memtable_insert_hint_per_batch(true);
            self.store.db.write_opt(self.batch, &options)?;
        }
        Ok((self.cursor, self.ring))
    }
}
