//! Connections: made, reported, and ended with a penalty.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use pulse_primitives::{bitcoin::p2p::message::NetworkMessage, status::PeerReport};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{Fault, Manager, Peer};
use crate::{
    metrics,
    p2p::{
        handshake::{LocalVersion, RemoteVersion},
        peer::{CloseReason, OUTBOX_LEN, PeerEvent, PeerEventKind, PeerId, PeerLimits, PeerTask},
    },
    sync::slots::Penalty,
};

impl Manager {
    pub(super) fn dial(&mut self, slot: usize, stop: &CancellationToken) {
        let peer = PeerId(self.next_peer);
        self.next_peer += 1;
        let addr = self.slots.take(slot, peer);
        debug!(%peer, %addr, "connecting");
        let (outbox, messages) = mpsc::channel(OUTBOX_LEN);
        let peer_stop = stop.child_token();
        let config = &self.sync.config;
        let task = PeerTask {
            peer,
            addr: addr.clone(),
            magic: self.sync.params.magic,
            local: LocalVersion {
                nonce: self.nonce,
                start_height: self.sync.chain.active_tip().height,
            },
            limits: PeerLimits {
                connect: Duration::from_secs(config.connect_timeout_secs),
                handshake: Duration::from_secs(config.handshake_timeout_secs),
                ping_interval: Duration::from_secs(config.ping_interval_secs),
                inactivity: Duration::from_secs(config.inactivity_timeout_secs),
            },
            events: self.events.0.clone(),
            outbox: (outbox.clone(), messages),
            received_bytes: Arc::clone(&self.sync.shared.received_bytes),
            stop: peer_stop.clone(),
        };
        self.tasks.spawn(task.run());
        self.peers.insert(
            peer,
            Peer {
                addr: addr.to_string(),
                outbox,
                stop: peer_stop,
                remote: None,
            },
        );
    }

    pub(super) fn on_event(&mut self, PeerEvent { peer, kind }: PeerEvent) {
        // What a dropped peer had sent before is of no interest.
        if !self.peers.contains_key(&peer) {
            return;
        }
        match kind {
            PeerEventKind::Connected(remote) => self.on_connected(peer, remote),
            PeerEventKind::Headers(headers) => self.on_headers(peer, headers),
            PeerEventKind::BlockInv(hashes) => self.on_inv(peer, &hashes),
            PeerEventKind::Block(block) => self.on_block(peer, block),
            PeerEventKind::BlocksNotFound(hashes) => {
                if hashes.iter().any(|hash| self.window.owes(peer, hash)) {
                    self.drop_peer(peer, Fault::Slow("not_found"));
                }
            }
            PeerEventKind::Closed(reason) => self.on_closed(peer, &reason),
        }
    }

    pub(super) fn on_connected(&mut self, id: PeerId, remote: RemoteVersion) {
        if let Some(peer) = self.peers.get_mut(&id) {
            info!(
                peer = %id,
                addr = peer.addr,
                user_agent = remote.user_agent,
                height = remote.start_height,
                "peer connected"
            );
            peer.remote = Some(remote);
            self.headers.add_peer(id);
            self.publish_peers();
        }
    }

    pub(super) fn on_closed(&mut self, id: PeerId, reason: &CloseReason) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let err = std::error::Error::source(reason).map(ToString::to_string);
        let (addr, err) = (peer.addr.as_str(), err.unwrap_or_default());
        let misbehaved = reason.is_misbehaviour();
        if misbehaved {
            warn!(peer = %id, addr, %reason, err, "peer dropped");
        } else {
            info!(peer = %id, addr, %reason, err, "peer lost");
        }
        let penalty = if misbehaved {
            Penalty::Misbehaved
        } else {
            Penalty::None
        };
        self.forget(id, penalty, reason.word());
    }

    pub(super) fn drop_peer(&mut self, id: PeerId, fault: Fault) {
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        let (penalty, reason) = match fault {
            Fault::Slow(reason) => (Penalty::Slow, reason),
            Fault::Misbehaved(reason) => (Penalty::Misbehaved, reason),
        };
        warn!(peer = %id, addr = peer.addr, reason, "peer dropped");
        self.forget(id, penalty, reason);
    }

    /// Takes the peer out of everything and sets the time of the next attempt.
    pub(super) fn forget(&mut self, id: PeerId, penalty: Penalty, reason: &'static str) {
        if let Some(peer) = self.peers.remove(&id) {
            peer.stop.cancel();
        }
        self.headers.remove_peer(id);
        self.window.remove_peer(id);
        self.waiting_headers.retain(|(peer, _)| *peer != id);
        self.presyncs.remove(&id);
        self.slots
            .release(id, penalty, rand::random(), Instant::now());
        if penalty == Penalty::Misbehaved {
            self.sync
                .shared
                .peers_dropped
                .fetch_add(1, Ordering::Relaxed);
        }
        metrics::disconnect(reason);
        self.publish_peers();
    }

    pub(super) fn connected(&self) -> usize {
        self.peers
            .values()
            .filter(|peer| peer.remote.is_some())
            .count()
    }

    pub(super) fn publish_peers(&self) {
        let mut reports: Vec<_> = self
            .peers
            .iter()
            .filter_map(|(id, peer)| {
                let remote = peer.remote.as_ref()?;
                let report = PeerReport {
                    addr: peer.addr.clone(),
                    user_agent: remote.user_agent.clone(),
                    start_height: remote.start_height,
                    in_flight: self.window.in_flight_of(*id),
                };
                Some((*id, report))
            })
            .collect();
        reports.sort_by_key(|(id, _)| *id);
        metrics::peers(reports.len());
        *self.sync.shared.peers.lock() = reports.into_iter().map(|(_, report)| report).collect();
    }

    /// Queues a message; a peer that does not read is dropped.
    pub(super) fn send(&mut self, id: PeerId, message: NetworkMessage) {
        let sent = self
            .peers
            .get(&id)
            .is_none_or(|peer| peer.outbox.try_send(message).is_ok());
        if !sent {
            self.drop_peer(id, Fault::Slow("not_reading"));
        }
    }
}
