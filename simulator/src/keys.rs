//! Millions of distinct keys at the price of an addition each.

use bitcoin::{
    hashes::{Hash, sha256},
    secp256k1::{All, PublicKey, Scalar, Secp256k1, SecretKey},
};

/// Keys of a row of the grid.
const ROW: u64 = 1024;

/// Key `i` is the sum of a column key and a row key (`i % 1024`, `i / 1024`), on the
/// secret side as on the public side, so only every 1,024th key costs a multiplication
/// on the curve.
///
/// # Security
/// The keys are worthless by design: anyone with the seed has them all.
#[derive(Debug, Clone)]
pub(crate) struct KeyGrid {
    secp: Secp256k1<All>,
    seed: u64,
    columns: Vec<(SecretKey, PublicKey)>,
    rows: Vec<(SecretKey, PublicKey)>,
}

impl KeyGrid {
    pub(crate) fn new(seed: u64) -> Self {
        let secp = Secp256k1::new();
        let columns = (0..ROW).map(|i| base_key(&secp, seed, b'c', i)).collect();
        Self {
            secp,
            seed,
            columns,
            rows: Vec::new(),
        }
    }

    pub(crate) fn secp(&self) -> &Secp256k1<All> {
        &self.secp
    }

    /// Makes keys up to and including `id` available.
    pub(crate) fn extend_to(&mut self, id: u64) {
        while self.rows.len() as u64 <= id / ROW {
            let row = self.rows.len() as u64;
            self.rows.push(base_key(&self.secp, self.seed, b'r', row));
        }
    }

    /// # Panics
    /// If `id` lies beyond [`KeyGrid::extend_to`].
    pub(crate) fn secret(&self, id: u64) -> SecretKey {
        let (column, row) = self.parts(id);
        column
            .0
            .add_tweak(&Scalar::from(row.0))
            .expect("two hashes do not add up to zero")
    }

    /// # Panics
    /// If `id` lies beyond [`KeyGrid::extend_to`].
    pub(crate) fn public(&self, id: u64) -> PublicKey {
        let (column, row) = self.parts(id);
        column
            .1
            .combine(&row.1)
            .expect("two hashes do not add up to zero")
    }

    fn parts(&self, id: u64) -> (&(SecretKey, PublicKey), &(SecretKey, PublicKey)) {
        let column = usize::try_from(id % ROW).expect("below 1024");
        let row = usize::try_from(id / ROW).expect("rows are in memory");
        (&self.columns[column], &self.rows[row])
    }
}

fn base_key(secp: &Secp256k1<All>, seed: u64, tag: u8, index: u64) -> (SecretKey, PublicKey) {
    let mut bytes = b"pulse simulator key".to_vec();
    bytes.extend_from_slice(&seed.to_le_bytes());
    bytes.push(tag);
    bytes.extend_from_slice(&index.to_le_bytes());
    let secret = SecretKey::from_slice(sha256::Hash::hash(&bytes).as_byte_array())
        .expect("a hash is a valid key but for one in 2^127");
    (secret, secret.public_key(secp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_keys_belong_to_secret_keys() {
        let mut grid = KeyGrid::new(7);
        grid.extend_to(5_000);
        for id in [0, 1, 1_023, 1_024, 4_999] {
            assert_eq!(grid.secret(id).public_key(grid.secp()), grid.public(id));
        }
        assert_ne!(grid.public(1), grid.public(1_025));
    }
}
