//! The address manager as bytes.
//!
//! ```text
//! key: 32 bytes
//! new entries: u32   | tried entries: u32
//! each new entry, each tried entry:
//!     entry of addrv2 (BIP 155) | source: its network, length and address as there, or
//!     255, 10 and the hash of a name
//!     last success: u64 | failures since: u32
//! each of the 1024 new buckets: count: u8 | index of a new entry: u32, count times
//! ```
//!
//! Numbers are little endian. Places within buckets, and in tried, follow from the
//! key. See [`crate::saved`] for what is around it.

use pulse_primitives::bitcoin::p2p::address::{AddrV2, AddrV2Message};

use super::{
    AddrMan, BUCKET_SIZE, NEW_BUCKETS, NEW_PLACES_PER_ADDRESS, TRIED_BUCKETS,
    entry::{AddrRecord, Entry},
    key::Table,
    source::AddrSource,
    tables::{EntryId, Tables},
};
use crate::{
    netaddr::{NetAddr, NetAddress},
    saved::{self, Kind, SavedError},
};

/// An entry has at most 4 + 9 + 2 + 33 + 2 + 34 + 12 bytes; there are 81,920 and each
/// place in new has 4 more: under 9 MiB.
pub(super) const KIND: Kind = Kind {
    name: *b"padr",
    version: 1,
    max_len: 9 * 1024 * 1024,
};

const NEW: &str = "a new address";
const TRIED: &str = "a tried address";
const BUCKET: &str = "a bucket";

impl AddrMan {
    /// As bytes, to be saved.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let tables = &self.tables;
        let (tried, new): (Vec<_>, Vec<_>) = tables.iter().partition(|(_, entry)| entry.in_tried);
        let mut bytes = Vec::with_capacity(80 * tables.len() + 8 * 1024);
        saved::put(&mut bytes, &tables.key.0);
        saved::put(&mut bytes, &to_u32(new.len()));
        saved::put(&mut bytes, &to_u32(tried.len()));
        for (_, entry) in new.iter().chain(&tried) {
            put_entry(&mut bytes, entry);
        }
        let indexes = new.iter().enumerate();
        let index: std::collections::HashMap<EntryId, u32> =
            indexes.map(|(at, (id, _))| (*id, to_u32(at))).collect();
        for bucket in tables.buckets(Table::New) {
            let ids: Vec<_> = bucket.iter().flatten().collect();
            let count = u8::try_from(ids.len()).expect("a bucket has 64 places");
            saved::put(&mut bytes, &count);
            for id in ids {
                saved::put(&mut bytes, &index[id]);
            }
        }
        KIND.seal(&bytes)
    }

    /// From the bytes of [`AddrMan::encode`]. Addresses whose network or place is not
    /// what it was are left out.
    ///
    /// # Errors
    /// [`SavedError`] if anything is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, SavedError> {
        let mut bytes = KIND.open(bytes)?;
        let bytes = &mut bytes;
        let mut tables = Tables::new(saved::take(bytes, "the key")?);
        let new_count = take_count(bytes, NEW_BUCKETS * BUCKET_SIZE, NEW)?;
        let tried_count = take_count(bytes, TRIED_BUCKETS * BUCKET_SIZE, TRIED)?;
        let mut new = Vec::new();
        for _ in 0..new_count {
            let entry = take_entry(bytes, &tables, NEW)?;
            new.push(entry.map(|entry| tables.create(entry)));
        }
        for _ in 0..tried_count {
            let Some(entry) = take_entry(bytes, &tables, TRIED)? else {
                continue;
            };
            let place = tables.tried_place(&entry.record.address);
            if tables.at(place).is_none() {
                let id = tables.create(entry);
                tables.set_tried(place, id);
            }
        }
        for bucket in 0..NEW_BUCKETS {
            let count: u8 = saved::take(bytes, BUCKET)?;
            for _ in 0..count {
                let index: u32 = saved::take(bytes, BUCKET)?;
                let index = usize::try_from(index).ok();
                let entry = index.and_then(|index| new.get(index));
                let entry = entry.ok_or(SavedError::Malformed { what: BUCKET })?;
                if let Some(id) = entry {
                    restore_place(&mut tables, bucket, *id);
                }
            }
        }
        saved::finish(bytes, "the end")?;
        for id in new.into_iter().flatten() {
            if tables.entry(id).places == 0 {
                tables.delete(id);
            }
        }
        let manager = Self::with_tables(tables);
        match manager.check() {
            Ok(()) => Ok(manager),
            Err(what) => Err(SavedError::Malformed { what }),
        }
    }
}

fn restore_place(tables: &mut Tables, bucket: usize, id: EntryId) {
    let entry = tables.entry(id);
    let place = tables.key.place(Table::New, bucket, &entry.record.address);
    if entry.places < NEW_PLACES_PER_ADDRESS && tables.at(place).is_none() {
        tables.set_new(place, id);
    }
}

fn put_entry(bytes: &mut Vec<u8>, entry: &Entry) {
    let record = &entry.record;
    let message = AddrV2Message {
        time: u32::try_from(record.time).unwrap_or(u32::MAX),
        services: record.services,
        addr: record.address.addr.to_addr_v2(),
        port: record.address.port,
    };
    saved::put(bytes, &message);
    saved::put(bytes, &entry.source.to_saved());
    saved::put(bytes, &entry.last_success);
    saved::put(bytes, &entry.attempts);
}

/// `None` for an address that is not kept any more.
fn take_entry(
    bytes: &mut &[u8],
    tables: &Tables,
    what: &'static str,
) -> Result<Option<Entry>, SavedError> {
    let message: AddrV2Message = saved::take(bytes, what)?;
    let source: AddrV2 = saved::take(bytes, what)?;
    let last_success = saved::take(bytes, what)?;
    let attempts = saved::take(bytes, what)?;
    let (Some(addr), Some(source)) = (
        NetAddr::from_addr_v2(&message.addr),
        AddrSource::from_saved(&source),
    ) else {
        return Ok(None);
    };
    let port = message.port;
    let record = AddrRecord {
        address: NetAddress { addr, port },
        services: message.services,
        time: u64::from(message.time),
    };
    if !addr.is_routable() {
        return Ok(None);
    }
    if tables.find(&record.address).is_some() {
        return Err(SavedError::Malformed { what });
    }
    let mut entry = Entry::new(record, source);
    entry.last_success = last_success;
    entry.attempts = attempts;
    Ok(Some(entry))
}

fn take_count(bytes: &mut &[u8], max: usize, what: &'static str) -> Result<u32, SavedError> {
    let count: u32 = saved::take(bytes, what)?;
    let fits = usize::try_from(count).is_ok_and(|count| count <= max);
    fits.then_some(count).ok_or(SavedError::Malformed { what })
}

fn to_u32(count: usize) -> u32 {
    u32::try_from(count).expect("there are at most 2^17 entries")
}
