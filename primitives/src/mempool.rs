//! Unconfirmed transactions as the rest of the program sees them, and the ports to
//! ask for them and to hand some in.

use std::{fmt, sync::Arc};

use bitcoin::{Amount, OutPoint, Transaction, TxOut, Txid, Wtxid, hashes::sha256};

use crate::{
    tip::ChainTip,
    touched::{TouchedScripts, TouchedTxs},
};

/// SHA-256 of an output's script, not reversed.
pub type ScriptHash = sha256::Hash;

/// A transaction in the mempool.
#[derive(Debug, Clone)]
pub struct MempoolTx {
    /// The transaction.
    pub tx: Arc<Transaction>,
    /// Its id.
    pub txid: Txid,
    /// Its id with witnesses.
    pub wtxid: Wtxid,
    /// The output that each input spends, in order.
    pub prevouts: Arc<[TxOut]>,
    /// Inputs minus outputs.
    pub fee: Amount,
    /// Weight, in weight units (BIP 141).
    pub weight: u64,
    /// Virtual size as policy sees it, in vB: weight / 4 rounded up, or more for many
    /// signature operations.
    pub vsize: u64,
    /// Cost of its signature operations (BIP 141).
    pub sigop_cost: u32,
    /// When it was accepted, in seconds since 1970.
    pub time: u64,
    /// Counts acceptances: orders transactions by arrival.
    pub sequence: u64,
}

/// Totals of one script among unconfirmed transactions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScriptMempoolTotals {
    /// Transactions that pay it or spend from it.
    pub tx_count: u64,
    /// Outputs that pay it.
    pub funded_count: u64,
    /// Their sum, in sat.
    pub funded_sat: u64,
    /// Inputs that spend its outputs, confirmed or not.
    pub spent_count: u64,
    /// Their sum, in sat.
    pub spent_sat: u64,
}

/// Size of the mempool and how its fee rates are spread.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Backlog {
    /// Transactions.
    pub count: u64,
    /// Sum of virtual sizes, in vB.
    pub vsize: u64,
    /// Sum of fees, in sat.
    pub total_fee_sat: u64,
    /// Memory that the mempool takes, in bytes.
    pub memory_bytes: u64,
    /// `(fee rate in sat/vB, vsize in vB)`, by falling fee rate: each entry sums the
    /// transactions from its fee rate up to the entry before, at least 50,000 vB each
    /// but for the last.
    pub histogram: Vec<(f64, u64)>,
}

/// One of the next blocks, if the mempool were mined as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct ProjectedBlock {
    /// Transactions.
    pub tx_count: u64,
    /// Weight without header and coinbase, in weight units.
    pub weight: u64,
    /// Sum of virtual sizes, in vB.
    pub vsize: u64,
    /// Sum of fees, in sat.
    pub total_fee_sat: u64,
    /// Fee rate at 0, 10, 25, 50, 75, 90 and 100 % of its weight, rising, in sat/vB.
    pub fee_range: [f64; 7],
    /// Median fee rate by weight, in sat/vB.
    pub median_fee_rate: f64,
}

/// Why a transaction left the mempool without being confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemovalReason {
    /// Others took its inputs for a better fee.
    Replaced {
        /// The transaction that replaced it, or its ancestor.
        by: Txid,
    },
    /// A confirmed transaction took its inputs.
    Conflict {
        /// The confirmed transaction.
        with: Txid,
    },
    /// It stayed too long.
    Expired,
    /// The mempool was full and its fee rate the lowest.
    SizeLimit,
    /// It did not fit the chain any more after a reorganisation.
    Reorg,
}

/// A transaction that left the mempool without being confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedTx {
    /// Why.
    pub reason: RemovalReason,
    /// When, in seconds since 1970.
    pub time: u64,
}

/// The mempool at one moment. Holds up changes while it lives: ask, copy, drop.
pub trait MempoolView {
    /// The block that the mempool builds upon: the index's tip of that moment. `None`
    /// while the node has none or is still catching up; the mempool is empty then.
    fn tip(&self) -> Option<ChainTip>;
    /// Number that changes with every change of the contents.
    fn sequence(&self) -> u64;
    /// A transaction by id.
    fn tx(&self, txid: &Txid) -> Option<MempoolTx>;
    /// Who spends `outpoint`: the transaction and the index of its input.
    fn spender(&self, outpoint: &OutPoint) -> Option<(Txid, u32)>;
    /// Transactions that pay `script` or spend from it, oldest arrival first, up to
    /// `limit`.
    fn script_txs(&self, script: &ScriptHash, limit: usize) -> Vec<MempoolTx>;
    /// Totals of a script.
    fn script_totals(&self, script: &ScriptHash) -> ScriptMempoolTotals;
    /// Outputs of unconfirmed transactions to `script` that nothing in the mempool
    /// spends, and the confirmed outputs of it that the mempool spends.
    fn script_outputs(&self, script: &ScriptHash) -> ScriptOutputs;
    /// Whether an unconfirmed transaction spends outputs of unconfirmed ones.
    fn has_unconfirmed_parents(&self, txid: &Txid) -> bool;
    /// All ids, oldest arrival first.
    fn txids(&self) -> Vec<Txid>;
    /// The newest arrivals, newest first.
    fn recent(&self, count: usize) -> Vec<MempoolTx>;
    /// A transaction with its relatives, at most a cluster's.
    fn package(&self, txid: &Txid) -> Option<MempoolPackage>;
    /// A transaction that left without being confirmed, if that is remembered still.
    fn removed(&self, txid: &Txid) -> Option<RemovedTx>;
}

/// An unconfirmed transaction and those that it depends on or that depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MempoolPackage {
    /// The transaction.
    pub tx: PackageMember,
    /// Unconfirmed ones that it depends on, without itself, parents first.
    pub ancestors: Vec<PackageMember>,
    /// Those that depend on it, without itself, parents first.
    pub descendants: Vec<PackageMember>,
    /// Those that it would be mined with, itself included, parents first.
    pub chunk: Vec<PackageMember>,
}

/// See [`MempoolPackage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackageMember {
    /// Its id.
    pub txid: Txid,
    /// Inputs minus outputs.
    pub fee: Amount,
    /// Weight, in weight units (BIP 141).
    pub weight: u64,
    /// Virtual size as policy sees it, in vB.
    pub vsize: u64,
}

/// See [`MempoolView::script_outputs`].
#[derive(Debug, Clone, Default)]
pub struct ScriptOutputs {
    /// Unspent outputs of unconfirmed transactions.
    pub unspent: Vec<(OutPoint, Amount)>,
    /// Outpoints of this script that unconfirmed transactions spend.
    pub spent: Vec<OutPoint>,
}

/// Estimated fee rates.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FeeEstimates {
    /// `(confirmation target in blocks, fee rate in sat/vB)`, by rising target. A target
    /// without enough data is absent.
    pub by_target: Vec<(u16, f64)>,
}

/// Fee rates by which a node relays, in sat per 1000 vB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayFees {
    /// Least that a transaction has to pay, however empty the mempool is.
    pub min_relay_sat_kvb: u64,
    /// Least by which a replacement has to pay more.
    pub incremental_sat_kvb: u64,
}

/// The mempool, from the node to the API. Calls may wait for a lock: not for async code.
pub trait MempoolSource: Send + Sync + 'static {
    /// The mempool now.
    fn view(&self) -> Box<dyn MempoolView + '_>;
    /// Size and fee rates, at most some seconds old.
    fn backlog(&self) -> Arc<Backlog>;
    /// The next blocks, best first, at most some seconds old; the last one may hold all
    /// the rest.
    fn projected_blocks(&self) -> Arc<[ProjectedBlock]>;
    /// Fee estimates, at most some seconds old.
    fn fee_estimates(&self) -> Arc<FeeEstimates>;
    /// Lowest fee rate that is accepted now, in sat per 1000 vB.
    fn min_fee_rate_sat_kvb(&self) -> u64;
    /// Fee rates that are settings of the node.
    fn relay_fees(&self) -> RelayFees;
    /// Scripts of every transaction that enters or leaves, whatever for.
    fn touched(&self) -> Arc<TouchedScripts>;
    /// Every transaction that enters or leaves, whatever for.
    fn touched_txs(&self) -> Arc<TouchedTxs>;
}

/// What a client of [`TxSubmitter`] limits.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct SubmitLimits {
    /// Refuse above this fee rate, in sat per 1000 vB. `None`: no limit.
    pub max_fee_rate_sat_kvb: Option<u64>,
    /// Refuse if provably unspendable outputs hold more than this. `None`: no limit.
    pub max_burn: Option<Amount>,
}

/// Why a transaction is refused, in the words of Bitcoin Core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxRejected {
    /// Code of Bitcoin Core's `sendrawtransaction`: -25 missing inputs or limits of the
    /// client, -26 policy or consensus, -27 already in the chain.
    pub code: i32,
    /// Reason, such as `min relay fee not met`.
    pub reason: String,
    /// Detail, such as `120 < 141`. Empty if there is none.
    pub debug: String,
}

/// `reason`, or `reason, debug`.
impl fmt::Display for TxRejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        if self.debug.is_empty() {
            return Ok(());
        }
        write!(f, ", {}", self.debug)
    }
}

impl std::error::Error for TxRejected {}

/// Verdict on one transaction of a test or of a package.
#[derive(Debug, Clone)]
pub struct TxVerdict {
    /// Its id.
    pub txid: Txid,
    /// Its id with witnesses.
    pub wtxid: Wtxid,
    /// Whether it was (or would be) accepted; `Err` has the reason. `None` if it was not
    /// judged, because something else of its package was refused first.
    pub result: Option<Result<AcceptedTx, TxRejected>>,
}

/// Numbers of a transaction that is (or would be) accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct AcceptedTx {
    /// Virtual size as policy sees it, in vB.
    pub vsize: u64,
    /// Fee.
    pub fee: Amount,
    /// Fee rate that decided, in sat per 1000 vB: of the package if it was judged as one.
    pub effective_fee_rate_sat_kvb: u64,
    /// Transactions whose fees count in that rate.
    pub effective_includes: Vec<Wtxid>,
    /// A transaction with this id and another witness was in the mempool already.
    pub other_wtxid: Option<Wtxid>,
}

/// Outcome of a package (Bitcoin Core's `submitpackage`).
#[derive(Debug, Clone)]
pub struct PackageOutcome {
    /// `success`, or why the package as a whole failed.
    pub message: String,
    /// One verdict per transaction, in the order given.
    pub verdicts: Vec<TxVerdict>,
    /// Transactions that left the mempool for it.
    pub replaced: Vec<Txid>,
}

/// Outcome of a test (Bitcoin Core's `testmempoolaccept`).
#[derive(Debug, Clone)]
pub struct TestOutcome {
    /// Why the transactions are refused as a package, if it is no single one's fault.
    pub package_error: Option<String>,
    /// One verdict per transaction, in the order given.
    pub verdicts: Vec<TxVerdict>,
}

/// Takes transactions from clients, from the API to the node. Calls may wait for a
/// lock and check scripts: not for async code.
pub trait TxSubmitter: Send + Sync + 'static {
    /// Accepts `tx` into the mempool and announces it to peers; already being there is
    /// success, and announces it again. Visible in [`MempoolSource`] when it returns.
    ///
    /// # Errors
    /// [`TxRejected`].
    fn submit(&self, tx: Transaction, limits: SubmitLimits) -> Result<Txid, TxRejected>;
    /// Verdict on a transaction, or on several that build upon each other, as if they
    /// were submitted; nothing is accepted.
    fn test(&self, txs: Vec<Transaction>, limits: SubmitLimits) -> TestOutcome;
    /// Accepts a package: one child behind its parents (Bitcoin Core's `submitpackage`).
    ///
    /// # Errors
    /// [`TxRejected`] when the package is malformed; what policy says of its
    /// transactions is in the outcome.
    fn submit_package(
        &self,
        txs: Vec<Transaction>,
        limits: SubmitLimits,
    ) -> Result<PackageOutcome, TxRejected>;
}
