//! MuHash3072: the set hash by which Bitcoin Core names its set of unspent outputs.
//!
//! Each element is hashed to an integer of 3072 bits: SHA-256 of its bytes is the key of a
//! ChaCha20 stream, whose first 384 bytes are taken little endian. The elements are
//! multiplied modulo 2^3072 - 1103717, a prime; the hash of the set is the SHA-256 of the
//! product. Source: Bitcoin Core, `src/crypto/muhash.h`.
//!
//! Elements are only added here, so no inverse is ever needed.

use pulse_primitives::bitcoin::hashes::{Hash, sha256};
use rand_chacha::{
    ChaCha20Rng,
    rand_core::{RngCore, SeedableRng},
};

/// 64-bit limbs of a number.
const LIMBS: usize = 48;
/// Bytes of a number.
const BYTES: usize = 8 * LIMBS;
/// The modulus is 2^3072 less this.
const PRIME_DIFF: u64 = 1_103_717;

/// An integer modulo 2^3072 - 1103717, lowest limb first; not always the smallest one.
#[derive(Clone, PartialEq, Eq)]
struct Number([u64; LIMBS]);

/// A set, as the product of its elements.
#[derive(Clone)]
pub(crate) struct MuHash(Number);

impl MuHash {
    /// The empty set.
    pub(crate) fn new() -> Self {
        let mut one = [0; LIMBS];
        one[0] = 1;
        Self(Number(one))
    }

    /// Adds an element.
    pub(crate) fn insert(&mut self, bytes: &[u8]) {
        let key = sha256::Hash::hash(bytes).to_byte_array();
        self.0 = self.0.times(&Number::from_key(key));
    }

    /// The hash of the set, in the order of its bytes in memory: Core prints it reversed.
    pub(crate) fn finish(&self) -> [u8; 32] {
        sha256::Hash::hash(&self.0.reduced().to_bytes()).to_byte_array()
    }
}

/// Lower and upper half.
#[allow(
    clippy::cast_possible_truncation,
    reason = "the halves are what is wanted"
)]
fn split(value: u128) -> (u64, u64) {
    (value as u64, (value >> 64) as u64)
}

impl Number {
    /// The number of an element whose bytes have this hash.
    fn from_key(key: [u8; 32]) -> Self {
        // The stream of ChaCha20 with counter and nonce 0.
        let mut bytes = [0; BYTES];
        ChaCha20Rng::from_seed(key).fill_bytes(&mut bytes);
        Self::from_bytes(&bytes)
    }

    fn from_bytes(bytes: &[u8; BYTES]) -> Self {
        let mut limbs = [0; LIMBS];
        for (limb, bytes) in limbs.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *limb = u64::from_le_bytes(*bytes);
        }
        Self(limbs)
    }

    fn to_bytes(&self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        for (bytes, limb) in bytes.chunks_exact_mut(8).zip(self.0) {
            bytes.copy_from_slice(&limb.to_le_bytes());
        }
        bytes
    }

    fn times(&self, other: &Self) -> Self {
        let mut product = [0u64; 2 * LIMBS];
        for (i, a) in self.0.iter().enumerate() {
            let mut carry = 0;
            for (slot, b) in product[i..].iter_mut().zip(&other.0) {
                // Cannot overflow: (2^64 - 1)^2 + 2 (2^64 - 1) = 2^128 - 1.
                let sum = u128::from(*a) * u128::from(*b) + u128::from(*slot) + u128::from(carry);
                (*slot, carry) = split(sum);
            }
            product[i + LIMBS] = carry;
        }
        // 2^3072 is PRIME_DIFF, so the upper half counts that many times.
        let mut limbs = [0; LIMBS];
        let mut carry = 0;
        for ((limb, low), high) in limbs.iter_mut().zip(&product).zip(&product[LIMBS..]) {
            let sum =
                u128::from(*high) * u128::from(PRIME_DIFF) + u128::from(*low) + u128::from(carry);
            (*limb, carry) = split(sum);
        }
        // What is carried out counts again; a second carry can only be 1, and no third
        // follows, because the number is small after it.
        let mut number = Self(limbs);
        while carry > 0 {
            carry = number.add(u128::from(carry) * u128::from(PRIME_DIFF));
        }
        number
    }

    /// Adds a small number. Returns what is carried out.
    fn add(&mut self, value: u128) -> u64 {
        let (low, high) = split(value);
        let addends = [low, high].into_iter().chain(std::iter::repeat(0));
        let mut carry = 0;
        for (limb, addend) in self.0.iter_mut().zip(addends) {
            let sum = u128::from(*limb) + u128::from(addend) + u128::from(carry);
            (*limb, carry) = split(sum);
        }
        carry
    }

    /// The same number below the modulus.
    fn reduced(&self) -> Self {
        let largest = u64::MAX - PRIME_DIFF;
        let mut number = self.clone();
        if self.0[0] > largest && self.0[1..].iter().all(|limb| *limb == u64::MAX) {
            // Subtracts the modulus: 2^3072 falls out at the top.
            let _ = number.add(u128::from(PRIME_DIFF));
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The element that Core's tests call `FromInt`.
    fn element(number: u8) -> Number {
        let mut bytes = [0; 32];
        bytes[0] = number;
        Number::from_key(sha256::Hash::hash(&bytes).to_byte_array())
    }

    /// By Fermat: the number to the power of the modulus less 2.
    fn inverse(number: &Number) -> Number {
        let mut exponent = [u64::MAX; LIMBS];
        exponent[0] = u64::MAX - PRIME_DIFF - 1;
        let mut result = MuHash::new().0;
        for limb in exponent.iter().rev() {
            for bit in (0..64).rev() {
                result = result.times(&result);
                if limb >> bit & 1 == 1 {
                    result = result.times(number);
                }
            }
        }
        result
    }

    fn shown(number: &Number) -> String {
        let mut hash = MuHash(number.clone()).finish();
        hash.reverse();
        hex::encode(hash)
    }

    #[test]
    fn products_are_those_of_bitcoin_core() {
        // `muhash_tests` in src/test/crypto_tests.cpp.
        let product = element(0).times(&element(1)).times(&inverse(&element(2)));
        assert_eq!(
            shown(&product),
            "10d312b100cbd32ada024a6646e40d3482fcff103668d2625f10002a607d5863"
        );
        let product = element(1).times(&element(2));
        assert_eq!(
            hex::encode(&product.to_bytes()[..32]),
            "1fa093295ea30a6a3acdc7b3f770fa538eff537528e990e2910e40bbcfd7f669"
        );
        let one = MuHash::new().0;
        assert!(element(5).times(&inverse(&element(5))).reduced() == one);
    }

    #[test]
    fn numbers_above_the_modulus_are_reduced_as_in_bitcoin_core() {
        // Printed unreversed there.
        assert_eq!(
            hex::encode(MuHash(Number([u64::MAX; LIMBS])).finish()),
            "3a31e6903aff0de9f62f9a9f7f8b861de76ce2cda09822b90014319ae5dc2271"
        );
        // The modulus is zero, and its square is.
        let mut modulus = [u64::MAX; LIMBS];
        modulus[0] = u64::MAX - PRIME_DIFF + 1;
        let modulus = Number(modulus);
        assert!(modulus.reduced().0 == [0; LIMBS]);
        assert!(modulus.times(&modulus).reduced().0 == [0; LIMBS]);
        // -1 squared is 1.
        let mut minus_one = modulus.clone();
        minus_one.0[0] -= 1;
        assert!(minus_one.times(&minus_one).reduced() == MuHash::new().0);
        let largest = Number([u64::MAX; LIMBS]);
        let expected = u128::from(PRIME_DIFF - 1) * u128::from(PRIME_DIFF - 1);
        let (low, high) = split(expected);
        let square = largest.times(&largest).reduced();
        assert_eq!((square.0[0], square.0[1]), (low, high));
        assert!(square.0[2..].iter().all(|limb| *limb == 0));
    }

    #[test]
    fn the_order_of_elements_does_not_matter() {
        let (mut one, mut other) = (MuHash::new(), MuHash::new());
        for element in 0..20u8 {
            one.insert(&[element]);
            other.insert(&[19 - element]);
        }
        assert_eq!(one.finish(), other.finish());
    }
}
