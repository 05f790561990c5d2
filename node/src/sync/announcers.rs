//! Which peers send us new blocks at once, as compact blocks (BIP 152's high bandwidth).
//!
//! Pure. Those that were first with a block lately: three at most, so that a block does
//! not come more often than that.

use crate::p2p::peer::PeerId;

/// Most such peers (BIP 152).
const MAX_ANNOUNCERS: usize = 3;

/// What is to be told to peers after a change.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// This peer is to announce by compact blocks from now on.
    pub begin: Option<PeerId>,
    /// This one no longer.
    pub end: Option<PeerId>,
}

/// The chosen peers.
#[derive(Debug, Default)]
pub struct Announcers {
    /// With whether the peer connected to us; the one that delivered last is last.
    peers: Vec<(PeerId, bool)>,
}

impl Announcers {
    /// The peer, which speaks compact blocks, has delivered a new block.
    ///
    /// # Security
    /// Peers that connect to us cannot push out the last one that we connected to.
    pub fn delivered(&mut self, peer: PeerId, inbound: bool) -> Change {
        if let Some(at) = self.peers.iter().position(|(known, _)| *known == peer) {
            let known = self.peers.remove(at);
            self.peers.push(known);
            return Change::default();
        }
        let mut end = None;
        if self.peers.len() == MAX_ANNOUNCERS {
            let outbound = self.peers.iter().filter(|(_, inbound)| !inbound).count();
            let spared = inbound && outbound == 1 && !self.peers[0].1;
            end = Some(self.peers.remove(usize::from(spared)).0);
        }
        self.peers.push((peer, inbound));
        Change {
            begin: Some(peer),
            end,
        }
    }

    /// The peer is gone.
    pub fn remove_peer(&mut self, gone: PeerId) {
        self.peers.retain(|(peer, _)| *peer != gone);
    }

    /// Whether the peer was asked to announce by compact blocks.
    #[must_use]
    pub fn contains(&self, peer: PeerId) -> bool {
        self.peers.iter().any(|(known, _)| *known == peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(begin: u64, end: Option<u64>) -> Change {
        Change {
            begin: Some(PeerId(begin)),
            end: end.map(PeerId),
        }
    }

    #[test]
    fn the_last_three_that_delivered_are_chosen() {
        let mut announcers = Announcers::default();
        for id in 1..=3 {
            assert_eq!(announcers.delivered(PeerId(id), false), change(id, None));
        }
        assert_eq!(announcers.delivered(PeerId(1), false), Change::default());
        assert_eq!(announcers.delivered(PeerId(4), false), change(4, Some(2)));
        assert!(announcers.contains(PeerId(1)));
        assert!(!announcers.contains(PeerId(2)));
        announcers.remove_peer(PeerId(1));
        assert_eq!(announcers.delivered(PeerId(5), false), change(5, None));
    }

    #[test]
    fn inbound_peers_do_not_push_out_the_last_outbound_one() {
        let mut announcers = Announcers::default();
        announcers.delivered(PeerId(1), false);
        announcers.delivered(PeerId(2), true);
        announcers.delivered(PeerId(3), true);
        assert_eq!(announcers.delivered(PeerId(4), true), change(4, Some(2)));
        assert_eq!(announcers.delivered(PeerId(5), true), change(5, Some(3)));
        assert!(announcers.contains(PeerId(1)));
        // Another outbound one may.
        assert_eq!(announcers.delivered(PeerId(6), false), change(6, Some(1)));
    }
}
