//! Serves the active chain to nodes that connect to us.
//!
//! ```text
//! listener -> session per connection { read loop -> answers -> socket }
//!                                                     |
//!                                         HeaderStore, Chain (BlockSource)
//! ```
//!
//! A session answers `ping`, `getheaders`, and `getdata` for blocks, and announces new
//! tips: by `headers` to peers that sent `sendheaders` (BIP 130), by `inv` to others.
//! Everything else is ignored: no transactions, addresses, filters or compact blocks.
//!
//! # Correctness
//! Only headers and blocks of the active chain are told, and a tip once it is active.
//! While the active chain has less than the network's minimum work, `getheaders` gets
//! an empty list and nothing is announced, as Bitcoin Core does it.
//!
//! # Security
//! Connections are counted by a semaphore; those above it are closed at once, whoever
//! holds the others. A session answers one request before it reads the next, so a peer
//! that does not read costs one block of memory, and its connection after a while. A
//! peer is closed when it sends what is not the protocol, asks for too much in one
//! message, or is silent for too long. What a peer downloads is not limited.

mod answers;
#[expect(dead_code, reason = "wired with the sessions")]
mod filters;
mod session;
#[expect(dead_code, reason = "wired with the sessions")]
mod upload;

use std::{error::Error, io, net::SocketAddr, sync::Arc, time::Duration};

use pulse_primitives::network::ChainParams;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::{chain::Chain, config::SyncConfig, headers::HeaderStore, metrics};
use answers::Answers;
use session::Session;

/// Wait after the system refused to accept, for example for want of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);
/// Refusals in a row after which the listener is given up.
const MAX_ACCEPT_FAILURES: u32 = 60;

/// How many are served, and how patiently.
#[derive(Debug, Clone, Copy)]
pub struct ServeLimits {
    /// Connections at a time.
    pub max_inbound: usize,
    /// For the whole handshake.
    pub handshake: Duration,
    /// Without a whole message from the peer.
    pub idle: Duration,
    /// For the peer to take 64 KiB of what is written to it.
    pub write: Duration,
}

impl Default for ServeLimits {
    /// 32 connections; 60 s, 20 min, 30 s.
    fn default() -> Self {
        Self {
            max_inbound: 32,
            handshake: Duration::from_secs(60),
            idle: Duration::from_secs(20 * 60),
            write: Duration::from_secs(30),
        }
    }
}

impl From<&SyncConfig> for ServeLimits {
    fn from(config: &SyncConfig) -> Self {
        Self {
            max_inbound: config.max_inbound,
            handshake: Duration::from_secs(config.handshake_timeout_secs),
            idle: Duration::from_secs(config.inactivity_timeout_secs),
            ..Self::default()
        }
    }
}

/// Why serving ended by itself. Never because of a peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The system kept refusing to accept connections.
    #[error("accepting connections of peers")]
    Accept(#[source] io::Error),
}

/// The serving side before it runs.
pub struct Serve {
    listener: TcpListener,
    limits: ServeLimits,
    context: Arc<Context>,
}

/// What all sessions share.
struct Context {
    magic: [u8; 4],
    /// By which a connection of this listener to itself would be noticed.
    nonce: u64,
    limits: ServeLimits,
    answers: Arc<Answers>,
}

impl Serve {
    /// Prepares to serve `chain`, whose headers are `headers`, to those who connect to
    /// `listener`.
    #[must_use]
    pub fn new(
        listener: TcpListener,
        params: ChainParams,
        chain: Chain,
        headers: Arc<HeaderStore>,
        limits: ServeLimits,
    ) -> Self {
        let context = Context {
            magic: params.magic,
            nonce: rand::random(),
            limits,
            answers: Arc::new(Answers::new(chain, headers, params.min_chain_work)),
        };
        Self {
            listener,
            limits,
            context: Arc::new(context),
        }
    }

    /// Serves until `stop`, then closes all connections.
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn run(self, stop: CancellationToken) -> Result<(), ServeError> {
        let mut sessions = JoinSet::new();
        let result = tokio::select! {
            result = self.accept(&mut sessions) => result,
            () = stop.cancelled() => Ok(()),
        };
        sessions.shutdown().await;
        result
    }

    async fn accept(&self, sessions: &mut JoinSet<()>) -> Result<(), ServeError> {
        let permits = Arc::new(Semaphore::new(
            self.limits.max_inbound.min(Semaphore::MAX_PERMITS),
        ));
        let mut failures = 0;
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(ended) = sessions.join_next() => {
                    if let Err(err) = ended {
                        warn!(%err, "a session of a peer failed");
                    }
                    continue;
                }
            };
            let (stream, addr) = match accepted {
                Ok(accepted) => accepted,
                // The peer was gone again before it was accepted.
                Err(err) if err.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(err) => {
                    warn!(%err, "accepting a connection");
                    failures += 1;
                    if failures == MAX_ACCEPT_FAILURES {
                        return Err(ServeError::Accept(err));
                    }
                    sleep(ACCEPT_RETRY).await;
                    continue;
                }
            };
            failures = 0;
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
                debug!(%addr, "connection refused: too many peers");
                continue;
            };
            let context = Arc::clone(&self.context);
            sessions.spawn(async move {
                live(context, stream, addr).await;
                drop(permit);
            });
        }
    }
}

/// One connection from its first byte to its last.
async fn live(context: Arc<Context>, stream: TcpStream, addr: SocketAddr) {
    let reason = Session::run(context, stream, addr).await;
    let err = reason.source().map(tracing::field::display);
    debug!(%addr, %reason, err, "inbound peer closed");
    metrics::disconnect(reason.word());
}
