//! What becomes of the addresses that peers tell, and what peers are told.
//!
//! ```text
//! addr -> token bucket -> is it useful? -> kept (address manager)
//!                                       -> passed on to one or two peers, if it is news
//! getaddr -> the same answer for a day, for all who ask in the same way
//! ```
//!
//! One [`PeerAddrs`] for each peer that takes part (not: block-relay-only, feelers).
//! All values are Bitcoin Core's.
//!
//! # Security
//! A peer gets 0.1 addresses per second through, and a burst of 1000, which is what it
//! may send at once. To whom an address goes changes once a day, by a secret key, so
//! that telling it again and again spreads it no further. The answers to `getaddr`
//! are cached: whoever asks often learns no more, and cannot tell from changes whom
//! this node is connected to.
//!
//! # Limits
//! Each peer: 1000 addresses to send, 10,000 hashes of addresses that it knows.

use std::{collections::HashMap, net::SocketAddr};

use pulse_primitives::bitcoin::{hashes::siphash24, p2p::ServiceFlags};
use rand::{Rng, seq::SliceRandom};

use crate::{
    addrman::AddrRecord,
    netaddr::{NetAddr, NetAddress, NetKind},
    peer::PeerId,
    rolling::RollingSet,
};

/// Addresses in one message at most, and in an answer to `getaddr`.
pub const MAX_ADDRS: usize = 1000;
/// Share of all addresses that an answer to `getaddr` has at most.
pub const MAX_ADDRS_PERCENT: usize = 23;
/// Mean time between two messages of addresses to one peer, in seconds. Exponentially
/// distributed.
pub const AVG_SEND_INTERVAL_SECS: u64 = 30;
/// Mean time between two messages of our own address to one peer, in seconds.
/// Exponentially distributed.
pub const AVG_SELF_INTERVAL_SECS: u64 = 24 * 60 * 60;

/// Tokens per address: the bucket fills by one each second.
const TOKENS_PER_ADDR: u64 = 10;
/// Tokens at which the bucket fills no further.
const MAX_TOKENS: u64 = 1000 * TOKENS_PER_ADDR;
/// Addresses in a message at most for any of them to be passed on.
const MAX_TO_RELAY: usize = 10;
/// Seconds within which an address must have been seen to be passed on, and by which
/// it may be seen in the future.
const RECENT: u64 = 10 * 60;
/// Age that an impossible time is taken for, in seconds.
const UNKNOWN_AGE: u64 = 5 * 24 * 60 * 60;
/// Times before this are no times (1973).
const FIRST_TIME: u64 = 100_000_000;
/// Addresses that a peer is remembered to know at least.
const KNOWN: usize = 5_000;
/// Seconds for which an address goes to the same peers.
const ROTATE: u64 = 24 * 60 * 60;
/// Answers to `getaddr` are kept for so many seconds, and up to [`CACHE_EXTRA`] more.
const CACHE_MIN: u64 = 21 * 60 * 60;
const CACHE_EXTRA: u64 = 6 * 60 * 60;
/// Kinds of askers with an answer of their own.
const MAX_CACHES: usize = 64;

/// A peer sent more than [`MAX_ADDRS`] addresses at once: misbehaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{count} addresses in one message")]
pub struct TooManyAddrs {
    /// How many.
    pub count: usize,
}

/// How many addresses of a peer are still listened to.
#[derive(Debug, Clone)]
struct AddrTokens {
    tokens: u64,
    filled_at: u64,
}

impl AddrTokens {
    fn refill(&mut self, now: u64) {
        if self.tokens < MAX_TOKENS {
            let added = now.saturating_sub(self.filled_at);
            self.tokens = self.tokens.saturating_add(added).min(MAX_TOKENS);
        }
        self.filled_at = now;
    }

    fn take(&mut self) -> bool {
        let rest = self.tokens.checked_sub(TOKENS_PER_ADDR);
        self.tokens = rest.unwrap_or(self.tokens);
        rest.is_some()
    }
}

/// What this node makes of addresses: asked for each one.
#[derive(Clone, Copy)]
pub struct AddrPolicy<'a> {
    /// Whether this node reaches addresses of that network.
    pub is_reachable: &'a dyn Fn(&NetAddr) -> bool,
    /// Whether it is banned or discouraged.
    pub is_barred: &'a dyn Fn(&NetAddr) -> bool,
}

/// What is to be done with the addresses of a message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReceivedAddrs {
    /// For the address manager, with [`crate::addrman::TIME_PENALTY`].
    pub keep: Vec<AddrRecord>,
    /// To be passed on to those of [`relay_targets`]; true if this node reaches it.
    pub relay: Vec<(AddrRecord, bool)>,
    /// Addresses that were looked at.
    pub processed: usize,
    /// Addresses that were dropped unseen because the peer sends too many.
    pub rate_limited: usize,
}

/// Addresses between this node and one peer.
#[derive(Debug, Clone)]
pub struct PeerAddrs {
    tokens: AddrTokens,
    /// Hashes, under a secret key, of addresses that the peer knows.
    known: RollingSet<u64>,
    key: (u64, u64),
    to_send: Vec<AddrRecord>,
    wants_v2: bool,
    getaddr_sent: bool,
    getaddr_answered: bool,
}

impl PeerAddrs {
    /// Of a peer that connected at `now` and takes `addrv2` if `wants_v2`; `key` is a
    /// secret of this node.
    #[must_use]
    pub fn new(wants_v2: bool, key: (u64, u64), now: u64) -> Self {
        Self {
            tokens: AddrTokens {
                tokens: TOKENS_PER_ADDR,
                filled_at: now,
            },
            known: RollingSet::new(KNOWN),
            key,
            to_send: Vec::new(),
            wants_v2,
            getaddr_sent: false,
            getaddr_answered: false,
        }
    }

    /// That `getaddr` was sent: its answer gets through whole, and is not news.
    pub fn note_getaddr_sent(&mut self) {
        self.getaddr_sent = true;
        let more = MAX_TOKENS;
        self.tokens.tokens = self.tokens.tokens.saturating_add(more);
    }

    /// Looks at the addresses of an `addr` or `addrv2` message of the peer.
    ///
    /// # Errors
    /// [`TooManyAddrs`] if there are more than there may be.
    pub fn receive(
        &mut self,
        mut records: Vec<AddrRecord>,
        policy: AddrPolicy<'_>,
        now: u64,
        rng: &mut impl Rng,
    ) -> Result<ReceivedAddrs, TooManyAddrs> {
        let count = records.len();
        if count > MAX_ADDRS {
            return Err(TooManyAddrs { count });
        }
        self.tokens.refill(now);
        // Which ones get through is not for the sender to choose.
        records.shuffle(rng);
        let is_news = !self.getaddr_sent && count <= MAX_TO_RELAY;
        let mut received = ReceivedAddrs::default();
        for mut record in records {
            if !self.tokens.take() {
                received.rate_limited += 1;
                continue;
            }
            let useful = [ServiceFlags::NETWORK, ServiceFlags::NETWORK_LIMITED];
            if !useful.iter().any(|flag| record.services.has(*flag)) {
                continue;
            }
            if record.time <= FIRST_TIME || record.time > now + RECENT {
                record.time = now.saturating_sub(UNKNOWN_AGE);
            }
            self.known.insert(self.hash(&record.address));
            let host = &record.address.addr;
            if (policy.is_barred)(host) {
                continue;
            }
            received.processed += 1;
            let is_reachable = (policy.is_reachable)(host);
            let is_recent = record.time > now.saturating_sub(RECENT);
            if is_news && is_recent && host.is_routable() {
                received.relay.push((record, is_reachable));
            }
            if is_reachable {
                received.keep.push(record);
            }
        }
        if count < MAX_ADDRS {
            self.getaddr_sent = false;
        }
        Ok(received)
    }

    /// Whether the peer can be told of `addr` at all.
    #[must_use]
    pub fn takes(&self, addr: &NetAddr) -> bool {
        self.wants_v2 || addr.fits_addr_v1()
    }

    /// Puts an address among those to send, unless the peer knows it or cannot be told.
    /// If there are too many, it takes the place of a random one.
    pub fn push(&mut self, record: AddrRecord, rng: &mut impl Rng) {
        let address = &record.address;
        let is_known = self.known.contains(&self.hash(address));
        if is_known || !address.addr.is_valid() || !self.takes(&address.addr) {
            return;
        }
        if self.to_send.len() < MAX_ADDRS {
            self.to_send.push(record);
        } else {
            let at = rng.gen_range(0..self.to_send.len());
            self.to_send[at] = record;
        }
    }

    /// Puts the answer to the peer's `getaddr` among those to send, in place of what
    /// was there. Only the first one is answered: false for the others.
    pub fn answer_getaddr(&mut self, answer: &[AddrRecord], rng: &mut impl Rng) -> bool {
        if self.getaddr_answered {
            return false;
        }
        self.getaddr_answered = true;
        self.to_send.clear();
        for record in answer {
            self.push(*record, rng);
        }
        true
    }

    /// Takes the addresses to send now, at most [`MAX_ADDRS`]: the peer knows them
    /// from now on.
    pub fn take_to_send(&mut self) -> Vec<AddrRecord> {
        let mut records = std::mem::take(&mut self.to_send);
        let key = self.key;
        records.retain(|record| self.known.insert(hash(key, &record.address)));
        records
    }

    /// Forgets what the peer knows, so that our own address is sent once more.
    pub fn forget_known(&mut self) {
        self.known.clear();
    }

    fn hash(&self, address: &NetAddress) -> u64 {
        hash(self.key, address)
    }
}

fn hash(key: (u64, u64), address: &NetAddress) -> u64 {
    siphash24::Hash::hash_to_u64_with_keys(key.0, key.1, &address.key_bytes())
}

/// The peers that an address is passed on to: two, or one or two if this node does not
/// reach it itself; the same ones for a day. `peers` are those that take part and
/// can be told of it ([`PeerAddrs::takes`]), but for the one that told it; `key` is a
/// secret of this node.
pub fn relay_targets(
    address: &NetAddress,
    is_reachable: bool,
    peers: impl IntoIterator<Item = PeerId>,
    key: (u64, u64),
    now: u64,
) -> Vec<PeerId> {
    let address = hash(key, address);
    // Each address changes its peers at another time of the day.
    let day = (now.wrapping_add(address % ROTATE)) / ROTATE;
    let draw = |peer: Option<PeerId>| {
        let mut bytes = [address.to_le_bytes(), day.to_le_bytes()].concat();
        bytes.extend(peer.iter().flat_map(|peer| peer.0.to_le_bytes()));
        siphash24::Hash::hash_to_u64_with_keys(key.0, key.1, &bytes)
    };
    let count = if is_reachable || draw(None) & 1 == 1 {
        2
    } else {
        1
    };
    let mut best: Vec<(u64, PeerId)> = Vec::with_capacity(count + 1);
    for peer in peers {
        best.push((draw(Some(peer)), peer));
        best.sort_unstable_by(|a, b| b.cmp(a));
        best.truncate(count);
    }
    best.into_iter().map(|(_, peer)| peer).collect()
}

/// Those who get the same answer to `getaddr`: who come through the same network to the
/// same address of ours. Others get another, lest they tell that two of our addresses
/// are one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Audience {
    /// The network that they came through.
    pub network: NetKind,
    /// Where they connected to.
    pub local: SocketAddr,
}

/// The answers to `getaddr` of about a day.
#[derive(Debug, Clone, Default)]
pub struct GetAddrCache {
    answers: HashMap<Audience, (u64, Vec<AddrRecord>)>,
}

impl GetAddrCache {
    /// The answer for `audience`. A new one, from `fill`, is made after 21 to 27 hours:
    /// `fill` is [`crate::addrman::AddrMan::get_addr`] with [`MAX_ADDRS`] and
    /// [`MAX_ADDRS_PERCENT`], without what is barred.
    pub fn answer(
        &mut self,
        audience: Audience,
        now: u64,
        rng: &mut impl Rng,
        fill: impl FnOnce() -> Vec<AddrRecord>,
    ) -> &[AddrRecord] {
        self.answers.retain(|_, (until, _)| now < *until);
        if self.answers.len() >= MAX_CACHES && !self.answers.contains_key(&audience) {
            let soonest = self.answers.iter().min_by_key(|(_, (until, _))| *until);
            if let Some(soonest) = soonest.map(|(audience, _)| *audience) {
                self.answers.remove(&soonest);
            }
        }
        let (_, answer) = self.answers.entry(audience).or_insert_with(|| {
            let until = now + CACHE_MIN + rng.gen_range(0..CACHE_EXTRA);
            (until, fill())
        });
        answer
    }
}

#[cfg(test)]
mod tests;
