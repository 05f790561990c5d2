//! The transactions in their places, found by id, by id with witnesses, and by what they
//! spend.

use bitcoin::{OutPoint, Txid, Wtxid};
use pulse_primitives::bitcoin;

use super::{Entry, finder::Finder};
use crate::cluster::Slot;

/// An input of a transaction.
pub(super) type Spend = (Slot, u32);

/// The transactions and how they are found.
#[derive(Debug, Default)]
pub(super) struct Table {
    places: Vec<Option<Entry>>,
    free: Vec<Slot>,
    by_txid: Finder<Slot>,
    by_wtxid: Finder<Slot>,
    spenders: Finder<Spend>,
}

impl Table {
    pub fn len(&self) -> usize {
        self.by_txid.len()
    }

    pub fn at(&self, slot: Slot) -> &Entry {
        self.places[slot.0 as usize]
            .as_ref()
            .expect("slots of entries that are gone are not kept")
    }

    pub fn at_mut(&mut self, slot: Slot) -> &mut Entry {
        self.places[slot.0 as usize]
            .as_mut()
            .expect("slots of entries that are gone are not kept")
    }

    pub fn by_txid(&self, txid: &Txid) -> Option<Slot> {
        self.by_txid.find(txid, |slot| self.at(slot).txid == *txid)
    }

    pub fn by_wtxid(&self, wtxid: &Wtxid) -> Option<Slot> {
        self.by_wtxid
            .find(wtxid, |slot| self.at(slot).wtxid == *wtxid)
    }

    pub fn spender(&self, outpoint: &OutPoint) -> Option<Spend> {
        self.spenders.find(outpoint, |(slot, input)| {
            self.at(slot).tx.input[input as usize].previous_output == *outpoint
        })
    }

    pub fn insert(&mut self, entry: Entry) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            let last = u32::try_from(self.places.len() - 1);
            Slot(last.expect("fewer transactions than memory allows"))
        });
        self.by_txid.insert(&entry.txid, slot);
        self.by_wtxid.insert(&entry.wtxid, slot);
        for (input, index) in entry.tx.input.iter().zip(0..) {
            self.spenders.insert(&input.previous_output, (slot, index));
        }
        self.places[slot.0 as usize] = Some(entry);
        slot
    }

    pub fn remove(&mut self, slot: Slot) -> Option<Entry> {
        let entry = self.places.get_mut(slot.0 as usize)?.take()?;
        self.free.push(slot);
        self.by_txid.remove(&entry.txid, slot);
        self.by_wtxid.remove(&entry.wtxid, slot);
        for (input, index) in entry.tx.input.iter().zip(0..) {
            self.spenders.remove(&input.previous_output, (slot, index));
        }
        Some(entry)
    }

    #[cfg(test)]
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.places.iter().flatten()
    }

    #[cfg(test)]
    pub fn spend_count(&self) -> usize {
        assert_eq!(self.by_wtxid.len(), self.by_txid.len());
        self.spenders.len()
    }
}
