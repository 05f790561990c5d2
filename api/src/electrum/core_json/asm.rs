//! Scripts in the readable form of Bitcoin Core (`ScriptToAsmStr`), which is not that of
//! the REST API.

use std::fmt::Write;

use pulse_primitives::bitcoin::{Script, opcodes::Opcode, script::Instruction};

/// Numbers of at most this many bytes are shown as such.
const NUMBER_BYTES: usize = 4;

/// The script as text. In inputs, what looks like a signature shows its kind by name.
pub(super) fn of(script: &Script, is_input: bool) -> String {
    let mut text = String::new();
    // Nobody signs for what cannot be spent.
    let decode = is_input && !script.is_op_return() && script.len() <= 10_000;
    for instruction in script.instructions() {
        if !text.is_empty() {
            text.push(' ');
        }
        let written = match instruction {
            Err(_) => {
                text.push_str("[error]");
                return text;
            }
            Ok(Instruction::Op(op)) => {
                text.push_str(name(op));
                Ok(())
            }
            Ok(Instruction::PushBytes(bytes)) => {
                let bytes = bytes.as_bytes();
                match (bytes.len() <= NUMBER_BYTES, kind(bytes).filter(|_| decode)) {
                    (true, _) => write!(text, "{}", number(bytes)),
                    (false, Some(kind)) => {
                        let rest = &bytes[..bytes.len() - 1];
                        write!(text, "{}[{kind}]", hex::encode(rest))
                    }
                    (false, None) => write!(text, "{}", hex::encode(bytes)),
                }
            }
        };
        written.expect("a String takes everything");
    }
    text
}

/// A number as scripts have them: little endian, the highest bit is the sign.
fn number(bytes: &[u8]) -> i64 {
    let Some((last, rest)) = bytes.split_last() else {
        return 0;
    };
    let low = rest.iter().rev().fold(i64::from(last & 0x7f), |sum, byte| {
        (sum << 8) | i64::from(*byte)
    });
    if last & 0x80 == 0 { low } else { -low }
}

/// Name of the kind of a signature, if these bytes are one in strict DER (BIP 66) with a
/// defined kind.
fn kind(bytes: &[u8]) -> Option<&'static str> {
    let (last, der) = bytes.split_last()?;
    let name = match last {
        0x01 => "ALL",
        0x02 => "NONE",
        0x03 => "SINGLE",
        0x81 => "ALL|ANYONECANPAY",
        0x82 => "NONE|ANYONECANPAY",
        0x83 => "SINGLE|ANYONECANPAY",
        _ => return None,
    };
    is_strict_der(der).then_some(name)
}

fn is_strict_der(der: &[u8]) -> bool {
    let [0x30, len, rest @ ..] = der else {
        return false;
    };
    if !(8..=72).contains(&der.len()) || usize::from(*len) != rest.len() {
        return false;
    }
    let Some(rest) = take_integer(rest) else {
        return false;
    };
    take_integer(rest).is_some_and(<[u8]>::is_empty)
}

/// What follows a positive integer without needless zeros.
fn take_integer(bytes: &[u8]) -> Option<&[u8]> {
    let [0x02, len, rest @ ..] = bytes else {
        return None;
    };
    let (integer, rest) = rest.split_at_checked(usize::from(*len))?;
    let is_minimal = match integer {
        [] => false,
        [0, next, ..] => next & 0x80 != 0,
        [first, ..] => first & 0x80 == 0,
    };
    is_minimal.then_some(rest)
}

/// Names from `OP_NOP` (0x61) to `OP_CHECKSIGADD` (0xba) as Bitcoin Core has them.
const NAMES: [&str; 90] = [
    "OP_NOP",
    "OP_VER",
    "OP_IF",
    "OP_NOTIF",
    "OP_VERIF",
    "OP_VERNOTIF",
    "OP_ELSE",
    "OP_ENDIF",
    "OP_VERIFY",
    "OP_RETURN",
    "OP_TOALTSTACK",
    "OP_FROMALTSTACK",
    "OP_2DROP",
    "OP_2DUP",
    "OP_3DUP",
    "OP_2OVER",
    "OP_2ROT",
    "OP_2SWAP",
    "OP_IFDUP",
    "OP_DEPTH",
    "OP_DROP",
    "OP_DUP",
    "OP_NIP",
    "OP_OVER",
    "OP_PICK",
    "OP_ROLL",
    "OP_ROT",
    "OP_SWAP",
    "OP_TUCK",
    "OP_CAT",
    "OP_SUBSTR",
    "OP_LEFT",
    "OP_RIGHT",
    "OP_SIZE",
    "OP_INVERT",
    "OP_AND",
    "OP_OR",
    "OP_XOR",
    "OP_EQUAL",
    "OP_EQUALVERIFY",
    "OP_RESERVED1",
    "OP_RESERVED2",
    "OP_1ADD",
    "OP_1SUB",
    "OP_2MUL",
    "OP_2DIV",
    "OP_NEGATE",
    "OP_ABS",
    "OP_NOT",
    "OP_0NOTEQUAL",
    "OP_ADD",
    "OP_SUB",
    "OP_MUL",
    "OP_DIV",
    "OP_MOD",
    "OP_LSHIFT",
    "OP_RSHIFT",
    "OP_BOOLAND",
    "OP_BOOLOR",
    "OP_NUMEQUAL",
    "OP_NUMEQUALVERIFY",
    "OP_NUMNOTEQUAL",
    "OP_LESSTHAN",
    "OP_GREATERTHAN",
    "OP_LESSTHANOREQUAL",
    "OP_GREATERTHANOREQUAL",
    "OP_MIN",
    "OP_MAX",
    "OP_WITHIN",
    "OP_RIPEMD160",
    "OP_SHA1",
    "OP_SHA256",
    "OP_HASH160",
    "OP_HASH256",
    "OP_CODESEPARATOR",
    "OP_CHECKSIG",
    "OP_CHECKSIGVERIFY",
    "OP_CHECKMULTISIG",
    "OP_CHECKMULTISIGVERIFY",
    "OP_NOP1",
    "OP_CHECKLOCKTIMEVERIFY",
    "OP_CHECKSEQUENCEVERIFY",
    "OP_NOP4",
    "OP_NOP5",
    "OP_NOP6",
    "OP_NOP7",
    "OP_NOP8",
    "OP_NOP9",
    "OP_NOP10",
    "OP_CHECKSIGADD",
];
/// The numbers 1 to 16.
const NUMBERS: [&str; 16] = [
    "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16",
];

fn name(op: Opcode) -> &'static str {
    let code = op.to_u8();
    let at = |names: &'static [&'static str], first: u8| {
        let index = usize::from(code - first);
        names.get(index).copied().unwrap_or("OP_UNKNOWN")
    };
    match code {
        0x00 => "0",
        0x4f => "-1",
        0x50 => "OP_RESERVED",
        0x51..=0x60 => at(&NUMBERS, 0x51),
        0x61..=0xba => at(&NAMES, 0x61),
        0xff => "OP_INVALIDOPCODE",
        _ => "OP_UNKNOWN",
    }
}
