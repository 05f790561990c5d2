//! Seeds by names, with dnsmasq as the name server.

use std::{
    env, fs,
    net::{SocketAddr, UdpSocket},
    process::{Child, Command, Stdio},
};

use super::{Fleet, PulseNode, address, options, siblings, wait_for_siblings};

/// A running dnsmasq with records that can be changed.
struct NameServer {
    dnsmasq: &'static str,
    process: Child,
    addr: SocketAddr,
    dir: tempfile::TempDir,
}

impl NameServer {
    /// `None` where dnsmasq is not installed: the test is skipped, and fails with `CI=true`.
    #[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn start(records: &[String]) -> Option<Self> {
        // Debian has it where only root's path leads.
        let places = ["dnsmasq", "/usr/sbin/dnsmasq"];
        let runs = |place: &&str| Command::new(place).arg("--version").output().is_ok();
        let Some(dnsmasq) = places.into_iter().find(runs) else {
            let required = env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(!required, "dnsmasq is not installed");
            eprintln!("skipped: dnsmasq is not installed (ci/setup-tests.sh does it)");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let addr = UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let process = spawn(dnsmasq, addr, &dir, records);
        Some(Self {
            dnsmasq,
            process,
            addr,
            dir,
        })
    }

    /// The name server of somebody who scales his group: other records from now on.
    fn set(&mut self, records: &[String]) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.process = spawn(self.dnsmasq, self.addr, &self.dir, records);
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(dnsmasq: &str, addr: SocketAddr, dir: &tempfile::TempDir, records: &[String]) -> Child {
    let config = dir.path().join("dnsmasq.conf");
    let mut text = format!(
        "port={}\nlisten-address={}\nbind-interfaces\nno-resolv\nno-hosts\nlocal=/test/\n",
        addr.port(),
        addr.ip()
    );
    for record in records {
        text.push_str(record);
        text.push('\n');
    }
    fs::write(&config, text).unwrap();
    let log = fs::File::create(dir.path().join("log")).unwrap();
    Command::new(dnsmasq)
        .args(["--keep-in-foreground", "--user=", "--group=", "--pid-file="])
        .arg(format!("--conf-file={}", config.display()))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Where a node listens over TCP, as an IP address and a port.
fn place(node: &PulseNode) -> (String, String) {
    let addr = address(node);
    let parts: Vec<_> = addr.split('/').collect();
    (parts[2].to_owned(), parts[4].to_owned())
}

#[test]
fn a_node_finds_siblings_as_their_names_get_records() {
    let fleet = Fleet::new("bb");
    // Nobody is anybody's seed but the one that asks for names.
    let mut group: Vec<_> = (0..3).map(|_| fleet.node(&[]).start()).collect();
    let places: Vec<_> = group.iter().map(place).collect();
    let ports = places.iter().map(|(_, port)| port);
    let [by_a, by_srv, by_txt] = ports.collect::<Vec<_>>()[..] else {
        unreachable!("there are three");
    };
    let mut records = Vec::new();
    let Some(mut names) = NameServer::start(&records) else {
        return;
    };
    let seeds =
        format!("[\"nodes.test:{by_a}\", \"_pulse._tcp.nodes.test\", \"/dnsaddr/more.test\"]");
    let mut node = fleet
        .node(&[])
        .env("PULSE_FLEET__SEEDS", &seeds)
        .env("PULSE_FLEET__RESOLVER", &names.addr.to_string())
        .start();
    assert_eq!(siblings(&node, "connected"), [""; 0]);
    let steps = [
        vec!["host-record=nodes.test,127.0.0.1".to_owned()],
        vec![
            "host-record=second.test,127.0.0.1".to_owned(),
            format!("srv-host=_pulse._tcp.nodes.test,second.test,{by_srv}"),
        ],
        vec![format!(
            "txt-record=_dnsaddr.more.test,\"dnsaddr=/ip4/127.0.0.1/tcp/{by_txt}\""
        )],
    ];
    for (number, step) in steps.into_iter().enumerate() {
        records.extend(step);
        names.set(&records);
        let known: Vec<_> = group.iter().take(number + 1).collect();
        wait_for_siblings(&mut node, &known);
    }
    // Who is found tells the others.
    let (last, others) = group.split_last_mut().unwrap();
    wait_for_siblings(last, &[&others[0], &others[1], &node]);
}

#[test]
fn a_resolver_that_is_no_address_stops_the_start() {
    let exit = options("regtest")
        .env("PULSE_FLEET__LISTEN", "127.0.0.1:0")
        .env("PULSE_FLEET__RESOLVER", "nodes.test")
        .args(["config"])
        .run_to_exit(super::DEADLINE);
    assert!(!exit.status.success());
    assert!(exit.stderr.contains("fleet.resolver"), "{}", exit.stderr);
}
