//! Addresses that peers tell of each other: what they are, and their two encodings.
//!
//! ```text
//! addr     count, each: time u32 LE | services u64 LE | IPv6 16 (IPv4 mapped) | port u16 BE
//! addrv2   count, each: time u32 LE | services CompactSize | network u8 |
//!          CompactSize length and bytes | port u16 BE                          (BIP 155)
//! ```
//!
//! # Security
//! At most [`MAX_ADDR`] entries are taken; the count is judged before anything is
//! allocated. Entries of networks that are not known, or that hide one network in
//! another, are skipped as in Bitcoin Core; the others of the message stay.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use data_encoding::BASE32_NOPAD_NOCASE;
use pulse_primitives::bitcoin::{
    VarInt,
    p2p::{
        ServiceFlags,
        address::{AddrV2, AddrV2Message, Address},
    },
};
use serde::{Deserialize, Serialize};
use sha3::{Digest, Sha3_256};

use crate::message::{DecodeError, take, take_bytes, take_count};

/// Most entries of `addr` and `addrv2` (Bitcoin Core's `MAX_ADDR_TO_SEND`).
pub const MAX_ADDR: usize = 1000;
/// Longest address of `addrv2`, in bytes (BIP 155).
const MAX_ADDRV2_LEN: usize = 512;

/// Suffix of the names of Tor's onion services.
const ONION: &str = ".onion";
/// Suffix of the names of I2P destinations.
const I2P: &str = ".b32.i2p";
/// IPv6 addresses that mean an address of Tor's second version (OnionCat).
const TOR_V2_IN_IPV6: [u8; 6] = [0xfd, 0x87, 0xd8, 0x7e, 0xeb, 0x43];
/// IPv6 addresses that Bitcoin Core uses for names inside itself.
const INTERNAL_IN_IPV6: [u8; 6] = [0xfd, 0x6b, 0x88, 0xc0, 0x87, 0x24];

/// A network in which peers can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetKind {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
    /// Tor onion services, version 3.
    Onion,
    /// I2P.
    I2p,
    /// CJDNS.
    Cjdns,
}

impl NetKind {
    /// Every network.
    pub const ALL: [Self; 5] = [Self::Ipv4, Self::Ipv6, Self::Onion, Self::I2p, Self::Cjdns];

    /// Its name in the configuration and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
            Self::Onion => "onion",
            Self::I2p => "i2p",
            Self::Cjdns => "cjdns",
        }
    }
}

impl fmt::Display for NetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for NetKind {
    type Err = UnknownNetwork;

    fn from_str(text: &str) -> Result<Self, UnknownNetwork> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| UnknownNetwork(text.to_owned()))
    }
}

/// The name is not one of [`NetKind::ALL`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown network {0:?}; known are ipv4, ipv6, onion, i2p and cjdns")]
pub struct UnknownNetwork(String);

/// Address of a peer, without its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NetAddr {
    /// IPv4.
    Ipv4(Ipv4Addr),
    /// IPv6, never a mapped IPv4 address.
    Ipv6(Ipv6Addr),
    /// Public key of a Tor onion service, version 3.
    TorV3([u8; 32]),
    /// SHA-256 of an I2P destination.
    I2p([u8; 32]),
    /// CJDNS, in `fc00::/8`.
    Cjdns(Ipv6Addr),
}

impl NetAddr {
    /// The network that it belongs to.
    #[must_use]
    pub fn kind(&self) -> NetKind {
        match self {
            Self::Ipv4(_) => NetKind::Ipv4,
            Self::Ipv6(_) => NetKind::Ipv6,
            Self::TorV3(_) => NetKind::Onion,
            Self::I2p(_) => NetKind::I2p,
            Self::Cjdns(_) => NetKind::Cjdns,
        }
    }

    /// The IP address under which it is reached; `None` if it is a name of an overlay.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match *self {
            Self::Ipv4(ip) => Some(ip.into()),
            Self::Ipv6(ip) | Self::Cjdns(ip) => Some(ip.into()),
            Self::TorV3(_) | Self::I2p(_) => None,
        }
    }

    /// Whether the older `addr` message can carry it.
    #[must_use]
    pub fn fits_addr_v1(&self) -> bool {
        matches!(self, Self::Ipv4(_) | Self::Ipv6(_))
    }

    fn to_v2(self) -> AddrV2 {
        match self {
            Self::Ipv4(ip) => AddrV2::Ipv4(ip),
            Self::Ipv6(ip) => AddrV2::Ipv6(ip),
            Self::TorV3(key) => AddrV2::TorV3(key),
            Self::I2p(hash) => AddrV2::I2p(hash),
            Self::Cjdns(ip) => AddrV2::Cjdns(ip),
        }
    }

    /// `None` if another network is hidden in the address, as the old encoding did.
    fn from_ipv6(octets: [u8; 16]) -> Option<Self> {
        let hidden = |prefix: [u8; 6]| octets.starts_with(&prefix);
        if hidden(TOR_V2_IN_IPV6) || hidden(INTERNAL_IN_IPV6) {
            return None;
        }
        Some(Ipv6Addr::from(octets).into())
    }
}

impl From<Ipv4Addr> for NetAddr {
    fn from(ip: Ipv4Addr) -> Self {
        Self::Ipv4(ip)
    }
}

impl From<Ipv6Addr> for NetAddr {
    fn from(ip: Ipv6Addr) -> Self {
        ip.to_ipv4_mapped().map_or(Self::Ipv6(ip), Self::Ipv4)
    }
}

impl From<IpAddr> for NetAddr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => ip.into(),
        }
    }
}

impl fmt::Display for NetAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4(ip) => ip.fmt(f),
            Self::Ipv6(ip) | Self::Cjdns(ip) => ip.fmt(f),
            Self::TorV3(key) => {
                let [a, b] = onion_checksum(key);
                let bytes = [key.as_slice(), &[a, b, 3]].concat();
                write!(f, "{}{ONION}", base32(&bytes))
            }
            Self::I2p(hash) => write!(f, "{}{I2P}", base32(hash)),
        }
    }
}

/// The text is not an address that is known here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the address of a peer: {0:?}")]
pub struct NotAnAddress(String);

impl FromStr for NetAddr {
    type Err = NotAnAddress;

    /// Reads what [`fmt::Display`] shows, but for CJDNS, which looks like IPv6. DNS
    /// names are not addresses.
    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let overlay = |suffix: &str| {
            let at = text.len().checked_sub(suffix.len())?;
            let name = text.get(..at)?;
            text[at..].eq_ignore_ascii_case(suffix).then_some(name)
        };
        let parsed = if let Some(name) = overlay(ONION) {
            parse_onion(name)
        } else if let Some(name) = overlay(I2P) {
            base32_decode::<32>(name).map(Self::I2p)
        } else {
            text.parse::<IpAddr>().ok().map(Self::from)
        };
        parsed.ok_or_else(|| NotAnAddress(text.to_owned()))
    }
}

fn parse_onion(name: &str) -> Option<NetAddr> {
    let bytes = base32_decode::<35>(name)?;
    let (key, rest) = bytes.split_first_chunk::<32>()?;
    let [a, b] = onion_checksum(key);
    (rest == [a, b, 3]).then_some(NetAddr::TorV3(*key))
}

/// Tor's rend-spec-v3: the first bytes of SHA3-256(".onion checksum" | key | version 3).
fn onion_checksum(key: &[u8; 32]) -> [u8; 2] {
    let hash = Sha3_256::new()
        .chain_update(b".onion checksum")
        .chain_update(key)
        .chain_update([3])
        .finalize();
    [hash[0], hash[1]]
}

fn base32(bytes: &[u8]) -> String {
    BASE32_NOPAD_NOCASE.encode(bytes).to_ascii_lowercase()
}

fn base32_decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let bytes = BASE32_NOPAD_NOCASE.decode(text.as_bytes()).ok()?;
    bytes.try_into().ok()
}

/// One entry of an `addr` or `addrv2` message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddrEntry {
    /// When the peer was last seen by whoever tells it, in seconds since 1970.
    pub time: u32,
    /// Services that it is said to offer.
    pub services: ServiceFlags,
    /// Where it is.
    pub addr: NetAddr,
    /// TCP port; 0 where the network has none.
    pub port: u16,
}

impl AddrEntry {
    /// The entry for `addr`; `None` if that message cannot carry the address.
    pub(crate) fn to_v1(self) -> Option<(u32, Address)> {
        let ip = self.addr.ip().filter(|_| self.addr.fits_addr_v1())?;
        let socket = SocketAddr::new(ip, self.port);
        Some((self.time, Address::new(&socket, self.services)))
    }

    /// The entry for `addrv2`.
    pub(crate) fn to_v2(self) -> AddrV2Message {
        AddrV2Message {
            time: self.time,
            services: self.services,
            addr: self.addr.to_v2(),
            port: self.port,
        }
    }
}

/// Decodes an `addr` message.
pub(crate) fn decode_addr(mut payload: &[u8]) -> Result<Vec<AddrEntry>, DecodeError> {
    let rest = &mut payload;
    let count = take_count(rest, MAX_ADDR, 30)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let time = take::<u32>(rest)?;
        let services = ServiceFlags::from(take::<u64>(rest)?);
        let addr = NetAddr::from_ipv6(take_bytes(rest)?);
        let port = u16::from_be_bytes(take_bytes(rest)?);
        entries.extend(addr.map(|addr| AddrEntry {
            time,
            services,
            addr,
            port,
        }));
    }
    Ok(entries)
}

/// Decodes an `addrv2` message (BIP 155).
pub(crate) fn decode_addrv2(mut payload: &[u8]) -> Result<Vec<AddrEntry>, DecodeError> {
    let rest = &mut payload;
    // The least: time, services, network, an empty address, port.
    let count = take_count(rest, MAX_ADDR, 4 + 1 + 1 + 1 + 2)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let time = take::<u32>(rest)?;
        let services = ServiceFlags::from(take::<VarInt>(rest)?.0);
        let network = take::<u8>(rest)?;
        let len = take_count(rest, MAX_ADDRV2_LEN, 1)?;
        let (bytes, after) = rest.split_at(len);
        *rest = after;
        let addr = decode_v2_address(network, bytes)?;
        let port = u16::from_be_bytes(take_bytes(rest)?);
        entries.extend(addr.map(|addr| AddrEntry {
            time,
            services,
            addr,
            port,
        }));
    }
    Ok(entries)
}

/// `None` for an address that is to be skipped. A wrong length of a network that is
/// known spoils the message (BIP 155).
fn decode_v2_address(network: u8, bytes: &[u8]) -> Result<Option<NetAddr>, DecodeError> {
    fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N], DecodeError> {
        bytes.try_into().map_err(|_| DecodeError::Malformed)
    }
    Ok(match network {
        1 => Some(NetAddr::Ipv4(fixed::<4>(bytes)?.into())),
        2 => {
            // A mapped IPv4 address has a network of its own.
            let addr = NetAddr::from_ipv6(fixed(bytes)?);
            addr.filter(|addr| addr.kind() == NetKind::Ipv6)
        }
        4 => Some(NetAddr::TorV3(fixed(bytes)?)),
        5 => Some(NetAddr::I2p(fixed(bytes)?)),
        6 => {
            let octets = fixed::<16>(bytes)?;
            (octets[0] == 0xfc).then(|| NetAddr::Cjdns(octets.into()))
        }
        // Among them 3, which was the second version of Tor.
        _ => None,
    })
}

#[cfg(test)]
mod tests;
