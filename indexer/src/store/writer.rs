//! Writes: a group of blocks forward, or one block back, each in one batch with the
//! cursor.
//!
//! # Correctness
//! RocksDB makes a batch durable as a whole or not at all, so the cursor never
//! disagrees with the rows, whenever the process is killed.
//!
//! The rows of a group are sorted by key before they are written, which halves the
//! cost of inserting them; no two of them have the same key. An output that the group
//! both creates and spends never gets a `utxo` row.

use std::{mem::size_of, sync::atomic::Ordering};

use pulse_primitives::{Height, block::BlockPosition, tip::ChainTip};
use rocksdb::WriteBatch;

use super::{Families, Family, Store, StoreError, totals::TakenBack};
use crate::{
    batch::{IndexBatch, ScriptEvent, ScriptEvents},
    keys::ScriptKey,
    proof::UtxoSummary,
    rows::{
        TxNum, block, checkpoint,
        delta::Delta,
        filter::FilterEntry,
        meta::{self, Checkpoints, Cursor, Ring},
        script, spend, tx,
    },
};

/// Blocks on their way into the store.
pub(crate) struct Group<'a> {
    store: &'a Store,
    cfs: Families<'a>,
    /// Rows that are few, or sorted as they come.
    batch: WriteBatch,
    tx: Vec<[u8; 9]>,
    spend: Vec<(TxNum, u32, TxNum)>,
    events: Vec<ScriptEvent>,
    utxos: Vec<UtxoChange>,
    cursor: Option<Cursor>,
    ring: Ring,
    /// What the group adds to the unspent outputs, less what it spends.
    utxo_change: UtxoSummary,
    /// Height behind the highest that has a filter, if the group adds one.
    filters_next: Option<Height>,
    blocks: u64,
}

/// Script key, txnum and vout of an output, and its value if it was created or `None`
/// if it was spent.
type UtxoChange = (ScriptKey, TxNum, u32, Option<u64>);

/// A group that was written.
pub(crate) struct Committed {
    /// The new cursor; `None` if the group had no blocks.
    pub cursor: Option<Cursor>,
    /// Heights that may have an `undo` row now.
    pub ring: Ring,
    /// Number of rows written or deleted.
    pub rows: u64,
}

impl Store {
    /// A group without blocks. `ring` says which heights may have an `undo` row.
    pub(crate) fn group(&self, ring: Ring) -> Group<'_> {
        Group {
            store: self,
            cfs: self.families(),
            // About as long as the one before it: growing would copy it again and again.
            batch: WriteBatch::with_capacity_bytes(self.batch_bytes.swap(0, Ordering::Relaxed)),
            tx: Vec::new(),
            spend: Vec::new(),
            events: Vec::new(),
            utxos: Vec::new(),
            cursor: None,
            ring,
            utxo_change: UtxoSummary::default(),
            filters_next: None,
            blocks: 0,
        }
    }

    /// Takes the newest block back; `previous` is the cursor of the block before it, and
    /// `filters_next` the height behind the highest that has a filter.
    ///
    /// Not synced to disk: a rollback that a power cut undoes is simply done again.
    pub(crate) fn roll_back(
        &self,
        delta: &Delta,
        previous: &Cursor,
        ring: Ring,
        filters_next: Height,
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
        for (script, txnum, vout, amount) in delta.replaced() {
            value.clear();
            script::put_amount(&mut value, amount);
            let key = script::utxo_key(script, txnum, vout);
            batch.put_cf(cfs[Family::Utxo], key, &value);
        }
        let events = ScriptEvents::new(delta.script_events().collect());
        for (script, txnum, _) in events.changes() {
            batch.delete_cf(cfs[Family::Hist], script::hist_key(script, txnum));
        }
        let reader = self.reader();
        for taken in events.totals() {
            let key = checkpoint::key(taken.script);
            match Self::taken_back(&reader, delta.first_txnum, &taken)? {
                TakenBack::Unchanged => {}
                TakenBack::Less(less) => batch.put_cf(cfs[Family::Agg], key, less.encode()),
                TakenBack::Gone => batch.delete_cf(cfs[Family::Agg], key),
            }
        }
        let key = block::key(delta.height);
        for family in [Family::Blk, Family::Pos, Family::Undo] {
            batch.delete_cf(cfs[family], key);
        }
        if filters_next > delta.height {
            batch.delete_cf(cfs[Family::FilterHdr], key);
            batch.delete_cf(cfs[Family::Filter], key);
            batch.put_cf(cfs[Family::Meta], meta::FILTERS, key);
        }
        let ring = Ring {
            low: ring.low.min(delta.height),
            next: ring.next.min(delta.height),
        };
        batch.put_cf(cfs[Family::Meta], meta::RING, ring.encode());
        batch.put_cf(cfs[Family::Meta], meta::CURSOR, previous.encode());
        let mut utxos = self.reader().utxo_summary()?;
        utxos -= self.keys.utxos.change(delta);
        batch.put_cf(cfs[Family::Meta], meta::UTXO_COMMITMENT, utxos.encode());
        self.write(batch, false)?;
        Ok(ring)
    }

    /// Adds the filter of a block that is indexed already.
    pub(crate) fn put_filter(
        &self,
        height: Height,
        entry: &FilterEntry,
        bytes: &[u8],
    ) -> Result<(), StoreError> {
        let mut batch = WriteBatch::default();
        put_filter(&mut batch, self.families(), height, entry, bytes);
        let next = block::key(height + 1);
        batch.put_cf(self.cf(Family::Meta), meta::FILTERS, next);
        self.write(batch, false)
    }

    /// Records where a block lies now.
    pub(crate) fn renew_position(
        &self,
        height: Height,
        position: &BlockPosition,
    ) -> Result<(), StoreError> {
        let value = block::encode_position(position);
        let mut batch = WriteBatch::default();
        batch.put_cf(self.cf(Family::Pos), block::key(height), value);
        self.write(batch, false)
    }
}

fn put_filter(
    batch: &mut WriteBatch,
    cfs: Families<'_>,
    height: Height,
    entry: &FilterEntry,
    bytes: &[u8],
) {
    let key = block::key(height);
    batch.put_cf(cfs[Family::FilterHdr], key, entry.encode());
    batch.put_cf(cfs[Family::Filter], key, bytes);
}

impl Group<'_> {
    /// Adds the filter of the block at `height`.
    pub(crate) fn add_filter(&mut self, height: Height, entry: &FilterEntry, bytes: &[u8]) {
        put_filter(&mut self.batch, self.cfs, height, entry, bytes);
        self.filters_next = Some(height + 1);
    }

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
        let keys = (delta.first_txnum..).zip(&delta.tx_prefixes);
        self.tx
            .extend(keys.map(|(txnum, prefix)| tx::key(*prefix, txnum)));
        let spent = delta.spent.iter();
        self.spend
            .extend(spent.map(|output| (output.txnum, output.vout, output.spender)));
        self.events.extend(delta.script_events());
        self.utxo_change += self.store.keys.utxos.change(delta);
        let created = delta.created.iter().filter(|output| !output.spent_here);
        let created = created.map(|o| (o.script, o.txnum, o.vout, Some(o.amount)));
        let spent = delta.spent.iter();
        let spent = spent.filter(|output| output.txnum < delta.first_txnum);
        let spent = spent.map(|o| (o.script, o.txnum, o.vout, None));
        let replaced = delta.replaced();
        let replaced = replaced.map(|(script, txnum, vout, _)| (script, txnum, vout, None));
        self.utxos.extend(created.chain(spent).chain(replaced));
        for (txnum, range) in &block.chunks {
            let value = &block.chunk_bytes[range.clone()];
            self.batch
                .put_cf(cfs[Family::TxPos], txnum.to_be_bytes(), value);
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

    /// Memory that the group takes, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.batch.size_in_bytes()
            + self.tx.len() * size_of::<[u8; 9]>()
            + self.spend.len() * size_of::<(TxNum, u32, TxNum)>()
            + self.events.len() * size_of::<ScriptEvent>()
            + self.utxos.len() * size_of::<UtxoChange>()
    }

    /// Makes room for the rows of so many blocks.
    pub(crate) fn reserve(&mut self, blocks: &[IndexBatch]) {
        let sum = |len: fn(&Delta) -> usize| blocks.iter().map(|block| len(&block.delta)).sum();
        self.tx.reserve(sum(|delta| delta.tx_prefixes.len()));
        self.spend.reserve(sum(|delta| delta.spent.len()));
        let changes: usize = sum(|delta| delta.created.len() + delta.spent.len());
        self.events.reserve(changes);
        self.utxos.reserve(changes);
    }

    /// Number of blocks in the group.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Writes the group.
    ///
    /// `at_tip` is for single blocks: they survive a power cut when this returns.
    /// Otherwise a power cut may take the newest groups back whole (unless `sync`).
    ///
    /// Once busy scripts have checkpoints, some of those are renewed, and rows state the value
    /// of what they spend, so that the next renewal need not look for it.
    pub(crate) fn commit(mut self, at_tip: bool, sync: bool) -> Result<Committed, StoreError> {
        let Some(cursor) = self.cursor else {
            return Ok(Committed {
                cursor: None,
                ring: self.ring,
                rows: 0,
            });
        };
        self.put_txs();
        self.put_utxos();
        self.put_scripts(cursor.tip.height)?;
        let meta = self.cfs[Family::Meta];
        self.batch.put_cf(meta, meta::CURSOR, cursor.encode());
        let mut utxos = self.store.reader().utxo_summary()?;
        utxos += self.utxo_change;
        self.batch
            .put_cf(meta, meta::UTXO_COMMITMENT, utxos.encode());
        if let Some(next) = self.filters_next {
            self.batch.put_cf(meta, meta::FILTERS, block::key(next));
        }
        let rows = self.batch.len() as u64;
        let bytes = self.batch.size_in_bytes();
        self.store.batch_bytes.store(bytes, Ordering::Relaxed);
        self.store.write(self.batch, sync || at_tip)?;
        Ok(Committed {
            cursor: Some(cursor),
            ring: self.ring,
            rows,
        })
    }

    /// `tx` and `spend` rows.
    fn put_txs(&mut self) {
        self.tx.sort_unstable();
        for key in &self.tx {
            self.batch.put_cf(self.cfs[Family::Tx], key, []);
        }
        self.spend.sort_unstable();
        let mut value = Vec::new();
        for (funding, vout, spender) in &self.spend {
            value.clear();
            spend::put_spender(&mut value, *funding, *spender);
            let key = spend::key(*funding, *vout);
            self.batch.put_cf(self.cfs[Family::Spend], key, &value);
        }
    }

    /// `utxo` rows.
    fn put_utxos(&mut self) {
        let cf = self.cfs[Family::Utxo];
        let mut value = Vec::new();
        self.utxos
            .sort_unstable_by_key(|change| (change.0, change.1, change.2));
        for changes in self
            .utxos
            .chunk_by(|a, b| (a.0, a.1, a.2) == (b.0, b.1, b.2))
        {
            // Two changes: created and spent, which leaves nothing.
            let [(script, txnum, vout, amount)] = changes else {
                continue;
            };
            let key = script::utxo_key(*script, *txnum, *vout);
            match amount {
                Some(amount) => {
                    value.clear();
                    script::put_amount(&mut value, *amount);
                    self.batch.put_cf(cf, key, &value);
                }
                None => self.batch.delete_cf(cf, key),
            }
        }
    }

    /// `hist` and `agg` rows.
    fn put_scripts(&mut self, height: Height) -> Result<(), StoreError> {
        let events = ScriptEvents::new(std::mem::take(&mut self.events));
        let reader = self.store.reader();
        let made = reader.checkpoints()?;
        let (cf, mut value) = (self.cfs[Family::Hist], Vec::new());
        for (script, txnum, mut change) in events.changes() {
            if made == Checkpoints::None {
                change.spent_sum = None;
            }
            value.clear();
            change.put(&mut value);
            self.batch
                .put_cf(cf, script::hist_key(script, txnum), &value);
        }
        if made == Checkpoints::None {
            return Ok(());
        }
        let cf = self.cfs[Family::Agg];
        for added in events.totals() {
            if let Some(new) = self.store.renewed(&reader, made, height, &added)? {
                let key = checkpoint::key(added.script);
                self.batch.put_cf(cf, key, new.encode());
            }
        }
        Ok(())
    }
}
