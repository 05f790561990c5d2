//! The Electrum wallet without its windows: its own daemon, on regtest, with one server.

use std::{
    env,
    fs::{self, File},
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};
use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(120);
const USER: &str = "test";

/// A running daemon with one wallet; ends when dropped.
#[derive(Debug)]
pub struct ElectrumWallet {
    child: Child,
    agent: ureq::Agent,
    url: String,
    dir: TempDir,
}

impl ElectrumWallet {
    /// Starts it with the wallet of `key`, an extended key as Electrum writes it, and with
    /// `server` as its only server. `None`, with a word on stderr, where it is not installed
    /// (`ci/setup-tests.sh`).
    ///
    /// # Panics
    /// If it is not installed and `CI` is `true`, or does not start.
    #[must_use]
    #[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
    pub fn start(server: SocketAddr, tls: bool, key: &str) -> Option<Self> {
        let dir = TempDir::new().expect("a temporary directory");
        let rpc = free_addr();
        let config = json!({
            "rpcport": rpc.port(),
            "rpcuser": USER,
            "rpcpassword": USER,
            "server": format!("{server}:{}", if tls { "s" } else { "t" }),
            // The newest form: servers of older ones are taken for such with TLS.
            "config_version": 3,
            "oneserver": true,
            "auto_connect": false,
        });
        let home = dir.path().join("regtest");
        fs::create_dir(&home).expect("a directory");
        fs::write(home.join("config"), config.to_string()).expect("its configuration");
        let log = File::create(dir.path().join("log")).expect("its log");
        let started = Command::new("electrum")
            .args(["--regtest", "-v", "-D"])
            .arg(dir.path())
            .arg("daemon")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let child = match started {
            Ok(child) => child,
            Err(err) if err.kind() == ErrorKind::NotFound => {
                let required = env::var("CI").is_ok_and(|ci| ci == "true");
                assert!(
                    !required,
                    "electrum is not installed: run ci/setup-tests.sh"
                );
                eprintln!("skipped: electrum is not installed (ci/setup-tests.sh does it)");
                return None;
            }
            Err(err) => panic!("starting electrum: {err}"),
        };
        let mut wallet = Self {
            child,
            agent: ureq::Agent::config_builder()
                .timeout_global(Some(TIMEOUT))
                .build()
                .into(),
            url: format!("http://{rpc}/"),
            dir,
        };
        wallet.wait_for_rpc();
        let _ = wallet.call("restore", &json!({ "text": key }));
        let _ = wallet.call("load_wallet", &json!({}));
        Some(wallet)
    }

    fn wait_for_rpc(&mut self) {
        let deadline = Instant::now() + TIMEOUT;
        while self.try_call("getinfo", &json!({})).is_err() {
            let ended = self.child.try_wait().expect("our child");
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "electrum does not answer: {}",
                self.log()
            );
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Runs one of its commands.
    ///
    /// # Panics
    /// If it refuses.
    #[must_use]
    pub fn call(&self, command: &str, params: &Value) -> Value {
        let answer = self.try_call(command, params);
        let answer = answer.unwrap_or_else(|err| panic!("{command}: {err}\n{}", self.log()));
        assert!(
            answer.get("error").is_none(),
            "{command}: {answer}\n{}",
            self.log()
        );
        answer["result"].clone()
    }

    fn try_call(&self, command: &str, params: &Value) -> Result<Value, ureq::Error> {
        let request = json!({"id": 0, "method": command, "params": params});
        let credentials = BASE64_STANDARD.encode(format!("{USER}:{USER}"));
        let text = self
            .agent
            .post(&self.url)
            .header("authorization", format!("Basic {credentials}"))
            .send(request.to_string())?
            .body_mut()
            .read_to_string()?;
        Ok(serde_json::from_str(&text).expect("it answers with JSON"))
    }

    /// Waits until a command's result fulfils `condition`, and returns that result.
    ///
    /// # Panics
    /// If it takes too long.
    pub fn wait_until(
        &self,
        command: &str,
        params: &Value,
        condition: impl Fn(&Value) -> bool,
    ) -> Value {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let result = self.call(command, params);
            if condition(&result) {
                return result;
            }
            assert!(
                Instant::now() < deadline,
                "electrum's {command} stays {result}\n{}",
                self.log()
            );
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn log(&self) -> String {
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let from = log.len().saturating_sub(4_000);
        log.get(from..).unwrap_or_default().to_owned()
    }
}

impl Drop for ElectrumWallet {
    fn drop(&mut self) {
        // Its directory goes with it; a clean end is not needed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_addr() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
}
