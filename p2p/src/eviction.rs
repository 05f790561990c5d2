//! Which inbound peer makes room when another one knocks.
//!
//! Peers are protected for what an attacker cannot have all of at once: groups he
//! cannot know to be preferred, nearness, recent usefulness, long connection. Of the
//! rest, the group with the most connections loses its youngest. The rules and their
//! order are Bitcoin Core's.
//!
//! # Security
//! An attacker with any number of addresses in a few groups evicts his own.

use std::{cmp::Reverse, collections::HashMap, time::Duration};

use rand::{Rng, seq::SliceRandom};

use crate::{netaddr::NetKind, peer::PeerId};

/// A peer as eviction sees it. Moments are in one common unit since one common origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvictionCandidate {
    /// Who.
    pub id: PeerId,
    /// Whether it connected to us. The others are never evicted.
    pub is_inbound: bool,
    /// Whether the operator wants it in any case: then it is never evicted.
    pub is_protected: bool,
    /// When it connected.
    pub connected_at: u64,
    /// Its shortest ping so far.
    pub min_ping: Option<Duration>,
    /// When it last gave us a block that was new and valid; 0 for never.
    pub last_block: u64,
    /// When it last gave us a transaction that the mempool took; 0 for never.
    pub last_tx: u64,
    /// Whether it offers whole blocks with witnesses.
    pub has_relevant_services: bool,
    /// Whether it wants transactions.
    pub relays_txs: bool,
    /// Its group under a secret key ([`crate::netgroup::NetGroup::keyed`]).
    pub keyed_group: u64,
    /// Whether it is discouraged: evicted before others that are not protected.
    pub prefer_evict: bool,
    /// Whether it connects from this host, as a hidden service in front of it does.
    pub is_local: bool,
    /// The network that it connected through.
    pub network: NetKind,
}

/// Longest connected first when sorted upwards by it from the end.
type Age = Reverse<u64>;

impl EvictionCandidate {
    fn age(&self) -> Age {
        Reverse(self.connected_at)
    }
}

/// The inbound peer to disconnect, if any may be: all candidates but the protected.
/// Which of equal ones is left to chance.
#[must_use]
pub fn select_node_to_evict(
    mut candidates: Vec<EvictionCandidate>,
    rng: &mut impl Rng,
) -> Option<PeerId> {
    let all = &mut candidates;
    all.retain(|peer| peer.is_inbound && !peer.is_protected);
    all.shuffle(rng);
    // Of groups under a key that an attacker does not know.
    protect_last(all, 4, |peer| peer.keyed_group, |_| true);
    // Nearness cannot be had without being near.
    let ping = |peer: &EvictionCandidate| Reverse(peer.min_ping.unwrap_or(Duration::MAX));
    protect_last(all, 8, ping, |_| true);
    // New transactions and blocks cannot be had without work.
    let by_tx = |peer: &EvictionCandidate| (peer.last_tx, peer.relays_txs, peer.age());
    protect_last(all, 4, by_tx, |_| true);
    let by_block = |peer: &EvictionCandidate| {
        let services = peer.has_relevant_services;
        (peer.last_block, services, peer.age())
    };
    let by_block_only = |peer: &EvictionCandidate| (!peer.relays_txs, by_block(peer));
    protect_last(all, 8, by_block_only, |peer| {
        !peer.relays_txs && peer.has_relevant_services
    });
    protect_last(all, 4, by_block, |_| true);
    protect_half(all);

    if all.iter().any(|peer| peer.prefer_evict) {
        all.retain(|peer| peer.prefer_evict);
    }
    youngest_of_largest_group(all)
}

/// Sorts by `key` and takes out those of the last `count` that `are_meant`.
fn protect_last<K: Ord>(
    all: &mut Vec<EvictionCandidate>,
    count: usize,
    key: impl Fn(&EvictionCandidate) -> K,
    are_meant: impl Fn(&EvictionCandidate) -> bool,
) {
    all.sort_by_key(key);
    let last = all.split_off(all.len().saturating_sub(count));
    all.extend(last.into_iter().filter(|peer| !are_meant(peer)));
}

/// Those whose pings are long through no fault of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disadvantaged {
    Network(NetKind),
    Local,
}

impl Disadvantaged {
    /// In the order in which those of equal number come.
    const ALL: [Self; 4] = [
        Self::Network(NetKind::Cjdns),
        Self::Network(NetKind::I2p),
        Self::Local,
        Self::Network(NetKind::Onion),
    ];

    fn includes(self, peer: &EvictionCandidate) -> bool {
        match self {
            Self::Network(network) => peer.network == network,
            Self::Local => peer.is_local,
        }
    }
}

/// Protects half of the peers: those connected for longest, but up to half of them from
/// disadvantaged networks, in equal shares.
fn protect_half(all: &mut Vec<EvictionCandidate>) {
    let initial = all.len();
    let total = initial / 2;
    let reserved = total / 2;
    let mut kinds: Vec<(Disadvantaged, usize)> = Disadvantaged::ALL
        .into_iter()
        .map(|kind| (kind, all.iter().filter(|peer| kind.includes(peer)).count()))
        .collect();
    // The rarest first, so that what it leaves over goes to the others.
    kinds.sort_by_key(|(_, count)| *count);

    loop {
        let before = all.len();
        let left = reserved - (initial - before);
        let alive = kinds.iter().filter(|(_, count)| *count > 0).count();
        if left == 0 || alive == 0 {
            break;
        }
        let share = (left / alive).max(1);
        for (kind, count) in kinds.iter_mut().filter(|(_, count)| *count > 0) {
            let before = all.len();
            let by_age = |peer: &EvictionCandidate| (kind.includes(peer), peer.age());
            protect_last(all, share, by_age, |peer| kind.includes(peer));
            *count -= (before - all.len()).min(*count);
            if initial - all.len() >= reserved {
                break;
            }
        }
        if all.len() == before {
            break;
        }
    }
    let left = total - (initial - all.len());
    protect_last(all, left, EvictionCandidate::age, |_| true);
}

fn youngest_of_largest_group(all: &[EvictionCandidate]) -> Option<PeerId> {
    let mut groups: HashMap<u64, (usize, &EvictionCandidate)> = HashMap::new();
    for peer in all {
        let (size, youngest) = groups.entry(peer.keyed_group).or_insert((0, peer));
        *size += 1;
        if peer.connected_at > youngest.connected_at {
            *youngest = peer;
        }
    }
    // Of groups of one size, the one with the youngest; the key makes it the same one
    // every time.
    let largest = groups
        .into_iter()
        .max_by_key(|(key, (size, youngest))| (*size, youngest.connected_at, *key));
    largest.map(|(_, (_, youngest))| youngest.id)
}

#[cfg(test)]
mod tests;
