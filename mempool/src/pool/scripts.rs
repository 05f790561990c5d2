//! Which transactions pay a script or spend from it.

use std::collections::BTreeSet;

use bitcoin::{Script, Transaction, TxOut, hashes::Hash};
use pulse_primitives::{
    bitcoin,
    mempool::{ScriptHash, ScriptMempoolTotals},
};

use super::finder::Finder;
use crate::{cluster::Slot, memory, policy::script::is_unspendable};

/// A transaction by its order of arrival.
pub(crate) type Arrival = (u64, Slot);

/// Place of a script in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScriptSlot(u32);

/// Stands for a script that is not in the index.
const NOWHERE: ScriptSlot = ScriptSlot(u32::MAX);

/// Index from scripts to transactions, with totals. Scripts that nobody can spend from are
/// not in it, as in the index of confirmed transactions.
///
/// A transaction keeps the places of its scripts, so that it leaves without a hash of them.
#[derive(Debug, Default)]
pub(crate) struct ScriptIndex {
    scripts: Vec<ScriptEntry>,
    free: Vec<ScriptSlot>,
    by_hash: Finder<ScriptSlot>,
    bytes: usize,
    /// Scripts of transactions that came or went since [`ScriptIndex::take_touched`].
    touched: Vec<ScriptHash>,
}

#[derive(Debug)]
struct ScriptEntry {
    hash: ScriptHash,
    txs: ScriptTxs,
}

/// Most scripts have one transaction: they take no further memory.
#[derive(Debug)]
enum ScriptTxs {
    One(ScriptTx),
    Many(Box<ScriptHistory>),
}

/// A transaction and what it adds to the totals of a script.
#[derive(Debug, Clone, Copy)]
struct ScriptTx {
    sequence: u64,
    slot: Slot,
    funded_count: u32,
    spent_count: u32,
    funded_sat: u64,
    spent_sat: u64,
}

#[derive(Debug)]
struct ScriptHistory {
    txs: BTreeSet<Arrival>,
    totals: ScriptMempoolTotals,
}

impl ScriptTx {
    fn new((sequence, slot): Arrival, totals: &ScriptMempoolTotals) -> Self {
        let count = |n: u64| u32::try_from(n).expect("no transaction has 2^32 outputs");
        Self {
            sequence,
            slot,
            funded_count: count(totals.funded_count),
            spent_count: count(totals.spent_count),
            funded_sat: totals.funded_sat,
            spent_sat: totals.spent_sat,
        }
    }

    fn arrival(&self) -> Arrival {
        (self.sequence, self.slot)
    }

    fn totals(&self) -> ScriptMempoolTotals {
        ScriptMempoolTotals {
            tx_count: 1,
            funded_count: u64::from(self.funded_count),
            funded_sat: self.funded_sat,
            spent_count: u64::from(self.spent_count),
            spent_sat: self.spent_sat,
        }
    }
}

impl ScriptTxs {
    /// Memory beyond its place.
    fn bytes(&self) -> usize {
        match self {
            Self::One(_) => 0,
            Self::Many(history) => {
                memory::allocation(size_of::<ScriptHistory>())
                    + memory::in_tree::<Arrival>(history.txs.len())
            }
        }
    }

    fn add(&mut self, arrival: Arrival, change: &ScriptMempoolTotals) {
        if let Self::One(first) = self {
            let mut totals = first.totals();
            if first.arrival() == arrival {
                add(&mut totals, change);
                *first = ScriptTx::new(arrival, &totals);
                return;
            }
            let txs = BTreeSet::from([first.arrival()]);
            *self = Self::Many(Box::new(ScriptHistory { txs, totals }));
        }
        if let Self::Many(history) = self {
            if history.txs.insert(arrival) {
                history.totals.tx_count += 1;
            }
            add(&mut history.totals, change);
        }
    }

    /// Whether nothing is left.
    fn subtract(&mut self, arrival: Arrival, change: &ScriptMempoolTotals) -> bool {
        match self {
            Self::One(tx) => {
                let mut totals = tx.totals();
                subtract(&mut totals, change);
                *tx = ScriptTx::new(tx.arrival(), &totals);
                totals.funded_count + totals.spent_count == 0
            }
            Self::Many(history) => {
                if history.txs.remove(&arrival) {
                    history.totals.tx_count -= 1;
                }
                subtract(&mut history.totals, change);
                // What is left of the leaving one's part comes off one by one.
                if let (Some(&only), 1) = (history.txs.first(), history.txs.len()) {
                    *self = Self::One(ScriptTx::new(only, &history.totals));
                }
                false
            }
        }
    }
}

impl ScriptEntry {
    fn bytes(&self) -> usize {
        memory::in_vec::<Self>(1) + memory::in_table::<(u32, ScriptSlot)>(1) + self.txs.bytes()
    }
}

/// SHA-256 of a script.
pub(crate) fn script_hash(script: &Script) -> ScriptHash {
    ScriptHash::hash(script.as_bytes())
}

/// Each output of a transaction and each that it spends, with what it adds to the totals of
/// its script, the number of transactions apart.
fn changes<'a>(
    tx: &'a Transaction,
    prevouts: &'a [TxOut],
) -> impl Iterator<Item = (&'a TxOut, ScriptMempoolTotals)> {
    let funds = |output: &TxOut| ScriptMempoolTotals {
        funded_count: 1,
        funded_sat: output.value.to_sat(),
        ..ScriptMempoolTotals::default()
    };
    let spends = |output: &TxOut| ScriptMempoolTotals {
        spent_count: 1,
        spent_sat: output.value.to_sat(),
        ..ScriptMempoolTotals::default()
    };
    let outputs = tx.output.iter().map(move |output| (output, funds(output)));
    outputs.chain(prevouts.iter().map(move |output| (output, spends(output))))
}

fn add(totals: &mut ScriptMempoolTotals, other: &ScriptMempoolTotals) {
    totals.funded_count += other.funded_count;
    totals.funded_sat += other.funded_sat;
    totals.spent_count += other.spent_count;
    totals.spent_sat += other.spent_sat;
}

fn subtract(totals: &mut ScriptMempoolTotals, other: &ScriptMempoolTotals) {
    totals.funded_count -= other.funded_count;
    totals.funded_sat -= other.funded_sat;
    totals.spent_count -= other.spent_count;
    totals.spent_sat -= other.spent_sat;
}

impl ScriptIndex {
    /// Adds a transaction. The places of the scripts of its outputs and of those that it
    /// spends, to be handed in when it leaves.
    pub fn insert(
        &mut self,
        arrival: Arrival,
        tx: &Transaction,
        prevouts: &[TxOut],
    ) -> Box<[ScriptSlot]> {
        let changes = changes(tx, prevouts).map(|(output, change)| {
            let script = &output.script_pubkey;
            if is_unspendable(script.as_bytes()) {
                return NOWHERE;
            }
            self.add(script_hash(script), arrival, &change)
        });
        changes.collect()
    }

    fn add(
        &mut self,
        hash: ScriptHash,
        arrival: Arrival,
        change: &ScriptMempoolTotals,
    ) -> ScriptSlot {
        self.touched.push(hash);
        if let Some(slot) = self.find(&hash) {
            let script = &mut self.scripts[slot.0 as usize];
            let before = script.txs.bytes();
            script.txs.add(arrival, change);
            self.bytes = self.bytes + script.txs.bytes() - before;
            return slot;
        }
        let entry = ScriptEntry {
            hash,
            txs: ScriptTxs::One(ScriptTx::new(arrival, change)),
        };
        self.bytes += entry.bytes();
        let slot = match self.free.pop() {
            Some(slot) => {
                self.scripts[slot.0 as usize] = entry;
                slot
            }
            None => {
                self.scripts.push(entry);
                let last = u32::try_from(self.scripts.len() - 1);
                ScriptSlot(last.expect("fewer scripts than memory allows"))
            }
        };
        self.by_hash.insert(&hash, slot);
        slot
    }

    /// Takes a transaction out again; `slots` are what [`Self::insert`] gave.
    pub fn remove(
        &mut self,
        arrival: Arrival,
        slots: &[ScriptSlot],
        tx: &Transaction,
        prevouts: &[TxOut],
    ) {
        for (&slot, (_, change)) in slots.iter().zip(changes(tx, prevouts)) {
            if slot == NOWHERE {
                continue;
            }
            let script = &mut self.scripts[slot.0 as usize];
            self.touched.push(script.hash);
            let before = script.bytes();
            if !script.txs.subtract(arrival, &change) {
                self.bytes = self.bytes + script.bytes() - before;
                continue;
            }
            self.bytes -= before;
            self.by_hash.remove(&script.hash, slot);
            self.free.push(slot);
        }
    }

    fn find(&self, hash: &ScriptHash) -> Option<ScriptSlot> {
        self.by_hash
            .find(hash, |slot| self.scripts[slot.0 as usize].hash == *hash)
    }

    fn get(&self, hash: &ScriptHash) -> Option<&ScriptTxs> {
        let slot = self.find(hash)?;
        Some(&self.scripts[slot.0 as usize].txs)
    }

    /// Scripts of transactions that came or went since the last call.
    pub fn take_touched(&mut self) -> Vec<ScriptHash> {
        std::mem::take(&mut self.touched)
    }

    /// Transactions of a script, oldest arrival first.
    pub fn arrivals(&self, script: &ScriptHash) -> impl Iterator<Item = Slot> + '_ {
        let (one, many) = match self.get(script) {
            None => (None, None),
            Some(ScriptTxs::One(tx)) => (Some(tx.slot), None),
            Some(ScriptTxs::Many(history)) => (None, Some(&history.txs)),
        };
        let many = many.into_iter().flatten().map(|&(_, slot)| slot);
        one.into_iter().chain(many)
    }

    /// Totals of a script.
    pub fn totals(&self, script: &ScriptHash) -> ScriptMempoolTotals {
        match self.get(script) {
            None => ScriptMempoolTotals::default(),
            Some(ScriptTxs::One(tx)) => tx.totals(),
            Some(ScriptTxs::Many(history)) => history.totals,
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.by_hash.len()
    }

    /// Memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
