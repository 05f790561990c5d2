//! Hashes, scripts and addresses as JSON strings.
//!
//! Their own `Serialize` writes them character by character through a formatter, which is
//! most of the time that an answer takes. These write whole strings.

use std::sync::{Arc, LazyLock};

use pulse_primitives::bitcoin::{
    self, Address, BlockHash, Opcode, Script, Txid, Witness,
    hashes::Hash,
    opcodes::all::{OP_PUSHBYTES_75, OP_PUSHDATA1, OP_PUSHDATA2, OP_PUSHDATA4},
};
use quick_cache::sync::Cache;
use serde::{Serialize, Serializer};

/// Bytes up to which a string of hex digits is put together on the stack.
const SMALL: usize = 128;

/// A hash in display order: its bytes reversed, as lower-case hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::rest) struct Id([u8; 32]);

impl From<Txid> for Id {
    fn from(txid: Txid) -> Self {
        Self(txid.to_byte_array())
    }
}

impl From<BlockHash> for Id {
    fn from(hash: BlockHash) -> Self {
        Self(hash.to_byte_array())
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut bytes = self.0;
        bytes.reverse();
        hex(&bytes, to)
    }
}

/// Bytes as lower-case hex.
pub(super) fn hex<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    let mut small = [0; 2 * SMALL];
    let mut large;
    let digits = match small.get_mut(..2 * bytes.len()) {
        Some(digits) => digits,
        None => {
            large = vec![0; 2 * bytes.len()];
            &mut large[..]
        }
    };
    to.serialize_str(hex_digits(bytes, digits))
}

/// Bytes as lower-case hex, written into `digits`: two for each byte.
fn hex_digits<'a>(bytes: &[u8], digits: &'a mut [u8]) -> &'a str {
    const_hex::encode_to_str(bytes, digits).expect("two digits for each byte")
}

/// A script as hex.
pub(super) fn script<S: Serializer>(script: &Script, to: S) -> Result<S::Ok, S::Error> {
    hex(script.as_bytes(), to)
}

/// The same of a script that is there.
pub(super) fn script_if_any<S: Serializer>(
    script: &Option<&Script>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match script {
        Some(script) => hex(script.as_bytes(), to),
        None => to.serialize_none(),
    }
}

/// The items of a witness as a list of hex strings.
pub(super) fn witness<S: Serializer>(witness: &Option<&Witness>, to: S) -> Result<S::Ok, S::Error> {
    struct Item<'a>(&'a [u8]);
    impl Serialize for Item<'_> {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            hex(self.0, to)
        }
    }
    match witness {
        Some(witness) => to.collect_seq(witness.iter().map(Item)),
        None => to.serialize_none(),
    }
}

/// An address.
pub(super) fn address<S: Serializer>(address: &Option<Address>, to: S) -> Result<S::Ok, S::Error> {
    /// What was written last: base58 and bech32 are a tenth or more of the time of a list, and the
    /// same addresses come again and again. Less than 20 MB when full.
    static WRITTEN: LazyLock<Cache<Address, Arc<str>>> = LazyLock::new(|| Cache::new(65_536));
    let Some(address) = address else {
        return to.serialize_none();
    };
    if let Some(text) = WRITTEN.get(address) {
        return to.serialize_str(&text);
    }
    let text = Arc::from(address.to_string());
    WRITTEN.insert(address.clone(), Arc::clone(&text));
    to.serialize_str(&text)
}

/// A script in readable form, as rust-bitcoin's `Display` for `Script` has it.
pub(super) fn asm<S: Serializer>(script: &Script, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&asm_text(script))
}

/// As [`asm`], of a script that may not be there.
pub(super) fn asm_if_any<S: Serializer>(
    script: &Option<&Script>,
    to: S,
) -> Result<S::Ok, S::Error> {
    match script {
        Some(script) => asm(script, to),
        None => to.serialize_none(),
    }
}

fn asm_text(script: &Script) -> String {
    static NAMES: LazyLock<Vec<String>> = LazyLock::new(|| {
        let name = |code: u8| bitcoin::Opcode::from(code).to_string();
        let mut names: Vec<String> = (0..=u8::MAX).map(name).collect();
        "OP_0".clone_into(&mut names[0]);
        names
    });
    let mut rest = script.as_bytes();
    let mut text = String::with_capacity(2 * rest.len() + 64);
    while let Some((&code, after)) = rest.split_first() {
        rest = after;
        let opcode = Opcode::from(code);
        let len_bytes = match opcode {
            OP_PUSHDATA1 => 1,
            OP_PUSHDATA2 => 2,
            OP_PUSHDATA4 => 4,
            _ => 0,
        };
        let len = if len_bytes > 0 {
            let Some((len, after)) = rest.split_at_checked(len_bytes) else {
                text.push_str("<unexpected end>");
                break;
            };
            rest = after;
            len.iter()
                .rev()
                .fold(0, |len, byte| len << 8 | usize::from(*byte))
        } else if code <= OP_PUSHBYTES_75.to_u8() {
            usize::from(code)
        } else {
            0
        };
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&NAMES[usize::from(code)]);
        if len == 0 {
            continue;
        }
        text.push(' ');
        let Some((data, after)) = rest.split_at_checked(len) else {
            text.push_str("<push past end>");
            break;
        };
        rest = after;
        let mut small = [0; 2 * SMALL];
        for data in data.chunks(SMALL) {
            text.push_str(hex_digits(data, &mut small[..2 * data.len()]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use pulse_primitives::bitcoin::ScriptBuf;
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    fn json(serialize: impl FnOnce(&mut serde_json::Serializer<Vec<u8>>)) -> String {
        let mut to = serde_json::Serializer::new(Vec::new());
        serialize(&mut to);
        String::from_utf8(to.into_inner()).unwrap()
    }

    #[test]
    fn every_script_reads_as_rust_bitcoin_has_it() {
        let mut rng = StdRng::seed_from_u64(1);
        for round in 0..20_000 {
            let len = rng.gen_range(0..if round % 100 == 0 { 2_000 } else { 40 });
            let mut bytes: Vec<u8> = (0..len).map(|_| rng.r#gen()).collect();
            // Most often pushes that fit or nearly do.
            for byte in &mut bytes {
                if rng.gen_ratio(1, 4) {
                    let small = rng.gen_range(0..6);
                    *byte = *[0, small, 0x4c, 0x4d, 0x4e, 0x6a]
                        .get(small as usize)
                        .unwrap();
                }
            }
            let script = ScriptBuf::from_bytes(bytes);
            assert_eq!(asm_text(&script), script.to_string(), "{script:x}");
        }
    }

    #[test]
    fn hex_is_that_of_the_library_at_any_length() {
        for len in [0, 1, 31, SMALL, SMALL + 1, 3 * SMALL] {
            let bytes: Vec<u8> = (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let script = ScriptBuf::from_bytes(bytes);
            assert_eq!(
                json(|to| super::script(&script, to).unwrap()),
                format!("\"{script:x}\"")
            );
        }
        let txid = Txid::from_byte_array(std::array::from_fn(|n| u8::try_from(n).unwrap()));
        let id = json(|to| Id::from(txid).serialize(to).unwrap());
        assert_eq!(id, format!("\"{txid}\""));
    }
}
