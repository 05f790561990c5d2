use pulse_primitives::bitcoin::ScriptBuf;

use super::*;

fn script(hex: &str) -> ScriptBuf {
    ScriptBuf::from_hex(hex).unwrap()
}

#[test]
fn scripts_have_bitcoin_core_s_types_and_words() {
    let key = format!(
        "02{}",
        "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
    );
    let p2pk = format!("21{key}ac");
    let multisig = format!("5121{key}51ae");
    let p2tr = format!("5120{}", &key[2..]);
    for (hex, kind, asm, descriptor) in [
        (
            p2pk.as_str(),
            "pubkey",
            format!("{key} OP_CHECKSIG"),
            format!("pk({key})"),
        ),
        (
            "76a91462e907b15cbf27d5425399ebf6f0fb50ebb88f1888ac",
            "pubkeyhash",
            "OP_DUP OP_HASH160 62e907b15cbf27d5425399ebf6f0fb50ebb88f18 OP_EQUALVERIFY OP_CHECKSIG"
                .to_owned(),
            "addr(1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa)".to_owned(),
        ),
        (
            "a914173727a17ada832a0fd90be6c628f63598b3400f87",
            "scripthash",
            "OP_HASH160 173727a17ada832a0fd90be6c628f63598b3400f OP_EQUAL".to_owned(),
            "addr(33omYBLg1nTDLfMic7vWYVPYe185gnteL3)".to_owned(),
        ),
        (
            "0014751e76e8199196d454941c45d1b3a323f1433bd6",
            "witness_v0_keyhash",
            "0 751e76e8199196d454941c45d1b3a323f1433bd6".to_owned(),
            "addr(bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4)".to_owned(),
        ),
        (
            &p2tr,
            "witness_v1_taproot",
            format!("1 {}", &key[2..]),
            format!("rawtr({})", &key[2..]),
        ),
        (
            "51024e73",
            "anchor",
            "1 29518".to_owned(),
            "addr(bc1pfeessrawgf)".to_owned(),
        ),
        (
            &multisig,
            "multisig",
            format!("1 {key} 1 OP_CHECKMULTISIG"),
            format!("multi(1,{key})"),
        ),
        (
            "6a0568656c6c6f",
            "nulldata",
            "OP_RETURN 68656c6c6f".to_owned(),
            "raw(6a0568656c6c6f)".to_owned(),
        ),
        (
            "6a4c",
            "nonstandard",
            "OP_RETURN [error]".to_owned(),
            "raw(6a4c)".to_owned(),
        ),
        ("", "nonstandard", String::new(), "raw()".to_owned()),
        // Not a point of the curve, which Bitcoin Core does not look for.
        (
            "21020000000000000000000000000000000000000000000000000000000000000005ac",
            "pubkey",
            "020000000000000000000000000000000000000000000000000000000000000005 OP_CHECKSIG"
                .to_owned(),
            "pk(020000000000000000000000000000000000000000000000000000000000000005)".to_owned(),
        ),
        // Long enough for a key, but without the first byte of one.
        (
            &format!("4111{}ac", "22".repeat(64)),
            "nonstandard",
            format!("11{} OP_CHECKSIG", "22".repeat(64)),
            format!("raw(4111{}ac)", "22".repeat(64)),
        ),
        (
            "b14f01ffb7bb",
            "nonstandard",
            "OP_CHECKLOCKTIMEVERIFY -1 -127 OP_NOP8 OP_UNKNOWN".to_owned(),
            "raw(b14f01ffb7bb)".to_owned(),
        ),
    ] {
        let script = script(hex);
        assert_eq!(type_name(&script), kind, "{hex}");
        assert_eq!(asm::of(&script, false), asm, "{hex}");
        let (found, checksum) = {
            let text = descriptor::of(&script, Network::Bitcoin);
            let (found, checksum) = text.split_once('#').unwrap();
            (found.to_owned(), checksum.to_owned())
        };
        assert_eq!(found, descriptor, "{hex}");
        assert_eq!(checksum.len(), 8);
    }
}

#[test]
fn signatures_show_their_kind_in_inputs() {
    // Of the first payment ever, in block 170.
    let sig = "304402204e45e16932b8af514961a1d3a1a25fdf3f4f7732e9d624c6c61548ab5fb8cd410220181522ec8eca07de4860a4acdd12909d831cc56cbbac4622082221a8768d1d09";
    let input = script(&format!("47{sig}01"));
    assert_eq!(asm::of(&input, true), format!("{sig}[ALL]"));
    assert_eq!(asm::of(&input, false), format!("{sig}01"));
    let other = script(&format!("47{sig}04"));
    assert_eq!(asm::of(&other, true), format!("{sig}04"));
}
