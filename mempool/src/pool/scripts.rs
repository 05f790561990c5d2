//! Which transactions pay a script or spend from it.

use std::collections::{BTreeSet, HashMap};

use bitcoin::{Script, Transaction, TxOut, hashes::Hash};
use pulse_primitives::{
    bitcoin,
    mempool::{ScriptHash, ScriptMempoolTotals},
};

use crate::{cluster::Slot, memory, policy::script::is_unspendable};

/// A transaction by its order of arrival.
pub(crate) type Arrival = (u64, Slot);

/// Index from scripts to transactions, with totals. Scripts that nobody can spend from are
/// not in it, as in the index of confirmed transactions.
#[derive(Debug, Default)]
pub(crate) struct ScriptIndex {
    scripts: HashMap<ScriptHash, ScriptTxs>,
    bytes: usize,
    /// Scripts of transactions that came or went since [`ScriptIndex::take_touched`].
    touched: Vec<ScriptHash>,
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
    fn bytes(&self) -> usize {
        let own = memory::in_table::<(ScriptHash, Self)>(1);
        match self {
            Self::One(_) => own,
            Self::Many(history) => {
                own + memory::allocation(size_of::<ScriptHistory>())
                    + memory::in_tree::<Arrival>(history.txs.len())
            }
        }
    }
}

/// SHA-256 of a script.
pub(crate) fn script_hash(script: &Script) -> ScriptHash {
    ScriptHash::hash(script.as_bytes())
}

/// What one transaction adds to the totals of each script that it touches.
pub(crate) fn touched(
    tx: &Transaction,
    prevouts: &[TxOut],
) -> HashMap<ScriptHash, ScriptMempoolTotals> {
    let mut all: HashMap<ScriptHash, ScriptMempoolTotals> = HashMap::new();
    for output in &tx.output {
        if is_unspendable(output.script_pubkey.as_bytes()) {
            continue;
        }
        let totals = all.entry(script_hash(&output.script_pubkey)).or_default();
        totals.tx_count = 1;
        totals.funded_count += 1;
        totals.funded_sat += output.value.to_sat();
    }
    for output in prevouts {
        let totals = all.entry(script_hash(&output.script_pubkey)).or_default();
        totals.tx_count = 1;
        totals.spent_count += 1;
        totals.spent_sat += output.value.to_sat();
    }
    all
}

fn add(totals: &mut ScriptMempoolTotals, other: &ScriptMempoolTotals) {
    totals.tx_count += other.tx_count;
    totals.funded_count += other.funded_count;
    totals.funded_sat += other.funded_sat;
    totals.spent_count += other.spent_count;
    totals.spent_sat += other.spent_sat;
}

fn subtract(totals: &mut ScriptMempoolTotals, other: &ScriptMempoolTotals) {
    totals.tx_count -= other.tx_count;
    totals.funded_count -= other.funded_count;
    totals.funded_sat -= other.funded_sat;
    totals.spent_count -= other.spent_count;
    totals.spent_sat -= other.spent_sat;
}

impl ScriptIndex {
    /// Adds a transaction.
    pub fn insert(&mut self, arrival: Arrival, touched: &HashMap<ScriptHash, ScriptMempoolTotals>) {
        self.touched.extend(touched.keys());
        for (script, totals) in touched {
            let Some(txs) = self.scripts.get_mut(script) else {
                let txs = ScriptTxs::One(ScriptTx::new(arrival, totals));
                self.bytes += txs.bytes();
                self.scripts.insert(*script, txs);
                continue;
            };
            self.bytes -= txs.bytes();
            if let ScriptTxs::One(first) = *txs {
                *txs = ScriptTxs::Many(Box::new(ScriptHistory {
                    txs: BTreeSet::from([first.arrival()]),
                    totals: first.totals(),
                }));
            }
            if let ScriptTxs::Many(history) = txs {
                history.txs.insert(arrival);
                add(&mut history.totals, totals);
            }
            self.bytes += txs.bytes();
        }
    }

    /// Takes a transaction out again.
    pub fn remove(&mut self, arrival: Arrival, touched: &HashMap<ScriptHash, ScriptMempoolTotals>) {
        self.touched.extend(touched.keys());
        for (script, totals) in touched {
            let Some(txs) = self.scripts.get_mut(script) else {
                continue;
            };
            self.bytes -= txs.bytes();
            match txs {
                ScriptTxs::One(_) => {
                    self.scripts.remove(script);
                    continue;
                }
                ScriptTxs::Many(history) => {
                    history.txs.remove(&arrival);
                    subtract(&mut history.totals, totals);
                    if let (Some(&only), 1) = (history.txs.first(), history.txs.len()) {
                        *txs = ScriptTxs::One(ScriptTx::new(only, &history.totals));
                    }
                }
            }
            self.bytes += txs.bytes();
        }
    }

    /// Scripts of transactions that came or went since the last call.
    pub fn take_touched(&mut self) -> Vec<ScriptHash> {
        std::mem::take(&mut self.touched)
    }

    /// Transactions of a script, oldest arrival first.
    pub fn arrivals(&self, script: &ScriptHash) -> impl Iterator<Item = Slot> + '_ {
        let (one, many) = match self.scripts.get(script) {
            None => (None, None),
            Some(ScriptTxs::One(tx)) => (Some(tx.slot), None),
            Some(ScriptTxs::Many(history)) => (None, Some(&history.txs)),
        };
        let many = many.into_iter().flatten().map(|&(_, slot)| slot);
        one.into_iter().chain(many)
    }

    /// Totals of a script.
    pub fn totals(&self, script: &ScriptHash) -> ScriptMempoolTotals {
        match self.scripts.get(script) {
            None => ScriptMempoolTotals::default(),
            Some(ScriptTxs::One(tx)) => tx.totals(),
            Some(ScriptTxs::Many(history)) => history.totals,
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.scripts.len()
    }

    /// Memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
