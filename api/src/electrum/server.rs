//! The loop that accepts connections of one listener.
//!
//! # Limits
//! A connection costs a slot, shared by all listeners. One for which there is none, or that
//! exceeds the share of its address, is told so and closed, within [`REFUSAL`] and with at
//! most [`REFUSALS`] of them at the same time. When those are taken too, one that exceeds
//! the share of its address is closed at once; others wait in the backlog of the operating
//! system. Handshakes of TLS and WebSocket have to end in [`HANDSHAKE`].

use std::{io, net::SocketAddr, sync::Arc, time::Duration, time::Instant};

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::OwnedSemaphorePermit,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    ElectrumState, Inner,
    error::ElectrumError,
    limits::Admission,
    session,
    transport::{Frames, Incoming, Lines, Transport},
};
use crate::{
    metrics,
    server::network,
    tls::{Certificates, TlsError},
};

/// Time for the handshakes of TLS and WebSocket.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections that are told at the same time why they are not served.
pub(super) const REFUSALS: usize = 64;
/// Time for that, with the handshakes.
const REFUSAL: Duration = Duration::from_secs(5);
/// Most bytes that are kept of what such a client sends.
const REFUSED_BYTES: usize = 4 << 10;
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
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept_into(&socket, &state) => accepted,
        };
        let Some((stream, place)) = accepted else {
            continue;
        };
        let (listener, state, stop) = (listener.clone(), state.clone(), stop.clone());
        connections.spawn(async move {
            if let Err(err) = attend(stream, place, &listener, state, stop).await {
                debug!(%err, "electrum connection ended in its handshake");
            }
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

/// What a connection is there for. Gives back what it takes when dropped.
enum Place {
    /// To be served.
    Served {
        admission: Admission,
        slot: OwnedSemaphorePermit,
    },
    /// To be told why it is not.
    Refused {
        why: ElectrumError,
        slot: OwnedSemaphorePermit,
    },
}

/// The next connection and its place; `None` if it was closed without a word.
async fn accept_into(socket: &TcpListener, state: &ElectrumState) -> Option<(TcpStream, Place)> {
    let (stream, peer) = accept(socket).await;
    Some((stream, find_place(&state.0, peer).await?))
}

/// The place of a connection. Waits until there is one; `None` if there is none for an
/// address that has its share, since others must not wait for it.
async fn find_place(state: &Inner, peer: SocketAddr) -> Option<Place> {
    let refusals = Arc::clone(&state.refusals);
    let address = network(peer.ip());
    let admission = match (state.shares).admit(address, &state.config, Instant::now()) {
        Ok(admission) => admission,
        Err(why) => {
            let Ok(slot) = refusals.try_acquire_owned() else {
                metrics::electrum_refused(why.limit().unwrap_or("connections"));
                return None;
            };
            return Some(Place::Refused { why, slot });
        }
    };
    let never_closed = "the semaphore is never closed";
    Some(tokio::select! {
        biased;
        slot = Arc::clone(&state.connections).acquire_owned() => Place::Served {
            admission,
            slot: slot.expect(never_closed),
        },
        slot = refusals.acquire_owned() => Place::Refused {
            why: ElectrumError::Connections {
                limit: state.config.max_connections.get(),
            },
            slot: slot.expect(never_closed),
        },
    })
}

/// Does with a connection what it is there for.
async fn attend(
    stream: TcpStream,
    place: Place,
    listener: &ElectrumListener,
    state: ElectrumState,
    stop: CancellationToken,
) -> io::Result<()> {
    match place {
        Place::Served { .. } => {
            let _open = metrics::Open::electrum(listener.name);
            connect(stream, place, listener, state, stop).await
        }
        Place::Refused { .. } => {
            let told = connect(stream, place, listener, state, stop.clone());
            tokio::select! {
                () = stop.cancelled() => Ok(()),
                told = timeout(REFUSAL, told) => told?,
            }
        }
    }
}

/// Does the handshakes, then serves the client or refuses it.
async fn connect(
    stream: TcpStream,
    place: Place,
    listener: &ElectrumListener,
    state: ElectrumState,
    stop: CancellationToken,
) -> io::Result<()> {
    match &listener.tls {
        None => frame(stream, place, listener, state, stop).await,
        Some(acceptor) => {
            let stream = timeout(HANDSHAKE, acceptor.accept(stream)).await??;
            frame(stream, place, listener, state, stop).await
        }
    }
}

async fn frame(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    place: Place,
    listener: &ElectrumListener,
    state: ElectrumState,
    stop: CancellationToken,
) -> io::Result<()> {
    let max_bytes = match place {
        Place::Served { .. } => state.0.config.max_request_kib.get() << 10,
        Place::Refused { .. } => REFUSED_BYTES,
    };
    let write_timeout = Duration::from_secs(state.0.config.write_timeout_secs.get());
    match listener.web_socket {
        false => {
            let lines = Lines::new(stream, max_bytes, write_timeout);
            speak(lines, place, state, stop).await
        }
        true => {
            let frames = Frames::accept(stream, max_bytes, write_timeout);
            let frames = timeout(HANDSHAKE, frames).await?;
            speak(frames.map_err(io::Error::other)?, place, state, stop).await
        }
    }
}

async fn speak(
    mut transport: impl Transport,
    place: Place,
    state: ElectrumState,
    stop: CancellationToken,
) -> io::Result<()> {
    match place {
        Place::Served { admission, slot } => {
            session::run(transport, state, admission, stop).await;
            drop(slot);
            Ok(())
        }
        Place::Refused { why, slot } => {
            transport.send(session::failed(&Value::Null, why)).await?;
            transport.close().await;
            // With a request of the client unread, the operating system would reset the
            // connection, and take back what the client has not read.
            while transport.receive().await? != Incoming::Closed {}
            drop(slot);
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
