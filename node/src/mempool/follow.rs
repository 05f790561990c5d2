//! Keeps the mempool at the index's tip.
//!
//! ```text
//! index tip moved -> path (stale blocks, new blocks) -> load -> scripts of stale transactions
//!                 -> write lock { disconnect newest first, connect oldest first, finish }
//! ```
//!
//! # Correctness
//! The index commits a block first, then the mempool takes it in, so a transaction is
//! never in neither. All blocks of one step are taken in under one write lock: a reader
//! sees the mempool at the old or at the new tip.
//!
//! # Limits
//! A step takes in at most [`STEP`] new blocks; a longer way is several steps.

use std::{collections::HashSet, sync::Arc, time::Instant};

use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, Txid, consensus::serialize},
    block::ConnectedBlock,
    ports::{BlockSource, BlockSourceError},
    tip::ChainTip,
};
use rayon::prelude::*;
use tracing::{debug, info};

use super::{MempoolError, inner::Inner, notice::Notice, now};

/// New blocks that are taken in under one lock.
const STEP: usize = 16;

/// The way from the mempool's tip to the index's.
struct Path {
    /// Newest first.
    stale: Vec<Arc<ConnectedBlock>>,
    /// Oldest first.
    new: Vec<Arc<ConnectedBlock>>,
}

/// Blocks that were read ahead of their turn.
#[derive(Default)]
pub(super) struct Follower {
    ahead: Option<(BlockHash, Arc<ConnectedBlock>)>,
}

impl Follower {
    /// Reads a block that the chain has just connected and the index is working on: the
    /// mempool will need it next.
    pub fn read_ahead(&mut self, blocks: &dyn BlockSource, tip: ChainTip) {
        if let Ok(block) = blocks.load(&tip.hash, tip.height) {
            self.ahead = Some((tip.hash, Arc::new(block)));
        }
    }

    /// Brings the mempool to the index's tip, as far as that is on the active chain.
    ///
    /// # Errors
    /// [`MempoolError`] when blocks or coins cannot be read. The mempool stays at a tip
    /// that the index had.
    pub fn follow(&mut self, inner: &Inner) -> Result<(), MempoolError> {
        loop {
            let Some(target) = *inner.coins.tip().borrow() else {
                return Ok(());
            };
            let (current, unfinished) = {
                let pool = inner.pool.read();
                (pool.tip(), pool.is_reorganising())
            };
            let Some(current) = current else {
                if inner.blocks.hash_at(target.height) != Some(target.hash) {
                    // After a crash the index may be ahead of the chain, at blocks that
                    // nobody can read: there would be no way back from there.
                    return Ok(());
                }
                inner.start_at(target);
                continue;
            };
            if current.hash == target.hash && !unfinished {
                return Ok(());
            }
            let started = Instant::now();
            let Some(path) = self.path(&*inner.blocks, current, target)? else {
                // The index is on a branch that the chain has left; it will move.
                return Ok(());
            };
            let finished = step(inner, &path, target)?;
            debug!(
                height = target.height,
                hash = %target.hash,
                stale = path.stale.len(),
                count = path.new.len(),
                elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                "mempool follows"
            );
            if !finished {
                // The index has moved on meanwhile; there will be another call.
                return Ok(());
            }
        }
    }

    /// The blocks between two tips, at most [`STEP`] new ones; `None` if `to` is not on
    /// the active chain.
    fn path(
        &mut self,
        blocks: &dyn BlockSource,
        from: ChainTip,
        to: ChainTip,
    ) -> Result<Option<Path>, BlockSourceError> {
        if blocks.hash_at(to.height) != Some(to.hash) {
            return Ok(None);
        }
        let mut stale = Vec::new();
        let (mut height, mut hash) = (from.height, from.hash);
        while height > to.height || blocks.hash_at(height) != Some(hash) {
            let block = self.load(blocks, hash, height)?;
            hash = block.block.header.prev_blockhash;
            stale.push(block);
            height = height.saturating_sub(1);
        }
        let mut new = Vec::new();
        for height in (height + 1..=to.height).take(STEP) {
            let Some(hash) = blocks.hash_at(height) else {
                return Ok(None);
            };
            new.push(self.load(blocks, hash, height)?);
        }
        Ok(Some(Path { stale, new }))
    }

    fn load(
        &mut self,
        blocks: &dyn BlockSource,
        hash: BlockHash,
        height: Height,
    ) -> Result<Arc<ConnectedBlock>, BlockSourceError> {
        if let Some((_, block)) = self.ahead.take_if(|(ahead, _)| *ahead == hash) {
            return Ok(block);
        }
        blocks.load(&hash, height).map(Arc::new)
    }
}

/// Takes in a path. `false` if a reorganisation could not be finished, because the coins
/// are of another block.
fn step(inner: &Inner, path: &Path, target: ChainTip) -> Result<bool, MempoolError> {
    let reorg = !path.stale.is_empty() || inner.pool.read().is_reorganising();
    let coins = match reorg {
        true => {
            warm(inner, path);
            inner.coins.coins()?
        }
        false => None,
    };
    let mut pool = inner.pool.write();
    for block in &path.stale {
        let parent = ChainTip {
            height: block.height.saturating_sub(1),
            hash: block.block.header.prev_blockhash,
            // Its own time is not at hand; nothing depends on it.
            time: block.block.header.time,
        };
        let parent = match parent.hash == target.hash {
            true => target,
            false => parent,
        };
        pool.disconnect_block(&block.block, &block.txids, parent)?;
    }
    for block in &path.new {
        pool.connect_block(&block.block, &block.txids, tip_of(block), now())?;
    }
    let at_target = pool.tip().is_some_and(|tip| tip.hash == target.hash);
    if at_target
        && pool.is_reorganising()
        && let Some(coins) = coins.filter(|coins| coins.tip().hash == target.hash)
    {
        let outcome = pool.finish_reorg(&*coins, &*inner.judge, now())?;
        info!(
            height = target.height,
            hash = %target.hash,
            returned = outcome.returned,
            removed = outcome.removed,
            "mempool reorganised"
        );
    }
    let finished = !at_target || !pool.is_reorganising();
    inner.changed(pool);
    inner.tell_moved();
    for block in &path.stale {
        inner.notify(Notice::Disconnected(Arc::clone(block)));
    }
    for block in &path.new {
        inner.block_connected(block);
    }
    Ok(finished)
}

/// Runs the scripts of stale transactions before the lock is taken: the judge remembers
/// what passed.
fn warm(inner: &Inner, path: &Path) {
    let confirmed: HashSet<&Txid> = path.new.iter().flat_map(|block| &block.txids).collect();
    for block in &path.stale {
        let txs = block.block.txdata.iter().zip(&block.txids).skip(1);
        let work: Vec<_> = txs
            .zip(&block.spent)
            .filter(|((_, txid), _)| !confirmed.contains(txid))
            .collect();
        work.into_par_iter().for_each(|((tx, txid), spent)| {
            let spent: Vec<_> = spent.iter().map(|coin| coin.output.clone()).collect();
            if let Err(failure) = inner.judge.verify(&serialize(tx), &spent) {
                // It was in a block, but policy asks for more.
                debug!(%txid, %failure, "a transaction of a stale block does not come back");
            }
        });
    }
}

fn tip_of(block: &ConnectedBlock) -> ChainTip {
    ChainTip {
        height: block.height,
        hash: block.block.block_hash(),
        time: block.block.header.time,
    }
}
