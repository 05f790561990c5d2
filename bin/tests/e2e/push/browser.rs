//! A real browser: a page of another origin that asks, posts with a preflight, opens a
//! WebSocket and a stream of events. It reports to the origin that it comes from.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
};

use pulse_primitives::bitcoin::consensus::encode::serialize_hex;
use serde_json::{Value, json};

use super::{Scene, options, other, spend};
use crate::e2e::common::DEADLINE;

const PAGE: &str = include_str!("browser.html");

/// Names under which systems have the browser.
const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

struct Browser {
    child: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    #[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
    /// Opens `url`. `None` if there is no browser, which is an error where tests decide
    /// (`CI=true`).
    fn open(url: &str) -> Option<Self> {
        let profile = tempfile::tempdir().unwrap();
        let dir = format!("--user-data-dir={}", profile.path().display());
        for name in BROWSERS {
            let child = Command::new(name)
                .args(["--headless", "--no-sandbox", "--disable-gpu"])
                .args(["--disable-dev-shm-usage", "--no-first-run"])
                .args(["--disable-background-networking", &dir, url])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            if let Ok(child) = child {
                return Some(Self {
                    child,
                    _profile: profile,
                });
            }
        }
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "there is no Chromium; ci/setup-tests.sh installs it"
        );
        eprintln!("skipped: there is no Chromium");
        None
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves the page, and passes on what it reports.
fn serve_page(page: String) -> (SocketAddr, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let (reports, received) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            let (page, reports) = (page.clone(), reports.clone());
            thread::spawn(move || answer(stream, &page, &reports));
        }
    });
    (addr, received)
}

/// One request for each connection.
fn answer(stream: TcpStream, page: &str, reports: &Sender<Value>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let head = head.to_ascii_lowercase();
    let len = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; len.map_or(0, |len| len.trim().parse().unwrap())];
    stream.read_exact(&mut body).ok()?;
    let content = match head.starts_with("post /report") {
        true => {
            reports.send(serde_json::from_slice(&body).ok()?).ok()?;
            ""
        }
        false if head.starts_with("get / ") => page,
        false => "",
    };
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{content}",
        content.len()
    );
    stream.get_mut().write_all(answer.as_bytes()).ok()
}

#[test]
fn a_page_of_another_origin_asks_posts_and_listens() {
    let mut scene = Scene::new();
    let mut closed = options("regtest")
        .connect(scene.peer.addr())
        .env("PULSE_HTTP__CORS", "https://wallet.example")
        .start();
    closed.wait_until("the other node", DEADLINE, |node| {
        node.get("/health").status == 200
    });
    let mut keyed = options("regtest")
        .connect(scene.peer.addr())
        .args(["--ops-addr", "127.0.0.1:0"])
        .env("PULSE_HTTP__ACCESS__API_KEYS", "required")
        .start();
    keyed.wait_until("the node that wants keys", DEADLINE, |node| {
        node.get("/health").status == 200
    });
    let key: Value = keyed.post_ops("/api-keys", r#"{"name":"page"}"#).json();
    let page = PAGE
        .replace(
            "TRANSACTION",
            &serialize_hex(&spend(scene.coin(1), &other(9), 1_000)),
        )
        .replace("OPEN_NODE", &scene.node.http_addr().to_string())
        .replace("CLOSED_NODE", &closed.http_addr().to_string())
        .replace("KEYED_NODE", &keyed.http_addr().to_string())
        .replace("API_KEY", key["key"].as_str().unwrap());
    let (addr, reports) = serve_page(page);
    let Some(_browser) = Browser::open(&format!("http://{addr}/")) else {
        return;
    };
    let report = reports.recv_timeout(DEADLINE).expect("the page reports");
    let expected = json!({
        "height": "110",
        "posted": [200, true],
        "socket": ["hello", "subscribed", "tip"],
        "stream": ["hello", "subscribed", "tip"],
        "keyed": {"with": ["hello", "subscribed", "tip"], "without": "refused"},
        "closed": {"fetch": "refused", "socket": "refused", "stream": "refused"},
    });
    assert_eq!(report, expected);
    scene.mine(vec![]);
    let report = reports.recv_timeout(DEADLINE).expect("the page reports");
    let hash = scene.chain.tip_hash().to_string();
    assert_eq!(report, json!({"socket": hash, "stream": hash}));
}
