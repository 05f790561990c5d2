//! Addresses of peers as the network passes them on (BIP 155).
//!
//! Unlike [`PeerAddr`](crate::PeerAddr), which the operator writes and may be a DNS
//! name, a [`NetAddr`] is always of one of the networks that BIP 155 numbers, and two
//! that are equal are the same host.
//!
//! # Correctness
//! An IPv4 address inside IPv6 (`::ffff:0:0/96`) is the IPv4 address: the conversions
//! of this module see to it, so build [`NetAddr::Ipv6`] through them.
//!
//! # Security
//! What a peer claims is only kept, dialled or passed on when [`NetAddr::is_routable`].

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use data_encoding::{BASE32_NOPAD, BASE32_NOPAD_NOCASE};
use pulse_primitives::bitcoin::p2p::{
    ServiceFlags,
    address::{AddrV2, Address},
};
use serde::{Deserialize, Serialize};
use sha3::{Digest, Sha3_256};

/// Length of an onion address before its coding: key, checksum, version.
const ONION_LEN: usize = 32 + 2 + 1;

/// The only version of onion addresses that Tor still serves.
const ONION_VERSION: u8 = 3;

/// A network through which peers are reached.
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
    /// All networks.
    pub const ALL: [Self; 5] = [Self::Ipv4, Self::Ipv6, Self::Onion, Self::I2p, Self::Cjdns];

    /// Its name on the command line, in files and in labels.
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

    /// Number of the network in BIP 155.
    #[must_use]
    pub fn bip155_id(self) -> u8 {
        match self {
            Self::Ipv4 => 1,
            Self::Ipv6 => 2,
            Self::Onion => 4,
            Self::I2p => 5,
            Self::Cjdns => 6,
        }
    }
}

impl fmt::Display for NetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct ParseNetAddrError {
    /// What was expected.
    pub what: &'static str,
    /// What was there, cut to a length that is fit to print.
    pub text: String,
}

impl ParseNetAddrError {
    pub(crate) fn new(what: &'static str, text: &str) -> Self {
        let text = text.chars().take(100).collect();
        Self { what, text }
    }
}

impl FromStr for NetKind {
    type Err = ParseNetAddrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|network| network.name() == text)
            .ok_or_else(|| {
                ParseNetAddrError::new("a network (ipv4, ipv6, onion, i2p or cjdns)", text)
            })
    }
}

/// Address of a host, without a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum NetAddr {
    /// IPv4.
    Ipv4(Ipv4Addr),
    /// IPv6, but not an IPv4 address inside it.
    Ipv6(Ipv6Addr),
    /// Ed25519 key of a Tor onion service, version 3.
    TorV3([u8; 32]),
    /// SHA-256 of an I2P destination.
    I2p([u8; 32]),
    /// CJDNS, within `fc00::/8`.
    Cjdns(Ipv6Addr),
}

impl From<IpAddr> for NetAddr {
    fn from(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::Ipv4(ip),
            IpAddr::V6(ip) => Self::Ipv6(ip),
        }
    }
}

impl From<Ipv4Addr> for NetAddr {
    fn from(ip: Ipv4Addr) -> Self {
        Self::Ipv4(ip)
    }
}

impl From<Ipv6Addr> for NetAddr {
    fn from(ip: Ipv6Addr) -> Self {
        IpAddr::V6(ip).into()
    }
}

impl NetAddr {
    /// The network that it belongs to. See [`NetAddr::net_class`] for the one that it is
    /// reached through.
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

    /// The IP address under which it is reached; `None` for onion and I2P addresses.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ipv4(ip) => Some(IpAddr::V4(*ip)),
            Self::Ipv6(ip) | Self::Cjdns(ip) => Some(IpAddr::V6(*ip)),
            Self::TorV3(_) | Self::I2p(_) => None,
        }
    }

    /// An IPv6 address of `fc00::/8` as the CJDNS address that it is for a node which
    /// reaches CJDNS; everything else as it is.
    #[must_use]
    pub fn flipped_to_cjdns(self) -> Self {
        match self {
            Self::Ipv6(ip) if ip.octets()[0] == 0xfc => Self::Cjdns(ip),
            other => other,
        }
    }

    /// Whether it could be the address of a host at all, in the public network or not.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        match self {
            Self::Ipv4(ip) => !ip.is_unspecified() && !ip.is_broadcast(),
            // 2001:db8::/32 is for documentation (RFC 3849).
            Self::Ipv6(ip) => !ip.is_unspecified() && !starts_with(ip, &[0x20, 0x01, 0x0d, 0xb8]),
            Self::TorV3(_) | Self::I2p(_) => true,
            Self::Cjdns(ip) => ip.octets()[0] == 0xfc,
        }
    }

    /// Whether it leads somewhere from everywhere in its network. The same ranges as in
    /// Bitcoin Core's `CNetAddr::IsRoutable`.
    #[must_use]
    pub fn is_routable(&self) -> bool {
        self.is_valid()
            && match self {
                Self::Ipv4(ip) => !is_special_ipv4(*ip),
                Self::Ipv6(ip) => !is_special_ipv6(ip),
                Self::TorV3(_) | Self::I2p(_) | Self::Cjdns(_) => true,
            }
    }

    /// Whether it is the host itself: `127.0.0.0/8`, `0.0.0.0/8` or `::1`.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Ipv4(ip) => is_local_ipv4(*ip),
            Self::Ipv6(ip) => ip.is_loopback(),
            _ => false,
        }
    }

    /// The IPv4 address that it is or leads to: inside a NAT64 (RFC 6052), SIIT
    /// (RFC 6145), 6to4 (RFC 3964) or Teredo (RFC 4380) address. `None` when there is
    /// none, or when it is not routable.
    #[must_use]
    pub fn linked_ipv4(&self) -> Option<Ipv4Addr> {
        if !self.is_routable() {
            return None;
        }
        let ip = match self {
            Self::Ipv4(ip) => return Some(*ip),
            Self::Ipv6(ip) => ip,
            _ => return None,
        };
        let bytes = ip.octets();
        let [.., a, b, c, d] = bytes;
        if starts_with(ip, &[0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0])
            || starts_with(ip, &[0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0])
        {
            Some(Ipv4Addr::new(a, b, c, d))
        } else if starts_with(ip, &[0x20, 0x02]) {
            Some(Ipv4Addr::new(bytes[2], bytes[3], bytes[4], bytes[5]))
        } else if starts_with(ip, &[0x20, 0x01, 0, 0]) {
            Some(Ipv4Addr::new(!a, !b, !c, !d))
        } else {
            None
        }
    }

    /// The network that it is reached through: as [`NetAddr::kind`], but IPv4 for an
    /// IPv6 address that leads to an IPv4 one, and `None` when it is not routable.
    #[must_use]
    pub fn net_class(&self) -> Option<NetKind> {
        if !self.is_routable() {
            return None;
        }
        if self.linked_ipv4().is_some() {
            return Some(NetKind::Ipv4);
        }
        Some(self.kind())
    }

    /// Whether an `addr` message can carry it; the others need `addrv2`.
    #[must_use]
    pub fn fits_addr_v1(&self) -> bool {
        matches!(self, Self::Ipv4(_) | Self::Ipv6(_))
    }

    /// Bytes that tell it from every other address: 16 (IPv6, IPv4 mapped into it, and
    /// CJDNS) or 32. For hashing under a secret key.
    #[must_use]
    pub fn key_bytes(&self) -> Vec<u8> {
        match self {
            Self::Ipv4(ip) => ip.to_ipv6_mapped().octets().to_vec(),
            Self::Ipv6(ip) | Self::Cjdns(ip) => ip.octets().to_vec(),
            Self::TorV3(bytes) | Self::I2p(bytes) => bytes.to_vec(),
        }
    }

    /// From an entry of an `addrv2` message. `None` for a network that is not known
    /// here, for onion addresses of version 2, and for IPv6 addresses which BIP 155
    /// forbids (those that wrap an address of another network).
    #[must_use]
    pub fn from_addr_v2(addr: &AddrV2) -> Option<Self> {
        match addr {
            AddrV2::Ipv4(ip) => Some(Self::Ipv4(*ip)),
            AddrV2::Ipv6(ip) => {
                let wraps = ip.to_ipv4_mapped().is_some() || is_onion_cat(ip);
                (!wraps).then_some(Self::Ipv6(*ip))
            }
            AddrV2::TorV3(bytes) => Some(Self::TorV3(*bytes)),
            AddrV2::I2p(bytes) => Some(Self::I2p(*bytes)),
            AddrV2::Cjdns(ip) => Some(Self::Cjdns(*ip)),
            AddrV2::TorV2(_) | AddrV2::Unknown(..) => None,
        }
    }

    /// For an entry of an `addrv2` message.
    #[must_use]
    pub fn to_addr_v2(&self) -> AddrV2 {
        match self {
            Self::Ipv4(ip) => AddrV2::Ipv4(*ip),
            Self::Ipv6(ip) => AddrV2::Ipv6(*ip),
            Self::TorV3(bytes) => AddrV2::TorV3(*bytes),
            Self::I2p(bytes) => AddrV2::I2p(*bytes),
            Self::Cjdns(ip) => AddrV2::Cjdns(*ip),
        }
    }
}

/// 169.254.0.0/16 and the other ranges that no public host has.
fn is_special_ipv4(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    let is_benchmark = a == 198 && (b == 18 || b == 19); // RFC 2544
    let is_shared = a == 100 && (64..=127).contains(&b); // RFC 6598
    ip.is_private()
        || ip.is_link_local()
        || ip.is_documentation()
        || is_benchmark
        || is_shared
        || is_local_ipv4(ip)
}

fn is_special_ipv6(ip: &Ipv6Addr) -> bool {
    let bytes = ip.octets();
    let is_orchid = starts_with(ip, &[0x20, 0x01, 0]) && matches!(bytes[3] & 0xf0, 0x10 | 0x20); // RFC 4843, RFC 7343
    starts_with(ip, &[0xfe, 0x80, 0, 0, 0, 0, 0, 0]) // RFC 4862
        || bytes[0] & 0xfe == 0xfc // RFC 4193
        || is_orchid
        || ip.is_loopback()
}

fn is_local_ipv4(ip: Ipv4Addr) -> bool {
    matches!(ip.octets()[0], 0 | 127)
}

/// The range into which onion addresses of version 2 were mapped.
fn is_onion_cat(ip: &Ipv6Addr) -> bool {
    starts_with(ip, &[0xfd, 0x87, 0xd8, 0x7e, 0xeb, 0x43])
}

fn starts_with(ip: &Ipv6Addr, prefix: &[u8]) -> bool {
    ip.octets().starts_with(prefix)
}

impl fmt::Display for NetAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ipv4(ip) => ip.fmt(f),
            Self::Ipv6(ip) | Self::Cjdns(ip) => ip.fmt(f),
            Self::TorV3(key) => {
                let mut bytes = [0; ONION_LEN];
                bytes[..32].copy_from_slice(key);
                bytes[32..34].copy_from_slice(&onion_checksum(key));
                bytes[34] = ONION_VERSION;
                let name = BASE32_NOPAD.encode(&bytes).to_ascii_lowercase();
                write!(f, "{name}.onion")
            }
            Self::I2p(hash) => {
                let name = BASE32_NOPAD.encode(hash).to_ascii_lowercase();
                write!(f, "{name}.b32.i2p")
            }
        }
    }
}

impl FromStr for NetAddr {
    type Err = ParseNetAddrError;

    /// Parses an IP address (IPv6 without brackets), `KEY.onion` or `HASH.b32.i2p`.
    /// What lies in `fc00::/8` is taken as CJDNS: as IPv6 it leads nowhere.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = if let Some(name) = strip_suffix_nocase(text, ".onion") {
            parse_onion(name)
        } else if let Some(name) = strip_suffix_nocase(text, ".b32.i2p") {
            decode_base32(name).map(Self::I2p)
        } else {
            let ip = text.parse::<IpAddr>().ok();
            ip.map(|ip| Self::from(ip).flipped_to_cjdns())
        };
        found.ok_or_else(|| ParseNetAddrError::new("an IP, onion or I2P address", text))
    }
}

fn strip_suffix_nocase<'a>(text: &'a str, suffix: &str) -> Option<&'a str> {
    let at = text.len().checked_sub(suffix.len())?;
    let (name, end) = (text.get(..at)?, text.get(at..)?);
    end.eq_ignore_ascii_case(suffix).then_some(name)
}

fn decode_base32<const N: usize>(text: &str) -> Option<[u8; N]> {
    let bytes = BASE32_NOPAD_NOCASE.decode(text.as_bytes()).ok()?;
    bytes.try_into().ok()
}

fn parse_onion(name: &str) -> Option<NetAddr> {
    let bytes: [u8; ONION_LEN] = decode_base32(name)?;
    let key: [u8; 32] = bytes[..32].try_into().ok()?;
    let is_right = bytes[32..34] == onion_checksum(&key) && bytes[34] == ONION_VERSION;
    is_right.then_some(NetAddr::TorV3(key))
}

/// First two bytes of SHA3-256(".onion checksum" || key || version), as Tor has it.
fn onion_checksum(key: &[u8; 32]) -> [u8; 2] {
    let hash = Sha3_256::new()
        .chain_update(b".onion checksum")
        .chain_update(key)
        .chain_update([ONION_VERSION])
        .finalize();
    [hash[0], hash[1]]
}

/// Where a peer listens: a host and its port. I2P has no ports; there it is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetAddress {
    /// Host.
    pub addr: NetAddr,
    /// TCP port.
    pub port: u16,
}

impl NetAddress {
    /// A host and a port.
    #[must_use]
    pub fn new(addr: impl Into<NetAddr>, port: u16) -> Self {
        let addr = addr.into();
        Self { addr, port }
    }

    /// Parses `HOST:PORT`, `HOST`, `IPV6` or `[IPV6]:PORT`, each host as [`NetAddr`]
    /// has it; without a port it is `default_port`.
    ///
    /// # Errors
    /// When the host is a DNS name or nothing at all, or the port no number.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, ParseNetAddrError> {
        let err = || ParseNetAddrError::new("an address with or without a port", text);
        if let Ok(addr) = text.parse::<NetAddr>() {
            let port = default_port;
            return Ok(Self { addr, port });
        }
        let bracketed = text.strip_prefix('[');
        let (host, port) = match bracketed {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(err)?;
                let ip: Ipv6Addr = host.parse().map_err(|_| err())?;
                let addr = NetAddr::from(ip).flipped_to_cjdns();
                if rest.is_empty() {
                    let port = default_port;
                    return Ok(Self { addr, port });
                }
                (addr, rest.strip_prefix(':').ok_or_else(err)?)
            }
            None => {
                let (host, port) = text.rsplit_once(':').ok_or_else(err)?;
                if host.contains(':') {
                    return Err(err());
                }
                (host.parse().map_err(|_| err())?, port)
            }
        };
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|_| is_number).ok_or_else(err)?;
        Ok(Self { addr: host, port })
    }

    /// From an entry of an `addr` message. `None` for the range that once stood for
    /// onion addresses.
    #[must_use]
    pub fn from_addr_v1(address: &Address) -> Option<Self> {
        let ip = Ipv6Addr::from(address.address);
        (!is_onion_cat(&ip)).then(|| Self::new(ip, address.port))
    }

    /// For an entry of an `addr` message; `None` if it needs `addrv2`.
    #[must_use]
    pub fn to_addr_v1(&self, services: ServiceFlags) -> Option<Address> {
        let socket = self.socket_addr().filter(|_| self.addr.fits_addr_v1())?;
        Some(Address::new(&socket, services))
    }

    /// The address to dial directly; `None` for onion and I2P addresses.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.addr.ip()?, self.port))
    }

    /// Bytes that tell it from every other: those of the host, then the port in big
    /// endian.
    #[must_use]
    pub fn key_bytes(&self) -> Vec<u8> {
        let mut bytes = self.addr.key_bytes();
        bytes.extend_from_slice(&self.port.to_be_bytes());
        bytes
    }
}

impl From<SocketAddr> for NetAddress {
    fn from(socket: SocketAddr) -> Self {
        Self::new(socket.ip(), socket.port())
    }
}

impl fmt::Display for NetAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.addr {
            NetAddr::Ipv6(ip) | NetAddr::Cjdns(ip) => write!(f, "[{ip}]:{}", self.port),
            addr => write!(f, "{addr}:{}", self.port),
        }
    }
}

impl FromStr for NetAddress {
    type Err = ParseNetAddrError;

    /// As [`NetAddress::parse`], but the port must be there.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // With two different defaults the result differs when the text has no port.
        match (Self::parse(text, 0)?, Self::parse(text, 1)?) {
            (found, again) if found == again => Ok(found),
            _ => Err(ParseNetAddrError::new("an address with a port", text)),
        }
    }
}

#[cfg(test)]
mod tests;
