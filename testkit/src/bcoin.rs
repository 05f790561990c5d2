//! bcoin, a full node that shares no code with ours, as a peer: in memory, on regtest.
//!
//! It knows nothing of Taproot, `wtxidrelay` and `addrv2`, and takes segwit for inactive
//! on a young chain, so transactions for it have no witnesses.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use bitcoin::{BlockHash, PubkeyHash, Transaction, consensus::encode::serialize_hex};
use serde_json::{Value, json};

/// A running bcoin; ends when dropped.
#[derive(Debug)]
pub struct Bcoin {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    addr: SocketAddr,
}

impl Bcoin {
    /// Starts it. `None`, with a word on stderr, where it is not installed
    /// (`ci/setup-tests.sh`).
    ///
    /// # Panics
    /// If it is not installed and `CI` is `true`, or does not start.
    #[must_use]
    #[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
    pub fn start() -> Option<Self> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("bcoin");
        if !dir.join("node_modules/bcoin").exists() {
            let required = env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!required, "bcoin is not installed: run ci/setup-tests.sh");
            eprintln!("skipped: bcoin is not installed (ci/setup-tests.sh does it)");
            return None;
        }
        let (addr, http) = (free_addr(), free_addr());
        let script: PathBuf = dir.join("peer.js");
        let mut child = Command::new("node")
            .arg(script)
            .args([addr.port().to_string(), http.port().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node starts");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut bcoin = Self {
            child,
            input,
            output,
            addr,
        };
        assert_eq!(bcoin.read()["port"], addr.port(), "bcoin listens");
        Some(bcoin)
    }

    /// Where it takes connections of peers.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Mines blocks whose coinbases pay to a key; its tip then.
    pub fn mine(&mut self, count: u32, to: PubkeyHash) -> BlockHash {
        let tip = self.call(&json!(["mine", count, to.to_string()]));
        tip["hash"]
            .as_str()
            .and_then(|hash| hash.parse().ok())
            .unwrap_or_else(|| panic!("{tip}"))
    }

    /// Height and hash of its tip.
    pub fn tip(&mut self) -> (u64, BlockHash) {
        let tip = self.call(&json!(["tip"]));
        let hash = tip["hash"].as_str().and_then(|hash| hash.parse().ok());
        (
            tip["height"].as_u64().expect("a height"),
            hash.expect("a hash"),
        )
    }

    /// Puts a transaction in its mempool, for it to announce.
    ///
    /// # Panics
    /// If it refuses it.
    pub fn send(&mut self, tx: &Transaction) {
        let answer = self.call(&json!(["send", serialize_hex(tx)]));
        assert_eq!(answer, json!(tx.compute_txid().to_string()));
    }

    /// Whether its mempool has the transaction.
    pub fn has_tx(&mut self, tx: &Transaction) -> bool {
        let txid = json!(tx.compute_txid().to_string());
        self.call(&json!(["mempool"]))
            .as_array()
            .is_some_and(|txids| txids.contains(&txid))
    }

    /// Has it connect to a node.
    pub fn connect(&mut self, addr: SocketAddr) {
        let answer = self.call(&json!(["connect", addr.ip().to_string(), addr.port()]));
        assert_eq!(answer, json!(true));
    }

    /// Waits until `condition`.
    ///
    /// # Panics
    /// If it takes longer than a minute.
    pub fn wait_until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !condition(self) {
            assert!(Instant::now() < deadline, "waiting for bcoin: {what}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn call(&mut self, command: &Value) -> Value {
        writeln!(self.input, "{command}").expect("bcoin reads");
        self.read()
    }

    fn read(&mut self) -> Value {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("bcoin answers");
        serde_json::from_str(&line).unwrap_or_else(|err| panic!("{err}: {line:?}"))
    }
}

impl Drop for Bcoin {
    fn drop(&mut self) {
        // It holds nothing that is worth a clean end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_addr() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
}
