//! Blocks: what they confirm, what they make impossible, and what comes back when they are
//! disconnected.
//!
//! ```text
//! disconnect_block (newest first) -> connect_block (oldest first) -> finish_reorg
//! ```
//!
//! # Correctness
//! Between the first disconnected block and [`Mempool::finish_reorg`] nothing is accepted.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use bitcoin::{Block, OutPoint, Transaction, Txid};
use pulse_primitives::{
    Height, bitcoin,
    coins::{CoinError, CoinView},
    mempool::RemovalReason,
    tip::ChainTip,
};

use super::{Entry, Mempool};
use crate::{
    accept::Rules,
    cluster::Slot,
    error::{AcceptError, TipMismatch},
    events::LeftReason,
    judge::TxJudge,
    memory,
    policy::{
        amounts::is_immature,
        locks::{LockPoints, is_final},
    },
};

/// Memory for transactions of disconnected blocks; the newest are dropped above it.
const MAX_DISCONNECTED_BYTES: usize = 20_000_000;

/// Transactions of disconnected blocks.
#[derive(Debug)]
pub(super) struct Reorg {
    /// The newest block that stayed.
    fork: Height,
    /// Oldest first.
    txs: VecDeque<(Txid, Arc<Transaction>)>,
    bytes: usize,
    /// Those that are in the mempool again; the clusters do not know their spenders yet.
    returned: Vec<Txid>,
}

/// What a reorganisation did to the mempool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReorgOutcome {
    /// Transactions of disconnected blocks that are in the mempool again.
    pub returned: usize,
    /// Transactions that do not fit the new chain.
    pub removed: usize,
}

impl Mempool {
    /// Empties the mempool and makes it build upon `tip`; `None` while the index is still
    /// catching up.
    pub fn set_tip(&mut self, tip: Option<ChainTip>, now: u64) {
        let all: Vec<Slot> = self.by_sequence.values().copied().collect();
        let reason = LeftReason::Removed(RemovalReason::Reorg);
        let removed = all.into_iter().map(|slot| (slot, reason.clone()));
        self.remove_all(removed.collect(), now);
        self.reorg = None;
        self.tip = tip;
        self.changes += 1;
    }

    /// Whether blocks were disconnected and [`Mempool::finish_reorg`] is due.
    #[must_use]
    pub fn is_reorganising(&self) -> bool {
        self.reorg.is_some()
    }

    /// Takes in that `block` was connected at `tip`: what it confirms leaves, and what
    /// spends the same outputs, with all that depends on it. `txids` are those of its
    /// transactions.
    ///
    /// # Errors
    /// [`TipMismatch`] if `block` is not on top of [`Mempool::tip`]; nothing changes then.
    pub fn connect_block(
        &mut self,
        block: &Block,
        txids: &[Txid],
        tip: ChainTip,
        now: u64,
    ) -> Result<(), TipMismatch> {
        let follows = self.tip.is_some_and(|old| {
            old.hash == block.header.prev_blockhash && old.height + 1 == tip.height
        });
        if !follows {
            return Err(TipMismatch {
                mempool: self.tip,
                other: tip,
            });
        }
        if !self.is_empty() {
            let removed = self.touched_by_block(block, txids, tip.height);
            self.remove_all(removed, now);
        }
        if let Some(reorg) = &mut self.reorg {
            reorg.confirm(txids);
        }
        for txid in txids {
            self.removed.forget(txid);
        }
        self.tip = Some(tip);
        self.changes += 1;
        self.rolling.block(now);
        Ok(())
    }

    fn touched_by_block(
        &self,
        block: &Block,
        txids: &[Txid],
        height: Height,
    ) -> Vec<(Slot, LeftReason)> {
        let mut removed = Vec::new();
        let mut seen: HashSet<Slot> = HashSet::new();
        let mut unknown = Vec::new();
        for (tx, txid) in block.txdata.iter().zip(txids) {
            match self.slot(txid) {
                Some(slot) => {
                    seen.insert(slot);
                    removed.push((slot, LeftReason::Confirmed(height)));
                }
                None => unknown.push((tx, txid)),
            }
        }
        // What spends the same as one that is here is that one itself.
        for (tx, txid) in unknown {
            for input in &tx.input {
                let Some(slot) = self.spender_slot(&input.previous_output) else {
                    continue;
                };
                if seen.contains(&slot) {
                    continue;
                }
                for slot in self.clusters.descendants(slot) {
                    if seen.insert(slot) {
                        let reason = RemovalReason::Conflict { with: *txid };
                        removed.push((slot, LeftReason::Removed(reason)));
                    }
                }
            }
        }
        removed
    }

    /// Takes in that `block`, the tip, was disconnected and `parent` is the tip again. Its
    /// transactions wait for [`Mempool::finish_reorg`].
    ///
    /// # Errors
    /// [`TipMismatch`] if `block` is not [`Mempool::tip`]; nothing changes then.
    pub fn disconnect_block(
        &mut self,
        block: &Block,
        txids: &[Txid],
        parent: ChainTip,
    ) -> Result<(), TipMismatch> {
        let is_tip = self.tip.is_some_and(|tip| tip.hash == block.block_hash());
        if !is_tip || parent.hash != block.header.prev_blockhash {
            return Err(TipMismatch {
                mempool: self.tip,
                other: parent,
            });
        }
        let reorg = self.reorg.get_or_insert_with(|| Reorg {
            fork: parent.height,
            txs: VecDeque::new(),
            bytes: 0,
            returned: Vec::new(),
        });
        reorg.fork = reorg.fork.min(parent.height);
        for (tx, txid) in block.txdata.iter().zip(txids).rev() {
            reorg.bytes += memory::transaction(tx);
            reorg.txs.push_front((*txid, Arc::new(tx.clone())));
        }
        self.tip = Some(parent);
        self.changes += 1;
        Ok(())
    }

    /// Ends a reorganisation: the transactions of disconnected blocks that no connected
    /// one has come back, oldest first, through acceptance without its limits; then what
    /// does not fit the new chain leaves, with all that depends on it.
    ///
    /// # Errors
    /// [`AcceptError::Tip`] if `coins` are of another block; [`AcceptError::Coins`]. The
    /// reorganisation is unfinished then: call again.
    pub fn finish_reorg(
        &mut self,
        coins: &dyn CoinView,
        judge: &dyn TxJudge,
        now: u64,
    ) -> Result<ReorgOutcome, AcceptError> {
        self.check_tip(coins)?;
        let mut outcome = ReorgOutcome::default();
        let Some(fork) = self.drop_excess(&mut outcome, now) else {
            return Ok(outcome);
        };
        while let Some((txid, tx)) = self.reorg.as_ref().and_then(|r| r.txs.front().cloned()) {
            let is_back = self.readmit(&tx, coins, judge, now)?;
            if is_back {
                outcome.returned += 1;
            } else {
                outcome.removed += self.remove_spenders(&txid, &tx, now);
            }
            if let Some(reorg) = &mut self.reorg {
                reorg.txs.pop_front();
                if is_back {
                    reorg.returned.push(txid);
                }
            }
        }
        outcome.removed += self.link_returned(now);
        outcome.removed += self.remove_unfit(fork, coins, now)?;
        self.reorg = None;
        self.remove_expired(now);
        self.trim_to_size(now);
        Ok(outcome)
    }

    /// Drops the newest disconnected transactions above the limit of memory. The fork's
    /// height, or `None` if no block was disconnected.
    fn drop_excess(&mut self, outcome: &mut ReorgOutcome, now: u64) -> Option<Height> {
        let reorg = self.reorg.as_mut()?;
        let fork = reorg.fork;
        let mut dropped = Vec::new();
        while reorg.bytes > MAX_DISCONNECTED_BYTES {
            let Some((txid, tx)) = reorg.txs.pop_back() else {
                break;
            };
            reorg.bytes -= memory::transaction(&tx);
            dropped.push((txid, tx));
        }
        for (txid, tx) in dropped {
            outcome.removed += self.remove_spenders(&txid, &tx, now);
        }
        Some(fork)
    }

    /// Whether a transaction of a disconnected block is in the mempool again.
    fn readmit(
        &mut self,
        tx: &Arc<Transaction>,
        coins: &dyn CoinView,
        judge: &dyn TxJudge,
        now: u64,
    ) -> Result<bool, AcceptError> {
        if tx.is_coinbase() {
            return Ok(false);
        }
        let prepared = self.prepare_with(tx, coins, judge, now, Rules::reorg());
        let result = prepared.and_then(|prepared| {
            prepared.verify(judge)?;
            self.commit_prepared(prepared, now)
        });
        match result {
            Ok(_) => Ok(true),
            Err(AcceptError::Rejected(_)) => Ok(false),
            Err(err) => Err(err),
        }
    }

    /// Tells the clusters which transactions spend from those that came back, newest
    /// first. Where a cluster would be too large the worst spenders leave, with all that
    /// depends on them. Returns how many.
    fn link_returned(&mut self, now: u64) -> usize {
        let Some(reorg) = &mut self.reorg else {
            return 0;
        };
        let returned = std::mem::take(&mut reorg.returned);
        let known: HashSet<Slot> = returned.iter().filter_map(|txid| self.slot(txid)).collect();
        let mut removed = 0;
        for txid in returned.iter().rev() {
            while let Some(entry) = self.get(txid) {
                let mut spenders = self.spenders_of(*txid, &entry.tx);
                // Dependencies among those that came back are known.
                spenders.retain(|slot| !known.contains(slot));
                let Some(slot) = self.slot(txid).filter(|_| !spenders.is_empty()) else {
                    break;
                };
                let links: Vec<_> = spenders.iter().map(|&child| (slot, child)).collect();
                if let Ok(staging) = self.clusters.stage(&HashSet::new(), &[], &links) {
                    self.clusters.apply(staging, &[]);
                    break;
                }
                let worst = spenders
                    .into_iter()
                    .max_by_key(|&child| self.clusters.mining_key(child));
                removed += self.remove_with_descendants(worst, RemovalReason::SizeLimit, now);
            }
        }
        removed
    }

    /// Transactions that spend from `tx`, which need not be here itself.
    pub(crate) fn spenders_of(&self, txid: Txid, tx: &Transaction) -> Vec<Slot> {
        let outputs = tx.output.iter().zip(0..);
        let mut slots: Vec<_> = outputs
            .filter_map(|(_, vout)| self.spender_slot(&OutPoint::new(txid, vout)))
            .collect();
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    fn remove_spenders(&mut self, txid: &Txid, tx: &Transaction, now: u64) -> usize {
        let spenders = self.spenders_of(*txid, tx);
        self.remove_with_descendants(spenders, RemovalReason::Reorg, now)
    }

    fn remove_with_descendants(
        &mut self,
        slots: impl IntoIterator<Item = Slot>,
        reason: RemovalReason,
        now: u64,
    ) -> usize {
        let all = self.with_descendants(slots);
        let count = all.len();
        let reason = LeftReason::Removed(reason);
        let removed = all.into_iter().map(|slot| (slot, reason.clone()));
        self.remove_all(removed.collect(), now);
        count
    }

    /// Removes what could not be in the next block of the new chain.
    fn remove_unfit(
        &mut self,
        fork: Height,
        coins: &dyn CoinView,
        now: u64,
    ) -> Result<usize, CoinError> {
        let tip = coins.tip().height;
        let mut unfit = Vec::new();
        let mut renewed = Vec::new();
        for &slot in self.by_sequence.values() {
            let entry = self.entry(slot);
            match self.fits(entry, fork, tip, coins)? {
                Some(locks) if locks != entry.locks => renewed.push((slot, locks)),
                Some(_) => {}
                None => unfit.push(slot),
            }
        }
        for (slot, locks) in renewed {
            self.entry_mut(slot).locks = locks;
        }
        Ok(self.remove_with_descendants(unfit, RemovalReason::Reorg, now))
    }

    /// What the ages of the inputs forbid now, or `None` if the transaction does not fit.
    fn fits(
        &self,
        entry: &Entry,
        fork: Height,
        tip: Height,
        coins: &dyn CoinView,
    ) -> Result<Option<LockPoints>, CoinError> {
        if !is_final(&entry.tx, tip, coins)? {
            return Ok(None);
        }
        let mut locks = entry.locks;
        if locks.newest_input > fork || entry.spends_coinbase || locks.newest_input == 0 {
            let mut heights = Vec::with_capacity(entry.tx.input.len());
            for input in &entry.tx.input {
                if self.contains(&input.previous_output.txid) {
                    heights.push(None);
                    continue;
                }
                let Some(coin) = coins.coin(&input.previous_output)? else {
                    return Ok(None);
                };
                if coin.is_coinbase && is_immature(coin.height, tip + 1) {
                    return Ok(None);
                }
                heights.push(Some(coin.height));
            }
            locks = LockPoints::of(&entry.tx, &heights, tip, coins)?;
        }
        Ok(locks.are_reached(tip, coins)?.then_some(locks))
    }
}

impl Reorg {
    /// A connected block has these.
    fn confirm(&mut self, txids: &[Txid]) {
        let confirmed: HashSet<&Txid> = txids.iter().collect();
        self.txs.retain(|(txid, tx)| {
            let stays = !confirmed.contains(txid);
            if !stays {
                self.bytes -= memory::transaction(tx);
            }
            stays
        });
    }
}
