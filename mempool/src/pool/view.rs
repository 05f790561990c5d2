//! The mempool as the rest of the program reads it.

use std::ops::Deref;

use bitcoin::{OutPoint, ScriptBuf, Txid};
use pulse_primitives::{
    bitcoin,
    mempool::{
        MempoolPackage, MempoolTx, MempoolView, PackageMember, RemovedTx, ScriptHash,
        ScriptMempoolTotals, ScriptOutputs,
    },
    tip::ChainTip,
};

use super::{Entry, Mempool, script_hash};

/// A [`MempoolView`] over anything that leads to the mempool, such as a read guard of its
/// lock.
#[derive(Debug)]
pub struct PoolView<G>(pub G);

impl<G: Deref<Target = Mempool>> MempoolView for PoolView<G> {
    fn tip(&self) -> Option<ChainTip> {
        self.0.tip
    }

    fn sequence(&self) -> u64 {
        self.0.changes
    }

    fn tx(&self, txid: &Txid) -> Option<MempoolTx> {
        self.0.get(txid).map(Entry::to_mempool_tx)
    }

    fn spender(&self, outpoint: &OutPoint) -> Option<(Txid, u32)> {
        let (entry, input) = self.0.spender(outpoint)?;
        Some((entry.txid, input))
    }

    fn script_txs(&self, script: &ScriptHash, limit: usize) -> Vec<MempoolTx> {
        let slots = self.0.scripts.arrivals(script).take(limit);
        slots
            .map(|slot| self.0.entry(slot).to_mempool_tx())
            .collect()
    }

    fn script_totals(&self, script: &ScriptHash) -> ScriptMempoolTotals {
        self.0.scripts.totals(script)
    }

    fn script_outputs(&self, script: &ScriptHash) -> ScriptOutputs {
        self.0.script_outputs(script)
    }

    fn has_unconfirmed_parents(&self, txid: &Txid) -> bool {
        self.0
            .get(txid)
            .is_some_and(|entry| self.0.has_parents(&entry.tx))
    }

    fn txids(&self) -> Vec<Txid> {
        self.0.iter().map(|entry| entry.txid).collect()
    }

    fn recent(&self, count: usize) -> Vec<MempoolTx> {
        let newest = self.0.iter().rev().take(count);
        newest.map(Entry::to_mempool_tx).collect()
    }

    fn package(&self, txid: &Txid) -> Option<MempoolPackage> {
        let entry = self.0.get(txid)?;
        let member = |entry: &Entry| PackageMember {
            txid: entry.txid,
            fee: entry.fee,
            weight: entry.weight,
            vsize: entry.vsize,
        };
        let others = |entries: Vec<&Entry>| {
            let others = entries.into_iter().filter(|other| other.txid != *txid);
            others.map(member).collect()
        };
        Some(MempoolPackage {
            tx: member(entry),
            ancestors: others(self.0.ancestors(txid)),
            descendants: others(self.0.descendants(txid)),
            chunk: self.0.chunk_of(txid).into_iter().map(member).collect(),
        })
    }

    fn removed(&self, txid: &Txid) -> Option<RemovedTx> {
        self.0.removed.get(txid).cloned()
    }
}

impl Mempool {
    /// A view of this moment.
    #[must_use]
    pub fn view(&self) -> PoolView<&Self> {
        PoolView(self)
    }

    fn script_outputs(&self, script: &ScriptHash) -> ScriptOutputs {
        let mut outputs = ScriptOutputs::default();
        // The script itself, hashed once, so that the rest is a comparison of bytes.
        let mut bytes: Option<ScriptBuf> = None;
        for slot in self.scripts.arrivals(script) {
            let entry = self.entry(slot);
            if bytes.is_none() {
                bytes = find_script(entry, script);
            }
            let Some(bytes) = &bytes else { continue };
            for (output, vout) in entry.tx.output.iter().zip(0..) {
                let outpoint = OutPoint::new(entry.txid, vout);
                if output.script_pubkey == *bytes && self.spender_slot(&outpoint).is_none() {
                    outputs.unspent.push((outpoint, output.value));
                }
            }
            for (input, prevout) in entry.tx.input.iter().zip(entry.prevouts.iter()) {
                let outpoint = input.previous_output;
                if prevout.script_pubkey == *bytes && !self.contains(&outpoint.txid) {
                    outputs.spent.push(outpoint);
                }
            }
        }
        outputs
    }
}

fn find_script(entry: &Entry, script: &ScriptHash) -> Option<ScriptBuf> {
    let outputs = entry.tx.output.iter().chain(entry.prevouts.iter());
    outputs
        .map(|output| &output.script_pubkey)
        .find(|bytes| script_hash(bytes) == *script)
        .cloned()
}
