//! The mempool: its transactions and everything that is looked up of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use bitcoin::{OutPoint, Transaction, TxOut, Txid, Wtxid};
use pulse_primitives::{
    bitcoin,
    mempool::{RemovalReason, ScriptHash},
    tip::ChainTip,
};

use crate::{
    cluster::{ChunkKey, Clusters, Slot, Staging},
    config::MempoolConfig,
    events::{Entered, LeftReason, PoolEvent},
    feerate::FeeFrac,
    metrics,
    removed::RemovedTxs,
};

mod block;
pub(crate) mod entry;
mod finder;
mod limit;
mod scripts;
mod table;
#[cfg(test)]
mod tests;
mod view;

pub use block::ReorgOutcome;
pub use entry::Entry;
pub use view::PoolView;

use block::Reorg;
use limit::RollingFee;
use scripts::{ScriptIndex, script_hash};
use table::Table;

/// The unconfirmed transactions.
///
/// Synchronous and without I/O: the owner wraps it in a lock and hands in coins, a judge of
/// scripts, and the time (seconds since 1970).
///
/// # Correctness
/// No two transactions spend the same output, and each input is an output of another
/// transaction here or a coin as of [`Mempool::tip`].
#[derive(Debug)]
pub struct Mempool {
    pub(crate) config: MempoolConfig,
    table: Table,
    by_sequence: BTreeMap<u64, Slot>,
    by_time: BTreeSet<(u64, Slot)>,
    scripts: ScriptIndex,
    pub(crate) clusters: Clusters,
    tip: Option<ChainTip>,
    /// Counts changes of the contents or of the tip.
    changes: u64,
    next_sequence: u64,
    entry_bytes: usize,
    vsize: u64,
    fees: u64,
    rolling: RollingFee,
    removed: RemovedTxs,
    events: Vec<PoolEvent>,
    reorg: Option<Reorg>,
}

/// Place of a transaction in mining order: what is mined first is least. Compares only
/// with ranks of the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MiningRank(ChunkKey, usize);

/// A chunk in mining order: transactions that would be mined together.
#[derive(Debug)]
pub struct ChunkRef<I> {
    /// A number that only chunks of the same cluster share, for this moment.
    pub cluster: u64,
    /// Fee in sat, and adjusted weight.
    pub rate: FeeFrac,
    /// Its transactions, parents first.
    pub entries: I,
}

impl Mempool {
    /// An empty mempool that builds upon no block yet: see [`Mempool::set_tip`].
    #[must_use]
    pub fn new(config: MempoolConfig) -> Self {
        metrics::min_fee_rate(config.min_relay_fee_sat_kvb);
        Self {
            config,
            table: Table::default(),
            by_sequence: BTreeMap::new(),
            by_time: BTreeSet::new(),
            scripts: ScriptIndex::default(),
            clusters: Clusters::default(),
            tip: None,
            changes: 0,
            next_sequence: 1,
            entry_bytes: 0,
            vsize: 0,
            fees: 0,
            rolling: RollingFee::default(),
            removed: RemovedTxs::default(),
            events: Vec::new(),
            reorg: None,
        }
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &MempoolConfig {
        &self.config
    }

    /// The block that the mempool builds upon.
    #[must_use]
    pub fn tip(&self) -> Option<ChainTip> {
        self.tip
    }

    /// Number of transactions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number that changes with every change of the contents or of the tip.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Sum of virtual sizes, in vB.
    #[must_use]
    pub fn total_vsize(&self) -> u64 {
        self.vsize
    }

    /// Sum of fees, in sat.
    #[must_use]
    pub fn total_fees(&self) -> u64 {
        self.fees
    }

    /// Memory of everything that the transactions take, in bytes.
    #[must_use]
    pub fn usage_bytes(&self) -> u64 {
        (self.entry_bytes + self.scripts.bytes() + self.clusters.bytes()) as u64
    }

    /// A transaction by id.
    #[must_use]
    pub fn get(&self, txid: &Txid) -> Option<&Entry> {
        Some(self.entry(self.slot(txid)?))
    }

    /// A transaction by its id with witnesses.
    #[must_use]
    pub fn get_wtxid(&self, wtxid: &Wtxid) -> Option<&Entry> {
        Some(self.entry(self.table.by_wtxid(wtxid)?))
    }

    /// Whether a transaction with this id is here.
    #[must_use]
    pub fn contains(&self, txid: &Txid) -> bool {
        self.slot(txid).is_some()
    }

    /// Whether exactly this transaction is here.
    #[must_use]
    pub fn contains_wtxid(&self, wtxid: &Wtxid) -> bool {
        self.table.by_wtxid(wtxid).is_some()
    }

    /// Who spends `outpoint`: the transaction and the index of its input.
    #[must_use]
    pub fn spender(&self, outpoint: &OutPoint) -> Option<(&Entry, u32)> {
        let (slot, input) = self.table.spender(outpoint)?;
        Some((self.entry(slot), input))
    }

    /// All transactions, oldest arrival first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.by_sequence.values().map(|slot| self.entry(*slot))
    }

    /// Transactions that arrived with this number or a later one, oldest first.
    pub fn iter_from(&self, sequence: u64) -> impl Iterator<Item = &Entry> {
        let slots = self.by_sequence.range(sequence..);
        slots.map(|(_, slot)| self.entry(*slot))
    }

    /// All chunks in mining order, best first.
    pub fn chunks(
        &self,
    ) -> impl Iterator<Item = ChunkRef<impl Iterator<Item = &Entry> + Clone + '_>> + '_ {
        self.clusters.chunks().map(|(id, rate, slots)| ChunkRef {
            cluster: id.number(),
            rate,
            entries: slots.map(|slot| self.entry(slot)),
        })
    }

    /// Place of a transaction in mining order, parents before children; `None` if it is not
    /// here.
    #[must_use]
    pub fn mining_rank(&self, txid: &Txid) -> Option<MiningRank> {
        let (chunk, position) = self.clusters.mining_key(self.slot(txid)?)?;
        Some(MiningRank(chunk, position))
    }

    /// Which of two transactions is mined first (parents before children); one that is not
    /// here comes last.
    #[must_use]
    pub fn compare_mining(&self, a: &Txid, b: &Txid) -> std::cmp::Ordering {
        let key = |txid: &Txid| self.clusters.mining_key(self.slot(txid)?);
        match (key(a), key(b)) {
            (Some(a), Some(b)) => a.cmp(&b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        }
    }

    /// The transactions here that `txid` depends on, itself included, parents first.
    #[must_use]
    pub fn ancestors(&self, txid: &Txid) -> Vec<&Entry> {
        self.related(txid, Clusters::ancestors)
    }

    /// The transactions here that depend on `txid`, itself included, parents first.
    #[must_use]
    pub fn descendants(&self, txid: &Txid) -> Vec<&Entry> {
        self.related(txid, Clusters::descendants)
    }

    /// The transactions that `txid` would be mined with, itself included, parents first.
    #[must_use]
    pub fn chunk_of(&self, txid: &Txid) -> Vec<&Entry> {
        self.related(txid, Clusters::chunk_of)
    }

    fn related(&self, txid: &Txid, of: impl Fn(&Clusters, Slot) -> Vec<Slot>) -> Vec<&Entry> {
        let slots = self.slot(txid).map(|slot| of(&self.clusters, slot));
        slots
            .into_iter()
            .flatten()
            .map(|slot| self.entry(slot))
            .collect()
    }

    /// Whether the transaction, here or not, spends outputs of transactions here.
    #[must_use]
    pub fn has_parents(&self, tx: &Transaction) -> bool {
        tx.input
            .iter()
            .any(|input| self.contains(&input.previous_output.txid))
    }

    /// Remembers whether `txid` was submitted here and has not been seen back from the
    /// network. `false` if it is not in the mempool.
    pub fn set_local(&mut self, txid: &Txid, local: bool) -> bool {
        let Some(slot) = self.slot(txid) else {
            return false;
        };
        self.entry_mut(slot).local = local;
        true
    }

    /// Takes the scripts of all transactions that came or went since the last call of this
    /// or of [`Mempool::take_events`].
    pub fn take_touched(&mut self) -> Vec<ScriptHash> {
        self.scripts.take_touched()
    }

    /// Takes what has happened since the last call. The owner must, or it grows.
    pub fn take_events(&mut self) -> Vec<PoolEvent> {
        self.scripts.take_touched();
        std::mem::take(&mut self.events)
    }

    pub(crate) fn slot(&self, txid: &Txid) -> Option<Slot> {
        self.table.by_txid(txid)
    }

    pub(crate) fn spender_slot(&self, outpoint: &OutPoint) -> Option<Slot> {
        self.table.spender(outpoint).map(|(slot, _)| slot)
    }

    pub(crate) fn entry(&self, slot: Slot) -> &Entry {
        self.table.at(slot)
    }

    pub(crate) fn entry_mut(&mut self, slot: Slot) -> &mut Entry {
        self.table.at_mut(slot)
    }

    /// Replaces `removed` (with the reason of each) by `added`, whose clusters `staging`
    /// already has.
    pub(crate) fn apply(
        &mut self,
        removed: &[(Slot, RemovalReason)],
        added: Vec<Entry>,
        staging: Staging,
        in_package_or_reorg: bool,
        now: u64,
    ) {
        self.changes += 1;
        for (slot, reason) in removed {
            self.take(*slot, LeftReason::Removed(reason.clone()), now);
        }
        let mut slots = Vec::with_capacity(added.len());
        for entry in added {
            slots.push(self.put(entry, in_package_or_reorg));
        }
        self.clusters.apply(staging, &slots);
        self.record_size();
    }

    fn record_size(&self) {
        metrics::size(self.len(), self.vsize, self.usage_bytes());
    }

    /// Takes an entry in, clusters apart.
    fn put(&mut self, mut entry: Entry, in_package_or_reorg: bool) -> Slot {
        entry.sequence = self.next_sequence;
        self.next_sequence += 1;
        self.removed.forget(&entry.txid);
        entry.bytes = Entry::measure(&entry.tx, &entry.prevouts);
        self.entry_bytes += entry.bytes;
        self.vsize += entry.vsize;
        self.fees += entry.fee.to_sat();
        self.events.push(PoolEvent::Entered(Entered {
            txid: entry.txid,
            wtxid: entry.wtxid,
            fee: entry.fee,
            vsize: entry.vsize,
            time: entry.time,
            height: entry.height,
            sequence: entry.sequence,
            has_unconfirmed_parents: self.has_parents(&entry.tx),
            in_package_or_reorg,
        }));
        metrics::accepted();
        let (sequence, time) = (entry.sequence, entry.time);
        let slot = self.table.insert(entry);
        let entry = self.table.at_mut(slot);
        let arrival = (sequence, slot);
        entry.scripts = self.scripts.insert(arrival, &entry.tx, &entry.prevouts);
        self.by_sequence.insert(sequence, slot);
        self.by_time.insert((time, slot));
        slot
    }

    /// Takes an entry out, clusters apart.
    fn take(&mut self, slot: Slot, reason: LeftReason, now: u64) {
        let Some(entry) = self.table.remove(slot) else {
            return;
        };
        self.by_sequence.remove(&entry.sequence);
        self.by_time.remove(&(entry.time, slot));
        let arrival = (entry.sequence, slot);
        self.scripts
            .remove(arrival, &entry.scripts, &entry.tx, &entry.prevouts);
        self.entry_bytes -= entry.bytes;
        self.vsize -= entry.vsize;
        self.fees -= entry.fee.to_sat();
        metrics::left(&reason);
        if let LeftReason::Removed(reason) = &reason {
            self.removed.insert(entry.txid, reason.clone(), now);
        }
        self.events.push(PoolEvent::Left {
            txid: entry.txid,
            wtxid: entry.wtxid,
            tx: entry.tx,
            reason,
        });
    }

    /// Removes transactions, each for its reason. With a transaction, all its descendants
    /// must be among them, or all its ancestors.
    fn remove_all(&mut self, removed: Vec<(Slot, LeftReason)>, now: u64) {
        if removed.is_empty() {
            return;
        }
        self.changes += 1;
        let slots: HashSet<Slot> = removed.iter().map(|(slot, _)| *slot).collect();
        let staging = self.clusters.stage(&slots, &[], &[]);
        let staging = staging.expect("clusters only shrink when transactions leave");
        self.clusters.apply(staging, &[]);
        self.events.reserve(removed.len());
        for (slot, reason) in removed {
            self.take(slot, reason, now);
        }
        self.record_size();
    }

    /// `slots` and all that depends on them, without repetition.
    pub(crate) fn with_descendants(&self, slots: impl IntoIterator<Item = Slot>) -> Vec<Slot> {
        let mut seen = HashSet::new();
        let mut all = Vec::new();
        for slot in slots {
            if seen.contains(&slot) {
                continue;
            }
            all.extend(
                self.clusters
                    .descendants(slot)
                    .into_iter()
                    .filter(|&other| seen.insert(other)),
            );
        }
        all
    }
}

/// An entry's transaction in allocations without spare room: decoding leaves some.
pub(crate) fn compact(tx: &Transaction) -> Arc<Transaction> {
    Arc::new(tx.clone())
}

/// Outputs in allocations without spare room.
pub(crate) fn compact_outputs(outputs: &[TxOut]) -> Arc<[TxOut]> {
    outputs.iter().cloned().collect()
}
