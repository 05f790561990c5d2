//! Digest, counts and sizes of all rows.

use std::collections::BTreeMap;

use pulse_primitives::bitcoin::hashes::{Hash, HashEngine, sha256};
use rocksdb::properties;

use super::{Family, Store, StoreError, reader::for_each_row};
use crate::rows::{meta, script::Change};

/// Size of one column family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FamilyStats {
    /// Estimated number of rows.
    pub rows: u64,
    /// Bytes in table files.
    pub file_bytes: u64,
    /// Bytes in memory that are not yet in table files.
    pub memory_bytes: u64,
}

impl Store {
    /// SHA-256 over every row that an answer depends on, in a fixed order, and the
    /// salt. Two indexes with the same salt that stand at the same block have the
    /// same digest, however they got there. Block positions (they differ from run to
    /// run), the ring of deltas (it depends on when the tip was reached), checkpoints and
    /// the value of spent outputs in `hist` rows (likewise; they follow from the other rows)
    /// and block filters (they need not be kept) are left out. Reads the whole index.
    pub(crate) fn digest(&self) -> Result<[u8; 32], StoreError> {
        let mut engine = sha256::HashEngine::default();
        for family in Family::ALL {
            if matches!(
                family,
                Family::Agg | Family::Pos | Family::Undo | Family::Filter | Family::FilterHdr
            ) {
                continue;
            }
            engine.input(family.name().as_bytes());
            let mut damaged = None;
            for_each_row(&self.db, self.cf(family), |key, value| {
                let counted = family != Family::Meta
                    || [meta::CURSOR, meta::UTXO_COMMITMENT, meta::SALT].contains(&key);
                let mut input = |value: &[u8]| {
                    for part in [key, value] {
                        engine.input(&(part.len() as u64).to_be_bytes());
                        engine.input(part);
                    }
                };
                if family == Family::Hist {
                    match Change::decode(value) {
                        Ok(change) => input(&change.without_spent_sum()),
                        Err(row) => damaged = Some(row),
                    }
                } else if counted {
                    input(value);
                }
            })?;
            if let Some(row) = damaged {
                return Err(family.damaged(row));
            }
        }
        Ok(sha256::Hash::from_engine(engine).to_byte_array())
    }

    /// Exact number of rows by column family. Reads the whole index.
    pub(crate) fn row_counts(&self) -> Result<BTreeMap<&'static str, u64>, StoreError> {
        let mut counts = BTreeMap::new();
        for family in Family::ALL {
            let mut count = 0;
            for_each_row(&self.db, self.cf(family), |_, _| count += 1)?;
            counts.insert(family.name(), count);
        }
        Ok(counts)
    }

    /// Sizes by column family, as RocksDB keeps them. Cheap.
    pub(crate) fn stats(&self) -> Result<BTreeMap<&'static str, FamilyStats>, StoreError> {
        let mut stats = BTreeMap::new();
        for family in Family::ALL {
            let property = |name| -> Result<u64, StoreError> {
                let value = self.db.property_int_value_cf(self.cf(family), name)?;
                Ok(value.unwrap_or_default())
            };
            let sizes = FamilyStats {
                rows: property(properties::ESTIMATE_NUM_KEYS)?,
                file_bytes: property(properties::LIVE_SST_FILES_SIZE)?,
                memory_bytes: property(properties::SIZE_ALL_MEM_TABLES)?,
            };
            stats.insert(family.name(), sizes);
        }
        Ok(stats)
    }

    /// Bytes of the block cache in use.
    pub(crate) fn cache_bytes(&self) -> Result<u64, StoreError> {
        let value = self
            .db
            .property_int_value_cf(self.cf(Family::Tx), properties::BLOCK_CACHE_USAGE)?;
        Ok(value.unwrap_or_default())
    }
}
