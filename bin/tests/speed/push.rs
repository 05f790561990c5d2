//! 1,000 WebSocket clients with 10,000 subscriptions, blocks that touch one of each client, and
//! beside them a client that never reads: as long as the node answers it, and then.
//!
//! Each connection needs a file descriptor here and one in the node: `ulimit -n 4096`.

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use pulse_primitives::bitcoin::{Amount, Network, ScriptBuf, TxOut, WPubkeyHash, hashes::Hash};
use pulse_testkit::{ChainBuilder, PulseNode, ScriptedPeer};
use serde_json::{Value, json};
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_tungstenite::{client_async, tungstenite::Message};

use crate::e2e::common::{DEADLINE, options, params, scripthash, served};

const CLIENTS: u32 = 1_000;
const SCRIPTS_EACH: u32 = 10;
/// Blocks of each measurement.
const ROUNDS: usize = 9;

fn script(n: u32) -> ScriptBuf {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&n.to_le_bytes());
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array(bytes))
}

/// Resident memory in MiB, and processor time in seconds.
fn used(node: &PulseNode) -> (u64, f64) {
    let pid = node.pid();
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Behind the name, which may hold anything: utime and stime, in hundredths of a second.
    let (_, fields) = text.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: f64 = ticks.map(|field| field.parse::<f64>().unwrap()).sum();
    (kib / 1024, ticks / 100.0)
}

/// Subscribes, then reports when it is told of the tip and of its script.
async fn client(
    addr: SocketAddr,
    first: u32,
    subscribed: Arc<AtomicUsize>,
    told: mpsc::UnboundedSender<(&'static str, Instant)>,
) {
    let stream = TcpStream::connect(addr).await.unwrap();
    let (mut socket, _) = client_async(format!("ws://{addr}/ws"), stream)
        .await
        .unwrap();
    let scripts = (first..first + SCRIPTS_EACH).map(|n| scripthash(script(n).as_bytes()));
    let wishes = json!({
        "type": "subscribe",
        "channels": ["tips"],
        "scripthashes": scripts.collect::<Vec<_>>(),
    });
    socket
        .send(Message::text(wishes.to_string()))
        .await
        .unwrap();
    let mut states = 0;
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else {
            continue;
        };
        let message: Value = serde_json::from_str(&text).unwrap();
        let kind = match message["type"].as_str().unwrap() {
            "scripthash" if message["initial"] == true => {
                states += 1;
                if states == SCRIPTS_EACH {
                    subscribed.fetch_add(1, Ordering::Relaxed);
                }
                continue;
            }
            "scripthash" => "scripthash",
            "tip" if message["initial"] == false => "tip",
            "error" | "closing" => panic!("{text}"),
            _ => continue,
        };
        if told.send((kind, Instant::now())).is_err() {
            return;
        }
    }
}

/// Asks for many MiB, and reads nothing.
async fn deaf(addr: SocketAddr) {
    let stream = TcpStream::connect(addr).await.unwrap();
    let (mut socket, _) = client_async(format!("ws://{addr}/ws"), stream)
        .await
        .unwrap();
    let names: Vec<String> = (0..10_000_u32)
        .map(|n| scripthash(&n.to_le_bytes()))
        .collect();
    let wishes = json!({"type": "subscribe", "scripthashes": names}).to_string();
    while socket.send(Message::text(wishes.clone())).await.is_ok() {}
    std::future::pending::<()>().await;
}

#[test]
#[ignore = "needs 2,000 file descriptors and a minute"]
#[allow(clippy::print_stdout, reason = "a measurement")]
fn a_thousand_web_sockets_are_told_of_a_block() {
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    chain.mine_empty_blocks(10);
    let peer = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
    let mut node = options("regtest")
        .connect(peer.addr())
        // Longer than it is measured beside the client that takes nothing.
        .env("PULSE_PUSH__WRITE_TIMEOUT_SECS", "120")
        .start();
    node.wait_synced_to(10, DEADLINE);
    let addr = node.http_addr();
    let (before, _) = used(&node);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (told, mut heard) = mpsc::unbounded_channel();
    let subscribed = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    for n in 0..CLIENTS {
        let (subscribed, told) = (Arc::clone(&subscribed), told.clone());
        runtime.spawn(client(addr, n * SCRIPTS_EACH, subscribed, told));
    }
    let all = usize::try_from(CLIENTS).unwrap();
    while subscribed.load(Ordering::Relaxed) < all {
        assert!(started.elapsed() < 3 * DEADLINE, "not all are subscribed");
        std::thread::sleep(Duration::from_millis(20));
    }
    let subscribing = started.elapsed();
    let (with_all, _) = used(&node);
    let mut round = || {
        let outputs = (0..CLIENTS).map(|n| TxOut {
            value: Amount::from_sat(1_000),
            script_pubkey: script(n * SCRIPTS_EACH),
        });
        let block = chain.mine_outputs(outputs.collect(), vec![]).clone();
        let started = Instant::now();
        peer.push_block(&block);
        let (mut tip, mut state) = (started, started);
        for _ in 0..2 * CLIENTS {
            let next = runtime.block_on(async { timeout(DEADLINE, heard.recv()).await });
            match next.expect("all are told").unwrap() {
                ("tip", at) => tip = tip.max(at),
                (_, at) => state = state.max(at),
            }
        }
        (tip - started, state - started)
    };
    let mut report = |node: &PulseNode, who: &str| {
        let (_, before) = used(node);
        let mut rounds: Vec<_> = (0..ROUNDS).map(|_| round()).collect();
        let (_, spent) = used(node);
        rounds.sort_by_key(|(_, state)| *state);
        let (tip, state) = rounds[ROUNDS / 2];
        let (least, most) = (rounds[0].1, rounds[ROUNDS - 1].1);
        println!(
            "{who}: last client told of its script {state:.0?} ({least:.0?} to {most:.0?}) after the peer sent the block, of the tip {tip:.0?}; the median of {ROUNDS} blocks, {:.2} s of processor for all",
            spent - before
        );
    };
    report(&node, "alone");
    let asking = runtime.spawn(deaf(addr));
    node.wait_until("the deaf one is served", DEADLINE, |node| {
        let metrics = node.get("/metrics");
        metrics
            .text()
            .contains("pulse_push_connections{transport=\"ws\"} 1001")
    });
    report(
        &node,
        "beside a client that asks for 10,000 states again and again",
    );
    node.wait_until("the deaf one takes nothing more", DEADLINE, |node| {
        let (_, before) = used(node);
        std::thread::sleep(Duration::from_millis(300));
        used(node).1 - before < 0.05
    });
    report(&node, "beside a client that takes nothing");
    let connected = "pulse_push_connections{transport=\"ws\"} 1001";
    assert!(
        node.get("/metrics").text().contains(connected),
        "it was cut off before the end"
    );
    asking.abort();
    report(&node, "alone again");
    let (after, _) = used(&node);
    println!("{after} MiB in the end");
    println!(
        "{CLIENTS} WebSocket clients, {} subscriptions: {before} MiB before, {with_all} MiB with them; subscribed in {subscribing:.1?}",
        CLIENTS * (SCRIPTS_EACH + 1),
    );
    println!(
        "load: {}",
        fs::read_to_string("/proc/loadavg").unwrap().trim()
    );
}
