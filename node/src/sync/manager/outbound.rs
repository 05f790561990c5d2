//! Whether the peers that we chose are worth their places, and whether one more is
//! needed.

use std::time::{Duration, Instant};

use tracing::info;

use super::Manager;
use crate::{
    net::{ConnectionKind, Fault, Peer},
    p2p::peer::PeerId,
    sync::lagging::{TipWork, Verdict},
};

/// Time between two looks at whether there is a peer too many.
const EXTRA_CHECK_INTERVAL: Duration = Duration::from_secs(45);
/// A connection is given this long to prove itself.
const MIN_CONNECT_TIME: Duration = Duration::from_secs(30);

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
        let work = best.and_then(|best| self.sync.store.work_of(&best));
        if let (Some(work), Some(tip)) = (work, self.tip_work()) {
            self.laggards.told(peer, work, tip);
        }
    }

    /// Asks and drops peers that do not keep up, and tells the net whether one peer more
    /// is wanted.
    pub(super) fn check_outbound(&mut self, now: Instant) {
        let Some(tip) = self.tip_work() else {
            return;
        };
        if self.last_tip != Some(tip.hash) {
            self.last_tip = Some(tip.hash);
            self.stale_tip.moved(now);
        }
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
        let wanted = self.stale_tip.check(self.window.in_flight() > 0, now);
        self.sync.net.want_extra_outbound(wanted);
        if now >= self.next_extra_check {
            self.next_extra_check = now + EXTRA_CHECK_INTERVAL;
            self.drop_extra(now);
        }
    }

    /// With a full-relay peer too many, the one goes that was longest without announcing
    /// a new block; of equals the newest.
    fn drop_extra(&mut self, now: Instant) {
        let full_relay: Vec<_> = self
            .peers
            .values()
            .filter(|peer| peer.kind == ConnectionKind::FullRelay)
            .cloned()
            .collect();
        if full_relay.len() <= self.sync.net.full_relay_target() {
            return;
        }
        let worst = full_relay
            .iter()
            .filter(|peer| !self.laggards.is_protected(peer.id))
            .min_by_key(|peer| {
                let announced = self.announced.get(&peer.id).copied();
                (announced, std::cmp::Reverse(peer.id))
            });
        if let Some(peer) = worst
            && now.saturating_duration_since(peer.connected_at) > MIN_CONNECT_TIME
            && self.window.in_flight_of(peer.id) == 0
        {
            info!(peer = %peer.id, addr = %peer.addr, "one outbound peer too many");
            self.drop_peer(peer.id, Fault::Useless("extra_outbound"));
        }
    }
}
