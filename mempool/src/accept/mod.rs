//! Acceptance of transactions, in Bitcoin Core's order of checks.
//!
//! ```text
//! prepare (shared access: everything but scripts)
//!   -> Prepared::verify (no access: scripts)
//!   -> commit (sole access: once more what may have changed, then in)
//! ```
//!
//! [`Mempool::accept`] does the three at once; [`accept`] and [`accept_package`] do them
//! through a lock, so that nobody waits for scripts.
//!
//! # Security
//! What is cheap comes first; scripts come last. Nothing depends on what a peer says about
//! a transaction.

mod candidate;
mod package;
mod stage;
mod submit;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bitcoin::{Transaction, Txid};
use pulse_primitives::{
    bitcoin,
    coins::CoinView,
    mempool::{AcceptedTx, RemovalReason},
    tip::ChainTip,
};

pub use package::{PackageRejected, PackageResult, PackageTx};
pub use submit::{PoolAccess, accept, accept_package, test_package};

use crate::{
    cluster::{Slot, Staging},
    error::{AcceptError, RejectClass, Rejected, TipMismatch},
    feerate::rate_sat_kvb,
    judge::TxJudge,
    metrics,
    policy::{inputs::spends_witness_program, signatures::check_scripts},
    pool::{Entry, Mempool, compact, compact_outputs},
};
use candidate::Candidate;

/// How a transaction is accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AcceptOptions {
    /// Only say whether it would be accepted.
    pub test: bool,
    /// Refuse above this fee rate, in sat per 1000 vB, with `max feerate exceeded`.
    pub max_fee_rate_sat_kvb: Option<u64>,
    /// When it arrived, in seconds since 1970, if not now: for what was saved.
    pub time: Option<u64>,
    /// It was submitted here: see [`Entry::local`].
    pub local: bool,
}

/// A transaction that was, or would be, accepted.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    /// Its id.
    pub txid: Txid,
    /// Its numbers.
    pub tx: AcceptedTx,
    /// Transactions that left, or would leave, for it.
    pub replaced: Vec<Txid>,
}

/// Which rules apply: they differ for packages and reorganisations.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    bypass_limits: bool,
    allow_replacement: bool,
    allow_sibling_eviction: bool,
    package_submission: bool,
    package_feerates: bool,
    options: AcceptOptions,
}

impl Rules {
    fn single(options: AcceptOptions) -> Self {
        Self {
            bypass_limits: false,
            allow_replacement: true,
            allow_sibling_eviction: true,
            package_submission: false,
            package_feerates: false,
            options,
        }
    }

    fn single_in_package(options: AcceptOptions) -> Self {
        Self {
            package_submission: true,
            ..Self::single(options)
        }
    }

    fn package(options: AcceptOptions) -> Self {
        Self {
            allow_sibling_eviction: false,
            package_submission: true,
            package_feerates: true,
            ..Self::single(options)
        }
    }

    fn package_test(options: AcceptOptions) -> Self {
        Self {
            allow_replacement: false,
            allow_sibling_eviction: false,
            ..Self::single(options)
        }
    }

    pub(crate) fn reorg() -> Self {
        Self {
            bypass_limits: true,
            ..Self::single(AcceptOptions::default())
        }
    }
}

/// A transaction, or a package, that has passed everything but scripts.
#[derive(Debug)]
pub struct Prepared {
    candidates: Vec<Candidate>,
    plan: Plan,
    rules: Rules,
    tip: ChainTip,
    /// [`Mempool::changes`] when the plan was made.
    changes: u64,
}

/// What acceptance would change.
#[derive(Debug)]
struct Plan {
    removed: Vec<(Slot, RemovalReason)>,
    staging: Staging,
    /// Fee in sat and vsize of the whole package, if it is judged by them.
    package: Option<(u64, u64)>,
}

impl Prepared {
    /// Runs the scripts. Takes long: hold no lock.
    ///
    /// # Errors
    /// [`Rejected`] of the first transaction that fails.
    pub fn verify(&self, judge: &dyn TxJudge) -> Result<(), Rejected> {
        self.verify_each(judge).map_err(|(_, rejected)| rejected)
    }

    /// As [`Prepared::verify`], with the index of the transaction.
    fn verify_each(&self, judge: &dyn TxJudge) -> Result<(), (usize, Rejected)> {
        for (i, candidate) in self.candidates.iter().enumerate() {
            let tx = &candidate.tx;
            judge
                .verify(&candidate.raw, &candidate.prevouts)
                .and_then(|()| check_scripts(tx, &candidate.prevouts))
                .map_err(|failure| {
                    let bare = tx.input.iter().all(|input| input.witness.is_empty());
                    let stripped = bare && spends_witness_program(tx, &candidate.prevouts);
                    (i, failure.into_rejected(tx, stripped))
                })?;
        }
        Ok(())
    }

    /// What acceptance would say, `replaced` as `pool` is now.
    fn outcome(&self, pool: &Mempool) -> Vec<Accepted> {
        let all: Vec<_> = self.candidates.iter().map(|c| c.wtxid).collect();
        let mut replaced: Vec<Txid> = Vec::new();
        if self.changes == pool.changes() {
            let removed = self.plan.removed.iter();
            replaced = removed.map(|(slot, _)| pool.entry(*slot).txid).collect();
        }
        self.candidates
            .iter()
            .map(|candidate| {
                let (rate, includes) = match self.plan.package {
                    Some((fee, vsize)) => (rate_sat_kvb(fee, vsize), all.clone()),
                    None => (candidate.rate_sat_kvb(), vec![candidate.wtxid]),
                };
                Accepted {
                    txid: candidate.txid,
                    tx: AcceptedTx {
                        vsize: candidate.vsize,
                        fee: candidate.fee,
                        effective_fee_rate_sat_kvb: rate,
                        effective_includes: includes,
                        other_wtxid: None,
                    },
                    replaced: std::mem::take(&mut replaced),
                }
            })
            .collect()
    }
}

impl Mempool {
    /// Checks everything but scripts. Changes nothing.
    ///
    /// # Errors
    /// [`AcceptError`].
    pub fn prepare(
        &self,
        tx: &Arc<Transaction>,
        coins: &dyn CoinView,
        judge: &dyn TxJudge,
        now: u64,
        options: AcceptOptions,
    ) -> Result<Prepared, AcceptError> {
        self.check_open()?;
        self.prepare_with(tx, coins, judge, now, Rules::single(options))
    }

    pub(crate) fn prepare_with(
        &self,
        tx: &Arc<Transaction>,
        coins: &dyn CoinView,
        judge: &dyn TxJudge,
        now: u64,
        rules: Rules,
    ) -> Result<Prepared, AcceptError> {
        let tip = self.check_tip(coins)?;
        let result = self
            .examine(tx, coins, judge, rules, |_| None)
            .and_then(|candidate| {
                let plan = self.plan_single(&candidate, now, rules)?;
                Ok((candidate, plan))
            });
        let (candidate, plan) = result.inspect_err(|err| {
            if let AcceptError::Rejected(rejected) = err {
                metrics::rejected(rejected.class);
            }
        })?;
        Ok(Prepared {
            candidates: vec![candidate],
            plan,
            rules,
            tip,
            changes: self.changes(),
        })
    }

    /// Takes in what was prepared and verified. If the contents have changed since then,
    /// what depends on them is checked again.
    ///
    /// # Errors
    /// [`AcceptError::Rejected`]; [`AcceptError::Tip`] if the tip has changed: prepare
    /// again, with new coins.
    pub fn commit(&mut self, prepared: Prepared, now: u64) -> Result<Accepted, AcceptError> {
        self.check_open()?;
        let result = self.commit_prepared(prepared, now);
        if let Err(AcceptError::Rejected(rejected)) = &result {
            metrics::rejected(rejected.class);
        }
        result
    }

    /// Checks and accepts `tx` at once, or only checks it if `options` say so.
    ///
    /// # Errors
    /// [`AcceptError`].
    pub fn accept(
        &mut self,
        tx: &Arc<Transaction>,
        coins: &dyn CoinView,
        judge: &dyn TxJudge,
        now: u64,
        options: AcceptOptions,
    ) -> Result<Accepted, AcceptError> {
        accept(&submit::Owned::new(self), tx, coins, judge, now, options)
    }

    pub(crate) fn commit_prepared(
        &mut self,
        prepared: Prepared,
        now: u64,
    ) -> Result<Accepted, AcceptError> {
        let rules = prepared.rules;
        let mut accepted = self.commit_all(prepared, now)?;
        let accepted = accepted.pop().expect("one result per transaction");
        if !rules.package_submission && !rules.bypass_limits {
            self.limit(now);
            if !self.contains(&accepted.txid) {
                let mut full = Rejected::reconsiderable("mempool full");
                full.effective = Some((
                    accepted.tx.effective_fee_rate_sat_kvb,
                    accepted.tx.effective_includes,
                ));
                return Err(full.into());
            }
        }
        Ok(accepted)
    }

    fn commit_package(
        &mut self,
        prepared: Prepared,
        now: u64,
    ) -> Result<Vec<Accepted>, AcceptError> {
        self.check_open()?;
        self.commit_all(prepared, now)
    }

    /// Expiry and the cap on memory.
    fn limit(&mut self, now: u64) {
        self.remove_expired(now);
        self.trim_to_size(now);
    }

    fn commit_all(
        &mut self,
        mut prepared: Prepared,
        now: u64,
    ) -> Result<Vec<Accepted>, AcceptError> {
        let tip = self.tip().filter(|tip| *tip == prepared.tip);
        let Some(tip) = tip else {
            return Err(AcceptError::Tip(TipMismatch {
                mempool: self.tip(),
                other: prepared.tip,
            }));
        };
        if prepared.changes != self.changes() {
            self.replan(&mut prepared, now)?;
        }
        let outcome = prepared.outcome(self);
        let Prepared {
            candidates,
            plan,
            rules,
            ..
        } = prepared;
        let entries = candidates.into_iter().map(|candidate| {
            let tx = compact(&candidate.tx);
            let prevouts = compact_outputs(&candidate.prevouts);
            Entry {
                tx,
                txid: candidate.txid,
                wtxid: candidate.wtxid,
                prevouts,
                fee: candidate.fee,
                weight: candidate.weight,
                adjusted_weight: candidate.adjusted_weight,
                vsize: candidate.vsize,
                sigop_cost: candidate.sigop_cost,
                time: rules.options.time.unwrap_or(now),
                height: tip.height,
                sequence: 0,
                locks: candidate.locks,
                spends_coinbase: candidate.spends_coinbase,
                local: rules.options.local,
                bytes: 0,
                scripts: Box::default(),
            }
        });
        let entries = entries.collect();
        let special = rules.package_feerates || rules.bypass_limits;
        self.apply(&plan.removed, entries, plan.staging, special, now);
        Ok(outcome)
    }

    /// Makes the plan anew, upon the contents of now.
    fn replan(&self, prepared: &mut Prepared, now: u64) -> Result<(), Rejected> {
        let rules = prepared.rules;
        for candidate in &prepared.candidates {
            self.check_absent(candidate)?;
        }
        let package = prepared.candidates.iter().map(|c| c.txid).collect();
        for candidate in &prepared.candidates {
            self.check_sources(candidate, &package)?;
        }
        prepared.plan = match &prepared.candidates[..] {
            [single] if !rules.package_feerates => self.plan_single(single, now, rules)?,
            all => self
                .plan_package(all, now, rules)
                .map_err(|err| err.into_single())?,
        };
        prepared.changes = self.changes();
        Ok(())
    }

    fn check_open(&self) -> Result<(), AcceptError> {
        if self.is_reorganising() {
            return Err(AcceptError::Reorganising);
        }
        Ok(())
    }

    /// The tip, which the coins must have too.
    pub(crate) fn check_tip(&self, coins: &dyn CoinView) -> Result<ChainTip, TipMismatch> {
        let other = coins.tip();
        let same = self.tip().filter(|tip| tip.hash == other.hash);
        same.ok_or(TipMismatch {
            mempool: self.tip(),
            other,
        })
    }

    /// Refuses what is here already.
    fn check_absent(&self, candidate: &Candidate) -> Result<(), Rejected> {
        if self.contains_wtxid(&candidate.wtxid) {
            return Err(Rejected::new(
                RejectClass::Conflict,
                "txn-already-in-mempool",
            ));
        }
        if self.contains(&candidate.txid) {
            return Err(Rejected::new(
                RejectClass::Conflict,
                "txn-same-nonwitness-data-in-mempool",
            ));
        }
        Ok(())
    }
}
