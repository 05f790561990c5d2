//! What the node tells of its work: traces, the access log, and every metric that is documented.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::any_value::Value as Any,
    trace::v1::{Span, status::StatusCode},
};
use prost::Message;
use pulse_primitives::bitcoin::{Address, Network};
use pulse_testkit::{ChainBuilder, PulseNode, ScriptedPeer};

use super::common::{DEADLINE, options, params, served};

/// An OTLP endpoint that keeps what it is sent.
struct Collector {
    addr: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let kept = Arc::clone(&spans);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let kept = Arc::clone(&kept);
                thread::spawn(move || while take(stream.as_ref().unwrap(), &kept).is_some() {});
            }
        });
        Self { addr, spans }
    }

    fn named(&self, name: &str) -> Vec<Span> {
        let spans = self.spans.lock().unwrap();
        let named = spans.iter().filter(|span| span.name == name);
        named.cloned().collect()
    }
}

/// Takes one request of a connection; `None` at its end.
fn take(mut stream: &TcpStream, kept: &Mutex<Vec<Span>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        head.push(line.trim().to_lowercase());
    }
    assert_eq!(head[0], "post /v1/traces http/1.1");
    assert!(head.contains(&"content-type: application/x-protobuf".to_owned()));
    let length = head
        .iter()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    let request = ExportTraceServiceRequest::decode(&*body).unwrap();
    for resource in request.resource_spans {
        let attributes = resource.resource.unwrap().attributes;
        assert!(attributes.iter().any(|pair| pair.key == "service.name"));
        for scope in resource.scope_spans {
            kept.lock().unwrap().extend(scope.spans);
        }
    }
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        .unwrap();
    Some(())
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    let pair = span.attributes.iter().find(|pair| pair.key == key)?;
    Some(match pair.value.clone()?.value? {
        Any::StringValue(text) => text,
        Any::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

fn chain(blocks: u32) -> (ChainBuilder, ScriptedPeer) {
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    chain.mine_empty_blocks(blocks);
    let peer = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
    (chain, peer)
}

/// An address that a client asks for, and the id of a transaction.
fn secrets(chain: &ChainBuilder) -> [String; 2] {
    let coinbase = &chain.blocks()[1].txdata[0];
    let script = &coinbase.output[0].script_pubkey;
    let address = Address::from_script(script, Network::Regtest);
    let address = address.map_or_else(
        |_| "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080".to_owned(),
        |address| address.to_string(),
    );
    [address, coinbase.compute_txid().to_string()]
}

fn ask(node: &PulseNode, secrets: &[String; 2]) {
    let [address, txid] = secrets;
    assert_eq!(node.get(&format!("/address/{address}")).status, 200);
    assert_eq!(node.get(&format!("/tx/{txid}")).status, 200);
    assert_eq!(node.get("/tx/nonsense").status, 400);
    // Clients that keep to the standard do not send such a thing.
    let mut stream = TcpStream::connect(node.http_addr()).unwrap();
    let odd = "BREW /some/where?who=me HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n";
    stream.write_all(odd.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[test]
fn an_otlp_endpoint_gets_spans_without_what_clients_asked_for() {
    let collector = Collector::start();
    let (chain, peer) = chain(20);
    let mut node = options("regtest")
        .env(
            "PULSE_TRACE__OTLP_ENDPOINT",
            &format!("http://{}", collector.addr),
        )
        .env("PULSE_TRACE__SAMPLE_RATIO", "1")
        .env("PULSE_INDEX__BULK_LAG_BLOCKS", "10")
        .connect(peer.addr())
        .start();
    node.wait_synced_to(20, DEADLINE);
    let secrets = secrets(&chain);
    ask(&node, &secrets);
    // What is left goes out with the stop.
    assert!(node.terminate(DEADLINE).status.success());

    for (name, route, status) in [
        ("GET", "/address/:address", "200"),
        ("GET", "/tx/:txid", "200"),
        ("GET", "/tx/:txid", "400"),
        ("_OTHER", "none", "404"),
    ] {
        let spans = collector.named(name);
        let is = |span: &Span, key, wanted: &str| attribute(span, key).as_deref() == Some(wanted);
        let answered = spans.iter().any(|span| {
            is(span, "http.route", route) && is(span, "http.response.status_code", status)
        });
        assert!(answered, "{name} {route} {status}: {spans:?}");
        let ends = |span: &Span| span.end_time_unix_nano >= span.start_time_unix_nano;
        assert!(spans.iter().all(ends));
    }
    let blocks = collector.named("block connect");
    let tip = chain.tip_hash().to_string();
    assert!(blocks.iter().any(|span| {
        attribute(span, "hash") == Some(tip.clone())
            && attribute(span, "verdict").as_deref() == Some("accepted")
            && attribute(span, "height").as_deref() == Some("20")
    }));
    assert!(!collector.named("index write").is_empty());
    assert!(!collector.named("index bulk load").is_empty());
    let spans = collector.spans.lock().unwrap();
    let unready =
        |span: &&Span| attribute(span, "http.response.status_code").as_deref() == Some("503");
    for span in spans.iter().filter(unready) {
        let code = span.status.as_ref().map(|status| status.code());
        assert_eq!(code, Some(StatusCode::Error));
    }
    for secret in
        secrets
            .iter()
            .map(String::as_str)
            .chain(["nonsense", "BREW", "where", "127.0.0.1"])
    {
        let found = spans
            .iter()
            .find(|span| format!("{span:?}").contains(secret));
        assert!(found.is_none(), "{secret}: {found:?}");
    }
}

#[test]
fn an_endpoint_that_is_not_there_holds_nobody_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let (chain, peer) = chain(5);
    let mut node = options("regtest")
        .env("PULSE_TRACE__OTLP_ENDPOINT", &format!("http://{addr}"))
        .env("PULSE_TRACE__SAMPLE_RATIO", "1")
        .connect(peer.addr())
        .start();
    node.wait_synced_to(5, DEADLINE);
    ask(&node, &secrets(&chain));
    let started = Instant::now();
    assert!(node.terminate(DEADLINE).status.success());
    assert!(started.elapsed() < DEADLINE / 4, "{}", node.log_tail());
}

#[test]
fn the_access_log_is_off_unless_asked_for_and_has_no_secrets() {
    let (chain, peer) = chain(5);
    let secrets = secrets(&chain);
    for on in ["false", "true"] {
        let mut node = options("regtest")
            .env("PULSE_HTTP__ACCESS_LOG", on)
            .args(["--log-format", "json"])
            .connect(peer.addr())
            .start();
        node.wait_synced_to(5, DEADLINE);
        ask(&node, &secrets);
        let bytes = node.get("/blocks/tip/hash").body.len();
        assert!(node.terminate(DEADLINE).status.success());
        let log = node.log();
        let lines: Vec<serde_json::Value> = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(|line: &serde_json::Value| line["message"] == "answered")
            .collect();
        if on == "false" {
            assert!(lines.is_empty(), "{lines:?}");
            continue;
        }
        let line = |route: &str, status: u16| {
            lines
                .iter()
                .find(|line| line["route"] == route && line["status"] == status)
                .unwrap_or_else(|| panic!("{route} {status} in {lines:?}"))
        };
        let tip = line("/blocks/tip/hash", 200);
        assert_eq!(tip["bytes"], bytes);
        assert_eq!(tip["method"], "GET");
        assert!(tip["elapsed_ms"].is_u64());
        line("/address/:address", 200);
        line("/tx/:txid", 400);
        assert_eq!(line("none", 404)["method"], "_OTHER");
        for secret in secrets
            .iter()
            .map(String::as_str)
            .chain(["nonsense", "BREW", "where"])
        {
            let found = lines.iter().find(|line| line.to_string().contains(secret));
            assert!(found.is_none(), "{secret}: {found:?}");
        }
        for line in &lines {
            assert!(!line.to_string().contains("127.0.0.1"), "{line}");
        }
    }
}

/// Names in the first column of the tables of docs/metrics.md, with their labels.
fn documented() -> Vec<(String, bool)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let text = fs::read_to_string(path).unwrap();
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let name = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
        let labels = cells.nth(1)?;
        Some((name.to_owned(), !labels.is_empty()))
    });
    rows.collect()
}

#[test]
fn a_node_that_does_everything_shows_every_documented_metric() {
    let (_chain, peer) = chain(20);
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    fs::write(&key, "11".repeat(32)).unwrap();
    let mut node = options("regtest")
        .env("PULSE_FLEET__LISTEN", "127.0.0.1:0")
        .env("PULSE_FLEET__KEY_FILE", key.to_str().unwrap())
        .env("PULSE_ELECTRUM__TLS_ADDR", "127.0.0.1:0")
        .env("PULSE_INDEX__BLOCK_FILTERS", "true")
        .connect(peer.addr())
        .start();
    node.wait_synced_to(20, DEADLINE);
    let known = documented();
    assert!(known.len() > 80, "{}", known.len());
    let names = |node: &PulseNode| -> BTreeSet<String> {
        let text = node.get("/metrics");
        let lines = text.text().lines();
        let names = lines.filter_map(|line| line.strip_prefix("# TYPE "));
        names
            .filter_map(|line| Some(line.split(' ').next()?.to_owned()))
            .collect()
    };
    // Those with labels need an event of their kind; without labels, only times of what has
    // not happened yet are missing.
    let later = [
        "pulse_chain_reorg_depth_blocks",
        "pulse_electrum_round_seconds",
        "pulse_push_round_seconds",
        "pulse_fleet_best_height",
        "pulse_chain_replayed_blocks",
        "pulse_fleet_snapshot_left_bytes",
    ];
    let expected = known
        .iter()
        .filter(|(name, labels)| !labels && !later.contains(&name.as_str()))
        .map(|(name, _)| name.clone())
        .chain(
            [
                "pulse_build_info",
                "pulse_rest_request_seconds",
                "pulse_tls_certificate_expires_timestamp_seconds",
                "pulse_sync_blocks_total",
                "pulse_db_file_bytes",
                "pulse_db_errors_total",
            ]
            .map(str::to_owned),
        );
    let expected: BTreeSet<String> = expected.collect();
    node.wait_until("all metrics", DEADLINE, |node| {
        names(node).is_superset(&expected)
    });
    let undocumented: Vec<_> = names(&node)
        .into_iter()
        .filter(|name| !known.iter().any(|(known, _)| known == name))
        .filter(|name| !name.starts_with("process_"))
        .collect();
    assert!(undocumented.is_empty(), "{undocumented:?}");
}
