//! Several nodes of one operator.

use std::{fs, path::Path, process::Command, time::Duration};

use pulse_primitives::bitcoin::{
    Amount, Network, OutPoint, Transaction, TxOut, consensus::encode::serialize_hex,
};
use pulse_testkit::{
    ChainBuilder, NodeOptions, PulseNode, ScriptedPeer,
    txgen::{
        lock::{Keys, Lock, usual},
        sign::{OpenFault, SigFault, sign},
        unsigned,
    },
};
use serde_json::Value;
use tempfile::TempDir;

use super::common::{DEADLINE, assert_gone, options, params, served};

mod balancer;
mod hostile;
mod namespaces;
mod resolver;

/// A directory with a fleet's key, and how its nodes are started.
pub struct Fleet {
    dir: TempDir,
}

impl Fleet {
    pub fn new(key: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("key"), key.repeat(32)).unwrap();
        fs::write(dir.path().join("members"), "").unwrap();
        Self { dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// A node with these siblings as its seeds.
    pub fn node(&self, seeds: &[&PulseNode]) -> NodeOptions {
        let seeds: Vec<_> = seeds.iter().map(|node| address(node)).collect();
        options("regtest")
            .env("PULSE_FLEET__LISTEN", "127.0.0.1:0")
            .env("PULSE_FLEET__KEY_FILE", &self.path("key"))
            .env("PULSE_FLEET__MEMBERS_FILE", &self.path("members"))
            .env("PULSE_FLEET__LOOKUP_SECS", "1")
            .env("PULSE_FLEET__SEEDS", &format!("{seeds:?}"))
    }

    /// The same without any peer of the public network.
    pub fn private(&self, seeds: &[&PulseNode]) -> NodeOptions {
        self.node(seeds).env("PULSE_FLEET__ONLY_SIBLINGS", "true")
    }

    fn deny(&self, node: &PulseNode) {
        self.set_members(&format!("deny = [{:?}]\n", peer_id(node)));
    }

    fn set_members(&self, text: &str) {
        // As an editor does: never half-written.
        let new = self.path("members.new");
        fs::write(&new, text).unwrap();
        fs::rename(new, Path::new(&self.path("members"))).unwrap();
    }
}

fn report(node: &PulseNode) -> Value {
    node.get_json::<Value>("/stats")["fleet"].take()
}

fn peer_id(node: &PulseNode) -> String {
    report(node)["peer_id"].as_str().unwrap().to_owned()
}

/// Where a node listens for siblings, over TCP.
fn address(node: &PulseNode) -> String {
    address_over(node, "/tcp/").unwrap()
}

fn address_over(node: &PulseNode, transport: &str) -> Option<String> {
    let report = report(node);
    let addrs = report["listen"].as_array().unwrap().iter();
    let mut texts = addrs.map(|addr| addr.as_str().unwrap().to_owned());
    texts.find(|addr| addr.contains(transport))
}

/// Peer ids of the siblings of which `key` holds.
fn siblings(node: &PulseNode, key: &str) -> Vec<String> {
    let report = report(node);
    let siblings = report["siblings"].as_array().unwrap().iter();
    siblings
        .filter(|sibling| sibling[key] == true)
        .map(|sibling| sibling["peer_id"].as_str().unwrap().to_owned())
        .collect()
}

fn sorted(nodes: &[&PulseNode]) -> Vec<String> {
    let mut ids: Vec<_> = nodes.iter().map(|node| peer_id(node)).collect();
    ids.sort();
    ids
}

pub fn wait_for_siblings(node: &mut PulseNode, others: &[&PulseNode]) {
    let wanted = sorted(others);
    node.wait_until("its siblings", DEADLINE, |node| {
        siblings(node, "linked") == wanted
    });
}

#[test]
fn nodes_find_each_other_strangers_are_refused_and_the_revoked_are_cut_off() {
    let fleet = Fleet::new("11");
    let mut first = fleet.node(&[]).start();
    let mut second = fleet.node(&[&first]).start();
    let mut third = fleet.node(&[&first]).start();
    // The second and the third hear of each other from the first.
    wait_for_siblings(&mut first, &[&second, &third]);
    wait_for_siblings(&mut second, &[&first, &third]);
    wait_for_siblings(&mut third, &[&first, &second]);

    // Somebody with another key, over either transport.
    let stranger = Fleet::new("22");
    for transport in ["/tcp/", "/quic-v1"] {
        let before = report(&first)["refused"].as_u64().unwrap();
        let seed = address_over(&first, transport).unwrap();
        let outside = stranger
            .node(&[])
            .env("PULSE_FLEET__SEEDS", &format!("[{seed:?}]"))
            .start();
        first.wait_until("a refusal", DEADLINE, |node| {
            report(node)["refused"].as_u64().unwrap() > before
        });
        assert_eq!(siblings(&outside, "connected"), [""; 0]);
        let metrics = first.get("/metrics");
        let refused = "pulse_fleet_refused_total{reason=\"stranger\"}";
        assert!(metrics.text().contains(refused), "{}", metrics.text());
    }
    assert_eq!(siblings(&first, "connected"), sorted(&[&second, &third]));

    fleet.deny(&second);
    for node in [&mut first, &mut third] {
        let gone = peer_id(&second);
        node.wait_until("the end of a sibling", DEADLINE, |node| {
            !siblings(node, "connected").contains(&gone)
        });
    }
    wait_for_siblings(&mut first, &[&third]);
    second.wait_until("loneliness", DEADLINE, |node| {
        siblings(node, "connected").is_empty()
    });
}

#[test]
fn a_listed_node_joins_over_quic_without_a_key() {
    let ids = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let id = |dir: &TempDir| {
        let exit = options("regtest")
            .data_dir(dir.path().join("node"))
            .args(["id"])
            .run_to_exit(DEADLINE);
        exit.stdout.trim().to_owned()
    };
    let allow = format!("{:?}", [id(&ids[0]), id(&ids[1])]);
    let node = |dir: &TempDir, seeds: &str| {
        options("regtest")
            .data_dir(dir.path().join("node"))
            .env("PULSE_FLEET__LISTEN", "127.0.0.1:0")
            .env("PULSE_FLEET__ALLOW", &allow)
            .env("PULSE_FLEET__LOOKUP_SECS", "1")
            .env("PULSE_FLEET__SEEDS", seeds)
            .start()
    };
    let mut first = node(&ids[0], "[]");
    let seed = address_over(&first, "/quic-v1").unwrap();
    let mut second = node(&ids[1], &format!("[{seed:?}]"));
    wait_for_siblings(&mut first, &[&second]);
    wait_for_siblings(&mut second, &[&first]);
    let addr = report(&second)["siblings"][0]["addr"].clone();
    assert_eq!(addr, seed.as_str());
}

#[test]
fn a_private_fleet_syncs_from_its_gateway_and_from_the_next_one() {
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    chain.mine_empty_blocks(300);
    let peer = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
    let fleet = Fleet::new("33");
    let mut gateway = fleet.node(&[]).connect(peer.addr()).start();
    let mut first = fleet.private(&[&gateway]).start();
    let mut second = fleet.private(&[&gateway]).start();
    for node in [&mut gateway, &mut first, &mut second] {
        node.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    }
    wait_for_siblings(&mut second, &[&gateway, &first]);

    gateway.kill();
    let before = chain.blocks().len();
    chain.mine_empty_blocks(40);
    peer.push_blocks(&chain.blocks()[before..]);
    // It gets the old blocks from the siblings, and the new ones for them.
    let mut next = fleet.node(&[&first]).connect(peer.addr()).start();
    for node in [&mut next, &mut first, &mut second] {
        node.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    }
    let health: Vec<_> = [&next, &first, &second]
        .map(|node| node.get("/health").status)
        .into();
    assert_eq!(health, [200; 3]);
    first.wait_until("the tip of the fleet", DEADLINE, |node| {
        report(node)["best_height"] == chain.height()
    });
}

#[test]
fn two_halves_of_a_fleet_agree_on_the_longer_chain_when_they_meet_again() {
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    chain.mine_empty_blocks(20);
    let peer = || ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
    let peers = [peer(), peer()];
    let fleet = Fleet::new("66");
    let mut first = fleet.node(&[]).connect(peers[0].addr()).start();
    let mut second = fleet.node(&[&first]).connect(peers[1].addr()).start();
    wait_for_siblings(&mut first, &[&second]);
    wait_for_siblings(&mut second, &[&first]);
    fleet.deny(&second);
    for node in [&mut first, &mut second] {
        node.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
        node.wait_until("the cut", DEADLINE, |node| {
            siblings(node, "connected").is_empty()
        });
    }
    let mut longer = chain.branch_at(20);
    longer.mine_empty_blocks(12);
    chain.mine_empty_blocks(10);
    peers[0].push_blocks(&chain.blocks()[21..]);
    peers[1].push_blocks(&longer.blocks()[21..]);
    first.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    second.wait_synced_to_hash(longer.tip_hash(), DEADLINE);

    fleet.set_members("");
    first.wait_synced_to_hash(longer.tip_hash(), DEADLINE);
    assert_gone(&first, &chain.blocks()[21..]);
}

/// Whoever mines, and spends what was mined.
struct Miner {
    keys: Keys,
    lock: Lock,
}

impl Miner {
    fn new(height: u32) -> Self {
        let keys = Keys::default();
        let mut locks = usual(&keys, height).into_iter();
        let lock = locks.find(|lock| lock.name == "p2pkh").unwrap();
        Self { keys, lock }
    }

    fn spend(&self, coinbase: &Transaction) -> Transaction {
        let value = coinbase.output[0].value;
        let output = TxOut {
            value: value - Amount::from_sat(10_000),
            script_pubkey: self.lock.script_pubkey(&self.keys),
        };
        let coin = OutPoint::new(coinbase.compute_txid(), 0);
        let mut tx = unsigned(coin, vec![output]);
        let spent = [(self.lock.clone(), value)];
        sign(&self.keys, &mut tx, &spent, SigFault::None, OpenFault::None);
        tx
    }
}

#[test]
fn a_transaction_and_a_block_are_everywhere_as_soon_as_they_are_somewhere() {
    let miner = Miner::new(110);
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    for _ in 0..110 {
        let script = miner.lock.script_pubkey(&miner.keys);
        chain.mine(&script, Amount::ZERO, Vec::new());
    }
    let peer = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
    let fleet = Fleet::new("44");
    let mut gateway = fleet.node(&[]).connect(peer.addr()).start();
    let mut first = fleet.private(&[&gateway]).start();
    let mut second = fleet.private(&[&gateway]).start();
    for node in [&mut gateway, &mut first, &mut second] {
        node.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    }
    wait_for_siblings(&mut first, &[&gateway, &second]);
    wait_for_siblings(&mut second, &[&gateway, &first]);

    let tx = miner.spend(&chain.blocks()[1].txdata[0]);
    let reply = first.post("/tx", &serialize_hex(&tx));
    assert_eq!(reply.status, 200, "{}", reply.text());
    let path = format!("/tx/{}", tx.compute_txid());
    for node in [&mut gateway, &mut second] {
        node.wait_until("the transaction", DEADLINE, |node| {
            node.get(&path).status == 200
        });
    }
    let fee = Amount::from_sat(10_000);
    let script = miner.lock.script_pubkey(&miner.keys);
    let block = chain.mine(&script, fee, vec![tx]).clone();
    // A client that has seen the block elsewhere waits for it, or is sent elsewhere.
    let newer = format!("/blocks/tip/height?min_height={}", chain.height());
    let refused = second.get(&newer);
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.retry_after.is_some());
    peer.push_block(&block);
    second.wait_until("the block", DEADLINE, |node| {
        let reply = node.get(&newer);
        reply.status == 200 && reply.text() == chain.height().to_string()
    });
    for node in [&mut gateway, &mut first, &mut second] {
        node.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    }
}

#[test]
fn a_node_that_joins_gets_the_transactions_that_its_siblings_have() {
    // More than a sibling is told of at a time.
    const COUNT: usize = 260;
    let miner = Miner::new(110);
    let mut chain = ChainBuilder::new(params(Network::Regtest));
    for _ in 0..COUNT + 100 {
        let script = miner.lock.script_pubkey(&miner.keys);
        chain.mine(&script, Amount::ZERO, Vec::new());
    }
    let peer = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
    let fleet = Fleet::new("77");
    let mut gateway = fleet.node(&[]).connect(peer.addr()).start();
    gateway.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    let blocks = &chain.blocks()[1..=COUNT];
    let mut sent: Vec<_> = blocks
        .iter()
        .map(|block| {
            let tx = miner.spend(&block.txdata[0]);
            let reply = gateway.post("/tx", &serialize_hex(&tx));
            assert_eq!(reply.status, 200, "{}", reply.text());
            reply.text().to_owned()
        })
        .collect();
    sent.sort();

    let mut joining = fleet.private(&[&gateway]).start();
    joining.wait_synced_to_hash(chain.tip_hash(), DEADLINE);
    joining.wait_until("the transactions", DEADLINE, |node| {
        let mut txids: Vec<String> = node.get_json("/mempool/txids");
        txids.sort();
        txids == sent
    });
}

#[test]
fn a_node_that_is_told_to_stop_says_so_and_goes_on_answering_for_a_while() {
    let chain = ChainBuilder::new(params(Network::Regtest));
    let peer = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
    let fleet = Fleet::new("55");
    let options = fleet.node(&[]).connect(peer.addr());
    let mut node = options.env("PULSE_NODE__DRAIN_SECS", "6").start();
    let mut sibling = fleet.node(&[&node]).connect(peer.addr()).start();
    node.wait_synced_to(0, DEADLINE);
    wait_for_siblings(&mut sibling, &[&node]);
    let pid = node.pid().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .unwrap()
            .success()
    );
    node.wait_until("a bad state of health", DEADLINE, |node| {
        let reply = node.get("/health");
        reply.status == 503 && reply.text().contains("about to stop")
    });
    assert_eq!(node.get("/blocks/tip/height").text(), "0");
    sibling.wait_until("the news of it", DEADLINE, |sibling| {
        report(sibling)["siblings"][0]["told"]["is_draining"] == true
    });
    let ended = std::time::Instant::now() + Duration::from_secs(30);
    let status = loop {
        if let Some(status) = node.try_wait() {
            break status;
        }
        assert!(std::time::Instant::now() < ended, "the node does not end");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.success());
}
