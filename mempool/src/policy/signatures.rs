//! Rules of policy about scripts, as far as the bare scripts show them.
//!
//! Bitcoin Core runs the scripts of unconfirmed transactions under rules beyond
//! consensus. The kernel does not offer those, and this is no script interpreter: it
//! looks at what is certain to be executed if the script passes at all (everything
//! outside of conditionals, and the well-known forms of scripts). What it finds, Core
//! refuses too. What it cannot see is listed in `docs/policy.md`.
//!
//! Refuses only; the judge decides what passes.

use pulse_primitives::bitcoin::{Transaction, TxOut, Witness};

use crate::judge::ScriptFailure;

const MINIMAL_DATA: &str = "Data push larger than necessary";
const HIGH_S: &str = "Non-canonical signature: S value is unnecessarily high";
const HASH_TYPE: &str = "Signature hash type missing or not understood";
const PUBKEY_TYPE: &str = "Public key is neither compressed or uncompressed";
const WITNESS_PUBKEY_TYPE: &str = "Using non-compressed keys in segwit";
const UPGRADABLE_PUBKEY: &str = "Public key version reserved for soft-fork upgrades";
const UPGRADABLE_NOPS: &str = "NOPx reserved for soft-fork upgrades";
const UPGRADABLE_WITNESS: &str = "Witness version reserved for soft-fork upgrades";
const UPGRADABLE_TAPROOT: &str = "Taproot version reserved for soft-fork upgrades";
const OP_SUCCESS: &str = "OP_SUCCESSx reserved for soft-fork upgrades";
const CODE_SEPARATOR: &str = "Using OP_CODESEPARATOR in non-witness script";
const CLEAN_STACK: &str = "Stack size must be exactly one after execution";

/// Half of the order of secp256k1: signatures have an S of at most this.
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0x5d, 0x57, 0x6e, 0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
];

const ANNEX_TAG: u8 = 0x50;
const TAPSCRIPT_LEAF: u8 = 0xc0;
const LEAF_MASK: u8 = 0xfe;

mod op {
    pub const PUSHDATA1: u8 = 0x4c;
    pub const PUSHDATA2: u8 = 0x4d;
    pub const PUSHDATA4: u8 = 0x4e;
    pub const NEGATIVE_1: u8 = 0x4f;
    pub const N1: u8 = 0x51;
    pub const N16: u8 = 0x60;
    pub const IF: u8 = 0x63;
    pub const NOTIF: u8 = 0x64;
    pub const ENDIF: u8 = 0x68;
    pub const DUP: u8 = 0x76;
    pub const EQUAL: u8 = 0x87;
    pub const EQUALVERIFY: u8 = 0x88;
    pub const HASH160: u8 = 0xa9;
    pub const CODESEPARATOR: u8 = 0xab;
    pub const CHECKSIG: u8 = 0xac;
    pub const CHECKSIGVERIFY: u8 = 0xad;
    pub const CHECKMULTISIG: u8 = 0xae;
    pub const NOP1: u8 = 0xb0;
    pub const NOP4: u8 = 0xb3;
    pub const NOP10: u8 = 0xb9;
    pub const CHECKSIGADD: u8 = 0xba;
}

/// Which rules a script runs under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Base,
    WitnessV0,
    Tapscript,
}

type Verdict = Result<(), &'static str>;

/// Checks all inputs of `tx`, which spend `prevouts`.
///
/// # Errors
/// [`ScriptFailure`] with Bitcoin Core's words, of the first input that fails.
pub fn check_scripts(tx: &Transaction, prevouts: &[TxOut]) -> Result<(), ScriptFailure> {
    for (index, (input, output)) in tx.input.iter().zip(prevouts).enumerate() {
        let script = output.script_pubkey.as_bytes();
        judge_input(input.script_sig.as_bytes(), &input.witness, script).map_err(|rule| {
            ScriptFailure {
                input: index,
                detail: rule.to_owned(),
            }
        })?;
    }
    Ok(())
}

fn judge_input(script_sig: &[u8], witness: &Witness, script: &[u8]) -> Verdict {
    scan(script_sig, Version::Base)?;
    let mut stack = pushed(script_sig);
    if is_p2sh(script) {
        let redeem = stack.pop().unwrap_or_default();
        return match witness_program(&redeem) {
            Some((0, program)) => judge_witness_v0(program, witness),
            Some(_) => Err(UPGRADABLE_WITNESS),
            None => judge_legacy(&redeem, &stack),
        };
    }
    match witness_program(script) {
        Some((0, program)) => judge_witness_v0(program, witness),
        Some((1, program)) if program.len() == 32 => judge_taproot(witness),
        // Pay to anchor.
        Some((1, [0x4e, 0x73])) => Ok(()),
        Some(_) => Err(UPGRADABLE_WITNESS),
        None => judge_legacy(script, &stack),
    }
}

/// A script without witness and what it is given, deepest first.
fn judge_legacy(script: &[u8], stack: &[Vec<u8>]) -> Verdict {
    scan(script, Version::Base)?;
    let stack: Vec<&[u8]> = stack.iter().map(Vec::as_slice).collect();
    let form = Form::of(script);
    let given = match form {
        Form::Key(_) => 1,
        Form::KeyHash => 2,
        // The dummy in front.
        Form::Multi { required, .. } => required + 1,
        Form::Other => return stack.iter().try_for_each(|item| judge_if_signature(item)),
    };
    judge_form(&form, &stack, Version::Base)?;
    match stack.len() == given {
        true => Ok(()),
        false => Err(CLEAN_STACK),
    }
}

fn judge_witness_v0(program: &[u8], witness: &Witness) -> Verdict {
    let items: Vec<&[u8]> = witness.iter().collect();
    if program.len() == 20 {
        return judge_form(&Form::KeyHash, &items, Version::WitnessV0);
    }
    let Some((script, stack)) = items.split_last() else {
        return Ok(());
    };
    scan(script, Version::WitnessV0)?;
    judge_form(&Form::of(script), stack, Version::WitnessV0)
}

fn judge_taproot(witness: &Witness) -> Verdict {
    let mut items: Vec<&[u8]> = witness.iter().collect();
    if items.len() >= 2
        && items
            .last()
            .is_some_and(|item| item.first() == Some(&ANNEX_TAG))
    {
        items.pop();
    }
    let [.., script, control] = items.as_slice() else {
        return Ok(());
    };
    match control.first() {
        Some(leaf) if leaf & LEAF_MASK == TAPSCRIPT_LEAF => {}
        Some(_) => return Err(UPGRADABLE_TAPROOT),
        None => return Ok(()),
    }
    if Ops(script).any(|(opcode, _)| is_op_success(opcode)) {
        return Err(OP_SUCCESS);
    }
    scan(script, Version::Tapscript)
}

/// Judges signatures and keys that a script of this form gets from `stack`.
fn judge_form(form: &Form<'_>, stack: &[&[u8]], version: Version) -> Verdict {
    match form {
        Form::Key(key) => {
            stack.last().map_or(Ok(()), |sig| judge_signature(sig))?;
            judge_key(key, version)
        }
        Form::KeyHash => {
            let [.., sig, key] = stack else {
                return Ok(());
            };
            judge_signature(sig)?;
            judge_key(key, version)
        }
        Form::Multi { required, keys } => {
            let first = stack.len().saturating_sub(*required);
            stack[first..]
                .iter()
                .try_for_each(|sig| judge_signature(sig))?;
            // Keys are tried from the last one on, and each signature needs one.
            let first = keys.len().saturating_sub(*required);
            keys[first..]
                .iter()
                .try_for_each(|key| judge_key(key, version))
        }
        Form::Other => stack.iter().try_for_each(|item| judge_if_signature(item)),
    }
}

/// Well-known forms of scripts.
#[derive(Debug, PartialEq, Eq)]
enum Form<'a> {
    /// A key and a check of one signature.
    Key(&'a [u8]),
    /// The hash of a key; signature and key are given.
    KeyHash,
    /// So many signatures by these keys.
    Multi {
        required: usize,
        keys: Vec<&'a [u8]>,
    },
    Other,
}

impl<'a> Form<'a> {
    fn of(script: &'a [u8]) -> Self {
        let ops: Vec<(u8, &[u8])> = Ops(script).take(24).collect();
        match ops.as_slice() {
            [(_, key), (op::CHECKSIG, _)] if matches!(key.len(), 33 | 65) => Self::Key(key),
            [
                (op::DUP, _),
                (op::HASH160, _),
                (20, _),
                (op::EQUALVERIFY, _),
                (op::CHECKSIG, _),
            ] => Self::KeyHash,
            [(m, _), keys @ .., (n, _), (op::CHECKMULTISIG, _)] => {
                let (Some(required), Some(count)) = (small_number(*m), small_number(*n)) else {
                    return Self::Other;
                };
                let keys: Vec<&[u8]> = keys.iter().map(|(_, key)| *key).collect();
                let all_keys = keys.iter().all(|key| matches!(key.len(), 33 | 65));
                match all_keys && keys.len() == count && required <= count {
                    true => Self::Multi { required, keys },
                    false => Self::Other,
                }
            }
            _ => Self::Other,
        }
    }
}

fn small_number(opcode: u8) -> Option<usize> {
    (op::N1..=op::N16)
        .contains(&opcode)
        .then(|| usize::from(opcode - op::N1) + 1)
}

/// Judges what runs in every case: operations outside of conditionals, and those that
/// count wherever they stand.
fn scan(script: &[u8], version: Version) -> Verdict {
    let mut depth = 0usize;
    let mut last_push: Option<&[u8]> = None;
    for (opcode, data) in Ops(script) {
        let is_push = opcode <= op::PUSHDATA4;
        match opcode {
            op::IF | op::NOTIF => depth += 1,
            op::ENDIF => depth = depth.saturating_sub(1),
            op::CODESEPARATOR if version == Version::Base => return Err(CODE_SEPARATOR),
            _ if depth > 0 => {}
            op::NOP1 | op::NOP4..=op::NOP10 => return Err(UPGRADABLE_NOPS),
            op::CHECKSIG | op::CHECKSIGVERIFY => {
                last_push.map_or(Ok(()), |key| judge_key(key, version))?;
            }
            op::CHECKSIGADD if version == Version::Tapscript => {
                last_push.map_or(Ok(()), |key| judge_key(key, version))?;
            }
            _ if is_push && !is_minimal(opcode, data) => return Err(MINIMAL_DATA),
            _ => {}
        }
        last_push = (is_push && depth == 0).then_some(data);
    }
    Ok(())
}

fn judge_key(key: &[u8], version: Version) -> Verdict {
    let compressed = key.len() == 33 && matches!(key[0], 2 | 3);
    let uncompressed = key.len() == 65 && key[0] == 4;
    match version {
        Version::Base if !compressed && !uncompressed => Err(PUBKEY_TYPE),
        Version::WitnessV0 if uncompressed => Err(WITNESS_PUBKEY_TYPE),
        Version::WitnessV0 if !compressed => Err(PUBKEY_TYPE),
        Version::Tapscript if !matches!(key.len(), 0 | 32) => Err(UPGRADABLE_PUBKEY),
        _ => Ok(()),
    }
}

/// An ECDSA signature with its hash type. What is not one by encoding is the kernel's.
fn judge_signature(item: &[u8]) -> Verdict {
    let Some(s) = der_s(item) else {
        return Ok(());
    };
    let s = match s {
        [0, rest @ ..] => rest,
        _ => s,
    };
    if s.len() == 32 && s > HALF_ORDER.as_slice() {
        return Err(HIGH_S);
    }
    match item.last().map(|hash_type| hash_type & !0x80) {
        Some(1..=3) => Ok(()),
        _ => Err(HASH_TYPE),
    }
}

/// In scripts of unknown form: what is encoded as a signature with a high S is one,
/// nothing else looks like it.
fn judge_if_signature(item: &[u8]) -> Verdict {
    match judge_signature(item) {
        Err(HIGH_S) => Err(HIGH_S),
        _ => Ok(()),
    }
}

/// The S of a signature in strict DER with a hash type behind it (BIP 66).
fn der_s(item: &[u8]) -> Option<&[u8]> {
    if !(9..=73).contains(&item.len()) || item[0] != 0x30 || usize::from(item[1]) != item.len() - 3
    {
        return None;
    }
    let len_r = usize::from(item[3]);
    let len_s = usize::from(*item.get(5 + len_r)?);
    if len_r + len_s + 7 != item.len() || item[2] != 2 || item[4 + len_r] != 2 {
        return None;
    }
    let (r, s) = (&item[4..4 + len_r], &item[6 + len_r..6 + len_r + len_s]);
    let is_positive = |number: &[u8]| match number {
        [] => false,
        [first, ..] if first & 0x80 != 0 => false,
        [0, second, ..] if second & 0x80 == 0 => false,
        _ => true,
    };
    (is_positive(r) && is_positive(s)).then_some(s)
}

/// Whether the data could not have been pushed by a shorter operation.
fn is_minimal(opcode: u8, data: &[u8]) -> bool {
    match data {
        [] => opcode == 0,
        [1..=16] | [0x81] => false,
        _ if data.len() <= 75 => usize::from(opcode) == data.len(),
        _ if data.len() <= 255 => opcode == op::PUSHDATA1,
        _ if data.len() <= 65_535 => opcode == op::PUSHDATA2,
        _ => true,
    }
}

fn is_op_success(opcode: u8) -> bool {
    matches!(opcode,
        80 | 98 | 126..=129 | 131..=134 | 137..=138 | 141..=142 | 149..=153 | 187..=254)
}

fn is_p2sh(script: &[u8]) -> bool {
    matches!(script, [op::HASH160, 20, .., op::EQUAL] if script.len() == 23)
}

/// Version and program of a witness program (BIP 141).
fn witness_program(script: &[u8]) -> Option<(u8, &[u8])> {
    let [version, len, program @ ..] = script else {
        return None;
    };
    if usize::from(*len) != program.len() || !(2..=40).contains(&program.len()) {
        return None;
    }
    match *version {
        0 => Some((0, program)),
        op::N1..=op::N16 => Some((version - op::N1 + 1, program)),
        _ => None,
    }
}

/// What a script of pushes leaves on the stack, deepest first.
fn pushed(script: &[u8]) -> Vec<Vec<u8>> {
    Ops(script)
        .map(|(opcode, data)| match opcode {
            op::NEGATIVE_1 => vec![0x81],
            op::N1..=op::N16 => vec![opcode - op::N1 + 1],
            _ => data.to_vec(),
        })
        .collect()
}

/// Operations of a script with the data that they push; ends where it is malformed.
struct Ops<'a>(&'a [u8]);

impl<'a> Iterator for Ops<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&opcode, rest) = self.0.split_first()?;
        let (len, rest) = match opcode {
            0..op::PUSHDATA1 => (usize::from(opcode), rest),
            op::PUSHDATA1 => {
                let (len, rest) = rest.split_first_chunk::<1>()?;
                (usize::from(len[0]), rest)
            }
            op::PUSHDATA2 => {
                let (len, rest) = rest.split_first_chunk::<2>()?;
                (usize::from(u16::from_le_bytes(*len)), rest)
            }
            op::PUSHDATA4 => {
                let (len, rest) = rest.split_first_chunk::<4>()?;
                (usize::try_from(u32::from_le_bytes(*len)).ok()?, rest)
            }
            _ => (0, rest),
        };
        let data = rest.get(..len)?;
        self.0 = &rest[len..];
        Some((opcode, data))
    }
}

#[cfg(test)]
mod tests;
