//! What was seen lately, so that it is not asked for or sent again.
//!
//! # Security
//! Sets remember keyed 64-bit digests: peers cannot make two transactions collide, and
//! by chance one in about 10^14 lookups errs.
//!
//! # Limits
//! A set of capacity `n` remembers the last `n` to `2n` entries, 9 to 18 bytes each.

use pulse_primitives::bitcoin::{
    Block, Txid, Wtxid,
    hashes::{Hash, HashEngine, sha256, siphash24},
};
use rand::Rng;
use std::collections::HashSet;

use super::ids::{GenTxid, TxHash, has_witness};

/// Rejected transactions remembered: two minutes of the smallest ones at 1000 a second.
const REJECTED: usize = 120_000;
/// Ids of confirmed transactions remembered: about six blocks, two ids each.
const CONFIRMED: usize = 48_000;

/// Remembers hashes added lately: at least the last `capacity`, at most twice as many.
#[derive(Debug)]
pub struct RecentSet {
    capacity: usize,
    keys: (u64, u64),
    newer: HashSet<u64>,
    older: HashSet<u64>,
}

impl RecentSet {
    /// An empty set. Memory is taken as it fills.
    pub fn new(capacity: usize, rng: &mut impl Rng) -> Self {
        Self {
            capacity: capacity.max(1),
            keys: (rng.r#gen(), rng.r#gen()),
            newer: HashSet::new(),
            older: HashSet::new(),
        }
    }

    /// Adds a hash.
    pub fn insert(&mut self, hash: &TxHash) {
        if self.newer.len() >= self.capacity {
            std::mem::swap(&mut self.newer, &mut self.older);
            self.newer.clear();
        }
        self.newer.insert(self.digest(hash));
    }

    /// Whether the hash was added lately.
    #[must_use]
    pub fn contains(&self, hash: &TxHash) -> bool {
        let digest = self.digest(hash);
        self.newer.contains(&digest) || self.older.contains(&digest)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.newer.clear();
        self.older.clear();
    }

    fn digest(&self, hash: &TxHash) -> u64 {
        siphash24::Hash::hash_to_u64_with_keys(self.keys.0, self.keys.1, hash)
    }
}

/// Transactions that need not be asked for.
///
/// # Correctness
/// Mostly wtxids are remembered: a txid only where no other witness could make a
/// difference, because whoever relays a transaction can spoil its witness.
#[derive(Debug)]
pub struct Recent {
    /// Rejected for what they are.
    rejected: RecentSet,
    /// Rejected alone, but possible with a child; and packages that were tried.
    reconsiderable: RecentSet,
    /// In one of the last blocks.
    confirmed: RecentSet,
}

impl Recent {
    /// Nothing remembered.
    pub fn new(rng: &mut impl Rng) -> Self {
        Self {
            rejected: RecentSet::new(REJECTED, rng),
            reconsiderable: RecentSet::new(REJECTED, rng),
            confirmed: RecentSet::new(CONFIRMED, rng),
        }
    }

    /// The chain has a new tip: what was refused may be fine now.
    pub fn tip_changed(&mut self) {
        self.rejected.clear();
        self.reconsiderable.clear();
    }

    /// Remembers what a block confirmed.
    pub fn block_connected(&mut self, block: &Block, txids: &[Txid]) {
        for (tx, txid) in block.txdata.iter().zip(txids) {
            self.confirmed.insert(txid.as_byte_array());
            if has_witness(tx) {
                self.confirmed.insert(tx.compute_wtxid().as_byte_array());
            }
        }
    }

    /// A block is gone; its transactions may be relayed again.
    pub fn block_disconnected(&mut self) {
        self.confirmed.clear();
    }

    /// Remembers a rejected id.
    pub fn reject(&mut self, hash: &TxHash) {
        self.rejected.insert(hash);
    }

    /// Remembers a transaction that may pass with a child.
    pub fn reject_alone(&mut self, wtxid: &Wtxid) {
        self.reconsiderable.insert(wtxid.as_byte_array());
    }

    /// Remembers a package that was tried.
    pub fn reject_package(&mut self, wtxids: &[Wtxid]) {
        self.reconsiderable.insert(&package_hash(wtxids));
    }

    /// Whether the id was rejected for what it is.
    #[must_use]
    pub fn is_rejected(&self, hash: &TxHash) -> bool {
        self.rejected.contains(hash)
    }

    /// Whether the id was rejected, but may pass with a child.
    #[must_use]
    pub fn is_rejected_alone(&self, hash: &TxHash) -> bool {
        self.reconsiderable.contains(hash)
    }

    /// Whether this package was tried.
    #[must_use]
    pub fn is_package_rejected(&self, wtxids: &[Wtxid]) -> bool {
        self.reconsiderable.contains(&package_hash(wtxids))
    }

    /// Whether a transaction of that id was rejected for good, or confirmed.
    #[must_use]
    pub fn contains(&self, id: &GenTxid) -> bool {
        let hash = id.hash();
        self.confirmed.contains(&hash) || self.rejected.contains(&hash)
    }
}

/// Names a package whatever the order of its transactions.
fn package_hash(wtxids: &[Wtxid]) -> TxHash {
    let mut sorted = wtxids.to_vec();
    sorted.sort_unstable();
    let mut engine = sha256::Hash::engine();
    for wtxid in sorted {
        engine.input(wtxid.as_byte_array());
    }
    sha256::Hash::from_engine(engine).to_byte_array()
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    fn hash(n: u32) -> TxHash {
        sha256::Hash::hash(&n.to_le_bytes()).to_byte_array()
    }

    #[test]
    fn the_last_entries_are_remembered_and_old_ones_go() {
        let mut set = RecentSet::new(100, &mut StdRng::seed_from_u64(1));
        for n in 0..1000 {
            set.insert(&hash(n));
        }
        assert!((900..1000).all(|n| set.contains(&hash(n))));
        assert!((0..800).all(|n| !set.contains(&hash(n))));
    }

    #[test]
    fn a_new_tip_forgives_the_rejected_but_not_the_confirmed() {
        let mut recent = Recent::new(&mut StdRng::seed_from_u64(1));
        let wtxid = Wtxid::from_byte_array(hash(2));
        recent.reject(&hash(1));
        recent.reject_alone(&wtxid);
        recent.reject_package(&[wtxid, Wtxid::from_byte_array(hash(3))]);
        recent.confirmed.insert(&hash(4));
        assert!(recent.is_rejected(&hash(1)) && recent.is_rejected_alone(&hash(2)));
        recent.tip_changed();
        assert!(!recent.is_rejected(&hash(1)) && !recent.is_rejected_alone(&hash(2)));
        assert!(!recent.is_package_rejected(&[wtxid, Wtxid::from_byte_array(hash(3))]));
        assert!(recent.contains(&GenTxid::Wtxid(Wtxid::from_byte_array(hash(4)))));
    }

    #[test]
    fn a_package_is_known_in_any_order() {
        let mut recent = Recent::new(&mut StdRng::seed_from_u64(1));
        let (a, b) = (
            Wtxid::from_byte_array(hash(1)),
            Wtxid::from_byte_array(hash(2)),
        );
        recent.reject_package(&[a, b]);
        assert!(recent.is_package_rejected(&[b, a]));
        assert!(!recent.is_package_rejected(&[a]));
    }

    #[test]
    fn a_transaction_that_may_pass_with_a_child_is_not_rejected_for_good() {
        let mut recent = Recent::new(&mut StdRng::seed_from_u64(1));
        let wtxid = Wtxid::from_byte_array(hash(1));
        recent.reject_alone(&wtxid);
        assert!(!recent.contains(&GenTxid::Wtxid(wtxid)));
    }
}
