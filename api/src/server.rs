//! The loop that accepts connections and serves a router on them.
//!
//! ```text
//! accept -> share of the address -> TLS? -> HTTP/1.1 or HTTP/2 -> router
//! ```
//!
//! With a certificate the listener speaks TLS and plain HTTP alike: the first byte of a
//! connection tells which. HTTP/2 is chosen inside TLS (ALPN) only.
//!
//! # Limits
//! A connection costs a place ([`Places`]). One too many is told so and closed with its first
//! answer, or after [`REFUSAL`]. A client that does not finish its handshake or its headers, or
//! that does not take its answer, is cut off. Over HTTP/2 a client can answer pings and yet take
//! nothing, so such a connection ends at a certain age, whatever is open on it then.

#[cfg(test)]
mod tests;

use std::{
    io,
    net::IpAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use hyper::{
    Request,
    body::Incoming,
    server::conn::{http1, http2},
    service::Service,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::{
    accept::accept,
    config::ApiConfig,
    metrics,
    places::{Places, Refused},
    tls::{Certificates, TlsError},
};

/// Longest request head: request line and headers, in bytes.
const HEAD_LIMIT_BYTES: usize = 64 * 1024;
/// Longest life of a connection that is told why it is not served.
const REFUSAL: Duration = Duration::from_secs(5);
/// First byte of a TLS connection: a record of the handshake (RFC 8446, 5.1). No method of
/// HTTP begins with it.
const TLS_HANDSHAKE: u8 = 22;
/// Name of HTTP/2 in ALPN.
const ALPN_H2: &[u8] = b"h2";
/// Requests at the same time on one connection over HTTP/2.
const H2_STREAMS: u32 = 64;
/// Between two questions to a client over HTTP/2 that sends nothing, whether it is there.
const H2_PING: Duration = Duration::from_secs(20);

/// Limits of one listener.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// Open connections.
    pub max_connections: usize,
    /// Those of one address (IPv6: of a /64 network); 0 is no limit.
    pub max_connections_per_address: usize,
    /// Time for a request's headers to arrive, and for an idle connection to go on.
    pub header_timeout: Duration,
    /// Time in which a client must take some bytes of its answer.
    pub write_timeout: Duration,
    /// Time for open requests to end after a stop.
    pub stop_timeout: Duration,
    /// Age at which a connection over HTTP/2 takes no further request. At twice that age it
    /// ends, and who listens to events has to connect again.
    pub h2_age: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_connections_per_address: 0,
            header_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(10),
            h2_age: Duration::from_secs(600),
        }
    }
}

impl From<&ApiConfig> for ServerLimits {
    fn from(config: &ApiConfig) -> Self {
        Self {
            max_connections: config.max_connections.get(),
            max_connections_per_address: config.max_connections_per_address,
            ..Self::default()
        }
    }
}

/// Who sent a request, as an extension of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    /// Where it comes from: a proxy, if there is one.
    pub(crate) addr: IpAddr,
    /// Why nothing is answered on its connection.
    pub(crate) refused: Option<Refused>,
}

/// What a listener speaks besides plain HTTP.
#[derive(Clone)]
pub struct HttpsAcceptor(TlsAcceptor);

impl HttpsAcceptor {
    /// TLS with these certificates, and HTTP/2 or HTTP/1.1 inside.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn new(certificates: &Arc<Certificates>) -> Result<Self, TlsError> {
        let config = certificates.acceptor(&[ALPN_H2, b"http/1.1"])?;
        Ok(Self(TlsAcceptor::from(config)))
    }
}

/// Serves `router` on `listener` until `stop`, then lets open requests end within
/// [`ServerLimits::stop_timeout`]. Returns when no connection is left.
pub async fn serve(
    listener: TcpListener,
    https: Option<HttpsAcceptor>,
    router: Router,
    limits: ServerLimits,
    stop: CancellationToken,
) {
    let places = Places::new(limits.max_connections, limits.max_connections_per_address);
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let (stream, addr) = accept(&listener, "http").await;
            Some((stream, addr, places.find(addr).await?))
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = next => accepted,
        };
        let Some((stream, addr, place)) = accepted else {
            metrics::connection_refused("address");
            continue;
        };
        let refused = place.refused;
        let connection = Connection {
            service: Served {
                inner: TowerToHyperService::new(router.clone()),
                client: Client { addr, refused },
            },
            limits: limits.clone(),
            stop: stop.clone(),
        };
        let https = https.clone();
        connections.spawn(async move {
            let _open = metrics::Open::connection();
            let connection = connection.run(stream, https);
            let ended = match refused {
                Some(_) => timeout(REFUSAL, connection).await.unwrap_or(Ok(())),
                None => connection.await,
            };
            if let Err(err) = ended {
                debug!(err = &*err, "http connection ended");
            }
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }

    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(limits.stop_timeout, ended).await.is_err() {
        info!(
            count = connections.len(),
            "closing connections that did not end in time"
        );
    }
    connections.shutdown().await;
}

type Ended = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// What a connection is served with.
struct Connection {
    service: Served,
    limits: ServerLimits,
    stop: CancellationToken,
}

impl Connection {
    async fn run(self, stream: TcpStream, https: Option<HttpsAcceptor>) -> Ended {
        let patience = self.limits.header_timeout;
        let speaks_tls = match &https {
            Some(_) => tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                is_tls = timeout(patience, begins_tls(&stream)) => is_tls??,
            },
            None => false,
        };
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(self.limits.write_timeout));
        let stream = Box::pin(stream);
        let Some(HttpsAcceptor(acceptor)) = https.filter(|_| speaks_tls) else {
            return self.http1(stream).await;
        };
        let stream = tokio::select! {
            () = self.stop.cancelled() => return Ok(()),
            stream = timeout(patience, acceptor.accept(stream)) => stream??,
        };
        match stream.get_ref().1.alpn_protocol() {
            Some(ALPN_H2) => self.http2(stream).await,
            _ => self.http1(stream).await,
        }
    }

    async fn http1(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Ended {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .keep_alive(self.service.client.refused.is_none())
            .header_read_timeout(self.limits.header_timeout)
            .max_buf_size(HEAD_LIMIT_BYTES);
        let connection = http.serve_connection(TokioIo::new(stream), self.service);
        let until = self.stop.cancelled_owned();
        let wind_down = http1::UpgradeableConnection::graceful_shutdown;
        Ok(finish(connection.with_upgrades(), until, wind_down).await?)
    }

    async fn http2(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Ended {
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .max_concurrent_streams(H2_STREAMS)
            .max_header_list_size(u32::try_from(HEAD_LIMIT_BYTES).unwrap_or(u32::MAX))
            .keep_alive_interval(Some(H2_PING))
            .keep_alive_timeout(self.limits.header_timeout);
        let connection = http.serve_connection(TokioIo::new(stream), self.service);
        let (stop, age) = (self.stop, self.limits.h2_age);
        let until = async move { drop(timeout(age, stop.cancelled()).await) };
        let wind_down = http2::Connection::graceful_shutdown;
        let ended = timeout(2 * age, finish(connection, until, wind_down)).await;
        Ok(ended.unwrap_or(Ok(()))?)
    }
}

/// Serves a connection; `until` then, after which `wind_down` lets only open requests end.
async fn finish<C, E>(
    connection: C,
    until: impl Future<Output = ()>,
    wind_down: impl FnOnce(Pin<&mut C>),
) -> Result<(), E>
where
    C: Future<Output = Result<(), E>>,
{
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = until => {}
    }
    wind_down(connection.as_mut());
    connection.await
}

/// Whether a client begins with TLS.
async fn begins_tls(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0];
    let len = stream.peek(&mut first).await?;
    Ok(len > 0 && first[0] == TLS_HANDSHAKE)
}

/// The router for one client.
struct Served {
    inner: TowerToHyperService<Router>,
    client: Client,
}

impl Service<Request<Incoming>> for Served {
    type Response = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Response;
    type Error = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Error;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.client);
        self.inner.call(request)
    }
}
