//! Finds out what has happened, and tells it: the chain to the hub, states of what is
//! subscribed to to the registry.
//!
//! ```text
//! tip of the index moved -> fork point -> blocks taken back, new blocks -> hub
//!                        -> what those blocks touch  \
//! the mempool changed    -> what entered or left      > pending
//! pending, as far as subscribed -> state of each, from one view -> registry
//! ```
//!
//! # Correctness
//! - A state changes only with a transaction that enters or leaves the mempool or the chain:
//!   that of the scripts and outpoints that it pays or spends, and its own.
//! - The chain is told before the states that it leads to.
//! - What could not be computed (the mempool is behind, a read failed) stays pending.
//! - If too much has happened to list it, everything is taken for touched, and who follows
//!   the chain is told to read anew.
//!
//! # Limits
//! Until the node is synced, and as long as nobody is there to be told, nothing is read
//! but the tip. The mempool is held up for [`AT_ONCE`] keys at a time.

use std::{
    collections::{HashSet, VecDeque},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use pulse_indexer::query::{QueryError, View};
use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, OutPoint},
    block::ConnectedBlock,
    status::Readiness,
    tip::ChainTip,
    touched::{Touched, TouchedScripts, TouchedTx, TouchedTxs},
};
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    Inner, PushState,
    hub::{Audience, Channel, News},
    state::{Key, states},
};
use crate::{
    blocks, metrics,
    rest::{error::RestError, parts},
};

/// Keys whose unconfirmed parts are copied under one lock.
pub(super) const AT_ONCE: usize = 1_000;
/// New blocks that are told one by one; above it clients have to read anew.
const MAX_BLOCKS: Height = 100;
/// Newest blocks whose hashes are remembered, to tell which ones are taken back: two weeks.
const REMEMBERED: Height = 2_016;
/// Least time between two rounds.
const PAUSE: Duration = Duration::from_millis(20);
/// Time after which what stayed pending is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// Least time between two states of the mempool, and between two looks at whether the node
/// is synced.
const TICK: Duration = Duration::from_secs(1);

/// Tells sessions what happens, until `stop`.
pub(super) async fn run(push: PushState, stop: CancellationToken) {
    let api = &push.0.api;
    let mut tip = api.query().tip_watch();
    let (scripts, txs) = match api.mempool() {
        Some(mempool) => (mempool.source.touched(), mempool.source.touched_txs()),
        None => (Arc::default(), Arc::default()),
    };
    let (mut scripts_end, mut txs_end) = (scripts.watch(), txs.watch());
    let mut follower = Follower {
        scripts_read: *scripts_end.borrow_and_update(),
        txs_read: *txs_end.borrow_and_update(),
        scripts,
        txs,
        tip: None,
        chain: Remembered::default(),
        is_synced: true,
        pending: Pending::default(),
        mempool_told: None,
    };
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let work = push.clone();
        let round = tokio::task::spawn_blocking(move || {
            let started = Instant::now();
            let count = follower.round(&work.0);
            (follower, count, started.elapsed())
        });
        let Ok((back, result, elapsed)) = round.await else {
            // Clients would wait for ever without knowing.
            warn!("push follower panicked; clients are disconnected");
            push.0.hub.forget();
            push.0.stop.cancel();
            return;
        };
        follower = back;
        match result {
            Ok(0) => {}
            Ok(count) => {
                metrics::push_round(elapsed);
                let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
                debug!(count, elapsed_ms, "states renewed");
            }
            Err(error) => error.log("push"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
        let retry = async {
            match follower.pending.is_empty() {
                true => std::future::pending().await,
                false => tokio::time::sleep(RETRY).await,
            }
        };
        let has_clients = !push.0.is_idle();
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
            () = push.0.first_client.notified() => {}
            changed = tip.changed() => if changed.is_err() { return },
            changed = scripts_end.changed(), if has_clients => if changed.is_err() { return },
            changed = txs_end.changed(), if has_clients => if changed.is_err() { return },
            () = retry => {}
        }
    }
}

/// State of the mempool for clients; `None` while it does not follow the chain.
pub(super) fn mempool_state(push: &Inner) -> Option<Value> {
    let source = &push.api.mempool()?.source;
    source.view().tip()?;
    Some(json!({"mempool": parts::backlog(&source.backlog())}))
}

/// Keys whose states are to be renewed.
#[derive(Default)]
struct Pending {
    keys: HashSet<Key>,
    all: bool,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.keys.is_empty() && !self.all
    }
}

struct Follower {
    scripts: Arc<TouchedScripts>,
    txs: Arc<TouchedTxs>,
    /// Up to where the lists of the mempool were read.
    scripts_read: u64,
    txs_read: u64,
    /// The tip that was told; `None` while the node is not followed.
    tip: Option<ChainTip>,
    /// The chain that ends with it.
    chain: Remembered,
    /// Whether the node was synced when clients were last told.
    is_synced: bool,
    pending: Pending,
    mempool_told: Option<Instant>,
}

impl Follower {
    /// Tells what is new. Returns how many states were renewed.
    fn round(&mut self, push: &Inner) -> Result<usize, RestError> {
        // Read before the index: what enters later is in the next round.
        self.take_touched(push);
        let view = push.api.query().view()?;
        let Some(tip) = view.tip() else {
            return Ok(0);
        };
        // Drawn after the view, so that it is never held against an older best header.
        let readiness = push.api.readiness(&view);
        let is_synced = readiness == Readiness::Synced;
        // In a reorganisation the index goes back before it goes on. Clients are told of both at
        // once.
        let best = push.api.status().report_without_peers().best_header.height;
        let goes_back = |told: &ChainTip| tip.height < told.height.min(best);
        let kept = self.tip.filter(goes_back);
        let tip = kept.unwrap_or(tip);
        if !is_synced && push.is_idle() {
            push.hub.forget();
            (self.tip, self.chain) = (None, Remembered::default());
            self.is_synced = true;
            return Ok(0);
        }
        let mut news = Vec::new();
        let mut failed = None;
        if self.tip != Some(tip) {
            if let Some(from) = self.tip {
                news = self.chain.news(&view, from, tip)?;
                failed = self.take_blocks(push, &view, from, tip).err();
            }
            self.chain.follow(&view, tip)?;
        }
        if is_synced != self.is_synced {
            news.push(status(&readiness, tip));
        }
        if !news.is_empty() || self.tip != Some(tip) {
            push.hub.publish(news, tip);
        }
        (self.tip, self.is_synced) = (Some(tip), is_synced);
        drop(view);
        if let Some(error) = failed {
            self.pending.all = true;
            return Err(error.into());
        }
        if kept.is_some() {
            return Ok(0);
        }
        if is_synced && !push.is_idle() {
            self.tell_mempool(push);
        }
        self.tell(push)
    }

    /// Takes in what has entered and left the mempool.
    fn take_touched(&mut self, push: &Inner) {
        let (scripts, read) = self.scripts.since(self.scripts_read);
        self.scripts_read = read;
        let (txs, read) = self.txs.since(self.txs_read);
        self.txs_read = read;
        let (Touched::These(scripts), Touched::These(txs)) = (scripts, txs) else {
            self.pending.all = true;
            return;
        };
        let keys = scripts.into_iter().map(Key::Script);
        self.pending.keys.extend(push.registry.wanted(keys));
        let keys = txs.iter().flat_map(keys_of_tx);
        self.pending.keys.extend(push.registry.wanted(keys));
    }

    /// Takes in the blocks between two tips.
    fn take_blocks(
        &mut self,
        push: &Inner,
        view: &View<'_>,
        from: ChainTip,
        to: ChainTip,
    ) -> Result<(), QueryError> {
        if push.registry.is_empty() || self.pending.all {
            return Ok(());
        }
        let Some(blocks) = blocks::between(push.api.query(), view, from, to)? else {
            self.pending.all = true;
            return Ok(());
        };
        for block in &blocks {
            let scripts = blocks::scripts(block).map(Key::Script);
            self.pending.keys.extend(push.registry.wanted(scripts));
            let keys = keys_of_block(block);
            self.pending.keys.extend(push.registry.wanted(keys));
        }
        Ok(())
    }

    fn tell_mempool(&mut self, push: &Inner) {
        let now = Instant::now();
        let is_due = |told: Instant| now.saturating_duration_since(told) >= TICK;
        if self.mempool_told.is_none_or(is_due) {
            self.mempool_told = Some(now);
            if let Some(state) = mempool_state(push) {
                push.hub.publish_mempool(state);
            }
        }
    }

    /// Renews what is pending. What fails stays pending.
    fn tell(&mut self, push: &Inner) -> Result<usize, RestError> {
        let keys = match mem::take(&mut self.pending.all) {
            true => push.registry.all(),
            false => push.registry.wanted(mem::take(&mut self.pending.keys)),
        };
        self.pending.keys.clear();
        let mut told = 0;
        for part in keys.chunks(AT_ONCE) {
            let states = match states(&push.api, part) {
                Ok(states) => states,
                Err(error) => {
                    self.pending.keys.extend(&keys[told..]);
                    return Err(error);
                }
            };
            for (key, state) in part.iter().zip(states) {
                match state {
                    Ok(state) => push.registry.post(*key, state),
                    Err(error) => {
                        error.log("push");
                        self.pending.keys.insert(*key);
                    }
                }
            }
            told += part.len();
        }
        Ok(told)
    }
}

/// What a transaction changes besides scripts: itself, its outputs, and what it spends.
fn keys_of_tx(tx: &TouchedTx) -> impl Iterator<Item = Key> + '_ {
    let outputs = (0..tx.outputs).map(|vout| Key::Outpoint(OutPoint::new(tx.txid, vout)));
    let spends = tx.spends.iter().map(|outpoint| Key::Outpoint(*outpoint));
    [Key::Tx(tx.txid)].into_iter().chain(outputs).chain(spends)
}

/// The same for all transactions of a block.
fn keys_of_block(block: &ConnectedBlock) -> impl Iterator<Item = Key> + '_ {
    let txs = block.block.txdata.iter().zip(&block.txids);
    txs.flat_map(|(tx, txid)| {
        let outputs = (0..).take(tx.output.len());
        let outputs = outputs.map(|vout| Key::Outpoint(OutPoint::new(*txid, vout)));
        let spends = tx.input.iter();
        let spends = spends.map(|input| Key::Outpoint(input.previous_output));
        [Key::Tx(*txid)].into_iter().chain(outputs).chain(spends)
    })
}

/// Whether answers can be trusted to be complete from now on.
fn status(readiness: &Readiness, tip: ChainTip) -> News {
    let reason = match readiness {
        Readiness::Synced => None,
        Readiness::NotSynced { reason } => Some(reason),
    };
    News {
        kind: "status",
        audience: Audience::All,
        tip,
        body: json!({"synced": reason.is_none(), "reason": reason}),
    }
}

/// Hashes of the newest blocks of the chain that clients know.
#[derive(Default)]
struct Remembered {
    /// The newest last.
    hashes: VecDeque<BlockHash>,
    /// Height of the newest.
    height: Height,
}

impl Remembered {
    fn at(&self, height: Height) -> Option<BlockHash> {
        let back = self.height.checked_sub(height)?;
        let place = self.hashes.len().checked_sub(1 + back as usize)?;
        self.hashes.get(place).copied()
    }

    /// What leads from the tip `from`, with which these end, to `to`, that of `view`.
    fn news(&self, view: &View<'_>, from: ChainTip, to: ChainTip) -> Result<Vec<News>, RestError> {
        let news = |kind, audience, body| News {
            kind,
            audience,
            tip: to,
            body,
        };
        let tip = news(
            "tip",
            Audience::Channel(Channel::Tips),
            json!({"initial": false}),
        );
        let reset = |reason| {
            let body = json!({"reason": reason});
            news("reset", Audience::Chain, body)
        };
        let mut height = from.height.min(to.height);
        let fork = loop {
            match (self.at(height), view.block_hash_at(height)?) {
                (Some(told), Some(hash)) if told == hash => break hash,
                (Some(_), _) if height > 0 => height -= 1,
                _ => return Ok(vec![reset("deep_reorganisation"), tip]),
            }
        };
        if to.height - height > MAX_BLOCKS {
            return Ok(vec![reset("too_many_blocks"), tip]);
        }
        let mut all = Vec::new();
        if height < from.height {
            let removed: Vec<Value> = (height + 1..=from.height)
                .rev()
                .filter_map(|height| Some(parts::place(height, &self.at(height)?)))
                .collect();
            let body = json!({"fork": parts::place(height, &fork), "removed": removed});
            all.push(news("reorg", Audience::Channel(Channel::Reorgs), body));
        }
        for height in height + 1..=to.height {
            let Some(block) = view.block_at(height)? else {
                return Ok(vec![reset("too_many_blocks"), tip]);
            };
            let body = json!({"block": parts::block(&block)});
            all.push(news("block", Audience::Channel(Channel::Blocks), body));
        }
        all.push(tip);
        Ok(all)
    }

    /// From now on the chain of `view`, which ends with `tip`.
    fn follow(&mut self, view: &View<'_>, tip: ChainTip) -> Result<(), QueryError> {
        let mut height = self.height.min(tip.height);
        while let Some(told) = self.at(height)
            && view.block_hash_at(height)? != Some(told)
            && height > 0
        {
            height -= 1;
        }
        // What stays is what is above nothing that has changed.
        let kept = match self.at(height) {
            Some(told) if view.block_hash_at(height)? == Some(told) => height + 1,
            _ => 0,
        };
        let oldest = (tip.height + 1).saturating_sub(REMEMBERED);
        if kept <= oldest {
            self.hashes.clear();
        } else {
            let gone = (self.height + 1).saturating_sub(kept) as usize;
            self.hashes.truncate(self.hashes.len().saturating_sub(gone));
        }
        let new = view.block_hashes(kept.max(oldest)..tip.height + 1)?;
        self.hashes.extend(new);
        self.height = tip.height;
        let excess = self.hashes.len().saturating_sub(REMEMBERED as usize);
        self.hashes.drain(..excess);
        Ok(())
    }
}
