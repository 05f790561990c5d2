//! What the API says about a script: its type, its address, and the scripts inside.
//!
//! The readable form ("asm") is that of rust-bitcoin's `Display` for `Script`, which the
//! reference servers send too; the tests here pin it.

use pulse_primitives::bitcoin::{
    Address, Network, Script, TxIn, opcodes::all::OP_RETURN, script::Instruction,
};

use super::model::string_schema;

/// What [`type_name`] may say.
pub(super) enum TypeName {}

string_schema!(TypeName, "ScriptType", "The kind of a script.", |string| {
    string.enum_values(Some([
        "empty",
        "op_return",
        "p2pk",
        "p2pkh",
        "p2sh",
        "v0_p2wpkh",
        "v0_p2wsh",
        "v1_p2tr",
        "unknown",
    ]))
});

/// Name of the kind of script, by the first test that holds.
///
/// Bare multisig, pay-to-anchor and future witness versions are `unknown`.
pub(super) fn type_name(script: &Script) -> &'static str {
    if script.is_empty() {
        "empty"
    } else if script.as_bytes()[0] == OP_RETURN.to_u8() {
        "op_return"
    } else if script.is_p2pk() {
        "p2pk"
    } else if script.is_p2pkh() {
        "p2pkh"
    } else if script.is_p2sh() {
        "p2sh"
    } else if script.is_p2wpkh() {
        "v0_p2wpkh"
    } else if script.is_p2wsh() {
        "v0_p2wsh"
    } else if script.is_p2tr() {
        "v1_p2tr"
    } else {
        "unknown"
    }
}

/// The address of a script; `None` if it has none (also P2PK). Every witness program of
/// version 1 to 16 has one.
pub(super) fn address(script: &Script, network: Network) -> Option<Address> {
    Address::from_script(script, network).ok()
}

/// The scripts that an input reveals.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InnerScripts<'a> {
    /// Of P2SH: the last push of the scriptSig.
    pub(super) redeem: Option<&'a Script>,
    /// Of P2WSH, bare or inside P2SH: the last witness item.
    pub(super) witness: Option<&'a Script>,
}

impl<'a> InnerScripts<'a> {
    /// The scripts that `input` reveals to spend an output with script `prevout`.
    pub(super) fn of(input: &'a TxIn, prevout: &Script) -> Self {
        let redeem = prevout
            .is_p2sh()
            .then(|| last_push(&input.script_sig))
            .flatten();
        let has_witness_script = prevout.is_p2wsh() || redeem.is_some_and(Script::is_p2wsh);
        let witness = has_witness_script
            .then(|| input.witness.last())
            .flatten()
            .map(Script::from_bytes);
        Self { redeem, witness }
    }
}

/// The data of the last instruction; `None` if that is no push of data or the script is
/// broken. `OP_0` pushes empty data.
fn last_push(script: &Script) -> Option<&Script> {
    match script.instructions().last() {
        Some(Ok(Instruction::PushBytes(data))) => Some(Script::from_bytes(data.as_bytes())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use pulse_primitives::bitcoin::{ScriptBuf, Witness};

    use super::*;

    fn script(hex: &str) -> ScriptBuf {
        ScriptBuf::from_hex(hex).unwrap()
    }

    #[test]
    fn asm_is_that_of_the_reference() {
        for (hex, asm) in [
            ("", ""),
            ("00", "OP_0"),
            ("4c00", "OP_PUSHDATA1"),
            ("4c02aabb", "OP_PUSHDATA1 aabb"),
            ("4d0200aabb", "OP_PUSHDATA2 aabb"),
            ("4e02000000aabb", "OP_PUSHDATA4 aabb"),
            ("0501", "OP_PUSHBYTES_5 <push past end>"),
            ("4c05aa", "OP_PUSHDATA1 <push past end>"),
            ("4effffffffaa", "OP_PUSHDATA4 <push past end>"),
            ("764c", "OP_DUP<unexpected end>"),
            ("764d01", "OP_DUP<unexpected end>"),
            ("4c", "<unexpected end>"),
            ("b275", "OP_CSV OP_DROP"),
            ("b1", "OP_CLTV"),
            ("6a04deadbeef", "OP_RETURN OP_PUSHBYTES_4 deadbeef"),
            ("022c0300", "OP_PUSHBYTES_2 2c03 OP_0"),
            ("bb", "OP_RETURN_187"),
            ("fe", "OP_RETURN_254"),
            ("ff", "OP_INVALIDOPCODE"),
            ("ba", "OP_CHECKSIGADD"),
            ("b3", "OP_NOP4"),
            ("b9", "OP_NOP10"),
            ("b0", "OP_NOP1"),
            ("61", "OP_NOP"),
            ("62", "OP_VER"),
            ("63", "OP_IF"),
            ("7e", "OP_CAT"),
            ("7f", "OP_SUBSTR"),
            ("8d", "OP_2MUL"),
            ("af", "OP_CHECKMULTISIGVERIFY"),
            (
                "4f5051525360",
                "OP_PUSHNUM_NEG1 OP_RESERVED OP_PUSHNUM_1 OP_PUSHNUM_2 OP_PUSHNUM_3 OP_PUSHNUM_16",
            ),
        ] {
            assert_eq!(script(hex).to_string(), asm, "{hex}");
        }
        let long = format!("4b{}", "ab".repeat(75));
        let asm = format!("OP_PUSHBYTES_75 {}", "ab".repeat(75));
        assert_eq!(script(&long).to_string(), asm);
    }

    #[test]
    fn types_and_addresses_of_mainnet_scripts() {
        let key33 = format!("21{}ac", "02".repeat(33));
        let key65 = format!("41{}ac", "04".repeat(65));
        let p2tr = format!("5120{}", "44".repeat(32));
        let multisig = format!("5121{}51ae", "03".repeat(33));
        for (hex, name, address_text) in [
            ("", "empty", None),
            ("6a", "op_return", None),
            ("6a0a70756c73652d6e6f6465", "op_return", None),
            (&key33, "p2pk", None),
            (&key65, "p2pk", None),
            (
                "76a91462e907b15cbf27d5425399ebf6f0fb50ebb88f1888ac",
                "p2pkh",
                Some("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"),
            ),
            (
                "a914173727a17ada832a0fd90be6c628f63598b3400f87",
                "p2sh",
                Some("33omYBLg1nTDLfMic7vWYVPYe185gnteL3"),
            ),
            (
                "0014751e76e8199196d454941c45d1b3a323f1433bd6",
                "v0_p2wpkh",
                Some("bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"),
            ),
            (
                "0020a012dab14491e936e7f53ac0bcc62f916b3acfef78e65cca411cee11f840302e",
                "v0_p2wsh",
                Some("bc1q5qfd4v2yj85ndel48tqte330j94n4nl00rn9ejjprnhpr7zqxqhqd4qpkl"),
            ),
            (
                &p2tr,
                "v1_p2tr",
                Some("bc1pg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zq8ss0kf"),
            ),
            ("51024e73", "unknown", Some("bc1pfeessrawgf")),
            // The shortest program of version 16 (BIP 350).
            ("6002751e", "unknown", Some("bc1sw50qgdz25j")),
            // Version 0 knows 20 and 32 bytes only.
            ("0002751e", "unknown", None),
            (&multisig, "unknown", None),
            ("51", "unknown", None),
        ] {
            let script = script(hex);
            assert_eq!(type_name(&script), name, "{hex}");
            let address = address(&script, Network::Bitcoin).map(|a| a.to_string());
            assert_eq!(address.as_deref(), address_text, "{hex}");
        }
    }

    #[test]
    fn only_a_last_push_is_a_redeem_script() {
        let p2sh = script("a914173727a17ada832a0fd90be6c628f63598b3400f87");
        let p2wpkh = script("0014751e76e8199196d454941c45d1b3a323f1433bd6");
        for (script_sig, redeem) in [
            ("0151", Some("51")),
            ("5100", Some("")),
            ("015151", None),
            ("01510205", None),
            ("", None),
        ] {
            let input = TxIn {
                script_sig: script(script_sig),
                ..TxIn::default()
            };
            let of_p2sh = InnerScripts::of(&input, &p2sh);
            assert_eq!(
                of_p2sh.redeem,
                redeem.map(script).as_deref(),
                "{script_sig}"
            );
            assert_eq!(of_p2sh.witness, None);
            assert_eq!(InnerScripts::of(&input, &p2wpkh).redeem, None);
        }
    }

    #[test]
    fn a_witness_script_is_the_last_item_and_only_of_p2wsh() {
        let p2sh = script("a914173727a17ada832a0fd90be6c628f63598b3400f87");
        let p2wsh = script(&format!("0020{}", "aa".repeat(32)));
        let nested = TxIn {
            script_sig: script(&format!("220020{}", "aa".repeat(32))),
            witness: Witness::from_slice(&[&[1_u8, 2][..], &[0x51]]),
            ..TxIn::default()
        };
        let found = InnerScripts::of(&nested, &p2sh);
        assert_eq!(found.redeem, Some(&*p2wsh));
        assert_eq!(found.witness, Some(&*script("51")));
        assert_eq!(
            InnerScripts::of(&nested, &p2wsh).witness,
            Some(&*script("51"))
        );
        let p2wpkh = script("0014751e76e8199196d454941c45d1b3a323f1433bd6");
        assert_eq!(InnerScripts::of(&nested, &p2wpkh).witness, None);
        assert_eq!(InnerScripts::of(&TxIn::default(), &p2wsh).witness, None);
    }
}
