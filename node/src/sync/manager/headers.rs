//! Headers: asked for, judged, and what they say of the peer.

use std::time::Instant;

use pulse_primitives::bitcoin::{
    BlockHash,
    bip152::HeaderAndShortIds,
    block::Header,
    hashes::Hash,
    p2p::{message::NetworkMessage, message_blockdata::GetHeadersMessage},
};
use tracing::{debug, warn};

use super::Manager;
use crate::{
    headers::MAX_HEADERS,
    net::Fault,
    p2p::{peer::PeerId, version::PROTOCOL_VERSION},
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
        let unix = self.sync.net.clock().unix();
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

    /// Puts headers into the row of those that are to be judged.
    pub(super) fn queue_headers(&mut self, peer: PeerId, headers: Vec<Header>) {
        self.queue(HeadersMessage {
            peer,
            headers,
            is_compact: false,
            compact: None,
            presync: None,
        });
    }

    /// The same with the header of a compact block. `compact`: the block, if it is of use.
    pub(super) fn queue_compact(
        &mut self,
        peer: PeerId,
        header: Header,
        compact: Option<Box<HeaderAndShortIds>>,
    ) {
        self.queue(HeadersMessage {
            peer,
            headers: vec![header],
            is_compact: true,
            compact,
            presync: None,
        });
    }

    fn queue(&mut self, message: HeadersMessage) {
        let peer = message.peer;
        let waiting = self
            .waiting_headers
            .iter()
            .filter(|message| message.peer == peer);
        if waiting.count() >= MAX_WAITING_HEADERS {
            if self.is_sibling(peer) {
                // One that gets many blocks at once tells of each; it is asked for them then.
                let last = message.headers.last().map(|header| header.block_hash());
                self.on_inv(peer, last.into_iter());
                return;
            }
            self.drop_peer(peer, Fault::Misbehaved("headers_flood"));
            return;
        }
        self.waiting_headers.push_back(message);
    }

    pub(super) fn judge_headers(&mut self) {
        if self.judging_headers {
            return;
        }
        let Ok(place) = self.headers_in.try_reserve() else {
            return;
        };
        if let Some(mut message) = self.waiting_headers.pop_front() {
            message.presync = self.presyncs.remove(&message.peer);
            place.send(message);
            self.judging_headers = true;
        }
    }

    pub(super) fn on_headers_judged(&mut self, judged: JudgedHeaders) -> Result<(), SyncError> {
        self.judging_headers = false;
        let now = self.sync.net.clock().now();
        let JudgedHeaders {
            peer,
            count,
            outcome,
            compact_header,
            was_presync,
            presync,
            assembly,
        } = judged;
        let presync_lost = was_presync && presync.is_none();
        if let Some(presync) = presync
            && self.peers.contains_key(&peer)
        {
            self.presyncs.insert(peer, presync);
        }
        let ask = match outcome? {
            Intake::Ignored => Next::Done,
            Intake::Withheld => self.after_good_headers(peer, count, None),
            Intake::Accepted { last, new } => {
                debug!(%peer, count, new, "headers accepted");
                if let Some(last) = last {
                    self.has(peer, last);
                    self.note_announcement(peer, last, new);
                    if let Some(assembly) = assembly {
                        self.on_assembly(peer, last, assembly, now);
                    }
                    self.fetch_directly(peer, last, now);
                }
                self.after_good_headers(peer, count, last)
            }
            Intake::Unconnected if presync_lost => self.headers.presync_lost(peer),
            Intake::Unconnected => self.headers.unconnected(peer),
            Intake::Refused { reason } if self.is_excused(compact_header) => {
                debug!(%peer, reason, "compact block of no use");
                return Ok(());
            }
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

    /// Whether nothing is wrong with a header but its block, which BIP 152 lets peers pass on as a
    /// compact one before they find out.
    fn is_excused(&self, compact_header: Option<Header>) -> bool {
        let store = &self.sync.store;
        compact_header.is_some_and(|header| {
            store.is_invalid(&header.block_hash()) && !store.is_invalid(&header.prev_blockhash)
        })
    }

    /// The peer has told of the chain that ends in `last`, of which `new` headers were not
    /// known before.
    fn note_announcement(&mut self, peer: PeerId, last: BlockHash, new: usize) {
        self.note_told(peer);
        let store = &self.sync.store;
        let active = self.sync.chain.active_tip().hash;
        if new > 0
            && store.work_of(&last) > store.work_of(&active)
            && let Some(peer) = self.peers.get(&peer)
        {
            peer.note_announcement();
        }
    }

    /// Close to the tip, new blocks are asked first of the peer that told of them.
    fn fetch_directly(&mut self, peer: PeerId, last: BlockHash, now: Instant) {
        if !self.may_download() || !self.is_near_tip() || self.sync.chain.has_block(&last) {
            return;
        }
        let chain = &self.sync.chain;
        self.window
            .update(self.sync.store.as_ref(), |hash| chain.has_block(hash));
        self.update_reach(now);
        self.request_from(peer, now);
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
            self.sync.shared.headers_answered.send_replace(true);
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
            self.ask_headers(peer, self.sync.store.locator(), self.sync.net.clock().now());
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
