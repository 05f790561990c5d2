//! What survives a restart: `mempool.dat` and `fees.dat`.
//!
//! # Correctness
//! Transactions come back through normal acceptance, in the background, with the time of
//! their first arrival. A file that cannot be used is moved aside and the node goes on.

use std::{
    fs,
    io::{BufReader, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use pulse_mempool::{
    AcceptOptions,
    fees::{FeeEstimator, RestoreError},
    persist::{self, LoadError, SavedTx},
};
use tracing::{debug, info, warn};

use super::{
    file,
    handle::{MempoolHandle, NotAccepted},
    inner::Inner,
    now,
};

const MEMPOOL_FILE: &str = "mempool.dat";
const FEES_FILE: &str = "fees.dat";
/// Transactions between two lines in the log.
const REPORT_EVERY: usize = 20_000;

/// Saves transactions and fee history, as far as they were loaded.
pub(super) fn save(inner: &Inner, dir: &Path) {
    let fees = inner.ledger.lock().estimator.to_bytes(now());
    let saved = file::replace(&dir.join(FEES_FILE), |out| out.write_all(&fees));
    if let Err(err) = saved {
        warn!(%err, "the fee history could not be saved");
    }
    if !inner.loaded.load(Ordering::Acquire) {
        return;
    }
    let started = Instant::now();
    let txs = inner.pool.read().saved();
    match file::replace(&dir.join(MEMPOOL_FILE), |out| persist::dump(&txs, out)) {
        Ok(bytes) => info!(
            count = txs.len(),
            bytes,
            elapsed_ms = elapsed_ms(started),
            "mempool saved"
        ),
        Err(err) => warn!(%err, "the mempool could not be saved"),
    }
}

/// The fee history of the last run, if there is one of use.
pub(super) fn load_fees(dir: &Path) -> Option<FeeEstimator> {
    let path = dir.join(FEES_FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return None,
        Err(err) => {
            warn!(%err, "the fee history could not be read");
            return None;
        }
    };
    match FeeEstimator::from_bytes(&bytes, now()) {
        Ok(estimator) => Some(estimator),
        Err(err @ RestoreError::TooOld { .. }) => {
            info!(%err, "fee estimates start anew");
            None
        }
        Err(err) => {
            warn!(%err, "the fee history cannot be used and is moved aside");
            move_aside(&path);
            None
        }
    }
}

/// Loads the transactions of the last run, until `stopping`.
pub(super) fn load(handle: &MempoolHandle, dir: &Path, stopping: &AtomicBool) {
    let inner = &handle.inner;
    let path = dir.join(MEMPOOL_FILE);
    let txs = match read(&path) {
        Ok(txs) => txs,
        Err(LoadError::Io(err)) if err.kind() != std::io::ErrorKind::UnexpectedEof => {
            // Not to be replaced: it may be readable next time.
            warn!(%err, "the mempool's file could not be read");
            return;
        }
        Err(err) => {
            warn!(%err, "the mempool's file is damaged and is moved aside");
            move_aside(&path);
            Vec::new()
        }
    };
    let finished = accept_all(handle, txs, stopping);
    if finished {
        inner.loaded.store(true, Ordering::Release);
        inner.teaching.store(true, Ordering::Relaxed);
    }
}

fn read(path: &Path) -> Result<Vec<SavedTx>, LoadError> {
    match file::open(path)? {
        Some(file) => persist::load(&mut BufReader::new(file)),
        None => Ok(Vec::new()),
    }
}

/// `false` if the node stopped meanwhile.
fn accept_all(handle: &MempoolHandle, txs: Vec<SavedTx>, stopping: &AtomicBool) -> bool {
    if txs.is_empty() {
        return true;
    }
    let inner = &handle.inner;
    let (started, total) = (Instant::now(), txs.len());
    let oldest = now().saturating_sub(inner.pool.read().config().expiry_secs());
    let (mut accepted, mut expired, mut refused) = (0usize, 0usize, 0usize);
    for (done, saved) in txs.into_iter().enumerate() {
        if stopping.load(Ordering::Relaxed) {
            return false;
        }
        if done > 0 && done.is_multiple_of(REPORT_EVERY) {
            info!(count = done, total, "loading the mempool");
        }
        if saved.time < oldest {
            expired += 1;
            continue;
        }
        let tx = Arc::new(saved.tx);
        let options = AcceptOptions {
            time: Some(saved.time),
            local: saved.local,
            ..AcceptOptions::default()
        };
        match handle.accept(&tx, options) {
            Ok(taken) => {
                accepted += 1;
                if saved.local {
                    inner.broadcast(taken.txid, tx.compute_wtxid());
                }
            }
            Err(NotAccepted::Rejected(rejected)) => {
                refused += 1;
                debug!(txid = %tx.compute_txid(), %rejected, "a saved transaction is refused");
            }
            Err(NotAccepted::NotJudged(err)) => {
                refused += 1;
                warn!(%err, "a saved transaction could not be judged");
            }
        }
    }
    info!(
        count = accepted,
        expired,
        refused,
        elapsed_ms = elapsed_ms(started),
        "mempool loaded"
    );
    true
}

fn move_aside(path: &Path) {
    match file::set_aside(path) {
        Ok(aside) => warn!(path = %aside.display(), "a file was moved aside"),
        Err(err) => warn!(%err, "a damaged file could not be moved aside"),
    }
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
