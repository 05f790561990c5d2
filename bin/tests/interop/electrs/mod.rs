//! The same questions to this node and to electrs, which stands beside a `bitcoind` with the
//! same chain and mempool.
//!
//! `ELECTRS` names the binary of electrs. What differs is either a known difference, with a
//! name that docs/conformance.md explains, or fails the test.

mod electrum;
mod questions;
mod rest;

use std::{
    collections::BTreeMap,
    env,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use pulse_primitives::bitcoin::Txid;
use pulse_testkit::{Bitcoind, PulseNode};
use serde_json::json;
use tempfile::TempDir;

use super::{
    http,
    verbose::{both, txids},
};
use crate::e2e::common::options;

/// Longest wait for electrs, which reads all blocks and then the mempool.
const DEADLINE: Duration = Duration::from_secs(300);

/// A running electrs; ends when dropped.
struct Electrs {
    child: Child,
    rest: SocketAddr,
    electrum: SocketAddr,
    _dir: TempDir,
}

impl Electrs {
    fn start(bitcoind: &Bitcoind) -> Self {
        let binary = env::var_os("ELECTRS").expect("ELECTRS=/path/to/electrs");
        let dir = TempDir::new().unwrap();
        let [rest, electrum, monitoring] = [(); 3].map(|()| free_addr());
        let child = Command::new(PathBuf::from(binary))
            .args(["--network", "regtest", "--jsonrpc-import", "--cors", "*"])
            .arg("--daemon-dir")
            .arg(bitcoind.data_dir())
            .arg("--db-dir")
            .arg(dir.path())
            .args(["--daemon-rpc-addr", &bitcoind.rpc_addr().to_string()])
            .args(["--http-addr", &rest.to_string()])
            .args(["--electrum-rpc-addr", &electrum.to_string()])
            .args(["--monitoring-addr", &monitoring.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("electrs starts");
        Self {
            child,
            rest,
            electrum,
            _dir: dir,
        }
    }

    /// Waits until it knows the tip and the mempool of `bitcoind`.
    fn wait_synced(&mut self, bitcoind: &Bitcoind) {
        let deadline = Instant::now() + DEADLINE;
        let tip = bitcoind.tip().to_string();
        let sorted = |mut list: Vec<Txid>| {
            list.sort_unstable();
            list
        };
        let mempool = sorted(txids(&bitcoind.call("getrawmempool", &json!([]))));
        loop {
            let is_listening = std::net::TcpStream::connect(self.rest).is_ok();
            if is_listening {
                let mut client = http::Client::new(self.rest);
                let found = client.ask("GET", "/blocks/tip/hash", b"").text();
                let waiting = client.ask("GET", "/mempool/txids", b"").body;
                let waiting = serde_json::from_slice(&waiting).unwrap();
                if found == tip && sorted(txids(&waiting)) == mempool {
                    return;
                }
            }
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "electrs does not come to the tip ({ended:?})"
            );
            thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Electrs {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_addr() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0");
    listener.and_then(|bound| bound.local_addr()).unwrap()
}

/// All three, with the same chain and mempool.
struct Stage {
    bitcoind: Bitcoind,
    node: PulseNode,
    electrs: Electrs,
}

impl Stage {
    fn new(seed: u64) -> Self {
        let (bitcoind, node) = both(seed, |peer| {
            let options = options("regtest").connect(peer);
            options.env("PULSE_ELECTRUM__ADDR", "127.0.0.1:0").start()
        });
        let mut electrs = Electrs::start(&bitcoind);
        electrs.wait_synced(&bitcoind);
        Self {
            bitcoind,
            node,
            electrs,
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// What came of all questions.
#[derive(Default)]
struct Tally {
    asked: u64,
    same: u64,
    /// By kind of question: how many, and how many had the same answer.
    by_kind: BTreeMap<&'static str, (u64, u64)>,
    known: BTreeMap<&'static str, (u64, String)>,
    unknown: BTreeMap<String, (u64, String)>,
}

impl Tally {
    fn same(&mut self, kind: &'static str) {
        self.asked += 1;
        self.same += 1;
        let entry = self.by_kind.entry(kind).or_default();
        *entry = (entry.0 + 1, entry.1 + 1);
    }

    /// `known` is the name of the difference; without one, `detail` tells them apart.
    fn differs(
        &mut self,
        kind: &'static str,
        known: Option<&'static str>,
        detail: String,
        example: String,
    ) {
        self.asked += 1;
        self.by_kind.entry(kind).or_default().0 += 1;
        let entry = match known {
            Some(name) => self.known.entry(name).or_insert((0, example)),
            None => self
                .unknown
                .entry(format!("{kind} {detail}"))
                .or_insert((0, example)),
        };
        entry.0 += 1;
    }

    #[allow(clippy::print_stdout, reason = "the report is what the test is for")]
    fn report(&self) {
        println!("questions {} same {}", self.asked, self.same);
        println!("| question | asked | same |\n|---|---:|---:|");
        for (kind, (asked, same)) in &self.by_kind {
            println!("| `{kind}` | {asked} | {same} |");
        }
        println!("| known difference | answers | example |\n|---|---:|---|");
        for (name, (count, example)) in &self.known {
            println!("| {name} | {count} | {example:.300} |");
        }
        for (what, (count, example)) in &self.unknown {
            println!("NOT KNOWN {count:6} {what}\n    {example:.1500}");
        }
        assert!(
            self.unknown.is_empty(),
            "{} unknown differences",
            self.unknown.len()
        );
    }
}
