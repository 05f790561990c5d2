//! Limits answer with errors, and do not hang up.

use serde_json::{Value, json};

use super::{Scene, raw::Client, scripthash};
use pulse_primitives::bitcoin::ScriptBuf;

#[test]
fn every_limit_answers_with_an_error() {
    let scene = Scene::with(|options| {
        [
            ("MAX_CONNECTIONS_PER_ADDRESS", "2"),
            ("MAX_SUBSCRIPTIONS", "2"),
            ("MAX_SUBSCRIPTIONS_PER_ADDRESS", "3"),
            ("MAX_HISTORY", "2"),
            ("MAX_BATCH", "3"),
            ("MAX_REQUEST_KIB", "1"),
            ("MAX_RESPONSE_KIB", "1"),
        ]
        .iter()
        .fold(options, |options, (key, value)| {
            options.env(&format!("PULSE_ELECTRUM__{key}"), value)
        })
    });
    let (mut first, mut second) = (scene.client(), scene.client());
    let error = |code: i32, message: &str| json!({"jsonrpc": "2.0", "id": null, "error": {"code": code, "message": message}});
    first.call("server.ping", json!([]));
    second.call("server.ping", json!([]));
    let mut third = scene.client();
    assert_eq!(
        third.line(),
        Some(error(
            4,
            "Too many connections from this address (limit: 2)"
        ))
    );
    assert_eq!(third.line(), None);

    first.send(&format!("{}\n", "x".repeat(5_000)));
    assert_eq!(
        first.line(),
        Some(error(1, "request line exceeds 1024 bytes"))
    );
    first.send("[1,2,3,4]\n");
    assert_eq!(first.line(), Some(error(1, "batch exceeds 3 requests")));
    assert_eq!(
        first.error("blockchain.block.headers", json!([0, 100])),
        (1, "response exceeds 1024 bytes".to_owned())
    );
    let wallet = scripthash(&scene.script);
    for method in ["get_history", "subscribe", "listunspent"] {
        assert_eq!(
            first.error(&format!("blockchain.scripthash.{method}"), json!([wallet])),
            (1, "history too large (limit: 2 entries)".to_owned())
        );
    }
    let script = |n: u8| json!([scripthash(&ScriptBuf::from_bytes(vec![n]))]);
    let subscribe = "blockchain.scripthash.subscribe";
    for n in [1, 2, 2] {
        assert_eq!(first.call(subscribe, script(n)), Value::Null);
    }
    let text = "Too many subscriptions on this connection (limit: 2)";
    assert_eq!(first.error(subscribe, script(3)), (4, text.to_owned()));
    second.call(subscribe, script(4));
    let text = "Too many subscriptions from this address (limit: 3)";
    assert_eq!(second.error(subscribe, script(5)), (4, text.to_owned()));
    first.call("blockchain.scripthash.unsubscribe", script(1));
    second.call(subscribe, script(5));
}

#[test]
fn requests_above_the_rate_and_idle_clients_are_told_apart() {
    let scene = Scene::with(|options| {
        options
            .env("PULSE_ELECTRUM__REQUESTS_PER_SECOND", "1")
            .env("PULSE_ELECTRUM__IDLE_TIMEOUT_SECS", "2")
    });
    let mut client = Client::connect(scene.addr());
    let refused = (0..100).find_map(|_| {
        let answer = client.request("server.ping", json!([]));
        answer.get("error").cloned()
    });
    assert_eq!(
        refused,
        Some(
            json!({"code": 3, "message": "Too many requests from this address (limit: 1 per second)"})
        )
    );
    assert_eq!(client.line(), None, "it asks nothing for two seconds");
}
