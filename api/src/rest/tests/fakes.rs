//! A mempool of a few transactions, read one by one, and a node that is synced.

use std::{collections::HashMap, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use pulse_primitives::{
    bitcoin::{
        Amount, OutPoint, Script, Transaction, TxOut, Txid, Work,
        hashes::{Hash, sha256},
    },
    mempool::{
        Backlog, FeeEstimates, MempoolPackage, MempoolSource, MempoolTx, MempoolView,
        PackageMember, PackageOutcome, ProjectedBlock, RelayFees, RemovedTx, ScriptHash,
        ScriptMempoolTotals, ScriptOutputs, SubmitLimits, TestOutcome, TxRejected, TxSubmitter,
        TxVerdict,
    },
    ports::{BlockSource, NodeStatus},
    status::NodeReport,
    tip::ChainTip,
    touched::{TouchedScripts, TouchedTxs},
};

use tokio::sync::watch;

use super::memchain::MemChain;

#[derive(Default)]
pub(super) struct FakeMempool(Mutex<Pool>);

#[derive(Default)]
pub(super) struct Pool {
    pub tip: Option<ChainTip>,
    pub txs: Vec<MempoolTx>,
    pub removed: HashMap<Txid, RemovedTx>,
    pub backlog: Backlog,
    pub estimates: FeeEstimates,
    pub projected: Vec<ProjectedBlock>,
    /// What the next submission is told, and with which entry it is accepted.
    pub submission: Option<Result<MempoolTx, TxRejected>>,
    pub package: Option<Result<PackageOutcome, TxRejected>>,
    pub(super) package_error: Option<String>,
    pub verdicts: Vec<TxVerdict>,
    /// What was handed in, with its limits.
    pub seen: Vec<(Vec<Transaction>, SubmitLimits)>,
}

impl FakeMempool {
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Pool) -> T) -> T {
        change(&mut self.0.lock())
    }
}

struct View<'a>(MutexGuard<'a, Pool>);

fn is(script: &Script, hash: &ScriptHash) -> bool {
    sha256::Hash::hash(script.as_bytes()) == *hash
}

impl Pool {
    fn spends(&self, outpoint: &OutPoint) -> Option<(Txid, u32)> {
        self.txs.iter().find_map(|entry| {
            let mut inputs = (0..).zip(&entry.tx.input);
            let (vin, _) = inputs.find(|(_, input)| input.previous_output == *outpoint)?;
            Some((entry.txid, vin))
        })
    }

    fn funded<'a>(
        &'a self,
        script: &'a ScriptHash,
    ) -> impl Iterator<Item = (OutPoint, &'a TxOut)> + 'a {
        self.txs.iter().flat_map(move |entry| {
            let outputs = (0..).zip(&entry.tx.output);
            let outputs = outputs.filter(|(_, output)| is(&output.script_pubkey, script));
            outputs.map(|(vout, output)| (OutPoint::new(entry.txid, vout), output))
        })
    }

    fn spent<'a>(
        &'a self,
        script: &'a ScriptHash,
    ) -> impl Iterator<Item = (OutPoint, &'a TxOut)> + 'a {
        self.txs.iter().flat_map(move |entry| {
            let inputs = entry.tx.input.iter().zip(&*entry.prevouts);
            let inputs = inputs.filter(|(_, output)| is(&output.script_pubkey, script));
            inputs.map(|(input, output)| (input.previous_output, output))
        })
    }

    fn touches(entry: &MempoolTx, script: &ScriptHash) -> bool {
        let mut outputs = entry.tx.output.iter().chain(&*entry.prevouts);
        outputs.any(|output| is(&output.script_pubkey, script))
    }
}

impl MempoolView for View<'_> {
    fn tip(&self) -> Option<ChainTip> {
        self.0.tip
    }

    fn sequence(&self) -> u64 {
        0
    }

    fn tx(&self, txid: &Txid) -> Option<MempoolTx> {
        let mut txs = self.0.txs.iter();
        txs.find(|entry| entry.txid == *txid).cloned()
    }

    fn spender(&self, outpoint: &OutPoint) -> Option<(Txid, u32)> {
        self.0.spends(outpoint)
    }

    fn script_txs(&self, script: &ScriptHash, limit: usize) -> Vec<MempoolTx> {
        let txs = self
            .0
            .txs
            .iter()
            .filter(|entry| Pool::touches(entry, script));
        txs.take(limit).cloned().collect()
    }

    fn script_totals(&self, script: &ScriptHash) -> ScriptMempoolTotals {
        let txs = self.0.txs.iter();
        ScriptMempoolTotals {
            tx_count: txs.filter(|entry| Pool::touches(entry, script)).count() as u64,
            funded_count: self.0.funded(script).count() as u64,
            funded_sat: self
                .0
                .funded(script)
                .map(|(_, out)| out.value.to_sat())
                .sum(),
            spent_count: self.0.spent(script).count() as u64,
            spent_sat: self
                .0
                .spent(script)
                .map(|(_, out)| out.value.to_sat())
                .sum(),
        }
    }

    fn script_outputs(&self, script: &ScriptHash) -> ScriptOutputs {
        let unspent = self.0.funded(script);
        let unspent = unspent.filter(|(outpoint, _)| self.0.spends(outpoint).is_none());
        ScriptOutputs {
            unspent: unspent
                .map(|(outpoint, output)| (outpoint, output.value))
                .collect(),
            spent: self.0.spent(script).map(|(outpoint, _)| outpoint).collect(),
        }
    }

    fn has_unconfirmed_parents(&self, txid: &Txid) -> bool {
        let parents = |entry: &MempoolTx| {
            let mut inputs = entry.tx.input.iter();
            inputs.any(|input| self.tx(&input.previous_output.txid).is_some())
        };
        self.tx(txid).is_some_and(|entry| parents(&entry))
    }

    fn txids(&self) -> Vec<Txid> {
        self.0.txs.iter().map(|entry| entry.txid).collect()
    }

    fn recent(&self, count: usize) -> Vec<MempoolTx> {
        self.0.txs.iter().rev().take(count).cloned().collect()
    }

    fn package(&self, txid: &Txid) -> Option<MempoolPackage> {
        let member = |entry: &MempoolTx| PackageMember {
            txid: entry.txid,
            fee: entry.fee,
            weight: entry.weight,
            vsize: entry.vsize,
        };
        let entry = self.tx(txid)?;
        let parents =
            (entry.tx.input.iter()).filter_map(|input| self.tx(&input.previous_output.txid));
        let ancestors: Vec<_> = parents.map(|entry| member(&entry)).collect();
        let children = self.0.txs.iter().filter(|other| {
            let mut inputs = other.tx.input.iter();
            inputs.any(|input| input.previous_output.txid == *txid)
        });
        let mut chunk = ancestors.clone();
        chunk.push(member(&entry));
        Some(MempoolPackage {
            tx: member(&entry),
            ancestors,
            descendants: children.map(member).collect(),
            chunk,
        })
    }

    fn removed(&self, txid: &Txid) -> Option<RemovedTx> {
        self.0.removed.get(txid).cloned()
    }
}

impl MempoolSource for FakeMempool {
    fn view(&self) -> Box<dyn MempoolView + '_> {
        Box::new(View(self.0.lock()))
    }

    fn backlog(&self) -> Arc<Backlog> {
        Arc::new(self.0.lock().backlog.clone())
    }

    fn projected_blocks(&self) -> Arc<[ProjectedBlock]> {
        self.0.lock().projected.clone().into()
    }

    fn fee_estimates(&self) -> Arc<FeeEstimates> {
        Arc::new(self.0.lock().estimates.clone())
    }

    fn min_fee_rate_sat_kvb(&self) -> u64 {
        100
    }

    fn relay_fees(&self) -> RelayFees {
        RelayFees {
            min_relay_sat_kvb: 100,
            incremental_sat_kvb: 100,
        }
    }

    fn touched(&self) -> Arc<TouchedScripts> {
        Arc::default()
    }

    fn touched_txs(&self) -> Arc<TouchedTxs> {
        Arc::default()
    }
}

impl TxSubmitter for FakeMempool {
    fn submit(&self, tx: Transaction, limits: SubmitLimits) -> Result<Txid, TxRejected> {
        let mut pool = self.0.lock();
        let txid = tx.compute_txid();
        pool.seen.push((vec![tx], limits));
        let entry = pool.submission.take().unwrap_or_else(|| Err(refused()))?;
        assert_eq!(entry.txid, txid);
        pool.txs.push(entry);
        Ok(txid)
    }

    fn test(&self, txs: Vec<Transaction>, limits: SubmitLimits) -> TestOutcome {
        let mut pool = self.0.lock();
        pool.seen.push((txs, limits));
        TestOutcome {
            package_error: pool.package_error.take(),
            verdicts: std::mem::take(&mut pool.verdicts),
        }
    }

    fn submit_package(
        &self,
        txs: Vec<Transaction>,
        limits: SubmitLimits,
    ) -> Result<PackageOutcome, TxRejected> {
        let mut pool = self.0.lock();
        pool.seen.push((txs, limits));
        pool.package.take().unwrap_or_else(|| Err(refused()))
    }
}

/// What a submission is told that no test has prepared.
fn refused() -> TxRejected {
    TxRejected {
        code: -25,
        reason: "bad-txns-inputs-missingorspent".to_owned(),
        debug: String::new(),
    }
}

/// A node that has all headers and blocks of a chain, or waits for some.
pub(super) struct FakeStatus(Arc<MemChain>);

impl FakeStatus {
    pub(super) fn new(chain: Arc<MemChain>) -> Self {
        Self(chain)
    }
}

impl NodeStatus for FakeStatus {
    fn report(&self) -> NodeReport {
        // Blocks may come and go meanwhile: hashes are those of the chain at one moment.
        let active = self.0.active();
        let active_tip = ChainTip {
            height: u32::try_from(active.len() - 1).unwrap(),
            hash: *active.last().unwrap(),
            ..*self.0.tip().borrow()
        };
        let best_height = self.0.best_header_height().max(active_tip.height);
        let unknown = Hash::all_zeros();
        let hash_at = |height: u32| *active.get(height as usize).unwrap_or(&unknown);
        NodeReport {
            best_header: ChainTip {
                height: best_height,
                ..active_tip
            },
            best_hashes: (0..3)
                .filter_map(|back| best_height.checked_sub(back).map(hash_at))
                .collect(),
            best_header_work: Work::from_be_bytes([1; 32]),
            min_chain_work: Work::from_be_bytes([0; 32]),
            headers_answered: true,
            active_tip,
            peers: Vec::new(),
            blocks_in_flight: 0,
            blocks_received: 0,
            bytes_received: 0,
            peers_dropped: 0,
        }
    }

    fn headers_answered(&self) -> watch::Receiver<bool> {
        watch::Sender::new(true).subscribe()
    }
}

/// A verdict that accepts `entry` for itself.
pub(super) fn accepted(entry: &MempoolTx) -> TxVerdict {
    TxVerdict {
        txid: entry.txid,
        wtxid: entry.wtxid,
        result: Some(Ok(pulse_primitives::mempool::AcceptedTx {
            vsize: 271,
            fee: Amount::from_sat(760),
            effective_fee_rate_sat_kvb: 2804,
            effective_includes: vec![entry.wtxid],
            other_wtxid: None,
        })),
    }
}
