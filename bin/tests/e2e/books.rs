//! What an operator writes into a node: labels, and keys for clients.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use pulse_primitives::bitcoin::Network;
use pulse_testkit::ScriptedPeer;
use serde_json::{Value, json};

use super::common::{DEADLINE, options, params, served};

/// Status and text of an answer to a client with a key.
fn ask(addr: SocketAddr, key: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(addr).unwrap();
    let head = "GET /tx/xyz HTTP/1.1\r\nHost: node\r\nConnection: close";
    write!(stream, "{head}\r\nX-Api-Key: {key}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap();
    (status.parse().unwrap(), text.to_owned())
}

#[test]
fn labels_and_keys_survive_a_restart_and_keys_admit_clients() {
    let genesis = params(Network::Regtest).genesis();
    let peer = ScriptedPeer::honest(served(Network::Regtest, &[genesis]));
    let mut node = options("regtest")
        .args(["--ops-addr", "127.0.0.1:0"])
        .env("PULSE_HTTP__ACCESS__API_KEYS", "required")
        .connect(peer.addr())
        .start();
    let label = format!(
        r#"{{"type":"tx","ref":"{}","label":"rent"}}"#,
        "ab".repeat(32)
    );
    for path in ["/labels", "/api-keys"] {
        assert_eq!(node.get_ops(path).text(), "[]");
    }
    assert_eq!(node.post_ops("/labels", &label).text(), label);
    let made = node.post_ops("/api-keys", r#"{"name":"shop","requests_per_second":1}"#);
    let made: Value = made.json();
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());

    let refused = node.get("/blocks/tip/height");
    assert_eq!((refused.status, refused.text()), (401, "API key required"));
    // Monitors need none.
    assert_ne!(node.get("/health/live").status, 401);
    assert!(node.terminate(DEADLINE).status.success());
    let node = node.restart();
    assert_eq!(node.get_ops("/labels").text(), format!("[{label}]"));
    assert_eq!(node.get_ops("/labels/export").text(), format!("{label}\n"));
    let ask = |key: &str| ask(node.http_addr(), key);
    // Ten at once, then one a second: by the eleventh or a little later it is too much.
    let mut answers = (0..100).map(|_| ask(key));
    assert_eq!(
        answers.next().unwrap(),
        (400, "Invalid hex string".to_owned())
    );
    assert!(answers.any(|answer| answer == (429, "Too many requests".to_owned())));
    let wrong = ask(&format!("{key}0"));
    assert_eq!(wrong, (401, "Invalid API key".to_owned()));

    let listed: Vec<Value> = node.get_ops("/api-keys").json();
    let mut wanted = made.clone();
    wanted.as_object_mut().unwrap().remove("key");
    assert_eq!(listed, [wanted]);
    let exported = node.get_ops("/api-keys/export");
    let secret = key.rsplit_once('_').unwrap().1;
    assert!(!exported.text().contains(secret));
    let metrics = node.get_ops("/metrics");
    let counted = format!("pulse_rest_api_key_requests_total{{key=\"{id}\"}}");
    assert!(metrics.text().contains(&counted), "{}", metrics.text());
    assert_eq!(
        node.delete_ops(&format!("/api-keys/{id}")).text(),
        "revoked"
    );
    assert_eq!(ask(key), (401, "Invalid API key".to_owned()));
    let imported = node.post_ops("/api-keys/import", exported.text());
    assert_eq!(imported.json::<Value>(), json!({"imported": 1}));
    assert_ne!(ask(key).0, 401);
    // None of it is on the public listener.
    for path in ["/labels", "/api-keys"] {
        assert_eq!(node.get(path).status, 401);
    }
    assert!(!node.log().contains(secret));
}
