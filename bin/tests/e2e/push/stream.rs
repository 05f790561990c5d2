//! Server-Sent Events.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use pulse_testkit::PulseNode;
use serde_json::{Value, json};

use super::{Scene, address, other, spend};
use crate::e2e::common::DEADLINE;

/// An event of a stream.
#[derive(Debug)]
pub struct Event {
    pub id: String,
    pub kind: String,
    pub data: Value,
}

/// A stream, read by the rules of the format.
pub struct Stream {
    lines: BufReader<TcpStream>,
    pub head: String,
    /// What `retry` said.
    pub retry: Option<u64>,
}

/// Asks for `path` with further header lines.
pub fn open(node: &PulseNode, path: &str, headers: &[&str]) -> Stream {
    let mut stream = TcpStream::connect(node.http_addr()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(lines.read_line(&mut head).unwrap() > 0, "{head}");
    }
    Stream {
        lines,
        head: head.to_ascii_lowercase(),
        retry: None,
    }
}

impl Stream {
    pub fn status(&self) -> u16 {
        self.head
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    }

    /// The next line that is one of the stream, not of the chunks that carry it.
    fn line(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(line) = line.strip_suffix("\r\n") {
                // The length of a chunk, or its end; the last one has no length.
                if line == "0" {
                    return None;
                }
                continue;
            }
            return Some(line.trim_end_matches('\n').to_owned());
        }
    }

    /// The next event; `None` at the end of the stream.
    pub fn next(&mut self) -> Option<Event> {
        let mut event = Event {
            id: String::new(),
            kind: String::new(),
            data: Value::Null,
        };
        loop {
            let line = self.line()?;
            match line.split_once(": ") {
                Some(("id", id)) => id.clone_into(&mut event.id),
                Some(("event", kind)) => kind.clone_into(&mut event.kind),
                Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
                Some(("retry", millis)) => self.retry = Some(millis.parse().unwrap()),
                Some(("", _)) => {}
                None if line.is_empty() && event.kind.is_empty() => {}
                None if line.is_empty() => {
                    assert_eq!(event.data["type"], event.kind);
                    assert_eq!(event.data["id"], event.id);
                    return Some(event);
                }
                _ => panic!("{line:?}"),
            }
        }
    }

    #[track_caller]
    pub fn until(&mut self, kind: &str) -> Event {
        loop {
            let event = self.next().expect("the stream goes on");
            if event.kind == kind {
                return event;
            }
        }
    }
}

#[test]
fn a_stream_tells_what_its_query_names_and_goes_on_where_it_ended() {
    let mut scene = Scene::new();
    let target = other(9);
    let tx = spend(scene.coin(1), &target, 1_000);
    let txid = tx.compute_txid();
    let path = format!(
        "/api/events?channel=tips,blocks&address={}&txid={txid}",
        address(&target)
    );
    let mut stream = open(&scene.node, &path, &["origin: http://wallet.example"]);
    assert_eq!(stream.status(), 200);
    for line in [
        "content-type: text/event-stream\r\n",
        "cache-control: no-store\r\n",
        "access-control-allow-origin: *\r\n",
    ] {
        assert!(stream.head.contains(line), "{}", stream.head);
    }
    let hello = stream.next().unwrap();
    assert_eq!(
        (hello.kind.as_str(), &hello.data["network"]),
        ("hello", &json!("regtest"))
    );
    assert_eq!(stream.retry, Some(3000));
    let first: Vec<String> = (0..4).map(|_| stream.next().unwrap().kind).collect();
    assert_eq!(first, ["subscribed", "tip", "address", "tx"]);

    scene.send(&tx);
    assert_eq!(stream.until("tx").data["state"], "mempool");
    scene.mine(vec![tx]);
    let block = stream.until("block");
    assert_eq!(block.data["block"]["height"], 111);
    let told = loop {
        let event = stream.until("tx");
        if event.data["state"] == "confirmed" {
            break event;
        }
    };
    drop(stream);
    scene.mine(vec![]);

    // As a browser comes back.
    let last = format!("last-event-id: {}", told.id);
    let mut stream = open(&scene.node, &path, &[&last]);
    let resumed = stream.until("resumed");
    assert_eq!(
        resumed.data["tip"]["hash"],
        json!(resumed.data["tip"]["hash"])
    );
    let block = stream.until("block");
    assert_eq!(block.data["block"]["height"], 112);
    assert_eq!(stream.until("tx").data["status"]["block_height"], 111);
    // And as a program may that cannot set headers.
    let path = format!("/events?channel=blocks&last_event_id={}", block.id);
    let mut stream = open(&scene.node, &path, &[]);
    assert_eq!(stream.until("resumed").data["events"], 1);
}

#[test]
fn a_stream_that_cannot_be_is_refused_with_a_reason() {
    let scene = Scene::with(|options| {
        options
            .env("PULSE_PUSH__MAX_SUBSCRIPTIONS", "2")
            .env("PULSE_HTTP__CORS", "https://wallet.example")
    });
    for (path, status, text) in [
        ("/events", 400, "nothing is asked for"),
        ("/events?channel=nonsense", 400, "Invalid channel: nonsense"),
        ("/events?address=x", 400, "base58 error: x"),
        ("/events?outpoint=00:0", 400, "Invalid hex string: 00:0"),
    ] {
        let reply = scene.node.get(path);
        assert_eq!((reply.status, reply.text()), (status, text), "{path}");
    }
    let names: Vec<String> = (1..=3).map(|n| address(&other(n))).collect();
    let reply = scene
        .node
        .get(&format!("/events?address={}", names.join(",")));
    assert_eq!(
        (reply.status, reply.text()),
        (400, "more than 2 subscriptions")
    );
    for (origin, status) in [
        ("https://wallet.example", 200),
        ("https://evil.example", 403),
        ("http://x", 200),
    ] {
        let origin = format!("origin: {origin}");
        let stream = open(&scene.node, "/events?channel=tips", &[&origin]);
        assert_eq!(stream.status(), status, "{origin}");
    }
    let mut stream = open(&scene.node, "/ws", &[]);
    assert_eq!(stream.status(), 400);
    let mut byte = [0];
    stream.lines.read_exact(&mut byte).unwrap();
    let lonely = super::options("regtest").start();
    let reply = lonely.get("/events?channel=tips");
    assert_eq!(reply.status, 503);
    assert!(reply.retry_after.is_some());
    assert!(reply.text().contains("not synced"), "{}", reply.text());
}
