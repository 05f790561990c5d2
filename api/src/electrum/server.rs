//! The loop that accepts connections of one listener.
//!
//! # Limits
//! A connection costs a place ([`crate::places`]), of which all listeners together have
//! [`ElectrumConfig::max_connections`](super::ElectrumConfig::max_connections). One that has none
//! is told so and closed, within [`REFUSAL`]. Handshakes of TLS and WebSocket have to end in
//! [`HANDSHAKE`].

use std::{io, net::IpAddr, sync::Arc, time::Duration, time::Instant};

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::{
    ElectrumState,
    error::ElectrumError,
    session,
    transport::{Frames, Incoming, Lines, Transport},
};
use crate::{
    accept::accept,
    metrics,
    places::Refused,
    tls::{Certificates, TlsError},
};

/// Time for the handshakes of TLS and WebSocket.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Time for telling a connection why it is not served, with the handshakes.
const REFUSAL: Duration = Duration::from_secs(5);
/// Most bytes that are kept of what such a client sends.
const REFUSED_BYTES: usize = 4 << 10;
/// Time for open requests to end after a stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

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
        let next = async {
            let (stream, client) = accept(&socket, "electrum").await;
            Some((stream, client, state.0.places.find(client).await?))
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = next => accepted,
        };
        let Some((stream, client, place)) = accepted else {
            metrics::electrum_refused("connections");
            continue;
        };
        let connection = Connection {
            client,
            refused: place.refused,
            listener: listener.clone(),
            state: state.clone(),
            stop: stop.clone(),
        };
        connections.spawn(async move {
            if let Err(err) = connection.run(stream).await {
                debug!(%err, "electrum connection ended in its handshake");
            }
            drop(place);
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

/// A connection, and what it is served with.
struct Connection {
    client: IpAddr,
    /// Why it is not served.
    refused: Option<Refused>,
    listener: ElectrumListener,
    state: ElectrumState,
    stop: CancellationToken,
}

impl Connection {
    /// Does the handshakes, then serves the client or tells it why not.
    async fn run(self, stream: TcpStream) -> io::Result<()> {
        if self.refused.is_none() {
            let _open = metrics::Open::electrum(self.listener.name);
            return self.connect(stream).await;
        }
        let stop = self.stop.clone();
        tokio::select! {
            () = stop.cancelled() => Ok(()),
            told = timeout(REFUSAL, self.connect(stream)) => told?,
        }
    }

    async fn connect(self, stream: TcpStream) -> io::Result<()> {
        match self.listener.tls.clone() {
            None => self.frame(stream).await,
            Some(acceptor) => {
                let stream = timeout(HANDSHAKE, acceptor.accept(stream)).await??;
                self.frame(stream).await
            }
        }
    }

    async fn frame(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send) -> io::Result<()> {
        let config = &self.state.0.config;
        let max_bytes = match self.refused {
            None => config.max_request_kib.get() << 10,
            Some(_) => REFUSED_BYTES,
        };
        let write_timeout = Duration::from_secs(config.write_timeout_secs.get());
        if self.listener.web_socket {
            let frames = Frames::accept(stream, max_bytes, write_timeout);
            let frames = timeout(HANDSHAKE, frames).await?;
            self.speak(frames.map_err(io::Error::other)?).await
        } else {
            self.speak(Lines::new(stream, max_bytes, write_timeout))
                .await
        }
    }

    async fn speak(self, mut transport: impl Transport) -> io::Result<()> {
        let inner = &self.state.0;
        let Some(why) = self.refused else {
            let admission = inner
                .shares
                .admit(self.client, &inner.config, Instant::now());
            session::run(transport, self.state, admission, self.stop).await;
            return Ok(());
        };
        let why = ElectrumError::refused(why, &inner.config);
        transport.send(session::failed(&Value::Null, why)).await?;
        transport.close().await;
        // With a request of the client unread, the operating system would reset the
        // connection, and take back what the client has not read.
        while transport.receive().await? != Incoming::Closed {}
        Ok(())
    }
}
