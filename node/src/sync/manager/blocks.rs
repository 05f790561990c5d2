//! Blocks: asked for, fed to the kernel, and what its verdict means for the sender.

use std::{sync::atomic::Ordering, time::Instant};

use pulse_primitives::{
    Height,
    bitcoin::{
        BlockHash,
        p2p::{message::NetworkMessage, message_blockdata::Inventory},
    },
};
use tracing::{debug, warn};

use super::{Manager, Sender, peers::is_limited};
use crate::{
    chain::{BlockVerdict, InvalidBlock},
    metrics,
    net::Fault,
    p2p::{codec::RawBlock, peer::PeerId},
    sync::{
        SyncError,
        blocks::{Arrival, Received},
        workers::Judged,
    },
};

/// Blocks below its tip that a peer with few blocks can be asked for: two less than the
/// 288 that it keeps (BIP 159), as its tip may move meanwhile.
const LIMITED_DEPTH: Height = 285;
/// Blocks that a sibling is asked for at a time; the stream waits while they are not taken.
const SIBLING_RUN: usize = 64;

impl Manager {
    /// Tells the window how far along the best chain each peer goes.
    pub(super) fn update_reach(&mut self, now: Instant) {
        let store = &self.sync.store;
        let tip = store.best().tip.hash;
        if self.reach_tip == Some(tip) {
            return;
        }
        for (peer, best) in self.headers.bests() {
            if let Some(fork) = store.fork_point(&best) {
                self.window.set_reach(peer, fork.height, now);
                let Some(known) = self.peers.get(&peer) else {
                    continue;
                };
                if is_limited(known) {
                    self.window.limit_depth(peer, LIMITED_DEPTH);
                }
                if known.kind.is_sibling() {
                    self.window.ask_in_runs(peer, SIBLING_RUN);
                }
            }
        }
        self.reach_tip = Some(tip);
    }

    pub(super) fn request_blocks(&mut self, now: Instant) {
        let (siblings, others): (Vec<_>, Vec<_>) = self
            .headers
            .bests()
            .map(|(peer, _)| peer)
            .partition(|peer| self.is_sibling(*peer));
        for peer in &siblings {
            self.request_from(*peer, now);
        }
        // What siblings can send is not asked of the public network.
        if siblings
            .iter()
            .any(|peer| self.window.in_flight_of(*peer) > 0)
        {
            return;
        }
        let (inbound, chosen): (Vec<_>, Vec<_>) = others
            .into_iter()
            .partition(|peer| self.peers.get(peer).is_some_and(|peer| peer.is_inbound()));
        let has_chosen = !chosen.is_empty();
        for peer in chosen {
            self.request_from(peer, now);
        }
        for peer in inbound {
            if !has_chosen || self.window.in_flight() == 0 {
                self.request_from(peer, now);
            }
        }
    }

    /// Whether the peer is a node of our own fleet.
    pub(super) fn is_sibling(&self, peer: PeerId) -> bool {
        let peer = self.peers.get(&peer);
        peer.is_some_and(|peer| peer.kind.is_sibling())
    }

    pub(super) fn request_from(&mut self, peer: PeerId, now: Instant) {
        let wanted = self.window.request(peer, now);
        let wanted = match wanted[..] {
            [] => return,
            [hash] if self.is_better_compact(peer, &hash) => vec![Inventory::CompactBlock(hash)],
            _ => wanted.into_iter().map(Inventory::WitnessBlock).collect(),
        };
        self.send(peer, NetworkMessage::GetData(wanted));
    }

    /// Whether the only block that is missing is the next one, so that the mempool may
    /// have its transactions, and the peer speaks compact blocks.
    fn is_better_compact(&self, peer: PeerId, hash: &BlockHash) -> bool {
        let height = self.sync.store.height_of(hash);
        self.compact_peers.contains(&peer)
            && self.window.in_flight() == 1
            && height == Some(self.window.base() + 1)
            && self.is_near_tip()
    }

    pub(super) fn on_block(&mut self, peer: PeerId, block: RawBlock) {
        let hash = block.hash;
        let block = Arrival {
            hash,
            bytes: block.bytes,
            lenient: false,
        };
        let received = self
            .window
            .receive(peer, block, self.sync.net.clock().now());
        self.after_receipt(peer, hash, received, false);
    }

    /// `lenient`: the sender need not have validated the block.
    pub(super) fn after_receipt(
        &mut self,
        peer: PeerId,
        hash: BlockHash,
        received: Received,
        lenient: bool,
    ) {
        match received {
            Received::Wanted => {
                debug!(%peer, %hash, "block received");
                self.sync
                    .shared
                    .blocks_received
                    .fetch_add(1, Ordering::Relaxed);
                if let Some(peer) = self.peers.get(&peer) {
                    peer.note_block();
                    let sender = Sender::of(peer, lenient);
                    self.remember_sender(hash, sender);
                }
            }
            Received::NoLongerWanted => {}
            Received::Unrequested => {
                warn!(%peer, %hash, "a block that was not requested");
                self.drop_peer(peer, Fault::Misbehaved("unrequested_block"));
            }
        }
        self.forget_pending();
    }

    /// A block can turn out invalid until it is connected, which is at the latest when
    /// its window has been.
    pub(super) fn remember_sender(&mut self, hash: BlockHash, sender: Sender) {
        if self.senders.len() >= 2 * self.sync.config.window_blocks as usize {
            self.senders.pop_front();
        }
        self.senders.push_back((hash, sender));
    }

    pub(super) fn feed_kernel(&mut self) {
        while let Ok(place) = self.feed.try_reserve() {
            let Some(block) = self.window.next_ready() else {
                return;
            };
            place.send(block);
        }
    }

    pub(super) fn on_judged(&mut self, judged: Judged) -> Result<(), SyncError> {
        let Judged { hash, from, .. } = judged;
        let verdict = judged.verdict?;
        let word = verdict.word();
        let held = matches!(verdict, BlockVerdict::Accepted | BlockVerdict::Duplicate);
        metrics::block_judged(word, if held { judged.txs } else { 0 }, judged.elapsed);
        debug!(height = judged.height, %hash, verdict = word, elapsed_ms = judged.elapsed.as_millis(), "block judged");
        self.window.judged(&hash, held);
        match verdict {
            BlockVerdict::Accepted => {
                self.progress.count(judged.txs);
                self.stall.relax();
                // The newest block, as nothing else is on its way.
                if self.window.in_flight() == 0 && self.is_near_tip() {
                    self.choose_announcer(from);
                }
            }
            BlockVerdict::Duplicate => self.stall.relax(),
            BlockVerdict::Invalid(invalid) => self.on_invalid(&invalid, Some(from)),
        }
        Ok(())
    }

    /// A block is invalid: its sender goes, and unless only the body was wrong, so does
    /// every chain with it and every peer that follows such a chain. Who told of it by a
    /// compact block stays, as long as its chain ends there: it need not have known.
    pub(super) fn on_invalid(&mut self, invalid: &InvalidBlock, from: Option<PeerId>) {
        let InvalidBlock {
            hash,
            mutated,
            reason,
        } = invalid;
        warn!(%hash, mutated, reason, "invalid block");
        // The sender may have gone and come back since.
        let sender = self
            .senders
            .iter()
            .rev()
            .find(|(sent, _)| sent == hash)
            .map(|(_, sender)| sender.clone());
        let connected = from
            .filter(|peer| self.peers.contains_key(peer))
            .or_else(|| {
                let sender = sender.as_ref()?;
                let mut peers = self.peers.values();
                peers.find(|peer| sender.is(peer)).map(|peer| peer.id)
            });
        let lenient = sender.as_ref().is_some_and(|sender| sender.lenient);
        match (connected, sender) {
            _ if lenient => {}
            (Some(peer), _) => self.drop_peer(peer, Fault::Misbehaved("invalid_block")),
            (None, Some(sender)) => self.sync.net.punish(&sender.addr, sender.kind),
            (None, None) => {}
        }
        if *mutated {
            return;
        }
        self.sync.store.mark_invalid(hash);
        let followers: Vec<_> = self
            .headers
            .bests()
            .filter(|(_, best)| self.sync.store.is_invalid(best))
            .filter(|(peer, best)| {
                let is_excused = lenient || self.told_compact.get(peer) == Some(hash);
                !(is_excused && best == hash)
            })
            .map(|(peer, _)| peer)
            .collect();
        for peer in followers {
            self.drop_peer(peer, Fault::Misbehaved("invalid_chain"));
        }
    }
}
