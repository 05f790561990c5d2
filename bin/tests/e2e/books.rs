//! What an operator writes into a node: labels, and keys for clients.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use pulse_primitives::bitcoin::Network;
use pulse_testkit::{Exit, ScriptedPeer};
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

/// A command about a data directory.
fn command(data_dir: &Path, command: &str, file: &Path) -> Exit {
    options("regtest")
        .data_dir(data_dir)
        .args([command, file.to_str().unwrap()])
        .run_to_exit(DEADLINE)
}

#[test]
fn identity_labels_and_keys_move_to_another_node_by_export_and_import() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| dir.path().join(name));
    let [file, again] = ["export", "again"].map(|name| dir.path().join(name));
    let ops = ["--ops-addr", "127.0.0.1:0"];
    let mut node = options("regtest").data_dir(&first).args(ops).start();
    let labels: String = (0..1_500)
        .map(|n| format!("{{\"type\":\"xpub\",\"ref\":\"{n:05}\",\"label\":\"name {n}\"}}\n"))
        .collect();
    assert_eq!(node.post_ops("/labels/import", &labels).status, 200);
    let made: Value = node.post_ops("/api-keys", r#"{"name":"shop"}"#).json();
    let kept = node.get_ops("/api-keys/export").text().to_owned();

    // Beside the running node, and when it has ended.
    let exported = command(&first, "export", &file);
    assert!(exported.status.success(), "{}", exported.stderr);
    assert_eq!(
        exported.stdout.lines().nth(1),
        Some("1500 labels, 1 API keys")
    );
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(
        !command(&first, "export", &file).status.success(),
        "replaced"
    );
    assert!(
        !command(&first, "import", &file).status.success(),
        "it runs"
    );
    assert!(node.terminate(DEADLINE).status.success());
    assert!(command(&first, "export", &again).status.success());
    assert_eq!(fs::read(&file).unwrap(), fs::read(&again).unwrap());
    let text = fs::read_to_string(&file).unwrap();
    let secret = made["key"].as_str().unwrap().rsplit_once('_').unwrap().1;
    assert!(!text.contains(secret));

    // What is wrong in it is found before anything is taken.
    let wrong = dir.path().join("wrong");
    fs::write(
        &wrong,
        text.replace("\"ref\": \"00007\"", "\"ref\": \"00 07\""),
    )
    .unwrap();
    assert!(!command(&second, "import", &wrong).status.success());
    assert!(!second.join("identity.key").exists());
    for _ in 0..2 {
        let imported = command(&second, "import", &file);
        assert!(imported.status.success(), "{}", imported.stderr);
        assert_eq!(imported.stdout, exported.stdout);
    }
    let node = options("regtest").data_dir(&second).args(ops).start();
    assert_eq!(node.get_ops("/labels/export").text(), labels);
    assert_eq!(node.get_ops("/api-keys/export").text(), kept);
    for data_dir in [&first, &second] {
        let id = options("regtest")
            .data_dir(data_dir)
            .args(["id"])
            .run_to_exit(DEADLINE);
        assert_eq!(id.stdout.lines().next(), exported.stdout.lines().next());
    }

    // A file of the first version has the identity alone.
    let third = dir.path().join("third");
    let value: Value = serde_json::from_str(&text).unwrap();
    let old = json!({"format": 1, "identity": value["identity"]}).to_string();
    fs::write(&wrong, old).unwrap();
    let imported = command(&third, "import", &wrong);
    assert!(imported.status.success(), "{}", imported.stderr);
    assert!(imported.stdout.ends_with("0 labels, 0 API keys\n"));
}
