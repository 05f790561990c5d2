//! Headers: asked for, judged, and what they say of the peer.

use std::{
    sync::atomic::Ordering,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use pulse_primitives::bitcoin::{
    BlockHash,
    block::Header,
    hashes::Hash,
    p2p::{message::NetworkMessage, message_blockdata::GetHeadersMessage},
};
use tracing::{debug, warn};

use super::Manager;
use crate::{
    headers::MAX_HEADERS,
    net::Fault,
    p2p::{handshake::PROTOCOL_VERSION, peer::PeerId},
    sync::{
        SyncError,
        headers::Next,
        workers::{HeadersMessage, Intake, JudgedHeaders},
    },
};

/// `headers` messages of one peer that may wait to be judged.
const MAX_WAITING_HEADERS: usize = 4;
/// Average time between blocks, to foresee how many headers there are.
const BLOCK_SECONDS: u64 = 600;

impl Manager {
    /// Asks for what follows the first block of `locator_hashes` that the peer has.
    pub(super) fn ask_headers(
        &mut self,
        peer: PeerId,
        locator_hashes: Vec<BlockHash>,
        now: Instant,
    ) {
        let store = &self.sync.store;
        let unix = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_secs());
        let age = unix.saturating_sub(u64::from(store.best().tip.time));
        let expected = u32::try_from(age / BLOCK_SECONDS).unwrap_or(u32::MAX);
        self.headers.asked(peer, expected, now);
        let message = NetworkMessage::GetHeaders(GetHeadersMessage {
            version: PROTOCOL_VERSION,
            locator_hashes,
            stop_hash: BlockHash::all_zeros(),
        });
        self.send(peer, message);
    }

    pub(super) fn on_headers(&mut self, peer: PeerId, headers: Vec<Header>) {
        let waiting = self
            .waiting_headers
            .iter()
            .filter(|(other, _)| *other == peer);
        if waiting.count() >= MAX_WAITING_HEADERS {
            self.drop_peer(peer, Fault::Misbehaved("headers_flood"));
            return;
        }
        self.waiting_headers.push_back((peer, headers));
    }

    pub(super) fn judge_headers(&mut self) {
        if self.judging_headers {
            return;
        }
        let Ok(place) = self.headers_in.try_reserve() else {
            return;
        };
        if let Some((peer, headers)) = self.waiting_headers.pop_front() {
            place.send(HeadersMessage {
                peer,
                headers,
                presync: self.presyncs.remove(&peer),
            });
            self.judging_headers = true;
        }
    }

    pub(super) fn on_headers_judged(&mut self, judged: JudgedHeaders) -> Result<(), SyncError> {
        self.judging_headers = false;
        let now = Instant::now();
        let JudgedHeaders {
            peer,
            count,
            outcome,
            was_presync,
            presync,
        } = judged;
        if let Some(presync) = presync
            && self.peers.contains_key(&peer)
        {
            self.presyncs.insert(peer, presync);
        }
        let ask = match outcome? {
            Intake::Withheld => self.after_good_headers(peer, count, None),
            Intake::Accepted { last, new } => {
                debug!(%peer, count, new, "headers accepted");
                if let Some(last) = last {
                    self.has(peer, last);
                }
                self.after_good_headers(peer, count, last)
            }
            Intake::Unconnected if was_presync => self.headers.presync_lost(peer),
            Intake::Unconnected => self.headers.unconnected(peer),
            Intake::Refused { reason } => {
                warn!(%peer, reason, "headers refused");
                self.drop_peer(peer, Fault::Misbehaved("invalid_headers"));
                return Ok(());
            }
        };
        match ask {
            Next::AskForMore(locator) => self.ask_headers(peer, locator, now),
            Next::AskFromBest => self.ask_headers(peer, self.sync.store.locator(), now),
            Next::Drop => self.drop_peer(peer, Fault::Misbehaved("unconnecting_headers")),
            Next::Done => {}
        }
        Ok(())
    }

    /// What to ask after a message that was in order. `last` is the last header of it
    /// that is stored.
    fn after_good_headers(&mut self, peer: PeerId, count: usize, last: Option<BlockHash>) -> Next {
        let store = &self.sync.store;
        let more = match self.presyncs.get(&peer) {
            Some(presync) => store.locator_from(&presync.start_hash()).map(|locator| {
                let mut from = vec![presync.continue_from()];
                from.extend(locator);
                from
            }),
            None if count == MAX_HEADERS => last.and_then(|last| store.locator_from(&last)),
            None => None,
        };
        let next = self.headers.accepted(peer, more);
        if self.headers.is_complete() {
            self.sync
                .shared
                .headers_answered
                .store(true, Ordering::Release);
        }
        if !matches!(next, Next::Done) {
            return next;
        }
        match self.headers.take_announced(peer) {
            Some(hash) if !self.sync.store.contains(&hash) => Next::AskFromBest,
            _ => Next::Done,
        }
    }

    pub(super) fn on_inv(&mut self, peer: PeerId, hashes: impl Iterator<Item = BlockHash>) {
        let mut unknown = None;
        for hash in hashes {
            if self.sync.store.contains(&hash) {
                self.has(peer, hash);
            } else {
                unknown = Some(hash);
            }
        }
        if let Some(hash) = unknown
            && self.headers.announced(peer, hash)
        {
            self.ask_headers(peer, self.sync.store.locator(), Instant::now());
        }
    }

    /// The peer has the block `hash`, whose header is stored.
    pub(super) fn has(&mut self, peer: PeerId, hash: BlockHash) {
        let store = &self.sync.store;
        let better = self.headers.best_of(peer).is_none_or(|best| {
            store.is_invalid(&best) || store.work_of(&hash) > store.work_of(&best)
        });
        if better {
            self.headers.set_best(peer, hash);
            self.reach_tip = None;
        }
    }
}
