//! The transactions in their places, found by id, by id with witnesses, and by what they
//! spend.
//!
//! The tables hold places only and compare with the transaction there: a few bytes an entry,
//! so that most of them stay in the processor's cache.
//!
//! # Security
//! Ids can be chosen: they are hashed with a secret of the process.

use std::hash::{BuildHasher, Hash, RandomState};

use bitcoin::{OutPoint, Txid, Wtxid};
use hashbrown::HashTable;
use pulse_primitives::bitcoin;

use super::Entry;
use crate::cluster::Slot;

/// An input of a transaction.
pub(super) type Spend = (Slot, u32);

/// The transactions and how they are found.
#[derive(Debug, Default)]
pub(super) struct Table {
    places: Places,
    free: Vec<Slot>,
    by_txid: HashTable<Slot>,
    by_wtxid: HashTable<Slot>,
    spenders: HashTable<Spend>,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct Places(Vec<Option<Entry>>);

impl Places {
    fn at(&self, slot: Slot) -> &Entry {
        self.0[slot.0 as usize]
            .as_ref()
            .expect("slots of entries that are gone are not kept")
    }

    fn spent(&self, (slot, input): Spend) -> OutPoint {
        self.at(slot).tx.input[input as usize].previous_output
    }
}

impl Table {
    pub fn len(&self) -> usize {
        self.by_txid.len()
    }

    pub fn at(&self, slot: Slot) -> &Entry {
        self.places.at(slot)
    }

    pub fn at_mut(&mut self, slot: Slot) -> &mut Entry {
        self.places.0[slot.0 as usize]
            .as_mut()
            .expect("slots of entries that are gone are not kept")
    }

    pub fn by_txid(&self, txid: &Txid) -> Option<Slot> {
        let hash = self.hasher.hash_one(txid);
        let is_it = |slot: &Slot| self.at(*slot).txid == *txid;
        self.by_txid.find(hash, is_it).copied()
    }

    pub fn by_wtxid(&self, wtxid: &Wtxid) -> Option<Slot> {
        let hash = self.hasher.hash_one(wtxid);
        let is_it = |slot: &Slot| self.at(*slot).wtxid == *wtxid;
        self.by_wtxid.find(hash, is_it).copied()
    }

    pub fn spender(&self, outpoint: &OutPoint) -> Option<Spend> {
        let hash = self.hasher.hash_one(outpoint);
        let is_it = |spend: &Spend| self.places.spent(*spend) == *outpoint;
        self.spenders.find(hash, is_it).copied()
    }

    pub fn insert(&mut self, entry: Entry) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.places.0.push(None);
            let last = u32::try_from(self.places.0.len() - 1);
            Slot(last.expect("fewer transactions than memory allows"))
        });
        self.places.0[slot.0 as usize] = Some(entry);
        let (places, hasher) = (&self.places, &self.hasher);
        let entry = places.at(slot);
        let txid = |slot: &Slot| hasher.hash_one(places.at(*slot).txid);
        let wtxid = |slot: &Slot| hasher.hash_one(places.at(*slot).wtxid);
        let spent = |spend: &Spend| hasher.hash_one(places.spent(*spend));
        self.by_txid.insert_unique(txid(&slot), slot, txid);
        self.by_wtxid.insert_unique(wtxid(&slot), slot, wtxid);
        for (_, index) in entry.tx.input.iter().zip(0..) {
            let spend = (slot, index);
            self.spenders.insert_unique(spent(&spend), spend, spent);
        }
        slot
    }

    pub fn remove(&mut self, slot: Slot) -> Option<Entry> {
        let entry = self.places.0.get_mut(slot.0 as usize)?.take()?;
        self.free.push(slot);
        forget(&mut self.by_txid, &self.hasher, &entry.txid, slot);
        forget(&mut self.by_wtxid, &self.hasher, &entry.wtxid, slot);
        for (input, index) in entry.tx.input.iter().zip(0..) {
            let spent = &input.previous_output;
            forget(&mut self.spenders, &self.hasher, spent, (slot, index));
        }
        Some(entry)
    }

    #[cfg(test)]
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.places.0.iter().flatten()
    }

    #[cfg(test)]
    pub fn spend_count(&self) -> usize {
        assert_eq!(self.by_wtxid.len(), self.by_txid.len());
        self.spenders.len()
    }
}

/// Removes `value`, which is in the table under `key`.
fn forget<T: PartialEq>(table: &mut HashTable<T>, hasher: &RandomState, key: &impl Hash, value: T) {
    if let Ok(found) = table.find_entry(hasher.hash_one(key), |other| *other == value) {
        found.remove();
    }
}
