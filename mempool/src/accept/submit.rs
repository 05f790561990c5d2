//! The steps of acceptance in a row, for an owner and through a lock.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use bitcoin::{Transaction, Txid, Wtxid};
use parking_lot::RwLock;
use pulse_primitives::{bitcoin, coins::CoinView, mempool::AcceptedTx};

use super::{
    AcceptOptions, Accepted, PackageRejected, PackageResult, PackageTx, Prepared, Rules,
    package::PackageError,
};
use crate::{
    error::{AcceptError, RejectClass, Rejected},
    judge::TxJudge,
    metrics,
    policy::package::{check_well_formed, is_child_with_parents},
    pool::Mempool,
};

/// Ways to a mempool: shared to look, sole to change.
pub trait PoolAccess {
    /// Looks at the mempool.
    fn read<R>(&self, look: impl FnOnce(&Mempool) -> R) -> R;
    /// Changes the mempool.
    fn write<R>(&self, change: impl FnOnce(&mut Mempool) -> R) -> R;
}

impl PoolAccess for RwLock<Mempool> {
    fn read<R>(&self, look: impl FnOnce(&Mempool) -> R) -> R {
        look(&self.read())
    }

    fn write<R>(&self, change: impl FnOnce(&mut Mempool) -> R) -> R {
        change(&mut self.write())
    }
}

/// Access of a sole owner.
pub(super) struct Owned<'a>(RefCell<&'a mut Mempool>);

impl<'a> Owned<'a> {
    pub fn new(pool: &'a mut Mempool) -> Self {
        Self(RefCell::new(pool))
    }
}

impl PoolAccess for Owned<'_> {
    fn read<R>(&self, look: impl FnOnce(&Mempool) -> R) -> R {
        look(&self.0.borrow())
    }

    fn write<R>(&self, change: impl FnOnce(&mut Mempool) -> R) -> R {
        change(&mut self.0.borrow_mut())
    }
}

/// Checks and accepts `tx`, or only checks it if `options` say so. No lock is held while
/// scripts run.
///
/// # Errors
/// [`AcceptError`].
pub fn accept(
    pool: &impl PoolAccess,
    tx: &Arc<Transaction>,
    coins: &dyn CoinView,
    judge: &dyn TxJudge,
    now: u64,
    options: AcceptOptions,
) -> Result<Accepted, AcceptError> {
    accept_by(pool, tx, coins, judge, now, Rules::single(options))
}

fn accept_by(
    pool: &impl PoolAccess,
    tx: &Arc<Transaction>,
    coins: &dyn CoinView,
    judge: &dyn TxJudge,
    now: u64,
    rules: Rules,
) -> Result<Accepted, AcceptError> {
    let prepared = pool.read(|pool| {
        pool.check_open()?;
        pool.prepare_with(tx, coins, judge, now, rules)
    })?;
    prepared
        .verify(judge)
        .inspect_err(|rejected| metrics::rejected(rejected.class))?;
    if rules.options.test {
        let mut outcome = pool.read(|pool| prepared.outcome(pool));
        return Ok(outcome.pop().expect("one result per transaction"));
    }
    pool.write(|pool| pool.commit(prepared, now))
}

/// Accepts a child with its parents, or a single transaction (Bitcoin Core's
/// `submitpackage`): first each alone, then those that paid too little, or miss one of
/// them, together. [`AcceptOptions::test`] is for single ones: see [`test_package`].
///
/// # Errors
/// [`AcceptError`], but not [`AcceptError::Rejected`]: see [`PackageResult::rejected`].
pub fn accept_package(
    pool: &impl PoolAccess,
    txs: &[Arc<Transaction>],
    coins: &dyn CoinView,
    judge: &dyn TxJudge,
    now: u64,
    options: AcceptOptions,
) -> Result<PackageResult, AcceptError> {
    let options = AcceptOptions {
        test: false,
        ..options
    };
    let ids: Vec<(Txid, Wtxid)> = txs
        .iter()
        .map(|tx| (tx.compute_txid(), tx.compute_wtxid()))
        .collect();
    let txids: Vec<Txid> = ids.iter().map(|(txid, _)| *txid).collect();
    let unjudged = |rejected| {
        Ok(result(
            &ids,
            Some(rejected),
            &mut HashMap::new(),
            Vec::new(),
        ))
    };
    if let Err(reason) = check_well_formed(txs, &txids) {
        return unjudged(PackageRejected::policy(reason, ""));
    }
    if txs.len() > 1 && !is_child_with_parents(txs, &txids) {
        return unjudged(PackageRejected::policy(
            "package-not-child-with-parents",
            "",
        ));
    }

    let mut results: HashMap<Wtxid, Result<AcceptedTx, Rejected>> = HashMap::new();
    let mut rejected = None;
    let mut replaced = Vec::new();
    let mut together: Vec<usize> = Vec::new();
    for (index, tx) in txs.iter().enumerate() {
        let (txid, wtxid) = ids[index];
        if let Some(known) = pool.read(|pool| known(pool, &txid, &wtxid)) {
            results.insert(wtxid, Ok(known));
            continue;
        }
        let rules = Rules::single_in_package(options);
        match accept_by(pool, tx, coins, judge, now, rules) {
            Ok(accepted) => {
                replaced.extend(accepted.replaced);
                results.insert(wtxid, Ok(accepted.tx));
            }
            Err(AcceptError::Rejected(err)) => {
                let retry = matches!(
                    err.class,
                    RejectClass::Reconsiderable | RejectClass::MissingInputs
                );
                if retry && txs.len() > 1 {
                    together.push(index);
                } else {
                    rejected = Some(PackageRejected::tx(index, err.clone()));
                }
                results.insert(wtxid, Err(err));
            }
            Err(err) => return Err(err),
        }
    }

    if rejected.is_none() && !together.is_empty() {
        let some: Vec<_> = together
            .iter()
            .map(|&index| Arc::clone(&txs[index]))
            .collect();
        match submit_together(pool, &some, coins, judge, now, options) {
            Ok(accepted) => {
                for (&index, accepted) in together.iter().zip(accepted) {
                    replaced.extend(accepted.replaced);
                    results.insert(ids[index].1, Ok(accepted.tx));
                }
            }
            Err(PackageError::Accept(err)) => return Err(err),
            Err(PackageError::Rejected(mut err)) => {
                if let Some((index, tx)) = &mut err.tx {
                    *index = together[*index];
                    results.insert(ids[*index].1, Err(tx.clone()));
                }
                rejected = Some(err);
            }
        }
    }

    pool.write(|pool| pool.limit(now));
    for (index, (txid, wtxid)) in ids.iter().enumerate() {
        let evicted =
            results.get(wtxid).is_some_and(Result::is_ok) && !pool.read(|pool| pool.contains(txid));
        if evicted {
            let full = Rejected::policy("mempool full");
            results.insert(*wtxid, Err(full.clone()));
            rejected = Some(PackageRejected::tx(index, full));
        }
    }
    Ok(result(&ids, rejected, &mut results, replaced))
}

fn submit_together(
    pool: &impl PoolAccess,
    txs: &[Arc<Transaction>],
    coins: &dyn CoinView,
    judge: &dyn TxJudge,
    now: u64,
    options: AcceptOptions,
) -> Result<Vec<Accepted>, PackageError> {
    // A single one is judged alone again, now that the others are in.
    if let [tx] = txs {
        let rules = Rules::single_in_package(options);
        return match accept_by(pool, tx, coins, judge, now, rules) {
            Ok(accepted) => Ok(vec![accepted]),
            Err(AcceptError::Rejected(err)) => Err(PackageRejected::tx(0, err).into()),
            Err(err) => Err(PackageError::Accept(err)),
        };
    }
    let prepared = prepare_and_verify(pool, txs, coins, judge, now, Rules::package(options))?;
    pool.write(|pool| pool.commit_package(prepared, now))
        .map_err(|err| match err {
            AcceptError::Rejected(err) => PackageRejected::tx(txs.len() - 1, err).into(),
            err => PackageError::Accept(err),
        })
}

fn prepare_and_verify(
    pool: &impl PoolAccess,
    txs: &[Arc<Transaction>],
    coins: &dyn CoinView,
    judge: &dyn TxJudge,
    now: u64,
    rules: Rules,
) -> Result<Prepared, PackageError> {
    let prepared = pool.read(|pool| {
        pool.check_open().map_err(PackageError::Accept)?;
        pool.prepare_package(txs, coins, judge, now, rules)
    })?;
    prepared
        .verify_each(judge)
        .map_err(|(index, err)| PackageRejected::tx(index, err))?;
    Ok(prepared)
}

/// What Bitcoin Core's `testmempoolaccept` says of several transactions, parents before
/// children: nothing is accepted, and none may replace others.
///
/// # Errors
/// [`AcceptError`], but not [`AcceptError::Rejected`].
pub fn test_package(
    pool: &impl PoolAccess,
    txs: &[Arc<Transaction>],
    coins: &dyn CoinView,
    judge: &dyn TxJudge,
    now: u64,
    options: AcceptOptions,
) -> Result<PackageResult, AcceptError> {
    let ids: Vec<(Txid, Wtxid)> = txs
        .iter()
        .map(|tx| (tx.compute_txid(), tx.compute_wtxid()))
        .collect();
    let rules = Rules::package_test(options);
    let mut results = HashMap::new();
    let rejected = match prepare_and_verify(pool, txs, coins, judge, now, rules) {
        Ok(prepared) => {
            let outcome = pool.read(|pool| prepared.outcome(pool));
            let wtxids = ids.iter().map(|(_, wtxid)| *wtxid);
            results.extend(wtxids.zip(outcome.into_iter().map(|accepted| Ok(accepted.tx))));
            None
        }
        Err(PackageError::Accept(err)) => return Err(err),
        Err(PackageError::Rejected(err)) => {
            if let Some((index, tx)) = &err.tx {
                results.insert(ids[*index].1, Err(tx.clone()));
            }
            Some(err)
        }
    };
    Ok(result(&ids, rejected, &mut results, Vec::new()))
}

/// What there is to say of a transaction that is here already, maybe with another witness.
fn known(pool: &Mempool, txid: &Txid, wtxid: &Wtxid) -> Option<AcceptedTx> {
    let entry = pool.get(txid)?;
    Some(AcceptedTx {
        vsize: entry.vsize,
        fee: entry.fee,
        effective_fee_rate_sat_kvb: crate::feerate::rate_sat_kvb(entry.fee.to_sat(), entry.vsize),
        effective_includes: Vec::new(),
        other_wtxid: (entry.wtxid != *wtxid).then_some(entry.wtxid),
    })
}

fn result(
    ids: &[(Txid, Wtxid)],
    rejected: Option<Box<PackageRejected>>,
    results: &mut HashMap<Wtxid, Result<AcceptedTx, Rejected>>,
    replaced: Vec<Txid>,
) -> PackageResult {
    let txs = ids.iter().map(|(txid, wtxid)| PackageTx {
        txid: *txid,
        wtxid: *wtxid,
        result: results.remove(wtxid),
    });
    PackageResult {
        rejected: rejected.map(|rejected| *rejected),
        txs: txs.collect(),
        replaced,
    }
}

impl Mempool {
    /// [`accept_package`] for a sole owner.
    ///
    /// # Errors
    /// As there.
    pub fn accept_package(
        &mut self,
        txs: &[Arc<Transaction>],
        coins: &dyn CoinView,
        judge: &dyn TxJudge,
        now: u64,
        options: AcceptOptions,
    ) -> Result<PackageResult, AcceptError> {
        accept_package(&Owned::new(self), txs, coins, judge, now, options)
    }
}
