//! Follows the best valid chain from configured peers.
//!
//! ```text
//! peers -> headers -> gate (presync) -> kernel -> HeaderStore -> best chain
//!                                                          |
//! peers <- getdata <- BlockWindow <------------------------+
//!   |
//!   +-> block -> BlockWindow -> kernel -> verdict -> (peer dropped, chain marked invalid)
//! ```
//!
//! One manager task owns the peers and all decisions; [`headers`], [`blocks`],
//! [`stall`] and the slots are its pure parts. Two workers wait for the kernel, one
//! task per peer for its socket.
//!
//! # Correctness
//! Only the kernel decides what is valid. Blocks are asked for when some peer has told
//! all its headers and the best chain has the minimum work, because assumevalid needs
//! the headers first. A restart is the same as a start: what the kernel holds is not
//! asked for again.
//!
//! # Security
//! Headers of a chain without enough work are not stored (see `gate`). A peer that sends an invalid header or block, a block that it was not asked for, or
//! garbage is dropped and left alone for `retry_misbehaving_secs`; one that is too
//! slow for `retry_max_secs`. The sync goes on with the others.

pub mod announcers;
pub mod blocks;
mod gate;
mod handle;
pub mod headers;
pub mod lagging;
mod manager;
mod progress;
mod slots;
pub mod stall;
mod workers;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use pulse_primitives::network::ChainParams;
use tokio_util::sync::CancellationToken;

use crate::{
    chain::{Chain, ChainError},
    config::{ConfigError, SyncConfig},
    headers::{HeaderStore, HeaderStoreError},
    p2p::PeerAddr,
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
    peers: Vec<PeerAddr>,
    chain: Chain,
    store: Arc<HeaderStore>,
    shared: Arc<Shared>,
}

impl Sync {
    /// Prepares the sync of `chain` and its client. Nothing is connected yet.
    ///
    /// # Errors
    /// [`ConfigError`] names the key of `[p2p]` that is wrong.
    pub fn new(
        config: SyncConfig,
        params: ChainParams,
        chain: Chain,
        store: Arc<HeaderStore>,
    ) -> Result<(Self, SyncHandle), ConfigError> {
        let mut peers: Vec<PeerAddr> = Vec::new();
        for peer in config.peers(params.default_port)? {
            if !peers.contains(&peer) {
                peers.push(peer);
            }
        }
        let shared = Arc::new(Shared::default());
        let handle = SyncHandle {
            shared: Arc::clone(&shared),
            store: Arc::clone(&store),
            chain: chain.clone(),
            min_chain_work: params.min_chain_work,
            simulate: config.simulate,
        };
        let sync = Self {
            config,
            params,
            peers,
            chain,
            store,
            shared,
        };
        Ok((sync, handle))
    }

    /// Follows the chain until `stop`, then closes all connections and flushes the
    /// header store. The kernel is left running.
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
