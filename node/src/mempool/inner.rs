//! What the mempool's task and its handles share.
//!
//! # Correctness
//! Every change of the mempool goes through [`Inner::changed`], which passes its events
//! on in the order of the changes. Locks are taken in the order pool, ledger.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, RwLock, RwLockWriteGuard};
use pulse_mempool::{
    LeftReason, Mempool, PoolEvent, TxJudge, accept::PoolAccess, fees::FeeEstimator,
};
use pulse_primitives::{
    bitcoin::{Transaction, Txid, Wtxid},
    block::ConnectedBlock,
    coins::CoinSource,
    mempool::RemovalReason,
    ports::{BlockSource, NodeStatus},
    tip::ChainTip,
    touched::{TouchedScripts, TouchedTx, TouchedTxs},
};
use tokio::sync::mpsc;
use tracing::info;

use super::{activity::Activity, estimates::Figures, extra::ExtraTxs, notice::Notice, now};
use crate::relay::{broadcast::Broadcasts, ids::GenTxid};

/// What is kept beside the pool, fed by its events.
pub(super) struct Ledger {
    pub estimator: FeeEstimator,
    pub broadcasts: Broadcasts,
    pub extra: ExtraTxs,
    /// Transactions of the newest block, which peers may still ask for.
    pub last_block: Option<LastBlock>,
}

pub(super) struct LastBlock {
    pub block: Arc<ConnectedBlock>,
    pub by_hash: HashMap<[u8; 32], usize>,
}

pub(super) struct Inner {
    pub pool: RwLock<Mempool>,
    pub ledger: Mutex<Ledger>,
    pub figures: Mutex<Figures>,
    pub coins: Arc<dyn CoinSource>,
    pub blocks: Arc<dyn BlockSource>,
    pub judge: Arc<dyn TxJudge>,
    pub status: Arc<dyn NodeStatus>,
    pub activity: Activity,
    /// Transactions that enter teach the fee estimates: not while the file is loaded.
    pub teaching: AtomicBool,
    /// Whether the file was read, so that it may be replaced.
    pub loaded: AtomicBool,
    pub notices: mpsc::Sender<Notice>,
    /// Scripts of what enters and leaves.
    pub touched: Arc<TouchedScripts>,
    /// What enters and leaves.
    pub touched_txs: Arc<TouchedTxs>,
    moved: (Mutex<()>, Condvar),
}

/// What an [`Inner`] is made of.
pub(super) struct Parts {
    pub pool: Mempool,
    pub ledger: Ledger,
    pub coins: Arc<dyn CoinSource>,
    pub blocks: Arc<dyn BlockSource>,
    pub judge: Arc<dyn TxJudge>,
    pub status: Arc<dyn NodeStatus>,
    pub activity: Activity,
    pub notices: mpsc::Sender<Notice>,
}

impl Inner {
    pub fn new(parts: Parts) -> Self {
        Self {
            pool: RwLock::new(parts.pool),
            ledger: Mutex::new(parts.ledger),
            figures: Mutex::default(),
            coins: parts.coins,
            blocks: parts.blocks,
            judge: parts.judge,
            status: parts.status,
            activity: parts.activity,
            teaching: AtomicBool::new(false),
            loaded: AtomicBool::new(false),
            notices: parts.notices,
            touched: Arc::default(),
            touched_txs: Arc::default(),
            moved: (Mutex::new(()), Condvar::new()),
        }
    }

    /// Passes on what has happened in the pool, and lets go of it.
    pub fn changed(&self, mut pool: RwLockWriteGuard<'_, Mempool>) {
        let touched = pool.take_touched();
        let events = pool.take_events();
        let touched_txs: Vec<TouchedTx> = (events.iter())
            .filter_map(|event| match event {
                // One that has left again meanwhile is among those that left.
                PoolEvent::Entered(entered) => {
                    let entry = pool.get(&entered.txid)?;
                    Some(TouchedTx::new(entered.txid, &entry.tx))
                }
                PoolEvent::Left { txid, tx, .. } => Some(TouchedTx::new(*txid, tx)),
            })
            .collect();
        // Taken before the pool is let go, so that changes are passed on in order.
        let mut ledger = self.ledger.lock();
        drop(pool);
        let in_step = self.teaching.load(Ordering::Relaxed);
        for event in events {
            ledger.take(event, in_step);
        }
        self.touched_txs.append(touched_txs);
        self.touched.append(touched);
    }

    /// Whether the pool has a tip and no reorganisation to finish.
    pub fn is_in_step(&self) -> bool {
        let pool = self.pool.read();
        pool.tip().is_some() && !pool.is_reorganising()
    }

    /// Starts the mempool at the index's tip, empty.
    pub fn start_at(&self, tip: ChainTip) {
        let mut pool = self.pool.write();
        pool.set_tip(Some(tip), now());
        self.changed(pool);
        self.tell_moved();
        info!(height = tip.height, hash = %tip.hash, "mempool starts");
    }

    /// A block was taken in.
    pub fn block_connected(&self, block: &Arc<ConnectedBlock>) {
        let mut by_hash = HashMap::with_capacity(2 * block.txids.len());
        for (index, (tx, txid)) in block.block.txdata.iter().zip(&block.txids).enumerate() {
            by_hash.insert(GenTxid::Txid(*txid).hash(), index);
            by_hash.insert(GenTxid::Wtxid(tx.compute_wtxid()).hash(), index);
        }
        {
            let mut ledger = self.ledger.lock();
            ledger
                .estimator
                .block(block.height, block.block.header.time, &block.txids);
            ledger.last_block = Some(LastBlock {
                block: Arc::clone(block),
                by_hash,
            });
        }
        self.notify(Notice::Connected(Arc::clone(block)));
    }

    /// Tells the relay, which need not be there.
    pub fn notify(&self, notice: Notice) {
        let _ = self.notices.try_send(notice);
    }

    /// Wakes those who wait for another tip.
    pub fn tell_moved(&self) {
        let _guard = self.moved.0.lock();
        self.moved.1.notify_all();
    }

    /// Waits until the pool may have another tip, at most `timeout`.
    pub fn wait_moved(&self, timeout: Duration) {
        let mut guard = self.moved.0.lock();
        self.moved
            .1
            .wait_until(&mut guard, Instant::now() + timeout);
    }

    /// Removes what has waited too long.
    pub fn remove_expired(&self) {
        let mut pool = self.pool.write();
        let count = pool.remove_expired(now());
        self.changed(pool);
        if count > 0 {
            info!(count, "expired transactions removed");
        }
    }

    /// Announces a transaction until it is seen.
    pub fn broadcast(&self, txid: Txid, wtxid: Wtxid) {
        self.ledger.lock().broadcasts.add(txid, wtxid);
        self.notify(Notice::Announce { txid, wtxid });
    }

    /// Keeps a transaction for compact blocks.
    pub fn keep_extra(&self, wtxid: Wtxid, tx: Arc<Transaction>) {
        self.ledger.lock().extra.push(wtxid, tx);
    }
}

impl Ledger {
    fn take(&mut self, event: PoolEvent, in_step: bool) {
        self.estimator.event(&event, in_step);
        let PoolEvent::Left {
            txid,
            wtxid,
            tx,
            reason,
        } = event
        else {
            return;
        };
        self.broadcasts.done(&txid);
        // What a block confirmed or made impossible is in no other block.
        if let LeftReason::Removed(reason) = reason
            && !matches!(reason, RemovalReason::Conflict { .. })
        {
            self.extra.push(wtxid, tx);
        }
    }
}

impl PoolAccess for Inner {
    fn read<R>(&self, look: impl FnOnce(&Mempool) -> R) -> R {
        look(&self.pool.read())
    }

    fn write<R>(&self, change: impl FnOnce(&mut Mempool) -> R) -> R {
        let mut pool = self.pool.write();
        let result = change(&mut pool);
        self.changed(pool);
        result
    }
}
