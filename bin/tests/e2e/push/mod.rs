//! WebSocket and Server-Sent Events from outside: blocks, the mempool, replacements and
//! reorganisations, clients that come back, that are slow or that mean harm, and a real
//! browser.

mod browser;
mod limits;
mod live;
mod resume;
pub mod socket;
mod stream;

use pulse_primitives::bitcoin::{
    Address, Amount, Network, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn, TxOut,
    WPubkeyHash, Witness, absolute::LockTime, consensus::encode::serialize_hex, hashes::Hash,
    transaction::Version,
};
use pulse_testkit::{ChainBuilder, NodeOptions, PulseNode, ScriptedPeer};
use serde_json::{Value, json};

use super::common::{DEADLINE, options, params, served};
use socket::Client;

/// What the coinbases pay to is spent with this script and nothing else.
fn anyone() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51])
}

/// A script that nobody else uses.
fn other(n: u8) -> ScriptBuf {
    ScriptBuf::new_p2wpkh(&WPubkeyHash::from_byte_array([n; 20]))
}

fn address(script: &Script) -> String {
    Address::from_script(script, Network::Regtest)
        .unwrap()
        .to_string()
}

/// Pays one coin to `to`, with a fee in satoshis.
fn spend(coin: (OutPoint, Amount), to: &ScriptBuf, fee: u64) -> Transaction {
    let mut witness = Witness::new();
    witness.push(anyone());
    Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: coin.0,
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            witness,
            ..TxIn::default()
        }],
        output: vec![TxOut {
            value: coin.1 - Amount::from_sat(fee),
            script_pubkey: to.clone(),
        }],
    }
}

/// A node on a chain that is made as the scene goes on, and coins that can be spent.
struct Scene {
    chain: ChainBuilder,
    peer: ScriptedPeer,
    node: PulseNode,
}

impl Scene {
    fn new() -> Self {
        Self::with(|options| options)
    }

    fn with(change: impl FnOnce(NodeOptions) -> NodeOptions) -> Self {
        let mut chain = ChainBuilder::new(params(Network::Regtest));
        for _ in 0..5 {
            chain.mine(
                &ScriptBuf::new_p2wsh(&anyone().wscript_hash()),
                Amount::ZERO,
                vec![],
            );
        }
        chain.mine_empty_blocks(105);
        let peer = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
        let mut node = change(options("regtest").connect(peer.addr())).start();
        node.wait_synced_to(110, DEADLINE);
        let mut scene = Self { chain, peer, node };
        scene.wait_told(110);
        // Scenes count connections.
        (scene.node).wait_until("the stream is gone", DEADLINE, |node| {
            let metrics = match node.ops_addr() {
                Some(_) => node.get_ops("/metrics"),
                None => node.get("/metrics"),
            };
            (metrics.text()).contains("pulse_push_connections{transport=\"sse\"} 0")
        });
        scene
    }

    fn client(&self) -> Client {
        Client::connect(self.node.http_addr(), "/ws")
    }

    /// One of the coins, from 1 to 5.
    fn coin(&self, n: usize) -> (OutPoint, Amount) {
        let coinbase = &self.chain.blocks()[n].txdata[0];
        let outpoint = OutPoint::new(coinbase.compute_txid(), 0);
        (outpoint, coinbase.output[0].value)
    }

    fn send(&self, tx: &Transaction) {
        let reply = self.node.post("/tx", &serialize_hex(tx));
        assert_eq!(reply.status, 200, "{}", reply.text());
    }

    /// Mines transactions, and waits until the node has the block.
    fn mine(&mut self, txs: Vec<Transaction>) {
        let block = self.chain.mine(&anyone(), Amount::ZERO, txs).clone();
        self.peer.push_block(&block);
        self.node.wait_synced_to(self.chain.height(), DEADLINE);
    }

    /// Replaces the blocks above `height` by `count` empty ones.
    fn reorganise(&mut self, height: u32, count: u32) {
        self.chain = self.chain.branch_at(height);
        self.chain.mine_empty_blocks(count);
        self.peer.push_blocks(self.chain.blocks());
        let tip = self.chain.tip_hash();
        self.node.wait_synced_to_hash(tip, DEADLINE);
    }

    /// Waits until clients are told of the block at `height`.
    fn wait_told(&self, height: u32) {
        let path = "/events?channel=tips";
        let mut tips = stream::open(&self.node, path, &[]);
        while tips.until("tip").data["tip"]["height"] != height {}
    }

    /// The block at `height` as messages name it.
    fn place(&self, height: usize) -> Value {
        json!({"height": height, "hash": self.chain.blocks()[height].block_hash()})
    }
}
