//! `--fallback-esplora`: another server answers while the node cannot, and nothing that it
//! does harms the node.

mod heights;

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use pulse_primitives::bitcoin::Network;
use pulse_testkit::{Behaviour, ChainBuilder, PulseNode, ScriptedPeer};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::Value;

use super::common::{DEADLINE, options, params, served, start};

const UNKNOWN: &str = "1111111111111111111111111111111111111111111111111111111111111111";

/// A node whose peers are these, with a fallback.
fn with_fallback(fallback: &str, peers: &[SocketAddr]) -> PulseNode {
    let options = options("regtest").args(["--fallback-esplora", fallback]);
    peers
        .iter()
        .fold(options, |options, peer| options.connect(*peer))
        .start()
}

/// Status, `X-Pulse-Source` and body of an answer.
fn ask(node: &PulseNode, path: &str, headers: &[(&str, &str)]) -> (u16, Option<String>, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(DEADLINE))
        .build()
        .into();
    let url = format!("http://{}{path}", node.http_addr());
    let request = headers
        .iter()
        .fold(agent.get(url), |request, (name, value)| {
            request.header(*name, *value)
        });
    let mut answer = request.call().unwrap();
    let source = answer.headers().get("x-pulse-source");
    let source = source.map(|value| value.to_str().unwrap().to_owned());
    let body = answer.body_mut().read_to_string().unwrap();
    (answer.status().as_u16(), source, body)
}

fn assert_not_synced(node: &PulseNode, path: &str) {
    let (status, source, body) = ask(node, path, &[]);
    assert_eq!((status, source), (503, None), "{path}: {body}");
    assert!(body.starts_with("node is not synced yet"), "{path}: {body}");
}

#[test]
fn a_synced_node_answers_for_one_that_syncs_until_that_has_caught_up() {
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    chain.mine_empty_blocks(60);
    let honest = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
    let mut synced = start("regtest", &[honest.addr()]);
    synced.wait_synced_to(60, DEADLINE);
    let halting = served(Network::Regtest, chain.blocks());
    let halting = ScriptedPeer::start(halting, &[Behaviour::StallAfter(20)]);
    let mut node = with_fallback(&synced.api_url(), &[halting.addr()]);
    node.wait_until("some blocks are indexed", DEADLINE, |node| {
        node.get_json::<Value>("/stats")["index_tip"]["height"].as_u64() >= Some(5)
    });

    let fallback = || Some("fallback".to_owned());
    let tip = chain.tip_hash();
    for path in ["/blocks/tip/hash", "/api/blocks/tip/hash"] {
        assert_eq!(ask(&node, path, &[]), (200, fallback(), tip.to_string()));
    }
    let blocks = ask(&node, "/blocks", &[]);
    assert_eq!(
        blocks,
        (200, fallback(), synced.get("/blocks").text().to_owned())
    );
    let unknown = ask(&node, &format!("/tx/{UNKNOWN}"), &[]);
    assert_eq!(
        unknown,
        (404, fallback(), "Transaction not found".to_owned())
    );
    let raw = ask(&node, &format!("/block/{tip}/header"), &[]);
    assert_eq!((raw.0, raw.1, raw.2.len()), (200, fallback(), 160));

    // What is known here is answered from here.
    let own = chain.blocks()[5].block_hash().to_string();
    assert_eq!(ask(&node, "/block-height/5", &[]), (200, None, own));
    let (status, source, _) = ask(&node, "/blocks/tip/height?partial=true", &[]);
    assert_eq!((status, source), (200, None));
    // Readiness is that of this node.
    assert_eq!(node.get("/health").status, 503);
    assert_eq!(
        node.get_json::<Value>("/stats")["readiness"]["state"],
        "not_synced"
    );
    // These are not passed on: queries, what is not Esplora's, submissions, and what another
    // node has passed on.
    for path in [
        "/blocks/tip/hash?key=secret",
        "/mempool/projected-blocks",
        "/broadcast?tx=00",
        &format!("/tx/{UNKNOWN}/removed"),
    ] {
        assert_not_synced(&node, path);
    }
    assert_eq!(node.post("/tx", "00").status, 503);
    let passed_on = ask(&node, "/blocks/tip/hash", &[("via", "1.1 pulse-node")]);
    assert_eq!((passed_on.0, passed_on.1), (503, None));

    halting.set_behaviours(&[]);
    halting.disconnect_all();
    // The other server answers until this node has all but two blocks.
    let own = (200, None, tip.to_string());
    node.wait_until("its own tip is the last block", DEADLINE, |node| {
        ask(node, "/blocks/tip/hash", &[]) == own
    });
    assert_eq!(node.get("/health").status, 200);
    assert_eq!(ask(&node, &format!("/tx/{UNKNOWN}"), &[]).1, None);
}

/// Answers of two chains would be mixed otherwise.
#[test]
fn a_server_on_another_branch_or_behind_is_not_asked() {
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    chain.mine_empty_blocks(60);
    let mut other = ChainBuilder::new(params(Network::Regtest));
    other.not_before(chain.blocks()[60].header.time);
    other.mine_empty_blocks(70);
    for blocks in [other.blocks(), &chain.blocks()[..4]] {
        let peer = ScriptedPeer::honest(served(Network::Regtest, blocks));
        let mut synced = start("regtest", &[peer.addr()]);
        synced.wait_synced_to_hash(blocks.last().unwrap().block_hash(), DEADLINE);
        let halting = served(Network::Regtest, chain.blocks());
        let halting = ScriptedPeer::start(halting, &[Behaviour::StallAfter(20)]);
        let mut node = with_fallback(&synced.api_url(), &[halting.addr()]);
        node.wait_until("some blocks are indexed", DEADLINE, |node| {
            node.get_json::<Value>("/stats")["index_tip"]["height"].as_u64() >= Some(5)
        });
        // As long as it has no blocks itself any server of its network will do.
        let path = "/blocks/tip/hash";
        node.wait_until("the other is looked at", DEADLINE, |node| {
            ask(node, path, &[]).0 == 503
        });
        for _ in 0..30 {
            assert_not_synced(&node, path);
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// What a server does with a path: answers so, or (`None`) never.
type Answers = dyn Fn(&str) -> Option<Vec<u8>> + Send + Sync;

/// A server that answers as a test wants, and notes the heads of all requests.
struct Fake {
    addr: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn start(answers: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self::speaking(None, answers)
    }

    /// The same inside TLS, if there is a configuration for it.
    fn speaking(
        tls: Option<Arc<ServerConfig>>,
        answers: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let (seen, answers) = (
            Arc::clone(&heads),
            Arc::<Answers>::from(Box::new(answers) as Box<Answers>),
        );
        // It ends with the process of the tests.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, answers, tls) = (Arc::clone(&seen), Arc::clone(&answers), tls.clone());
                thread::spawn(move || match tls {
                    None => converse(stream, &seen, &*answers),
                    Some(tls) => {
                        let tls = ServerConnection::new(tls).unwrap();
                        converse(StreamOwned::new(tls, stream), &seen, &*answers);
                    }
                });
            }
        });
        Self { addr, heads }
    }

    fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }
}

fn converse(stream: impl Read + Write, seen: &Mutex<Vec<String>>, answers: &Answers) {
    let mut lines = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if lines.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let path = head.split(' ').nth(1).unwrap().to_owned();
        seen.lock().unwrap().push(head);
        let Some(answer) = answers(&path) else {
            thread::sleep(DEADLINE);
            return;
        };
        let sent = lines.get_mut().write_all(&answer);
        if sent.and_then(|()| lines.get_mut().flush()).is_err() {
            return;
        }
    }
}

fn answer(status: &str, content_type: &str, body: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    Some(bytes)
}

/// What a server of the right chain says, or else `other`.
fn right(path: &str, other: impl Fn() -> Option<Vec<u8>>) -> Option<Vec<u8>> {
    let genesis = params(Network::Regtest).genesis_hash().to_string();
    match path {
        "/block-height/0" => answer("200 OK", "text/plain", genesis.as_bytes()),
        "/blocks/tip/height" => answer("200 OK", "text/plain; charset=utf-8", b"812"),
        _ => other(),
    }
}

#[test]
fn a_server_of_another_network_is_left_alone() {
    let fake = Fake::start(|path| match path {
        "/block-height/0" => answer("200 OK", "text/plain", UNKNOWN.as_bytes()),
        _ => answer("200 OK", "text/plain", b"812"),
    });
    let node = with_fallback(&fake.url(), &[]);
    for _ in 0..20 {
        assert_not_synced(&node, "/blocks/tip/height");
    }
    let paths: Vec<_> = fake.heads();
    assert_eq!(paths.len(), 1, "{paths:?}");
    assert!(paths[0].starts_with("GET /block-height/0 "));
}

#[test]
fn answers_that_are_none_are_not_passed_on_and_then_nobody_asks() {
    for bad in [
        answer("200 OK", "application/json", br#"[{"id":"#),
        answer("200 OK", "text/html", b"<html>"),
        answer("302 Found\r\nlocation: /elsewhere", "text/plain", b""),
        answer("500 Oops", "text/plain", b"oops"),
        answer("404 Not Found", "text/html", b"<html>"),
        Some(b"\x00\xffnonsense\r\n\r\n".to_vec()),
        answer("200 OK", "application/json", &[b' '; 9 << 20]),
    ] {
        let shown = bad.clone().unwrap();
        let shown = String::from_utf8_lossy(&shown[..shown.len().min(60)]).into_owned();
        let fake = Fake::start(move |path| right(path, || bad.clone()));
        let node = with_fallback(&fake.url(), &[]);
        let asked = |fake: &Fake| {
            let heads = fake.heads();
            heads
                .iter()
                .filter(|head| head.starts_with("GET /blocks "))
                .count()
        };
        for _ in 0..12 {
            assert_not_synced(&node, "/blocks");
        }
        assert_eq!(asked(&fake), 3, "{shown}");
        let strange = fake
            .heads()
            .into_iter()
            .find(|head| head.contains("elsewhere"));
        assert_eq!(strange, None);
        // Nor anything else, until the pause is over.
        assert_not_synced(&node, "/blocks/tip/height");
    }
}

#[test]
fn a_dead_or_silent_server_costs_a_bounded_time() {
    let dead = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let node = with_fallback(&format!("http://{dead}"), &[]);
    let started = Instant::now();
    for _ in 0..10 {
        assert_not_synced(&node, "/blocks/tip/height");
    }
    assert!(started.elapsed() < Duration::from_secs(10));

    let silent = Fake::start(|_| None);
    let mut node = with_fallback(&silent.url(), &[]);
    node.wait_until("genesis is indexed", DEADLINE, |node| {
        !node.get_json::<Value>("/stats")["index_tip"].is_null()
    });
    thread::scope(|scope| {
        // More than may wait at a time.
        for _ in 0..12 {
            scope.spawn(|| assert_not_synced(&node, "/blocks/tip/height"));
        }
        // Who asks for something else does not wait for them.
        let started = Instant::now();
        assert_eq!(node.get("/block-height/0").status, 200);
        assert_eq!(node.get("/health").status, 503);
        assert!(started.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn the_other_server_learns_nothing_about_the_client() {
    let fake = Fake::start(|path| right(path, || answer("200 OK", "application/json", b"[]")));
    let node = with_fallback(&fake.url(), &[]);
    let headers = [
        ("authorization", "Bearer secret"),
        ("cookie", "a=secret"),
        ("x-api-key", "secret"),
        ("x-forwarded-for", "secret"),
        ("user-agent", "secret"),
        ("referer", "secret"),
    ];
    let (status, source, body) = ask(&node, "/blocks", &headers);
    assert_eq!(
        (status, source.as_deref(), body.as_str()),
        (200, Some("fallback"), "[]")
    );
    let heads = fake.heads();
    assert!(heads.iter().any(|head| head.starts_with("GET /blocks ")));
    for head in heads {
        assert!(!head.contains("secret"), "{head}");
        assert!(
            head.to_lowercase().contains("via: 1.1 pulse-node"),
            "{head}"
        );
    }
}

#[test]
fn a_url_that_is_none_stops_the_start() {
    let exit = options("regtest")
        .args(["--fallback-esplora", "http://user:secret@host.example"])
        .run_to_exit(DEADLINE);
    assert!(!exit.status.success());
    assert!(exit.stderr.contains("fallback-esplora"), "{}", exit.stderr);
}

/// An authority of our own, and its certificate as PEM.
fn authority() -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

/// A server with a certificate for `name` that `adjust` has changed, signed by `issuer`.
fn certified(
    issuer: &Issuer<'static, KeyPair>,
    name: &str,
    adjust: impl FnOnce(&mut CertificateParams),
) -> Fake {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    adjust(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate: CertificateDer = params.signed_by(&key, issuer).unwrap().into();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    Fake::speaking(Some(Arc::new(tls)), |path| {
        right(path, || answer("200 OK", "application/json", b"[]"))
    })
}

/// A node that asks `fake` over https, trusts what `system` has and the file `ca`.
fn over_https(fake: &Fake, system: &Path, ca: Option<&Path>) -> PulseNode {
    let url = format!("https://{}", fake.addr);
    let options = options("regtest")
        .args(["--fallback-esplora", &url])
        .env("SSL_CERT_FILE", system.to_str().unwrap());
    match ca {
        Some(ca) => options.env("PULSE_HTTP__FALLBACK_CA", ca.to_str().unwrap()),
        None => options,
    }
    .start()
}

#[test]
fn over_https_a_server_is_asked_whose_certificate_is_good_and_no_other() {
    const HOST: &str = "127.0.0.1";
    let dir = tempfile::tempdir().unwrap();
    let ((ours, ours_pem), (others, others_pem)) = (authority(), authority());
    let [ours_file, others_file] = ["ours.pem", "others.pem"].map(|name| dir.path().join(name));
    fs::write(&ours_file, ours_pem).unwrap();
    fs::write(&others_file, others_pem).unwrap();
    let good = certified(&ours, HOST, |_| {});
    let expired = certified(&ours, HOST, |params| {
        params.not_after = date_time_ymd(2020, 1, 1);
    });
    let early = certified(&ours, HOST, |params| {
        params.not_before = date_time_ymd(4000, 1, 1);
    });
    let misnamed = certified(&ours, "esplora.example", |_| {});
    let foreign = certified(&others, HOST, |_| {});
    thread::scope(|scope| {
        // Named by the operator, or trusted by the system.
        for (system, ca) in [(&others_file, Some(&*ours_file)), (&ours_file, None)] {
            let good = &good;
            scope.spawn(move || {
                let node = over_https(good, system, ca);
                let (status, source, body) = ask(&node, "/blocks", &[]);
                assert_eq!(
                    (status, source.as_deref(), body.as_str()),
                    (200, Some("fallback"), "[]")
                );
            });
        }
        for (what, bad) in [
            ("expired", &expired),
            ("not in force yet", &early),
            ("of another name", &misnamed),
            ("of another authority", &foreign),
        ] {
            let ours_file = &ours_file;
            scope.spawn(move || {
                let node = over_https(bad, ours_file, Some(ours_file));
                assert_not_synced(&node, "/blocks");
                assert!(bad.heads().is_empty(), "{what}: it was asked");
                let log = node.log();
                assert!(log.contains("invalid peer certificate"), "{what}: {log}");
            });
        }
    });
    let heads = good.heads();
    assert!(heads.iter().any(|head| head.starts_with("GET /blocks ")));
}

#[test]
fn a_file_of_authorities_that_is_none_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    fs::write(&file, "nothing").unwrap();
    let exit = options("regtest")
        .args(["--fallback-esplora", "https://127.0.0.1:1"])
        .env("PULSE_HTTP__FALLBACK_CA", file.to_str().unwrap())
        .run_to_exit(DEADLINE);
    assert!(!exit.status.success());
    assert!(exit.stderr.contains("ca.pem"), "{}", exit.stderr);
}
