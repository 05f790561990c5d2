//! The loop that accepts connections and serves a router on them.
//!
//! # Limits
//! A connection costs a slot; with all slots taken, new ones wait in the backlog of the
//! operating system. A client that does not finish its headers, or that does not take
//! its answer, is cut off.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{config::ApiConfig, metrics};

/// Longest request head: request line and headers, in bytes.
const HEAD_LIMIT_BYTES: usize = 64 * 1024;
/// Pause after a failed accept, which is most often a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Limits of one listener.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// Open connections.
    pub max_connections: usize,
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
            ..Self::default()
        }
    }
}

/// Serves `router` over HTTP/1.1 on `listener` until `stop`, then lets open requests end
/// within [`ServerLimits::stop_timeout`]. Returns when no connection is left.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ServerLimits,
    stop: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(HEAD_LIMIT_BYTES);

    let next = async |slots: Arc<Semaphore>| {
        let slot = slots.acquire_owned().await;
        let slot = slot.expect("the semaphore is never closed");
        (slot, accept(&listener).await)
    };
    loop {
        let (slot, stream) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = next(slots.clone()) => accepted,
        };
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(limits.write_timeout));
        let io = TokioIo::new(Box::pin(stream));
        let connection = http.serve_connection(io, TowerToHyperService::new(router.clone()));
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            let _open = metrics::Open::connection();
            if let Err(err) = connection.await {
                debug!(%err, "http connection ended");
            }
            drop(slot);
        });
        while connections.try_join_next().is_some() {}
    }

    drop(listener);
    if timeout(limits.stop_timeout, graceful.shutdown())
        .await
        .is_err()
    {
        info!(
            count = connections.len(),
            "closing connections that did not end in time"
        );
    }
    connections.shutdown().await;
}

/// The next connection, whatever happens to others before it.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        let accepted: io::Result<_> = async {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        }
        .await;
        match accepted {
            Ok(stream) => return stream,
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
        let router = layers::wrap(router, CorsOrigin::none());
        let task = tokio::spawn(serve(listener, router, limits, stop.clone()));
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
