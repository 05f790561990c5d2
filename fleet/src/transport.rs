//! From an address to a connection with a member.
//!
//! ```text
//! TCP -> Noise -> yamux -+
//!                        +-> hello (both are members) -> connection of the swarm
//! QUIC (TLS 1.3) --------+
//! ```
//!
//! # Security
//! What is refused at the hello has never been a connection: no behaviour of the swarm
//! sees it, and it counts among the pending ones, which are limited.

use std::{io, sync::Arc, time::Duration};

use libp2p::{
    PeerId, Transport,
    core::{muxing::StreamMuxerBox, transport::Boxed, upgrade::Version},
    dns,
    futures::{future::Either, io::BufReader},
    identity::Keypair,
    noise, quic, tcp, yamux,
};

use crate::{hello, members::Gate};

/// For TCP, Noise and yamux together.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// What is taken from the system at a time, in bytes, and kept for each connection, pending ones
/// included: Noise itself asks for 8 KiB.
const READ_AHEAD: usize = 128 << 10;
/// Streams that a sibling may have open at a time; it needs a handful.
const MAX_STREAMS: u16 = 64;

/// Why there can be no transport.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The identity cannot be used for Noise.
    #[error("the identity cannot be used")]
    Identity(#[from] noise::Error),
    /// The system has no usable resolver.
    #[error("the resolver of the system")]
    Resolver(#[source] io::Error),
}

/// All ways to siblings, through the gate.
///
/// # Errors
/// [`SetupError`].
pub fn build(
    key: &Keypair,
    gate: &Arc<Gate>,
    with_quic: bool,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, SetupError> {
    let own = key.public().to_peer_id();
    let mut mux = yamux::Config::default();
    mux.set_max_num_streams(MAX_STREAMS.into());
    let tcp = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .map(|stream, _| BufReader::with_capacity(READ_AHEAD, stream))
        .upgrade(Version::V1Lazy)
        .authenticate(noise::Config::new(key)?)
        .multiplex(mux)
        .timeout(HANDSHAKE_LIMIT)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let gate = Arc::clone(gate);
    let hello = move |connection, point: libp2p::core::ConnectedPoint| {
        hello::admit(gate, own, connection, point.is_dialer())
    };
    if !with_quic {
        let named = dns::tokio::Transport::system(tcp).map_err(SetupError::Resolver)?;
        return Ok(named.and_then(boxed(hello)).boxed());
    }
    let mut config = quic::Config::new(key);
    config.handshake_timeout = HANDSHAKE_LIMIT;
    config.max_concurrent_stream_limit = MAX_STREAMS.into();
    let quic = quic::tokio::Transport::new(config)
        .map(|(peer, muxer), _| (peer, StreamMuxerBox::new(muxer)));
    let both = quic.or_transport(tcp).map(|either, _| match either {
        Either::Left(connection) | Either::Right(connection) => connection,
    });
    let named = dns::tokio::Transport::system(both).map_err(SetupError::Resolver)?;
    Ok(named.and_then(boxed(hello)).boxed())
}

type Connection = (PeerId, StreamMuxerBox);

/// The future of a hello as `and_then` wants it.
fn boxed<F>(
    hello: impl FnOnce(Connection, libp2p::core::ConnectedPoint) -> F + Clone + Send + 'static,
) -> impl FnOnce(
    Connection,
    libp2p::core::ConnectedPoint,
) -> libp2p::futures::future::BoxFuture<'static, Result<Connection, hello::HelloError>>
+ Clone
+ Send
+ 'static
where
    F: Future<Output = Result<Connection, hello::HelloError>> + Send + 'static,
{
    move |connection, point| Box::pin(hello(connection, point))
}
