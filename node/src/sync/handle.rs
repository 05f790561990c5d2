//! What others see of the sync, and the way in for a block made here.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use pulse_primitives::{
    bitcoin::{BlockHash, Work, block::Header, consensus::deserialize},
    ports::NodeStatus,
    status::{NodeReport, PeerReport, SYNCED_LAG_BLOCKS},
};
use tokio::sync::{Notify, watch};

use super::{SyncError, workers};
use crate::{
    chain::{BlockVerdict, Chain, ChainError, InvalidBlock},
    headers::{HeaderStore, HeaderStoreError},
    net::NetHandle,
};

/// What the manager publishes.
pub(super) struct Shared {
    pub peers: Mutex<Vec<PeerReport>>,
    pub headers_answered: watch::Sender<bool>,
    pub blocks_in_flight: AtomicUsize,
    pub blocks_received: AtomicU64,
    /// The best chain has changed by something else than the manager.
    pub changed: Notify,
}

impl Shared {
    /// Nothing is known yet, except that with `simulate` no peer is asked for headers.
    pub fn new(simulate: bool) -> Self {
        Self {
            peers: Mutex::default(),
            headers_answered: watch::Sender::new(simulate),
            blocks_in_flight: AtomicUsize::default(),
            blocks_received: AtomicU64::default(),
            changed: Notify::default(),
        }
    }
}

/// Cloneable client of the sync. Works whether or not [`super::Sync::run`] does.
#[derive(Clone)]
pub struct SyncHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) store: Arc<HeaderStore>,
    pub(super) chain: Chain,
    pub(super) net: NetHandle,
    pub(super) min_chain_work: Work,
}

/// Why a block made here did not become part of the block tree.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The bytes are not a block.
    #[error("not a block")]
    Malformed,
    /// Its header is refused.
    #[error("header refused: {reason}")]
    HeaderRefused {
        /// Which rule it breaks.
        reason: String,
    },
    /// The kernel finds the block invalid.
    #[error("block {} is invalid: {}", .0.hash, .0.reason)]
    Invalid(InvalidBlock),
    /// The kernel gave no verdict.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The header could not be stored.
    #[error("header store")]
    Store(#[from] HeaderStoreError),
    /// A part of the program has ended unexpectedly.
    #[error("an inner task failed")]
    TaskFailed,
}

impl SyncHandle {
    /// Takes in a block that was made here (`--simulate`): its header through check,
    /// kernel and store, then the block through the kernel. Returns when the kernel is
    /// done with it. Submitting a block twice is no error.
    ///
    /// # Errors
    /// [`SubmitError`].
    pub async fn submit_local(&self, block: Vec<u8>) -> Result<(), SubmitError> {
        let header: Header = block
            .get(..80)
            .and_then(|header| deserialize(header).ok())
            .ok_or(SubmitError::Malformed)?;
        let intake = workers::take_in(&self.chain, &self.store, vec![header]).await;
        let header_refused = |reason: &str| SubmitError::HeaderRefused {
            reason: reason.to_owned(),
        };
        match intake {
            Ok(workers::Intake::Accepted { last: Some(_), .. }) => {}
            Ok(workers::Intake::Accepted { last: None, .. }) => {
                return Err(header_refused("its time is too far in the future"));
            }
            Ok(
                workers::Intake::Withheld | workers::Intake::Ignored | workers::Intake::Unconnected,
            ) => {
                return Err(header_refused("its parent is not known"));
            }
            Ok(workers::Intake::Refused { reason }) => return Err(header_refused(&reason)),
            Err(SyncError::Chain(err)) => return Err(err.into()),
            Err(SyncError::Store(err)) => return Err(err.into()),
            Err(_) => return Err(SubmitError::TaskFailed),
        }
        let verdict = self.chain.submit_block(block).await?;
        self.shared.changed.notify_one();
        match verdict {
            BlockVerdict::Accepted | BlockVerdict::Duplicate => Ok(()),
            BlockVerdict::Invalid(invalid) => {
                if !invalid.mutated {
                    self.store.mark_invalid(&invalid.hash);
                }
                Err(SubmitError::Invalid(invalid))
            }
        }
    }
}

impl NodeStatus for SyncHandle {
    fn report(&self) -> NodeReport {
        NodeReport {
            peers: self.shared.peers.lock().clone(),
            ..self.report_without_peers()
        }
    }

    fn report_without_peers(&self) -> NodeReport {
        let best = self.store.best();
        let shared = &self.shared;
        let store = &self.store;
        let parent = |hash: &BlockHash| Some(store.header(hash)?.prev_blockhash);
        let best_hashes = std::iter::successors(Some(best.tip.hash), parent);
        NodeReport {
            best_header: best.tip,
            best_hashes: best_hashes.take(SYNCED_LAG_BLOCKS as usize + 1).collect(),
            best_header_work: best.work,
            min_chain_work: self.min_chain_work,
            headers_answered: *shared.headers_answered.borrow(),
            active_tip: self.chain.active_tip(),
            peers: Vec::new(),
            blocks_in_flight: shared.blocks_in_flight.load(Ordering::Relaxed),
            blocks_received: shared.blocks_received.load(Ordering::Relaxed),
            bytes_received: self.net.received_bytes(),
            peers_dropped: self.net.peers_dropped(),
        }
    }

    fn headers_answered(&self) -> watch::Receiver<bool> {
        self.shared.headers_answered.subscribe()
    }
}
