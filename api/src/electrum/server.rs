//! The loop that accepts connections of one listener.
//!
//! # Limits
//! A connection costs a slot, shared by all listeners; with all slots taken, new ones wait
//! in the backlog of the operating system. One that exceeds the share of its address is
//! told so and closed. Handshakes of TLS and WebSocket have to end in [`HANDSHAKE`].

use std::{io, net::SocketAddr, sync::Arc, time::Duration, time::Instant};

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    ElectrumState,
    error::ElectrumError,
    limits::Admission,
    session,
    transport::{Frames, Lines, Transport},
};
use crate::{
    metrics,
    tls::{Certificates, TlsError},
};

/// Time for the handshakes of TLS and WebSocket.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Time for open requests to end after a stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept, which is most often a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is spoken on a socket below JSON.
#[derive(Clone)]
pub struct ElectrumListener {
    tls: Option<TlsAcceptor>,
    web_socket: bool,
    name: &'static str,
}

impl ElectrumListener {
    /// Lines over TCP.
    #[must_use]
    pub fn tcp() -> Self {
        Self {
            tls: None,
            web_socket: false,
            name: "tcp",
        }
    }

    /// Lines over TLS.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn tls(certificates: &Arc<Certificates>) -> Result<Self, TlsError> {
        Ok(Self {
            tls: Some(TlsAcceptor::from(certificates.acceptor(&[])?)),
            web_socket: false,
            name: "tls",
        })
    }

    /// WebSocket over TCP.
    #[must_use]
    pub fn ws() -> Self {
        Self {
            tls: None,
            web_socket: true,
            name: "ws",
        }
    }

    /// WebSocket over TLS.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn wss(certificates: &Arc<Certificates>) -> Result<Self, TlsError> {
        Ok(Self {
            web_socket: true,
            name: "wss",
            ..Self::tls(certificates)?
        })
    }

    /// `tcp`, `tls`, `ws` or `wss`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }
}

/// Serves clients on `socket` until `stop`, then lets open requests end. Returns when no
/// connection is left.
pub async fn serve(
    socket: TcpListener,
    listener: ElectrumListener,
    state: ElectrumState,
    stop: CancellationToken,
) {
    let mut connections = JoinSet::new();
    loop {
        let slot = tokio::select! {
            () = stop.cancelled() => break,
            slot = Arc::clone(&state.0.connections).acquire_owned() => slot,
        };
        let slot = slot.expect("the semaphore is never closed");
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&socket) => accepted,
        };
        let (listener, state, stop) = (listener.clone(), state.clone(), stop.clone());
        connections.spawn(async move {
            let _open = metrics::Open::electrum(listener.name);
            if let Err(err) = connect(stream, peer, &listener, state, stop).await {
                debug!(%err, "electrum connection ended in its handshake");
            }
            drop(slot);
        });
        while connections.try_join_next().is_some() {}
    }
    drop(socket);
    let ended = timeout(STOP_TIMEOUT, async {
        while connections.join_next().await.is_some() {}
    });
    if ended.await.is_err() {
        info!(
            count = connections.len(),
            "closing electrum connections that did not end in time"
        );
        connections.shutdown().await;
    }
}

/// Does the handshakes, then serves the client.
async fn connect(
    stream: TcpStream,
    peer: SocketAddr,
    listener: &ElectrumListener,
    state: ElectrumState,
    stop: CancellationToken,
) -> io::Result<()> {
    let ip = peer.ip().to_canonical();
    let admission = (state.0.shares).admit(ip, &state.0.config, Instant::now());
    match &listener.tls {
        None => frame(stream, listener, state, admission, stop).await,
        Some(acceptor) => {
            let stream = timeout(HANDSHAKE, acceptor.accept(stream)).await??;
            frame(stream, listener, state, admission, stop).await
        }
    }
}

async fn frame(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    listener: &ElectrumListener,
    state: ElectrumState,
    admission: Result<Admission, ElectrumError>,
    stop: CancellationToken,
) -> io::Result<()> {
    let max_bytes = state.0.config.max_request_kib.get() << 10;
    let write_timeout = Duration::from_secs(state.0.config.write_timeout_secs.get());
    match listener.web_socket {
        false => {
            let lines = Lines::new(stream, max_bytes, write_timeout);
            admit(lines, state, admission, stop).await
        }
        true => {
            let frames = Frames::accept(stream, max_bytes, write_timeout);
            let frames = timeout(HANDSHAKE, frames).await?;
            admit(frames.map_err(io::Error::other)?, state, admission, stop).await
        }
    }
}

async fn admit(
    mut transport: impl Transport,
    state: ElectrumState,
    admission: Result<Admission, ElectrumError>,
    stop: CancellationToken,
) -> io::Result<()> {
    match admission {
        Ok(admission) => {
            session::run(transport, state, admission, stop).await;
            Ok(())
        }
        Err(error) => {
            transport.send(session::failed(&Value::Null, error)).await?;
            transport.close().await;
            Ok(())
        }
    }
}

/// The next connection, whatever happens to others before it.
async fn accept(socket: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        let accepted: io::Result<_> = async {
            let (stream, peer) = socket.accept().await?;
            stream.set_nodelay(true)?;
            Ok((stream, peer))
        }
        .await;
        match accepted {
            Ok(accepted) => return accepted,
            // The client was gone before it was served: no reason to pause for others.
            Err(err) if err.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(err) => {
                warn!(%err, "electrum connection not accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
