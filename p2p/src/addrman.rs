//! The addresses of peers that might be dialled, kept so that nobody can fill them
//! with his own.
//!
//! ```text
//! heard of -> new (1024 buckets of 64) -> connected once -> tried (256 buckets of 64)
//! ```
//!
//! The design is Bitcoin Core's. Where an address goes is decided by a hash under a
//! secret key, of its network group and, in *new*, of the group of the peer that told
//! it:
//!
//! - what peers of one group tell reaches 64 of the 1024 new buckets;
//! - the addresses of one group reach 8 of the 256 tried buckets;
//! - one address has at most 8 places in new, each twice as hard to get as the one
//!   before;
//! - an address in tried makes room only after it was dialled in vain
//!   ([`AddrMan::select_tried_collision`], [`AddrMan::resolve_collisions`]).
//!
//! # Correctness
//! Pure: the caller brings the time, in seconds since 1970, and the random numbers.
//! Every entry is either in tried, in one place, or in new, in one to eight.
//!
//! # Security
//! The key must come from a cryptographic generator, and never leave this node.
//!
//! # Limits
//! At most 65,536 + 16,384 places, about 15 MB of memory.

mod check;
mod codec;
mod entry;
mod key;
mod select;
mod source;
mod tables;

use pulse_primitives::bitcoin::p2p::ServiceFlags;
use rand::Rng;

pub use self::{
    entry::AddrRecord,
    key::Table,
    select::{Select, Selected},
    source::AddrSource,
};
use self::{
    entry::{Entry, HOUR},
    tables::{EntryId, Tables},
};
use crate::netaddr::{NetAddress, NetKind};

/// Buckets of *new*.
pub const NEW_BUCKETS: usize = 1024;
/// Buckets of *tried*.
pub const TRIED_BUCKETS: usize = 256;
/// Places in a bucket.
pub const BUCKET_SIZE: usize = 64;
/// New buckets that what one group of sources tells can reach.
pub const NEW_BUCKETS_PER_SOURCE_GROUP: u64 = 64;
/// Tried buckets that the addresses of one group can reach.
pub const TRIED_BUCKETS_PER_GROUP: u64 = 8;
/// Places that one address can have in new.
pub const NEW_PLACES_PER_ADDRESS: u8 = 8;

/// Seconds by which what a peer tells about others is taken to be older than it says.
pub const TIME_PENALTY: u64 = 2 * HOUR;

/// Addresses that wait for a place in tried at most.
const MAX_COLLISIONS: usize = 10;
/// An address in tried that was reached within this time, in seconds, keeps its place.
const REPLACEMENT: u64 = 4 * HOUR;
/// Seconds after which an address gets its place although the other was never dialled.
const TEST_WINDOW: u64 = 40 * 60;

/// The address manager. See the documentation of the module.
#[derive(Debug)]
pub struct AddrMan {
    tables: Tables,
    /// When [`AddrMan::good`] was called last. Starts above 0, which is "never".
    last_good: u64,
    /// Addresses that were reached but whose place in tried is taken. Memory only.
    collisions: Vec<NetAddress>,
}

impl AddrMan {
    /// Without any addresses, with buckets under this secret `key`.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self::with_tables(Tables::new(key))
    }

    fn with_tables(tables: Tables) -> Self {
        Self {
            tables,
            last_good: 1,
            collisions: Vec::new(),
        }
    }

    /// Number of addresses.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tables.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of addresses of `network` in `table`.
    #[must_use]
    pub fn count(&self, table: Table, network: NetKind) -> usize {
        self.tables.count(table, network)
    }

    /// What is known of `address`.
    #[must_use]
    pub fn get(&self, address: &NetAddress) -> Option<AddrRecord> {
        let id = self.tables.find(address)?;
        Some(self.tables.entry(id).record)
    }

    /// The table that `address` is in.
    #[must_use]
    pub fn table_of(&self, address: &NetAddress) -> Option<Table> {
        let entry = self.tables.entry(self.tables.find(address)?);
        Some(if entry.in_tried {
            Table::Tried
        } else {
            Table::New
        })
    }

    /// Takes in what `source` told; true if it got a (further) place in new. Its time
    /// is put back by `penalty` seconds ([`TIME_PENALTY`] for what a peer tells), but
    /// not if a peer tells its own address.
    pub fn add(
        &mut self,
        record: &AddrRecord,
        source: impl Into<AddrSource>,
        penalty: u64,
        now: u64,
        rng: &mut impl Rng,
    ) -> bool {
        if !record.address.addr.is_routable() {
            return false;
        }
        let source = source.into();
        let penalty = if source.is(&record.address.addr) {
            0
        } else {
            penalty
        };
        let id = match self.tables.find(&record.address) {
            Some(id) => {
                if !self.refresh(id, record, penalty, now, rng) {
                    return false;
                }
                id
            }
            None => {
                let time = record.time.saturating_sub(penalty);
                let record = AddrRecord { time, ..*record };
                self.tables.create(Entry::new(record, source))
            }
        };
        self.place_in_new(id, &source, now)
    }

    /// Updates a known entry; true if it may have one more place.
    fn refresh(
        &mut self,
        id: EntryId,
        record: &AddrRecord,
        penalty: u64,
        now: u64,
        rng: &mut impl Rng,
    ) -> bool {
        let entry = self.tables.entry_mut(id);
        let is_online = now.saturating_sub(record.time) < 24 * HOUR;
        let interval = if is_online { HOUR } else { 24 * HOUR };
        if entry.record.time < record.time.saturating_sub(interval + penalty) {
            entry.record.time = record.time.saturating_sub(penalty);
        }
        entry.record.services |= record.services;
        if record.time <= entry.record.time
            || entry.in_tried
            || entry.places >= NEW_PLACES_PER_ADDRESS
        {
            return false;
        }
        // Each place is twice as hard to get as the one before.
        rng.gen_range(0..1_u32 << entry.places) == 0
    }

    fn place_in_new(&mut self, id: EntryId, source: &AddrSource, now: u64) -> bool {
        let entry = self.tables.entry(id);
        let is_first = entry.places == 0;
        let place = self.tables.new_place(entry, source);
        let is_free = match self.tables.at(place) {
            None => true,
            Some(holder) if holder == id => false,
            Some(holder) => {
                let holder = self.tables.entry(holder);
                holder.is_terrible(now) || (holder.places > 1 && is_first)
            }
        };
        if is_free {
            self.tables.clear_new(place);
            self.tables.set_new(place, id);
        } else if is_first {
            self.tables.delete(id);
        }
        is_free
    }

    /// A connection to `address` was made by us and the handshake done, at `now`. Moves
    /// it to tried, true then; or, if its place there is taken, has it wait for it.
    pub fn good(&mut self, address: &NetAddress, now: u64) -> bool {
        self.note_good(address, true, now)
    }

    fn note_good(&mut self, address: &NetAddress, test_before_evict: bool, now: u64) -> bool {
        self.last_good = now;
        let Some(id) = self.tables.find(address) else {
            return false;
        };
        let entry = self.tables.entry_mut(id);
        entry.last_success = now;
        entry.last_try = now;
        entry.attempts = 0;
        // Its time stays: it would tell others whom we are connected to.
        if entry.in_tried {
            return false;
        }
        let place = self.tables.tried_place(address);
        if test_before_evict && self.tables.at(place).is_some() {
            if self.collisions.len() < MAX_COLLISIONS && !self.collisions.contains(address) {
                self.collisions.push(*address);
            }
            return false;
        }
        self.tables.make_tried(id);
        true
    }

    /// `address` is being dialled. With `count_failure` it counts as failed, once
    /// between two successes with any peer, until [`AddrMan::good`]: give it only when
    /// the network is known to work, lest all addresses fail together.
    pub fn attempt(&mut self, address: &NetAddress, count_failure: bool, now: u64) {
        let last_good = self.last_good;
        let Some(id) = self.tables.find(address) else {
            return;
        };
        let entry = self.tables.entry_mut(id);
        entry.last_try = now;
        if count_failure && entry.last_counted_try < last_good {
            entry.last_counted_try = now;
            entry.attempts = entry.attempts.saturating_add(1);
        }
    }

    /// A connection to `address` has ended at `now`, having served: its time is put
    /// forward. To be called at the end, so that it does not tell whom we are
    /// connected to.
    pub fn connected(&mut self, address: &NetAddress, now: u64) {
        if let Some(id) = self.tables.find(address) {
            let record = &mut self.tables.entry_mut(id).record;
            if now.saturating_sub(record.time) > 20 * 60 {
                record.time = now;
            }
        }
    }

    /// Services that `address` named in its own handshake.
    pub fn set_services(&mut self, address: &NetAddress, services: ServiceFlags) {
        if let Some(id) = self.tables.find(address) {
            self.tables.entry_mut(id).record.services = services;
        }
    }

    /// Decides about the addresses that wait for a place in tried: the one that holds
    /// it keeps it if it was reached within 4 hours, and loses it if it was dialled in
    /// vain since, or could not be dialled within 40 minutes.
    pub fn resolve_collisions(&mut self, now: u64) {
        let waiting = std::mem::take(&mut self.collisions);
        for address in waiting {
            if !self.resolve_collision(&address, now) {
                self.collisions.push(address);
            }
        }
    }

    /// Whether it is decided.
    fn resolve_collision(&mut self, address: &NetAddress, now: u64) -> bool {
        let Some(id) = self.tables.find(address) else {
            return true;
        };
        let since_success = now.saturating_sub(self.tables.entry(id).last_success);
        if let Some(holder) = self.tables.at(self.tables.tried_place(address)) {
            let holder = self.tables.entry(holder);
            let since_try = now.saturating_sub(holder.last_try);
            if now.saturating_sub(holder.last_success) < REPLACEMENT {
                return true;
            }
            let is_replaced = if since_try < REPLACEMENT {
                since_try > 60 // time for the handshake
            } else {
                since_success > TEST_WINDOW
            };
            if !is_replaced {
                return false;
            }
        }
        self.note_good(address, false, now);
        true
    }

    /// Address in tried whose place another one waits for: to be dialled, to see
    /// whether it is still there.
    pub fn select_tried_collision(&mut self, rng: &mut impl Rng) -> Option<Selected> {
        if self.collisions.is_empty() {
            return None;
        }
        let at = rng.gen_range(0..self.collisions.len());
        let address = self.collisions[at];
        if self.tables.find(&address).is_none() {
            self.collisions.swap_remove(at);
            return None;
        }
        let holder = self.tables.at(self.tables.tried_place(&address))?;
        Some(self.tables.entry(holder).selected())
    }
}

#[cfg(test)]
mod tests;
