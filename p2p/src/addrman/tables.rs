//! The entries and the places that they have. Says what may be done, not when.

use std::collections::HashMap;

use super::{
    BUCKET_SIZE, NEW_BUCKETS, TRIED_BUCKETS,
    entry::Entry,
    key::{BucketKey, Place, Table},
    source::AddrSource,
};
use crate::netaddr::{NetAddress, NetKind};

/// Number of an entry, until it is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct EntryId(u32);

impl EntryId {
    fn index(self) -> usize {
        usize::try_from(self.0).expect("usize has at least 32 bits")
    }
}

type Bucket = [Option<EntryId>; BUCKET_SIZE];

#[derive(Debug)]
pub(super) struct Tables {
    pub(super) key: BucketKey,
    entries: Vec<Option<Entry>>,
    /// Gaps in `entries`.
    free: Vec<EntryId>,
    by_address: HashMap<NetAddress, EntryId>,
    new: Vec<Bucket>,
    tried: Vec<Bucket>,
    counts: HashMap<(Table, NetKind), usize>,
}

impl Tables {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self {
            key: BucketKey(key),
            entries: Vec::new(),
            free: Vec::new(),
            by_address: HashMap::new(),
            new: vec![[None; BUCKET_SIZE]; NEW_BUCKETS],
            tried: vec![[None; BUCKET_SIZE]; TRIED_BUCKETS],
            counts: HashMap::new(),
        }
    }

    pub(super) fn find(&self, address: &NetAddress) -> Option<EntryId> {
        self.by_address.get(address).copied()
    }

    pub(super) fn entry(&self, id: EntryId) -> &Entry {
        let entry = self.entries[id.index()].as_ref();
        entry.expect("ids go out of use with their entry")
    }

    pub(super) fn entry_mut(&mut self, id: EntryId) -> &mut Entry {
        let entry = self.entries[id.index()].as_mut();
        entry.expect("ids go out of use with their entry")
    }

    /// All entries, in no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = (EntryId, &Entry)> {
        self.entries.iter().enumerate().filter_map(|(at, entry)| {
            let id = EntryId(u32::try_from(at).expect("there are at most 2^17 entries"));
            Some((id, entry.as_ref()?))
        })
    }

    /// Number of addresses.
    pub(super) fn len(&self) -> usize {
        self.by_address.len()
    }

    pub(super) fn count(&self, table: Table, network: NetKind) -> usize {
        self.counts.get(&(table, network)).copied().unwrap_or(0)
    }

    pub(super) fn buckets(&self, table: Table) -> &[Bucket] {
        match table {
            Table::New => &self.new,
            Table::Tried => &self.tried,
        }
    }

    pub(super) fn at(&self, place: Place) -> Option<EntryId> {
        self.buckets(place.table)[place.bucket][place.slot]
    }

    pub(super) fn new_place(&self, entry: &Entry, source: &AddrSource) -> Place {
        self.key.new_place(&entry.record.address, source)
    }

    pub(super) fn tried_place(&self, address: &NetAddress) -> Place {
        self.key.tried_place(address)
    }

    /// Adds an entry, which the caller gives a place or deletes. Its address must not
    /// be known.
    pub(super) fn create(&mut self, entry: Entry) -> EntryId {
        let address = entry.record.address;
        let id = match self.free.pop() {
            Some(id) => {
                self.entries[id.index()] = Some(entry);
                id
            }
            None => {
                let at = u32::try_from(self.entries.len()).expect("there are at most 2^17 entries");
                self.entries.push(Some(entry));
                EntryId(at)
            }
        };
        let previous = self.by_address.insert(address, id);
        debug_assert_eq!(previous, None);
        self.add_count(Table::New, address.addr.kind());
        id
    }

    /// Deletes an entry without a place.
    pub(super) fn delete(&mut self, id: EntryId) {
        let entry = self.entries[id.index()].take();
        let entry = entry.expect("ids go out of use with their entry");
        debug_assert!(entry.places == 0 && !entry.in_tried);
        self.by_address.remove(&entry.record.address);
        self.free.push(id);
        self.sub_count(Table::New, entry.record.address.addr.kind());
    }

    /// Frees a place in new; an entry that had no other is deleted.
    pub(super) fn clear_new(&mut self, place: Place) {
        let Some(id) = self.new[place.bucket][place.slot].take() else {
            return;
        };
        let entry = self.entry_mut(id);
        entry.places -= 1;
        if entry.places == 0 {
            self.delete(id);
        }
    }

    /// Gives a free place in new to an entry that is not in tried.
    pub(super) fn set_new(&mut self, place: Place, id: EntryId) {
        let slot = &mut self.new[place.bucket][place.slot];
        debug_assert_eq!(*slot, None);
        *slot = Some(id);
        self.entry_mut(id).places += 1;
    }

    /// Gives a free place in tried to an entry that has no place.
    pub(super) fn set_tried(&mut self, place: Place, id: EntryId) {
        let slot = &mut self.tried[place.bucket][place.slot];
        debug_assert_eq!(*slot, None);
        *slot = Some(id);
        let entry = self.entry_mut(id);
        entry.in_tried = true;
        let network = entry.record.address.addr.kind();
        self.sub_count(Table::New, network);
        self.add_count(Table::Tried, network);
    }

    /// Moves an entry from new to tried. Which held its place there goes back to new,
    /// where it may displace another.
    pub(super) fn make_tried(&mut self, id: EntryId) {
        for bucket in &mut self.new {
            for slot in bucket.iter_mut().filter(|slot| **slot == Some(id)) {
                *slot = None;
            }
        }
        let entry = self.entry_mut(id);
        entry.places = 0;
        let address = entry.record.address;
        let place = self.tried_place(&address);
        if let Some(previous) = self.tried[place.bucket][place.slot].take() {
            let entry = self.entry_mut(previous);
            entry.in_tried = false;
            let network = entry.record.address.addr.kind();
            self.sub_count(Table::Tried, network);
            self.add_count(Table::New, network);
            let entry = self.entry(previous);
            let back = self.new_place(entry, &entry.source);
            self.clear_new(back);
            self.set_new(back, previous);
        }
        self.set_tried(place, id);
    }

    fn add_count(&mut self, table: Table, network: NetKind) {
        *self.counts.entry((table, network)).or_default() += 1;
    }

    fn sub_count(&mut self, table: Table, network: NetKind) {
        *self.counts.entry((table, network)).or_default() -= 1;
    }
}
