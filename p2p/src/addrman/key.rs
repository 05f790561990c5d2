//! Where an address goes, under the secret key.

use std::fmt;

use pulse_primitives::bitcoin::hashes::{Hash, HashEngine, sha256d};

use super::{
    BUCKET_SIZE, NEW_BUCKETS, NEW_BUCKETS_PER_SOURCE_GROUP, TRIED_BUCKETS, TRIED_BUCKETS_PER_GROUP,
    source::AddrSource,
};
use crate::{netaddr::NetAddress, netgroup::NetGroup};

/// One of the two tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// Addresses that were only heard of.
    New,
    /// Addresses that were reached.
    Tried,
}

/// A place in a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) table: Table,
    pub(super) bucket: usize,
    pub(super) slot: usize,
}

/// Secret key of the buckets.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct BucketKey(pub(super) [u8; 32]);

impl BucketKey {
    /// Place in new of an address that `source` tells.
    pub(super) fn new_place(&self, address: &NetAddress, source: &AddrSource) -> Place {
        let source = source.group();
        let group = NetGroup::of(&address.addr);
        let choice = self.hash(b'a', &[group.as_bytes(), &source]) % NEW_BUCKETS_PER_SOURCE_GROUP;
        let hash = self.hash(b'b', &[&source, &choice.to_le_bytes()]);
        self.place(Table::New, reduce(hash, NEW_BUCKETS), address)
    }

    /// Place in tried.
    pub(super) fn tried_place(&self, address: &NetAddress) -> Place {
        let group = NetGroup::of(&address.addr);
        let choice = self.hash(b'c', &[&address.key_bytes()]) % TRIED_BUCKETS_PER_GROUP;
        let hash = self.hash(b'd', &[group.as_bytes(), &choice.to_le_bytes()]);
        self.place(Table::Tried, reduce(hash, TRIED_BUCKETS), address)
    }

    /// Place within a bucket.
    pub(super) fn place(&self, table: Table, bucket: usize, address: &NetAddress) -> Place {
        let name = match table {
            Table::New => b'N',
            Table::Tried => b'K',
        };
        let number = u32::try_from(bucket).expect("there are few buckets");
        let hash = self.hash(name, &[&number.to_le_bytes(), &address.key_bytes()]);
        let slot = reduce(hash, BUCKET_SIZE);
        Place {
            table,
            bucket,
            slot,
        }
    }

    /// First eight bytes of the double SHA-256 of the key, the purpose, and each part
    /// behind its length.
    fn hash(&self, purpose: u8, parts: &[&[u8]]) -> u64 {
        let mut engine = sha256d::Hash::engine();
        engine.input(&self.0);
        engine.input(&[purpose]);
        for part in parts {
            engine.input(&[u8::try_from(part.len()).expect("parts are short")]);
            engine.input(part);
        }
        let [a, b, c, d, e, f, g, h, ..] = sha256d::Hash::from_engine(engine).to_byte_array();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }
}

impl fmt::Debug for BucketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BucketKey(secret)")
    }
}

fn reduce(hash: u64, count: usize) -> usize {
    let count = u64::try_from(count).expect("usize is at most 64 bits");
    usize::try_from(hash % count).expect("less than a usize")
}
