//! Whom this node does not want: banned by the operator, or discouraged by itself.
//!
//! | | who decides | for how long | what happens |
//! |---|---|---|---|
//! | banned | the operator | until a time, across restarts | never connected to, never let in |
//! | discouraged | the node, for misbehaviour | until restart, or 50,000 others | let in while there is room, first to be evicted, never dialled |
//!
//! # Security
//! The node itself bans nobody: an attacker could have others banned who share his
//! address, as behind a proxy. Both lists are bounded.

use std::{collections::BTreeMap, fmt, net::IpAddr, str::FromStr};

use crate::{
    netaddr::{NetAddr, ParseNetAddrError},
    rolling::RollingSet,
    saved::{self, Kind, SavedError},
};
use ipnet::IpNet;

/// Seconds that a ban lasts if the operator names no time: a day.
pub const DEFAULT_BAN_SECS: u64 = 24 * 60 * 60;
/// Bans at most.
pub const MAX_BANS: usize = 10_000;
/// Discouraged addresses that are remembered at least.
const DISCOURAGED: usize = 50_000;

/// A ban has at most 1 + 62 + 8 + 8 bytes.
const KIND: Kind = Kind {
    name: *b"pban",
    version: 1,
    max_len: 80 * MAX_BANS,
};
const BAN: &str = "a ban";

/// What a ban applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BanTarget {
    /// All addresses of an IP network; of one host it is `/32` or `/128`.
    Net(IpNet),
    /// One onion, I2P or CJDNS address.
    Host(NetAddr),
}

impl BanTarget {
    /// Whether `addr` is meant.
    #[must_use]
    pub fn contains(&self, addr: &NetAddr) -> bool {
        match (self, addr) {
            (Self::Net(IpNet::V4(net)), NetAddr::Ipv4(ip)) => net.contains(ip),
            (Self::Net(IpNet::V6(net)), NetAddr::Ipv6(ip)) => net.contains(ip),
            (Self::Net(_), _) => false,
            (Self::Host(host), addr) => host == addr,
        }
    }
}

impl From<NetAddr> for BanTarget {
    fn from(addr: NetAddr) -> Self {
        match addr {
            NetAddr::Ipv4(ip) => Self::Net(IpAddr::V4(ip).into()),
            NetAddr::Ipv6(ip) => Self::Net(IpAddr::V6(ip).into()),
            host => Self::Host(host),
        }
    }
}

impl From<IpNet> for BanTarget {
    fn from(net: IpNet) -> Self {
        Self::Net(net.trunc())
    }
}

impl FromStr for BanTarget {
    type Err = ParseNetAddrError;

    /// Parses `IP/BITS`, an IP address, or an onion or I2P address.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(net) = text.parse::<IpNet>() {
            return Ok(net.into());
        }
        let addr = text.parse::<NetAddr>();
        addr.map(Self::from)
            .map_err(|_| ParseNetAddrError::new("an address or a network of addresses", text))
    }
}

impl fmt::Display for BanTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Net(net) if net.prefix_len() == net.max_prefix_len() => net.addr().fmt(f),
            Self::Net(net) => net.fmt(f),
            Self::Host(addr) => addr.fmt(f),
        }
    }
}

/// How long a ban lasts. In seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ban {
    /// When it was set.
    pub since: u64,
    /// First moment at which it is over.
    pub until: u64,
}

/// No more bans fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are {MAX_BANS} bans already. Hint: ban a network instead of its addresses")]
pub struct TooManyBans;

/// The operator's bans.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BanList {
    bans: BTreeMap<BanTarget, Ban>,
}

impl BanList {
    /// Bans `target` from `now` until `until`, and says whether that changes anything:
    /// a ban that lasts longer stays as it is.
    ///
    /// # Errors
    /// [`TooManyBans`] above [`MAX_BANS`].
    pub fn ban(&mut self, target: BanTarget, now: u64, until: u64) -> Result<bool, TooManyBans> {
        self.sweep(now);
        let known = self.bans.get(&target);
        if until <= now || known.is_some_and(|ban| ban.until >= until) {
            return Ok(false);
        }
        if known.is_none() && self.bans.len() >= MAX_BANS {
            return Err(TooManyBans);
        }
        self.bans.insert(target, Ban { since: now, until });
        Ok(true)
    }

    /// Lifts the ban of exactly this `target`; false if there is none.
    pub fn unban(&mut self, target: &BanTarget) -> bool {
        self.bans.remove(target).is_some()
    }

    /// Whether a ban applies to `addr` at `now`.
    #[must_use]
    pub fn is_banned(&self, addr: &NetAddr, now: u64) -> bool {
        self.iter(now).any(|(target, _)| target.contains(addr))
    }

    /// The bans that are not over at `now`.
    pub fn iter(&self, now: u64) -> impl Iterator<Item = (&BanTarget, &Ban)> {
        self.bans.iter().filter(move |(_, ban)| now < ban.until)
    }

    /// Forgets the bans that are over; true if there were any.
    pub fn sweep(&mut self, now: u64) -> bool {
        let before = self.bans.len();
        self.bans.retain(|_, ban| now < ban.until);
        self.bans.len() < before
    }

    /// As bytes, to be saved.
    ///
    /// ```text
    /// count: u32 | each: length and text of the target | since: u64 | until: u64
    /// ```
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let count = u32::try_from(self.bans.len()).expect("at most MAX_BANS");
        saved::put(&mut bytes, &count);
        for (target, ban) in &self.bans {
            let text = match target {
                BanTarget::Net(net) => net.to_string(), // with its bits, always
                BanTarget::Host(addr) => addr.to_string(),
            };
            saved::put(&mut bytes, &text);
            saved::put(&mut bytes, &ban.since);
            saved::put(&mut bytes, &ban.until);
        }
        KIND.seal(&bytes)
    }

    /// From the bytes of [`BanList::encode`].
    ///
    /// # Errors
    /// [`SavedError`] if anything is wrong with them.
    pub fn decode(bytes: &[u8]) -> Result<Self, SavedError> {
        let malformed = || SavedError::Malformed { what: BAN };
        let mut bytes = KIND.open(bytes)?;
        let bytes = &mut bytes;
        let count: u32 = saved::take(bytes, BAN)?;
        let mut bans = BTreeMap::new();
        for _ in 0..count {
            let text: String = saved::take(bytes, BAN)?;
            let target = text.parse().map_err(|_| malformed())?;
            let since = saved::take(bytes, BAN)?;
            let until = saved::take(bytes, BAN)?;
            bans.insert(target, Ban { since, until });
        }
        saved::finish(bytes, "the end")?;
        if bans.len() > MAX_BANS {
            return Err(malformed());
        }
        Ok(Self { bans })
    }
}

/// Hosts that misbehaved. Bounded, and forgotten with the process.
#[derive(Debug, Clone)]
pub struct Discouraged {
    hosts: RollingSet<NetAddr>,
}

impl Default for Discouraged {
    fn default() -> Self {
        let hosts = RollingSet::new(DISCOURAGED);
        Self { hosts }
    }
}

impl Discouraged {
    /// Remembers `addr`; the oldest make room.
    pub fn add(&mut self, addr: NetAddr) {
        self.hosts.insert(addr);
    }

    /// Whether `addr` misbehaved.
    #[must_use]
    pub fn contains(&self, addr: &NetAddr) -> bool {
        self.hosts.contains(addr)
    }

    /// Forgives `addr`; true if there was something to forgive.
    pub fn remove(&mut self, addr: &NetAddr) -> bool {
        self.hosts.remove(addr)
    }

    /// Forgives all.
    pub fn clear(&mut self) {
        self.hosts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;
    const ONION: &str = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion";

    fn addr(text: &str) -> NetAddr {
        text.parse().unwrap()
    }

    fn list(targets: &[&str]) -> BanList {
        let mut list = BanList::default();
        for target in targets {
            let target = target.parse().unwrap();
            assert_eq!(list.ban(target, NOW, NOW + 100), Ok(true));
        }
        list
    }

    #[test]
    fn a_ban_covers_its_addresses_and_no_others() {
        let list = list(&["1.2.3.4", "5.6.0.0/16", "2a00::/32", ONION, "fc00::5"]);
        for text in ["1.2.3.4", "5.6.7.8", "2a00:0:1::1", ONION, "fc00::5"] {
            assert!(list.is_banned(&addr(text), NOW), "{text}");
        }
        for text in ["1.2.3.5", "5.7.0.0", "2a01::1", "fc00::6"] {
            assert!(!list.is_banned(&addr(text), NOW), "{text}");
        }
    }

    #[test]
    fn a_ban_ends_at_its_time() {
        let mut list = list(&["1.2.3.4"]);
        assert!(list.is_banned(&addr("1.2.3.4"), NOW + 99));
        assert!(!list.is_banned(&addr("1.2.3.4"), NOW + 100));
        assert!(!list.sweep(NOW + 99));
        assert!(list.sweep(NOW + 100));
        assert_eq!(list, BanList::default());
    }

    #[test]
    fn a_shorter_ban_does_not_shorten_a_longer_one() {
        let mut list = list(&["1.2.3.4"]);
        let target = "1.2.3.4".parse().unwrap();
        assert_eq!(list.ban(target, NOW, NOW + 50), Ok(false));
        assert!(list.is_banned(&addr("1.2.3.4"), NOW + 99));
        assert_eq!(list.ban(target, NOW, NOW + 200), Ok(true));
        assert!(list.is_banned(&addr("1.2.3.4"), NOW + 199));
        assert!(list.unban(&target));
        assert!(!list.is_banned(&addr("1.2.3.4"), NOW));
        assert!(!list.unban(&target));
    }

    #[test]
    fn bans_survive_being_saved() {
        let list = list(&[
            "1.2.3.4",
            "5.6.0.0/16",
            "::ffff:0:0/96",
            "fc00::/7",
            "fd00::1/128",
            ONION,
            "fc00::5",
        ]);
        assert_eq!(BanList::decode(&list.encode()), Ok(list));
    }

    #[test]
    fn damaged_bans_are_refused_and_never_panic() {
        let bytes = list(&["1.2.3.4", ONION]).encode();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert!(BanList::decode(&damaged).is_err());
            assert!(BanList::decode(&bytes[..at]).is_err());
        }
        let one = KIND.seal(&[1, 0, 0, 0, 1, b'x', 0]);
        assert_eq!(
            BanList::decode(&one),
            Err(SavedError::Malformed { what: BAN })
        );
    }

    #[test]
    fn there_are_only_so_many_bans() {
        let mut list = BanList::default();
        for number in 0..=u32::try_from(MAX_BANS).unwrap() {
            let target = NetAddr::Ipv4(number.into()).into();
            let fits = usize::try_from(number).unwrap() < MAX_BANS;
            assert_eq!(list.ban(target, NOW, NOW + 1).is_ok(), fits);
        }
        // Those that are over make room.
        let target = "9.9.9.9".parse().unwrap();
        assert_eq!(list.ban(target, NOW + 1, NOW + 2), Ok(true));
        assert_eq!(BanList::decode(&list.encode()), Ok(list));
    }

    #[test]
    fn targets_show_as_they_parse() {
        for text in ["1.2.3.4", "5.6.0.0/16", "2a00::/32", "2a00::1", ONION] {
            assert_eq!(text.parse::<BanTarget>().unwrap().to_string(), text);
        }
        assert_eq!("5.6.7.8/16".parse(), "5.6.0.0/16".parse::<BanTarget>());
        assert!("example.com".parse::<BanTarget>().is_err());
    }

    #[test]
    fn discouraged_hosts_are_remembered_until_forgiven() {
        let mut hosts = Discouraged::default();
        hosts.add(addr("1.2.3.4"));
        assert!(hosts.contains(&addr("1.2.3.4")));
        assert!(!hosts.contains(&addr("1.2.3.5")));
        assert!(hosts.remove(&addr("1.2.3.4")));
        assert!(!hosts.contains(&addr("1.2.3.4")));
    }
}
