//! Clients that come back after a lost connection, and a node that stops.

use serde_json::{Value, json};

use super::{Scene, socket::Client};
use crate::e2e::common::DEADLINE;

fn come_back(scene: &Scene, id: &str) -> Client {
    let mut client = scene.client();
    let wishes = json!({
        "type": "subscribe",
        "channels": ["tips", "blocks", "reorgs"],
        "resume": id,
    });
    client.send(&wishes);
    client.next_of("subscribed");
    client
}

fn id_of(message: &Value) -> String {
    message["id"].as_str().unwrap().to_owned()
}

#[test]
fn who_comes_back_is_told_what_it_missed_or_that_it_has_to_read_anew() {
    let keep = |options: pulse_testkit::NodeOptions| options.env("PULSE_PUSH__REPLAY_EVENTS", "6");
    let mut scene = Scene::with(keep);
    let mut client = scene.client();
    client.send(&json!({"type": "subscribe", "channels": ["tips", "blocks"]}));
    let start = id_of(&client.next_of("tip"));
    drop(client);

    // Two blocks are four events.
    scene.mine(vec![]);
    scene.mine(vec![]);
    scene.wait_told(112);
    let mut client = come_back(&scene, &start);
    let resumed = client.next().unwrap();
    assert_eq!(resumed["type"], "resumed", "{resumed}");
    assert_eq!(
        (&resumed["events"], &resumed["tip"]["height"]),
        (&json!(4), &json!(112))
    );
    let missed: Vec<Value> = (0..3).map(|_| client.next().unwrap()).collect();
    assert_eq!(missed[0]["block"]["height"], 111);
    assert_eq!(missed[1]["block"]["height"], 112);
    // Of several tips the last is told.
    assert_eq!(
        (&missed[2]["type"], &missed[2]["tip"]["height"]),
        (&json!("tip"), &json!(112))
    );
    let last = id_of(&missed[2]);
    client
        .send(&json!({"type": "subscribe", "request": 1, "channels": ["reorgs"], "resume": last}));
    assert_eq!(client.next_of("error")["code"], "late_resume");
    drop(client);

    let mut client = come_back(&scene, &last);
    assert_eq!(client.next().unwrap()["events"], 0);
    client.assert_silent();
    drop(client);

    // A reorganisation of two by four is more than six events.
    scene.reorganise(110, 4);
    scene.mine(vec![]);
    scene.wait_told(115);
    let mut client = come_back(&scene, &start);
    let reset = client.next().unwrap();
    assert_eq!(
        (&reset["type"], &reset["reason"]),
        (&json!("reset"), &json!("too_old"))
    );
    assert_eq!(reset["tip"]["height"], 115);
    assert_eq!(client.next().unwrap()["initial"], true);
    for wrong in ["", "x", "0000000000000000-1", "-", &format!("{start}999")] {
        let mut client = come_back(&scene, wrong);
        assert_eq!(client.next().unwrap()["reason"], "other_process", "{wrong}");
        assert_eq!(client.next().unwrap()["type"], "tip");
    }

    // Another process has another epoch.
    let last = id_of(&client.drain().pop().unwrap_or(reset));
    assert!(scene.node.terminate(DEADLINE).status.success());
    scene.node = scene.node.restart();
    scene.node.wait_synced_to(115, DEADLINE);
    let mut client = come_back(&scene, &last);
    assert_eq!(client.next().unwrap()["reason"], "other_process");
}

#[test]
fn a_stop_tells_clients_to_come_back() {
    let mut scene = Scene::new();
    let mut client = scene.client();
    client.send(&json!({"type": "subscribe", "channels": ["tips"]}));
    client.next_of("tip");
    let mut stream = super::stream::open(&scene.node, "/events?channel=tips", &[]);
    stream.until("tip");
    assert!(scene.node.terminate(DEADLINE).status.success());
    assert_eq!(client.next_of("reconnect")["reason"], "shutdown");
    assert_eq!(client.next(), None);
    assert_eq!(u16::from(client.closed.unwrap().code), 1001);
    assert_eq!(stream.until("reconnect").data["reason"], "shutdown");
    assert!(stream.next().is_none());
}
