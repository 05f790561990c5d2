//! Ephemeral dust: an output that costs more to spend than it holds may exist only in a
//! transaction without a fee, and whoever spends from that one must spend the dust.

use std::collections::HashSet;

use bitcoin::{Amount, OutPoint, Transaction, Txid, Wtxid};
use pulse_primitives::bitcoin;

use super::standard::is_dust;
use crate::error::Rejected;

/// Dust without a fee.
///
/// # Errors
/// [`Rejected`].
pub fn check_fee(tx: &Transaction, fee: Amount) -> Result<(), Rejected> {
    if fee > Amount::ZERO && tx.output.iter().any(is_dust) {
        return Err(Rejected::not_standard("dust").debug("tx with dust output must be 0-fee"));
    }
    Ok(())
}

/// Whether `tx` spends all dust of its unconfirmed parents, which `parent` finds.
///
/// # Errors
/// [`Rejected`].
pub fn check_spends<'a>(
    tx: &Transaction,
    (txid, wtxid): (Txid, Wtxid),
    parent: impl Fn(&Txid) -> Option<&'a Transaction>,
) -> Result<(), Rejected> {
    let parents: HashSet<Txid> = tx.input.iter().map(|i| i.previous_output.txid).collect();
    let mut dust = HashSet::new();
    for id in parents {
        let outputs = parent(&id).map_or(&[][..], |tx| &tx.output);
        let outputs = outputs
            .iter()
            .zip(0..)
            .filter(|(output, _)| is_dust(output));
        dust.extend(outputs.map(|(_, vout)| OutPoint::new(id, vout)));
    }
    if dust.is_empty() {
        return Ok(());
    }
    for input in &tx.input {
        dust.remove(&input.previous_output);
    }
    if dust.is_empty() {
        return Ok(());
    }
    Err(Rejected::policy("missing-ephemeral-spends").debug(format!(
        "tx {txid} (wtxid={wtxid}) did not spend parent's ephemeral dust"
    )))
}
