//! Finds out which subscribed scripts may have another status, and tells their sessions.
//!
//! ```text
//! tip of the index moved -> stale and new blocks -> their scripts     \
//! the mempool changed    -> scripts of what entered or left            > pending
//! unconfirmed children of those blocks' transactions -> their scripts /
//! pending, as far as subscribed -> status of each, from one view -> registry
//! ```
//!
//! # Correctness
//! - A status changes only with a transaction that pays the script or spends from it: when
//!   it enters or leaves the mempool or the chain, and when an unconfirmed one begins or
//!   ceases to have unconfirmed parents. The last happens with blocks only, to children of
//!   their transactions.
//! - What could not be computed (the mempool is behind, a read failed) stays pending.
//! - If too much has happened to list it, all subscribed scripts are taken for touched.
//!
//! # Limits
//! Nothing is read for scripts that nobody subscribes to. The mempool is held up for
//! [`AT_ONCE`] scripts at a time.

use std::{collections::HashSet, mem, sync::Arc, time::Duration, time::Instant};

use pulse_primitives::{
    bitcoin::{OutPoint, hashes::Hash},
    block::ConnectedBlock,
    mempool::{MempoolView, ScriptHash},
    tip::ChainTip,
    touched::{Touched, TouchedScripts},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    ElectrumState, Inner,
    error::ElectrumError,
    methods,
    view::{self, At},
};
use crate::{blocks, metrics};

/// Scripts whose unconfirmed parts are copied under one lock.
const AT_ONCE: usize = 1_000;
/// Least time between two rounds.
const PAUSE: Duration = Duration::from_millis(20);
/// Time after which what stayed pending is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Tells sessions what has changed, until `stop`.
pub async fn run(state: ElectrumState, stop: CancellationToken) {
    let mut tip = state.0.api.query().tip_watch();
    let touched = match state.0.api.mempool() {
        Some(mempool) => mempool.source.touched(),
        None => Arc::default(),
    };
    let mut position = touched.watch();
    let mut follower = Follower {
        position: *position.borrow_and_update(),
        tip: *tip.borrow_and_update(),
        touched,
        pending: Pending::default(),
    };
    loop {
        let retry = async {
            match follower.pending.is_empty() {
                true => std::future::pending().await,
                false => tokio::time::sleep(RETRY).await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            changed = tip.changed() => if changed.is_err() { return },
            changed = position.changed() => if changed.is_err() { return },
            () = retry => {}
        }
        tip.borrow_and_update();
        position.borrow_and_update();
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
        match result {
            Ok(0) => {}
            Ok(count) => {
                metrics::electrum_round(elapsed);
                let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
                debug!(count, elapsed_ms, "electrum statuses renewed");
            }
            Err(error) => error.log("notifier"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Scripts whose statuses are to be renewed.
#[derive(Default)]
struct Pending {
    scripts: HashSet<ScriptHash>,
    all: bool,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.scripts.is_empty() && !self.all
    }
}

struct Follower {
    touched: Arc<TouchedScripts>,
    /// Up to where the list of the mempool was read.
    position: u64,
    /// The block up to which scripts of blocks are among the pending or told.
    tip: Option<ChainTip>,
    pending: Pending,
}

impl Follower {
    /// Tells what is new. Returns how many statuses were renewed.
    fn round(&mut self, state: &Inner) -> Result<usize, ElectrumError> {
        // Read before the index: what enters later is in the next round.
        let (touched, position) = self.touched.since(self.position);
        self.position = position;
        match touched {
            Touched::These(scripts) => {
                let wanted = state.registry.wanted(scripts);
                self.pending.scripts.extend(wanted);
            }
            Touched::All => self.pending.all = true,
        }
        let at = view::index(&state.api)?;
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
            let scripts = blocks::scripts(block);
            self.pending.scripts.extend(state.registry.wanted(scripts));
        }
        if let Some(mempool) = state.api.mempool() {
            let children = children(&*mempool.source.view(), &blocks);
            self.pending.scripts.extend(state.registry.wanted(children));
        }
        Ok(())
    }

    /// Renews what is pending. What fails stays pending.
    fn tell(&mut self, state: &Inner) -> Result<usize, ElectrumError> {
        let scripts = match mem::take(&mut self.pending.all) {
            true => state.registry.all(),
            false => state.registry.wanted(mem::take(&mut self.pending.scripts)),
        };
        self.pending.scripts.clear();
        let mut told = 0;
        for part in scripts.chunks(AT_ONCE) {
            let statuses = match methods::statuses(state, part) {
                Ok(statuses) => statuses,
                Err(error) => {
                    self.pending.scripts.extend(&scripts[told..]);
                    return Err(error);
                }
            };
            for (script, status) in part.iter().zip(statuses) {
                match status {
                    Ok(status) => state.registry.post(*script, status),
                    // There is no answer about it any more; clients learn it by asking.
                    Err(ElectrumError::HistoryTooLarge { .. }) => {}
                    Err(error) => {
                        error.log("notifier");
                        self.pending.scripts.insert(*script);
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
