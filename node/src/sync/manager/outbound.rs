//! Whether the peers that we chose keep up with the chain.

use std::time::Instant;

use super::Manager;
use crate::{
    net::{ConnectionKind, Fault, Peer},
    p2p::peer::PeerId,
    sync::lagging::{TipWork, Verdict},
};

impl Manager {
    /// A peer whose place was chosen by the node is watched from now on.
    pub(super) fn watch(&mut self, peer: &Peer) {
        match peer.kind {
            ConnectionKind::FullRelay => self.laggards.add_peer(peer.id, true),
            ConnectionKind::BlockRelay => self.laggards.add_peer(peer.id, false),
            _ => {}
        }
    }

    fn tip_work(&self) -> Option<TipWork> {
        let hash = self.sync.chain.active_tip().hash;
        let work = self.sync.store.work_of(&hash)?;
        Some(TipWork { hash, work })
    }

    /// The peer has told of a chain.
    pub(super) fn note_told(&mut self, peer: PeerId) {
        let best = self.headers.best_of(peer);
        if let Some(height) = best.and_then(|best| self.sync.store.height_of(&best))
            && let Some(peer) = self.peers.get(&peer)
        {
            peer.note_height(height);
        }
        let work = best.and_then(|best| self.sync.store.work_of(&best));
        if let (Some(work), Some(tip)) = (work, self.tip_work()) {
            self.laggards.told(peer, work, tip);
        }
        if self.laggards.is_protected(peer)
            && let Some(peer) = self.peers.get(&peer)
        {
            peer.spare();
        }
    }

    /// Asks and drops peers that do not keep up.
    pub(super) fn check_outbound(&mut self, now: Instant) {
        let Some(tip) = self.tip_work() else {
            return;
        };
        let watched: Vec<_> = self.laggards.peers().collect();
        for peer in watched {
            let best = self.headers.best_of(peer);
            let work = best.and_then(|best| self.sync.store.work_of(&best));
            match self.laggards.check(peer, work, tip, now) {
                Verdict::Keep => {}
                Verdict::Ask(hash) => {
                    let store = &self.sync.store;
                    let parent = store.header(&hash).map(|header| header.prev_blockhash);
                    let locator = parent.and_then(|parent| store.locator_from(&parent));
                    let locator = locator.unwrap_or_else(|| store.locator());
                    self.ask_headers(peer, locator, now);
                }
                Verdict::Drop => self.drop_peer(peer, Fault::Useless("old_chain")),
            }
        }
    }
}
