//! Peers: what comes of their events, reports, and faults found with them.

use std::sync::Arc;

use pulse_primitives::{
    bitcoin::{
        BlockHash,
        p2p::{message::NetworkMessage, message_blockdata::Inventory},
    },
    status::PeerReport,
};
use tracing::warn;

use super::Manager;
use crate::{
    net::{Fault, Peer, PeerEvent, PeerEventKind},
    p2p::{message::Message, peer::PeerId},
};

impl Manager {
    pub(super) fn on_event(&mut self, PeerEvent { peer, kind }: PeerEvent) {
        match kind {
            PeerEventKind::Connected => self.on_connected(peer),
            PeerEventKind::Closed => self.forget(peer.id),
            // What a dropped peer had sent before is of no interest.
            PeerEventKind::Message(message) if self.peers.contains_key(&peer.id) => {
                self.on_message(peer.id, message);
            }
            PeerEventKind::Message(_) => {}
        }
    }

    fn on_message(&mut self, peer: PeerId, message: Message) {
        match message {
            Message::Headers(headers) => self.queue_headers(peer, headers),
            Message::Inv(entries) => self.on_inv(peer, blocks(&entries)),
            Message::Block(block) => self.on_block(peer, block),
            Message::CompactBlock(compact) => self.on_compact_block(peer, *compact),
            Message::BlockTxn(answer) => self.on_block_txn(peer, answer),
            Message::SendCmpct { version, .. } => self.on_send_cmpct(peer, version),
            Message::NotFound(entries)
                if blocks(&entries).any(|hash| self.window.owes(peer, &hash)) =>
            {
                self.drop_peer(peer, Fault::Slow("not_found"));
            }
            _ => {}
        }
    }

    fn on_connected(&mut self, peer: Arc<Peer>) {
        if peer.is_closing() {
            return;
        }
        if serves_blocks(&peer) {
            if peer.is_inbound() && self.sync.net.dials() {
                self.headers.add_follower(peer.id);
            } else {
                self.headers.add_peer(peer.id);
            }
        }
        self.watch(&peer);
        let id = peer.id;
        self.peers.insert(id, peer);
        self.publish_peers();
        self.send_cmpct(id, false);
    }

    /// Ends the connection with a peer.
    pub(super) fn drop_peer(&mut self, id: PeerId, fault: Fault) {
        let Some(peer) = self.peers.get(&id).cloned() else {
            return;
        };
        warn!(peer = %id, addr = %peer.addr, reason = fault.word(), "fault found with a peer");
        self.forget(id);
        peer.disconnect(fault);
    }

    /// Takes the peer out of everything.
    fn forget(&mut self, id: PeerId) {
        if self.peers.remove(&id).is_none() {
            return;
        }
        self.headers.remove_peer(id);
        self.window.remove_peer(id);
        self.waiting_headers.retain(|message| message.peer != id);
        self.presyncs.remove(&id);
        self.compact_peers.remove(&id);
        self.told_compact.remove(&id);
        self.announcers.remove_peer(id);
        self.laggards.remove_peer(id);
        self.forget_pending();
        self.publish_peers();
    }

    pub(super) fn publish_peers(&self) {
        let mut reports: Vec<_> = self
            .peers
            .iter()
            .map(|(id, peer)| {
                let ping = peer.least_ping().map(|ping| ping.as_millis());
                let report = PeerReport {
                    addr: peer.addr.to_string(),
                    kind: peer.kind.name(),
                    transport: peer.transport.name(),
                    connected_seconds: peer.age().as_secs(),
                    least_ping_ms: ping.and_then(|ping| u64::try_from(ping).ok()),
                    user_agent: peer.remote.user_agent.clone(),
                    start_height: peer.remote.start_height,
                    in_flight: self.window.in_flight_of(*id),
                };
                (*id, report)
            })
            .collect();
        reports.sort_by_key(|(id, _)| *id);
        *self.sync.shared.peers.lock() = reports.into_iter().map(|(_, report)| report).collect();
    }

    /// Queues a message; a peer that does not read is forgotten, as it is disconnected.
    pub(super) fn send(&mut self, id: PeerId, message: NetworkMessage) {
        if self.peers.get(&id).is_some_and(|peer| !peer.send(message)) {
            self.forget(id);
        }
    }
}

/// Whether the peer can be asked for headers and for blocks with witnesses.
fn serves_blocks(peer: &Peer) -> bool {
    peer.remote.serves_recent_blocks()
}

/// Whether the peer has the newest blocks only (BIP 159).
pub(super) fn is_limited(peer: &Peer) -> bool {
    !peer.remote.serves_all_blocks()
}

fn blocks(entries: &[Inventory]) -> impl Iterator<Item = BlockHash> + '_ {
    entries.iter().filter_map(|entry| match entry {
        Inventory::Block(hash) | Inventory::WitnessBlock(hash) | Inventory::CompactBlock(hash) => {
            Some(*hash)
        }
        _ => None,
    })
}
