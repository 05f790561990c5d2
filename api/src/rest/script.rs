//! What the API says about a script: its type, its address, and the scripts inside.
//!
//! The readable form ("asm") is that of rust-bitcoin's `Display` for `Script`, which the
//! reference servers send too; the tests here pin it.

use pulse_primitives::bitcoin::{
    Address, Network, Script, TxIn,
    opcodes::{
        Class, ClassifyContext, Opcode,
        all::{OP_CHECKMULTISIG, OP_PUSHNUM_1, OP_PUSHNUM_15, OP_RETURN},
    },
    script::Instruction,
};

use super::model::string_schema;
use crate::ScriptTypes;

/// The output of pay-to-anchor (BIP 433).
const ANCHOR: [u8; 4] = [0x51, 0x02, 0x4e, 0x73];

/// What the JSON of a script depends on besides the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rendering {
    pub(crate) network: Network,
    pub(crate) types: ScriptTypes,
}

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
        "anchor",
        "provably_unspendable",
        "multisig",
        "unknown",
    ]))
});

/// Name of the kind of script, by the first test that holds.
///
/// Future witness versions are `unknown`, and with the names of Blockstream's server also bare
/// multisig and pay-to-anchor.
pub(super) fn type_name(script: &Script, types: ScriptTypes) -> &'static str {
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
    } else if types == ScriptTypes::Blockstream {
        "unknown"
    } else if script.as_bytes() == ANCHOR {
        "anchor"
    } else if begins_illegally(script) {
        "provably_unspendable"
    } else if is_multisig(script) {
        "multisig"
    } else {
        "unknown"
    }
}

/// Whether the first instruction is one that fails whatever follows.
fn begins_illegally(script: &Script) -> bool {
    let first = script.as_bytes().first().copied().map(Opcode::from);
    let class = first.map(|first| first.classify(ClassifyContext::Legacy));
    matches!(class, Some(Class::IllegalOp | Class::ReturnOp))
}

/// Whether it wants some of the signatures for several keys, without a hash around them. As
/// mempool/electrs has it, keys are not looked at: some are data.
fn is_multisig(script: &Script) -> bool {
    /// One key of 33 bytes.
    const SHORTEST: usize = 37;
    let bytes = script.as_bytes();
    let [required, .., keys, end] = *bytes else {
        return false;
    };
    let few = OP_PUSHNUM_1.to_u8()..=OP_PUSHNUM_15.to_u8();
    bytes.len() >= SHORTEST
        && end == OP_CHECKMULTISIG.to_u8()
        && few.contains(&keys)
        && (OP_PUSHNUM_1.to_u8()..=keys).contains(&required)
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
    /// Of P2WSH, bare or inside P2SH: the last witness item. Of taproot spent by a script that
    /// script, with mempool's names.
    pub(super) witness: Option<&'a Script>,
}

impl<'a> InnerScripts<'a> {
    /// The scripts that `input` reveals to spend an output with script `prevout`.
    pub(super) fn of(input: &'a TxIn, prevout: &Script, types: ScriptTypes) -> Self {
        let redeem = prevout
            .is_p2sh()
            .then(|| last_push(&input.script_sig))
            .flatten();
        let has_witness_script = prevout.is_p2wsh() || redeem.is_some_and(Script::is_p2wsh);
        let witness = if has_witness_script {
            input.witness.last().map(Script::from_bytes)
        } else if types == ScriptTypes::Mempool && prevout.is_p2tr() {
            input.witness.taproot_leaf_script().map(|leaf| leaf.script)
        } else {
            None
        };
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
            assert_eq!(type_name(&script, ScriptTypes::Blockstream), name, "{hex}");
            let of_mempool = match hex {
                "51024e73" => "anchor",
                hex if hex == multisig => "multisig",
                _ => name,
            };
            assert_eq!(
                type_name(&script, ScriptTypes::Mempool),
                of_mempool,
                "{hex}"
            );
            let address = address(&script, Network::Bitcoin).map(|a| a.to_string());
            assert_eq!(address.as_deref(), address_text, "{hex}");
        }
    }

    #[test]
    fn multisig_is_what_mempool_electrs_takes_for_it() {
        let (short, long) = (
            format!("21{}", "02".repeat(33)),
            format!("41{}", "04".repeat(65)),
        );
        for (hex, is_multisig) in [
            (format!("51{short}51ae"), true),
            (format!("51{short}{long}{short}53ae"), true),
            (format!("5f{}5fae", short.repeat(15)), true),
            (format!("51{short}4e{}52ae", "00".repeat(70)), true),
            (format!("60{}60ae", short.repeat(16)), false),
            (format!("52{short}51ae"), false),
            (format!("00{short}51ae"), false),
            (format!("4f{short}51ae"), false),
            (format!("51{short}52ae"), true),
            (format!("51{short}51af"), false),
            (format!("51{short}51aeae"), false),
            (format!("51{short}51ae02ae"), false),
            ("51020202 51ae".replace(' ', ""), false),
            ("5151ae".to_owned(), false),
            ("51ae".to_owned(), false),
            (format!("51{}51ae", "00".repeat(300)), true),
        ] {
            let name = type_name(&script(&hex), ScriptTypes::Mempool);
            assert_eq!(
                name,
                if is_multisig { "multisig" } else { "unknown" },
                "{hex}"
            );
        }
        for hex in ["7e", "65ac", "ff", "ba"] {
            let name = type_name(&script(hex), ScriptTypes::Mempool);
            assert_eq!(name, "provably_unspendable", "{hex}");
        }
    }

    #[test]
    fn a_script_of_taproot_is_shown_among_mempool_s_names_alone() {
        let p2tr = script(&format!("5120{}", "44".repeat(32)));
        let control = [0xc0_u8; 33];
        for (items, wanted) in [
            (vec![&[1_u8; 64][..]], None),
            (vec![&[1; 64], &[0x50, 1]], None),
            (vec![&[0x51], &control], Some("51")),
            (vec![&[7], &[0x51], &control, &[0x50]], Some("51")),
            (vec![], None),
        ] {
            let input = TxIn {
                witness: Witness::from_slice(&items),
                ..TxIn::default()
            };
            let found = InnerScripts::of(&input, &p2tr, ScriptTypes::Mempool);
            assert_eq!(found.witness, wanted.map(script).as_deref(), "{items:?}");
            let found = InnerScripts::of(&input, &p2tr, ScriptTypes::Blockstream);
            assert_eq!(found.witness, None);
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
            let of_p2sh = InnerScripts::of(&input, &p2sh, ScriptTypes::Blockstream);
            assert_eq!(
                of_p2sh.redeem,
                redeem.map(script).as_deref(),
                "{script_sig}"
            );
            assert_eq!(of_p2sh.witness, None);
            assert_eq!(
                InnerScripts::of(&input, &p2wpkh, ScriptTypes::Mempool).redeem,
                None
            );
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
        let found = InnerScripts::of(&nested, &p2sh, ScriptTypes::Mempool);
        assert_eq!(found.redeem, Some(&*p2wsh));
        assert_eq!(found.witness, Some(&*script("51")));
        assert_eq!(
            InnerScripts::of(&nested, &p2wsh, ScriptTypes::Blockstream).witness,
            Some(&*script("51"))
        );
        let p2wpkh = script("0014751e76e8199196d454941c45d1b3a323f1433bd6");
        assert_eq!(
            InnerScripts::of(&nested, &p2wpkh, ScriptTypes::Blockstream).witness,
            None
        );
        assert_eq!(
            InnerScripts::of(&TxIn::default(), &p2wsh, ScriptTypes::Blockstream).witness,
            None
        );
    }
}
