//! What only real sockets show: handshakes with a client of another family, certificates
//! that change, and clients that do not read.

use std::{
    env, fs,
    io::{BufRead, BufReader, ErrorKind, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use pulse_primitives::bitcoin::{
    ScriptBuf, WPubkeyHash, consensus::encode::serialize_hex, hashes::Hash,
};
use serde_json::{Value, json};

use super::{DEADLINE, Scene, raw::Client, scripthash};

/// The interpreter for which `ci/setup-tests.sh` installs aiohttp, with the Electrum wallet.
const PYTHON: &str = "/usr/bin/python3";

/// aiohttp in a process of its own.
struct Stranger {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Stranger {
    /// Whether there is one; says so if not.
    #[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn is_here() -> bool {
        let imported = Command::new(PYTHON).args(["-c", "import aiohttp"]).output();
        let is_here = imported.is_ok_and(|output| output.status.success());
        let required = env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(
            is_here || !required,
            "aiohttp is not installed: run ci/setup-tests.sh"
        );
        if !is_here {
            eprintln!("skipped: aiohttp is not installed (ci/setup-tests.sh does it)");
        }
        is_here
    }

    /// Connects; `None` if it does not like what it meets. `trusted` is the only certificate
    /// that it accepts.
    fn connect(scheme: &str, addr: SocketAddr, trusted: Option<&Path>) -> Option<Self> {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/e2e/electrum/stranger.py"
        );
        let mut child = Command::new(PYTHON)
            .args([script, &format!("{scheme}://{addr}/")])
            .arg(trusted.unwrap_or_else(|| Path::new("-")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut stranger = Self {
            child,
            input,
            output,
        };
        (stranger.line() == "connected").then_some(stranger)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn message(&mut self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    fn call(&mut self, method: &str, params: &Value) -> Value {
        let request = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        writeln!(self.input, "{request}").unwrap();
        let answer = self.message();
        assert_eq!(answer["id"], 7, "{answer}");
        answer["result"].clone()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_client_of_another_family_is_served_over_web_socket_with_and_without_tls() {
    if !Stranger::is_here() {
        return;
    }
    let mut scene = Scene::new();
    let certificate = scene.node.data_dir().join("electrum-tls.pem");
    let connect = |transport, trusted| {
        let addr = scene.node.electrum_addr(transport).unwrap();
        Stranger::connect(transport, addr, trusted).expect("both handshakes succeed")
    };
    let mut plain = connect("ws", None);
    let mut secure = connect("wss", Some(certificate.as_path()));
    for client in [&mut plain, &mut secure] {
        let version = client.call("server.version", &json!(["aiohttp", ["1.4", "1.6"]]));
        assert_eq!(version[1], "1.6");
        let tip = client.call("blockchain.headers.subscribe", &json!([]));
        assert_eq!(tip["height"], 110);
        // A message of many frames' worth of bytes.
        let headers = client.call("blockchain.block.headers", &json!([0, 2016]));
        assert_eq!(headers["headers"].as_array().unwrap().len(), 111);
    }
    scene.mine(vec![]);
    let hex = serialize_hex(&scene.chain.tip().header);
    for client in [&mut plain, &mut secure] {
        let notice = client.message();
        assert_eq!(notice["method"], "blockchain.headers.subscribe");
        assert_eq!(notice["params"], json!([{"height": 111, "hex": hex}]));
    }
}

/// A new certificate and its key, in files.
fn write_certificate(cert: &Path, key: &Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(key, made.signing_key.serialize_pem()).unwrap();
    fs::write(cert, made.cert.pem()).unwrap();
}

#[test]
fn a_certificate_that_changes_is_used_without_a_restart() {
    if !Stranger::is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [cert, key, old] = ["cert.pem", "key.pem", "old.pem"].map(|name| dir.path().join(name));
    write_certificate(&cert, &key);
    fs::copy(&cert, &old).unwrap();
    let mut scene = Scene::with(|options| {
        options
            .env("PULSE_ELECTRUM__TLS_CERT", cert.to_str().unwrap())
            .env("PULSE_ELECTRUM__TLS_KEY", key.to_str().unwrap())
    });
    let addr = scene.node.electrum_addr("wss").unwrap();
    let connect = |trusted: &Path| Stranger::connect("wss", addr, Some(trusted));
    let mut first = connect(&old).expect("it is the one that was given");

    // What is no certificate changes nothing.
    let good = fs::read(&cert).unwrap();
    fs::write(&cert, "nothing").unwrap();
    scene
        .node
        .wait_until("the look at the files", DEADLINE, |node| {
            node.log().contains("certificate not read again")
        });
    assert!(connect(&old).is_some(), "the old one stays in use");
    fs::write(&cert, good).unwrap();

    write_certificate(&cert, &key);
    let deadline = Instant::now() + DEADLINE;
    while connect(&cert).is_none() {
        assert!(Instant::now() < deadline, "the new one is never used");
        thread::sleep(Duration::from_millis(200));
    }
    assert!(connect(&old).is_none(), "the old one is not used any more");
    // Who was connected stays so.
    assert_eq!(first.call("server.ping", &json!([])), Value::Null);
}

/// Sends requests and reads no answer, until the server takes no more of them.
fn flood(addr: SocketAddr) -> (TcpStream, usize) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_nonblocking(true).unwrap();
    // With as many spaces as wallets may send, so that no gigabytes of answers are asked for.
    let request = r#"{"id":1,"method":"blockchain.block.headers","params":[0,2016]}"#;
    let request = format!("{request:16383}\n");
    let lines = request.repeat(4).into_bytes();
    let (mut sent, mut blocked_since) = (0, None);
    loop {
        // From where it stopped, so that lines stay whole.
        match stream.write(&lines[sent % request.len()..]) {
            Ok(len) => (sent, blocked_since) = (sent + len, None),
            Err(err) if err.kind() == ErrorKind::WouldBlock => {
                let since = *blocked_since.get_or_insert_with(Instant::now);
                if since.elapsed() > Duration::from_secs(1) {
                    return (stream, sent / request.len());
                }
                thread::sleep(Duration::from_millis(10));
            }
            Err(err) => panic!("after {sent} bytes: {err}"),
        }
    }
}

#[test]
fn clients_that_do_not_read_delay_nobody_else() {
    // More of them than requests that are served at the same time.
    const SLOW: usize = 10;
    let mut scene = Scene::with(|options| options.env("PULSE_ELECTRUM__WRITE_TIMEOUT_SECS", "120"));
    scene.fund();
    let to = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([9; 20]));
    let addr = scene.addr();
    let floods: Vec<_> = (0..SLOW)
        .map(|_| thread::spawn(move || flood(addr)))
        .collect();
    let mut slow: Vec<_> = floods
        .into_iter()
        .map(|flood| flood.join().unwrap())
        .collect();

    // All of them are stuck now. Another one is served, and told of everything.
    let mut client = Client::speaking(addr, "1.6");
    client.call("blockchain.headers.subscribe", json!([]));
    client.call("blockchain.scripthash.subscribe", json!([scripthash(&to)]));
    for _ in 0..50 {
        let headers = client.call("blockchain.block.headers", json!([0, 2016]));
        assert_eq!(headers["count"], 111);
    }
    let tx = scene.pay(&to, 1_000_000);
    let sent = json!([serialize_hex(&tx)]);
    client.call("blockchain.transaction.broadcast", sent);
    let is = |method: &'static str| move |notice: &Value| notice["method"] == method;
    client.notice_until(is("blockchain.scripthash.subscribe"));
    scene.mine(vec![tx]);
    client.notice_until(is("blockchain.headers.subscribe"));

    // They were not forgotten either: who reads gets every answer, in order.
    let (stream, requests) = slow.pop().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let lines = BufReader::new(stream).lines();
    let mut answers = 0;
    for line in lines.take(requests) {
        let answer: Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert!(answer["result"]["count"].as_u64().unwrap() >= 111);
        answers += 1;
    }
    assert_eq!(answers, requests);
}
