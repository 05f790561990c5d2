//! The judge of consensus: what only the kernel may decide.

use bitcoin::{OutPoint, Transaction, TxOut};
use pulse_primitives::bitcoin;

use crate::error::{RejectClass, Rejected};

/// Decides by consensus. The node's implementation is the kernel.
///
/// # Security
/// Nothing enters the mempool that the judge has not passed. This crate's own checks come
/// on top: they may only refuse more.
pub trait TxJudge: Send + Sync {
    /// Checks of the transaction `raw` (network format, with witnesses) that need nothing
    /// else.
    ///
    /// # Errors
    /// Bitcoin Core's reason, such as `bad-txns-inputs-duplicate`.
    fn check(&self, raw: &[u8]) -> Result<(), String>;

    /// Runs the scripts of all inputs of `raw`, which spend `spent` in order, under all
    /// rules of consensus.
    ///
    /// # Errors
    /// [`ScriptFailure`] of the first input that fails.
    fn verify(&self, raw: &[u8], spent: &[TxOut]) -> Result<(), ScriptFailure>;
}

/// An input whose scripts fail.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("input {input}: {detail}")]
pub struct ScriptFailure {
    /// Index of the input.
    pub input: usize,
    /// What failed, if the judge tells; stands in the parenthesis of the reason.
    pub detail: String,
}

impl ScriptFailure {
    /// The rejection as Bitcoin Core words it.
    pub(crate) fn into_rejected(self, tx: &Transaction, stripped: bool) -> Rejected {
        let spent = tx
            .input
            .get(self.input)
            .map_or(OutPoint::null(), |input| input.previous_output);
        let class = if stripped {
            RejectClass::WitnessStripped
        } else {
            RejectClass::NotStandard
        };
        Rejected::new(
            class,
            format!("mempool-script-verify-flag-failed ({})", self.detail),
        )
        .debug(format!(
            "input {} of {} (wtxid {}), spending {}:{}",
            self.input,
            tx.compute_txid(),
            tx.compute_wtxid(),
            spent.txid,
            spent.vout
        ))
    }
}
