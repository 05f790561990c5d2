//! Changes inputs at random, from a seed.

use rand::{Rng, RngCore};

/// Longest input, in bytes. Lengths beyond are claimed rather than sent.
pub const MAX_LEN: usize = 200_000;

/// Numbers at which counts, lengths and amounts change their meaning.
const EDGES: [u64; 16] = [
    0,
    1,
    0x7f,
    0x80,
    0xfc,
    0xfd,
    0xff,
    1000,
    1001,
    2001,
    50_001,
    0xffff,
    0x1_0000,
    4_000_001,
    0xffff_ffff,
    u64::MAX,
];

/// A changed copy of `input`; `other` is a second input to take parts from.
pub fn mutate(rng: &mut impl RngCore, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..rng.gen_range(1..=6) {
        mutate_once(rng, &mut bytes, other);
    }
    bytes.truncate(MAX_LEN);
    bytes
}

fn mutate_once(rng: &mut impl RngCore, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = rng.gen_range(0..=bytes.len());
    // Most fields that matter are at the front.
    let at = if rng.gen_bool(0.3) { at.min(40) } else { at };
    match rng.gen_range(0..9) {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.gen_range(0..8);
            }
        }
        1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = rng.r#gen();
            }
        }
        2 => overwrite(bytes, at, &edge(rng)),
        3 => {
            bytes.splice(at..at, edge(rng));
        }
        4 => bytes.truncate(at),
        5 => {
            let end = (at + rng.gen_range(0..64)).min(bytes.len());
            bytes.drain(at..end);
        }
        6 => {
            let part = part(rng, bytes);
            bytes.splice(at..at, part);
        }
        7 => {
            let part = part(rng, other);
            bytes.splice(at..at, part);
        }
        _ => {
            let mut random = vec![0; rng.gen_range(0..64)];
            rng.fill_bytes(&mut random);
            overwrite(bytes, at, &random);
        }
    }
}

fn overwrite(bytes: &mut Vec<u8>, at: usize, with: &[u8]) {
    let end = (at + with.len()).min(bytes.len());
    bytes.splice(at..end, with.iter().copied());
}

fn part(rng: &mut impl RngCore, of: &[u8]) -> Vec<u8> {
    let start = rng.gen_range(0..=of.len());
    let end = rng.gen_range(start..=of.len().min(start + 4096));
    of[start..end].to_vec()
}

/// A number of interest, as any of the encodings that the protocol has.
fn edge(rng: &mut impl RngCore) -> Vec<u8> {
    let number = EDGES[rng.gen_range(0..EDGES.len())];
    let bytes = number.to_le_bytes();
    match rng.gen_range(0..7) {
        0 => bytes[..1].to_vec(),
        1 => bytes[..2].to_vec(),
        2 => bytes[..4].to_vec(),
        3 => bytes.to_vec(),
        // CompactSize, also where it is longer than it need be.
        4 => [&[0xfd], &bytes[..2]].concat(),
        5 => [&[0xfe], &bytes[..4]].concat(),
        _ => [&[0xff], &bytes[..]].concat(),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_inputs_and_they_differ_from_each_other() {
        let inputs = |seed| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            (0..200)
                .map(|_| mutate(&mut rng, &[7; 100], b"other"))
                .collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
        let mut distinct = inputs(1);
        distinct.sort();
        distinct.dedup();
        assert!(distinct.len() > 150);
    }

    #[test]
    fn the_empty_input_is_mutated_too() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert!((0..100).any(|_| !mutate(&mut rng, &[], &[]).is_empty()));
    }
}
