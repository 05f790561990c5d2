//! A real Bitcoin Core beside the node, for comparisons by hand: the binary that the
//! environment names, on regtest, driven through its RPC.

use std::{
    env, fmt, fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use base64::prelude::{BASE64_STANDARD, Engine};
use bitcoin::{Block, BlockHash, consensus::encode::serialize_hex};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Variable that holds the path of `bitcoind`.
pub const BITCOIND: &str = "BITCOIND";
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A running `bitcoind`; stopped when dropped.
#[derive(Debug)]
pub struct Bitcoind {
    child: Child,
    agent: ureq::Agent,
    url: String,
    cookie: String,
    p2p: SocketAddr,
    rpc: SocketAddr,
    dir: TempDir,
}

/// What its RPC said instead of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcError {
    /// Code.
    pub code: i64,
    /// Text.
    pub message: String,
}

impl fmt::Display for RpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

/// Where `bitcoind` is, if the environment says so.
#[must_use]
pub fn path_from_env() -> Option<PathBuf> {
    env::var_os(BITCOIND).map(PathBuf::from)
}

impl Bitcoind {
    /// Starts the one that `BITCOIND` names, with mainnet's policy, and waits for its RPC.
    ///
    /// # Panics
    /// If the variable is not set, or it does not start.
    #[must_use]
    pub fn start(args: &[&str]) -> Self {
        let path = path_from_env().expect("BITCOIND=/path/to/bitcoind");
        let dir = TempDir::new().expect("a temporary directory");
        let (rpc, p2p) = (free_port(), free_port());
        let child = Command::new(&path)
            .arg(format!("-datadir={}", dir.path().display()))
            .args(["-regtest", "-server=1", "-dnsseed=0", "-fixedseeds=0"])
            .args(["-listen=1", "-acceptnonstdtxn=0", "-printtoconsole=0"])
            .args([format!("-rpcport={}", rpc.port()), format!("-bind={p2p}")])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|err| panic!("starting {}: {err}", path.display()));
        let mut bitcoind = Self {
            child,
            agent: ureq::Agent::config_builder()
                .http_status_as_error(false)
                .timeout_global(Some(Duration::from_secs(120)))
                .build()
                .into(),
            url: format!("http://{rpc}/"),
            cookie: String::new(),
            p2p,
            rpc,
            dir,
        };
        bitcoind.wait_for_rpc();
        bitcoind
    }

    fn wait_for_rpc(&mut self) {
        let deadline = Instant::now() + START_TIMEOUT;
        let file = self.dir.path().join("regtest/.cookie");
        loop {
            if let Ok(cookie) = fs::read_to_string(&file) {
                self.cookie = cookie;
                if matches!(self.try_post("getblockcount", &json!([])), Ok(Ok(_))) {
                    return;
                }
            }
            assert!(
                Instant::now() < deadline && self.child.try_wait().expect("our child").is_none(),
                "bitcoind does not answer; its log is {}",
                self.dir.path().join("regtest/debug.log").display()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Where its RPC listens.
    #[must_use]
    pub fn rpc_addr(&self) -> SocketAddr {
        self.rpc
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where it takes connections of peers.
    #[must_use]
    pub fn p2p_addr(&self) -> SocketAddr {
        self.p2p
    }

    /// Calls its RPC.
    ///
    /// # Errors
    /// [`RpcError`]: its refusal.
    ///
    /// # Panics
    /// If it cannot be reached.
    pub fn try_call(&self, method: &str, params: &Value) -> Result<Value, RpcError> {
        self.try_post(method, params)
            .unwrap_or_else(|err| panic!("{method}: {err}"))
    }

    /// Calls its RPC.
    ///
    /// # Panics
    /// If it refuses.
    #[must_use]
    pub fn call(&self, method: &str, params: &Value) -> Value {
        self.try_call(method, params)
            .unwrap_or_else(|err| panic!("{method}: {err}"))
    }

    fn try_post(
        &self,
        method: &str,
        params: &Value,
    ) -> Result<Result<Value, RpcError>, ureq::Error> {
        let body = json!({"jsonrpc": "1.0", "id": 0, "method": method, "params": params});
        let text = self
            .agent
            .post(&self.url)
            .header(
                "authorization",
                format!("Basic {}", BASE64_STANDARD.encode(&self.cookie)),
            )
            .send(body.to_string())?
            .body_mut()
            .with_config()
            .limit(64 << 20)
            .read_to_string()?;
        let reply: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(match &reply["error"] {
            Value::Null => Ok(reply["result"].clone()),
            error => Err(RpcError {
                code: error["code"].as_i64().unwrap_or(0),
                message: error["message"].as_str().unwrap_or_default().to_owned(),
            }),
        })
    }

    /// Hands it a block; `None` if it takes it, else its reason.
    #[must_use]
    pub fn submit_block(&self, block: &Block) -> Option<String> {
        let reply = self.call("submitblock", &json!([serialize_hex(block)]));
        reply.as_str().map(ToOwned::to_owned)
    }

    /// Hash of its tip.
    #[must_use]
    pub fn tip(&self) -> BlockHash {
        let hash = self.call("getbestblockhash", &json!([]));
        hash.as_str()
            .and_then(|hash| hash.parse().ok())
            .expect("a hash")
    }

    /// Waits until its tip is `hash`.
    ///
    /// # Panics
    /// If it takes too long.
    pub fn wait_for_tip(&self, hash: BlockHash, timeout: Duration) {
        self.wait_until(timeout, "the tip", |node| node.tip() == hash);
    }

    /// Waits until `condition`.
    ///
    /// # Panics
    /// If it takes too long.
    pub fn wait_until(&self, timeout: Duration, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + timeout;
        while !condition(self) {
            assert!(Instant::now() < deadline, "waiting for bitcoind: {what}");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Bitcoind {
    fn drop(&mut self) {
        // Its directory goes with it; a clean end is not needed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
}
