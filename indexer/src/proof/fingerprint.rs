//! Compares two multisets of rows in one pass over each, in little memory.
//!
//! Rows are hashed under a key that is random for each run, and the hashes added up in
//! buckets by key. What is equal cancels out. A bucket that is not zero in the end holds a
//! difference; the few rows that belong there are then compared one by one.
//!
//! # Correctness
//! 128-bit sums of SipHash under a secret key: a difference is missed with a probability of
//! about 2^-100, also if somebody made the rows on purpose.

use rand::{Rng, rngs::OsRng};
use siphasher::sip128::SipHasher24;

use crate::store::Family;

/// Transactions of the chain for each bucket of a family, within bounds. On mainnet a bucket
/// holds less than 100,000 rows.
const TXS_PER_BUCKET: u32 = 1 << 10;
const MIN_BUCKETS: u32 = 1 << 8;
const MAX_BUCKETS: u32 = 1 << 16;

/// Families whose rows are compared so, because they do not come in the order of the chain.
pub(super) const FAMILIES: [Family; 5] = [
    Family::Tx,
    Family::TxPos,
    Family::Hist,
    Family::Spend,
    Family::Utxo,
];

/// Which side of the comparison a row stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// It is counted.
    Add,
    /// It is taken away.
    Take,
}

/// The sums of all families.
pub(super) struct Fingerprints {
    rows: SipHasher24,
    keys: SipHasher24,
    sums: Vec<[u128; FAMILIES.len()]>,
}

impl Fingerprints {
    /// For a chain with so many transactions.
    pub(super) fn new(txs: u32) -> Self {
        let buckets = (txs / TXS_PER_BUCKET).clamp(MIN_BUCKETS, MAX_BUCKETS);
        let hasher = || SipHasher24::new_with_keys(OsRng.r#gen(), OsRng.r#gen());
        Self {
            rows: hasher(),
            keys: hasher(),
            sums: vec![[0; FAMILIES.len()]; buckets as usize],
        }
    }

    /// Which bucket of its family a row with this key belongs to.
    pub(super) fn bucket(&self, key: &[u8]) -> usize {
        let hash = self.keys.hash(key).as_u128();
        usize::try_from(hash % self.sums.len() as u128).unwrap_or_default()
    }

    /// Counts a row in or out.
    pub(super) fn count(&mut self, family: Family, key: &[u8], value: &[u8], side: Side) {
        let Some(slot) = FAMILIES.iter().position(|known| *known == family) else {
            return;
        };
        let mut bytes = Vec::with_capacity(key.len() + value.len() + 1);
        // Keys are shorter than 256 bytes; the length keeps key and value apart.
        bytes.push(u8::try_from(key.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        let hash = self.rows.hash(&bytes).as_u128();
        let bucket = self.bucket(key);
        let sum = &mut self.sums[bucket][slot];
        *sum = match side {
            Side::Add => sum.wrapping_add(hash),
            Side::Take => sum.wrapping_sub(hash),
        };
    }

    /// Buckets in which something is left.
    pub(super) fn different(&self) -> Vec<(Family, usize)> {
        let mut different = Vec::new();
        for (bucket, sums) in self.sums.iter().enumerate() {
            for (family, sum) in FAMILIES.iter().zip(sums) {
                if *sum != 0 {
                    different.push((*family, bucket));
                }
            }
        }
        different
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rows_cancel_out_in_any_order_and_others_do_not() {
        let mut sums = Fingerprints::new(0);
        let rows: [(&[u8], &[u8]); 3] = [(b"a", b"1"), (b"a1", b""), (b"b", b"2")];
        for (key, value) in rows {
            sums.count(Family::Hist, key, value, Side::Add);
        }
        for (key, value) in rows.iter().rev() {
            sums.count(Family::Hist, key, value, Side::Take);
        }
        assert!(sums.different().is_empty());
        sums.count(Family::Hist, b"a", b"1", Side::Add);
        sums.count(Family::Hist, b"a", b"2", Side::Take);
        assert_eq!(sums.different(), [(Family::Hist, sums.bucket(b"a"))]);
        sums.count(Family::Spend, b"a", b"1", Side::Add);
        assert_eq!(sums.different().len(), 2);
    }
}
