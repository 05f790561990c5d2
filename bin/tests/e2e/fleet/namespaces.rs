//! Nodes in network namespaces of their own, with a wire between them that is slow, loses packets
//! and breaks.

use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use pulse_primitives::bitcoin::Network;
use pulse_testkit::{ChainBuilder, NodeOptions, PulseNode, ScriptedPeer};

use super::{
    super::common::assert_gone, DEADLINE, Fleet, params, served, siblings, wait_for_siblings,
};

const WIRE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/fleet/wire.py");

/// The wire at work.
struct Wire {
    process: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    prefix: String,
    network: String,
}

impl Wire {
    /// `None` where namespaces are not to be had, for want of rights or of the kernel: the test is
    /// skipped then, and says so even where output is kept back. With `CI=true` it fails for want
    /// of the tools (`ip`, Python), which ci/setup-tests.sh installs, but not for want of rights,
    /// which no script can get.
    fn new(name: &str, count: usize) -> Option<Self> {
        let is_ci = env::var("CI").is_ok_and(|ci| ci == "true");
        let has = |tool: &str, arg: &str| Command::new(tool).arg(arg).output().is_ok();
        if !has("ip", "-V") || !has("python3", "--version") {
            assert!(!is_ci, "iproute2 and python3 are not installed");
            return skip("iproute2 or python3 is not installed (ci/setup-tests.sh does it)");
        }
        let prefix = format!("pulse-{name}-{}", std::process::id());
        let mut process = Command::new("python3")
            .args([WIRE, &prefix, &count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut wire = Self {
            commands: process.stdin.take(),
            answers: BufReader::new(process.stdout.take().unwrap()),
            process,
            prefix,
            network: String::new(),
        };
        let answer = wire.answer();
        match answer.split_once(' ') {
            Some(("ready", network)) => network.clone_into(&mut wire.network),
            _ => return skip(&format!("no network namespaces: {answer}")),
        }
        Some(wire)
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn tell(&mut self, command: &str) {
        let commands = self.commands.as_mut().unwrap();
        writeln!(commands, "{command}").unwrap();
        assert_eq!(self.answer(), "done", "{command}");
    }

    fn ip(&self, number: usize) -> String {
        format!("{}.{number}", self.network)
    }

    /// A node in the namespace with this number.
    fn within(&self, number: usize, options: NodeOptions) -> NodeOptions {
        let ip = self.ip(number);
        options
            .netns(&format!("{}-{number}", self.prefix))
            .http_addr(format!("{ip}:0").parse().unwrap())
            .env("PULSE_FLEET__LISTEN", &format!("{ip}:4001"))
    }

    /// Where peers of the nodes may listen, outside of the namespaces.
    fn outside(&self) -> std::net::SocketAddr {
        format!("{}:0", self.ip(254)).parse().unwrap()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // It takes the namespaces away when it hears no more.
        drop(self.commands.take());
        let _ = self.process.wait();
    }
}

fn skip<T>(why: &str) -> Option<T> {
    // Past the harness, which keeps what a test that passes prints.
    let _ = writeln!(io::stderr(), "SKIPPED {}: {why}", module_path!());
    None
}

#[test]
fn a_fleet_whose_wires_are_slow_lossy_and_cut_agrees_when_they_are_whole_again() {
    let Some(mut wire) = Wire::new("wan", 3) else {
        return;
    };
    // Both ways together, 200 ms; and a packet in twenty is lost.
    wire.tell("delay 100");
    wire.tell("lose 5");
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    chain.mine_empty_blocks(20);
    let peers = [(); 2].map(|()| {
        let chain = served(Network::Regtest, chain.blocks());
        ScriptedPeer::bind(wire.outside(), chain, &[]).unwrap()
    });
    let fleet = Fleet::new("99");
    let seed = format!("[\"{}:4001\"]", wire.ip(1));
    let options = fleet.node(&[]).connect(peers[0].addr());
    let mut first = wire.within(1, options).start();
    // Has no peer but its siblings.
    let options = fleet.private(&[]).env("PULSE_FLEET__SEEDS", &seed);
    let mut second = wire.within(2, options).start();
    let options = fleet.node(&[]).env("PULSE_FLEET__SEEDS", &seed);
    let mut third = wire.within(3, options.connect(peers[1].addr())).start();
    for node in [&mut first, &mut second, &mut third] {
        node.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    }
    wait_for_siblings(&mut first, &[&second, &third]);
    wait_for_siblings(&mut third, &[&first, &second]);

    // Two nodes on one side, the third on the other, and each side has blocks of its own.
    wire.tell("cut 1,2 3");
    let mut longer = chain.branch_at(20);
    longer.mine_empty_blocks(12);
    chain.mine_empty_blocks(10);
    peers[0].push_blocks(&chain.blocks()[21..]);
    peers[1].push_blocks(&longer.blocks()[21..]);
    for node in [&mut first, &mut second] {
        node.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    }
    third.wait_synced_to_hash(longer.tip_hash(), DEADLINE);
    // As long as TCP would hold its breath, pings find it out.
    for node in [&mut first, &mut third] {
        node.wait_until("the cut", DEADLINE, |node| {
            siblings(node, "connected").len() < 2
        });
    }

    wire.tell("heal");
    for node in [&mut first, &mut second, &mut third] {
        node.wait_synced_to_hash(longer.tip_hash(), DEADLINE);
    }
    for node in [&first, &second] {
        assert_gone(node, &chain.blocks()[21..]);
    }
    wait_for_siblings(&mut second, &[&first, &third]);
}

#[test]
fn nodes_of_one_network_find_each_other_by_mdns() {
    let Some(wire) = Wire::new("mdns", 1) else {
        return;
    };
    let fleet = Fleet::new("aa");
    let node = |port: u16| -> PulseNode {
        let options = wire.within(1, fleet.node(&[]));
        let listen = format!("{}:{port}", wire.ip(1));
        options
            .env("PULSE_FLEET__LISTEN", &listen)
            .env("PULSE_FLEET__MDNS", "true")
            .start()
    };
    let (mut first, mut second) = (node(4001), node(4002));
    wait_for_siblings(&mut first, &[&second]);
    wait_for_siblings(&mut second, &[&first]);
}
