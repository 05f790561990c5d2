//! The first addresses: when names are asked for them, and when the fixed ones are
//! taken.
//!
//! ```text
//! nothing known: names at once | few: after 11 s | many: after 5 min
//! two full-relay peers by then: no need | still nothing after a minute: fixed addresses
//! ```
//!
//! The order and the times are Bitcoin Core's. Behind a proxy names are not resolved
//! here, which would tell the resolver of this node, but dialled through the proxy and
//! asked for addresses.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use pulse_primitives::network::ChainParams;
use rand::Rng;
use tokio::{net::lookup_host, time::timeout};

use super::book::AddrBook;
use crate::p2p::{
    NetAddress, PeerAddr,
    addrman::{AddrRecord, AddrSource},
    seeds::{dns_seeds, fixed_seeds, seed_host, seed_services},
};

/// Names asked at a time.
const AT_A_TIME: usize = 3;
/// Wait for the known addresses to prove good, and between two askings.
const WAIT: Duration = Duration::from_secs(11);
/// The same when many addresses are known.
const LONG_WAIT: Duration = Duration::from_secs(300);
/// So many addresses are many.
const MANY: usize = 1000;
/// So many full-relay peers are enough not to ask.
const ENOUGH_PEERS: usize = 2;
/// Wait for anything else before the fixed addresses are taken.
const FIXED_WAIT: Duration = Duration::from_secs(60);
/// For the resolution of one name.
const LOOKUP_LIMIT: Duration = Duration::from_secs(30);
/// Addresses of one name that are taken.
const MAX_PER_SEED: usize = 256;
/// Age that addresses without one are taken for, in seconds: three to seven days.
const AGES: std::ops::Range<u64> = 3 * 86_400..7 * 86_400;

/// What is still to be asked, and when.
pub(super) struct Seeding {
    names: VecDeque<&'static str>,
    fixed: Option<Vec<NetAddress>>,
    next: Option<Instant>,
    wait: Duration,
    started: Instant,
    port: u16,
}

impl Seeding {
    /// Of a node that knows `known` addresses. Without `dns`, only the fixed addresses.
    pub fn new(
        params: &ChainParams,
        dns: bool,
        known: usize,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Self {
        let mut names: Vec<_> = if dns {
            dns_seeds(params).to_vec()
        } else {
            Vec::new()
        };
        rand::seq::SliceRandom::shuffle(names.as_mut_slice(), rng);
        let wait = if known > MANY { LONG_WAIT } else { WAIT };
        let first = if known == 0 { now } else { now + wait };
        Self {
            next: (!names.is_empty()).then_some(first),
            names: names.into(),
            fixed: Some(fixed_seeds(params)).filter(|fixed| !fixed.is_empty()),
            wait,
            started: now,
            port: params.default_port,
        }
    }

    /// Names to ask now, of a node with so many full-relay peers.
    pub fn due_names(&mut self, full_relay: usize, now: Instant) -> Vec<PeerAddr> {
        if self.next.is_none_or(|next| next > now) {
            return Vec::new();
        }
        if full_relay >= ENOUGH_PEERS {
            self.next = None;
            return Vec::new();
        }
        let count = self.names.len().min(AT_A_TIME);
        let names = self.names.drain(..count).map(|name| PeerAddr {
            host: seed_host(name, seed_services()),
            port: self.port,
        });
        let names = names.collect();
        self.next = (!self.names.is_empty()).then_some(now + self.wait);
        names
    }

    /// Puts the fixed addresses into `book` if it is time; whether it did.
    pub fn take_fixed(&mut self, book: &mut AddrBook, unix: u64, now: Instant) -> bool {
        let networks = book.reach.networks().to_vec();
        let known = networks
            .iter()
            .flat_map(|network| {
                use crate::p2p::addrman::Table;
                [Table::New, Table::Tried].map(|table| book.man.count(table, *network))
            })
            .sum::<usize>();
        let nothing_else = self.next.is_none() && self.names.is_empty();
        let waited = now.duration_since(self.started) >= FIXED_WAIT;
        if known > 0 || !(waited || (nothing_else && self.wait_is_over(now))) {
            return false;
        }
        let Some(fixed) = self.fixed.take() else {
            return false;
        };
        add(book, "fixed seeds", &fixed, unix);
        true
    }

    /// Those who were asked have had time to answer.
    fn wait_is_over(&self, now: Instant) -> bool {
        now.duration_since(self.started) >= LOOKUP_LIMIT
    }
}

/// Asks one name for addresses.
pub(super) async fn resolve(name: PeerAddr) -> (PeerAddr, Vec<NetAddress>) {
    let lookup = lookup_host((name.host.clone(), name.port));
    let found = match timeout(LOOKUP_LIMIT, lookup).await {
        Ok(Ok(found)) => found
            .take(MAX_PER_SEED)
            .map(|addr: SocketAddr| NetAddress::new(addr.ip(), addr.port()))
            .collect(),
        _ => Vec::new(),
    };
    (name, found)
}

/// Puts what the seed `name` told into `book`.
pub(super) fn add(book: &mut AddrBook, name: &str, addresses: &[NetAddress], unix: u64) {
    let source = AddrSource::named(name);
    for address in addresses {
        let record = AddrRecord {
            address: *address,
            services: seed_services(),
            time: unix.saturating_sub(book.rng.gen_range(AGES)),
        };
        book.man.add(&record, source, 0, unix, &mut book.rng);
    }
}

#[cfg(test)]
mod tests {
    use pulse_primitives::bitcoin::Network;

    use super::{super::book::Reach, *};

    const UNIX: u64 = 1_700_000_000;

    fn book() -> AddrBook {
        AddrBook::new(Reach::new(&[], false), None)
    }

    fn after(start: Instant, secs: u64) -> Instant {
        start + Duration::from_secs(secs)
    }

    #[test]
    fn names_are_asked_in_turns_until_there_are_peers() {
        let (params, start) = (ChainParams::new(Network::Bitcoin, None), Instant::now());
        let rng = &mut rand::thread_rng();
        let mut seeding = Seeding::new(&params, true, 0, start, rng);
        let first = seeding.due_names(0, start);
        assert_eq!(first.len(), 3);
        assert!(
            first
                .iter()
                .all(|name| name.host.starts_with("x9.") && name.port == 8333)
        );
        assert!(seeding.due_names(0, after(start, 5)).is_empty());
        assert_eq!(seeding.due_names(1, after(start, 11)).len(), 3);
        assert!(seeding.due_names(2, after(start, 22)).is_empty());
        assert!(seeding.due_names(0, after(start, 900)).is_empty());

        let mut known = Seeding::new(&params, true, 5, start, rng);
        assert!(known.due_names(0, start).is_empty());
        assert_eq!(known.due_names(0, after(start, 11)).len(), 3);
        let mut silent = Seeding::new(&params, false, 0, start, rng);
        assert!(silent.due_names(0, after(start, 900)).is_empty());
    }

    #[test]
    fn fixed_addresses_are_the_last_resort() {
        let (params, start) = (ChainParams::new(Network::Bitcoin, None), Instant::now());
        let rng = &mut rand::thread_rng();
        let mut seeding = Seeding::new(&params, true, 0, start, rng);
        let mut book = book();
        assert!(!seeding.take_fixed(&mut book, UNIX, after(start, 59)));
        assert!(seeding.take_fixed(&mut book, UNIX, after(start, 60)));
        assert!(book.man.len() > 100);
        assert!(!seeding.take_fixed(&mut book, UNIX, after(start, 61)));

        let mut seeding = Seeding::new(&params, true, 1, start, rng);
        let address: NetAddress = "20.1.1.1:8333".parse().unwrap();
        let mut book = self::book();
        add(&mut book, "a seed", &[address], UNIX);
        assert_eq!(book.man.len(), 1);
        assert!(!seeding.take_fixed(&mut book, UNIX, after(start, 900)));
    }
}
