//! Drives the index: a thread that catches up whenever the chain's tip moves or a
//! stale position is to be renewed.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::Context;
use pulse_indexer::Index;
use pulse_primitives::ports::BlockSource;
use tokio_util::sync::CancellationToken;

/// Follows `source` until `stop`.
///
/// # Errors
/// Why the index cannot follow, with what to do. What it has stays consistent.
pub async fn run(
    index: Index,
    source: Arc<dyn BlockSource>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut tip = source.tip();
    let renewals = index.renewals();
    let mut syncer = index.syncer(source);
    let stopping = Arc::new(AtomicBool::new(false));
    tokio::spawn({
        let (stop, stopping) = (stop.clone(), Arc::clone(&stopping));
        async move {
            stop.cancelled().await;
            stopping.store(true, Ordering::Relaxed);
        }
    });
    loop {
        // Seen before the work, so that a tip that moves meanwhile wakes again.
        tip.borrow_and_update();
        let flag = Arc::clone(&stopping);
        let (back, result) = tokio::task::spawn_blocking(move || {
            let result = syncer.catch_up(&flag);
            (syncer, result)
        })
        .await
        .context("the index thread panicked")?;
        syncer = back;
        result?;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = tip.changed() => changed.context("the chain has gone")?,
            () = renewals.notified() => {}
        }
    }
}
