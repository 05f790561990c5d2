//! What policy asks of inputs once the outputs that they spend are known.

use bitcoin::{Script, Transaction, TxIn, TxOut, Witness};
use pulse_primitives::bitcoin;

use super::script::{
    OutputKind, count_sigops, count_spending_sigops, is_anchor, is_push_only, last_push,
    output_kind, redeem_script, witness_program,
};
use crate::error::{RejectClass, Rejected};

/// Signature operations of scripts without witnesses that a transaction may run (BIP 54).
const MAX_LEGACY_SIGOPS: u32 = 2_500;
/// Signature operations of a P2SH redeem script.
const MAX_P2SH_SIGOPS: u32 = 15;
/// Cost of all signature operations: a fifth of a block's.
const MAX_SIGOP_COST: u64 = 16_000;
const MAX_P2WSH_SCRIPT: usize = 3_600;
const MAX_P2WSH_ITEMS: usize = 100;
const MAX_P2WSH_ITEM: usize = 80;
const MAX_TAPSCRIPT_ITEM: usize = 80;
const ANNEX_TAG: u8 = 0x50;
const LEAF_MASK: u8 = 0xfe;
const LEAF_TAPSCRIPT: u8 = 0xc0;

/// Inputs and the outputs that they spend.
fn pairs<'a>(
    tx: &'a Transaction,
    prevouts: &'a [TxOut],
) -> impl Iterator<Item = (&'a TxIn, &'a Script)> {
    tx.input.iter().zip(
        prevouts
            .iter()
            .map(|output| output.script_pubkey.as_script()),
    )
}

/// Scripts of the inputs, without witnesses (Bitcoin Core's
/// `ValidateInputsStandardness`).
///
/// # Errors
/// [`Rejected`].
pub fn check_inputs(tx: &Transaction, prevouts: &[TxOut]) -> Result<(), Rejected> {
    let refuse = |debug: String| {
        let reason = "bad-txns-nonstandard-inputs";
        Err(Rejected::new(RejectClass::InputsNotStandard, reason).debug(debug))
    };
    let mut sigops = 0u32;
    for (input, script) in pairs(tx, prevouts) {
        sigops += count_sigops(input.script_sig.as_bytes(), true);
        sigops += count_spending_sigops(script, &input.script_sig);
        if sigops > MAX_LEGACY_SIGOPS {
            return refuse("non-witness sigops exceed bip54 limit".to_owned());
        }
    }
    for (i, (input, script)) in pairs(tx, prevouts).enumerate() {
        match output_kind(script.as_bytes()) {
            OutputKind::NonStandard => return refuse(format!("input {i} script unknown")),
            OutputKind::WitnessUnknown => {
                return refuse(format!("input {i} witness program is undefined"));
            }
            OutputKind::ScriptHash => match redeem_script(input.script_sig.as_bytes()) {
                Err(err) => {
                    return refuse(format!("p2sh scriptsig malformed (input {i}: {err})"));
                }
                Ok(None) => return refuse(format!("input {i} P2SH redeemscript missing")),
                Ok(Some(redeem)) => {
                    let sigops = count_sigops(&redeem, true);
                    if sigops > MAX_P2SH_SIGOPS {
                        return refuse(format!(
                            "p2sh redeemscript sigops exceed limit (input {i}: {sigops} > {MAX_P2SH_SIGOPS})"
                        ));
                    }
                }
            },
            _ => {}
        }
    }
    Ok(())
}

/// Witnesses (Bitcoin Core's `IsWitnessStandard`).
///
/// # Errors
/// [`Rejected`].
pub fn check_witnesses(tx: &Transaction, prevouts: &[TxOut]) -> Result<(), Rejected> {
    let standard = pairs(tx, prevouts)
        .filter(|(input, _)| !input.witness.is_empty())
        .all(|(input, script)| is_witness_standard(input, script));
    if standard {
        return Ok(());
    }
    Err(Rejected::new(
        RejectClass::WitnessMutated,
        "bad-witness-nonstandard",
    ))
}

fn is_witness_standard(input: &TxIn, script: &Script) -> bool {
    if is_anchor(script.as_bytes()) {
        return false;
    }
    let p2sh = script.is_p2sh();
    let redeem;
    let script = if p2sh {
        match redeem_script(input.script_sig.as_bytes()) {
            Ok(Some(top)) => {
                redeem = top;
                &redeem[..]
            }
            _ => return false,
        }
    } else {
        script.as_bytes()
    };
    match witness_program(script) {
        None => false,
        Some((0, program)) if program.len() == 32 => is_p2wsh_standard(&input.witness),
        Some((1, program)) if program.len() == 32 && !p2sh => is_taproot_standard(&input.witness),
        Some(_) => true,
    }
}

fn is_p2wsh_standard(witness: &Witness) -> bool {
    let items = witness.len() - 1;
    witness.last().is_some_and(|w| w.len() <= MAX_P2WSH_SCRIPT)
        && items <= MAX_P2WSH_ITEMS
        && witness
            .iter()
            .take(items)
            .all(|item| item.len() <= MAX_P2WSH_ITEM)
}

fn is_taproot_standard(witness: &Witness) -> bool {
    if witness.len() < 2 {
        return true;
    }
    if witness
        .last()
        .is_some_and(|w| w.first() == Some(&ANNEX_TAG))
    {
        return false;
    }
    let Some(&leaf) = witness.last().and_then(<[u8]>::first) else {
        return false;
    };
    leaf & LEAF_MASK != LEAF_TAPSCRIPT
        || witness
            .iter()
            .take(witness.len() - 2)
            .all(|item| item.len() <= MAX_TAPSCRIPT_ITEM)
}

/// Cost of all signature operations (BIP 141).
#[must_use]
pub fn sigop_cost(tx: &Transaction, prevouts: &[TxOut]) -> u64 {
    let outputs = tx.output.iter().map(|output| &output.script_pubkey);
    let scripts = tx.input.iter().map(|input| &input.script_sig);
    let mut legacy: u64 = scripts
        .chain(outputs)
        .map(|script| u64::from(count_sigops(script.as_bytes(), false)))
        .sum();
    let mut witness = 0;
    for (input, script) in pairs(tx, prevouts) {
        if script.is_p2sh() {
            legacy += u64::from(count_spending_sigops(script, &input.script_sig));
        }
        witness += u64::from(witness_sigops(input, script));
    }
    legacy * 4 + witness
}

fn witness_sigops(input: &TxIn, script: &Script) -> u32 {
    let mut program = witness_program(script.as_bytes());
    if program.is_none() && script.is_p2sh() && is_push_only(input.script_sig.as_bytes()) {
        program = last_push(input.script_sig.as_bytes()).and_then(witness_program);
    }
    match program {
        Some((0, program)) if program.len() == 20 => 1,
        Some((0, program)) if program.len() == 32 => input
            .witness
            .last()
            .map_or(0, |script| count_sigops(script, true)),
        _ => 0,
    }
}

/// Limit of [`sigop_cost`].
///
/// # Errors
/// [`Rejected`].
pub fn check_sigop_cost(cost: u64) -> Result<(), Rejected> {
    if cost > MAX_SIGOP_COST {
        let reason = "bad-txns-too-many-sigops";
        return Err(Rejected::not_standard(reason).debug(cost.to_string()));
    }
    Ok(())
}

/// Whether an input spends a witness program, pay-to-anchor apart: without a witness such
/// a transaction fails although its id may be good.
#[must_use]
pub fn spends_witness_program(tx: &Transaction, prevouts: &[TxOut]) -> bool {
    pairs(tx, prevouts).any(|(input, script)| {
        let bytes = script.as_bytes();
        if witness_program(bytes).is_some() {
            return !is_anchor(bytes);
        }
        let redeem = || redeem_script(input.script_sig.as_bytes()).ok().flatten();
        script.is_p2sh() && redeem().is_some_and(|redeem| witness_program(&redeem).is_some())
    })
}
