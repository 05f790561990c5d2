//! Transactions and wallets of a node's own, so that every operation that hands in, replaces,
//! packs or scans has something to answer.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
};

use bdk_wallet::{KeychainKind, SignOptions};
use pulse_primitives::bitcoin::{
    Address, FeeRate, Network, ScriptBuf, Transaction, Txid, WPubkeyHash, bip32::Xpriv,
    consensus::encode::serialize_hex, hashes::Hash,
};
use pulse_testkit::PulseNode;
use serde_json::{Value, json};
use ureq::http::{HeaderMap, HeaderName, HeaderValue};

use super::{Answer, Description, UNKNOWN, agent, ask};
use crate::e2e::{
    common::{DEADLINE, scripthash},
    electrum::{KEY, Scene},
};

/// A node with a wallet's transactions on its chain and in its mempool.
struct Story {
    scene: Scene,
    /// On the chain.
    confirmed: Txid,
    /// Not handed in yet: a payment, what pays more for the same, and a payment with a child
    /// that pays for it.
    original: Transaction,
    bumped: Transaction,
    parent: Transaction,
    child: Transaction,
}

impl Story {
    fn new(args: &[&str]) -> Self {
        let mut scene = Scene::with(|options| options.args(args.iter().copied()));
        scene.fund();
        let to = ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([9; 20]));
        let confirmed = scene.pay(&to, 1_000_000);
        scene.mine(vec![confirmed.clone()]);
        let original = scene.pay(&to, 2_000_000);
        let bumped = bump(&mut scene, &original);
        let parent = scene.pay(&to, 3_000_000);
        let child = scene.pay_all_from(&parent, &to);
        Self {
            scene,
            confirmed: confirmed.compute_txid(),
            original,
            bumped,
            parent,
            child,
        }
    }

    fn node(&self) -> &PulseNode {
        &self.scene.node
    }

    /// Transactions of each kind, one that nobody knows, and a text that is no id.
    fn txids(&self) -> Value {
        json!([
            self.confirmed.to_string(),
            self.child.compute_txid().to_string(),
            self.original.compute_txid().to_string(),
            UNKNOWN,
            "x",
        ])
    }
}

/// The same payment with a fee that replaces it.
fn bump(scene: &mut Scene, tx: &Transaction) -> Transaction {
    let mut builder = scene.wallet.build_fee_bump(tx.compute_txid()).unwrap();
    builder.fee_rate(FeeRate::from_sat_per_vb(20).unwrap());
    let mut psbt = builder.finish().unwrap();
    let key: Xpriv = KEY.parse().unwrap();
    psbt.sign(&key, scene.wallet.secp_ctx()).unwrap();
    let options = SignOptions::default();
    assert!(scene.wallet.finalize_psbt(&mut psbt, options).unwrap());
    let bumped = psbt.extract_tx().unwrap();
    // Seen later, it is the one that counts for the wallet.
    scene.wallet.apply_unconfirmed_txs([(bumped.clone(), 2)]);
    bumped
}

/// Asks a listener for what must succeed.
struct Asker<'d> {
    description: &'d mut Description,
    base: String,
    agent: ureq::Agent,
}

impl<'d> Asker<'d> {
    fn new(description: &'d mut Description, base: String) -> Self {
        Self {
            description,
            base,
            agent: agent(),
        }
    }

    /// The answer to a path of `template`, with status 200 and as described.
    #[track_caller]
    fn ok(&mut self, method: &str, template: &str, path: &str, body: &str) -> Answer {
        let operation = self.description.operation(method, template);
        let url = format!("{}{path}", self.base);
        let answer = ask(&self.agent, method, &url, body);
        let of = format!("{method} {path:.100} {body:.100}");
        let text = String::from_utf8_lossy(&answer.body);
        assert_eq!(answer.status, 200, "{of}: {text:.300}");
        self.description.check(&operation, &of, &answer);
        answer
    }

    /// The same, as JSON.
    #[track_caller]
    fn json(&mut self, method: &str, template: &str, path: &str, body: &Value) -> Value {
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let answer = self.ok(method, template, path, &body);
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// A POST to a path without parameters.
    #[track_caller]
    fn post(&mut self, path: &str, body: &Value) -> Value {
        self.json("post", path, path, body)
    }

    /// A GET for what is told of a transaction.
    #[track_caller]
    fn of_tx(&mut self, txid: Txid, tail: &str) -> Value {
        let path = format!("/tx/{txid}/{tail}");
        self.json("get", &format!("/tx/{{txid}}/{tail}"), &path, &Value::Null)
    }
}

/// Every operation of the public listener that needs more than the name of something.
pub(super) fn public(description: &mut Description) {
    let story = Story::new(&[]);
    let base = format!("http://{}", story.node().http_addr());
    let mut asker = Asker::new(description, base);
    transactions(&mut asker, &story);
    lists(&mut asker, &story);
    wallets(&mut asker, &story);
    streams(&mut asker, story.node());
}

/// Handed in one by one, as a package, and what becomes of them.
fn transactions(asker: &mut Asker<'_>, story: &Story) {
    let hexes = [&story.parent, &story.child].map(serialize_hex);
    let accepted = asker.ok("post", "/tx", "/tx", &serialize_hex(&story.original));
    let (original, bumped) = (story.original.compute_txid(), story.bumped.compute_txid());
    assert_eq!(accepted.body, original.to_string().as_bytes());
    let path = format!("/broadcast?tx={}", serialize_hex(&story.bumped));
    let accepted = asker.ok("get", "/broadcast", &path, "");
    assert_eq!(accepted.body, bumped.to_string().as_bytes());
    let removed = asker.of_tx(original, "removed");
    assert_eq!(removed["by"], bumped.to_string());
    let replacement = asker.of_tx(original, "replacement");
    assert_eq!(replacement["chain"][0]["txid"], original.to_string());
    assert_eq!(replacement["present"]["txid"], bumped.to_string());

    let verdicts = asker.post("/txs/test", &json!(hexes));
    assert_eq!(verdicts.as_array().unwrap().len(), 2);
    for verdict in verdicts.as_array().unwrap() {
        assert_eq!(verdict["allowed"], true, "{verdict}");
    }
    // Refusals are verdicts, too.
    let verdicts = asker.post("/txs/test", &json!([serialize_hex(&story.original)]));
    assert_eq!(verdicts[0]["allowed"], false, "{verdicts}");
    let outcome = asker.post("/txs/package", &json!(hexes));
    assert_eq!(outcome["package_msg"], "success", "{outcome}");
    let outcome = asker.post("/txs/package", &json!([serialize_hex(&story.original)]));
    assert_ne!(outcome["package_msg"], "success", "{outcome}");

    let parent = asker.of_tx(story.parent.compute_txid(), "cpfp");
    let child = story.child.compute_txid().to_string();
    assert_eq!(parent["descendants"][0]["txid"], child);
    let child = asker.of_tx(story.child.compute_txid(), "cpfp");
    let ancestors = child["ancestors"].as_array().unwrap();
    let parent = story.parent.compute_txid().to_string();
    assert!(ancestors.iter().any(|tx| tx["txid"] == parent), "{child}");
}

/// Many scripts or transactions at once. Each list has what exists and what does not.
fn lists(asker: &mut Asker<'_>, story: &Story) {
    let script = &story.scene.script;
    let address = Address::from_script(script, Network::Regtest).unwrap();
    let foreign = "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
    let subjects = [
        ("addresses", json!([address.to_string(), foreign, "x"])),
        (
            "scripthashes",
            json!([scripthash(script.as_bytes()), UNKNOWN, "x"]),
        ),
    ];
    for (kind, body) in &subjects {
        let txs = asker.post(&format!("/{kind}/txs"), body);
        assert!(txs.as_array().unwrap().len() > 3, "{txs}");
        let path = format!("/{kind}/txs/summary");
        let summary = asker.post(&path, body);
        // Three coinbases, and what has spent one of them.
        assert_eq!(summary.as_array().unwrap().len(), 4);
        let last = summary[0]["txid"].as_str().unwrap();
        let template = format!("{path}/{{last_txid}}");
        let rest = asker.json("post", &template, &format!("{path}/{last}"), body);
        assert_eq!(
            rest.as_array().unwrap()[..],
            summary.as_array().unwrap()[1..]
        );
        for (what, key) in [("stats", "chain_stats"), ("utxo", "utxos"), ("txs", "txs")] {
            let entries = asker.post(&format!("/bulk/{kind}/{what}"), body);
            assert!(!entries[0][key].is_null(), "{entries}");
            assert_eq!(entries[2]["error"].as_str().map(str::is_empty), Some(false));
        }
    }
    for (tail, key) in [
        ("", "tx"),
        ("/hex", "hex"),
        ("/status", "status"),
        ("/outspends", "outspends"),
    ] {
        let entries = asker.post(&format!("/bulk/txs{tail}"), &story.txids());
        for entry in &entries.as_array().unwrap()[..2] {
            assert!(!entry[key].is_null(), "{tail}: {entry}");
        }
        assert_eq!(entries[4]["error"], "Invalid hex string", "{tail}");
    }
}

fn wallets(asker: &mut Asker<'_>, story: &Story) {
    let descriptors = [KeychainKind::External, KeychainKind::Internal]
        .map(|keychain| story.scene.wallet.public_descriptor(keychain).to_string());
    let body = json!({"descriptors": descriptors});
    for (tail, key) in [("", "keychains"), ("/utxo", "utxos"), ("/txs", "txs")] {
        let found = asker.post(&format!("/descriptors{tail}"), &body);
        assert!(found["balance"]["confirmed"].as_u64() > Some(0), "{found}");
        assert!(!found[key].as_array().unwrap().is_empty(), "{found}");
    }
    let page = asker.ok(
        "post",
        "/descriptors/txs",
        "/descriptors/txs?limit=1",
        &body.to_string(),
    );
    assert!(page.headers.contains_key("x-next-cursor"));
}

/// What has no end: the beginning of each.
fn streams(asker: &mut Asker<'_>, node: &PulseNode) {
    let path = "/events?channel=tips";
    let operation = asker.description.operation("get", "/events");
    let response = asker.agent.get(format!("{}{path}", asker.base)).call();
    let response = response.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let mut lines = BufReader::new(response.into_body().into_reader());
    let mut body = Vec::new();
    while !body.ends_with(b"\n\n") {
        let read = lines.read_until(b'\n', &mut body).unwrap();
        assert!(read > 0, "the stream ends");
    }
    let begun = Answer {
        status,
        headers,
        body,
    };
    assert_eq!(begun.status, 200);
    asker.description.check(&operation, path, &begun);

    let operation = asker.description.operation("get", "/ws");
    let upgraded = handshake(node);
    assert_eq!(upgraded.status, 101);
    asker.description.check(&operation, "/ws", &upgraded);
}

/// The answer to the example of RFC 6455.
fn handshake(node: &PulseNode) -> Answer {
    let mut stream = TcpStream::connect(node.http_addr()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
        .write_all(
            b"GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
              sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .unwrap();
    let (mut lines, mut head) = (BufReader::new(stream), String::new());
    while !head.ends_with("\r\n\r\n") {
        assert!(lines.read_line(&mut head).unwrap() > 0, "{head}");
    }
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    Answer {
        status: status.parse().unwrap(),
        headers,
        body: Vec::new(),
    }
}

/// The same of the operator's listener.
pub(super) fn operator(description: &mut Description) {
    let story = Story::new(&["--ops-addr", "127.0.0.1:0"]);
    let node = story.node();
    for tx in [&story.bumped, &story.parent, &story.child] {
        let reply = node.post("/tx", &serialize_hex(tx));
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let base = format!("http://{}", node.ops_addr().unwrap());
    let mut asker = Asker::new(description, base);
    let (confirmed, child) = (
        story.confirmed.to_string(),
        story.child.compute_txid().to_string(),
    );
    // These have to be ids, all of them.
    let txids = json!([confirmed, child, UNKNOWN]);
    for (path, count) in [("/internal/txs", 2), ("/internal/mempool/txs", 1)] {
        let txs = asker.post(path, &txids);
        assert_eq!(txs.as_array().unwrap().len(), count, "{path}: {txs}");
    }
    let spends = asker.post("/internal/txs/outspends/by-txid", &txids);
    assert_eq!(spends.as_array().unwrap().len(), 3, "{spends}");
    let spent = story.child.input[0].previous_output.to_string();
    let outpoints = json!([spent, format!("{child}:0")]);
    let spends = asker.post("/internal/txs/outspends/by-outpoint", &outpoints);
    assert_eq!(spends[0]["txid"], child, "{spends}");
    assert_eq!(spends[1], json!({"spent": false}));

    let peers = asker.json("get", "/peers", "/peers", &Value::Null);
    let path = format!("/peers/{}", peers[0]["id"]);
    let ended = asker.ok("delete", "/peers/{id}", &path, "");
    assert_eq!(ended.body, b"disconnected");
}
