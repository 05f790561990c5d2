//! Finds out which subscribed scripts and transactions may have another state, and tells
//! their sessions.
//!
//! ```text
//! tip of the index moved -> stale and new blocks -> they and their scripts \
//! the mempool changed    -> what entered or left, and its scripts          > pending
//! unconfirmed children of those blocks' transactions -> their scripts     /
//! pending, as far as subscribed -> state of each, from one view -> registry
//! ```
//!
//! # Correctness
//! - A status changes only with a transaction that pays the script or spends from it: when
//!   it enters or leaves the mempool or the chain, and when an unconfirmed one begins or
//!   ceases to have unconfirmed parents. The last happens with blocks only, to children of
//!   their transactions. What is told of a transaction changes only when it enters or leaves.
//! - What could not be computed (the mempool is behind, a read failed) stays pending.
//! - If too much has happened to list it, everything subscribed is taken for touched.
//!
//! # Limits
//! Nothing is read for what nobody subscribes to. The mempool is held up for [`AT_ONCE`]
//! scripts and transactions at a time.

use std::{collections::HashSet, mem, sync::Arc, time::Duration, time::Instant};

use pulse_primitives::{
    bitcoin::{OutPoint, hashes::Hash},
    block::ConnectedBlock,
    mempool::{MempoolView, ScriptHash},
    tip::ChainTip,
    touched::{Touched, TouchedScripts, TouchedTxs},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    ElectrumState, Inner, Topic,
    error::ElectrumError,
    methods,
    view::{self, At},
};
use crate::{blocks, metrics};

/// Topics whose unconfirmed parts are copied under one lock.
const AT_ONCE: usize = 1_000;
/// Least time between two rounds.
const PAUSE: Duration = Duration::from_millis(20);
/// Longest time after which what stayed pending is tried again. The first time it is
/// [`PAUSE`], since the mempool follows a block in a moment.
const RETRY: Duration = Duration::from_millis(500);

/// Tells sessions what has changed, until `stop`.
pub async fn run(state: ElectrumState, stop: CancellationToken) {
    let mut tip = state.0.api.query().tip_watch();
    let (scripts, txs) = match state.0.api.mempool() {
        Some(mempool) => (mempool.source.touched(), mempool.source.touched_txs()),
        None => (Arc::default(), Arc::default()),
    };
    let (mut scripts_end, mut txs_end) = (scripts.watch(), txs.watch());
    let mut follower = Follower {
        scripts_read: *scripts_end.borrow_and_update(),
        txs_read: *txs_end.borrow_and_update(),
        tip: *tip.borrow_and_update(),
        scripts,
        txs,
        pending: Pending::default(),
    };
    let mut retry_after = PAUSE;
    loop {
        let retry = async {
            match follower.pending.is_empty() {
                true => std::future::pending().await,
                false => tokio::time::sleep(retry_after).await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = tip.changed() => if changed.is_err() { return },
            changed = scripts_end.changed() => if changed.is_err() { return },
            changed = txs_end.changed() => if changed.is_err() { return },
            () = retry => {}
        }
        tip.borrow_and_update();
        scripts_end.borrow_and_update();
        txs_end.borrow_and_update();
        let work = state.clone();
        let round = tokio::task::spawn_blocking(move || {
            let started = Instant::now();
            let count = follower.round(&work.0);
            (follower, count, started.elapsed())
        });
        let Ok((back, result, elapsed)) = round.await else {
            // Clients would wait for ever without knowing.
            warn!("electrum notifier panicked; subscriptions are told nothing more");
            return;
        };
        follower = back;
        let retried_after = retry_after;
        retry_after = match follower.pending.is_empty() {
            true => PAUSE,
            false => (2 * retry_after).min(RETRY),
        };
        match result {
            Ok(0) => {}
            Ok(count) => {
                metrics::electrum_round(elapsed);
                let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
                debug!(count, elapsed_ms, "electrum states renewed");
            }
            // No more than what comes with every block.
            Err(error) if error.passes() && retried_after < RETRY => {}
            Err(error) => error.log("notifier"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// What is to be renewed.
#[derive(Default)]
struct Pending {
    topics: HashSet<Topic>,
    all: bool,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.topics.is_empty() && !self.all
    }
}

struct Follower {
    scripts: Arc<TouchedScripts>,
    txs: Arc<TouchedTxs>,
    /// Up to where the lists of the mempool were read.
    scripts_read: u64,
    txs_read: u64,
    /// The block up to which topics of blocks are among the pending or told.
    tip: Option<ChainTip>,
    pending: Pending,
}

impl Follower {
    /// Tells what is new. Returns how many states were renewed.
    fn round(&mut self, state: &Inner) -> Result<usize, ElectrumError> {
        // Read before the index: what enters later is in the next round.
        let (scripts, read) = self.scripts.since(self.scripts_read);
        self.scripts_read = read;
        let (txs, read) = self.txs.since(self.txs_read);
        self.txs_read = read;
        match (scripts, txs) {
            (Touched::These(scripts), Touched::These(txs)) => {
                let scripts = scripts.into_iter().map(Topic::Script);
                let txs = txs.into_iter().map(|tx| Topic::Tx(tx.txid));
                let wanted = state.registry.wanted(scripts.chain(txs));
                self.pending.topics.extend(wanted);
            }
            _ => self.pending.all = true,
        }
        let at = view::tip(&state.api)?;
        if self.tip != Some(at.tip) {
            let header = methods::tip_json(&at.view, at.tip)?;
            state.registry.post_header(&Arc::from(header));
            let taken = self.take_blocks(state, &at);
            self.tip = Some(at.tip);
            if let Err(error) = taken {
                self.pending.all = true;
                return Err(error);
            }
        }
        drop(at);
        self.tell(state)
    }

    /// Takes in the blocks between the last tip and that of `at`.
    fn take_blocks(&mut self, state: &Inner, at: &At<'_>) -> Result<(), ElectrumError> {
        if state.registry.is_empty() || self.pending.all {
            return Ok(());
        }
        let query = state.api.query();
        let blocks = match self.tip {
            Some(from) => blocks::between(query, &at.view, from, at.tip)?,
            None => None,
        };
        let Some(blocks) = blocks else {
            self.pending.all = true;
            return Ok(());
        };
        for block in &blocks {
            let scripts = blocks::scripts(block).map(Topic::Script);
            let txs = block.txids.iter().copied().map(Topic::Tx);
            let wanted = state.registry.wanted(scripts.chain(txs));
            self.pending.topics.extend(wanted);
        }
        if let Some(mempool) = state.api.mempool() {
            let children = children(&*mempool.source.view(), &blocks);
            let children = children.into_iter().map(Topic::Script);
            self.pending.topics.extend(state.registry.wanted(children));
        }
        Ok(())
    }

    /// Renews what is pending. What fails stays pending.
    fn tell(&mut self, state: &Inner) -> Result<usize, ElectrumError> {
        let topics = match mem::take(&mut self.pending.all) {
            true => state.registry.all(),
            false => state.registry.wanted(mem::take(&mut self.pending.topics)),
        };
        self.pending.topics.clear();
        let mut told = 0;
        for part in topics.chunks(AT_ONCE) {
            let states = match methods::states(state, part) {
                Ok(states) => states,
                Err(error) => {
                    self.pending.topics.extend(&topics[told..]);
                    return Err(error);
                }
            };
            for (topic, now) in part.iter().zip(states) {
                match now {
                    Ok(now) => state.registry.post(*topic, now),
                    // There is no answer about it any more; clients learn it by asking.
                    Err(ElectrumError::HistoryTooLarge { .. }) => {}
                    Err(error) => {
                        error.log("notifier");
                        self.pending.topics.insert(*topic);
                    }
                }
            }
            told += part.len();
        }
        Ok(told)
    }
}

/// Scripts of unconfirmed transactions that spend outputs of `blocks`.
fn children(mempool: &dyn MempoolView, blocks: &[ConnectedBlock]) -> Vec<ScriptHash> {
    let mut scripts = Vec::new();
    for block in blocks {
        for (tx, txid) in block.block.txdata.iter().zip(&block.txids) {
            for vout in (0..).take(tx.output.len()) {
                let spender = mempool.spender(&OutPoint::new(*txid, vout));
                let Some(entry) = spender.and_then(|(txid, _)| mempool.tx(&txid)) else {
                    continue;
                };
                let outputs = entry.tx.output.iter().chain(&*entry.prevouts);
                scripts.extend(
                    outputs.map(|output| ScriptHash::hash(output.script_pubkey.as_bytes())),
                );
            }
        }
    }
    scripts
}
