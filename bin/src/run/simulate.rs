//! Mines the simulated chain by the clock.
//!
//! The transactions of the next block are handed to the mempool before, one after the
//! other, so that a simulated node has unconfirmed ones as well. Those that others have
//! handed in are mined with them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use pulse_node::{chain::Chain, mempool::MempoolHandle, sync::SyncHandle};
use pulse_primitives::{
    bitcoin::{Transaction, consensus::serialize},
    mempool::{SubmitLimits, TxSubmitter},
    network::ChainParams,
    ports::BlockSource,
};
use pulse_simulator::{Generator, GeneratorConfig, LiveMiner};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

/// Weight of the mempool's transactions that a block is chosen from.
const MAX_WEIGHT: u64 = 4_000_000;

/// Goes on with the chain that is there, until `stop`.
///
/// # Errors
/// When the chain is not of this seed, or a block of ours is refused.
pub async fn run(
    interval: Duration,
    seed: u64,
    params: ChainParams,
    chain: Chain,
    handle: SyncHandle,
    mempool: Option<MempoolHandle>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut config = GeneratorConfig::new(params, seed);
    config.block_interval = u32::try_from(interval.as_secs()).context("block interval")?;
    let reader = chain.clone();
    let mut miner = tokio::task::spawn_blocking(move || resume(config, &reader)).await??;
    info!(height = chain.active_height(), seed, "simulating");
    loop {
        let due = miner.next_due();
        if let Some(mempool) = &mempool {
            let (back, upcoming) = tokio::task::spawn_blocking(move || {
                let upcoming = miner.upcoming();
                (miner, upcoming)
            })
            .await?;
            miner = back;
            let left = Duration::from_secs(due.saturating_sub(now()));
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                // The next block does not wait for a mempool that gives no verdict.
                () = tokio::time::sleep(left) => {}
                submitted = submit(mempool, upcoming, left) => submitted?,
            }
        }
        let wait = due.saturating_sub(now());
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(Duration::from_secs(wait)) => {}
        }
        let time = u32::try_from(now()).context("the clock is past 2106")?;
        let mempool = mempool.clone();
        let (back, block) = tokio::task::spawn_blocking(move || {
            let parent = miner.generator().tip_hash();
            let candidates = mempool.map(|mempool| mempool.block_candidates(&parent, MAX_WEIGHT));
            let block = miner.mine(time, candidates.unwrap_or_default());
            (miner, block)
        })
        .await?;
        miner = back;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            submitted = handle.submit_local(serialize(&block)) => {
                submitted.context("a simulated block was refused")?;
            }
        }
    }
}

/// Hands transactions to the mempool, evenly within `left`. What it refuses is in the next
/// block all the same, unless it conflicts with what others have handed in.
async fn submit(
    mempool: &MempoolHandle,
    txs: Vec<Transaction>,
    left: Duration,
) -> anyhow::Result<()> {
    let pause = left / u32::try_from(txs.len() + 1).unwrap_or(u32::MAX);
    if pause.is_zero() {
        return Ok(());
    }
    for tx in txs {
        tokio::time::sleep(pause).await;
        let mempool = mempool.clone();
        let submitted =
            tokio::task::spawn_blocking(move || mempool.submit(tx, SubmitLimits::default()));
        if let Err(err) = submitted.await? {
            debug!(%err, "a simulated transaction was refused");
        }
    }
    Ok(())
}

/// A miner at the tip of the chain: wallets are found again by reading it.
fn resume(config: GeneratorConfig, chain: &Chain) -> anyhow::Result<LiveMiner> {
    let mut failure = None;
    let blocks = (1..=chain.active_height()).map_while(|height| {
        let hash = chain.hash_at(height)?;
        chain
            .load(&hash, height)
            .map_err(|err| failure = Some(err))
            .ok()
            .map(|loaded| loaded.block)
    });
    let generator = Generator::resume(config, blocks)?;
    match failure {
        Some(err) => Err(err).context("reading the simulated chain"),
        None => Ok(LiveMiner::new(generator)),
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
