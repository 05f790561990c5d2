//! Puts the mempool and the relay of transactions together.

use std::{path::Path, sync::Arc};

use pulse_indexer::Query;
use pulse_node::{
    chain::KernelJudge,
    mempool::{self, MempoolHandle, MempoolParts},
    net::PeerEvent,
    relay::Relay,
};
use pulse_primitives::ports::{BlockSource, NodeStatus};
use tokio::sync::mpsc;

use crate::{config::Config, tasks::Tasks};

/// Spawns the mempool upon the index, and the relay among the peers of whom `events`
/// tells.
pub fn spawn(
    tasks: &mut Tasks,
    config: &Config,
    dir: &Path,
    query: Query,
    source: Arc<dyn BlockSource>,
    status: Arc<dyn NodeStatus>,
    events: mpsc::Receiver<PeerEvent>,
) -> MempoolHandle {
    let (task, handle, notices) = mempool::open(MempoolParts {
        config: config.mempool.clone(),
        dir: dir.to_owned(),
        coins: Arc::new(query),
        blocks: source,
        judge: Arc::new(KernelJudge::default()),
        status,
        // Blocks of a chain of one's own come when someone makes them.
    });
    tasks.spawn("mempool", |stop| async move { Ok(task.run(stop).await?) });
    let relay = Relay::new(events, notices, handle.clone());
    tasks.spawn("relay", |stop| async move { Ok(relay.run(stop).await?) });
    handle
}
