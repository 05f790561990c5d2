//! Reading scripts byte by byte, exactly as Bitcoin Core does for policy.

use bitcoin::Script;
use pulse_primitives::bitcoin;

const OP_PUSHDATA1: u8 = 0x4c;
const OP_PUSHDATA4: u8 = 0x4e;
const OP_1NEGATE: u8 = 0x4f;
const OP_1: u8 = 0x51;
const OP_16: u8 = 0x60;
const OP_RETURN: u8 = 0x6a;
const OP_DUP: u8 = 0x76;
const OP_EQUAL: u8 = 0x87;
const OP_EQUALVERIFY: u8 = 0x88;
const OP_HASH160: u8 = 0xa9;
const OP_CHECKSIG: u8 = 0xac;
const OP_CHECKSIGVERIFY: u8 = 0xad;
const OP_CHECKMULTISIG: u8 = 0xae;
const OP_CHECKMULTISIGVERIFY: u8 = 0xaf;
const MAX_SCRIPT_SIZE: usize = 10_000;
const MAX_ELEMENT_SIZE: usize = 520;
const MAX_STACK_SIZE: usize = 1_000;
const MAX_PUBKEYS_PER_MULTISIG: u32 = 20;

/// An operation and the data that it pushes.
#[derive(Debug, Clone, Copy)]
struct Op<'a> {
    code: u8,
    data: &'a [u8],
}

/// A push goes beyond the end of its script.
#[derive(Debug, Clone, Copy)]
struct Truncated;

/// Operations of a script, up to the first that is cut off.
struct Ops<'a>(&'a [u8]);

impl<'a> Iterator for Ops<'a> {
    type Item = Result<Op<'a>, Truncated>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&code, rest) = self.0.split_first()?;
        let header = match code {
            OP_PUSHDATA1 => 1,
            0x4d => 2,
            OP_PUSHDATA4 => 4,
            _ => 0,
        };
        let mut read = || {
            let (length, rest) = rest.split_at_checked(header)?;
            let length = match code {
                0..OP_PUSHDATA1 => usize::from(code),
                OP_PUSHDATA1..=OP_PUSHDATA4 => length
                    .iter()
                    .rev()
                    .fold(0, |sum, &byte| sum << 8 | usize::from(byte)),
                _ => 0,
            };
            let (data, rest) = rest.split_at_checked(length)?;
            self.0 = rest;
            Some(Op { code, data })
        };
        let op = read().ok_or(Truncated);
        if op.is_err() {
            self.0 = &[];
        }
        Some(op)
    }
}

/// Whether the script only pushes.
#[must_use]
pub fn is_push_only(script: &[u8]) -> bool {
    Ops(script).all(|op| op.is_ok_and(|op| op.code <= OP_16))
}

/// Signature operations of a script; `accurate` counts the keys of a multisig that tells
/// them, and 20 otherwise.
#[must_use]
pub fn count_sigops(script: &[u8], accurate: bool) -> u32 {
    let mut count = 0u32;
    let mut last = 0xff;
    for op in Ops(script) {
        let Ok(op) = op else { break };
        match op.code {
            OP_CHECKSIG | OP_CHECKSIGVERIFY => count += 1,
            OP_CHECKMULTISIG | OP_CHECKMULTISIGVERIFY => {
                count += if accurate && (OP_1..=OP_16).contains(&last) {
                    u32::from(last - OP_1 + 1)
                } else {
                    MAX_PUBKEYS_PER_MULTISIG
                };
            }
            _ => {}
        }
        last = op.code;
    }
    count
}

/// Data of the last operation of a script that only pushes; `None` if it does more.
#[must_use]
pub fn last_push(script: &[u8]) -> Option<&[u8]> {
    let mut last: &[u8] = &[];
    for op in Ops(script) {
        let op = op.ok()?;
        if op.code > OP_16 {
            return None;
        }
        last = op.data;
    }
    Some(last)
}

/// Signature operations that spending `script_pubkey` by `script_sig` may run, without
/// witnesses.
#[must_use]
pub fn count_spending_sigops(script_pubkey: &Script, script_sig: &Script) -> u32 {
    if !script_pubkey.is_p2sh() {
        return count_sigops(script_pubkey.as_bytes(), true);
    }
    last_push(script_sig.as_bytes()).map_or(0, |redeem| count_sigops(redeem, true))
}

/// The top of the stack after running `script_sig`, which only pushes: the redeem script
/// of P2SH. `None` if the stack is empty.
///
/// # Errors
/// Bitcoin Core's words for what fails.
pub fn redeem_script(script_sig: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    if script_sig.len() > MAX_SCRIPT_SIZE {
        return Err("Script is too big");
    }
    let mut top = None;
    let mut depth = 0;
    for op in Ops(script_sig) {
        let Ok(op) = op else {
            return Err("Opcode missing or not understood");
        };
        if op.data.len() > MAX_ELEMENT_SIZE {
            return Err("Push value size limit exceeded");
        }
        top = Some(match op.code {
            ..=OP_PUSHDATA4 => op.data.to_vec(),
            OP_1NEGATE => vec![0x81],
            OP_1..=OP_16 => vec![op.code - OP_1 + 1],
            _ => return Err("Opcode missing or not understood"),
        });
        depth += 1;
        if depth > MAX_STACK_SIZE {
            return Err("Stack size limit exceeded");
        }
    }
    Ok(top)
}

/// The stack after running `script_sig`, which only pushes.
///
/// # Errors
/// Bitcoin Core's words if a push is longer than needed.
pub fn pushes(script_sig: &[u8]) -> Result<Vec<Vec<u8>>, &'static str> {
    let mut items = Vec::new();
    for op in Ops(script_sig) {
        let Ok(op) = op else { break };
        if !is_minimal(op) {
            return Err("Data push larger than necessary");
        }
        items.push(match op.code {
            OP_1NEGATE => vec![0x81],
            OP_1..=OP_16 => vec![op.code - OP_1 + 1],
            _ => op.data.to_vec(),
        });
    }
    Ok(items)
}

fn is_minimal(op: Op<'_>) -> bool {
    if op.code > OP_PUSHDATA4 {
        return true;
    }
    match *op.data {
        [] => op.code == 0,
        // These have operations of their own.
        [1..=16 | 0x81] => false,
        _ => match op.data.len() {
            0..=75 => usize::from(op.code) == op.data.len(),
            76..=0xff => op.code == OP_PUSHDATA1,
            0x100..=0xffff => op.code == OP_PUSHDATA1 + 1,
            _ => true,
        },
    }
}

/// Whether `is_it` holds for an operation of a script.
#[must_use]
pub fn has_op(script: &[u8], is_it: impl Fn(u8) -> bool) -> bool {
    Ops(script).any(|op| op.is_ok_and(|op| is_it(op.code)))
}

/// The keys of a bare multisig script.
pub fn multisig_keys(script: &[u8]) -> impl Iterator<Item = &[u8]> {
    let data = Ops(script).filter_map(|op| Some(op.ok()?.data));
    data.filter(|data| is_key_sized(data))
}

/// Version and program of a witness program (BIP 141), at any version.
#[must_use]
pub fn witness_program(script: &[u8]) -> Option<(u8, &[u8])> {
    if !(4..=42).contains(&script.len()) {
        return None;
    }
    let version = match script[0] {
        0 => 0,
        op @ OP_1..=OP_16 => op - OP_1 + 1,
        _ => return None,
    };
    (usize::from(script[1]) + 2 == script.len()).then(|| (version, &script[2..]))
}

/// Whether the script is pay-to-anchor.
#[must_use]
pub fn is_anchor(script: &[u8]) -> bool {
    script == [OP_1, 0x02, 0x4e, 0x73]
}

/// Whether nobody can ever spend an output with this script.
#[must_use]
pub fn is_unspendable(script: &[u8]) -> bool {
    script.first() == Some(&OP_RETURN) || script.len() > MAX_SCRIPT_SIZE
}

/// Templates of output scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// None of the others.
    NonStandard,
    /// A public key.
    PubKey,
    /// P2PKH.
    PubKeyHash,
    /// P2SH.
    ScriptHash,
    /// Bare multisig.
    Multisig {
        /// Signatures needed, 1 to 20.
        required: u32,
        /// Keys, `required` to 20.
        keys: u32,
    },
    /// `OP_RETURN` and pushes.
    NullData,
    /// Pay-to-anchor.
    Anchor,
    /// P2WPKH.
    WitnessKeyHash,
    /// P2WSH.
    WitnessScriptHash,
    /// Taproot.
    Taproot,
    /// A witness program without a meaning yet.
    WitnessUnknown,
}

/// The template of a script (Bitcoin Core's `Solver`).
#[must_use]
pub fn output_kind(script: &[u8]) -> OutputKind {
    if script.len() == 23 && script[..2] == [OP_HASH160, 20] && script[22] == OP_EQUAL {
        return OutputKind::ScriptHash;
    }
    if let Some((version, program)) = witness_program(script) {
        return match (version, program.len()) {
            (0, 20) => OutputKind::WitnessKeyHash,
            (0, 32) => OutputKind::WitnessScriptHash,
            (1, 32) => OutputKind::Taproot,
            _ if is_anchor(script) => OutputKind::Anchor,
            (0, _) => OutputKind::NonStandard,
            _ => OutputKind::WitnessUnknown,
        };
    }
    if script.first() == Some(&OP_RETURN) && is_push_only(&script[1..]) {
        return OutputKind::NullData;
    }
    if is_pay_to_pubkey(script) {
        return OutputKind::PubKey;
    }
    if script.len() == 25
        && script[..3] == [OP_DUP, OP_HASH160, 20]
        && script[23..] == [OP_EQUALVERIFY, OP_CHECKSIG]
    {
        return OutputKind::PubKeyHash;
    }
    multisig(script).unwrap_or(OutputKind::NonStandard)
}

fn is_pay_to_pubkey(script: &[u8]) -> bool {
    match script {
        [65, key @ .., OP_CHECKSIG] if key.len() == 65 => is_key_sized(key),
        [33, key @ .., OP_CHECKSIG] if key.len() == 33 => is_key_sized(key),
        _ => false,
    }
}

/// Whether the first byte of a public key fits its length.
fn is_key_sized(key: &[u8]) -> bool {
    match key.first() {
        Some(2 | 3) => key.len() == 33,
        Some(4 | 6 | 7) => key.len() == 65,
        _ => false,
    }
}

fn multisig(script: &[u8]) -> Option<OutputKind> {
    if script.last() != Some(&OP_CHECKMULTISIG) {
        return None;
    }
    let mut ops = Ops(script);
    let required = small_number(ops.next()?.ok()?, 1)?;
    let mut keys = 0;
    let count = loop {
        let op = ops.next()?.ok()?;
        if !is_key_sized(op.data) {
            break small_number(op, required)?;
        }
        keys += 1;
    };
    let ends_there = ops.0.len() == 1;
    (keys == count && ends_there).then_some(OutputKind::Multisig { required, keys })
}

/// A number from `least` to 20 in its shortest encoding.
fn small_number(op: Op<'_>, least: u32) -> Option<u32> {
    let number = match (op.code, op.data) {
        (OP_1..=OP_16, _) => u32::from(op.code - OP_1 + 1),
        // Shorter forms exist for 1 to 16.
        (1, &[byte @ 17..=20]) => u32::from(byte),
        _ => return None,
    };
    (least..=MAX_PUBKEYS_PER_MULTISIG)
        .contains(&number)
        .then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OP_RESERVED: u8 = 0x50;

    #[test]
    fn a_push_beyond_the_end_is_not_push_only() {
        assert!(is_push_only(&[0x02, 1, 2, OP_RESERVED, OP_16]));
        assert!(!is_push_only(&[0x02, 1]));
        assert!(!is_push_only(&[OP_PUSHDATA1]));
        assert!(!is_push_only(&[OP_DUP]));
    }

    #[test]
    fn multisig_keys_are_counted_when_told() {
        let script = [OP_1, 0x01, 0xaa, OP_1 + 1, OP_CHECKMULTISIG];
        assert_eq!(count_sigops(&script, true), 2);
        assert_eq!(count_sigops(&script, false), 20);
        assert_eq!(count_sigops(&[OP_CHECKSIG, OP_CHECKSIGVERIFY], false), 2);
        assert_eq!(count_sigops(&[OP_CHECKSIG, 0x05, 1], false), 1);
    }

    #[test]
    fn templates_are_told_apart() {
        let program = |version: u8, len: u8| {
            let mut script = vec![version, len];
            script.resize(2 + usize::from(len), 7);
            script
        };
        assert_eq!(output_kind(&program(0, 20)), OutputKind::WitnessKeyHash);
        assert_eq!(output_kind(&program(0, 32)), OutputKind::WitnessScriptHash);
        assert_eq!(output_kind(&program(0, 21)), OutputKind::NonStandard);
        assert_eq!(output_kind(&program(OP_1, 32)), OutputKind::Taproot);
        assert_eq!(output_kind(&program(OP_1, 33)), OutputKind::WitnessUnknown);
        assert_eq!(output_kind(&[OP_1, 2, 0x4e, 0x73]), OutputKind::Anchor);
        assert_eq!(output_kind(&[OP_RETURN, 1, 9]), OutputKind::NullData);
        assert_eq!(output_kind(&[OP_RETURN, 9]), OutputKind::NonStandard);
        assert_eq!(output_kind(&[]), OutputKind::NonStandard);
    }

    #[test]
    fn bare_multisig_needs_as_many_keys_as_it_says() {
        let mut script = vec![OP_1];
        for _ in 0..2 {
            script.push(33);
            script.push(2);
            script.extend([5; 32]);
        }
        let mut three = script.clone();
        script.extend([OP_1 + 1, OP_CHECKMULTISIG]);
        three.extend([OP_1 + 2, OP_CHECKMULTISIG]);
        let two = OutputKind::Multisig {
            required: 1,
            keys: 2,
        };
        assert_eq!(output_kind(&script), two);
        assert_eq!(output_kind(&three), OutputKind::NonStandard);
    }

    #[test]
    fn the_redeem_script_is_the_last_push() {
        assert_eq!(redeem_script(&[1, 5, 2, 7, 8]), Ok(Some(vec![7, 8])));
        assert_eq!(redeem_script(&[OP_16]), Ok(Some(vec![16])));
        assert_eq!(redeem_script(&[]), Ok(None));
        assert!(redeem_script(&[OP_RESERVED]).is_err());
        assert!(redeem_script(&[OP_1; 1_001]).is_err());
    }
}
