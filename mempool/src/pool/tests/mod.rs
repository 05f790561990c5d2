//! Tests of the pool as a whole. [`Mempool::assert_consistent`] holds every index against
//! one made anew from the transactions.

use std::collections::{HashMap, HashSet};

use bitcoin::{OutPoint, Txid};
use pulse_primitives::{
    bitcoin,
    mempool::{MempoolView, ScriptHash, ScriptMempoolTotals},
};

use super::{Entry, Mempool, scripts::script_hash};
use crate::{feerate::FeeFrac, policy::script::is_unspendable};

mod blocks;
mod limits;
mod prop;
mod views;

impl Mempool {
    /// Panics unless all indexes agree with the transactions.
    pub(crate) fn assert_consistent(&self) {
        let all: Vec<&Entry> = self.table.entries().collect();
        assert_eq!(all.len(), self.len());
        assert_eq!(all.len(), self.by_time.len());
        assert_eq!(all.len(), self.iter().count());
        let sum = |of: fn(&Entry) -> u64| all.iter().map(|e| of(e)).sum::<u64>();
        assert_eq!(self.total_vsize(), sum(|e| e.vsize));
        assert_eq!(self.total_fees(), sum(|e| e.fee.to_sat()));
        let inputs: usize = all.iter().map(|e| e.tx.input.len()).sum();
        assert_eq!(self.table.spend_count(), inputs, "no output is spent twice");
        for entry in &all {
            for input in &entry.tx.input {
                assert_eq!(
                    self.spender(&input.previous_output).unwrap().0.txid,
                    entry.txid
                );
            }
        }
        self.assert_scripts(&all);
        self.assert_clusters(&all);
        self.assert_order(&all);
    }

    fn assert_scripts(&self, all: &[&Entry]) {
        let mut naive: HashMap<ScriptHash, ScriptMempoolTotals> = HashMap::new();
        for entry in all {
            let mut touched = HashSet::new();
            for output in &entry.tx.output {
                if is_unspendable(output.script_pubkey.as_bytes()) {
                    continue;
                }
                let script = script_hash(&output.script_pubkey);
                let totals = naive.entry(script).or_default();
                totals.tx_count += u64::from(touched.insert(script));
                totals.funded_count += 1;
                totals.funded_sat += output.value.to_sat();
            }
            for output in &*entry.prevouts {
                let script = script_hash(&output.script_pubkey);
                let totals = naive.entry(script).or_default();
                totals.tx_count += u64::from(touched.insert(script));
                totals.spent_count += 1;
                totals.spent_sat += output.value.to_sat();
            }
        }
        assert_eq!(self.scripts.len(), naive.len());
        for (script, totals) in naive {
            assert_eq!(self.view().script_totals(&script), totals);
        }
    }

    /// Clusters are the connected components of the graph of dependencies.
    fn assert_clusters(&self, all: &[&Entry]) {
        let mut seen: HashSet<Txid> = HashSet::new();
        for entry in all {
            if seen.contains(&entry.txid) {
                continue;
            }
            let mut component = HashSet::from([entry.txid]);
            let mut queue = vec![entry.txid];
            while let Some(txid) = queue.pop() {
                let tx = &self.get(&txid).unwrap().tx;
                let parents = tx.input.iter().map(|i| i.previous_output.txid);
                let children = (0..tx.output.len()).filter_map(|vout| {
                    let outpoint = OutPoint::new(txid, u32::try_from(vout).unwrap());
                    Some(self.spender(&outpoint)?.0.txid)
                });
                for next in parents.chain(children) {
                    if self.contains(&next) && component.insert(next) {
                        queue.push(next);
                    }
                }
            }
            let slots = self.clusters.cluster_slots(self.slot(&entry.txid).unwrap());
            let cluster: HashSet<Txid> = slots.iter().map(|s| self.entry(*s).txid).collect();
            assert_eq!(cluster, component);
            assert!(component.len() <= 64);
            seen.extend(component);
        }
    }

    /// Mining order has parents before children, falling rates, and every transaction.
    fn assert_order(&self, all: &[&Entry]) {
        let mut placed: HashSet<Txid> = HashSet::new();
        let mut last: Option<FeeFrac> = None;
        for chunk in self.chunks() {
            if let Some(last) = last {
                assert!(last.cmp_rate(&chunk.rate).is_ge());
            }
            last = Some(chunk.rate);
            let mut sum = FeeFrac::default();
            for entry in chunk.entries {
                sum += entry.rate();
                for input in &entry.tx.input {
                    let parent = input.previous_output.txid;
                    assert!(!self.contains(&parent) || placed.contains(&parent));
                }
                assert!(placed.insert(entry.txid));
            }
            assert_eq!(sum, chunk.rate);
        }
        assert_eq!(placed.len(), all.len());
    }
}
