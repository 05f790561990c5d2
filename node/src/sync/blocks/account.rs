//! What the window tells of itself: who owes what, since when, and who holds up the rest.

use std::time::{Duration, Instant};

use pulse_primitives::{Height, bitcoin::BlockHash};

use super::{BlockWindow, Blocker, Entry, Request, State};
use crate::p2p::peer::PeerId;

impl BlockWindow {
    /// The peer that everything waits for, if there is one: it owes the lowest block,
    /// nothing else is left to ask for, and another peer that has that block is idle.
    #[must_use]
    pub fn blocker(&self) -> Option<Blocker> {
        // `advance` has taken away what is held, so the first entry is what is waited for.
        let Request { peer, since } = *self.entries.front()?.requests().first()?;
        if self
            .entries
            .iter()
            .any(|entry| matches!(entry.state, State::Missing))
        {
            return None;
        }
        let height = self.base + 1;
        self.peers
            .iter()
            .any(|(other, load)| *other != peer && load.in_flight == 0 && load.reach >= height)
            .then_some(Blocker {
                peer,
                window_full: self.entries.len() >= self.limits.window,
                since,
            })
    }

    /// A peer that owes blocks and has delivered none for `limit`, and half as much again
    /// for each other peer that owes some, because they share our line.
    #[must_use]
    pub fn overdue(&self, limit: Duration, now: Instant) -> Option<PeerId> {
        let busy = self
            .peers
            .values()
            .filter(|load| load.in_flight > 0)
            .count();
        let others = u32::try_from(busy.saturating_sub(1)).unwrap_or(u32::MAX);
        let limit = limit.saturating_add(limit.saturating_mul(others) / 2);
        self.peers
            .iter()
            .find(|(_, load)| load.in_flight > 0 && now.duration_since(load.progress) > limit)
            .map(|(peer, _)| *peer)
    }

    /// Blocks asked for and not yet received.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.peers.values().map(|load| load.in_flight).sum()
    }

    /// Blocks asked of this peer and not yet received.
    #[must_use]
    pub fn in_flight_of(&self, peer: PeerId) -> usize {
        self.peers.get(&peer).map_or(0, |load| load.in_flight)
    }

    /// Whether this peer was asked for this block and owes it still.
    #[must_use]
    pub fn owes(&self, debtor: PeerId, hash: &BlockHash) -> bool {
        let owed = self
            .abandoned
            .get(hash)
            .is_some_and(|requests| requests.iter().any(|request| request.peer == debtor));
        owed || self.asked(hash).any(|peer| peer == debtor)
    }

    /// Peers that were asked for this block of the window and owe it, the first one first.
    pub fn asked(&self, hash: &BlockHash) -> impl Iterator<Item = PeerId> + '_ {
        self.heights
            .get(hash)
            .and_then(|height| self.entries.get((height - self.base - 1) as usize))
            .map_or(&[][..], Entry::requests)
            .iter()
            .map(|request| request.peer)
    }

    /// Bytes received and not yet judged.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    /// The newest block of the best chain that is held with all its ancestors.
    #[must_use]
    pub fn base(&self) -> Height {
        self.base
    }
}
