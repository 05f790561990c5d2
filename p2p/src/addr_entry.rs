//! Entries of `addr` and `addrv2` messages.
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

use pulse_primitives::bitcoin::{
    VarInt,
    p2p::{
        ServiceFlags,
        address::{AddrV2Message, Address},
    },
};

use crate::{
    message::{DecodeError, take, take_bytes, take_count},
    netaddr::{NetAddr, NetAddress},
};

/// Most entries of `addr` and `addrv2` (Bitcoin Core's `MAX_ADDR_TO_SEND`).
pub const MAX_ADDR: usize = 1000;
/// Longest address of `addrv2`, in bytes (BIP 155).
const MAX_ADDRV2_LEN: usize = 512;

/// IPv6 addresses that meant an address of Tor's second version (OnionCat).
const TOR_V2_IN_IPV6: [u8; 6] = [0xfd, 0x87, 0xd8, 0x7e, 0xeb, 0x43];
/// IPv6 addresses that Bitcoin Core uses for names inside itself.
const INTERNAL_IN_IPV6: [u8; 6] = [0xfd, 0x6b, 0x88, 0xc0, 0x87, 0x24];

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
    /// Where it is, with the port.
    #[must_use]
    pub fn address(&self) -> NetAddress {
        NetAddress::new(self.addr, self.port)
    }

    /// The entry for `addr`; `None` if that message cannot carry the address.
    pub(crate) fn to_v1(self) -> Option<(u32, Address)> {
        let address = self.address().to_addr_v1(self.services)?;
        Some((self.time, address))
    }

    /// The entry for `addrv2`.
    pub(crate) fn to_v2(self) -> AddrV2Message {
        AddrV2Message {
            time: self.time,
            services: self.services,
            addr: self.addr.to_addr_v2(),
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
        let addr = from_ipv6(take_bytes(rest)?);
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

/// `None` if another network is hidden in the address.
fn from_ipv6(octets: [u8; 16]) -> Option<NetAddr> {
    let hidden = |prefix: [u8; 6]| octets.starts_with(&prefix);
    if hidden(TOR_V2_IN_IPV6) || hidden(INTERNAL_IN_IPV6) {
        return None;
    }
    Some(std::net::Ipv6Addr::from(octets).into())
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
            from_ipv6(fixed(bytes)?).filter(|addr| matches!(addr, NetAddr::Ipv6(_)))
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
