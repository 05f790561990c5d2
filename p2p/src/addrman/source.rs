//! Who told of an address.

use pulse_primitives::bitcoin::{
    hashes::{Hash, sha256},
    p2p::address::AddrV2,
};

use crate::{netaddr::NetAddr, netgroup::NetGroup};

/// Bytes of the hash of a name.
const NAME_LEN: usize = 10;
/// What stands for "a name" where networks are numbered, here and in saved bytes: no
/// network of BIP 155.
const NAME: u8 = 0xff;

/// Who told of an address: the more different ones, the more buckets it can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddrSource {
    /// A peer; all of its group count as one.
    Peer(NetAddr),
    /// Something with a name, such as a DNS seed: a group of its own. First bytes of the
    /// SHA-256 of the name.
    Named([u8; NAME_LEN]),
}

impl AddrSource {
    /// The source of that name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        let hash = sha256::Hash::hash(name.as_bytes()).to_byte_array();
        let (first, _) = hash.split_first_chunk().expect("32 bytes begin with 10");
        Self::Named(*first)
    }

    /// Bytes of its group.
    pub(super) fn group(&self) -> Vec<u8> {
        match self {
            Self::Peer(addr) => NetGroup::of(addr).as_bytes().to_vec(),
            Self::Named(hash) => [&[NAME][..], hash].concat(),
        }
    }

    /// Whether it is the host `addr` itself.
    pub(super) fn is(&self, addr: &NetAddr) -> bool {
        matches!(self, Self::Peer(peer) if peer == addr)
    }

    pub(super) fn to_saved(self) -> AddrV2 {
        match self {
            Self::Peer(addr) => addr.to_addr_v2(),
            Self::Named(hash) => AddrV2::Unknown(NAME, hash.to_vec()),
        }
    }

    pub(super) fn from_saved(saved: &AddrV2) -> Option<Self> {
        match saved {
            AddrV2::Unknown(NAME, hash) => hash.as_slice().try_into().ok().map(Self::Named),
            addr => NetAddr::from_addr_v2(addr).map(Self::Peer),
        }
    }
}

impl From<NetAddr> for AddrSource {
    fn from(addr: NetAddr) -> Self {
        Self::Peer(addr)
    }
}
