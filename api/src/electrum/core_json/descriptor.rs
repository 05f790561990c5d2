//! The output descriptor that Bitcoin Core infers for a script without knowing keys.

use std::fmt::Write;

use pulse_primitives::bitcoin::{Address, Network, Script, key::XOnlyPublicKey};

use super::{is_key, multisig, p2pk};

/// Characters in the order of their numbers.
const INPUT: &[u8] = b"0123456789()[],'/*abcdefgh@:$%{}IJKLMNOPQRSTUVWXYZ&+-.;<=>?!^_|~ijklmnopqrstuvwxyzABCDEFGH`#\"\\ ";
const CHECKSUM: &[u8] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
const GENERATOR: [u64; 5] = [
    0xf5_dee5_1989,
    0xa9_fdca_3312,
    0x1b_ab10_e32d,
    0x37_06b1_677a,
    0x64_4d62_6ffd,
];

/// The descriptor with its checksum.
pub(super) fn of(script: &Script, network: Network) -> String {
    let mut text = infer(script, network);
    let checksum = checksum(&text);
    text.push('#');
    text.push_str(&checksum);
    text
}

fn infer(script: &Script, network: Network) -> String {
    // Its form is all that counts, whether or not it is a point of the curve.
    let is_valid = |key: &[u8]| is_key(key) && key[0] < 6;
    if let Some(key) = p2pk(script).filter(|key| is_valid(key)) {
        return format!("pk({})", hex::encode(key));
    }
    if script.is_p2tr() {
        let key = &script.as_bytes()[2..];
        if XOnlyPublicKey::from_slice(key).is_ok() {
            return format!("rawtr({})", hex::encode(key));
        }
    }
    // At the top level, scripts of more keys are not standard and have no such form.
    if let Some((needed, keys)) = multisig(script).filter(|(_, keys)| keys.len() <= 3)
        && keys.iter().all(|key| is_valid(key))
    {
        let mut text = format!("multi({needed}");
        for key in keys {
            write!(text, ",{}", hex::encode(key)).expect("a String takes everything");
        }
        text.push(')');
        return text;
    }
    match Address::from_script(script, network) {
        Ok(address) => format!("addr({address})"),
        Err(_) => format!("raw({})", script.to_hex_string()),
    }
}

/// Eight characters (`DescriptorChecksum` of Bitcoin Core, BIP 380).
fn checksum(text: &str) -> String {
    let (mut state, mut class, mut count) = (1, 0, 0);
    for byte in text.bytes() {
        let position = INPUT.iter().position(|other| *other == byte);
        let position = position.expect("descriptors are made of these characters") as u64;
        state = step(state, position & 31);
        class = class * 3 + (position >> 5);
        count += 1;
        if count == 3 {
            state = step(state, class);
            (class, count) = (0, 0);
        }
    }
    if count > 0 {
        state = step(state, class);
    }
    for _ in 0..8 {
        state = step(state, 0);
    }
    state ^= 1;
    (0..8)
        .map(|n| {
            let symbol = usize::try_from((state >> (5 * (7 - n))) & 31).expect("it is below 32");
            char::from(CHECKSUM[symbol])
        })
        .collect()
}

fn step(state: u64, value: u64) -> u64 {
    let top = state >> 35;
    let mut next = ((state & 0x7_ffff_ffff) << 5) ^ value;
    for (bit, generator) in GENERATOR.iter().enumerate() {
        if (top >> bit) & 1 == 1 {
            next ^= generator;
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_bip_380() {
        assert_eq!(checksum("raw(deadbeef)"), "89f8spxm");
    }
}
