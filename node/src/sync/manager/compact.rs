//! Compact blocks (BIP 152): received, completed, and which peers send them unasked.
//!
//! ```text
//! cmpctblock -> its header is judged like any other -> Assembly
//!    whole   ------------------------------------------------> kernel
//!    missing -> getblocktxn -> blocktxn ---------------------> kernel
//!    failed  -> the whole block is asked for
//! ```
//!
//! # Security
//! One that nobody asked for is looked at only if its sender was chosen to announce so.
//! At most three peers send one block at a time. A block that was put together may turn
//! out invalid without its sender knowing: BIP 152 lets peers relay before they validate.

use std::time::Instant;

use pulse_primitives::{
    Height,
    bitcoin::{
        BlockHash,
        bip152::{BlockTransactions, HeaderAndShortIds},
        p2p::{
            message::NetworkMessage,
            message_blockdata::Inventory,
            message_compact_blocks::{GetBlockTxn, SendCmpct},
        },
    },
};
use tracing::debug;

use super::Manager;
use crate::{
    metrics,
    net::Fault,
    p2p::{
        compact::{COMPACT_VERSION, CompactError, PartialBlock},
        peer::PeerId,
    },
    sync::{
        assembly::Assembly,
        blocks::{Arrival, MAX_PARALLEL},
    },
};

/// A tip younger than this many blocks' time is close to the end of the chain (Bitcoin
/// Core's `CanDirectFetch`).
const DIRECT_FETCH_BLOCKS: u64 = 20;
/// Blocks above the active tip whose transactions the mempool may have.
const MAX_COMPACT_LEAD: Height = 2;

/// A compact block that was not whole.
pub(super) enum Pending {
    /// Its missing transactions were asked for.
    Transactions(PartialBlock),
    /// They did not fit, and the whole block was asked for.
    Whole,
}

impl Manager {
    /// Whether the active chain is so young that new blocks are what is missing.
    pub(super) fn is_near_tip(&self) -> bool {
        let now = self.sync.net.clock().unix();
        let limit = DIRECT_FETCH_BLOCKS * self.sync.params.consensus.pow_target_spacing;
        u64::from(self.sync.chain.active_tip().time) + limit > now
    }

    pub(super) fn on_send_cmpct(&mut self, peer: PeerId, version: u64) {
        if version == COMPACT_VERSION {
            self.compact_peers.insert(peer);
        }
    }

    pub(super) fn on_compact_block(&mut self, peer: PeerId, compact: HeaderAndShortIds) {
        if !self.compact_peers.contains(&peer) {
            return;
        }
        let hash = compact.header.block_hash();
        let expected = self.announcers.contains(peer) || self.window.owes(peer, &hash);
        let header = compact.header;
        self.told_compact.insert(peer, hash);
        self.queue_compact(peer, header, expected.then(|| Box::new(compact)));
    }

    /// The header of a compact block is stored; this could be made of the rest.
    pub(super) fn on_assembly(
        &mut self,
        peer: PeerId,
        hash: BlockHash,
        assembly: Assembly,
        now: Instant,
    ) {
        let chain = &self.sync.chain;
        let store = &self.sync.store;
        self.window
            .update(store.as_ref(), |hash| chain.has_block(hash));
        self.update_reach(now);
        let asked: Vec<_> = self.window.asked(&hash).collect();
        let is_asked = asked.contains(&peer);
        if self.sync.chain.has_block(&hash) || !self.peers.contains_key(&peer) {
            return;
        }
        let tip = self.sync.chain.active_tip();
        let has_more_work = self.sync.store.work_of(&hash) > self.sync.store.work_of(&tip.hash);
        let lead = self.sync.store.height_of(&hash);
        let is_next = lead.is_some_and(|height| height <= tip.height + MAX_COMPACT_LEAD);
        if !has_more_work || !is_next {
            // The mempool is of no use for it.
            if is_asked {
                self.ask_whole(peer, hash);
            }
            return;
        }
        if asked.is_empty() && !self.is_near_tip() {
            return;
        }
        let first = asked.first().is_none_or(|first| *first == peer);
        if !is_asked && self.window.join(peer, &hash, now).is_none() {
            // It is on its way from enough others, but here it is.
            if let Assembly::Whole(bytes) = assembly {
                let block = Arrival {
                    hash,
                    bytes,
                    lenient: true,
                };
                let received = self.window.receive_unasked(peer, block, now);
                self.after_receipt(peer, hash, received, true);
            }
            return;
        }
        if self.pending.contains_key(&(hash, peer)) {
            return; // Sent twice.
        }
        metrics::compact_block(assembly.word());
        match assembly {
            Assembly::Whole(bytes) => self.on_assembled(peer, hash, bytes, now),
            Assembly::Missing(partial) => {
                if first || self.may_send_beside(peer, &asked) {
                    self.ask_transactions(peer, hash, partial);
                } else {
                    self.window.cancel(peer, &hash);
                }
            }
            Assembly::Failed(err) => self.on_failed_assembly(peer, hash, err, first),
        }
    }

    /// Whether what is missing of a block may be asked of a peer while others send it.
    /// The last place is kept for a peer that we connected to.
    fn may_send_beside(&self, peer: PeerId, asked: &[PeerId]) -> bool {
        let is_inbound = |peer: &PeerId| self.peers.get(peer).is_some_and(|peer| peer.is_inbound());
        self.announcers.contains(peer)
            && (!is_inbound(&peer)
                || asked.iter().any(|other| !is_inbound(other))
                || asked.len() < MAX_PARALLEL - 1)
    }

    pub(super) fn on_block_txn(&mut self, peer: PeerId, answer: BlockTransactions) {
        let hash = answer.block_hash;
        let partial = match self.pending.remove(&(hash, peer)) {
            Some(Pending::Transactions(partial)) => partial,
            Some(Pending::Whole) => {
                self.drop_peer(peer, Fault::Misbehaved("blocktxn_twice"));
                return;
            }
            None => return,
        };
        let mut asked = self.window.asked(&hash);
        let first = asked.next() == Some(peer);
        if !first && !asked.any(|other| other == peer) {
            return; // It has come from elsewhere.
        }
        drop(asked);
        match partial.fill(answer.transactions) {
            Ok(bytes) => self.on_assembled(peer, hash, bytes, self.sync.net.clock().now()),
            Err(err) => self.on_failed_assembly(peer, hash, err, first),
        }
    }

    fn on_assembled(&mut self, peer: PeerId, hash: BlockHash, bytes: Vec<u8>, now: Instant) {
        let block = Arrival {
            hash,
            bytes,
            lenient: true,
        };
        let received = self.window.receive(peer, block, now);
        self.after_receipt(peer, hash, received, true);
    }

    /// `first`: the peer was asked before all others.
    fn on_failed_assembly(
        &mut self,
        peer: PeerId,
        hash: BlockHash,
        err: CompactError,
        first: bool,
    ) {
        debug!(%peer, %hash, %err, "compact block cannot be put together");
        match err {
            CompactError::Invalid(_) => {
                self.drop_peer(peer, Fault::Misbehaved("invalid_compact_block"));
            }
            CompactError::Unusable if first => {
                self.pending.insert((hash, peer), Pending::Whole);
                self.ask_whole(peer, hash);
            }
            CompactError::Unusable => self.window.cancel(peer, &hash),
        }
    }

    fn ask_transactions(&mut self, peer: PeerId, hash: BlockHash, partial: PartialBlock) {
        let Some(txs_request) = partial.request() else {
            return;
        };
        debug!(%peer, %hash, count = txs_request.indexes.len(), "transactions of a compact block are missing");
        self.pending
            .insert((hash, peer), Pending::Transactions(partial));
        let request = GetBlockTxn { txs_request };
        self.send(peer, NetworkMessage::GetBlockTxn(request));
    }

    fn ask_whole(&mut self, peer: PeerId, hash: BlockHash) {
        let wanted = vec![Inventory::WitnessBlock(hash)];
        self.send(peer, NetworkMessage::GetData(wanted));
    }

    /// What was pending for a block that is here now, or not expected any more, is
    /// forgotten.
    pub(super) fn forget_pending(&mut self) {
        let window = &self.window;
        self.pending
            .retain(|(hash, peer), _| window.owes(*peer, hash));
    }

    /// A new block of this peer is valid: it may announce the next ones at once.
    pub(super) fn choose_announcer(&mut self, peer: PeerId) {
        let is_inbound = self.peers.get(&peer).map(|peer| peer.is_inbound());
        let Some(is_inbound) = is_inbound.filter(|_| self.compact_peers.contains(&peer)) else {
            return;
        };
        let change = self.announcers.delivered(peer, is_inbound);
        if let Some(peer) = change.begin {
            self.send_cmpct(peer, true);
        }
        if let Some(peer) = change.end {
            self.send_cmpct(peer, false);
        }
    }

    /// Tells a peer that we speak compact blocks, and whether it is to send new ones at
    /// once.
    pub(super) fn send_cmpct(&mut self, peer: PeerId, send_compact: bool) {
        let message = SendCmpct {
            send_compact,
            version: COMPACT_VERSION,
        };
        self.send(peer, NetworkMessage::SendCmpct(message));
    }
}
