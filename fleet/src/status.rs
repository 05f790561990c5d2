//! What a node tells the fleet of itself: a message on a gossip topic, signed by its
//! author.
//!
//! ```text
//! header 80 | height u32 LE | indexed u32 LE (all ones: none) | load u16 LE | flags u8
//! | length u8 | version | length u8 | ticket | count u8 | (length u8 | address)*
//! flags  1: about to stop
//! ```
//!
//! Bytes behind that are ignored, so that a later minor version can tell more.
//!
//! # Security
//! Nothing of it is believed but what can be checked: the header has to have the work
//! that it claims, and its tip counts only once the node holds that header itself.
//!
//! # Limits
//! [`MAX_ADDRS`] addresses, [`MAX_LEN`] bytes in all.

use libp2p::Multiaddr;
use pulse_primitives::{
    Height,
    bitcoin::{
        block::Header,
        consensus::{deserialize, serialize},
    },
};

/// Longest message, in bytes.
pub const MAX_LEN: usize = 2048;
/// Most addresses of one node.
pub const MAX_ADDRS: usize = 8;
const MAX_VERSION: usize = 32;
const MAX_ADDR: usize = 128;

const NONE: u32 = u32::MAX;
const DRAINING: u8 = 1;

/// State of a sibling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Header of its tip.
    pub header: Header,
    /// Height of its tip.
    pub height: Height,
    /// Height of its newest indexed block.
    pub indexed: Option<Height>,
    /// Share of its processors that is in use, in percent.
    pub load_percent: u16,
    /// It is about to stop.
    pub is_draining: bool,
    /// Version of its program, printable ASCII.
    pub version: String,
    /// Its ticket; empty if it has none.
    pub ticket: Vec<u8>,
    /// Where it can be reached.
    pub addrs: Vec<Multiaddr>,
}

impl Status {
    /// Its bytes. What is too long or too many is left out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = serialize(&self.header);
        bytes.extend(self.height.to_le_bytes());
        bytes.extend(self.indexed.unwrap_or(NONE).to_le_bytes());
        bytes.extend(self.load_percent.to_le_bytes());
        bytes.push(if self.is_draining { DRAINING } else { 0 });
        put(&mut bytes, self.version.as_bytes(), MAX_VERSION);
        put(&mut bytes, &self.ticket, u8::MAX.into());
        let addrs = self.addrs.iter().map(Multiaddr::to_vec);
        let addrs: Vec<_> = addrs
            .filter(|addr| addr.len() <= MAX_ADDR)
            .take(MAX_ADDRS)
            .collect();
        bytes.push(u8::try_from(addrs.len()).unwrap_or(0));
        for addr in addrs {
            put(&mut bytes, &addr, MAX_ADDR);
        }
        bytes
    }

    /// Reverse of [`Status::encode`]; `None` for anything else, and for a header without
    /// the work that it claims.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > MAX_LEN {
            return None;
        }
        let (header, rest) = bytes.split_first_chunk::<80>()?;
        let header: Header = deserialize(header).ok()?;
        header.validate_pow(header.target()).ok()?;
        let (height, rest) = rest.split_first_chunk()?;
        let (indexed, rest) = rest.split_first_chunk()?;
        let (load, rest) = rest.split_first_chunk()?;
        let (flags, mut rest) = rest.split_first()?;
        let version = take(&mut rest, MAX_VERSION)?;
        let version = std::str::from_utf8(version).ok()?;
        if !version.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let ticket = take(&mut rest, u8::MAX.into())?.to_vec();
        let (count, mut rest) = rest.split_first()?;
        if usize::from(*count) > MAX_ADDRS {
            return None;
        }
        let addrs = (0..*count)
            .map(|_| Multiaddr::try_from(take(&mut rest, MAX_ADDR)?.to_vec()).ok())
            .collect::<Option<_>>()?;
        Some(Self {
            header,
            height: u32::from_le_bytes(*height),
            indexed: Some(u32::from_le_bytes(*indexed)).filter(|height| *height != NONE),
            load_percent: u16::from_le_bytes(*load),
            is_draining: flags & DRAINING != 0,
            version: version.to_owned(),
            ticket,
            addrs,
        })
    }
}

fn put(bytes: &mut Vec<u8>, field: &[u8], max: usize) {
    let field = if field.len() <= max { field } else { &[] };
    bytes.push(u8::try_from(field.len()).unwrap_or(0));
    bytes.extend(field);
}

fn take<'a>(rest: &mut &'a [u8], max: usize) -> Option<&'a [u8]> {
    let (len, after) = rest.split_first()?;
    let len = usize::from(*len);
    if len > max {
        return None;
    }
    let (field, after) = after.split_at_checked(len)?;
    *rest = after;
    Some(field)
}

#[cfg(test)]
mod tests {
    use pulse_primitives::bitcoin::{Network, constants::genesis_block};

    use super::*;

    fn status() -> Status {
        Status {
            header: genesis_block(Network::Regtest).header,
            height: 7,
            indexed: Some(5),
            load_percent: 130,
            is_draining: true,
            version: "0.1.0".to_owned(),
            ticket: vec![1; 72],
            addrs: vec!["/ip4/10.0.0.1/tcp/4001".parse().unwrap()],
        }
    }

    #[test]
    fn a_status_reads_back_also_when_a_later_version_tells_more() {
        for indexed in [None, Some(0), Some(5)] {
            let status = Status {
                indexed,
                ..status()
            };
            let mut bytes = status.encode();
            for len in 0..bytes.len() {
                assert_eq!(Status::decode(&bytes[..len]), None, "{len} bytes");
            }
            bytes.push(1);
            assert_eq!(Status::decode(&bytes), Some(status));
        }
    }

    #[test]
    fn what_is_too_much_is_left_out_or_refused() {
        let addr: Multiaddr = "/ip4/10.0.0.1/tcp/4001".parse().unwrap();
        let many = Status {
            addrs: vec![addr; MAX_ADDRS + 3],
            version: "v".repeat(MAX_VERSION + 1),
            ..status()
        };
        let read = Status::decode(&many.encode()).unwrap();
        assert_eq!((read.addrs.len(), read.version.as_str()), (MAX_ADDRS, ""));
        let mut long = status().encode();
        long.resize(MAX_LEN + 1, 0);
        assert_eq!(Status::decode(&long), None);
    }

    #[test]
    fn a_header_without_its_work_is_refused() {
        let mainnet = genesis_block(Network::Bitcoin).header;
        let mut status = Status {
            header: mainnet,
            ..status()
        };
        assert!(Status::decode(&status.encode()).is_some());
        status.header.nonce += 1;
        assert_eq!(Status::decode(&status.encode()), None);
    }
}
