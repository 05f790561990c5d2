//! A mempool on a chain in memory, running.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use pulse_mempool::MempoolConfig;
use pulse_node::{
    chain::KernelJudge,
    mempool::{self, MempoolHandle, MempoolParts, MempoolTask, Notices},
};
use pulse_primitives::mempool::{MempoolSource, MempoolView};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::chain::MemChain;

/// How long to wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Running {
    pub chain: Arc<MemChain>,
    pub mempool: MempoolHandle,
    pub notices: Option<Notices>,
    pub stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// Starts a mempool upon `chain` that keeps its files in `dir`, and waits until it
    /// has caught up.
    pub async fn start(chain: &Arc<MemChain>, dir: &Path) -> Self {
        Self::start_with(chain, dir, MempoolConfig::default()).await
    }

    pub async fn start_with(chain: &Arc<MemChain>, dir: &Path, config: MempoolConfig) -> Self {
        let running = Self::spawn(chain, dir, config, |task| task);
        running.settled().await;
        running
    }

    /// Starts a mempool whose task was changed before it runs, and does not wait.
    pub fn spawn(
        chain: &Arc<MemChain>,
        dir: &Path,
        config: MempoolConfig,
        change: impl FnOnce(MempoolTask) -> MempoolTask,
    ) -> Self {
        let (task, handle, notices) = mempool::open(MempoolParts {
            config,
            dir: dir.to_owned(),
            coins: Arc::clone(chain) as _,
            blocks: Arc::clone(chain) as _,
            judge: Arc::new(KernelJudge::default()),
            status: Arc::clone(chain) as _,
        });
        let task = change(task);
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let stop = stop.clone();
            async move { task.run(stop).await.unwrap() }
        });
        Self {
            chain: Arc::clone(chain),
            mempool: handle,
            notices: Some(notices),
            stop,
            task,
        }
    }

    /// Waits until the mempool is at the chain's tip.
    pub async fn settled(&self) {
        let tip = self.chain.tip();
        self.until(|view| view.tip() == Some(tip)).await;
    }

    /// Waits until the mempool looks like that.
    pub async fn until(&self, looks: impl Fn(&dyn MempoolView) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !looks(&*self.mempool.view()) {
            assert!(Instant::now() < deadline, "it did not happen in time");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops the mempool, which saves.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}
