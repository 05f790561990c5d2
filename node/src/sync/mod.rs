//! Follows the best valid chain from the peers of the net.
//!
//! ```text
//! peers -> headers -> gate (presync) -> kernel -> HeaderStore -> best chain
//!                                                          |
//! peers <- getdata <- BlockWindow <------------------------+
//!   |
//!   +-> block -> BlockWindow -> kernel -> verdict -> (peer dropped, chain marked invalid)
//! ```
//!
//! One manager task takes all decisions; [`headers`], [`blocks`] and [`stall`] are its
//! pure parts, two workers wait for the kernel. Connections are the net's
//! ([`crate::net`]), which tells of peers and ends those that fault is found with.
//!
//! # Correctness
//! Only the kernel decides what is valid. Blocks are asked for when some peer has told
//! all its headers and the best chain has the minimum work, because assumevalid needs
//! the headers first. A restart is the same as a start: what the kernel holds is not
//! asked for again.
//!
//! # Security
//! Headers of a chain without enough work are not stored (see `gate`).
//! A peer that sends an invalid header or block, a block that it was not asked for, or
//! garbage is dropped as misbehaving, one that is too slow as slow. The sync goes on
//! with the others. Peers that connected to us are asked for headers once another one
//! has told all of its own (or if the node connects to nobody), and for blocks when
//! nobody else has work.

pub mod announcers;
mod assembly;
pub mod blocks;
mod gate;
mod handle;
pub mod headers;
pub mod lagging;
mod manager;
mod progress;
pub mod stall;
mod workers;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use pulse_primitives::network::ChainParams;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    chain::{Chain, ChainError},
    config::SyncConfig,
    headers::{HeaderStore, HeaderStoreError},
    net::{NetHandle, PeerEvent},
    p2p::compact::CompactSource,
};
use handle::Shared;
pub use handle::{SubmitError, SyncHandle};
use manager::Manager;

/// Why the sync ended by itself. Never because of a peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The kernel stopped or failed.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The headers could not be stored.
    #[error("header store")]
    Store(#[from] HeaderStoreError),
    /// A task of the sync panicked; the log has the panic.
    #[error("a task of the sync failed")]
    TaskFailed,
}

/// The sync before it runs.
pub struct Sync {
    config: SyncConfig,
    params: ChainParams,
    chain: Chain,
    store: Arc<HeaderStore>,
    shared: Arc<Shared>,
    net: NetHandle,
    events: mpsc::Receiver<PeerEvent>,
    compact_source: Arc<dyn CompactSource>,
}

impl Sync {
    /// Prepares the sync of `chain` with the peers that `events` tells of, and its client.
    #[must_use]
    pub fn new(
        config: SyncConfig,
        params: ChainParams,
        chain: Chain,
        store: Arc<HeaderStore>,
        net: NetHandle,
        events: mpsc::Receiver<PeerEvent>,
    ) -> (Self, SyncHandle) {
        let shared = Arc::new(Shared::new(config.simulate));
        let handle = SyncHandle {
            shared: Arc::clone(&shared),
            store: Arc::clone(&store),
            chain: chain.clone(),
            net: net.clone(),
            min_chain_work: params.min_chain_work,
        };
        let sync = Self {
            config,
            params,
            chain,
            store,
            shared,
            net,
            events,
            compact_source: Arc::new(()),
        };
        (sync, handle)
    }

    /// Puts compact blocks together from these transactions. Without, every transaction of
    /// a new block is asked for.
    #[must_use]
    pub fn with_compact_source(mut self, source: Arc<dyn CompactSource>) -> Self {
        self.compact_source = source;
        self
    }

    /// Follows the chain until `stop`, then flushes the header store. The kernel and the
    /// net are left running.
    ///
    /// # Errors
    /// [`SyncError`].
    pub async fn run(self, stop: CancellationToken) -> Result<(), SyncError> {
        let store = Arc::clone(&self.store);
        let result = Manager::new(self).run(stop).await;
        let flushed = tokio::task::spawn_blocking(move || store.flush()).await;
        result?;
        flushed.map_err(|_| SyncError::TaskFailed)??;
        Ok(())
    }
}
