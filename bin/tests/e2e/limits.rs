//! What a client is told over its socket that goes beyond the limits of the listener: a body
//! that is late or too large, a request too many.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    process::{Output, Stdio},
    thread,
    time::Duration,
};

use pulse_testkit::PulseNode;

use super::{
    common::{DEADLINE, options},
    https::{certify, curl, has_curl},
};

/// Most bytes that a request body may have.
const BODY_LIMIT: usize = 1_000_000;

/// A connection on which `text` was sent.
fn send(node: &PulseNode, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(node.http_addr()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

/// Everything until the server closes the connection.
fn to_close(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(err) if err.kind() == ErrorKind::ConnectionReset => {}
        Err(err) => panic!("the server does not close: {err}"),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `text` is one answer, an error of this status and text.
#[track_caller]
fn assert_refused(text: &str, status: &str, body: &str) {
    assert_eq!(text.matches("HTTP/1.1 ").count(), 1, "{text}");
    let (head, said) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{text}");
    assert_eq!(said, body);
    for line in ["content-type: text/plain", "access-control-allow-origin: *"] {
        assert!(head.contains(&format!("\r\n{line}")), "{line}: {text}");
    }
    assert!(!head.contains("cache-control"), "{text}");
}

#[test]
fn a_body_that_does_not_arrive_in_time_is_refused_and_delays_nobody() {
    let mut node = options("regtest")
        .env("PULSE_HTTP__BODY_TIMEOUT_SECS", "1")
        .start();
    node.wait_until("genesis is indexed", DEADLINE, |node| {
        node.get("/block-height/0").status == 200
    });
    let announced = |method: &str, path: &str, header: &str, begin: &str| {
        format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{header}\r\n\r\n{begin}")
    };
    let length = "content-length: 2000";
    let chunked = "transfer-encoding: chunked";
    let late = [
        announced("POST", "/tx", length, ""),
        announced("POST", "/api/bulk/txs", length, "[\"00"),
        announced("POST", "/tx", chunked, ""),
        announced("POST", "/tx", chunked, "2\r\n00\r\n"),
        // Where nobody waits for a body either.
        announced("GET", "/block-height/0", length, ""),
        announced("POST", "/nonsense", length, "0"),
    ];
    let late: Vec<_> = late.iter().map(|text| send(&node, text)).collect();
    let mut slow = send(&node, &announced("POST", "/tx", length, ""));
    let writer = slow.try_clone().unwrap();
    // One byte after the other is no body in time.
    let drip = thread::spawn(move || {
        let mut writer = writer;
        for _ in 0..2_000 {
            if writer.write_all(b"0").is_err() {
                return true;
            }
            thread::sleep(Duration::from_millis(50));
        }
        false
    });
    assert_eq!(node.get("/block-height/0").status, 200);
    for stream in late {
        assert_refused(&to_close(stream), "408 Request Timeout", "Request timeout");
    }
    let mut start = [0; 12];
    slow.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 408");
    drop(slow);
    assert!(drip.join().unwrap(), "the server takes what comes too late");
    assert_eq!(node.get("/block-height/0").status, 200);
}

#[test]
fn a_request_too_many_is_told_when_to_ask_again() {
    let mut node = options("regtest")
        .env("PULSE_HTTP__MAX_REQUESTS", "1")
        .start();
    let path = "/block-height/0";
    node.wait_until("genesis is indexed", DEADLINE, |node| {
        node.get(path).status == 200
    });
    let head = "POST /tx HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n";
    let mut first = send(&node, head);
    node.wait_until("the only place is taken", DEADLINE, |node| {
        node.get(path).status == 503
    });
    for method in ["GET", "HEAD", "POST"] {
        let body = if method == "POST" { "00" } else { "" };
        let refused = node.call(method, path, &[], body);
        let said = if method == "HEAD" {
            ""
        } else {
            "server is busy"
        };
        assert_eq!((refused.status, refused.shown().as_str()), (503, said));
        for (name, value) in [
            ("retry-after", Some("1")),
            ("content-type", Some("text/plain")),
            ("access-control-allow-origin", Some("*")),
            ("cache-control", None),
        ] {
            assert_eq!(refused.header(name), value, "{name} of {method}");
        }
    }
    // A page that asks whether it may ask is told so all the same.
    assert_eq!(node.call("OPTIONS", path, &[], "").status, 204);
    first.write_all(b"00").unwrap();
    let answer = to_close(first);
    assert!(answer.contains("node is not synced yet"), "{answer}");
    node.wait_until("the place is free", DEADLINE, |node| {
        node.get(path).status == 200
    });
}

/// What is announced or arrives as a body is never taken for a request.
#[test]
fn a_body_over_the_limit_is_refused_and_nothing_of_it_is_a_request() {
    let node = options("regtest").start();
    let hidden = "GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n";
    let long = format!("POST /tx HTTP/1.1\r\nhost: x\r\ncontent-length: 5000000\r\n\r\n{hidden}");
    let told = to_close(send(&node, &long));
    assert_refused(&told, "413 Payload Too Large", "Request body too large");

    let head = "POST /tx HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut stream = send(&node, head);
    let size = BODY_LIMIT + 1;
    let chunk = format!("{size:x}\r\n{}\r\n", "0".repeat(size));
    stream.write_all(chunk.as_bytes()).unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
    // The server may have closed already.
    let _ = stream.write_all(hidden.as_bytes());
    let rest = to_close(stream);
    assert!(!rest.contains("HTTP/1.1 "), "{rest}");

    // As much as may be is a transaction that cannot be read, whichever way it comes.
    let hex = "0".repeat(BODY_LIMIT);
    for body in [
        format!("content-length: {BODY_LIMIT}\r\n\r\n{hex}"),
        format!("transfer-encoding: chunked\r\n\r\n{BODY_LIMIT:x}\r\n{hex}\r\n0\r\n\r\n"),
    ] {
        let text = format!("POST /tx HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{body}");
        let answer = to_close(send(&node, &text));
        assert!(answer.contains("node is not synced yet"), "{answer}");
    }
}

/// Requests that were answered with 408.
fn refused(node: &PulseNode) -> u64 {
    let metrics = node.get("/metrics");
    let lines = metrics.text().lines().filter(|line| {
        line.starts_with("pulse_rest_request_seconds_count{") && line.contains("status=\"408\"")
    });
    let counts = lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap());
    counts.sum()
}

#[test]
fn over_http_2_bodies_have_the_same_limits() {
    if !has_curl() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    certify(dir.path());
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let mut node = options("regtest")
        .env("PULSE_HTTP__TLS_CERT", cert.to_str().unwrap())
        .env("PULSE_HTTP__TLS_KEY", key.to_str().unwrap())
        .env("PULSE_HTTP__BODY_TIMEOUT_SECS", "2")
        .start();
    let addr = node.http_addr();
    let post = |version: &str, body: [&str; 2], stdin: Stdio| {
        let mut command = curl(addr, &cert, "https", "/tx");
        command
            .args([version, "--request", "POST"])
            .args(body)
            .args(["--write-out", "|%{http_version}|%{http_code}"])
            .stdin(stdin);
        command
    };
    let large = dir.path().join("large");
    fs::write(&large, "0".repeat(BODY_LIMIT + 1)).unwrap();
    let file = format!("@{}", large.display());
    for (version, spoken) in [("--http2", "2"), ("--http1.1", "1.1")] {
        // With its length, and without.
        for has_length in [true, false] {
            let ask = || match has_length {
                true => post(version, ["--data-binary", &file], Stdio::null()),
                false => {
                    let stream = File::open(&large).unwrap();
                    post(version, ["--upload-file", "-"], stream.into())
                }
            };
            // curl 7.88 at times loses an answer that comes together with the end of a stream on
            // which it still sends, and says that there was none. nghttp gets each.
            let is_lost = |output: &Output| spoken == "2" && output.status.code() == Some(52);
            let mut outputs = (0..20).map(|_| ask().output().unwrap());
            let output = outputs.find(|output| !is_lost(output)).unwrap();
            let err = String::from_utf8_lossy(&output.stderr);
            let said = String::from_utf8_lossy(&output.stdout);
            let wanted = format!("Request body too large|{spoken}|413");
            assert_eq!(said, wanted, "{version}, length {has_length}: {err}");
        }
        // A body that does not come: curl waits for it until it is closed, and then reads.
        let before = refused(&node);
        let mut asked = post(version, ["--upload-file", "-"], Stdio::piped());
        let (out, err) = (Stdio::piped(), Stdio::piped());
        let mut child = asked.stdout(out).stderr(err).spawn().unwrap();
        let body = child.stdin.take();
        node.wait_until("the request is refused", DEADLINE, |node| {
            refused(node) > before
        });
        drop(body);
        let output = child.wait_with_output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr);
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said, format!("Request timeout|{spoken}|408"), "{err}");
    }
}
