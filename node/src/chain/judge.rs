//! The kernel as judge of unconfirmed transactions.
//!
//! ```text
//! cache of passed ones -> kernel, input by input
//! ```
//!
//! # Correctness
//! The kernel's verdict is under all rules of consensus that it knows. The rules of
//! policy about scripts are the mempool's (`pulse_mempool::policy::signatures`); they come
//! on top and only refuse more.
//!
//! # Security
//! Inputs are checked in parallel from [`PARALLEL_INPUTS`] on. What passed is remembered
//! by wtxid, which commits to everything that the verdict rests on: the transaction, and
//! through its outpoints the outputs that it spends.

use bitcoinkernel::{
    KernelError, PrecomputedTransactionData, ScriptPubkey, Transaction as KernelTx, TxCheckResult,
    TxOut as KernelOut, VERIFY_ALL, prelude::*, verify,
};
use pulse_mempool::{ScriptFailure, TxJudge};
use pulse_primitives::bitcoin::{
    Amount, TxOut, Wtxid,
    hashes::{Hash, sha256d},
};
use quick_cache::sync::Cache;
use rayon::prelude::*;

/// Inputs from which they are checked in parallel.
const PARALLEL_INPUTS: usize = 8;
/// Passed transactions remembered, about 100 bytes each.
const REMEMBERED: usize = 50_000;

/// Judges transactions with the kernel. Shared freely; calls take processor time.
pub struct KernelJudge {
    passed: Cache<Wtxid, ()>,
}

impl Default for KernelJudge {
    fn default() -> Self {
        Self {
            passed: Cache::new(REMEMBERED),
        }
    }
}

impl KernelJudge {
    /// Checks of consensus that need nothing but the transaction.
    ///
    /// # Errors
    /// A reason in the style of Bitcoin Core. The kernel says only that a rule is
    /// broken; the mempool finds out which one by its own checks before it asks.
    fn check_transaction(raw: &[u8]) -> Result<(), String> {
        let Ok(tx) = KernelTx::new(raw) else {
            return Err("bad-txns-undecodable".to_owned());
        };
        match tx.check() {
            TxCheckResult::Valid => Ok(()),
            TxCheckResult::Invalid(_) => Err("bad-txns".to_owned()),
        }
    }

    /// Runs the scripts of all inputs. The error is the index of an input that fails, and
    /// Core's words for what failed.
    fn verify_inputs(&self, raw: &[u8], spent: &[TxOut]) -> Result<(), (usize, String)> {
        // The hash of all bytes, whether there are witnesses among them or not.
        let wtxid = Wtxid::from_raw_hash(sha256d::Hash::hash(raw));
        if self.passed.get(&wtxid).is_some() {
            return Ok(());
        }
        run_scripts(raw, spent)?;
        self.passed.insert(wtxid, ());
        Ok(())
    }

    /// Whether a transaction that passed is remembered.
    #[must_use]
    pub fn remembers(&self, wtxid: &Wtxid) -> bool {
        self.passed.get(wtxid).is_some()
    }
}

impl TxJudge for KernelJudge {
    fn check(&self, raw: &[u8]) -> Result<(), String> {
        Self::check_transaction(raw)
    }

    fn verify(&self, raw: &[u8], spent: &[TxOut]) -> Result<(), ScriptFailure> {
        self.verify_inputs(raw, spent)
            .map_err(|(input, detail)| ScriptFailure { input, detail })
    }
}

/// What the kernel's refusal is called: it does not tell why.
const UNKNOWN: &str = "Script failed";

fn run_scripts(raw: &[u8], spent: &[TxOut]) -> Result<(), (usize, String)> {
    let failed = |input: usize| (input, UNKNOWN.to_owned());
    let tx = KernelTx::new(raw).map_err(|_| failed(0))?;
    if tx.input_count() != spent.len() {
        return Err(failed(0));
    }
    let scripts = spent
        .iter()
        .enumerate()
        .map(|(input, output)| {
            ScriptPubkey::new(output.script_pubkey.as_bytes()).map_err(|_| failed(input))
        })
        .collect::<Result<Vec<ScriptPubkey>, _>>()?;
    let amounts = spent
        .iter()
        .map(|output| signed(output.value).ok_or_else(|| failed(0)))
        .collect::<Result<Vec<i64>, _>>()?;
    let outputs: Vec<KernelOut> = scripts
        .iter()
        .zip(&amounts)
        .map(|(script, amount)| KernelOut::new(script, *amount))
        .collect();
    let data = PrecomputedTransactionData::new(&tx, &outputs).map_err(|_| failed(0))?;
    let run = |input: usize| -> Result<(), KernelError> {
        verify(
            &scripts[input],
            Some(amounts[input]),
            &tx,
            input,
            Some(VERIFY_ALL),
            &data,
        )
    };
    let first_failed = if spent.len() < PARALLEL_INPUTS {
        (0..spent.len()).find(|input| run(*input).is_err())
    } else {
        (0..spent.len())
            .into_par_iter()
            .find_first(|input| run(*input).is_err())
    };
    first_failed.map_or(Ok(()), |input| Err(failed(input)))
}

fn signed(amount: Amount) -> Option<i64> {
    i64::try_from(amount.to_sat()).ok()
}
