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
//! A connection costs a slot; with all slots taken, new ones wait in the backlog of the
//! operating system. A client that does not finish its handshake or its headers, or that
//! does not take its answer, is cut off. Connections beyond the share of their address are
//! told so (429) and closed. One over HTTP/2 may be idle for [`H2_AGE`].

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr},
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
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    config::ApiConfig,
    metrics,
    tls::{Certificates, TlsError},
};

/// Longest request head: request line and headers, in bytes.
const HEAD_LIMIT_BYTES: usize = 64 * 1024;
/// Pause after a failed accept, which is most often a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// First byte of a TLS connection: a record of the handshake (RFC 8446, 5.1). No method of
/// HTTP begins with it.
const TLS_HANDSHAKE: u8 = 22;
/// Name of HTTP/2 in ALPN.
const ALPN_H2: &[u8] = b"h2";
/// Requests at the same time on one connection over HTTP/2.
const H2_STREAMS: u32 = 64;
/// Between two questions to a client over HTTP/2 that sends nothing, whether it is there.
const H2_PING: Duration = Duration::from_secs(20);
/// After which a connection over HTTP/2 takes no further request; open ones go on.
const H2_AGE: Duration = Duration::from_secs(600);

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
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_connections_per_address: 0,
            header_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(10),
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
    /// Whether its address has more connections than it may.
    pub(crate) over_share: bool,
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
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    let shares = Arc::new(Shares::default());
    let mut connections = JoinSet::new();

    let next = async |slots: Arc<Semaphore>| {
        let slot = slots.acquire_owned().await;
        let slot = slot.expect("the semaphore is never closed");
        (slot, accept(&listener).await)
    };
    loop {
        let (slot, (stream, addr)) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = next(slots.clone()) => accepted,
        };
        let share = shares.take(addr);
        let limit = limits.max_connections_per_address;
        let service = Served {
            inner: TowerToHyperService::new(router.clone()),
            client: Client {
                addr,
                over_share: limit > 0 && share.count > limit,
            },
        };
        let connection = Connection {
            service,
            limits: limits.clone(),
            stop: stop.clone(),
        };
        let https = https.clone();
        connections.spawn(async move {
            let _open = metrics::Open::connection();
            if let Err(err) = connection.run(stream, https).await {
                debug!(err = &*err, "http connection ended");
            }
            drop((slot, share));
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
        let stop = self.stop;
        let until = async move { drop(timeout(H2_AGE, stop.cancelled()).await) };
        let wind_down = http2::Connection::graceful_shutdown;
        Ok(finish(connection, until, wind_down).await?)
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

/// Connections of each address.
#[derive(Default)]
struct Shares(Mutex<HashMap<IpAddr, usize>>);

/// A connection of an address, until it is dropped.
struct Share {
    shares: Arc<Shares>,
    network: IpAddr,
    /// How many the address had with this one.
    count: usize,
}

impl Shares {
    fn take(self: &Arc<Self>, addr: IpAddr) -> Share {
        let network = network(addr);
        let mut counts = self.0.lock();
        let count = counts.entry(network).or_default();
        *count += 1;
        Share {
            shares: Arc::clone(self),
            network,
            count: *count,
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.shares.0.lock();
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

/// What counts as one address: of IPv6 a customer has a /64 network at least.
pub(crate) fn network(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V6(addr) => {
            let network = u128::from(addr) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(network))
        }
        v4 => v4,
    }
}

/// The next connection, whatever happens to others before it.
async fn accept(listener: &TcpListener) -> (TcpStream, IpAddr) {
    loop {
        let accepted: io::Result<_> = async {
            let (stream, addr) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok((stream, addr.ip()))
        }
        .await;
        match accepted {
            Ok(accepted) => return accepted,
            // The client was gone before it was served: no reason to pause for others.
            Err(err) if err.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(err) => {
                warn!(%err, "connection not accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::Notify,
        task::JoinHandle,
        time::Instant,
    };

    use super::*;
    use crate::{config::CorsOrigin, layers};

    /// Longest time that a test waits for anything.
    const DEADLINE: Duration = Duration::from_secs(20);

    struct Server {
        addr: std::net::SocketAddr,
        stop: CancellationToken,
        task: JoinHandle<()>,
        /// Notified when a request to `/slow` or `/never` is being answered.
        entered: Arc<Notify>,
    }

    async fn start(limits: ServerLimits) -> Server {
        let entered = Arc::new(Notify::new());
        let (slow, never) = (entered.clone(), entered.clone());
        let slow = move || async move {
            slow.notify_one();
            sleep(Duration::from_millis(300)).await;
            "done"
        };
        let never = move || async move {
            never.notify_one();
            std::future::pending::<&'static str>().await
        };
        let router = Router::new()
            .route("/", get(|| async { "hello" }))
            .route("/slow", get(slow))
            .route("/never", get(never))
            .route("/huge", get(|| async { vec![0_u8; 64 << 20] }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let router = layers::wrap(router, CorsOrigin::none(), 1024);
        let task = tokio::spawn(serve(listener, None, router, limits, stop.clone()));
        Server {
            addr,
            stop,
            task,
            entered,
        }
    }

    async fn send(server: &Server, text: &str) -> TcpStream {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        stream
    }

    /// Everything until the server closes the connection.
    async fn read_to_close(mut stream: TcpStream) -> String {
        let mut bytes = Vec::new();
        let read = timeout(DEADLINE, stream.read_to_end(&mut bytes)).await;
        // A reset is a close, too.
        drop(read.expect("the server closes in time"));
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[tokio::test]
    async fn one_connection_serves_several_requests() {
        let server = start(ServerLimits::default()).await;
        let stream = send(
            &server,
            "GET / HTTP/1.1\r\nhost: x\r\n\r\nHEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .await;
        let text = read_to_close(stream).await;
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 2, "{text}");
        assert_eq!(text.matches("content-length: 5").count(), 2, "{text}");
        assert_eq!(text.matches("hello").count(), 1, "{text}");
    }

    #[tokio::test]
    async fn headers_that_do_not_arrive_close_the_connection() {
        let limits = ServerLimits {
            header_timeout: Duration::from_millis(100),
            ..ServerLimits::default()
        };
        let server = start(limits).await;
        let stream = send(&server, "GET / HTTP/1.1\r\nhost:").await;
        assert!(!read_to_close(stream).await.contains("200 OK"));
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed_like_one_without_headers() {
        let limits = ServerLimits {
            header_timeout: Duration::from_millis(100),
            ..ServerLimits::default()
        };
        let server = start(limits).await;
        let stream = send(&server, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(read_to_close(stream).await.ends_with("hello"));
    }

    #[tokio::test]
    async fn a_chunked_body_over_the_limit_is_refused_while_it_arrives() {
        let server = start(ServerLimits::default()).await;
        let head = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut stream = send(&server, head).await;
        let chunk = format!("{:x}\r\n{}\r\n", 250_001, "0".repeat(250_001));
        for _ in 0..4 {
            // The server may close before it has read all.
            if stream.write_all(chunk.as_bytes()).await.is_err() {
                break;
            }
        }
        let mut start = [0; 12];
        let read = timeout(DEADLINE, stream.read_exact(&mut start)).await;
        read.unwrap().unwrap();
        assert_eq!(&start, b"HTTP/1.1 413");
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_cut_off() {
        let limits = ServerLimits {
            max_connections: 1,
            write_timeout: Duration::from_millis(200),
            ..ServerLimits::default()
        };
        let server = start(limits).await;
        let stuck = send(&server, "GET /huge HTTP/1.1\r\nhost: x\r\n\r\n").await;
        // With one slot, the second client is served only when the first is gone.
        let next = send(
            &server,
            "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .await;
        assert!(read_to_close(next).await.ends_with("hello"));
        drop(stuck);
    }

    #[tokio::test]
    async fn an_address_with_too_many_connections_is_told_so() {
        let limits = ServerLimits {
            max_connections_per_address: 1,
            ..ServerLimits::default()
        };
        let server = start(limits).await;
        let first = TcpStream::connect(server.addr).await.unwrap();
        let ask = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        let refused = read_to_close(send(&server, ask).await).await;
        assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
        assert!(refused.contains("retry-after: 1\r\n"), "{refused}");
        drop(first);
        // The server notices after a moment that the first one is gone.
        let deadline = Instant::now() + DEADLINE;
        loop {
            let mut stream = send(&server, ask).await;
            let mut start = [0; 12];
            stream.read_exact(&mut start).await.unwrap();
            if &start == b"HTTP/1.1 200" {
                break;
            }
            assert!(Instant::now() < deadline);
        }
    }

    #[test]
    fn addresses_of_one_customer_count_as_one() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }

    #[tokio::test]
    async fn a_stop_lets_open_requests_end() {
        let server = start(ServerLimits::default()).await;
        let idle = TcpStream::connect(server.addr).await.unwrap();
        let open = send(&server, "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
        timeout(DEADLINE, server.entered.notified()).await.unwrap();
        server.stop.cancel();
        assert!(read_to_close(open).await.ends_with("done"));
        timeout(DEADLINE, server.task).await.unwrap().unwrap();
        assert_eq!(read_to_close(idle).await, "");
        assert!(TcpStream::connect(server.addr).await.is_err());
    }

    #[tokio::test]
    async fn a_stop_does_not_wait_longer_than_its_time() {
        let limits = ServerLimits {
            stop_timeout: Duration::from_millis(200),
            ..ServerLimits::default()
        };
        let server = start(limits).await;
        let open = send(&server, "GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await;
        timeout(DEADLINE, server.entered.notified()).await.unwrap();
        let started = Instant::now();
        server.stop.cancel();
        timeout(DEADLINE, server.task).await.unwrap().unwrap();
        assert!(started.elapsed() < DEADLINE / 2);
        assert_eq!(read_to_close(open).await, "");
    }
}
