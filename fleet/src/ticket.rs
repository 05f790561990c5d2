//! Tickets: the holder of the fleet's key says that a peer id is a member for a while.
//!
//! ```text
//! ticket    not after u64 LE (seconds since 1970) | Ed25519 signature 64
//! signed    "pulse-fleet ticket 1" | network 32 | not after 8 | peer id
//! ```
//!
//! # Security
//! A ticket is no secret and worth nothing to others: it names a peer id, and only the
//! holder of that identity can connect under it. The time is in it so that a ticket that
//! was written down somewhere says nothing later.

use libp2p::{PeerId, identity::Keypair};

/// Length of a ticket, in bytes.
pub const TICKET_LEN: usize = 8 + 64;
/// For how long a ticket is good, in seconds; clocks may differ by as much.
pub const TICKET_SECS: u64 = 300;

const DOMAIN: &[u8] = b"pulse-fleet ticket 1";

/// A secret that all members share.
#[derive(Clone)]
pub struct FleetKey(Keypair);

impl std::fmt::Debug for FleetKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FleetKey(***)")
    }
}

impl FleetKey {
    /// From 64 hex digits; `None` if they are not.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Self> {
        let mut seed = [0; 32];
        hex::decode_to_slice(text.trim(), &mut seed).ok()?;
        Keypair::ed25519_from_bytes(seed).ok().map(Self)
    }

    /// A ticket for `peer` that is good from `now` on.
    #[must_use]
    pub fn issue(&self, peer: &PeerId, network: &[u8; 32], now: u64) -> Vec<u8> {
        let not_after = now.saturating_add(TICKET_SECS);
        let mut ticket = not_after.to_le_bytes().to_vec();
        let signed = signed(peer, network, not_after);
        let signature = self.0.sign(&signed).expect("Ed25519 signs anything");
        ticket.extend_from_slice(&signature);
        ticket
    }

    /// Whether this key has signed the ticket for `peer`, whenever that was.
    #[must_use]
    pub fn has_signed(&self, ticket: &[u8], peer: &PeerId, network: &[u8; 32]) -> bool {
        let Some((not_after, signature)) = ticket.split_first_chunk() else {
            return false;
        };
        let signed = signed(peer, network, u64::from_le_bytes(*not_after));
        signature.len() == 64 && self.0.public().verify(&signed, signature)
    }

    /// Whether the ticket is good for `peer` at `now`.
    #[must_use]
    pub fn accepts(&self, ticket: &[u8], peer: &PeerId, network: &[u8; 32], now: u64) -> bool {
        let Some((not_after, _)) = ticket.split_first_chunk() else {
            return false;
        };
        let not_after = u64::from_le_bytes(*not_after);
        // Nobody issues tickets for ever, whatever he writes into them.
        let is_fresh = now <= not_after && not_after <= now.saturating_add(2 * TICKET_SECS);
        is_fresh && self.has_signed(ticket, peer, network)
    }
}

fn signed(peer: &PeerId, network: &[u8; 32], not_after: u64) -> Vec<u8> {
    let peer = peer.to_bytes();
    [DOMAIN, network, &not_after.to_le_bytes(), &peer].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: [u8; 32] = [7; 32];
    const NOW: u64 = 1_700_000_000;

    #[test]
    fn a_ticket_is_good_for_its_peer_its_network_its_key_and_its_time_only() {
        let key = FleetKey::from_hex(&"11".repeat(32)).unwrap();
        let other = FleetKey::from_hex(&"22".repeat(32)).unwrap();
        let (peer, stranger) = (PeerId::random(), PeerId::random());
        let ticket = key.issue(&peer, &NETWORK, NOW);
        assert_eq!(ticket.len(), TICKET_LEN);
        assert!(key.accepts(&ticket, &peer, &NETWORK, NOW));
        assert!(key.accepts(&ticket, &peer, &NETWORK, NOW + TICKET_SECS));
        assert!(!key.accepts(&ticket, &peer, &NETWORK, NOW + TICKET_SECS + 1));
        assert!(!key.accepts(&ticket, &peer, &NETWORK, NOW - TICKET_SECS - 1));
        assert!(!key.accepts(&ticket, &stranger, &NETWORK, NOW));
        assert!(!key.accepts(&ticket, &peer, &[8; 32], NOW));
        assert!(!other.accepts(&ticket, &peer, &NETWORK, NOW));
        for at in 0..ticket.len() {
            let mut bad = ticket.clone();
            bad[at] ^= 1;
            assert!(!key.accepts(&bad, &peer, &NETWORK, NOW), "byte {at}");
            assert!(!key.accepts(&ticket[..at], &peer, &NETWORK, NOW));
        }
    }

    #[test]
    fn a_key_is_64_hex_digits() {
        for wrong in ["", "11", "zz", &"1".repeat(63), &"1".repeat(66)] {
            assert!(FleetKey::from_hex(wrong).is_none(), "{wrong:?}");
        }
    }
}
