//! Whom the node connects to of its own accord, and for what.
//!
//! ```text
//! anchors -> block relay (2) | full relay (8) | extra full relay while the tip is stale
//! | extra block relay now and then | feeler every 2 min on average
//! ```
//!
//! Pure: time, chance and the addresses are passed in. The order and the numbers are
//! Bitcoin Core's.
//!
//! # Security
//! At most one connection per group of IPv4 and IPv6 networks ([`NetGroup`]), so that the
//! owner of one network gets one of them, however many addresses he has spread.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use pulse_primitives::bitcoin::p2p::ServiceFlags;
use rand::Rng;

use super::book::{AddrBook, exponential};
use crate::p2p::{
    ConnectionKind, NetAddr, NetAddress, NetKind,
    addrman::{AddrRecord, Select},
    netgroup::NetGroup,
};

/// Connections for blocks, transactions and addresses.
pub(super) const FULL_RELAY: usize = 8;
/// Connections for blocks alone.
pub(super) const BLOCK_RELAY: usize = 2;
/// All that the node may make at a time, with one feeler.
pub(super) const AUTOMATIC: usize = FULL_RELAY + BLOCK_RELAY + 1;

/// Mean time between two feelers, in seconds.
const FEELER_SECS: u64 = 120;
/// Time between two extra connections while the tip is stale, in seconds.
const EXTRA_FULL_RELAY_SECS: u64 = 600;
/// Mean time between two extra connections for blocks alone, in seconds.
const EXTRA_BLOCK_RELAY_SECS: u64 = 300;
/// Addresses that are looked at for one connection.
const MAX_TRIES: u32 = 100;
/// An address that was dialled this recently, in seconds, is left alone, ...
const RECENT_TRY: u64 = 600;
/// ... unless so many others were of no use.
const PATIENT_TRIES: u32 = 30;
/// After so many tries other ports than the network's own will do as well.
const PORT_TRIES: u32 = 50;
/// An extra peer stays for this long before it is compared with the others.
pub(super) const MIN_CONNECTED: Duration = Duration::from_secs(30);

/// Connections that there are or that are being made.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub full_relay: usize,
    pub block_relay: usize,
    pub feelers: usize,
    /// Groups of automatic connections.
    groups: HashSet<NetGroup>,
    addresses: HashSet<NetAddress>,
}

impl Taken {
    pub fn add(&mut self, kind: ConnectionKind, address: Option<NetAddress>) {
        match kind {
            ConnectionKind::FullRelay => self.full_relay += 1,
            ConnectionKind::BlockRelay => self.block_relay += 1,
            ConnectionKind::Feeler => self.feelers += 1,
            _ => {}
        }
        let Some(address) = address else {
            return;
        };
        let is_automatic = !matches!(kind, ConnectionKind::Manual | ConnectionKind::Inbound);
        if is_automatic && has_groups(&address.addr) {
            self.groups.insert(NetGroup::of(&address.addr));
        }
        if !kind.is_inbound() {
            self.addresses.insert(address);
        }
    }

    /// Groups of the network in which there is a connection, as a measure of whether
    /// the network works.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    fn has_group_of(&self, addr: &NetAddr) -> bool {
        has_groups(addr) && self.groups.contains(&NetGroup::of(addr))
    }
}

/// Addresses of the other networks cost nothing, whatever group they are in.
fn has_groups(addr: &NetAddr) -> bool {
    matches!(addr.kind(), NetKind::Ipv4 | NetKind::Ipv6)
}

/// When the next special connections are due.
#[derive(Debug)]
pub(super) struct Schedule {
    next_feeler: Instant,
    next_extra_full_relay: Instant,
    next_extra_block_relay: Instant,
}

/// What the node needs to know of its chain to choose connections.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChainView {
    /// No block has come for half an hour.
    pub is_stale: bool,
    /// The newest block is at most a day old.
    pub is_recent: bool,
}

impl Schedule {
    pub fn new(now: Instant, rng: &mut impl Rng) -> Self {
        Self {
            next_feeler: now + exponential(FEELER_SECS, rng),
            next_extra_full_relay: now,
            next_extra_block_relay: now + exponential(EXTRA_BLOCK_RELAY_SECS, rng),
        }
    }

    /// The kind of connection to make now, if any.
    pub fn wanted(
        &mut self,
        taken: &Taken,
        chain: ChainView,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Option<ConnectionKind> {
        if taken.full_relay < FULL_RELAY {
            return Some(ConnectionKind::FullRelay);
        }
        if taken.block_relay < BLOCK_RELAY {
            return Some(ConnectionKind::BlockRelay);
        }
        if chain.is_stale && taken.full_relay == FULL_RELAY && self.next_extra_full_relay <= now {
            self.next_extra_full_relay = now + Duration::from_secs(EXTRA_FULL_RELAY_SECS);
            return Some(ConnectionKind::FullRelay);
        }
        if chain.is_recent && taken.block_relay == BLOCK_RELAY && self.next_extra_block_relay <= now
        {
            self.next_extra_block_relay = now + exponential(EXTRA_BLOCK_RELAY_SECS, rng);
            return Some(ConnectionKind::BlockRelay);
        }
        if taken.feelers == 0 && self.next_feeler <= now {
            self.next_feeler = now + exponential(FEELER_SECS, rng);
            return Some(ConnectionKind::Feeler);
        }
        None
    }
}

/// The address to dial for a connection of `kind`; `None` if none suits at present.
pub(super) fn choose(
    book: &mut AddrBook,
    kind: ConnectionKind,
    taken: &Taken,
    default_port: u16,
    now: u64,
) -> Option<AddrRecord> {
    book.man.resolve_collisions(now);
    let is_feeler = kind == ConnectionKind::Feeler;
    for tries in 1..=MAX_TRIES {
        let collision = if is_feeler {
            book.man.select_tried_collision(&mut book.rng)
        } else {
            None
        };
        let from = Select {
            new_only: is_feeler,
            networks: book.reach.networks(),
        };
        let selected = match collision {
            Some(selected) => selected,
            None => book.man.select(from, now, &mut book.rng)?,
        };
        let record = selected.record;
        let addr = &record.address.addr;
        let is_recent = now.saturating_sub(selected.last_try) < RECENT_TRY;
        let serves = record
            .services
            .has(ServiceFlags::NETWORK | ServiceFlags::WITNESS);
        let suits = addr.is_routable()
            && book.reach.reaches(addr)
            && (is_feeler || !taken.has_group_of(addr))
            && !taken.addresses.contains(&record.address)
            && !book.is_barred(addr, now)
            && (tries >= PATIENT_TRIES || !is_recent)
            && (is_feeler || serves)
            && (tries >= PORT_TRIES || record.address.port == default_port || !has_groups(addr));
        if suits {
            return Some(record);
        }
    }
    None
}

/// Whether an anchor may still be dialled.
pub(super) fn suits_as_anchor(
    book: &AddrBook,
    address: &NetAddress,
    taken: &Taken,
    now: u64,
) -> bool {
    let addr = &address.addr;
    addr.is_routable()
        && book.reach.reaches(addr)
        && !taken.has_group_of(addr)
        && !taken.addresses.contains(address)
        && !book.is_barred(addr, now)
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::{super::book::Reach, *};

    const NOW: u64 = 1_700_000_000;

    fn book(addresses: &[String]) -> AddrBook {
        let mut book = AddrBook::new(Reach::new(&[], false), None);
        for text in addresses {
            let record = AddrRecord {
                address: text.parse().unwrap(),
                services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
                time: NOW,
            };
            let source = record.address.addr;
            book.man.add(&record, source, 0, NOW, &mut book.rng);
        }
        book
    }

    /// Fills all places that can be filled; the addresses chosen.
    fn fill(book: &mut AddrBook) -> Vec<NetAddress> {
        let mut taken = Taken::default();
        let mut chosen = Vec::new();
        for kind in [ConnectionKind::FullRelay; FULL_RELAY]
            .into_iter()
            .chain([ConnectionKind::BlockRelay; BLOCK_RELAY])
        {
            let Some(record) = choose(book, kind, &taken, 8333, NOW) else {
                continue;
            };
            taken.add(kind, Some(record.address));
            chosen.push(record.address);
        }
        chosen
    }

    #[test]
    fn one_network_gets_one_connection_however_many_addresses_it_has() {
        let mut addresses: Vec<_> = (0..2000)
            .map(|n| format!("66.66.{}.{}:8333", n / 250, n % 250 + 1))
            .collect();
        let honest: Vec<_> = (1..=12).map(|n| format!("{n}0.1.1.1:8333")).collect();
        addresses.extend(
            honest
                .iter()
                .filter(|text| *text != "100.1.1.1:8333")
                .cloned(),
        );
        let mut book = book(&addresses);
        let chosen = fill(&mut book);
        let hostile = chosen
            .iter()
            .filter(|address| address.to_string().starts_with("66.66."))
            .count();
        assert!(hostile <= 1, "{chosen:?}");
        let groups: HashSet<_> = chosen
            .iter()
            .map(|address| NetGroup::of(&address.addr))
            .collect();
        assert_eq!(groups.len(), chosen.len());
    }

    #[test]
    fn neither_discouraged_nor_banned_nor_just_dialled_addresses_are_chosen() {
        let mut book = book(&["20.1.1.1:8333".to_owned(), "30.1.1.1:8333".to_owned()]);
        book.discourage("20.1.1.1".parse().unwrap());
        let target = "30.1.0.0/16".parse().unwrap();
        book.ban(target, NOW, NOW + 100).unwrap();
        let taken = Taken::default();
        assert_eq!(
            choose(&mut book, ConnectionKind::FullRelay, &taken, 8333, NOW),
            None
        );
        assert!(
            choose(
                &mut book,
                ConnectionKind::FullRelay,
                &taken,
                8333,
                NOW + 100
            )
            .is_some()
        );
    }

    #[test]
    fn places_are_filled_in_order_and_extra_ones_only_when_they_are_due() {
        let rng = &mut StdRng::seed_from_u64(1);
        let start = Instant::now();
        let mut schedule = Schedule::new(start, rng);
        let calm = ChainView {
            is_stale: false,
            is_recent: true,
        };
        let mut taken = Taken::default();
        for _ in 0..FULL_RELAY {
            let wanted = schedule.wanted(&taken, calm, start, rng);
            assert_eq!(wanted, Some(ConnectionKind::FullRelay));
            taken.add(ConnectionKind::FullRelay, None);
        }
        for _ in 0..BLOCK_RELAY {
            let wanted = schedule.wanted(&taken, calm, start, rng);
            assert_eq!(wanted, Some(ConnectionKind::BlockRelay));
            taken.add(ConnectionKind::BlockRelay, None);
        }
        assert_eq!(schedule.wanted(&taken, calm, start, rng), None);
        let stale = ChainView {
            is_stale: true,
            ..calm
        };
        let wanted = schedule.wanted(&taken, stale, start, rng);
        assert_eq!(wanted, Some(ConnectionKind::FullRelay));
        let later = start + Duration::from_secs(100_000);
        let wanted = schedule.wanted(&taken, calm, later, rng);
        assert_eq!(wanted, Some(ConnectionKind::BlockRelay));
        let wanted = schedule.wanted(&taken, calm, later, rng);
        assert_eq!(wanted, Some(ConnectionKind::Feeler));
        taken.add(ConnectionKind::Feeler, None);
        assert_eq!(schedule.wanted(&taken, calm, later, rng), None);
    }
}
