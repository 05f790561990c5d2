//! Rules of policy about scripts that can be decided without running them, for inputs whose
//! scripts the judge has passed.
//!
//! They keep strangers from relaying another form of a transaction under another id: pushes
//! that are longer than needed, things left on the stack, signatures with a high S.
//!
//! # Correctness
//! Exact where they apply: a script that reaches its end has reached each of its
//! operations, and the templates say which item is a signature and which a key.
//!
//! # Limits
//! Signatures, keys and what is left on the stack are checked in the templates (P2PK,
//! P2PKH, multisig, also inside P2SH and P2WSH, and P2WPKH) only. Rules about operations
//! that depend on which branch runs (`MINIMALIF`, `NULLFAIL`, minimal data and upgradable
//! operations inside scripts, keys of unknown kinds in tapscript) are not checked.

use bitcoin::{Script, Transaction, TxIn, TxOut, Witness, secp256k1::ecdsa::Signature};
use pulse_primitives::bitcoin;

use super::script::{OutputKind, has_op, multisig_keys, output_kind, pushes, witness_program};
use crate::judge::ScriptFailure;

const OP_CODESEPARATOR: u8 = 0xab;
const LEAF_MASK: u8 = 0xfe;
const LEAF_TAPSCRIPT: u8 = 0xc0;

/// Which rules signatures and keys follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rules {
    /// Scripts without witness.
    Base,
    /// Version 0 witness programs.
    WitnessV0,
}

/// Checks all inputs of `tx`, which spend `prevouts`.
///
/// # Errors
/// [`ScriptFailure`] with Bitcoin Core's words, of the first input that fails.
pub fn check_scripts(tx: &Transaction, prevouts: &[TxOut]) -> Result<(), ScriptFailure> {
    for (index, (input, prevout)) in tx.input.iter().zip(prevouts).enumerate() {
        check_input(input, &prevout.script_pubkey).map_err(|detail| ScriptFailure {
            input: index,
            detail: detail.to_owned(),
        })?;
    }
    Ok(())
}

fn check_input(input: &TxIn, script: &Script) -> Result<(), &'static str> {
    let items = pushes(input.script_sig.as_bytes())?;
    if let Some(program) = witness_program(script.as_bytes()) {
        return check_program(program, &input.witness, false);
    }
    if !script.is_p2sh() {
        return check_legacy(script.as_bytes(), &items);
    }
    let Some((redeem, items)) = items.split_last() else {
        return Ok(());
    };
    match witness_program(redeem) {
        Some(program) => check_program(program, &input.witness, true),
        None => check_legacy(redeem, items),
    }
}

fn check_legacy(script: &[u8], items: &[Vec<u8>]) -> Result<(), &'static str> {
    if has_op(script, |op| op == OP_CODESEPARATOR) {
        return Err("Using OP_CODESEPARATOR in non-witness script");
    }
    let items: Vec<&[u8]> = items.iter().map(Vec::as_slice).collect();
    let Some(used) = check_template(script, &items, Rules::Base)? else {
        return Ok(());
    };
    if items.len() > used {
        return Err("Stack size must be exactly one after execution");
    }
    Ok(())
}

fn check_program(
    (version, program): (u8, &[u8]),
    witness: &Witness,
    is_p2sh: bool,
) -> Result<(), &'static str> {
    let items: Vec<&[u8]> = witness.iter().collect();
    match (version, program.len()) {
        (0, 20) => match items[..] {
            [signature, key] => {
                check_signature(signature)?;
                check_key(key, Rules::WitnessV0)
            }
            _ => Ok(()),
        },
        (0, 32) => match items.split_last() {
            Some((script, items)) => check_template(script, items, Rules::WitnessV0).map(|_| ()),
            None => Ok(()),
        },
        (1, 32) if !is_p2sh => check_taproot(&items),
        (1.., _) if is_p2sh => Err("Witness version reserved for soft-fork upgrades"),
        _ => Ok(()),
    }
}

fn check_taproot(items: &[&[u8]]) -> Result<(), &'static str> {
    let [.., script, control] = items else {
        return Ok(());
    };
    if control.first().map(|version| version & LEAF_MASK) != Some(LEAF_TAPSCRIPT) {
        return Err("Taproot version reserved for soft-fork upgrades");
    }
    if has_op(script, is_op_success) {
        return Err("OP_SUCCESSx reserved for soft-fork upgrades");
    }
    Ok(())
}

/// Operations that make any tapscript succeed (BIP 342).
fn is_op_success(op: u8) -> bool {
    matches!(
        op,
        80 | 98 | 126..=129 | 131..=134 | 137..=138 | 141..=142 | 149..=153 | 187..=254
    )
}

/// Checks signatures and keys, the top of the stack last in `items`. How many items the
/// template takes, or `None` if it is none.
fn check_template(
    script: &[u8],
    items: &[&[u8]],
    rules: Rules,
) -> Result<Option<usize>, &'static str> {
    match (output_kind(script), items) {
        (OutputKind::PubKey, [.., signature]) => {
            check_signature(signature)?;
            check_key(&script[1..script.len() - 1], rules)?;
            Ok(Some(1))
        }
        (OutputKind::PubKeyHash, [.., signature, key]) => {
            check_signature(signature)?;
            check_key(key, rules)?;
            Ok(Some(2))
        }
        (OutputKind::Multisig { required, keys }, _) => {
            let required = required as usize;
            let Some(first) = items.len().checked_sub(required) else {
                return Ok(None);
            };
            for signature in items[first..].iter().rev() {
                check_signature(signature)?;
            }
            // Fewer signatures than keys: which keys were looked at is not known.
            if required == keys as usize {
                for key in multisig_keys(script) {
                    check_key(key, rules)?;
                }
            }
            Ok(Some(required + 1))
        }
        _ => Ok(None),
    }
}

/// A signature that was found valid, with its type behind it.
fn check_signature(signature: &[u8]) -> Result<(), &'static str> {
    let Some((kind, der)) = signature.split_last() else {
        return Ok(());
    };
    // Strict encoding is a rule of consensus (BIP 66), and so the judge's business.
    let Ok(parsed) = Signature::from_der(der) else {
        return Ok(());
    };
    let mut low = parsed;
    low.normalize_s();
    if low != parsed {
        return Err("Non-canonical signature: S value is unnecessarily high");
    }
    if !(1..=3).contains(&(kind & !0x80)) {
        return Err("Signature hash type missing or not understood");
    }
    Ok(())
}

fn check_key(key: &[u8], rules: Rules) -> Result<(), &'static str> {
    match (key.first(), key.len(), rules) {
        (Some(2 | 3), 33, _) | (Some(4), 65, Rules::Base) => Ok(()),
        (Some(4), 65, Rules::WitnessV0) => Err("Using non-compressed keys in segwit"),
        _ => Err("Public key is neither compressed or uncompressed"),
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::{
        OutPoint, ScriptBuf,
        secp256k1::{Message, Secp256k1, SecretKey},
    };

    use super::*;
    use crate::testing::input;

    fn signature(high: bool, kind: u8) -> Vec<u8> {
        const ORDER: [u8; 32] = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            0xff, 0xfe, 0xba, 0xae, 0xdc, 0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c,
            0xd0, 0x36, 0x41, 0x41,
        ];
        let key = SecretKey::from_slice(&[7; 32]).unwrap();
        let low = Secp256k1::new().sign_ecdsa(&Message::from_digest([9; 32]), &key);
        let mut compact = low.serialize_compact();
        if high {
            // S becomes the order minus S.
            let mut borrow = 0;
            for i in (0..32).rev() {
                let digit = i32::from(ORDER[i]) - i32::from(compact[32 + i]) - borrow;
                borrow = i32::from(digit < 0);
                compact[32 + i] = u8::try_from(digit.rem_euclid(256)).unwrap();
            }
        }
        let mut bytes = Signature::from_compact(&compact)
            .unwrap()
            .serialize_der()
            .to_vec();
        bytes.push(kind);
        bytes
    }

    fn key(first: u8, len: usize) -> Vec<u8> {
        let mut key = vec![5; len];
        key[0] = first;
        key
    }

    fn push(items: &[Vec<u8>]) -> Vec<u8> {
        let push = |item: &Vec<u8>| {
            let len = u8::try_from(item.len()).unwrap();
            let mut bytes = if len > 75 { vec![0x4c, len] } else { vec![len] };
            bytes.extend(item);
            bytes
        };
        items.iter().flat_map(push).collect()
    }

    fn check(script: &[u8], script_sig: Vec<u8>, witness: &[Vec<u8>]) -> Result<(), &'static str> {
        let input = TxIn {
            script_sig: ScriptBuf::from_bytes(script_sig),
            witness: Witness::from_slice(witness),
            ..input(OutPoint::null())
        };
        check_input(&input, Script::from_bytes(script))
    }

    fn p2pkh() -> Vec<u8> {
        let mut script = vec![0x76, 0xa9, 20];
        script.resize(23, 4);
        script.extend([0x88, 0xac]);
        script
    }

    fn p2sh() -> Vec<u8> {
        let mut script = vec![0xa9, 20];
        script.resize(22, 5);
        script.push(0x87);
        script
    }

    fn program(version: u8, len: usize) -> Vec<u8> {
        let mut script = vec![version, u8::try_from(len).unwrap()];
        script.resize(2 + len, 5);
        script
    }

    #[test]
    fn a_plain_spend_passes() {
        let items = [signature(false, 1), key(2, 33)];
        assert_eq!(check(&p2pkh(), push(&items), &[]), Ok(()));
        assert_eq!(check(&program(0, 20), vec![], &items), Ok(()));
        let old = [signature(false, 0x83), key(4, 65)];
        assert_eq!(check(&p2pkh(), push(&old), &[]), Ok(()));
    }

    #[test]
    fn a_high_s_is_refused() {
        let high = Err("Non-canonical signature: S value is unnecessarily high");
        let items = [signature(true, 1), key(2, 33)];
        assert_eq!(check(&p2pkh(), push(&items), &[]), high);
        assert_eq!(check(&program(0, 20), vec![], &items), high);
    }

    #[test]
    fn an_unknown_hash_type_is_refused() {
        let items = [signature(false, 4), key(2, 33)];
        let unknown = Err("Signature hash type missing or not understood");
        assert_eq!(check(&p2pkh(), push(&items), &[]), unknown);
    }

    #[test]
    fn keys_have_their_kinds() {
        let hybrid = [signature(false, 1), key(6, 65)];
        let neither = Err("Public key is neither compressed or uncompressed");
        assert_eq!(check(&p2pkh(), push(&hybrid), &[]), neither);
        let long = [signature(false, 1), key(4, 65)];
        let segwit = Err("Using non-compressed keys in segwit");
        assert_eq!(check(&program(0, 20), vec![], &long), segwit);
    }

    #[test]
    fn something_left_on_the_stack_is_refused() {
        let items = [vec![9], signature(false, 1), key(2, 33)];
        let left = Err("Stack size must be exactly one after execution");
        // 9 alone would be pushed by an operation of its own.
        let mut script_sig = vec![0x59];
        script_sig.extend(push(&items[1..]));
        assert_eq!(check(&p2pkh(), script_sig, &[]), left);
    }

    #[test]
    fn a_push_that_is_too_long_is_refused() {
        let longer = Err("Data push larger than necessary");
        for script_sig in [
            vec![1, 5],
            vec![1, 0x81],
            vec![0x4c, 1, 99],
            vec![0x4d, 1, 0, 99],
            vec![0x4c, 0],
        ] {
            assert_eq!(check(&p2sh(), script_sig, &[]), longer);
        }
        assert_eq!(check(&p2sh(), vec![1, 17], &[]), Ok(()));
    }

    #[test]
    fn multisig_is_read_in_and_out_of_p2sh() {
        let mut script = vec![0x52];
        script.extend(push(&[key(2, 33), key(3, 33)]));
        script.extend([0x52, 0xae]);
        let good = [vec![], signature(false, 1), signature(false, 1)];
        assert_eq!(check(&script, push(&good), &[]), Ok(()));
        let bad = [vec![], signature(false, 1), signature(true, 1)];
        let high = Err("Non-canonical signature: S value is unnecessarily high");
        assert_eq!(check(&script, push(&bad), &[]), high);
        let mut wrapped = bad.to_vec();
        wrapped.push(script.clone());
        assert_eq!(check(&p2sh(), push(&wrapped), &[]), high);
        assert_eq!(check(&program(0, 32), vec![], &wrapped), high);
        let mut more = vec![signature(false, 1)];
        more.extend(good.clone());
        more.push(script);
        let left = Err("Stack size must be exactly one after execution");
        assert_eq!(check(&p2sh(), push(&more), &[]), left);
    }

    #[test]
    fn what_is_reserved_is_refused() {
        let leaf = |version: u8| {
            let mut control = vec![version];
            control.resize(33, 3);
            control
        };
        let taproot = program(0x51, 32);
        let reserved = Err("Taproot version reserved for soft-fork upgrades");
        let spend = |script: Vec<u8>, version| check(&taproot, vec![], &[script, leaf(version)]);
        assert_eq!(spend(vec![0x51], 0xc0), Ok(()));
        assert_eq!(spend(vec![0x51], 0xc2), reserved);
        let success = Err("OP_SUCCESSx reserved for soft-fork upgrades");
        assert_eq!(spend(vec![0x50], 0xc0), success);
        assert_eq!(spend(vec![1, 0x50], 0xc0), Ok(()), "data is no operation");
        let wrapped = check(&p2sh(), push(std::slice::from_ref(&taproot)), &[vec![1]]);
        assert_eq!(
            wrapped,
            Err("Witness version reserved for soft-fork upgrades")
        );
        let separator = vec![0x51, 0xab];
        let refused = Err("Using OP_CODESEPARATOR in non-witness script");
        assert_eq!(check(&p2sh(), push(&[separator]), &[]), refused);
    }
}
