//! Transactions from clients, answered as Bitcoin Core's `sendrawtransaction`,
//! `testmempoolaccept` and `submitpackage` do.
//!
//! # Correctness
//! A transaction is judged in full before its fee is held against the client's limit, so
//! that a refusal by rule comes first.

use std::sync::Arc;

use pulse_mempool::{
    AcceptOptions, Accepted,
    accept::{PackageRejected, test_package},
};
use pulse_primitives::{
    bitcoin::{Amount, OutPoint, Script, Transaction, Txid, Wtxid, script::Instruction},
    mempool::{
        AcceptedTx, PackageOutcome, SubmitLimits, TestOutcome, TxRejected, TxSubmitter, TxVerdict,
    },
};

use super::{
    handle::{MempoolHandle, NotAccepted, NotJudged},
    notice::Notice,
};

/// Code of a transaction with missing inputs, or above a limit of the client.
const CODE_ERROR: i32 = -25;
/// Code of a transaction that is confirmed already.
const CODE_CONFIRMED: i32 = -27;
/// Code of a node that has not caught up.
const CODE_SYNCING: i32 = -10;

const FEE_EXCEEDED: &str = "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)";
const BURN_EXCEEDED: &str = "Unspendable output exceeds maximum configured by user (maxburnamount)";
const IN_UTXO_SET: &str = "Transaction outputs already in utxo set";

/// Largest script that can be spent, in bytes.
const MAX_SCRIPT_SIZE: usize = 10_000;
/// Largest element that a script can push, in bytes.
const MAX_ELEMENT: usize = 520;
/// Last opcode that has a meaning (`OP_NOP10`).
const MAX_OPCODE: u8 = 0xb9;

impl TxSubmitter for MempoolHandle {
    fn submit(&self, tx: Transaction, limits: SubmitLimits) -> Result<Txid, TxRejected> {
        check_burn(&tx, limits)?;
        let tx = Arc::new(tx);
        let txid = tx.compute_txid();
        if self.is_confirmed(&tx, txid)? {
            return Err(rejected(CODE_CONFIRMED, IN_UTXO_SET));
        }
        if let Some(wtxid) = self.wtxid_of(&txid) {
            self.inner.broadcast(txid, wtxid);
            return Ok(txid);
        }
        if limits.max_fee_rate_sat_kvb.is_some() {
            let test = AcceptOptions {
                test: true,
                ..AcceptOptions::default()
            };
            let accepted = self.accept(&tx, test).map_err(refused)?;
            if exceeds_fee(&tx, &accepted.tx, limits) {
                return Err(rejected(CODE_ERROR, FEE_EXCEEDED));
            }
        }
        let options = AcceptOptions {
            local: true,
            ..AcceptOptions::default()
        };
        match self.accept(&tx, options) {
            Ok(_) => {
                self.inner.broadcast(txid, tx.compute_wtxid());
                self.inner.notify(Notice::Accepted(tx));
                Ok(txid)
            }
            // Another client or a peer was faster.
            Err(err) => match self.wtxid_of(&txid) {
                Some(wtxid) => {
                    self.inner.broadcast(txid, wtxid);
                    Ok(txid)
                }
                None => Err(refused(err)),
            },
        }
    }

    fn test(&self, txs: Vec<Transaction>, limits: SubmitLimits) -> TestOutcome {
        let txs: Vec<Arc<Transaction>> = txs.into_iter().map(Arc::new).collect();
        let options = AcceptOptions {
            test: true,
            ..AcceptOptions::default()
        };
        if let [tx] = txs.as_slice() {
            let result = self.accept(tx, options).map_err(refused);
            let result = result.map(|accepted: Accepted| accepted.tx);
            return TestOutcome {
                package_error: None,
                verdicts: vec![verdict(tx, Some(result), limits)],
            };
        }
        let tested = self.with_coins(|inner, coins| {
            test_package(inner, &txs, coins, &*inner.judge, super::now(), options)
        });
        match tested {
            Ok(result) => {
                // The fault of a single transaction is in its verdict.
                let error = result.rejected.as_ref().filter(|err| err.tx.is_none());
                let package_error = error.map(PackageRejected::message);
                let told = result.into_outcome().verdicts.into_iter().zip(&txs);
                TestOutcome {
                    package_error,
                    verdicts: told
                        .map(|(told, tx)| verdict(tx, told.result, limits))
                        .collect(),
                }
            }
            Err(err) => {
                let err = refused(err);
                let verdicts = txs.iter();
                TestOutcome {
                    package_error: None,
                    verdicts: verdicts
                        .map(|tx| verdict(tx, Some(Err(err.clone())), limits))
                        .collect(),
                }
            }
        }
    }

    fn submit_package(
        &self,
        txs: Vec<Transaction>,
        limits: SubmitLimits,
    ) -> Result<PackageOutcome, TxRejected> {
        for tx in &txs {
            check_burn(tx, limits)?;
        }
        let txs: Vec<Arc<Transaction>> = txs.into_iter().map(Arc::new).collect();
        let options = AcceptOptions {
            local: true,
            max_fee_rate_sat_kvb: limits.max_fee_rate_sat_kvb,
            ..AcceptOptions::default()
        };
        let result = self
            .accept_package(&txs, options)
            .map_err(|err| refused(err.into()))?;
        for tx in &txs {
            let txid = tx.compute_txid();
            if let Some(wtxid) = self.wtxid_of(&txid) {
                self.inner.broadcast(txid, wtxid);
                self.inner.notify(Notice::Accepted(Arc::clone(tx)));
            }
        }
        Ok(result.into_outcome())
    }
}

impl MempoolHandle {
    fn is_confirmed(&self, tx: &Transaction, txid: Txid) -> Result<bool, TxRejected> {
        let unread = |err| refused(NotJudged::Coins(err).into());
        let Some(coins) = self.inner.coins.coins().map_err(unread)? else {
            return Ok(false);
        };
        for vout in (0..).take(tx.output.len()) {
            let outpoint = OutPoint::new(txid, vout);
            if coins.coin(&outpoint).map_err(unread)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// With which witnesses a transaction is in the mempool.
    fn wtxid_of(&self, txid: &Txid) -> Option<Wtxid> {
        self.inner.pool.read().get(txid).map(|entry| entry.wtxid)
    }
}

fn verdict(
    tx: &Transaction,
    result: Option<Result<AcceptedTx, TxRejected>>,
    limits: SubmitLimits,
) -> TxVerdict {
    let result = match result {
        Some(Ok(accepted)) if exceeds_fee(tx, &accepted, limits) => {
            Some(Err(rejected(CODE_ERROR, "max-fee-exceeded")))
        }
        other => other,
    };
    TxVerdict {
        txid: tx.compute_txid(),
        wtxid: tx.compute_wtxid(),
        result,
    }
}

/// Whether the fee is above the client's limit for a transaction of this size.
fn exceeds_fee(tx: &Transaction, accepted: &AcceptedTx, limits: SubmitLimits) -> bool {
    limits.max_fee_rate_sat_kvb.is_some_and(|rate| {
        let vsize = tx.weight().to_wu().div_ceil(4);
        let max = (u128::from(rate) * u128::from(vsize)).div_ceil(1000);
        // A limit of zero is none, as in Bitcoin Core.
        rate > 0 && u128::from(accepted.fee.to_sat()) > max
    })
}

fn check_burn(tx: &Transaction, limits: SubmitLimits) -> Result<(), TxRejected> {
    let Some(max) = limits.max_burn else {
        return Ok(());
    };
    let burns = |value: Amount, script: &Script| value > max && is_unspendable(script);
    match tx
        .output
        .iter()
        .any(|output| burns(output.value, &output.script_pubkey))
    {
        true => Err(rejected(CODE_ERROR, BURN_EXCEEDED)),
        false => Ok(()),
    }
}

/// Whether nobody can ever spend an output with this script, or it has operations
/// without a meaning.
fn is_unspendable(script: &Script) -> bool {
    if script.is_op_return() || script.len() > MAX_SCRIPT_SIZE {
        return true;
    }
    script.instructions().any(|instruction| match instruction {
        Err(_) => true,
        Ok(Instruction::Op(op)) => op.to_u8() > MAX_OPCODE,
        Ok(Instruction::PushBytes(data)) => data.len() > MAX_ELEMENT,
    })
}

fn refused(err: NotAccepted) -> TxRejected {
    match err {
        NotAccepted::Rejected(rejected) => rejected.into(),
        NotAccepted::NotJudged(err @ NotJudged::Syncing) => {
            rejected(CODE_SYNCING, &err.to_string())
        }
        NotAccepted::NotJudged(err) => rejected(CODE_ERROR, &err.to_string()),
    }
}

fn rejected(code: i32, reason: &str) -> TxRejected {
    TxRejected {
        code,
        reason: reason.to_owned(),
        debug: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use pulse_primitives::bitcoin::ScriptBuf;

    use super::*;

    #[test]
    fn scripts_that_nobody_can_spend_are_known() {
        let unspendable = |bytes: &[u8]| is_unspendable(&ScriptBuf::from_bytes(bytes.to_vec()));
        assert!(unspendable(&[0x6a]));
        assert!(unspendable(&[0x51; 10_001]));
        assert!(unspendable(&[0xba]));
        assert!(unspendable(&[5, 1]));
        assert!(!unspendable(&[]));
        assert!(!unspendable(&[0x51]));
        assert!(!unspendable(&[0xb9]));
    }
}
