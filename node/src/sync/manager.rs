//! The task that takes every decision of the sync.
//!
//! It only ever waits for events; whoever has to wait for something else (the
//! kernel, the disk) is another task.

mod blocks;
mod compact;
mod headers;
mod outbound;
mod peers;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use pulse_primitives::{Height, bitcoin::BlockHash};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use compact::Pending;

use super::{
    Sync, SyncError,
    announcers::Announcers,
    blocks::{BestPath, BlockWindow, ReadyBlock, WindowLimits},
    gate::Gate,
    headers::HeaderSync,
    lagging::Laggards,
    progress::{Position, Presyncing, Progress},
    stall::StallDetector,
    workers::{HeadersMessage, Judged, JudgedHeaders, feed_blocks, take_in_headers},
};
use crate::{
    chain::{ChainError, ChainEvent},
    headers::{HeaderStore, presync::Presync},
    metrics,
    net::{ConnectionKind, Fault, Peer},
    p2p::{PeerAddr, peer::PeerId},
};

/// Time between two looks at clocks (stalls, timeouts, retries).
const TICK: Duration = Duration::from_millis(200);
/// Blocks that may wait for the kernel outside the window.
const FEED: usize = 2;
/// How long tasks get to end after they were told to.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Who sent a block.
#[derive(Debug, Clone)]
struct Sender {
    peer: PeerId,
    addr: PeerAddr,
    kind: ConnectionKind,
    /// It need not have validated the block.
    lenient: bool,
}

impl Sender {
    fn of(peer: &Peer, lenient: bool) -> Self {
        Self {
            lenient,
            peer: peer.id,
            addr: peer.addr.clone(),
            kind: peer.kind,
        }
    }

    /// Whether this is the same peer, perhaps on a later connection.
    fn is(&self, peer: &Peer) -> bool {
        self.peer == peer.id
            || (self.kind == peer.kind && !peer.is_inbound() && self.addr == peer.addr)
    }
}

pub(super) struct Manager {
    sync: Sync,
    peers: HashMap<PeerId, Arc<Peer>>,
    headers: HeaderSync,
    window: BlockWindow,
    stall: StallDetector,
    progress: Progress,
    /// `headers` messages that wait to be judged.
    waiting_headers: VecDeque<HeadersMessage>,
    judging_headers: bool,
    /// Peers whose chains have yet to show enough work. That of the message which is
    /// being judged is with it.
    presyncs: HashMap<PeerId, Box<Presync>>,
    /// Who sent the last blocks, for blocks found invalid later.
    senders: VecDeque<(BlockHash, Sender)>,
    /// Peers that speak compact blocks.
    compact_peers: HashSet<PeerId>,
    /// The last block that each peer told of by a compact block.
    told_compact: HashMap<PeerId, BlockHash>,
    announcers: Announcers,
    /// Compact blocks that are not whole, by block and sender.
    pending: HashMap<(BlockHash, PeerId), Pending>,
    laggards: Laggards,
    /// Best tip for which the reach of every peer is known.
    reach_tip: Option<BlockHash>,
    tasks: JoinSet<()>,
    feed: mpsc::Sender<ReadyBlock>,
    judged: mpsc::Receiver<Judged>,
    headers_in: mpsc::Sender<HeadersMessage>,
    headers_out: mpsc::Receiver<JudgedHeaders>,
}

impl Manager {
    /// Everything ready; nothing runs but the workers.
    pub fn new(sync: Sync) -> Self {
        let now = sync.net.clock().now();
        let config = &sync.config;
        let (feed, blocks) = mpsc::channel(FEED);
        let (judged_in, judged) = mpsc::channel(FEED);
        let (headers_in, messages) = mpsc::channel(1);
        let (judged_headers, headers_out) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(feed_blocks(sync.chain.clone(), blocks, judged_in));
        let gate = Gate {
            params: sync.params.clone(),
            chain: sync.chain.clone(),
            store: Arc::clone(&sync.store),
        };
        let source = Arc::clone(&sync.compact_source);
        tasks.spawn(take_in_headers(gate, source, messages, judged_headers));
        let limits = WindowLimits {
            window: config.window_blocks as usize,
            per_peer: config.in_flight_per_peer,
            buffer_bytes: config.buffer_bytes(),
        };
        Self {
            peers: HashMap::new(),
            headers: HeaderSync::new(config.headers_timeout()),
            window: BlockWindow::new(limits, sync.params.genesis_hash()),
            stall: StallDetector::new(config.stall_timeout()),
            progress: Progress::new(sync.chain.active_tip().height, now),
            waiting_headers: VecDeque::new(),
            judging_headers: false,
            presyncs: HashMap::new(),
            senders: VecDeque::new(),
            compact_peers: HashSet::new(),
            told_compact: HashMap::new(),
            announcers: Announcers::default(),
            pending: HashMap::new(),
            laggards: Laggards::default(),
            reach_tip: None,
            tasks,
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
        // Tasks that wait for a place in a channel end when it closes.
        self.sync.events.close();
        self.judged.close();
        self.headers_out.close();
        drop((self.feed, self.headers_in));
        let mut tasks = self.tasks;
        let ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
            warn!("tasks of the sync did not end in time");
            tasks.shutdown().await;
        }
        result
    }

    async fn work(&mut self, stop: &CancellationToken) -> Result<(), SyncError> {
        // Without events (taken before, as tests may) this waits for ever.
        let (_keep, none) = mpsc::unbounded_channel();
        let mut chain_events = self.sync.chain.take_events().unwrap_or(none);
        let shared = Arc::clone(&self.sync.shared);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.pump(self.sync.net.clock().now());
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(event) = self.sync.events.recv() => self.on_event(event),
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
                _ = tick.tick() => self.on_tick(self.sync.net.clock().now()),
            }
            self.pump(self.sync.net.clock().now());
        }
    }

    /// Does all that the last event has made possible.
    fn pump(&mut self, now: Instant) {
        self.judge_headers();
        for peer in self.headers.to_ask(self.has_enough_work(), now) {
            self.ask_headers(peer, self.sync.store.locator(), now);
        }
        let chain = &self.sync.chain;
        self.window
            .update(self.sync.store.as_ref(), |hash| chain.has_block(hash));
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
        self.headers.is_complete() && self.has_enough_work()
    }

    /// Whether the best chain has the network's minimum work.
    fn has_enough_work(&self) -> bool {
        self.sync.store.best().work >= self.sync.params.min_chain_work
    }

    /// The presync that has come farthest.
    fn presyncing(&self) -> Option<Presyncing> {
        self.presyncs
            .values()
            .map(|presync| Presyncing {
                has_shown_work: presync.has_shown_work(),
                height: presync.height(),
            })
            .max()
    }

    fn on_tick(&mut self, now: Instant) {
        while let Some(peer) = self.headers.overdue(now) {
            self.drop_peer(peer, Fault::Slow("headers_timeout"));
        }
        while let Some(peer) = self.window.overdue(self.sync.config.block_timeout(), now) {
            self.drop_peer(peer, Fault::Slow("block_timeout"));
        }
        if let Some(peer) = self.stall.check(self.window.blocker(), now) {
            self.drop_peer(peer, Fault::Slow("stalled"));
        }
        self.forget_pending();
        self.check_outbound(now);
        let best = self.sync.store.best().tip.height;
        self.progress.tick(
            Position {
                headers_complete: self.may_download() || self.sync.config.simulate,
                presync: self.presyncing(),
                active: self.sync.chain.active_tip().height,
                best,
                peers: self.peers.len(),
            },
            now,
        );
        metrics::headers_height(best);
        metrics::presyncs(self.presyncs.len());
        metrics::window(self.window.in_flight(), self.window.buffered_bytes());
        self.publish_peers();
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
