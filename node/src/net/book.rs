//! What the net knows of addresses: whom to dial, whom not, and what peers tell each
//! other about.
//!
//! One lock around all of it; every call is short.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use pulse_primitives::{
    bitcoin::p2p::ServiceFlags,
    ports::{PeerStore, StoreKey},
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tracing::warn;

use crate::{
    clock::Clock,
    p2p::{
        AddrEntry, NetAddr, NetAddress, NetKind,
        addr_relay::{
            AVG_SELF_INTERVAL_SECS, AVG_SEND_INTERVAL_SECS, AddrPolicy, Audience, GetAddrCache,
            MAX_ADDRS, MAX_ADDRS_PERCENT, PeerAddrs, TooManyAddrs, relay_targets,
        },
        addrman::{AddrMan, AddrRecord, AddrSource, TIME_PENALTY},
        bans::{BanList, BanTarget, Discouraged, TooManyBans},
        peer::PeerId,
    },
};

/// Networks that this node can reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reach {
    networks: Vec<NetKind>,
}

impl Reach {
    /// `only` as configured; onion addresses need a proxy, CJDNS to be named, and I2P
    /// is not spoken.
    pub fn new(only: &[NetKind], has_proxy: bool) -> Self {
        let named = |network| only.contains(&network);
        let networks = NetKind::ALL
            .into_iter()
            .filter(|network| only.is_empty() || named(*network))
            .filter(|network| match network {
                NetKind::Ipv4 | NetKind::Ipv6 => true,
                NetKind::Onion => has_proxy,
                NetKind::Cjdns => named(NetKind::Cjdns),
                NetKind::I2p => false,
            })
            .collect();
        Self { networks }
    }

    pub fn networks(&self) -> &[NetKind] {
        &self.networks
    }

    pub fn reaches(&self, addr: &NetAddr) -> bool {
        self.networks.contains(&addr.kind())
    }
}

/// Addresses between us and one peer.
struct AddrPeer {
    addrs: PeerAddrs,
    next_send: Instant,
    next_own: Instant,
}

/// All that is known of addresses.
pub(super) struct AddrBook {
    pub man: AddrMan,
    pub bans: BanList,
    pub discouraged: Discouraged,
    pub reach: Reach,
    pub rng: StdRng,
    /// Whether addresses of our own machine are never discouraged.
    pub spare_local: bool,
    /// Under which others can connect to us, and what we offer.
    own: Option<(NetAddress, ServiceFlags)>,
    cache: GetAddrCache,
    peers: HashMap<PeerId, AddrPeer>,
    key: (u64, u64),
}

impl AddrBook {
    pub fn new(reach: Reach, own: Option<(NetAddress, ServiceFlags)>) -> Self {
        let mut rng = StdRng::from_entropy();
        Self {
            man: AddrMan::new(rng.r#gen()),
            bans: BanList::default(),
            discouraged: Discouraged::default(),
            reach,
            own,
            cache: GetAddrCache::default(),
            peers: HashMap::new(),
            key: rng.r#gen(),
            rng,
            spare_local: true,
        }
    }

    /// Takes over what an earlier run has saved; what is damaged is as if it had never
    /// been.
    pub fn load(&mut self, store: &dyn PeerStore) {
        if let Some(bytes) = store.load(StoreKey::Addresses) {
            match AddrMan::decode(&bytes) {
                Ok(man) => self.man = man,
                Err(err) => warn!(%err, "the saved addresses of peers cannot be used"),
            }
        }
        if let Some(bytes) = store.load(StoreKey::Bans) {
            match BanList::decode(&bytes) {
                Ok(bans) => self.bans = bans,
                Err(err) => warn!(%err, "the saved bans cannot be used"),
            }
        }
    }

    /// Secret of this run, for numbers that peers must not foresee.
    pub fn key(&self) -> (u64, u64) {
        self.key
    }

    /// Whether the host must not be dialled nor told to others.
    pub fn is_barred(&self, addr: &NetAddr, now: u64) -> bool {
        self.discouraged.contains(addr) || self.bans.is_banned(addr, now)
    }

    /// The host misbehaved. Our own machine is not held responsible for those who come
    /// through it.
    pub fn discourage(&mut self, addr: NetAddr) {
        if !(self.spare_local && addr.is_local()) {
            self.discouraged.add(addr);
        }
    }

    /// Bans for good, or until a time.
    pub fn ban(&mut self, target: BanTarget, now: u64, until: u64) -> Result<bool, TooManyBans> {
        self.bans.ban(target, now, until)
    }

    /// A peer with which addresses are exchanged.
    pub fn add_peer(&mut self, id: PeerId, wants_v2: bool, clock: &Clock) {
        let (moment, now) = (clock.now(), clock.unix());
        let next_send = moment + exponential(AVG_SEND_INTERVAL_SECS, &mut self.rng);
        let (key, addrs) = (self.key, |key| PeerAddrs::new(wants_v2, key, now));
        self.peers.entry(id).or_insert_with(|| AddrPeer {
            addrs: addrs(key),
            next_send,
            next_own: moment,
        });
    }

    pub fn remove_peer(&mut self, id: PeerId) {
        self.peers.remove(&id);
    }

    /// `getaddr` was sent to the peer.
    pub fn asked(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.addrs.note_getaddr_sent();
        }
    }

    /// Takes in an `addr` message of the peer `id`, which is `from`.
    pub fn receive(
        &mut self,
        id: PeerId,
        from: AddrSource,
        entries: Vec<AddrEntry>,
        now: u64,
    ) -> Result<(), TooManyAddrs> {
        let Some(peer) = self.peers.get_mut(&id) else {
            return Ok(());
        };
        let records = entries.into_iter().map(|entry| AddrRecord {
            address: entry.address(),
            services: entry.services,
            time: u64::from(entry.time),
        });
        let (reach, bans, discouraged) = (&self.reach, &self.bans, &self.discouraged);
        let policy = AddrPolicy {
            is_reachable: &|addr| reach.reaches(addr),
            is_barred: &|addr| discouraged.contains(addr) || bans.is_banned(addr, now),
        };
        let received = peer
            .addrs
            .receive(records.collect(), policy, now, &mut self.rng)?;
        for record in &received.keep {
            self.man.add(record, from, TIME_PENALTY, now, &mut self.rng);
        }
        for (record, is_reachable) in received.relay {
            let takers = self
                .peers
                .iter()
                .filter(|(other, peer)| **other != id && peer.addrs.takes(&record.address.addr))
                .map(|(other, _)| *other);
            let targets = relay_targets(&record.address, is_reachable, takers, self.key, now);
            for target in targets {
                if let Some(peer) = self.peers.get_mut(&target) {
                    peer.addrs.push(record, &mut self.rng);
                }
            }
        }
        Ok(())
    }

    /// Prepares the answer to the peer's `getaddr`. It goes out with the next message of
    /// addresses.
    pub fn answer_getaddr(&mut self, id: PeerId, audience: Audience, clock: &Clock) {
        let now = clock.unix();
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let (man, bans, discouraged) = (&self.man, &self.bans, &self.discouraged);
        let mut fill_rng = StdRng::seed_from_u64(self.rng.r#gen());
        let answer = self.cache.answer(audience, now, &mut self.rng, || {
            let mut records = man.get_addr(MAX_ADDRS, MAX_ADDRS_PERCENT, None, now, &mut fill_rng);
            records.retain(|record| {
                let addr = &record.address.addr;
                !discouraged.contains(addr) && !bans.is_banned(addr, now)
            });
            records
        });
        if peer.addrs.answer_getaddr(answer, &mut self.rng) {
            peer.next_send = clock.now();
        }
    }

    /// What is to be sent to whom now. Our own address is among it from time to time, if
    /// `tells_own`.
    pub fn due(
        &mut self,
        tells_own: bool,
        moment: Instant,
        now: u64,
    ) -> Vec<(PeerId, Vec<AddrEntry>)> {
        let own = self.own.filter(|_| tells_own);
        let mut due = Vec::new();
        for (id, peer) in &mut self.peers {
            if let Some((address, services)) = own
                && peer.next_own <= moment
            {
                peer.next_own = moment + exponential(AVG_SELF_INTERVAL_SECS, &mut self.rng);
                peer.addrs.forget_known();
                let record = AddrRecord {
                    address,
                    services,
                    time: now,
                };
                peer.addrs.push(record, &mut self.rng);
            }
            if peer.next_send > moment {
                continue;
            }
            peer.next_send = moment + exponential(AVG_SEND_INTERVAL_SECS, &mut self.rng);
            let entries: Vec<_> = peer.addrs.take_to_send().iter().map(entry).collect();
            if !entries.is_empty() {
                due.push((*id, entries));
            }
        }
        due
    }
}

fn entry(record: &AddrRecord) -> AddrEntry {
    AddrEntry {
        time: u32::try_from(record.time).unwrap_or(u32::MAX),
        services: record.services,
        addr: record.address.addr,
        port: record.address.port,
    }
}

/// A random time with this mean, so that events cannot be foreseen (a Poisson process).
pub(super) fn exponential(mean_secs: u64, rng: &mut impl Rng) -> Duration {
    let uniform: f64 = rng.r#gen();
    #[allow(clippy::cast_precision_loss, reason = "a mean of at most days")]
    let mean = mean_secs as f64;
    Duration::from_secs_f64(mean * -(1.0 - uniform).ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_reached_as_far_as_configured() {
        let all = Reach::new(&[], false);
        assert_eq!(all.networks(), [NetKind::Ipv4, NetKind::Ipv6]);
        let tor = Reach::new(&[NetKind::Onion], true);
        assert_eq!(tor.networks(), [NetKind::Onion]);
        assert!(!tor.reaches(&"1.2.3.4".parse().unwrap()));
        assert!(Reach::new(&[NetKind::Onion], false).networks().is_empty());
    }

    #[test]
    fn a_peer_of_our_own_machine_is_not_discouraged() {
        let mut book = AddrBook::new(Reach::new(&[], false), None);
        book.discourage("127.0.0.1".parse().unwrap());
        book.discourage("8.8.8.8".parse().unwrap());
        assert!(!book.is_barred(&"127.0.0.1".parse().unwrap(), 0));
        assert!(book.is_barred(&"8.8.8.8".parse().unwrap(), 0));
    }
}
