//! The mempool as the rest of the node and the API use it.

use std::{
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use pulse_mempool::{
    AcceptError, AcceptOptions, Accepted, Entry, Mempool, MiningRank, PackageResult, PoolView,
    Rejected,
    accept::{accept, accept_package},
};
use pulse_p2p::compact::CompactSource;
use pulse_primitives::{
    bitcoin::{BlockHash, Transaction, Txid, Wtxid},
    coins::{CoinError, CoinView},
    mempool::{
        Backlog, FeeEstimates, MempoolSource, MempoolTx, MempoolView, ProjectedBlock, RelayFees,
    },
    touched::{TouchedScripts, TouchedTxs},
};
use tracing::error;

use super::{estimates::Figures, inner::Inner, now};
use crate::relay::{
    download::Pool, feefilter::AcceptedRates, ids::GenTxid, inventory::Announceable,
    joining::Telling,
};

/// How long acceptance waits for the mempool to reach the index's tip, in all.
const MAX_WAIT: Duration = Duration::from_secs(10);
/// How long it waits at a time.
const WAIT: Duration = Duration::from_millis(100);

/// Why there was no verdict on a transaction. Not the sender's fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotJudged {
    /// The node is catching up.
    #[error("the node is in initial sync and waiting for blocks")]
    Syncing,
    /// The mempool did not reach the index's tip in time.
    #[error("the mempool is behind the index")]
    Behind,
    /// The index could not answer.
    #[error(transparent)]
    Coins(#[from] CoinError),
}

/// What acceptance ends with, if not with success.
#[derive(Debug, thiserror::Error)]
pub enum NotAccepted {
    /// A rule forbids it.
    #[error("transaction refused: {0}")]
    Rejected(Rejected),
    /// There was no verdict.
    #[error(transparent)]
    NotJudged(#[from] NotJudged),
}

/// Cloneable client of the mempool. Calls may wait for locks and check scripts: not for
/// async code.
#[derive(Clone)]
pub struct MempoolHandle {
    pub(super) inner: Arc<Inner>,
}

impl MempoolHandle {
    /// Accepts a transaction.
    ///
    /// # Errors
    /// [`NotAccepted`].
    pub fn accept(
        &self,
        tx: &Arc<Transaction>,
        options: AcceptOptions,
    ) -> Result<Accepted, NotAccepted> {
        self.with_coins(|inner, coins| accept(inner, tx, coins, &*inner.judge, now(), options))
    }

    /// Accepts a package: first each transaction alone, then what pays too little alone
    /// with its child.
    ///
    /// # Errors
    /// [`NotJudged`]; what policy says is in the result.
    pub fn accept_package(
        &self,
        txs: &[Arc<Transaction>],
        options: AcceptOptions,
    ) -> Result<PackageResult, NotJudged> {
        let result = self.with_coins(|inner, coins| {
            accept_package(inner, txs, coins, &*inner.judge, now(), options)
        });
        result.map_err(|err| match err {
            NotAccepted::NotJudged(err) => err,
            NotAccepted::Rejected(rejected) => {
                error!(%rejected, "a package was refused where its transactions should have been");
                NotJudged::Behind
            }
        })
    }

    /// Runs `ask` with coins of the mempool's tip: again while the two differ, which they
    /// do for as long as the mempool takes in a block.
    pub(super) fn with_coins<T>(
        &self,
        mut ask: impl FnMut(&Inner, &dyn CoinView) -> Result<T, AcceptError>,
    ) -> Result<T, NotAccepted> {
        let inner = &*self.inner;
        let give_up = Instant::now() + MAX_WAIT;
        loop {
            if !inner.activity.is_reached() {
                return Err(NotJudged::Syncing.into());
            }
            let coins = inner.coins.coins().map_err(NotJudged::from)?;
            let asked = coins.map(|coins| ask(inner, &*coins));
            match asked {
                Some(Ok(answer)) => return Ok(answer),
                Some(Err(AcceptError::Rejected(rejected))) => {
                    return Err(NotAccepted::Rejected(rejected));
                }
                Some(Err(AcceptError::Coins(err))) => return Err(NotJudged::Coins(err).into()),
                // The tips differ, or a reorganisation is under way.
                Some(Err(_)) | None => {}
            }
            if Instant::now() >= give_up {
                return Err(NotJudged::Behind.into());
            }
            inner.wait_moved(WAIT);
        }
    }

    /// Whether the node has caught up, so that transactions are judged at all.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.inner.activity.is_reached() && self.inner.pool.read().tip().is_some()
    }

    /// Whether the transactions of the last run are here again.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.inner.loaded.load(Ordering::Acquire)
    }

    /// A transaction with the number of its arrival.
    #[must_use]
    pub fn find(&self, id: &GenTxid) -> Option<(Arc<Transaction>, u64)> {
        let pool = self.inner.pool.read();
        let entry = match id {
            GenTxid::Txid(txid) => pool.get(txid),
            GenTxid::Wtxid(wtxid) => pool.get_wtxid(wtxid),
        }?;
        Some((Arc::clone(&entry.tx), entry.sequence))
    }

    /// A transaction of the newest block.
    #[must_use]
    pub fn find_in_last_block(&self, id: &GenTxid) -> Option<Arc<Transaction>> {
        let ledger = self.inner.ledger.lock();
        let last = ledger.last_block.as_ref()?;
        let index = *last.by_hash.get(&id.hash())?;
        last.block.block.txdata.get(index).cloned().map(Arc::new)
    }

    /// The number that the next transaction to arrive gets, at least that of all here.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        sequence_after(&self.inner.pool.read())
    }

    /// Asks `use_it` with a lookup of transactions to announce and with
    /// [`Self::next_sequence`], all of one moment.
    pub fn announceable<R>(
        &self,
        use_it: impl FnOnce(&dyn Fn(&Wtxid) -> Option<Announceable<MiningRank>>, u64) -> R,
    ) -> R {
        let pool = self.inner.pool.read();
        let sequence = sequence_after(&pool);
        let find = |wtxid: &Wtxid| {
            let entry = pool.get_wtxid(wtxid)?;
            Some(Announceable {
                txid: entry.txid,
                fee: entry.fee.to_sat(),
                vsize: entry.vsize,
                rank: pool.mining_rank(&entry.txid)?,
            })
        };
        use_it(&find, sequence)
    }

    /// The next piece of what a sibling is told of, by both ids, and
    /// [`Self::next_sequence`] of that moment.
    pub fn tell(&self, telling: &mut Telling) -> (Vec<(Txid, Wtxid)>, u64) {
        let pool = self.inner.pool.read();
        let sequence = sequence_after(&pool);
        let piece = telling.piece(sequence, |from| {
            let entries = pool.iter_from(from);
            entries.map(|entry| {
                let ids = (entry.txid, entry.wtxid);
                (entry.sequence, entry.tx.total_size(), ids)
            })
        });
        (piece, sequence)
    }

    /// The best transactions for a block that follows `parent`, in mining order (parents
    /// first) and of at most `max_weight` together. None if the mempool is at another tip.
    #[must_use]
    pub fn block_candidates(&self, parent: &BlockHash, max_weight: u64) -> Vec<MempoolTx> {
        let pool = self.inner.pool.read();
        if pool.is_reorganising() || pool.tip().is_none_or(|tip| tip.hash != *parent) {
            return Vec::new();
        }
        let mut weight = 0;
        pool.chunks()
            .flat_map(|chunk| chunk.entries)
            .take_while(|entry| {
                weight += entry.weight;
                weight <= max_weight
            })
            .map(Entry::to_mempool_tx)
            .collect()
    }

    /// The least fee rates that are accepted now.
    #[must_use]
    pub fn accepted_rates(&self) -> AcceptedRates {
        let active = self.is_active();
        let pool = self.inner.pool.read();
        AcceptedRates {
            mempool_min: active.then(|| pool.min_fee_rate(now())),
            min_relay: pool.config().min_relay_fee_sat_kvb,
        }
    }

    /// The least by which a replacement must pay more, in sat per 1000 vB.
    #[must_use]
    pub fn incremental_fee_rate(&self) -> u64 {
        self.inner.pool.read().config().incremental_fee_sat_kvb
    }

    /// A peer has transactions; those that were handed in here need not be announced
    /// again.
    pub fn seen(&self, ids: &[GenTxid]) {
        if self.inner.ledger.lock().broadcasts.is_empty() {
            return;
        }
        let txids: Vec<Txid> = {
            let pool = self.inner.pool.read();
            let txid_of = |id: &GenTxid| match id {
                GenTxid::Txid(txid) => Some(*txid),
                GenTxid::Wtxid(wtxid) => pool.get_wtxid(wtxid).map(|entry| entry.txid),
            };
            ids.iter().filter_map(txid_of).collect()
        };
        let seen: Vec<Txid> = {
            let mut ledger = self.inner.ledger.lock();
            let was_pending = |txid: &Txid| ledger.broadcasts.done(txid);
            txids.into_iter().filter(was_pending).collect()
        };
        if !seen.is_empty() {
            let mut pool = self.inner.pool.write();
            for txid in seen {
                pool.set_local(&txid, false);
            }
        }
    }

    /// Whether a transaction was handed in here and no peer has been seen to have it.
    #[must_use]
    pub fn is_waiting_to_be_seen(&self, txid: &Txid) -> bool {
        self.inner.ledger.lock().broadcasts.contains(txid)
    }

    /// Transactions that were handed in here and are to be announced again now.
    #[must_use]
    pub fn due_broadcasts(&self, now: Instant) -> Vec<(Txid, Wtxid)> {
        let mut ledger = self.inner.ledger.lock();
        ledger.broadcasts.due(now, &mut rand::thread_rng())
    }

    /// Keeps a transaction that is not in the mempool for compact blocks.
    pub fn keep_extra(&self, wtxid: Wtxid, tx: Arc<Transaction>) {
        self.inner.keep_extra(wtxid, tx);
    }

    /// Renews the figures although nobody asks, for the metrics.
    pub(super) fn renew_figures(&self) {
        self.figures(|_| ());
    }

    fn figures<T>(&self, of: impl FnOnce(&Figures) -> T) -> T {
        let inner = &*self.inner;
        let mut figures = inner.figures.lock();
        let time = Instant::now();
        if figures.is_stale(time) {
            let min_rate = {
                let pool = inner.pool.read();
                figures.renew_pool(&pool, time);
                pool.min_fee_rate(now())
            };
            let ledger = inner.ledger.lock();
            figures.renew_estimates(&ledger.estimator, min_rate, inner.activity.is_reached());
        }
        of(&figures)
    }
}

/// The number that the next transaction to arrive gets, at least that of all here.
fn sequence_after(pool: &Mempool) -> u64 {
    let newest = pool.iter().next_back();
    newest.map_or(1, |entry| entry.sequence + 1)
}

/// The mempool's transactions, then others that were seen lately: replaced, evicted,
/// refused, orphans.
impl CompactSource for MempoolHandle {
    fn visit(&self, see: &mut dyn FnMut(&Wtxid, &Arc<Transaction>) -> ControlFlow<()>) {
        {
            let pool = self.inner.pool.read();
            for entry in pool.iter() {
                if see(&entry.wtxid, &entry.tx).is_break() {
                    return;
                }
            }
        }
        let ledger = self.inner.ledger.lock();
        for (wtxid, tx) in ledger.extra.iter() {
            if see(wtxid, tx).is_break() {
                return;
            }
        }
    }
}

impl Pool for MempoolHandle {
    fn contains(&self, id: &GenTxid) -> bool {
        let pool = self.inner.pool.read();
        match id {
            GenTxid::Txid(txid) => pool.contains(txid),
            GenTxid::Wtxid(wtxid) => pool.contains_wtxid(wtxid),
        }
    }
}

impl MempoolSource for MempoolHandle {
    fn view(&self) -> Box<dyn MempoolView + '_> {
        Box::new(PoolView(self.inner.pool.read()))
    }

    fn backlog(&self) -> Arc<Backlog> {
        self.figures(Figures::backlog)
    }

    fn projected_blocks(&self) -> Arc<[ProjectedBlock]> {
        self.figures(Figures::projected)
    }

    fn fee_estimates(&self) -> Arc<FeeEstimates> {
        self.figures(Figures::estimates)
    }

    fn min_fee_rate_sat_kvb(&self) -> u64 {
        self.inner.pool.read().min_fee_rate(now())
    }

    fn relay_fees(&self) -> RelayFees {
        let pool = self.inner.pool.read();
        RelayFees {
            min_relay_sat_kvb: pool.config().min_relay_fee_sat_kvb,
            incremental_sat_kvb: pool.config().incremental_fee_sat_kvb,
        }
    }

    fn touched(&self) -> Arc<TouchedScripts> {
        Arc::clone(&self.inner.touched)
    }

    fn touched_txs(&self) -> Arc<TouchedTxs> {
        Arc::clone(&self.inner.touched_txs)
    }
}
