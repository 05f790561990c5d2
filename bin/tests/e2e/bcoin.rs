//! bcoin as the peer: a node with no code of ours on the other side.

use pulse_primitives::bitcoin::{
    Amount, OutPoint, PubkeyHash, Transaction, TxOut, consensus::encode::serialize_hex,
    hashes::Hash,
};
use pulse_testkit::{
    Bcoin, NodeOptions, PulseNode,
    txgen::{
        lock::{Keys, Lock, usual},
        sign::{OpenFault, SigFault, sign},
        unsigned,
    },
};
use serde_json::Value;

use super::common::{DEADLINE, options};

/// Coinbases that can be spent at the height that the scenes start at.
const BLOCKS: u32 = 110;

struct Miner {
    keys: Keys,
    lock: Lock,
}

impl Miner {
    fn new() -> Self {
        let keys = Keys::default();
        let lock = usual(&keys, BLOCKS)
            .into_iter()
            .find(|lock| lock.name == "p2pkh")
            .unwrap();
        Self { keys, lock }
    }

    fn keyhash(&self) -> PubkeyHash {
        self.keys.public(0).pubkey_hash()
    }

    /// Spends the coinbase of the block at `height` to the same key.
    fn spend(&self, node: &PulseNode, height: u32) -> Transaction {
        let hash = node.get(&format!("/block-height/{height}"));
        let txid = node.get(&format!("/block/{}/txid/0", hash.text()));
        let value = Amount::from_int_btc(50);
        let output = TxOut {
            value: value - Amount::from_sat(10_000),
            script_pubkey: self.lock.script_pubkey(&self.keys),
        };
        let coin = OutPoint::new(txid.text().parse().unwrap(), 0);
        let mut tx = unsigned(coin, vec![output]);
        let spent = [(self.lock.clone(), value)];
        sign(&self.keys, &mut tx, &spent, SigFault::None, OpenFault::None);
        tx
    }
}

/// A node that does not try the encrypted transport, for which bcoin bans a host.
fn old_fashioned() -> NodeOptions {
    options("regtest").env("PULSE_P2P__V2_TRANSPORT", "false")
}

fn confirmed(node: &PulseNode, tx: &Transaction) -> Option<bool> {
    let reply = node.get(&format!("/tx/{}", tx.compute_txid()));
    (reply.status == 200).then(|| reply.json::<Value>()["status"]["confirmed"] == true)
}

#[test]
fn blocks_and_transactions_come_from_bcoin_and_go_to_it() {
    let Some(mut first) = Bcoin::start() else {
        return;
    };
    let miner = Miner::new();
    let tip = first.mine(BLOCKS, miner.keyhash());
    let mut node = old_fashioned()
        .connect(first.addr())
        .args(["--listen", "127.0.0.1:0"])
        .start();
    node.wait_synced_to_hash(tip, DEADLINE);

    // From us to it.
    let ours = miner.spend(&node, 1);
    let reply = node.post("/tx", &serialize_hex(&ours));
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(confirmed(&node, &ours), Some(false));
    first.wait_until("our transaction", |bcoin| bcoin.has_tx(&ours));

    // From it to us.
    let theirs = miner.spend(&node, 2);
    first.send(&theirs);
    node.wait_until("its transaction", DEADLINE, |node| {
        confirmed(node, &theirs) == Some(false)
    });

    // A second one, which only knows us.
    let mut second = Bcoin::start().unwrap();
    second.connect(node.p2p_addr().unwrap());
    second.wait_until("the chain", |bcoin| bcoin.tip().1 == tip);
    let later = miner.spend(&node, 3);
    second.send(&later);
    first.wait_until("a transaction of the second", |bcoin| bcoin.has_tx(&later));

    // Mined by one, it reaches the other through us.
    let tip = first.mine(1, miner.keyhash());
    node.wait_synced_to_hash(tip, DEADLINE);
    for tx in [&ours, &theirs, &later] {
        assert_eq!(confirmed(&node, tx), Some(true));
    }
    second.wait_until("the new block", |bcoin| bcoin.tip().1 == tip);
    assert_eq!(
        node.get_json::<Value>("/mempool/txids"),
        Value::Array(vec![])
    );
}

#[test]
fn a_longer_chain_of_bcoin_takes_over() {
    let (Some(mut first), Some(mut second)) = (Bcoin::start(), Bcoin::start()) else {
        return;
    };
    let miner = Miner::new();
    let short = first.mine(5, miner.keyhash());
    let mut node = old_fashioned()
        .connect(first.addr())
        .connect(second.addr())
        .start();
    node.wait_synced_to_hash(short, DEADLINE);
    let long = second.mine(9, PubkeyHash::from_raw_hash(Hash::all_zeros()));
    node.wait_synced_to_hash(long, DEADLINE);
}
