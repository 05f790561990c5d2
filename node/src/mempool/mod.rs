//! The mempool's task: keeps the pool at the index's tip, takes transactions in, and
//! keeps what is to survive a restart.
//!
//! ```text
//! index tip -> Follower -> pool <- accept (peers, clients, file) -> events -> estimates, relay
//! ```
//!
//! The task follows the index and saves; transactions are judged on the threads of those
//! who bring them, through [`MempoolHandle`].
//!
//! # Correctness
//! The pool is empty and refuses everything until the node has caught up once
//! ([`Activity`]). A file is replaced only after it was read in full.

mod activity;
mod estimates;
mod extra;
mod file;
mod follow;
mod handle;
mod inner;
mod keep;
mod notice;
mod submit;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use pulse_mempool::{AcceptError, Mempool, MempoolConfig, TipMismatch, TxJudge};
use pulse_primitives::{
    coins::{CoinError, CoinSource},
    ports::{BlockSource, BlockSourceError, NodeStatus},
};
use tokio::{sync::mpsc, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::relay::broadcast::Broadcasts;
pub use activity::Activity;
use extra::ExtraTxs;
use follow::Follower;
pub use handle::{MempoolHandle, NotAccepted, NotJudged};
use inner::{Inner, Ledger, Parts};
pub use notice::{Notice, Notices};

/// Time between two looks at whether something was missed, and for what is due.
const TICK: Duration = Duration::from_secs(1);
/// Time between two savings.
const SAVE_INTERVAL: Duration = Duration::from_secs(600);
/// Time between two searches for expired transactions.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);

/// Why the mempool cannot follow, or ended by itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MempoolError {
    /// A block could not be read.
    #[error("reading a block for the mempool")]
    Block(#[from] BlockSourceError),
    /// The index could not answer.
    #[error(transparent)]
    Coins(#[from] CoinError),
    /// A block does not fit the mempool's tip.
    #[error(transparent)]
    Tip(#[from] TipMismatch),
    /// A reorganisation could not be finished.
    #[error("finishing a reorganisation")]
    Reorg(#[from] AcceptError),
    /// A thread of the mempool panicked; the log has the panic.
    #[error("a thread of the mempool failed")]
    TaskFailed,
}

/// What the mempool needs of the rest of the node.
pub struct MempoolParts {
    /// Its settings.
    pub config: MempoolConfig,
    /// Directory of `mempool.dat` and `fees.dat`.
    pub dir: PathBuf,
    /// Unspent outputs: the index.
    pub coins: Arc<dyn CoinSource>,
    /// Blocks: the kernel's files.
    pub blocks: Arc<dyn BlockSource>,
    /// Who decides by consensus.
    pub judge: Arc<dyn TxJudge>,
    /// How far the node is.
    pub status: Arc<dyn NodeStatus>,
}

/// The mempool's task before it runs.
pub struct MempoolTask {
    inner: Arc<Inner>,
    dir: PathBuf,
    tick: Duration,
}

/// A mempool: its task, its client, and what it tells the relay.
#[must_use]
pub fn open(parts: MempoolParts) -> (MempoolTask, MempoolHandle, Notices) {
    let (sender, notices) = mpsc::channel(notice::NOTICES);
    let estimator = keep::load_fees(&parts.dir);
    let ledger = Ledger {
        estimator: estimator.unwrap_or_default(),
        broadcasts: Broadcasts::new(Instant::now(), &mut rand::thread_rng()),
        extra: ExtraTxs::default(),
        last_block: None,
    };
    let inner = Arc::new(Inner::new(Parts {
        pool: Mempool::new(parts.config),
        ledger,
        coins: parts.coins,
        blocks: parts.blocks,
        judge: parts.judge,
        status: parts.status,
        activity: Activity::default(),
        notices: sender,
    }));
    let handle = MempoolHandle {
        inner: Arc::clone(&inner),
    };
    let task = MempoolTask {
        inner,
        dir: parts.dir,
        tick: TICK,
    };
    (task, handle, notices)
}

impl MempoolTask {
    /// With another time between two looks for what is due, for tests.
    #[must_use]
    pub fn with_tick(self, tick: Duration) -> Self {
        Self { tick, ..self }
    }

    /// Follows the index until `stop`, then saves.
    ///
    /// # Errors
    /// [`MempoolError::TaskFailed`]. What cannot be read is logged, and tried again with
    /// the next block.
    pub async fn run(self, stop: CancellationToken) -> Result<(), MempoolError> {
        let Self { inner, dir, tick } = self;
        let mut index_tip = inner.coins.tip();
        let mut chain_tip = inner.blocks.tip();
        let mut answered = inner.status.headers_answered();
        let mut is_answered = *answered.borrow_and_update();
        let follower = Arc::new(Mutex::new(Follower::default()));
        let stopping = Arc::new(AtomicBool::new(false));
        let mut tick = tokio::time::interval(tick);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut saved, mut expired) = (Instant::now(), Instant::now());
        let mut loading = None;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                changed = index_tip.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    index_tip.borrow_and_update();
                    follow(&inner, &follower).await?;
                }
                // Started at the tip, the node is synced before any block arrives.
                changed = answered.changed(), if !is_answered => {
                    is_answered = changed.is_err() || *answered.borrow_and_update();
                    follow(&inner, &follower).await?;
                }
                changed = chain_tip.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    let tip = *chain_tip.borrow_and_update();
                    // Only at the tip: in a long way the index is far behind.
                    if inner.activity.is_reached() {
                        let (inner, follower) = (Arc::clone(&inner), Arc::clone(&follower));
                        blocking(move || follower.lock().read_ahead(&*inner.blocks, tip)).await?;
                    }
                }
                _ = tick.tick() => {
                    if !inner.is_in_step() {
                        follow(&inner, &follower).await?;
                    }
                    if loading.is_none() && inner.pool.read().tip().is_some() {
                        loading = Some(spawn_load(&inner, &dir, &stopping));
                    }
                    if expired.elapsed() >= EXPIRY_INTERVAL {
                        expired = Instant::now();
                        let inner = Arc::clone(&inner);
                        blocking(move || {
                            inner.remove_expired();
                            MempoolHandle { inner }.renew_figures();
                        })
                        .await?;
                    }
                    if saved.elapsed() >= SAVE_INTERVAL {
                        saved = Instant::now();
                        let (inner, dir) = (Arc::clone(&inner), dir.clone());
                        blocking(move || keep::save(&inner, &dir)).await?;
                    }
                }
            }
        }
        stopping.store(true, Ordering::Relaxed);
        if let Some(loading) = loading {
            loading.await.map_err(|_| MempoolError::TaskFailed)?;
        }
        blocking(move || keep::save(&inner, &dir)).await
    }
}

/// Reads the file in the background.
fn spawn_load(
    inner: &Arc<Inner>,
    dir: &Path,
    stopping: &Arc<AtomicBool>,
) -> tokio::task::JoinHandle<()> {
    let handle = MempoolHandle {
        inner: Arc::clone(inner),
    };
    let (dir, stopping) = (dir.to_owned(), Arc::clone(stopping));
    tokio::task::spawn_blocking(move || keep::load(&handle, &dir, &stopping))
}

/// Takes in what the index has, once the node has caught up.
async fn follow(inner: &Arc<Inner>, follower: &Arc<Mutex<Follower>>) -> Result<(), MempoolError> {
    let (inner, follower) = (Arc::clone(inner), Arc::clone(follower));
    blocking(move || {
        let tip = *inner.coins.tip().borrow();
        if !inner.activity.update(&inner.status.report(), tip) {
            return;
        }
        if let Err(err) = follower.lock().follow(&inner) {
            let err: &dyn std::error::Error = &err;
            warn!(err, "the mempool could not follow the chain");
        }
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, MempoolError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| MempoolError::TaskFailed)
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
