//! What a transaction must look like to be relayed, before its inputs are known.

use bitcoin::{Transaction, TxOut};
use pulse_primitives::bitcoin;

use super::{
    MAX_TX_WEIGHT,
    script::{OutputKind, is_push_only, is_unspendable, output_kind, witness_program},
};
use crate::{error::Rejected, feerate::fee_at};

const MAX_SCRIPT_SIG: usize = 1_650;
/// Bytes of `OP_RETURN` scripts in all outputs together.
const MAX_DATA_CARRIER: usize = 100_000;
/// Most outputs that are dust; the transaction must then pay no fee.
const MAX_DUST_OUTPUTS: usize = 1;
/// Bytes without witnesses; 64 would look like an inner node of a merkle tree
/// (CVE-2017-12842).
const MIN_BASE_SIZE: usize = 65;
const DUST_RATE_SAT_KVB: u64 = 3_000;
/// Most keys of a bare multisig.
const MAX_BARE_KEYS: u32 = 3;

/// Versions, weight, scripts and outputs (Bitcoin Core's `IsStandardTx`, then the least
/// size).
///
/// # Errors
/// [`Rejected`].
pub fn check_standard(tx: &Transaction, weight: u64) -> Result<(), Rejected> {
    if !(1..=3).contains(&tx.version.0) {
        return Err(Rejected::not_standard("version"));
    }
    if weight > MAX_TX_WEIGHT {
        return Err(Rejected::not_standard("tx-size"));
    }
    for input in &tx.input {
        if input.script_sig.len() > MAX_SCRIPT_SIG {
            return Err(Rejected::not_standard("scriptsig-size"));
        }
        if !is_push_only(input.script_sig.as_bytes()) {
            return Err(Rejected::not_standard("scriptsig-not-pushonly"));
        }
    }
    let mut data_left = MAX_DATA_CARRIER;
    for output in &tx.output {
        match output_kind(output.script_pubkey.as_bytes()) {
            OutputKind::NonStandard => return Err(Rejected::not_standard("scriptpubkey")),
            OutputKind::Multisig { keys, .. } if keys > MAX_BARE_KEYS => {
                return Err(Rejected::not_standard("scriptpubkey"));
            }
            OutputKind::NullData => {
                data_left = data_left
                    .checked_sub(output.script_pubkey.len())
                    .ok_or_else(|| Rejected::not_standard("datacarrier"))?;
            }
            _ => {}
        }
    }
    if tx.output.iter().filter(|output| is_dust(output)).count() > MAX_DUST_OUTPUTS {
        return Err(Rejected::not_standard("dust"));
    }
    if tx.base_size() < MIN_BASE_SIZE {
        return Err(Rejected::not_standard("tx-size-small"));
    }
    Ok(())
}

/// Whether spending `output` costs more than it holds, at 3 sat/vB.
#[must_use]
pub fn is_dust(output: &TxOut) -> bool {
    output.value.to_sat() < dust_threshold(output)
}

fn dust_threshold(output: &TxOut) -> u64 {
    let script = output.script_pubkey.as_bytes();
    if is_unspendable(script) {
        return 0;
    }
    // Outpoint, sequence and script length; then 107 bytes of signature and key.
    let spending = match witness_program(script) {
        Some(_) => 32 + 4 + 1 + 107 / 4 + 4,
        None => 32 + 4 + 1 + 107 + 4,
    };
    fee_at(DUST_RATE_SAT_KVB, output.size() as u64 + spending)
}
