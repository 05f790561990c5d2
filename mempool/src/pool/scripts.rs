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
}

/// Most scripts have one transaction: they take no further memory.
#[derive(Debug)]
enum ScriptTxs {
    One(Arrival),
    Many(Box<ScriptHistory>),
}

#[derive(Debug)]
struct ScriptHistory {
    txs: BTreeSet<Arrival>,
    totals: ScriptMempoolTotals,
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
    /// Adds a transaction; `of` tells what another one adds to a script.
    pub fn insert(
        &mut self,
        arrival: Arrival,
        touched: HashMap<ScriptHash, ScriptMempoolTotals>,
        of: impl Fn(Slot, &ScriptHash) -> ScriptMempoolTotals,
    ) {
        for (script, totals) in touched {
            let Some(txs) = self.scripts.get_mut(&script) else {
                let txs = ScriptTxs::One(arrival);
                self.bytes += txs.bytes();
                self.scripts.insert(script, txs);
                continue;
            };
            self.bytes -= txs.bytes();
            if let ScriptTxs::One(first) = *txs {
                *txs = ScriptTxs::Many(Box::new(ScriptHistory {
                    txs: BTreeSet::from([first]),
                    totals: of(first.1, &script),
                }));
            }
            if let ScriptTxs::Many(history) = txs {
                history.txs.insert(arrival);
                add(&mut history.totals, &totals);
            }
            self.bytes += txs.bytes();
        }
    }

    /// Takes a transaction out again.
    pub fn remove(&mut self, arrival: Arrival, touched: &HashMap<ScriptHash, ScriptMempoolTotals>) {
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
                        *txs = ScriptTxs::One(only);
                    }
                }
            }
            self.bytes += txs.bytes();
        }
    }

    /// Transactions of a script, oldest arrival first.
    pub fn arrivals(&self, script: &ScriptHash) -> impl Iterator<Item = Slot> + '_ {
        let (one, many) = match self.scripts.get(script) {
            None => (None, None),
            Some(ScriptTxs::One((_, slot))) => (Some(*slot), None),
            Some(ScriptTxs::Many(history)) => (None, Some(&history.txs)),
        };
        let many = many.into_iter().flatten().map(|&(_, slot)| slot);
        one.into_iter().chain(many)
    }

    /// Totals of a script; `of` tells what one transaction adds to it.
    pub fn totals(
        &self,
        script: &ScriptHash,
        of: impl Fn(Slot, &ScriptHash) -> ScriptMempoolTotals,
    ) -> ScriptMempoolTotals {
        match self.scripts.get(script) {
            None => ScriptMempoolTotals::default(),
            Some(ScriptTxs::One((_, slot))) => of(*slot, script),
            Some(ScriptTxs::Many(history)) => history.totals,
        }
    }

    /// Memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
