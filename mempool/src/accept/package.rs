//! Packages: transactions that are judged by their fees together.

use std::{collections::HashSet, sync::Arc};

use bitcoin::{OutPoint, Transaction, Txid, Wtxid};
use pulse_primitives::{
    bitcoin,
    coins::CoinView,
    mempool::{AcceptedTx, PackageOutcome, RemovalReason, TxRejected, TxVerdict},
};

use super::{Candidate, Plan, Prepared, Rules, stage::exceeds};
use crate::{
    cluster::{NewTx, Slot},
    error::{AcceptError, Rejected},
    feerate::{FeeFrac, format_rate, rate_sat_kvb},
    judge::TxJudge,
    policy::{
        ephemeral,
        package::{check_well_formed, is_child_with_parents},
        replace::check_fees,
        truc::{TrucTx, check_in_package},
    },
    pool::Mempool,
};

/// Why a package as a whole is refused, in the words of Bitcoin Core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageRejected {
    /// Reason, such as `package-not-sorted` or `transaction failed`.
    pub reason: String,
    /// Detail. Empty if there is none.
    pub debug: String,
    /// The transaction that failed, by index, if it is one's fault; otherwise the package
    /// breaks a rule for packages.
    pub tx: Option<(usize, Rejected)>,
}

impl PackageRejected {
    pub(super) fn policy(reason: impl Into<String>, debug: impl Into<String>) -> Box<Self> {
        Box::new(Self {
            reason: reason.into(),
            debug: debug.into(),
            tx: None,
        })
    }

    pub(super) fn tx(index: usize, rejected: Rejected) -> Box<Self> {
        Box::new(Self {
            reason: "transaction failed".to_owned(),
            debug: String::new(),
            tx: Some((index, rejected)),
        })
    }

    /// What there is to say about a transaction.
    pub(super) fn into_single(self) -> Rejected {
        match self.tx {
            Some((_, rejected)) => rejected,
            None => Rejected::policy(self.reason).debug(self.debug),
        }
    }

    /// `reason`, or `reason, debug`.
    #[must_use]
    pub fn message(&self) -> String {
        if self.debug.is_empty() {
            return self.reason.clone();
        }
        format!("{}, {}", self.reason, self.debug)
    }
}

/// Outcome of a package.
#[derive(Debug, Clone)]
pub struct PackageResult {
    /// `None`: all are in the mempool (or would be).
    pub rejected: Option<PackageRejected>,
    /// One per transaction, in the order given.
    pub txs: Vec<PackageTx>,
    /// Transactions that left the mempool for it.
    pub replaced: Vec<Txid>,
}

/// Outcome of one transaction of a package.
#[derive(Debug, Clone)]
pub struct PackageTx {
    /// Its id.
    pub txid: Txid,
    /// Its id with witnesses.
    pub wtxid: Wtxid,
    /// `None` if the package failed before this one was judged.
    pub result: Option<Result<AcceptedTx, Rejected>>,
}

impl PackageResult {
    /// As Bitcoin Core's `submitpackage` answers.
    #[must_use]
    pub fn into_outcome(self) -> PackageOutcome {
        let message = self
            .rejected
            .map_or_else(|| "success".to_owned(), |rejected| rejected.message());
        let verdicts = self.txs.into_iter().map(|tx| TxVerdict {
            txid: tx.txid,
            wtxid: tx.wtxid,
            result: (tx.result).map(|result| result.map_err(TxRejected::from)),
        });
        PackageOutcome {
            message,
            verdicts: verdicts.collect(),
            replaced: self.replaced,
        }
    }
}

/// Why a package is not prepared.
#[derive(Debug)]
pub(super) enum PackageError {
    Rejected(Box<PackageRejected>),
    Accept(AcceptError),
}

impl From<Box<PackageRejected>> for PackageError {
    fn from(rejected: Box<PackageRejected>) -> Self {
        Self::Rejected(rejected)
    }
}

impl Mempool {
    /// Checks everything but scripts of transactions that are not here yet.
    pub(super) fn prepare_package(
        &self,
        txs: &[Arc<Transaction>],
        coins: &dyn CoinView,
        judge: &dyn TxJudge,
        now: u64,
        rules: Rules,
    ) -> Result<Prepared, PackageError> {
        let txids: Vec<Txid> = txs.iter().map(|tx| tx.compute_txid()).collect();
        check_well_formed(txs, &txids).map_err(|reason| PackageRejected::policy(reason, ""))?;
        let tip = self.check_tip(coins);
        let tip = tip.map_err(|err| PackageError::Accept(err.into()))?;
        let mut candidates: Vec<Candidate> = Vec::with_capacity(txs.len());
        for (index, tx) in txs.iter().enumerate() {
            let find = |outpoint: &OutPoint| {
                let parent = candidates.iter().find(|c| c.txid == outpoint.txid)?;
                parent.tx.output.get(outpoint.vout as usize).cloned()
            };
            let candidate = self.examine(tx, coins, judge, rules, find);
            let candidate = candidate.and_then(|candidate| {
                self.position(&candidate, now, rules)?;
                Ok(candidate)
            });
            match candidate {
                Ok(candidate) if exceeds(&candidate, rules.options.max_fee_rate_sat_kvb) => {
                    let rejected = Rejected::policy("max feerate exceeded");
                    return Err(PackageRejected::tx(index, rejected).into());
                }
                Ok(candidate) => candidates.push(candidate),
                Err(AcceptError::Rejected(rejected)) => {
                    return Err(PackageRejected::tx(index, rejected).into());
                }
                Err(err) => return Err(PackageError::Accept(err)),
            }
        }
        let plan = self.plan_package(&candidates, now, rules)?;
        Ok(Prepared {
            candidates,
            plan,
            rules,
            tip,
            changes: self.changes(),
        })
    }

    /// What depends on the rest of the mempool and on the package as a whole.
    pub(super) fn plan_package(
        &self,
        candidates: &[Candidate],
        now: u64,
        rules: Rules,
    ) -> Result<Plan, Box<PackageRejected>> {
        let mut positions = Vec::with_capacity(candidates.len());
        for (index, candidate) in candidates.iter().enumerate() {
            let position = self.position(candidate, now, rules);
            positions.push(position.map_err(|err| PackageRejected::tx(index, err))?);
        }
        let family: Vec<TrucTx<'_>> = candidates.iter().map(Candidate::truc).collect();
        for (index, position) in positions.iter().enumerate() {
            let parents = self.truc_parents(&candidates[index], &position.parents);
            check_in_package(&family, index, &parents)
                .map_err(|debug| PackageRejected::policy("TRUC-violation", debug))?;
        }
        let vsize = candidates.iter().map(|c| c.vsize).sum();
        let fee = candidates.iter().map(|c| c.fee.to_sat()).sum();
        if rules.package_feerates {
            self.check_fee_floor(fee, vsize, now).map_err(|mut err| {
                let all = candidates.iter().map(|c| c.wtxid).collect();
                err.effective = Some((rate_sat_kvb(fee, vsize), all));
                PackageRejected::tx(candidates.len() - 1, err)
            })?;
        }
        let new: Vec<NewTx> = candidates
            .iter()
            .enumerate()
            .map(|(index, candidate)| self.new_tx(candidate, &candidates[..index]))
            .collect();
        let too_large = |_| PackageRejected::policy("too-large-cluster", "");
        let (staging, removed) = if positions.iter().all(|p| p.conflicts.is_empty()) {
            let staging = self.clusters.stage(&HashSet::new(), &new, &[]);
            (staging.map_err(too_large)?, Vec::new())
        } else {
            if positions.iter().any(|p| !p.parents.is_empty()) && candidates.len() == 2 {
                return Err(PackageRejected::policy(
                    "package RBF failed: new transaction cannot have mempool ancestors",
                    "",
                ));
            }
            let conflicts: Vec<_> = positions.iter().map(|p| &p.conflicts).collect();
            let removed = self.package_replaces(candidates, &conflicts, (fee, vsize))?;
            let slots = removed.iter().map(|(slot, _)| *slot).collect();
            let staging = self.clusters.stage(&slots, &new, &[]).map_err(too_large)?;
            if !staging.improves() {
                return Err(PackageRejected::policy(
                    "package RBF failed: insufficient feerate: does not improve feerate diagram",
                    "",
                ));
            }
            (staging, removed)
        };
        for (index, candidate) in candidates.iter().enumerate() {
            let ids = (candidate.txid, candidate.wtxid);
            let parent = |txid: &Txid| {
                let in_package = candidates.iter().find(|c| c.txid == *txid);
                in_package
                    .map(|c| &*c.tx)
                    .or_else(|| self.get(txid).map(|entry| &*entry.tx))
            };
            ephemeral::check_spends(&candidate.tx, ids, parent).map_err(|err| {
                let mut rejected = PackageRejected::tx(index, err);
                rejected.reason = "unspent-dust".to_owned();
                rejected
            })?;
        }
        Ok(Plan {
            removed,
            staging,
            package: rules.package_feerates.then_some((fee, vsize)),
        })
    }

    /// All that would leave for a package, if it pays enough for that.
    fn package_replaces(
        &self,
        candidates: &[Candidate],
        conflicts: &[&std::collections::BTreeSet<Txid>],
        (fee, vsize): (u64, u64),
    ) -> Result<Vec<(Slot, RemovalReason)>, Box<PackageRejected>> {
        let failed = |what: &str, debug: String| {
            PackageRejected::policy(format!("package RBF failed: {what}"), debug)
        };
        let txs: Vec<_> = candidates.iter().map(|c| Arc::clone(&c.tx)).collect();
        let txids: Vec<Txid> = candidates.iter().map(|c| c.txid).collect();
        let [parent, child] = candidates else {
            let what = "package must be 1-parent-1-child";
            return Err(failed(what, String::new()));
        };
        if !is_child_with_parents(&txs, &txids) {
            let what = "package must be 1-parent-1-child";
            return Err(failed(what, String::new()));
        }
        let all = conflicts
            .iter()
            .flat_map(|set| set.iter().copied())
            .collect();
        let replaced = self
            .conflict_set(&child.txid, &all)
            .map_err(|debug| failed("too many potential replacements", debug))?;
        let incremental = self.config.incremental_fee_sat_kvb;
        check_fees(
            self.fees_of(&replaced),
            fee,
            vsize,
            incremental,
            &child.txid,
        )
        .map_err(|debug| failed("insufficient anti-DoS fees", debug))?;
        let signed = |n: u64| i64::try_from(n).expect("money and sizes are far below 2^63");
        let rate = |fee: u64, vsize: u64| FeeFrac::new(signed(fee), signed(vsize));
        let parent_fee = parent.fee.to_sat();
        let package_rate = rate(fee, vsize);
        if package_rate
            .cmp_rate(&rate(parent_fee, parent.vsize))
            .is_le()
        {
            return Err(failed(
                "package feerate is less than or equal to parent feerate",
                format!(
                    "package feerate {} <= parent feerate is {}",
                    format_rate(fee, vsize),
                    format_rate(parent_fee, parent.vsize)
                ),
            ));
        }
        // Who conflicts with a transaction, or with its ancestor, replaces it.
        let by_parent = self.conflict_set(&parent.txid, conflicts[0]);
        let by_parent: HashSet<Slot> = by_parent.unwrap_or_default().into_iter().collect();
        let reason = |slot: &Slot| RemovalReason::Replaced {
            by: if by_parent.contains(slot) {
                parent.txid
            } else {
                child.txid
            },
        };
        let removed = replaced.into_iter();
        Ok(removed.map(|slot| (slot, reason(&slot))).collect())
    }
}
