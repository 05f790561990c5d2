//! What an operator does from outside: looks at peers, bans, disconnects, and waits for a
//! node that starts.

use std::process::Command;

use pulse_primitives::bitcoin::Network;
use pulse_testkit::{PulseNode, ScriptedPeer};
use serde_json::Value;

use super::common::{DEADLINE, options, served};

fn peers(node: &PulseNode) -> Vec<Value> {
    let reply = node.get_ops("/peers");
    assert_eq!(reply.status, 200);
    reply.json()
}

fn bans(node: &PulseNode) -> Vec<Value> {
    let reply = node.get_ops("/bans");
    assert_eq!(reply.status, 200);
    reply.json()
}

#[test]
fn peers_are_shown_banned_and_disconnected_by_the_operator_alone() {
    let genesis = super::common::params(Network::Regtest).genesis();
    let peer = ScriptedPeer::honest(served(Network::Regtest, &[genesis]));
    let mut listening = options("regtest")
        .args(["--ops-addr", "127.0.0.1:0", "--listen", "127.0.0.1:0"])
        .connect(peer.addr())
        .start();
    let p2p = listening.p2p_addr().unwrap();
    let other = options("regtest").connect(p2p).start();
    listening.wait_until("two peers", DEADLINE, |node| peers(node).len() == 2);

    let shown = peers(&listening);
    let of = |direction: &str| {
        let found = shown.iter().find(|peer| peer["direction"] == direction);
        found
            .unwrap_or_else(|| panic!("{direction} in {shown:?}"))
            .clone()
    };
    let (inbound, outbound) = (of("inbound"), of("outbound"));
    assert_eq!(outbound["kind"], "manual");
    assert_eq!(outbound["addr"], peer.addr().to_string());
    assert_eq!(
        (&inbound["kind"], &inbound["transport"]),
        (&"inbound".into(), &"v2".into())
    );
    assert_eq!(inbound["version"], 70_016);
    assert!(inbound["connected_since"].as_u64().unwrap() > 1_600_000_000);
    assert!(outbound["bytes_sent"].as_u64().unwrap() > 0);

    // The public listener knows nothing of this.
    for path in ["/peers", "/bans"] {
        assert_eq!(listening.get(path).status, 404);
    }
    assert_eq!(
        listening.post("/bans", r#"{"target":"10.0.0.1"}"#).status,
        404
    );

    // Disconnected, it comes back under another number.
    let id = inbound["id"].as_u64().unwrap();
    assert_eq!(listening.delete_ops(&format!("/peers/{id}")).status, 200);
    let is_back = |node: &PulseNode| {
        let peers = peers(node);
        peers.len() == 2 && peers.iter().all(|peer| peer["id"] != id)
    };
    listening.wait_until("the other to come back", DEADLINE, is_back);
    assert_eq!(listening.delete_ops("/peers/4711").status, 404);

    // Banned, it does not; who was named by the operator stays.
    let ban = r#"{"target":"127.0.0.0/8","seconds":3600}"#;
    let reply = listening.post_ops("/bans", ban);
    assert_eq!(reply.status, 200, "{}", reply.text());
    listening.wait_until("the inbound peer to go", DEADLINE, |node| {
        peers(node).len() == 1
    });
    assert_eq!(peers(&listening)[0]["kind"], "manual");
    assert_eq!(bans(&listening)[0]["target"], "127.0.0.0/8");
    for wrong in [
        r#"{"target":"nowhere"}"#,
        r#"{"target":"10.0.0.1","seconds":0}"#,
        r#"{"target":"10.0.0.1","seconds":99999999999}"#,
        "{}",
    ] {
        assert_eq!(listening.post_ops("/bans", wrong).status, 400, "{wrong}");
    }

    // Bans outlive the node.
    assert!(listening.terminate(DEADLINE).status.success());
    let mut listening = listening.restart();
    listening.wait_until("the ban", DEADLINE, |node| bans(node).len() == 1);
    assert_eq!(listening.delete_ops("/bans/127.0.0.0/8").status, 200);
    assert_eq!(listening.delete_ops("/bans/127.0.0.0/8").status, 404);
    assert!(bans(&listening).is_empty());
    drop(other);
}

#[test]
fn while_the_node_opens_it_says_so_and_gives_no_answers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node");
    let mut node = options("regtest").data_dir(&path).start();
    assert!(node.terminate(DEADLINE).status.success());
    // Headers that never come hold up the opening, as a long recovery does.
    let headers = path.join("headers.dat");
    std::fs::remove_file(&headers).unwrap();
    let made = Command::new("mkfifo").arg(&headers).status().unwrap();
    assert!(made.success());
    let node = options("regtest")
        .data_dir(&path)
        .args(["--ops-addr", "127.0.0.1:0"])
        .start_listening();
    assert_eq!(node.get("/health/live").status, 200);
    assert_eq!(node.get_ops("/metrics").status, 200);
    for path in [
        "/health",
        "/stats",
        "/blocks/tip/hash",
        "/api/fee-estimates",
    ] {
        let reply = node.get(path);
        assert_eq!(reply.status, 503, "{path}");
        assert!(reply.retry_after.is_some());
        assert!(
            reply
                .text()
                .contains("opening the metadata and the headers")
        );
    }
    assert_eq!(node.get_ops("/peers").status, 503);
    // Dropped, it is killed: it could not end in order.
}
