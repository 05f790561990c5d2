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
        workers::{Intake, JudgedHeaders},
    },
};

/// `headers` messages of one peer that may wait to be judged.
const MAX_WAITING_HEADERS: usize = 4;
/// Average time between blocks, to foresee how many headers there are.
const BLOCK_SECONDS: u64 = 600;

impl Manager {
    /// Asks for what follows `from`, or our best chain.
    pub(super) fn ask_headers(&mut self, peer: PeerId, from: Option<BlockHash>, now: Instant) {
        let store = &self.sync.store;
        let locator_hashes = from
            .and_then(|hash| store.locator_from(&hash))
            .unwrap_or_else(|| store.locator());
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
        if let Some(message) = self.waiting_headers.pop_front() {
            place.send(message);
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
        } = judged;
        let next = match outcome? {
            Intake::Accepted { last, new } => {
                debug!(%peer, count, new, "headers accepted");
                if let Some(last) = last {
                    self.has(peer, last);
                }
                let next = self.headers.accepted(peer, count == MAX_HEADERS);
                if self.headers.is_complete() {
                    self.sync
                        .shared
                        .headers_answered
                        .store(true, Ordering::Release);
                }
                if let (Next::AskForMore, Some(last)) = (next, last) {
                    self.ask_headers(peer, Some(last), now);
                    return Ok(());
                }
                // A full message of headers too far in the future has no last one.
                match self.headers.take_announced(peer) {
                    Some(hash) if !self.sync.store.contains(&hash) => Next::AskFromBest,
                    _ => Next::Done,
                }
            }
            Intake::Unconnected => self.headers.unconnected(peer),
            Intake::Refused { reason } => {
                warn!(%peer, reason, "headers refused");
                self.drop_peer(peer, Fault::Misbehaved("invalid_headers"));
                return Ok(());
            }
        };
        match next {
            Next::AskFromBest => self.ask_headers(peer, None, now),
            Next::Drop => self.drop_peer(peer, Fault::Misbehaved("unconnecting_headers")),
            Next::Done | Next::AskForMore => {}
        }
        Ok(())
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
            self.ask_headers(peer, None, Instant::now());
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
