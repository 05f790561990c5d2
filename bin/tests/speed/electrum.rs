//! 10,000 Electrum connections with 100,000 subscriptions, one block that touches 5,000 of
//! them, and a client that reads nothing.
//!
//! Each connection needs a file descriptor here and one in the node: `ulimit -n 12000`.

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use pulse_primitives::bitcoin::{
    Amount, Network, ScriptBuf, TxOut, WPubkeyHash,
    hashes::{Hash, sha256},
};
use pulse_testkit::{ChainBuilder, ScriptedPeer};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::mpsc,
    time::timeout,
};

use crate::e2e::common::{DEADLINE, options, params, served};

const CONNECTIONS: u32 = 10_000;
const SCRIPTS_EACH: u32 = 10;
const TOUCHED: u32 = 5_000;

fn script(n: u32) -> ScriptBuf {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&n.to_le_bytes());
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array(bytes))
}

fn name(n: u32) -> String {
    let mut hash = sha256::Hash::hash(script(n).as_bytes()).to_byte_array();
    hash.reverse();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn resident_mib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024
}

/// Subscribes, then reports each notification.
async fn client(
    addr: SocketAddr,
    first: u32,
    subscribed: Arc<AtomicUsize>,
    told: mpsc::UnboundedSender<Instant>,
) {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let calls: Vec<String> = (first..first + SCRIPTS_EACH)
        .map(|n| {
            let name = name(n);
            format!(
                r#"{{"id":{n},"method":"blockchain.scripthash.subscribe","params":["{name}"]}}"#
            )
        })
        .collect();
    let batch = format!("[{}]\n", calls.join(","));
    stream.write_all(batch.as_bytes()).await.unwrap();
    let mut lines = BufReader::with_capacity(1024, stream).lines();
    let answer = lines.next_line().await.unwrap().unwrap();
    assert!(!answer.contains("error"), "{answer}");
    subscribed.fetch_add(1, Ordering::Relaxed);
    while let Ok(Some(line)) = lines.next_line().await {
        assert!(line.contains("subscribe"), "{line}");
        if told.send(Instant::now()).is_err() {
            return;
        }
    }
}

#[test]
#[ignore = "needs 20,000 file descriptors and some minutes"]
#[allow(clippy::print_stdout, reason = "a measurement")]
fn ten_thousand_connections_are_told_of_a_block() {
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    chain.mine_empty_blocks(10);
    let peer = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
    let mut node = options("regtest")
        .connect(peer.addr())
        .env("PULSE_ELECTRUM__ADDR", "127.0.0.1:0")
        .env("PULSE_ELECTRUM__MAX_CONNECTIONS", "20000")
        .env("PULSE_ELECTRUM__MAX_CONNECTIONS_PER_ADDRESS", "0")
        .start();
    node.wait_synced_to(10, DEADLINE);
    let addr = node.electrum_addr("tcp").unwrap();
    let before = resident_mib(node.pid());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (told, mut heard) = mpsc::unbounded_channel();
    let subscribed = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    for n in 0..CONNECTIONS {
        let (subscribed, told) = (Arc::clone(&subscribed), told.clone());
        runtime.spawn(client(addr, n * SCRIPTS_EACH, subscribed, told));
    }
    let all = usize::try_from(CONNECTIONS).unwrap();
    while subscribed.load(Ordering::Relaxed) < all {
        assert!(started.elapsed() < 3 * DEADLINE, "not all are subscribed");
        std::thread::sleep(Duration::from_millis(20));
    }
    let subscribing = started.elapsed();
    let with_all = resident_mib(node.pid());

    let step = CONNECTIONS * SCRIPTS_EACH / TOUCHED;
    let outputs = (0..TOUCHED).map(|n| TxOut {
        value: Amount::from_sat(1_000),
        script_pubkey: script(n * step),
    });
    let block = chain.mine_outputs(outputs.collect(), vec![]).clone();
    let started = Instant::now();
    peer.push_block(&block);
    node.wait_until("the block", DEADLINE, |node| node.tip_height() == Some(11));
    let indexed = Instant::now();
    let mut last = started;
    for _ in 0..TOUCHED {
        let next = runtime.block_on(async { timeout(DEADLINE, heard.recv()).await });
        last = last.max(next.expect("all are told").unwrap());
    }
    println!(
        "{CONNECTIONS} connections, {} subscriptions: {before} MiB before, {with_all} MiB with them, {} MiB after the block; subscribed in {subscribing:.1?}",
        CONNECTIONS * SCRIPTS_EACH,
        resident_mib(node.pid()),
    );
    println!(
        "block with {TOUCHED} subscribed scripts: last client told {:.0?} after it was sent by the peer, {:.0?} after the REST tip (looked at every 20 ms)",
        last - started,
        last.saturating_duration_since(indexed),
    );
}
