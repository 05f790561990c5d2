//! Values of some MiB in sled: [`PeerStore`] for [`MetaStore`].
//!
//! ```text
//! tree "values"
//! <name>                 length: u64 LE | CRC-32: u32 LE
//! <name> 0 <index>       a piece of at most 4096 bytes; index is u32 BE
//! ```
//!
//! In pieces, because sled puts large rows into files of their own and is slow to let
//! go of them.
//!
//! # Correctness
//! All rows of a value change in one batch. Whatever of them is missing or changed is
//! found by the length and the checksum; then the value counts as never saved.

use pulse_primitives::ports::{PeerStore, StoreKey};
use sled::{Batch, Tree};

use crate::{MetaError, MetaStore};

pub(crate) const TREE: &[u8] = b"values";

/// Bytes of a piece. Sixteen of them share a node of sled.
const PIECE: usize = 4096;
const HEAD_LEN: usize = 12;

/// Bytes of a value at most.
pub const MAX_VALUE_LEN: usize = 32 * 1024 * 1024;

impl MetaStore {
    /// What was saved last under `key`; `None` if nothing was, or if it is damaged, which
    /// is logged and counted.
    ///
    /// # Errors
    /// [`MetaError::Damaged`], [`MetaError::Io`].
    pub fn load_value(&self, key: StoreKey) -> Result<Option<Vec<u8>>, MetaError> {
        let _guard = self.values_guard.lock();
        match self.guarded(|| load(&self.values, key))? {
            Loaded::Nothing => Ok(None),
            Loaded::Value(bytes) => Ok(Some(bytes)),
            Loaded::Damaged => {
                crate::metrics::count_lost_value();
                tracing::warn!(value = key.name(), "a saved value is damaged; forgot it");
                self.guarded(|| remove(&self.values, key))?;
                Ok(None)
            }
        }
    }

    /// Replaces what is under `key`, whole or not at all, and on the disk when this
    /// returns.
    ///
    /// # Errors
    /// [`MetaError::TooLong`] above [`MAX_VALUE_LEN`]; as [`MetaStore::load_value`].
    pub fn save_value(&self, key: StoreKey, bytes: &[u8]) -> Result<(), MetaError> {
        if bytes.len() > MAX_VALUE_LEN {
            return Err(MetaError::TooLong {
                name: key.name(),
                len: bytes.len(),
            });
        }
        let _guard = self.values_guard.lock();
        self.guarded(|| save(&self.values, key, bytes))
    }

    /// Forgets what is under `key`, on the disk too when this returns.
    ///
    /// # Errors
    /// As [`MetaStore::load_value`].
    pub fn remove_value(&self, key: StoreKey) -> Result<(), MetaError> {
        let _guard = self.values_guard.lock();
        self.guarded(|| remove(&self.values, key))
    }
}

impl PeerStore for MetaStore {
    fn load(&self, key: StoreKey) -> Option<Vec<u8>> {
        self.load_value(key).unwrap_or_else(|err| {
            log_failure(key, "load", &err);
            None
        })
    }

    fn save(&self, key: StoreKey, bytes: &[u8]) {
        if let Err(err) = self.save_value(key, bytes) {
            log_failure(key, "save", &err);
        }
    }

    fn remove(&self, key: StoreKey) {
        if let Err(err) = self.remove_value(key) {
            log_failure(key, "remove", &err);
        }
    }
}

fn log_failure(key: StoreKey, action: &'static str, err: &MetaError) {
    tracing::warn!(value = key.name(), action, %err, "metadata failed; going on without");
}

enum Loaded {
    Nothing,
    Value(Vec<u8>),
    Damaged,
}

fn load(tree: &Tree, key: StoreKey) -> Result<Loaded, sled::Error> {
    let Some(head) = tree.get(key.name())? else {
        return Ok(Loaded::Nothing);
    };
    let mut bytes = Vec::new();
    for (index, row) in (0..).zip(tree.scan_prefix(piece_prefix(key))) {
        let (name, piece) = row?;
        if *name != *piece_name(key, index) || bytes.len() + piece.len() > MAX_VALUE_LEN {
            return Ok(Loaded::Damaged);
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(if *head == head_of(&bytes) {
        Loaded::Value(bytes)
    } else {
        Loaded::Damaged
    })
}

fn save(tree: &Tree, key: StoreKey, bytes: &[u8]) -> Result<(), sled::Error> {
    let mut batch = Batch::default();
    batch.insert(key.name(), &head_of(bytes));
    let mut count = 0;
    for piece in bytes.chunks(PIECE) {
        batch.insert(piece_name(key, count), piece);
        count += 1;
    }
    // Pieces of a longer value that was there before.
    for row in tree.range(piece_name(key, count)..piece_end(key)) {
        batch.remove(row?.0);
    }
    tree.apply_batch(batch)?;
    tree.flush().map(drop)
}

fn remove(tree: &Tree, key: StoreKey) -> Result<(), sled::Error> {
    let mut batch = Batch::default();
    batch.remove(key.name());
    for row in tree.scan_prefix(piece_prefix(key)) {
        batch.remove(row?.0);
    }
    tree.apply_batch(batch)?;
    tree.flush().map(drop)
}

fn head_of(bytes: &[u8]) -> [u8; HEAD_LEN] {
    let len = u64::try_from(bytes.len()).expect("usize is at most 64 bits");
    let mut head = [0; HEAD_LEN];
    head[..8].copy_from_slice(&len.to_le_bytes());
    head[8..].copy_from_slice(&crc32fast::hash(bytes).to_le_bytes());
    head
}

fn piece_prefix(key: StoreKey) -> Vec<u8> {
    [key.name().as_bytes(), &[0]].concat()
}

/// First name behind the pieces of `key`.
fn piece_end(key: StoreKey) -> Vec<u8> {
    [key.name().as_bytes(), &[1]].concat()
}

fn piece_name(key: StoreKey, index: u32) -> Vec<u8> {
    [key.name().as_bytes(), &[0], &index.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn open(dir: &Path) -> MetaStore {
        MetaStore::open(dir).unwrap().0
    }

    fn bytes(len: usize, seed: u8) -> Vec<u8> {
        let step = |last: &mut u32| {
            *last = last.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            Some((*last >> 24).to_le_bytes()[0])
        };
        (0..len)
            .scan(u32::from(seed), |last, _| step(last))
            .collect()
    }

    #[test]
    fn values_survive_a_restart_each_under_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        for (seed, key) in (1..).zip(StoreKey::ALL) {
            assert_eq!(store.load(key), None);
            store.save(key, &bytes(10_000 * usize::from(seed), seed));
        }
        drop(store);
        let store = open(dir.path());
        for (seed, key) in (1..).zip(StoreKey::ALL) {
            let expected = bytes(10_000 * usize::from(seed), seed);
            assert_eq!(store.load(key), Some(expected));
        }
    }

    #[test]
    fn the_last_value_counts_be_it_longer_or_shorter() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let key = StoreKey::Addresses;
        for len in [
            0,
            1,
            PIECE,
            5 * PIECE,
            5 * PIECE + 1,
            PIECE - 1,
            0,
            300_000,
            7,
        ] {
            store.save_value(key, &bytes(len, 1)).unwrap();
            assert_eq!(store.load_value(key).unwrap(), Some(bytes(len, 1)));
        }
        store.remove_value(key).unwrap();
        assert_eq!(store.load_value(key).unwrap(), None);
        assert!(store.values.is_empty());
    }

    #[test]
    fn a_value_that_lost_a_piece_was_never_saved() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let (key, other) = (StoreKey::FeeHistory, StoreKey::Bans);
        for index in [0, 3, 9] {
            for is_lost in [true, false] {
                store.save(key, &bytes(10 * PIECE, 1));
                store.save(other, &bytes(10, 2));
                let name = piece_name(key, index);
                if is_lost {
                    store.values.remove(name).unwrap();
                } else {
                    store.values.insert(name, vec![0; PIECE]).unwrap();
                }
                assert_eq!(store.load(key), None);
                assert_eq!(store.load(other), Some(bytes(10, 2)));
                assert_eq!(store.values.len(), 2);
            }
        }
    }

    #[test]
    fn too_long_a_value_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let result = store.save_value(StoreKey::Bans, &vec![0; MAX_VALUE_LEN + 1]);
        assert!(matches!(result, Err(MetaError::TooLong { .. })));
        assert_eq!(store.load(StoreKey::Bans), None);
    }

    #[test]
    fn saving_again_and_again_does_not_fill_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let len = 2_000_000;
        for round in 0..30 {
            store
                .save_value(StoreKey::Addresses, &bytes(len, round))
                .unwrap();
        }
        let used = store.db.size_on_disk().unwrap();
        assert!(used < 20 * 2_000_000, "{used}");
    }
}
