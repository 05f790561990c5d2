//! The group of networks that an address belongs to.
//!
//! Many addresses within one group may well have one owner, so whatever must not be
//! had by one owner alone (buckets, outbound connections, protection) is counted by
//! group. The groups are those of Bitcoin Core without an ASN map.

use std::fmt;

use pulse_primitives::bitcoin::hashes::siphash24;

use crate::netaddr::{NetAddr, NetKind};

/// Most bytes that a group has: its network and 36 bits.
const MAX_LEN: usize = 6;

/// Group of an address: a /16 of IPv4 (also of IPv4 inside IPv6), a /32 of IPv6 (/36
/// within Hurricane Electric's 2001:470::/32, which anyone can have a piece of), four
/// bits of an onion or I2P address and of a CJDNS one behind its constant byte. All
/// addresses that are not routable are one group.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetGroup {
    bytes: [u8; MAX_LEN],
    len: u8,
}

impl NetGroup {
    /// Group of `addr`.
    #[must_use]
    pub fn of(addr: &NetAddr) -> Self {
        if let Some(ip) = addr.linked_ipv4() {
            let [a, b, ..] = ip.octets();
            return Self::new(class_byte(Some(NetKind::Ipv4)), &[a, b], 16);
        }
        let class = addr.net_class();
        let first = class_byte(class);
        match addr {
            _ if class.is_none() => Self::new(first, &[], 0),
            NetAddr::TorV3(bytes) | NetAddr::I2p(bytes) => Self::new(first, bytes, 4),
            NetAddr::Cjdns(ip) => Self::new(first, &ip.octets(), 12),
            NetAddr::Ipv4(ip) => Self::new(first, &ip.octets(), 16),
            NetAddr::Ipv6(ip) => {
                let octets = ip.octets();
                let is_he = octets.starts_with(&[0x20, 0x01, 0x04, 0x70]);
                Self::new(first, &octets, if is_he { 36 } else { 32 })
            }
        }
    }

    /// The first `bits` of `addr`; the rest of the last byte is filled with ones.
    fn new(class: u8, addr: &[u8], bits: usize) -> Self {
        let mut bytes = [0; MAX_LEN];
        bytes[0] = class;
        let whole = bits / 8;
        bytes[1..=whole].copy_from_slice(&addr[..whole]);
        let mut len = 1 + whole;
        if !bits.is_multiple_of(8) {
            bytes[len] = addr[whole] | (0xff >> (bits % 8));
            len += 1;
        }
        let len = u8::try_from(len).expect("at most MAX_LEN");
        Self { bytes, len }
    }

    /// Its bytes: the network, then the bits of the address. One to six.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// A number for it that nobody knows who does not know `key`: SipHash-2-4.
    #[must_use]
    pub fn keyed(&self, key: (u64, u64)) -> u64 {
        siphash24::Hash::hash_to_u64_with_keys(key.0, key.1, self.as_bytes())
    }
}

/// Numbers of the networks; 0 for what is not routable.
fn class_byte(class: Option<NetKind>) -> u8 {
    match class {
        None => 0,
        Some(NetKind::Ipv4) => 1,
        Some(NetKind::Ipv6) => 2,
        Some(NetKind::Onion) => 3,
        Some(NetKind::I2p) => 4,
        Some(NetKind::Cjdns) => 5,
    }
}

impl fmt::Debug for NetGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NetGroup").field(&self.as_bytes()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(text: &str) -> Vec<u8> {
        let addr: NetAddr = text.parse().unwrap();
        NetGroup::of(&addr).as_bytes().to_vec()
    }

    #[test]
    fn ipv4_groups_are_its_slash_16() {
        assert_eq!(group("1.2.3.4"), [1, 1, 2]);
    }

    #[test]
    fn ipv4_inside_ipv6_is_in_the_group_of_ipv4() {
        for text in [
            "2002:102:304::1",
            "2001::fefd:fcfb",
            "64:ff9b::102:304",
            "::ffff:0:102:304",
        ] {
            assert_eq!(group(text), group("1.2.9.9"), "{text}");
        }
    }

    #[test]
    fn ipv6_groups_are_its_slash_32_and_a_slash_36_of_hurricane_electric() {
        assert_eq!(group("2a01:203:405::1"), [2, 0x2a, 1, 2, 3]);
        assert_eq!(group("2001:470:abcd::1"), [2, 0x20, 1, 4, 0x70, 0xaf]);
    }

    #[test]
    fn onion_i2p_and_cjdns_groups_are_four_bits() {
        let mut key = [0; 32];
        key[0] = 0x53;
        assert_eq!(NetGroup::of(&NetAddr::TorV3(key)).as_bytes(), [3, 0x5f]);
        assert_eq!(NetGroup::of(&NetAddr::I2p(key)).as_bytes(), [4, 0x5f]);
        assert_eq!(group("fc12:3456::1"), [5, 0xfc, 0x1f]);
    }

    #[test]
    fn all_that_is_not_routable_is_one_group() {
        for text in ["127.0.0.1", "10.0.0.1", "::1", "fd00::1", "0.0.0.0"] {
            assert_eq!(group(text), [0], "{text}");
        }
    }
}
