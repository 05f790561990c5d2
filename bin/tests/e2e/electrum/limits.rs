//! Limits answer with errors, and do not hang up.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use electrum_client::{ConfigBuilder, ElectrumApi};
use futures_util::StreamExt;
use pulse_primitives::bitcoin::ScriptBuf;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio_tungstenite::client_async;

use super::{DEADLINE, Scene, raw::Client, scripthash};
use crate::e2e::common::metric;

#[test]
fn every_limit_answers_with_an_error() {
    let scene = limited(&[
        ("MAX_CONNECTIONS_PER_ADDRESS", "2"),
        ("MAX_SUBSCRIPTIONS", "2"),
        ("MAX_SUBSCRIPTIONS_PER_ADDRESS", "3"),
        ("MAX_HISTORY", "2"),
        ("MAX_BATCH", "3"),
        ("MAX_REQUEST_KIB", "1"),
        ("MAX_RESPONSE_KIB", "1"),
    ]);
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

fn limited(limits: &[(&str, &str)]) -> Scene {
    Scene::with(|options| {
        limits.iter().fold(options, |options, (key, value)| {
            options.env(&format!("PULSE_ELECTRUM__{key}"), value)
        })
    })
}

/// A connection from one of the addresses of this machine.
fn connect_from(source: Ipv4Addr, addr: SocketAddr) -> TcpStream {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let stream = runtime.block_on(async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(IpAddr::V4(source), 0)).unwrap();
        socket.connect(addr).await.unwrap().into_std().unwrap()
    });
    stream.set_nonblocking(false).unwrap();
    stream
}

#[test]
fn clients_beyond_the_most_are_told_so_over_every_transport() {
    let mut scene = limited(&[("MAX_CONNECTIONS", "2")]);
    let mut first = Client::speaking(scene.addr(), "1.6");
    let mut second = Client::speaking(scene.addr(), "1.6");
    let message = "Too many connections (limit: 2)";
    let told = json!({"jsonrpc": "2.0", "id": null, "error": {"code": 4, "message": message}});

    // Whether it waits or asks first.
    for asks in [false, true] {
        let mut third = scene.client();
        if asks {
            third.send("{\"id\":0,\"method\":\"server.version\",\"params\":[]}\n");
        }
        assert_eq!(third.line(), Some(told.clone()));
        assert_eq!(third.line(), None);
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let addr = scene.node.electrum_addr("ws").unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(addr).await.unwrap();
        let (mut socket, _) = client_async(format!("ws://{addr}/"), stream).await.unwrap();
        let message = socket.next().await.unwrap().unwrap();
        let found: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        assert_eq!(found, told);
        assert!(socket.next().await.unwrap().unwrap().is_close());
        assert!(socket.next().await.is_none());
    });
    let url = format!("ssl://{}", scene.node.electrum_addr("tls").unwrap());
    let over_tls = || {
        let config = ConfigBuilder::new().validate_domain(false).build();
        let client = electrum_client::Client::from_config(&url, config)?;
        client.ping()
    };
    assert!(over_tls().is_err());
    let refused = "pulse_electrum_refused_total{limit=\"connections\"}";
    assert!(metric(&scene.node, refused) >= 4.0);

    // Those who were there have noticed nothing, and who leaves makes room.
    first.call("server.ping", json!([]));
    second.call("server.ping", json!([]));
    drop(first);
    scene
        .node
        .wait_until("room for another one", DEADLINE, |_| over_tls().is_ok());
}

#[test]
fn an_address_that_has_its_share_takes_nothing_of_the_others() {
    // More than can be told at the same time that they are too many.
    const SILENT: usize = 100;
    let scene = limited(&[
        ("MAX_CONNECTIONS", "4"),
        ("MAX_CONNECTIONS_PER_ADDRESS", "2"),
    ]);
    let tls = scene.node.electrum_addr("tls").unwrap();
    let mut greedy = [scene.client(), scene.client()];
    for client in &mut greedy {
        client.call("server.ping", json!([]));
    }
    // They never begin their handshakes.
    let silent: Vec<TcpStream> = (0..SILENT)
        .map(|_| connect_from(Ipv4Addr::LOCALHOST, tls))
        .collect();
    let stranger = Ipv4Addr::new(127, 0, 0, 2);
    for addr in [scene.addr(), tls] {
        let stream = connect_from(stranger, addr);
        if addr == tls {
            // It has its time for the handshake: nobody hangs up.
            stream
                .set_read_timeout(Some(Duration::from_millis(300)))
                .unwrap();
            let read = std::io::Read::read(&mut &stream, &mut [0]);
            assert!(read.is_err(), "{read:?}");
        } else {
            Client::over(stream).call("server.ping", json!([]));
        }
    }
    drop(silent);
}

#[test]
fn silent_clients_beyond_the_most_keep_nobody_from_being_told() {
    // More than can be told at the same time.
    const SILENT: usize = 100;
    let scene = limited(&[
        ("MAX_CONNECTIONS", "1"),
        ("MAX_CONNECTIONS_PER_ADDRESS", "0"),
    ]);
    let mut first = scene.client();
    first.call("server.ping", json!([]));
    let tls = scene.node.electrum_addr("tls").unwrap();
    let silent: Vec<TcpStream> = (0..SILENT)
        .map(|_| TcpStream::connect(tls).unwrap())
        .collect();
    let mut late = scene.client();
    let told = late.line().unwrap();
    assert_eq!(told["error"]["code"], 4);
    assert_eq!(late.line(), None);
    first.call("server.ping", json!([]));
    drop(silent);
}
