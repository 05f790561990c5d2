//! Starts the built `pulse-node` and watches it from outside, as an operator would.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use bitcoin::BlockHash;
use pulse_primitives::Height;
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, de::DeserializeOwned};
use tempfile::TempDir;

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);
/// Lines of the log that a failure shows.
const TAIL_LINES: usize = 60;
/// File in the data directory in which a node tells where it listens.
const LISTEN_FILE: &str = "listen.json";

/// How to start a node.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    binary: PathBuf,
    data_dir: Option<PathBuf>,
    args: Vec<String>,
    envs: Vec<(String, String)>,
    http_addr: SocketAddr,
    netns: Option<String>,
    start_timeout: Duration,
}

impl NodeOptions {
    /// A node of the binary at this path (`env!("CARGO_BIN_EXE_pulse-node")`), on
    /// mainnet unless told otherwise, in a temporary directory.
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            data_dir: None,
            args: Vec::new(),
            envs: Vec::new(),
            http_addr: ([127, 0, 0, 1], 0).into(),
            netns: None,
            start_timeout: Duration::from_secs(60),
        }
    }

    /// `--network`, with no minimum of work, since test chains have little.
    #[must_use]
    pub fn network(self, name: &str) -> Self {
        self.args(["--network", name, "--min-chain-work", "0"])
    }

    /// `--connect`.
    #[must_use]
    pub fn connect(self, addr: SocketAddr) -> Self {
        self.args(["--connect", &addr.to_string()])
    }

    /// An existing data directory, which is left in place at the end.
    #[must_use]
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(path.into());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.args.extend(args.into_iter().map(str::to_owned));
        self
    }

    /// A variable of the environment. Variables `PULSE_*` of the test are not inherited.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.envs.push((name.to_owned(), value.to_owned()));
        self
    }

    /// `--http-addr`; otherwise a free port of the loopback interface.
    #[must_use]
    pub fn http_addr(mut self, addr: SocketAddr) -> Self {
        self.http_addr = addr;
        self
    }

    /// Runs in this network namespace, which needs the rights of root. The address of the
    /// HTTP API has to be one that the test reaches.
    #[must_use]
    pub fn netns(mut self, name: &str) -> Self {
        self.netns = Some(name.to_owned());
        self
    }

    /// Starts the node and waits until it is open.
    ///
    /// # Panics
    /// If it ends instead, or takes longer than a minute; the end of its log is shown.
    #[must_use]
    pub fn start(self) -> PulseNode {
        let timeout = self.start_timeout;
        let node = self.start_listening();
        let deadline = Instant::now() + timeout;
        while node.is_starting() {
            assert!(
                Instant::now() < deadline,
                "the node does not open\n{}",
                node.log_tail()
            );
            thread::sleep(POLL);
        }
        node
    }

    /// Starts the node and waits until it listens, which it does before it is open.
    ///
    /// # Panics
    /// As [`NodeOptions::start`].
    #[must_use]
    pub fn start_listening(self) -> PulseNode {
        let (temp_dir, data_dir) = self.make_data_dir();
        let log = data_dir.with_extension("log");
        let listen = data_dir.join(LISTEN_FILE);
        if listen.exists() {
            fs::remove_file(&listen).expect("the old listen.json can be removed");
        }
        let log_file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("the log can be written");
        let mut child = self
            .command(&data_dir)
            .args(["--http-addr", &self.http_addr.to_string()])
            .stdin(Stdio::null())
            .stdout(log_file.try_clone().expect("the log can be shared"))
            .stderr(log_file)
            .spawn()
            .unwrap_or_else(|err| panic!("starting {}: {err}", self.binary.display()));
        let deadline = Instant::now() + self.start_timeout;
        let listen = loop {
            if let Some(listen) = read_listen(&listen, child.id()) {
                break listen;
            }
            if let Some(status) = child.try_wait().expect("it is our child") {
                panic!("the node ended with {status}\n{}", tail(&log));
            }
            if Instant::now() > deadline {
                // It is in the way of nobody if this fails.
                let _ = child.kill();
                let _ = child.wait();
                panic!("the node does not listen\n{}", tail(&log));
            }
            thread::sleep(POLL);
        };
        PulseNode {
            child: Some(child),
            agent: agent(),
            listen,
            data_dir,
            log,
            _temp_dir: temp_dir,
            options: self,
        }
    }

    /// Runs the binary until it ends, for starts that are to fail and for commands that
    /// end by themselves. Nothing is added to the arguments but `--data-dir`.
    ///
    /// # Panics
    /// If it does not end within `timeout`.
    #[must_use]
    pub fn run_to_exit(self, timeout: Duration) -> Exit {
        let (_temp_dir, data_dir) = self.make_data_dir();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = |name: &str| {
            let path = dir.path().join(name);
            (
                File::create(&path).expect("a file in a temporary directory"),
                path,
            )
        };
        let (stdout, stdout_path) = file("stdout");
        let (stderr, stderr_path) = file("stderr");
        let started = Instant::now();
        let mut child = self
            .command(&data_dir)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|err| panic!("starting {}: {err}", self.binary.display()));
        let status = wait(&mut child, timeout);
        if status.is_none() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let read =
            |path: &Path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into();
        let exit = |status| Exit {
            status,
            elapsed: started.elapsed(),
            stdout: read(&stdout_path),
            stderr: read(&stderr_path),
        };
        match status {
            Some(status) => exit(status),
            None => panic!("still running after {timeout:?}\n{}", tail(&stderr_path)),
        }
    }

    fn make_data_dir(&self) -> (Option<TempDir>, PathBuf) {
        if let Some(path) = &self.data_dir {
            return (None, path.clone());
        }
        let temp_dir = tempfile::tempdir().expect("a temporary directory");
        let data_dir = temp_dir.path().join("node");
        (Some(temp_dir), data_dir)
    }

    fn command(&self, data_dir: &Path) -> Command {
        let mut command = match &self.netns {
            None => Command::new(&self.binary),
            Some(netns) => {
                // It becomes the node: the process stays the same.
                let mut command = Command::new("ip");
                command.args(["netns", "exec", netns]).arg(&self.binary);
                command
            }
        };
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PULSE_") {
                command.env_remove(name);
            }
        }
        command
            .envs(self.envs.iter().map(|(name, value)| (name, value)))
            .arg("--data-dir")
            .arg(data_dir)
            .args(&self.args);
        command
    }
}

/// How a process ended.
#[derive(Debug)]
pub struct Exit {
    /// Its status.
    pub status: ExitStatus,
    /// How long it took.
    pub elapsed: Duration,
    /// What it wrote to standard output; empty for a node that was started.
    pub stdout: String,
    /// What it wrote to standard error; for a node that was started, its whole log.
    pub stderr: String,
}

/// Where a node says that it listens.
#[derive(Debug, Clone, Deserialize)]
struct Listen {
    http: SocketAddr,
    ops: Option<SocketAddr>,
    p2p: Option<SocketAddr>,
    #[serde(default)]
    electrum: BTreeMap<String, SocketAddr>,
    pid: u32,
}

/// An answer of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
    /// Value of `Retry-After`, if given.
    pub retry_after: Option<String>,
    /// Value of `Content-Type`, if given.
    pub content_type: Option<String>,
}

impl Reply {
    /// The body as text.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is not the JSON of a `T`.
    #[must_use]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|err| {
            let body = String::from_utf8_lossy(&self.body);
            panic!("status {}: {err} in {body:.400}", self.status)
        })
    }
}

/// An answer of the node with all its headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: BTreeMap<String, String>,
    /// Body, not decompressed.
    pub body: Vec<u8>,
}

impl Answer {
    fn of(mut response: ureq::http::Response<ureq::Body>) -> Result<Self, ureq::Error> {
        let headers = response.headers().iter();
        let headers = headers.filter_map(|(name, value)| {
            let value = value.to_str().ok()?;
            Some((name.as_str().to_owned(), value.to_owned()))
        });
        Ok(Self {
            status: response.status().as_u16(),
            headers: headers.collect(),
            body: response.body_mut().read_to_vec()?,
        })
    }

    /// Value of a header, by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The body as text; bytes that are none are shown as hex.
    #[must_use]
    pub fn shown(&self) -> String {
        match std::str::from_utf8(&self.body) {
            Ok(text) if !text.contains('\0') => text.to_owned(),
            _ => self.body.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

/// A running node. Killed when dropped; after a panic, the end of its log is printed.
#[derive(Debug)]
pub struct PulseNode {
    child: Option<Child>,
    agent: ureq::Agent,
    listen: Listen,
    data_dir: PathBuf,
    log: PathBuf,
    _temp_dir: Option<TempDir>,
    options: NodeOptions,
}

impl PulseNode {
    /// Address of the HTTP API.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.listen.http
    }

    /// Where it takes connections of peers, if it was told to listen.
    #[must_use]
    pub fn p2p_addr(&self) -> Option<SocketAddr> {
        self.listen.p2p
    }

    /// Where Electrum clients are served over a transport (`tcp`, `tls`, `ws`, `wss`), if
    /// they are.
    #[must_use]
    pub fn electrum_addr(&self, transport: &str) -> Option<SocketAddr> {
        self.listen.electrum.get(transport).copied()
    }

    /// Address of the operators' listener, if the node has one.
    #[must_use]
    pub fn ops_addr(&self) -> Option<SocketAddr> {
        self.listen.ops
    }

    /// Base URL of the API, for clients.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("http://{}/api", self.listen.http)
    }

    /// The data directory. It lives as long as this value if it is a temporary one.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Id of the process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.listen.pid
    }

    /// Gets a path (with its leading `/`) from the HTTP listener.
    ///
    /// # Panics
    /// If there is no answer within ten seconds.
    #[must_use]
    pub fn get(&self, path: &str) -> Reply {
        self.try_get(path)
            .unwrap_or_else(|err| panic!("GET {path}: {err}\n{}", self.log_tail()))
    }

    /// As [`PulseNode::get`], from a node that may not be there.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn try_get(&self, path: &str) -> Result<Reply, ureq::Error> {
        get(&self.agent, self.listen.http, path)
    }

    /// Whether it listens and is not open yet.
    ///
    /// # Panics
    /// If it ends.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        let reply = self.get("/health");
        reply.status == 503 && reply.text().contains("the node is starting")
    }

    /// Posts a body to a path of the HTTP listener.
    ///
    /// # Panics
    /// If there is no answer within ten seconds.
    #[must_use]
    pub fn post(&self, path: &str, body: &str) -> Reply {
        let url = format!("http://{}{path}", self.listen.http);
        self.agent
            .post(url)
            .send(body)
            .and_then(reply)
            .unwrap_or_else(|err| panic!("POST {path}: {err}\n{}", self.log_tail()))
    }

    /// Sends any request to the HTTP listener and gives the whole answer.
    ///
    /// # Panics
    /// As [`PulseNode::get`].
    #[must_use]
    pub fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let url = format!("http://{}{path}", self.listen.http);
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("the request is one");
        let answer = match body.is_empty() {
            true => self.agent.run(request),
            false => self.agent.run(request.map(|()| body)),
        };
        answer
            .and_then(Answer::of)
            .unwrap_or_else(|err| panic!("{method} {path}: {err}\n{}", self.log_tail()))
    }

    /// As [`PulseNode::get`], from the operators' listener if there is one.
    #[must_use]
    pub fn get_ops(&self, path: &str) -> Reply {
        let addr = self.listen.ops.unwrap_or(self.listen.http);
        get(&self.agent, addr, path)
            .unwrap_or_else(|err| panic!("GET {path}: {err}\n{}", self.log_tail()))
    }

    /// Posts a body to a path of the operators' listener.
    ///
    /// # Panics
    /// If there is none, or no answer within ten seconds.
    #[must_use]
    pub fn post_ops(&self, path: &str, body: &str) -> Reply {
        self.agent
            .post(self.ops_url(path))
            .send(body)
            .and_then(reply)
            .unwrap_or_else(|err| panic!("POST {path}: {err}\n{}", self.log_tail()))
    }

    /// Sends DELETE for a path of the operators' listener.
    ///
    /// # Panics
    /// As [`PulseNode::post_ops`].
    #[must_use]
    pub fn delete_ops(&self, path: &str) -> Reply {
        self.agent
            .delete(self.ops_url(path))
            .call()
            .and_then(reply)
            .unwrap_or_else(|err| panic!("DELETE {path}: {err}\n{}", self.log_tail()))
    }

    fn ops_url(&self, path: &str) -> String {
        let addr = self
            .listen
            .ops
            .expect("the node has an operators' listener");
        format!("http://{addr}{path}")
    }

    /// Gets JSON from the API, with status 200.
    ///
    /// # Panics
    /// If the answer is anything else.
    #[must_use]
    pub fn get_json<T: DeserializeOwned>(&self, path: &str) -> T {
        let reply = self.get(path);
        assert_eq!(reply.status, 200, "GET {path}: {}", reply.text());
        reply.json()
    }

    /// Waits until `condition` holds.
    ///
    /// # Panics
    /// If it does not within `timeout`, or if the node ends; with `what` and the end of
    /// the log.
    pub fn wait_until(
        &mut self,
        what: &str,
        timeout: Duration,
        mut condition: impl FnMut(&Self) -> bool,
    ) {
        let deadline = Instant::now() + timeout;
        while !condition(self) {
            if let Some(status) = self.try_wait() {
                panic!(
                    "waiting for {what}: the node ended with {status}\n{}",
                    self.log_tail()
                );
            }
            assert!(
                Instant::now() < deadline,
                "waiting for {what}: not within {timeout:?}\n{}",
                self.log_tail()
            );
            thread::sleep(POLL);
        }
    }

    /// Waits until the node is synced (`/health` answers 200) with its tip at `height`.
    ///
    /// # Panics
    /// As [`PulseNode::wait_until`].
    pub fn wait_synced_to(&mut self, height: Height, timeout: Duration) {
        let wanted = height.to_string();
        self.wait_until(&format!("height {height}"), timeout, |node| {
            let is = |path: &str, text: Option<&str>| {
                node.try_get(path).is_ok_and(|reply| {
                    reply.status == 200 && text.is_none_or(|text| reply.body == text.as_bytes())
                })
            };
            is("/api/blocks/tip/height", Some(&wanted)) && is("/health", None)
        });
    }

    /// Waits until the node is synced with this block as its tip.
    ///
    /// # Panics
    /// As [`PulseNode::wait_until`].
    pub fn wait_synced_to_hash(&mut self, hash: BlockHash, timeout: Duration) {
        let wanted = hash.to_string();
        self.wait_until(&format!("block {hash}"), timeout, |node| {
            node.try_get("/api/blocks/tip/hash")
                .is_ok_and(|reply| reply.status == 200 && reply.body == wanted.as_bytes())
                && node
                    .try_get("/health")
                    .is_ok_and(|reply| reply.status == 200)
        });
    }

    /// Height of the tip as the API tells it; `None` if it does not (yet).
    #[must_use]
    pub fn tip_height(&self) -> Option<Height> {
        let reply = (self.try_get("/api/blocks/tip/height?partial=true")).ok()?;
        (reply.status == 200).then(|| reply.text().parse().expect("a height"))
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Panics
    /// If it does not come within `timeout`.
    pub fn terminate(&mut self, timeout: Duration) -> Exit {
        self.end(Some(Signal::TERM), timeout)
    }

    /// Sends SIGINT and waits for the end.
    ///
    /// # Panics
    /// If it does not come within `timeout`.
    pub fn interrupt(&mut self, timeout: Duration) -> Exit {
        self.end(Some(Signal::INT), timeout)
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) -> Exit {
        self.end(Some(Signal::KILL), Duration::from_secs(30))
    }

    /// Waits until the node has ended by itself.
    ///
    /// # Panics
    /// If it does not within `timeout`.
    pub fn wait_end(&mut self, timeout: Duration) -> Exit {
        self.end(None, timeout)
    }

    /// Starts the node anew in the same directory with the same arguments, once it has
    /// ended.
    ///
    /// # Panics
    /// If it still runs, or as [`NodeOptions::start`].
    #[must_use]
    pub fn restart(mut self) -> Self {
        assert!(self.child.is_none(), "the node still runs");
        let mut options = self.options.clone();
        options.data_dir = Some(self.data_dir.clone());
        let temp_dir = self._temp_dir.take();
        let mut node = options.start();
        node._temp_dir = temp_dir;
        node
    }

    /// As [`PulseNode::restart`], with other options (whose directory is ignored).
    #[must_use]
    pub fn restart_with(mut self, options: NodeOptions) -> Self {
        let data_dir = self.data_dir.clone();
        self.options = options.data_dir(data_dir);
        self.restart()
    }

    /// Everything that the node has written to standard output and standard error.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into()
    }

    /// The last lines of it.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }

    /// The exit status if the node has ended.
    pub fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.as_mut()?.try_wait().expect("it is our child")
    }

    fn end(&mut self, signal: Option<Signal>, timeout: Duration) -> Exit {
        let mut child = self.child.take().expect("the node runs");
        let started = Instant::now();
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        if let Some(signal) = signal {
            // The process may have ended by itself.
            let _ = kill_process(pid.expect("a process id"), signal);
        }
        let Some(status) = wait(&mut child, timeout) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!(
                "still running {timeout:?} after {signal:?}\n{}",
                self.log_tail()
            );
        };
        Exit {
            status,
            elapsed: started.elapsed(),
            stdout: String::new(),
            stderr: self.log(),
        }
    }
}

impl Drop for PulseNode {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        #[allow(clippy::print_stderr)] // the test harness shows it with the failed test
        if thread::panicking() {
            eprintln!("log of the node:\n{}", self.log_tail());
        }
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(10)))
        .build()
        .into()
}

fn get(agent: &ureq::Agent, addr: SocketAddr, path: &str) -> Result<Reply, ureq::Error> {
    agent
        .get(format!("http://{addr}{path}"))
        .call()
        .and_then(reply)
}

fn reply(mut response: ureq::http::Response<ureq::Body>) -> Result<Reply, ureq::Error> {
    let header = |name: &str| {
        let value = response.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let (retry_after, content_type) = (header("retry-after"), header("content-type"));
    Ok(Reply {
        status: response.status().as_u16(),
        retry_after,
        content_type,
        body: response
            .body_mut()
            .with_config()
            .limit(64 << 20)
            .read_to_vec()?,
    })
}

/// The file's content, if it is complete and of this process.
fn read_listen(path: &Path, pid: u32) -> Option<Listen> {
    let listen: Listen = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (listen.pid == pid).then_some(listen)
}

fn wait(child: &mut Child, timeout: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + timeout;
    loop {
        let status: io::Result<Option<ExitStatus>> = child.try_wait();
        if let Some(status) = status.expect("it is our child") {
            return Some(status);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(POLL);
    }
}

fn tail(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
