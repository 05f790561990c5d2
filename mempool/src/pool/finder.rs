//! A hash table of values whose keys are elsewhere.

use std::hash::{BuildHasher, Hash, RandomState};

use hashbrown::HashTable;

/// Finds small values, such as places, by keys that are kept where these lead to: a few bytes
/// an entry, so that most of the table stays in the processor's cache.
///
/// The hash of each key is kept, so that the table grows, and a value leaves, without a look
/// at what it leads to.
///
/// # Security
/// Keys may be chosen by others: they are hashed with a secret of the process.
#[derive(Debug)]
pub(super) struct Finder<T> {
    table: HashTable<(u32, T)>,
    hasher: RandomState,
}

impl<T> Default for Finder<T> {
    fn default() -> Self {
        Self {
            table: HashTable::new(),
            hasher: RandomState::new(),
        }
    }
}

/// The table takes its places from the low bits and tells neighbours apart by the high ones.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

impl<T: Copy + PartialEq> Finder<T> {
    /// The value under `key`: the one that `is_it` says yes to.
    pub fn find(&self, key: &impl Hash, is_it: impl Fn(T) -> bool) -> Option<T> {
        let hash = self.hash(key);
        let same = |&(other, value): &(u32, T)| other == hash && is_it(value);
        let found = self.table.find(spread(hash), same);
        found.map(|&(_, value)| value)
    }

    /// Adds a value under `key`, which must not have one.
    pub fn insert(&mut self, key: &impl Hash, value: T) {
        let hash = self.hash(key);
        let of = |&(hash, _): &(u32, T)| spread(hash);
        self.table.insert_unique(spread(hash), (hash, value), of);
    }

    /// Removes `value`, which is under `key`.
    pub fn remove(&mut self, key: &impl Hash, value: T) {
        let hash = self.hash(key);
        if let Ok(found) = (self.table).find_entry(spread(hash), |other| *other == (hash, value)) {
            found.remove();
        }
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    #[allow(clippy::cast_possible_truncation, reason = "half of a hash is one")]
    fn hash(&self, key: &impl Hash) -> u32 {
        self.hasher.hash_one(key) as u32
    }
}
