//! Whom to ask for headers, and what each peer is known to have.
//!
//! ```text
//! leader: getheaders until an answer is not full -> all others: getheaders -> announcements
//! ```
//!
//! Pure: messages are sent and headers are checked elsewhere, time is passed in.
//! During the first download only one peer is asked (another one as well if it does
//! not answer for [`HEDGE`]), so that the chain is not downloaded once per peer.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use pulse_primitives::bitcoin::BlockHash;

use crate::p2p::peer::PeerId;

/// Announcements in a row that do not connect to anything known, after which a peer
/// is dropped (Bitcoin Core's `MAX_NUM_UNCONNECTING_HEADERS_MSGS`).
const MAX_UNCONNECTING: u32 = 10;
/// After this long without an answer from the leader another peer is asked too.
pub const HEDGE: Duration = Duration::from_secs(10);

/// What to do about a peer after its headers were judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing; the peer has no more.
    Done,
    /// Ask it for what follows the first block of this locator that it has.
    AskForMore(Vec<BlockHash>),
    /// Ask it from our own best chain, to find where its headers connect.
    AskFromBest,
    /// Drop it.
    Drop,
}

#[derive(Debug, Default)]
struct PeerHeaders {
    /// When the request was sent that has not been answered.
    asked: Option<Instant>,
    /// When all its headers must be here.
    deadline: Option<Instant>,
    /// Whether it has once told everything it has.
    complete: bool,
    /// The best block that it is known to have.
    best: Option<BlockHash>,
    /// A block that it announced while a request was under way.
    announced: Option<BlockHash>,
    unconnecting: u32,
    /// Whether it is not asked before some other peer has told everything it has.
    follower: bool,
}

/// State of the header download.
#[derive(Debug)]
pub struct HeaderSync {
    timeout: Duration,
    /// Ordered, so that older connections come first.
    peers: BTreeMap<PeerId, PeerHeaders>,
    /// Whether some peer has told everything it has.
    complete: bool,
}

impl HeaderSync {
    /// Nothing known, nobody asked. `timeout` is per peer, for all its headers.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            peers: BTreeMap::new(),
            complete: false,
        }
    }

    /// A peer has finished its handshake.
    pub fn add_peer(&mut self, peer: PeerId) {
        self.peers.insert(peer, PeerHeaders::default());
    }

    /// As [`HeaderSync::add_peer`], for a peer that chose us. It is asked only after
    /// another one has told everything it has, since it may have come to deceive.
    pub fn add_follower(&mut self, peer: PeerId) {
        let state = PeerHeaders {
            follower: true,
            ..PeerHeaders::default()
        };
        self.peers.insert(peer, state);
    }

    /// A peer is gone.
    pub fn remove_peer(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
    }

    /// Whether some peer has told everything it has, so that blocks can begin.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Peers that are to be asked from our best chain now: one after the other until a
    /// peer has told a chain with `enough` work, then all.
    #[must_use]
    pub fn to_ask(&self, enough: bool, now: Instant) -> Vec<PeerId> {
        let unasked = self
            .peers
            .iter()
            .filter(|(_, state)| !state.complete && state.deadline.is_none())
            .filter(|(_, state)| self.complete || !state.follower)
            .map(|(peer, _)| *peer);
        let hedge = HEDGE.min(self.timeout);
        let busy = self.peers.values().any(|state| {
            // Between two messages the headers are being judged: no fault of the peer.
            state.deadline.is_some() && state.asked.is_none_or(|asked| now < asked + hedge)
        });
        let limit = match (self.complete && enough, busy) {
            (true, _) => usize::MAX,
            (false, true) => 0,
            (false, false) => 1,
        };
        unasked.take(limit).collect()
    }

    /// `getheaders` was sent. `expected` is how many headers the peer may have for us.
    pub fn asked(&mut self, peer: PeerId, expected: u32, now: Instant) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.asked = Some(now);
            let per_header = Duration::from_millis(1) * expected;
            state
                .deadline
                .get_or_insert(now + self.timeout + per_header);
        }
    }

    /// The headers of a peer were judged good, or are withheld in a presync. `more` is
    /// the locator to go on with, if the peer may have more.
    pub fn accepted(&mut self, peer: PeerId, more: Option<Vec<BlockHash>>) -> Next {
        let Some(state) = self.peers.get_mut(&peer) else {
            return Next::Done;
        };
        state.unconnecting = 0;
        let answer = state.asked.take().is_some();
        if let Some(locator) = more {
            return Next::AskForMore(locator);
        }
        if answer {
            state.complete = true;
            state.deadline = None;
            self.complete |= !state.follower;
        }
        Next::Done
    }

    /// The first header of a peer has an unknown parent.
    pub fn unconnected(&mut self, peer: PeerId) -> Next {
        let first_download = !self.complete;
        let Some(state) = self.peers.get_mut(&peer) else {
            return Next::Done;
        };
        state.unconnecting += 1;
        if state.unconnecting > MAX_UNCONNECTING {
            Next::Drop
        } else if first_download || state.asked.is_some() {
            // A new block announced in the middle of the download; the answer that is
            // on its way leads there.
            Next::Done
        } else {
            Next::AskFromBest
        }
    }

    /// The peer's headers have left the chain that its presync followed: it begins anew.
    pub fn presync_lost(&mut self, peer: PeerId) -> Next {
        let Some(state) = self.peers.get_mut(&peer) else {
            return Next::Done;
        };
        state.unconnecting += 1;
        if state.unconnecting > MAX_UNCONNECTING {
            Next::Drop
        } else {
            Next::AskFromBest
        }
    }

    /// The peer announced a block that is not known; whether it is to be asked from our
    /// best chain now. If not, [`HeaderSync::take_announced`] reminds of it later.
    pub fn announced(&mut self, peer: PeerId, hash: BlockHash) -> bool {
        let Some(state) = self.peers.get_mut(&peer) else {
            return false;
        };
        if self.complete && state.asked.is_none() {
            return true;
        }
        state.announced = Some(hash);
        false
    }

    /// A block that the peer announced while its headers were on their way.
    pub fn take_announced(&mut self, peer: PeerId) -> Option<BlockHash> {
        self.peers.get_mut(&peer)?.announced.take()
    }

    /// The peer has this block and its ancestors.
    pub fn set_best(&mut self, peer: PeerId, hash: BlockHash) {
        if let Some(state) = self.peers.get_mut(&peer) {
            state.best = Some(hash);
        }
    }

    /// The best block that each peer is known to have.
    pub fn bests(&self) -> impl Iterator<Item = (PeerId, BlockHash)> + '_ {
        self.peers
            .iter()
            .filter_map(|(peer, state)| Some((*peer, state.best?)))
    }

    /// The best block that this peer is known to have.
    #[must_use]
    pub fn best_of(&self, peer: PeerId) -> Option<BlockHash> {
        self.peers.get(&peer)?.best
    }

    /// A peer that has not told all its headers in time.
    #[must_use]
    pub fn overdue(&self, now: Instant) -> Option<PeerId> {
        self.peers
            .iter()
            .find(|(_, state)| state.deadline.is_some_and(|deadline| now > deadline))
            .map(|(peer, _)| *peer)
    }
}
