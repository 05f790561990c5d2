//! Three nodes behind HAProxy, restarted one after the other while clients ask.

use std::{
    env, fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use pulse_primitives::bitcoin::{Amount, Network, consensus::encode::serialize_hex};
use pulse_testkit::{ChainBuilder, PulseNode, ScriptedPeer};

use super::{super::common::metric, DEADLINE, Fleet, Miner, params, served, wait_for_siblings};

/// As production has it, but for times that would make the test long, and for the limit per
/// client, as all clients here have one address.
const CONFIG: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../infra/edge/haproxy/haproxy.cfg"
);
const WAIT_FOR_NODE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../infra/edge/haproxy/wait-for-node.lua"
);
const CHANGES: [(&str, &str); 2] = [
    (
        "check inter 2s downinter 5s fastinter 2s ",
        "check inter 200ms downinter 200ms fastinter 200ms ",
    ),
    ("gt 1000 }", "gt 1000000 }"),
];
/// More than HAProxy needs to notice, with the times above.
const DRAIN_SECS: &str = "2";

/// Requests that only clients make.
const ASKED: &str = "pulse_rest_request_seconds_count{route=\"/blocks\"";

/// A running HAProxy.
struct Balancer {
    process: Child,
    addr: SocketAddr,
    dir: tempfile::TempDir,
}

impl Balancer {
    /// `None` where HAProxy is not installed: the test is skipped, and fails with `CI=true`.
    #[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn start(nodes: &[PulseNode]) -> Option<Self> {
        // Debian has it where only root's path leads.
        let places = ["haproxy", "/usr/sbin/haproxy"];
        let runs = |place: &&&str| Command::new(place).arg("-v").output().is_ok();
        let Some(haproxy) = places.iter().find(runs) else {
            let required = env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!required, "HAProxy is not installed");
            eprintln!("skipped: HAProxy is not installed (ci/setup-tests.sh does it)");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let mut config = fs::read_to_string(CONFIG).unwrap();
        for (from, to) in CHANGES {
            assert_eq!(config.matches(from).count(), 1, "{from}");
            config = config.replace(from, to);
        }
        let (path, certs) = (dir.path().join("haproxy.cfg"), dir.path().join("cert.pem"));
        fs::write(&path, config).unwrap();
        write_certificate(&certs);
        let addr = free_addr();
        let mut command = Command::new(haproxy);
        for (number, node) in nodes.iter().enumerate() {
            let name = format!("NODE_{}", number + 1);
            command.env(name, node.http_addr().to_string());
        }
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let process = command
            .env("PUBLIC_HTTP", addr.to_string())
            .env("PUBLIC_HTTPS", free_addr().to_string())
            .env("CERTS", &certs)
            .env("WAIT_FOR_NODE", WAIT_FOR_NODE)
            .arg("-db")
            .arg("-f")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Some(Self { process, addr, dir })
    }

    /// Fails with what it said if it has ended.
    fn assert_runs(&mut self) {
        if let Some(status) = self.process.try_wait().unwrap() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap();
            panic!("HAProxy ended with {status}:\n{log}");
        }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that nobody has at this moment.
fn free_addr() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// Certificate and key in one file.
fn write_certificate(path: &Path) {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let pem = format!(
        "{}{}",
        signed.cert.pem(),
        signed.signing_key.serialize_pem()
    );
    fs::write(path, pem).unwrap();
}

/// Clients that ask all the time, each over connections that it keeps.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    /// What each client asks for in turn, and the answer's begin.
    fn start(addr: SocketAddr, asked: &[(String, String)], posted: &str, txid: &str) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let clients = (0..4).map(|_| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            let (asked, posted, txid) = (asked.to_vec(), posted.to_owned(), txid.to_owned());
            thread::spawn(move || {
                let agent: ureq::Agent = ureq::Agent::config_builder()
                    .http_status_as_error(false)
                    .timeout_global(Some(Duration::from_secs(20)))
                    .build()
                    .into();
                let read = |response: Result<ureq::http::Response<ureq::Body>, ureq::Error>| {
                    let mut response = response.map_err(|err| err.to_string())?;
                    let body = response.body_mut().read_to_string();
                    let body = body.map_err(|err| err.to_string())?;
                    Ok::<_, String>((response.status().as_u16(), body))
                };
                let mut failures = Vec::new();
                while !stop.load(Ordering::Acquire) {
                    for (path, wanted) in &asked {
                        match read(agent.get(format!("http://{addr}{path}")).call()) {
                            Ok((200, body)) if body.starts_with(wanted) => {
                                answered.fetch_add(1, Ordering::Release);
                            }
                            other => failures.push(format!("GET {path}: {other:?}")),
                        }
                    }
                    match read(agent.post(format!("http://{addr}/tx")).send(&posted)) {
                        Ok((200, body)) if body == txid => {
                            answered.fetch_add(1, Ordering::Release);
                        }
                        other => failures.push(format!("POST /tx: {other:?}")),
                    }
                    // The machine has other tests to run.
                    thread::sleep(Duration::from_millis(2));
                }
                failures
            })
        });
        let clients = clients.collect();
        Self {
            stop,
            answered,
            clients,
        }
    }

    fn answered(&self) -> u64 {
        self.answered.load(Ordering::Acquire)
    }

    /// Waits for so many more answers.
    fn go_on(&self, count: u64) {
        let wanted = self.answered() + count;
        let deadline = std::time::Instant::now() + DEADLINE;
        while self.answered() < wanted {
            assert!(std::time::Instant::now() < deadline, "no answers");
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn stop(self) -> Vec<String> {
        self.stop.store(true, Ordering::Release);
        let clients = self.clients.into_iter();
        clients.flat_map(|client| client.join().unwrap()).collect()
    }
}

#[test]
fn a_rolling_restart_behind_a_balancer_fails_no_request() {
    let miner = Miner::new(110);
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    for _ in 0..110 {
        let script = miner.lock.script_pubkey(&miner.keys);
        chain.mine(&script, Amount::ZERO, Vec::new());
    }
    let peer = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
    let fleet = Fleet::new("88");
    let options = |seeds: &[&PulseNode]| {
        let options = fleet.node(seeds).connect(peer.addr());
        options.env("PULSE_NODE__DRAIN_SECS", DRAIN_SECS)
    };
    let first = options(&[]).start();
    let mut nodes = vec![
        options(&[&first]).start(),
        options(&[&first]).start(),
        first,
    ];
    for node in &mut nodes {
        node.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    }
    let [second, third, first] = nodes.as_mut_slice() else {
        unreachable!("there are three");
    };
    wait_for_siblings(first, &[second, third]);
    let confirmed = chain.blocks()[1].txdata[0].compute_txid();
    let tx = miner.spend(&chain.blocks()[1].txdata[0]);
    let (raw, txid) = (serialize_hex(&tx), tx.compute_txid().to_string());
    assert_eq!(first.post("/tx", &raw).status, 200);
    for node in &mut nodes {
        node.wait_until("the transaction", DEADLINE, |node| {
            node.get(&format!("/tx/{txid}")).status == 200
        });
    }
    let Some(mut balancer) = Balancer::start(&nodes) else {
        return;
    };
    let asked = [
        ("/blocks/tip/hash".to_owned(), chain.tip_hash().to_string()),
        ("/blocks".to_owned(), "[{".to_owned()),
        (format!("/tx/{confirmed}"), "{".to_owned()),
    ];
    // It answers as soon as it has found the nodes well.
    let agent = ureq::Agent::new_with_defaults();
    let url = format!("http://{}/blocks/tip/height", balancer.addr);
    nodes[0].wait_until("the balancer", DEADLINE, |_| {
        balancer.assert_runs();
        agent.get(&url).call().is_ok()
    });
    let load = Load::start(balancer.addr, &asked, &raw, &txid);
    load.go_on(50);
    for _ in 0..nodes.len() {
        let mut node = nodes.remove(0);
        let (addr, pid) = (node.http_addr(), node.pid());
        let exit = node.terminate(DEADLINE);
        assert!(exit.status.success(), "{}", exit.stderr);
        load.go_on(50);
        let seeds: Vec<_> = nodes.iter().collect();
        let options = options(&seeds).http_addr(addr);
        let mut node = node.restart_with(options);
        assert_ne!(node.pid(), pid);
        // HAProxy sends it clients again, and it has what the others had meanwhile.
        node.wait_until("clients", DEADLINE, |node| metric(node, ASKED) > 0.0);
        node.wait_until("the transaction", DEADLINE, |node| {
            node.get(&format!("/tx/{txid}")).status == 200
        });
        nodes.push(node);
    }
    let answered = load.answered();
    let failures = load.stop();
    assert!(
        failures.is_empty(),
        "{} of {answered}: {failures:#?}",
        failures.len()
    );
}
