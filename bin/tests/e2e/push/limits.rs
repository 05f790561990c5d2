//! Clients that ask for too much, that send what means nothing, or that do not listen.

use std::time::Instant;

use pulse_testkit::{Answer, PulseNode};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{Scene, address, other, socket::Client, stream};
use crate::e2e::common::{DEADLINE, scripthash};

fn names(count: u32) -> Vec<String> {
    (0..count).map(|n| scripthash(&n.to_le_bytes())).collect()
}

#[test]
fn what_is_too_much_or_means_nothing_is_refused_and_harms_nobody() {
    let scene = Scene::with(|options| {
        options
            .env("PULSE_PUSH__MAX_CONNECTIONS", "3")
            .env("PULSE_PUSH__MAX_SUBSCRIPTIONS", "10")
            .env("PULSE_PUSH__MAX_SUBSCRIPTIONS_TOTAL", "12")
            .env("PULSE_PUSH__MAX_MESSAGE_KIB", "16")
            .env("PULSE_HTTP__CORS", "https://wallet.example")
    });
    let addr = scene.node.http_addr();
    let mut client = scene.client();
    let code = |client: &mut Client, message: &Value| {
        client.send(message);
        client.next_of("error")["code"].clone()
    };
    let subscribe = |count| json!({"type": "subscribe", "scripthashes": names(count)});
    assert_eq!(code(&mut client, &subscribe(11)), "too_many_subscriptions");
    client.send(&subscribe(10));
    assert_eq!(client.next_of("subscribed")["subscriptions"], 10);
    let mut second = scene.client();
    assert_eq!(code(&mut second, &subscribe(3)), "server_full");
    second.send(&subscribe(2));
    second.next_of("subscribed");
    // What was subscribed to already costs nothing, and what ends is given back.
    client.send(&subscribe(10));
    client.next_of("subscribed");
    client.send(&json!({"type": "unsubscribe", "scripthashes": names(10)}));
    assert_eq!(client.next_of("unsubscribed")["subscriptions"], 0);
    second.send(&json!({"type": "subscribe", "addresses": [address(&other(1))]}));
    second.next_of("address");

    client.drain();
    for text in [
        "",
        "nonsense",
        "[]",
        "{}",
        "\u{0}",
        r#"{"type":"subscribe","txids":["x"]}"#,
    ] {
        client.send_text(text);
        let error = client.next().unwrap();
        assert_eq!(error["type"], "error", "{error}");
    }
    client.send_raw(Message::binary(vec![1, 2, 3])).unwrap();
    assert_eq!(client.next().unwrap()["code"], "malformed");
    assert!(client.drain().is_empty());

    // Slots: one is left, then none.
    let third = scene.client();
    let (status, text) = Client::try_connect(addr, "/api/ws", None).err().unwrap();
    assert_eq!((status, text.as_str()), (503, "server is busy"));
    assert_eq!(scene.node.get("/events?channel=tips").status, 503);
    drop(third);
    let origin = Some("https://evil.example");
    let (status, _) = Client::try_connect(addr, "/ws", origin).err().unwrap();
    assert_eq!(status, 403);
    let deadline = Instant::now() + DEADLINE;
    let mut third = loop {
        match Client::try_connect(addr, "/ws", Some("https://wallet.example")) {
            Ok(client) => break client,
            Err((status, _)) => assert_eq!(status, 503),
        }
        assert!(Instant::now() < deadline, "the slot is not given back");
    };
    third.next_of("hello");

    // Too long a message ends its connection and no other.
    let _ = third.send_raw(Message::text("x".repeat(17 << 10)));
    assert_eq!(third.next_of("closing")["reason"], "message_too_long");
    assert_eq!(third.next(), None);
    assert_eq!(u16::from(third.closed.unwrap().code), 1009);
    assert!(client.drain().is_empty());
}

/// Status, `Retry-After` and text of a request that says whom it is for.
fn events(node: &PulseNode, client: &str, query: &str) -> Answer {
    let path = format!("/events?{query}");
    node.call("GET", &path, &[("x-forwarded-for", client)], "")
}

#[test]
fn a_client_address_has_its_share_of_connections_and_subscriptions() {
    let scene = Scene::with(|options| {
        options
            .env("PULSE_PUSH__MAX_CONNECTIONS_PER_ADDRESS", "2")
            .env("PULSE_PUSH__MAX_SUBSCRIPTIONS_PER_ADDRESS", "5")
            .env("PULSE_HTTP__ACCESS__TRUSTED_PROXIES", "[\"127.0.0.0/8\"]")
    });
    let addr = scene.node.http_addr();
    let subscribe = |count| json!({"type": "subscribe", "scripthashes": names(count)});
    let (mut first, mut second) = (scene.client(), scene.client());
    first.send(&subscribe(4));
    assert_eq!(first.next_of("subscribed")["subscriptions"], 4);
    second.send(&subscribe(2));
    let refused = second.next_of("error");
    assert_eq!(refused["code"], "address_subscriptions");
    assert_eq!(refused["error"], "more than 5 subscriptions of one address");
    second.send(&subscribe(1));
    assert_eq!(second.next_of("subscribed")["subscriptions"], 1);

    let refused = Client::try_connect(addr, "/ws", None).err().unwrap();
    assert_eq!(refused, (429, "Too many connections".to_owned()));
    let refused = events(&scene.node, "", "channel=tips");
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("retry-after"), Some("1"));
    // Another client of the same proxy has its own share.
    let many = names(6).join(",");
    let refused = events(&scene.node, "192.0.2.1", &format!("scripthash={many}"));
    assert_eq!(
        (refused.status, refused.shown().as_str()),
        (429, "Too many subscriptions")
    );

    // What ends is given back.
    drop(second);
    let deadline = Instant::now() + DEADLINE;
    let mut third = loop {
        match Client::try_connect(addr, "/ws", None) {
            Ok(client) => break client,
            Err((status, _)) => assert_eq!(status, 429),
        }
        assert!(Instant::now() < deadline, "the share is not given back");
    };
    third.send(&subscribe(1));
    assert_eq!(third.next_of("subscribed")["subscriptions"], 1);
}

#[test]
fn messages_count_for_the_key_that_a_page_has_offered_as_a_subprotocol() {
    let scene = Scene::with(|options| {
        options
            .args(["--ops-addr", "127.0.0.1:0"])
            .env("PULSE_HTTP__ACCESS__API_KEYS", "optional")
            .env("PULSE_PUSH__PING_INTERVAL_SECS", "1")
    });
    let addr = scene.node.http_addr();
    let made = (scene.node).post_ops("/api-keys", r#"{"name":"page","requests_per_second":1}"#);
    let made: Value = made.json();
    let offered = format!("pulse, pulse-key.{}", made["key"].as_str().unwrap());
    let open = |offered: &str| {
        Client::try_connect_with(addr, "/ws", [("sec-websocket-protocol", offered)])
    };
    let refused = open("pulse, pulse-key.wrong").err();
    assert_eq!(refused, Some((401, "Invalid API key".to_owned())));

    // These are the first two of ten requests at once.
    let key = format!("x-api-key: {}", made["key"].as_str().unwrap());
    let mut events = stream::open(&scene.node, "/events?channel=tips", &[&key]);
    events.until("tip");
    let mut client = open(&offered).unwrap();
    let codes: Vec<_> = (0..30)
        .map(|_| {
            client.send_text(r#"{"type":"ping"}"#);
            client.until(|message| message["type"] != "hello")
        })
        .filter(|answer| answer["type"] == "error")
        .map(|error| {
            assert_eq!(error["error"], "Too many requests");
            error["code"].clone()
        })
        .collect();
    assert!((1..=22).contains(&codes.len()), "{codes:?}");
    assert!(codes.iter().all(|code| code == "too_many_requests"));
    let refused = open(&offered).err();
    assert_eq!(refused, Some((429, "Too many requests".to_owned())));
    // Others are not in its way, and what it has subscribed to is told.
    let mut other = scene.client();
    assert_eq!(other.drain(), Vec::<Value>::new());

    // Once a key is revoked nothing more is told to those who had it.
    let id = made["id"].as_str().unwrap();
    let revoked = scene.node.delete_ops(&format!("/api-keys/{id}"));
    assert_eq!(revoked.status, 200, "{}", revoked.text());
    assert_eq!(client.next_of("closing")["reason"], "key_revoked");
    assert_eq!(events.until("closing").data["reason"], "key_revoked");
}

#[test]
fn a_client_that_answers_no_pings_is_cut_off() {
    let mut scene = Scene::with(|options| options.env("PULSE_PUSH__PING_INTERVAL_SECS", "1"));
    // It reads nothing, so it answers nothing.
    let silent = Client::try_connect(scene.node.http_addr(), "/ws", None);
    (scene.node).wait_until("it is cut off", DEADLINE, |node| {
        let metrics = node.get("/metrics");
        (metrics.text()).contains("pulse_push_closed_total{reason=\"silent\"} 1")
    });
    drop(silent);
}

#[test]
fn a_client_that_does_not_listen_is_cut_off_and_delays_nobody() {
    let mut scene = Scene::with(|options| options.env("PULSE_PUSH__WRITE_TIMEOUT_SECS", "1"));
    let addr = scene.node.http_addr();
    let mut listener = scene.client();
    listener.send(&json!({"type": "subscribe", "channels": ["blocks"]}));
    listener.next_of("tip");
    let mut slow = Client::try_connect(addr, "/ws", None).unwrap();
    let many = json!({"type": "subscribe", "scripthashes": names(10_000)}).to_string();
    // Each request is answered with some MiB that it never takes.
    let sender = std::thread::spawn(move || {
        for _ in 0..20 {
            if slow.send_raw(Message::text(many.clone())).is_err() {
                break;
            }
        }
        slow
    });
    scene.mine(vec![]);
    assert_eq!(listener.next().unwrap()["block"]["height"], 111);
    scene
        .node
        .wait_until("the slow one is cut off", DEADLINE, |node| {
            let metrics = node.get("/metrics");
            metrics
                .text()
                .contains("pulse_push_closed_total{reason=\"slow\"} 1")
        });
    let mut slow = sender.join().unwrap();
    // It reads what was on its way, and no more.
    let mut read = 0;
    while slow.next().is_some() {
        read += 1;
    }
    assert!(read > 0);
    scene.mine(vec![]);
    assert_eq!(listener.next().unwrap()["block"]["height"], 112);
    (scene.node).wait_until("its subscriptions are gone", DEADLINE, |node| {
        let metrics = node.get("/metrics");
        metrics.text().contains("pulse_push_subscriptions 0")
    });
}
