//! The server at its sockets.

use axum::routing::get;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::*;
use crate::{config::CorsOrigin, layers, places::TOLD_CONNECTIONS};

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
        .route("/health", get(|| async { "ok" }))
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
    // With one slot, another client is served only when the first is gone.
    until_served(&server).await;
    drop(stuck);
}

const ASK: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

/// Asks on new connections until one is served.
async fn until_served(server: &Server) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let mut stream = send(server, ASK).await;
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.unwrap();
        if &start == b"HTTP/1.1 200" {
            break;
        }
        assert!(Instant::now() < deadline);
    }
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_and_monitors_are_answered() {
    let limits = ServerLimits {
        max_connections: 1,
        ..ServerLimits::default()
    };
    let server = start(limits).await;
    let first = TcpStream::connect(server.addr).await.unwrap();
    let refused = read_to_close(send(&server, ASK).await).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains("retry-after: 1\r\n"), "{refused}");
    assert!(refused.contains("connection: close\r\n"), "{refused}");
    assert!(refused.ends_with("\r\n\r\nserver is busy"), "{refused}");
    let health = "GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
    let health = read_to_close(send(&server, health).await).await;
    assert!(health.starts_with("HTTP/1.1 200 "), "{health}");
    // Nor does a connection stay open that is told something else.
    let options = "OPTIONS / HTTP/1.1\r\nhost: x\r\n\r\n";
    let options = read_to_close(send(&server, options).await).await;
    assert!(options.contains("connection: close\r\n"), "{options}");
    // Those that ask nothing keep the others waiting for a moment only.
    let mut silent = Vec::new();
    for _ in 0..TOLD_CONNECTIONS + 10 {
        silent.push(TcpStream::connect(server.addr).await.unwrap());
    }
    let refused = read_to_close(send(&server, ASK).await).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    drop(first);
    until_served(&server).await;
}

#[tokio::test]
async fn an_address_with_too_many_connections_is_told_so() {
    let limits = ServerLimits {
        max_connections_per_address: 1,
        ..ServerLimits::default()
    };
    let server = start(limits).await;
    let first = TcpStream::connect(server.addr).await.unwrap();
    let refused = read_to_close(send(&server, ASK).await).await;
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    assert!(refused.contains("retry-after: 1\r\n"), "{refused}");
    drop(first);
    // The server notices after a moment that the first one is gone.
    until_served(&server).await;
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

/// A client that answers pings and opens no window for answers.
#[tokio::test]
async fn over_http_2_who_takes_nothing_has_its_place_for_a_while_only() {
    let limits = ServerLimits {
        h2_age: Duration::from_secs(3),
        ..ServerLimits::default()
    };
    let router = Router::new()
        .route("/", get(|| async { "hello" }))
        .route("/huge", get(|| async { vec![0_u8; 64 << 20] }));
    let addr = IpAddr::from([127, 0, 0, 1]);
    let connection = Connection {
        service: Served {
            inner: TowerToHyperService::new(router),
            client: Client {
                addr,
                refused: None,
            },
        },
        limits,
        stop: CancellationToken::new(),
    };
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let started = Instant::now();
    let served = tokio::spawn(connection.http2(theirs));
    let (mut client, driver) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(0)
        .handshake::<_, axum::body::Body>(TokioIo::new(ours))
        .await
        .unwrap();
    let driver = tokio::spawn(driver);
    let mut open = Vec::new();
    for path in ["/", "/huge"] {
        let request = Request::builder().uri(format!("http://x{path}"));
        let request = request.body(axum::body::Body::empty()).unwrap();
        let response = timeout(DEADLINE, client.send_request(request)).await;
        open.push(response.unwrap().unwrap());
    }
    let ended = timeout(DEADLINE, served).await;
    ended.expect("it ends").unwrap().unwrap();
    assert!(started.elapsed() >= Duration::from_secs(6));
    drop(
        timeout(DEADLINE, driver)
            .await
            .expect("the client learns of it"),
    );
}
