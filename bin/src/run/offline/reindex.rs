//! `pulse-node reindex`: builds the index anew from the blocks on disk.
//!
//! lock -> open the kernel -> rename index/ -> index every block of the active chain
//!
//! # Correctness
//! The old index is renamed, never deleted, and only once the kernel has opened. What is
//! built is an index like any other, so after a kill the next start of the node (or
//! `reindex --resume`) goes on where it stood.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context;
use pulse_indexer::{Index, IndexSync};
use pulse_node::chain::Chain;
use pulse_primitives::ports::BlockSource;

use super::{Progress, name, open_chain, open_dir, stop_flag};
use crate::{cli::ReindexArgs, config::Config};

/// How often is looked at how far it has come.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);

/// Builds the index anew. The node must not be running.
///
/// # Errors
/// When the data directory is in use, the kernel does not open, a block cannot be read, or
/// it was stopped.
pub fn run(config: &Config, args: &ReindexArgs, mut out: impl Write) -> anyhow::Result<()> {
    anyhow::ensure!(
        config.index.enabled,
        "index.enabled is false: this node keeps no index"
    );
    let stop = stop_flag().context("installing signal handlers")?;
    let data_dir = open_dir(config)?;
    let chain = open_chain(config, &data_dir)?;
    let aside = match args.resume {
        true => None,
        false => data_dir.move_index_aside()?,
    };
    if let Some(aside) = &aside {
        writeln!(out, "the old index is kept as {}/", name(aside))?;
    }
    let index = Index::open(&data_dir.index(), &config.index, &config.chain)?;
    let result = build(&index, &chain, &stop);
    chain.close();
    index.flush()?;
    result?;
    let tip = *index.tip().borrow();
    let tip = tip.context("the kernel has no blocks")?;
    writeln!(out, "indexed to {} {}", tip.height, tip.hash)?;
    if let Some(aside) = &aside {
        let aside = name(aside);
        writeln!(out, "{aside}/ may be deleted once the node runs well")?;
    }
    Ok(())
}

/// Indexes up to the kernel's tip.
fn build(index: &Index, chain: &Chain, stop: &AtomicBool) -> anyhow::Result<()> {
    let source: Arc<dyn BlockSource> = Arc::new(chain.clone());
    let syncer = index.syncer(Arc::clone(&source));
    let wanted = chain.active_tip().height;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut progress = Progress::new();
            while !done.load(Ordering::Relaxed) {
                let indexed = index.tip().borrow().map_or(0, |tip| tip.height);
                progress.tell(|| format!("indexed {indexed} of {wanted} blocks"));
                thread::sleep(WATCH_INTERVAL);
            }
        });
        let result = follow(index, syncer, chain, stop);
        done.store(true, Ordering::Relaxed);
        result
    })
}

fn follow(
    index: &Index,
    mut syncer: IndexSync,
    chain: &Chain,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    let renewals = index.renewals();
    // Only to look at a notification; nothing else is asynchronous here.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()?;
    let more_work = || {
        runtime.block_on(async {
            tokio::time::timeout(Duration::ZERO, renewals.notified())
                .await
                .is_ok()
        })
    };
    loop {
        syncer.catch_up(stop)?;
        if stop.load(Ordering::Relaxed) {
            anyhow::bail!(
                "stopped at block {}. Starting the node, or `pulse-node reindex --resume`, goes on from there",
                index.tip().borrow().map_or(0, |tip| tip.height)
            );
        }
        let reached = index
            .tip()
            .borrow()
            .is_some_and(|tip| tip == chain.active_tip());
        if reached && !more_work() {
            return Ok(());
        }
    }
}
