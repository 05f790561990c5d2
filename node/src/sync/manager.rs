//! The task that owns all peers and takes every decision of the sync.
//!
//! It only ever waits for events; whoever has to wait for something else (a socket,
//! the kernel, the disk) is another task.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use pulse_primitives::{
    Height,
    bitcoin::{
        BlockHash,
        block::Header,
        hashes::Hash,
        p2p::{
            message::NetworkMessage,
            message_blockdata::{GetHeadersMessage, Inventory},
        },
    },
    status::PeerReport,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::{
    Sync, SyncError,
    blocks::{BestPath, BlockWindow, ReadyBlock, Received, WindowLimits},
    headers::{HeaderSync, Next},
    progress::{Position, Progress},
    slots::{Penalty, Slots},
    stall::StallDetector,
    workers::{Intake, Judged, JudgedHeaders, feed_blocks, take_in_headers},
};
use crate::{
    chain::{BlockVerdict, ChainError, ChainEvent, InvalidBlock},
    headers::{HeaderStore, MAX_HEADERS},
    metrics,
    p2p::{
        codec::RawBlock,
        handshake::{LocalVersion, PROTOCOL_VERSION, RemoteVersion},
        peer::{CloseReason, OUTBOX_LEN, PeerEvent, PeerEventKind, PeerId, PeerLimits, PeerTask},
    },
};

/// Time between two looks at clocks (stalls, timeouts, retries).
const TICK: Duration = Duration::from_millis(200);
/// Events of all peers that may wait for the manager; each can hold a block.
const EVENTS: usize = 16;
/// Blocks that may wait for the kernel outside the window.
const FEED: usize = 2;
/// `headers` messages of one peer that may wait to be judged.
const MAX_WAITING_HEADERS: usize = 4;
/// How long tasks get to end after they were told to.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Average time between blocks, to foresee how many headers there are.
const BLOCK_SECONDS: u64 = 600;

/// A peer with its connection.
struct Peer {
    addr: String,
    outbox: mpsc::Sender<NetworkMessage>,
    stop: CancellationToken,
    /// `None` until the handshake is done.
    remote: Option<RemoteVersion>,
}

/// Why the manager ends a connection.
enum Fault {
    Slow(&'static str),
    Misbehaved(&'static str),
}

pub(super) struct Manager {
    sync: Sync,
    nonce: u64,
    next_peer: u64,
    slots: Slots,
    peers: HashMap<PeerId, Peer>,
    headers: HeaderSync,
    window: BlockWindow,
    stall: StallDetector,
    progress: Progress,
    /// `headers` messages that wait to be judged.
    waiting_headers: VecDeque<(PeerId, Vec<Header>)>,
    judging_headers: bool,
    /// Slots whose peers sent the last blocks, for blocks found invalid later.
    senders: VecDeque<(BlockHash, usize)>,
    /// Best tip for which the reach of every peer is known.
    reach_tip: Option<BlockHash>,
    tasks: JoinSet<()>,
    events: (mpsc::Sender<PeerEvent>, mpsc::Receiver<PeerEvent>),
    feed: mpsc::Sender<ReadyBlock>,
    judged: mpsc::Receiver<Judged>,
    headers_in: mpsc::Sender<(PeerId, Vec<Header>)>,
    headers_out: mpsc::Receiver<JudgedHeaders>,
}

impl Manager {
    /// Everything ready; nothing runs but the workers.
    pub fn new(sync: Sync) -> Self {
        let now = Instant::now();
        let config = &sync.config;
        let (feed, blocks) = mpsc::channel(FEED);
        let (judged_in, judged) = mpsc::channel(FEED);
        let (headers_in, messages) = mpsc::channel(1);
        let (judged_headers, headers_out) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(feed_blocks(Arc::clone(&sync.validator), blocks, judged_in));
        tasks.spawn(take_in_headers(
            Arc::clone(&sync.validator),
            Arc::clone(&sync.store),
            messages,
            judged_headers,
        ));
        let limits = WindowLimits {
            window: config.window_blocks as usize,
            per_peer: config.in_flight_per_peer,
            buffer_bytes: config.buffer_bytes(),
        };
        Self {
            nonce: rand::random(),
            next_peer: 0,
            slots: Slots::new(sync.peers.clone(), config, now),
            peers: HashMap::new(),
            headers: HeaderSync::new(config.headers_timeout()),
            window: BlockWindow::new(limits, sync.params.genesis_hash()),
            stall: StallDetector::new(config.stall_timeout()),
            progress: Progress::new(sync.validator.active_tip().height, now),
            waiting_headers: VecDeque::new(),
            judging_headers: false,
            senders: VecDeque::new(),
            reach_tip: None,
            tasks,
            events: mpsc::channel(EVENTS),
            feed,
            judged,
            headers_in,
            headers_out,
            sync,
        }
    }

    /// Works until `stop`, a failure of the kernel or the disk, or a bug.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), SyncError> {
        let result = self.work(&stop).await;
        for peer in self.peers.values() {
            peer.stop.cancel();
        }
        // Tasks that wait for a place in a channel end when it closes.
        self.events.1.close();
        self.judged.close();
        self.headers_out.close();
        drop((self.feed, self.headers_in));
        let mut tasks = self.tasks;
        let ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
            warn!("tasks of the sync did not end in time");
            tasks.shutdown().await;
        }
        metrics::peers(0);
        result
    }

    async fn work(&mut self, stop: &CancellationToken) -> Result<(), SyncError> {
        // Without events (taken before, as tests may) this waits for ever.
        let (_keep, none) = mpsc::unbounded_channel();
        let mut chain_events = self.sync.validator.take_events().unwrap_or(none);
        let shared = Arc::clone(&self.sync.shared);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.pump(Instant::now());
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(event) = self.events.1.recv() => self.on_event(event),
                Some(judged) = self.judged.recv() => self.on_judged(judged)?,
                Some(judged) = self.headers_out.recv() => self.on_headers_judged(judged)?,
                event = chain_events.recv() => match event {
                    Some(ChainEvent::BlockInvalid(invalid)) => self.on_invalid(&invalid, None),
                    Some(ChainEvent::Fatal(reason)) => return Err(ChainError::Failed(reason).into()),
                    None => return Err(ChainError::Stopped.into()),
                },
                () = shared.changed.notified() => {}
                Some(ended) = self.tasks.join_next() => {
                    if let Err(err) = ended {
                        error!(%err, "a task of the sync failed");
                        return Err(SyncError::TaskFailed);
                    }
                }
                _ = tick.tick() => self.on_tick(Instant::now(), stop),
            }
            self.pump(Instant::now());
        }
    }

    /// Does all that the last event has made possible.
    fn pump(&mut self, now: Instant) {
        self.judge_headers();
        for peer in self.headers.to_ask(now) {
            self.ask_headers(peer, None, now);
        }
        let validator = Arc::clone(&self.sync.validator);
        self.window
            .update(self.sync.store.as_ref(), |hash| validator.has_block(hash));
        self.feed_kernel();
        if self.may_download() {
            self.update_reach(now);
            self.request_blocks(now);
        }
        let shared = &self.sync.shared;
        shared
            .blocks_in_flight
            .store(self.window.in_flight(), Ordering::Relaxed);
    }

    /// Whether headers are far enough for blocks to begin.
    fn may_download(&self) -> bool {
        self.headers.is_complete()
            && self.sync.store.best().work >= self.sync.params.min_chain_work
    }

    // Peers

    fn on_tick(&mut self, now: Instant, stop: &CancellationToken) {
        for slot in self.slots.due(now) {
            self.dial(slot, stop);
        }
        while let Some(peer) = self.headers.overdue(now) {
            self.drop_peer(peer, Fault::Slow("headers_timeout"));
        }
        while let Some(peer) = self.window.overdue(self.sync.config.block_timeout(), now) {
            self.drop_peer(peer, Fault::Slow("block_timeout"));
        }
        if let Some(peer) = self.stall.check(self.window.blocker(), now) {
            self.drop_peer(peer, Fault::Slow("stalled"));
        }
        let best = self.sync.store.best().tip.height;
        self.progress.tick(
            Position {
                headers_complete: self.headers.is_complete() || self.sync.config.simulate,
                active: self.sync.validator.active_tip().height,
                best,
                peers: self.connected(),
            },
            now,
        );
        metrics::headers_height(best);
        metrics::window(self.window.in_flight(), self.window.buffered_bytes());
        self.publish_peers();
    }

    fn dial(&mut self, slot: usize, stop: &CancellationToken) {
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
                start_height: self.sync.validator.active_tip().height,
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

    fn on_event(&mut self, PeerEvent { peer, kind }: PeerEvent) {
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

    fn on_connected(&mut self, id: PeerId, remote: RemoteVersion) {
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

    fn on_closed(&mut self, id: PeerId, reason: &CloseReason) {
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

    fn drop_peer(&mut self, id: PeerId, fault: Fault) {
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
    fn forget(&mut self, id: PeerId, penalty: Penalty, reason: &'static str) {
        if let Some(peer) = self.peers.remove(&id) {
            peer.stop.cancel();
        }
        self.headers.remove_peer(id);
        self.window.remove_peer(id);
        self.waiting_headers.retain(|(peer, _)| *peer != id);
        self.slots.release(id, penalty, rand::random(), Instant::now());
        if penalty == Penalty::Misbehaved {
            self.sync.shared.peers_dropped.fetch_add(1, Ordering::Relaxed);
        }
        metrics::disconnect(reason);
        self.publish_peers();
    }

    fn connected(&self) -> usize {
        self.peers.values().filter(|peer| peer.remote.is_some()).count()
    }

    fn publish_peers(&self) {
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
    fn send(&mut self, id: PeerId, message: NetworkMessage) {
        let sent = self
            .peers
            .get(&id)
            .is_none_or(|peer| peer.outbox.try_send(message).is_ok());
        if !sent {
            self.drop_peer(id, Fault::Slow("not_reading"));
        }
    }

    // Headers

    /// Asks for what follows `from`, or our best chain.
    fn ask_headers(&mut self, peer: PeerId, from: Option<BlockHash>, now: Instant) {
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

    fn on_headers(&mut self, peer: PeerId, headers: Vec<Header>) {
        let waiting = self.waiting_headers.iter().filter(|(other, _)| *other == peer);
        if waiting.count() >= MAX_WAITING_HEADERS {
            self.drop_peer(peer, Fault::Misbehaved("headers_flood"));
            return;
        }
        self.waiting_headers.push_back((peer, headers));
    }

    fn judge_headers(&mut self) {
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

    fn on_headers_judged(&mut self, judged: JudgedHeaders) -> Result<(), SyncError> {
        self.judging_headers = false;
        let now = Instant::now();
        let JudgedHeaders { peer, count, outcome } = judged;
        let next = match outcome? {
            Intake::Accepted { last, new } => {
                debug!(%peer, count, new, "headers accepted");
                if let Some(last) = last {
                    self.has(peer, last);
                }
                let next = self.headers.accepted(peer, count == MAX_HEADERS);
                if self.headers.is_complete() {
                    self.sync.shared.headers_answered.store(true, Ordering::Release);
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

    fn on_inv(&mut self, peer: PeerId, hashes: &[BlockHash]) {
        let mut unknown = None;
        for hash in hashes {
            if self.sync.store.contains(hash) {
                self.has(peer, *hash);
            } else {
                unknown = Some(*hash);
            }
        }
        if let Some(hash) = unknown
            && self.headers.announced(peer, hash)
        {
            self.ask_headers(peer, None, Instant::now());
        }
    }

    /// The peer has the block `hash`, whose header is stored.
    fn has(&mut self, peer: PeerId, hash: BlockHash) {
        let store = &self.sync.store;
        let better = self
            .headers
            .best_of(peer)
            .is_none_or(|best| store.is_invalid(&best) || store.work_of(&hash) > store.work_of(&best));
        if better {
            self.headers.set_best(peer, hash);
            self.reach_tip = None;
        }
    }

    // Blocks

    /// Tells the window how far along the best chain each peer goes.
    fn update_reach(&mut self, now: Instant) {
        let store = &self.sync.store;
        let tip = store.best().tip.hash;
        if self.reach_tip == Some(tip) {
            return;
        }
        for (peer, best) in self.headers.bests() {
            if let Some(fork) = store.fork_point(&best) {
                self.window.set_reach(peer, fork.height, now);
            }
        }
        self.reach_tip = Some(tip);
    }

    fn request_blocks(&mut self, now: Instant) {
        let peers: Vec<_> = self.headers.bests().map(|(peer, _)| peer).collect();
        for peer in peers {
            let wanted = self.window.request(peer, now);
            if !wanted.is_empty() {
                let wanted = wanted.into_iter().map(Inventory::WitnessBlock).collect();
                self.send(peer, NetworkMessage::GetData(wanted));
            }
        }
    }

    fn on_block(&mut self, peer: PeerId, block: RawBlock) {
        let hash = block.hash;
        match self.window.receive(peer, hash, block.bytes, Instant::now()) {
            Received::Wanted => {
                self.sync.shared.blocks_received.fetch_add(1, Ordering::Relaxed);
                self.slots.useful(peer);
                if let Some(slot) = self.slots.slot_of(peer) {
                    self.remember_sender(hash, slot);
                }
            }
            Received::NoLongerWanted => {}
            Received::Unrequested => {
                warn!(%peer, %hash, "a block that was not requested");
                self.drop_peer(peer, Fault::Misbehaved("unrequested_block"));
            }
        }
    }

    /// A block can turn out invalid until it is connected, which is at the latest when
    /// its window has been.
    fn remember_sender(&mut self, hash: BlockHash, slot: usize) {
        if self.senders.len() >= 2 * self.sync.config.window_blocks as usize {
            self.senders.pop_front();
        }
        self.senders.push_back((hash, slot));
    }

    fn feed_kernel(&mut self) {
        while let Ok(place) = self.feed.try_reserve() {
            let Some(block) = self.window.next_ready() else {
                return;
            };
            place.send(block);
        }
    }

    fn on_judged(&mut self, judged: Judged) -> Result<(), SyncError> {
        let Judged { hash, from, .. } = judged;
        let verdict = judged.verdict?;
        let word = match &verdict {
            BlockVerdict::Accepted => "accepted",
            BlockVerdict::Duplicate => "duplicate",
            BlockVerdict::Invalid(invalid) if invalid.mutated => "mutated",
            BlockVerdict::Invalid(_) => "invalid",
        };
        let held = matches!(verdict, BlockVerdict::Accepted | BlockVerdict::Duplicate);
        metrics::block_judged(word, if held { judged.txs } else { 0 }, judged.elapsed);
        debug!(height = judged.height, %hash, verdict = word, elapsed_ms = judged.elapsed.as_millis(), "block judged");
        self.window.judged(&hash, held);
        match verdict {
            BlockVerdict::Accepted => {
                self.progress.count(judged.txs);
                self.stall.relax();
            }
            BlockVerdict::Duplicate => self.stall.relax(),
            BlockVerdict::Invalid(invalid) => self.on_invalid(&invalid, Some(from)),
        }
        Ok(())
    }

    /// A block is invalid: its sender goes, and unless only the body was wrong, so does
    /// every chain with it and every peer that follows such a chain.
    fn on_invalid(&mut self, invalid: &InvalidBlock, from: Option<PeerId>) {
        let InvalidBlock { hash, mutated, reason } = invalid;
        warn!(%hash, mutated, reason, "invalid block");
        // The sender may have gone and come back since.
        let slot = self
            .senders
            .iter()
            .rev()
            .find(|(sent, _)| sent == hash)
            .map(|(_, slot)| *slot);
        let sender = from
            .filter(|peer| self.peers.contains_key(peer))
            .or_else(|| self.slots.peer_in(slot?));
        match (sender, slot) {
            (Some(peer), _) => self.drop_peer(peer, Fault::Misbehaved("invalid_block")),
            (None, Some(slot)) => self.slots.punish(slot, Instant::now()),
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
            .map(|(peer, _)| peer)
            .collect();
        for peer in followers {
            self.drop_peer(peer, Fault::Misbehaved("invalid_chain"));
        }
    }
}

impl BestPath for HeaderStore {
    fn tip_hash(&self) -> BlockHash {
        self.best().tip.hash
    }

    fn hash_at(&self, height: Height) -> Option<BlockHash> {
        self.best_hash_at(height)
    }

    fn fork_height(&self, hash: &BlockHash) -> Option<Height> {
        self.fork_point(hash).map(|tip| tip.height)
    }
}
