//! The Electrum server from outside: every method and error, subscriptions through blocks,
//! the mempool and reorganisations, and real clients.

mod between;
mod clients;
mod fuzz;
mod golden;
mod limits;
mod live;
mod lookups;
mod methods;
pub mod raw;
mod sockets;

use std::net::SocketAddr;

use bdk_wallet::{KeychainKind, SignOptions, Wallet};
use pulse_primitives::bitcoin::{
    Amount, Block, FeeRate, Network, OutPoint, Psbt, ScriptBuf, Transaction, bip32::Xpriv,
    hashes::Hash, hashes::sha256,
};
use pulse_testkit::{ChainBuilder, NodeOptions, PulseNode, ScriptedPeer};

use super::common::{DEADLINE, options, params, served};

/// The master key of the wallets of the scenes.
pub const KEY: &str = "tprv8ZgxMBicQKsPcu8PNvCC4FnKz4t5N5SMq6dsKdqm1QVTyTp8hyRJ6VUAsUxnBQD6iJSNEmad9wcpcwswaqfUioBnvrnrtRSDrx4GWnKwtqt";

/// A node with all four transports on ports of its own, connected to `peer`.
fn electrum_options(network: &str, peer: SocketAddr) -> NodeOptions {
    let keys = ["ADDR", "TLS_ADDR", "WS_ADDR", "WSS_ADDR"];
    keys.iter()
        .fold(options(network).connect(peer), |options, key| {
            options.env(&format!("PULSE_ELECTRUM__{key}"), "127.0.0.1:0")
        })
}

fn synced(network: &str, kind: Network, blocks: &[Block]) -> (PulseNode, ScriptedPeer) {
    let peer = ScriptedPeer::honest(served(kind, blocks));
    let mut node = electrum_options(network, peer.addr()).start();
    node.wait_synced_to(u32::try_from(blocks.len() - 1).unwrap(), DEADLINE);
    (node, peer)
}

/// The name of a script: its hash, reversed.
fn scripthash(script: &ScriptBuf) -> String {
    let mut bytes = sha256::Hash::hash(script.as_bytes()).to_byte_array();
    bytes.reverse();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A wallet of our own on a chain that is made as the scene goes on.
pub struct Scene {
    pub chain: ChainBuilder,
    pub peer: ScriptedPeer,
    pub node: PulseNode,
    pub wallet: Wallet,
    /// The wallet's first address, to which the first three coinbases pay.
    pub script: ScriptBuf,
}

impl Scene {
    pub fn new() -> Self {
        Self::with(|options| options)
    }

    pub fn with(change: impl FnOnce(NodeOptions) -> NodeOptions) -> Self {
        let descriptor = |chain: u32| format!("wpkh({KEY}/84'/1'/0'/{chain}/*)");
        let mut wallet = Wallet::create(descriptor(0), descriptor(1))
            .network(Network::Regtest)
            .create_wallet_no_persist()
            .unwrap();
        let script = wallet
            .reveal_next_address(KeychainKind::External)
            .script_pubkey();
        let mut chain = ChainBuilder::new(params(Network::Regtest));
        for _ in 0..3 {
            chain.mine(&script, Amount::ZERO, vec![]);
        }
        chain.mine_empty_blocks(107);
        let peer = ScriptedPeer::honest(served(Network::Regtest, chain.blocks()));
        let mut node = change(electrum_options("regtest", peer.addr())).start();
        node.wait_synced_to(110, DEADLINE);
        Self {
            chain,
            peer,
            node,
            wallet,
            script,
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.node.electrum_addr("tcp").unwrap()
    }

    fn client(&self) -> raw::Client {
        raw::Client::connect(self.addr())
    }

    /// A signed payment of the wallet to `to`, which the wallet knows of from then on.
    pub fn pay(&mut self, to: &ScriptBuf, sat: u64) -> Transaction {
        let mut builder = self.wallet.build_tx();
        builder
            .add_recipient(to.clone(), Amount::from_sat(sat))
            .fee_rate(FeeRate::from_sat_per_vb(5).unwrap());
        let psbt = builder.finish().unwrap();
        let tx = self.sign(psbt);
        self.wallet.apply_unconfirmed_txs([(tx.clone(), 1)]);
        tx
    }

    /// A signed payment of what `parent` gives back to the wallet, all of it to `to`.
    pub fn pay_all_from(&mut self, parent: &Transaction, to: &ScriptBuf) -> Transaction {
        let change = (0..)
            .zip(&parent.output)
            .find(|(_, output)| self.wallet.is_mine(output.script_pubkey.clone()))
            .map(|(vout, _)| OutPoint::new(parent.compute_txid(), vout))
            .unwrap();
        self.pay_all_of(change, to)
    }

    /// A signed payment of one output of the wallet, all of it to `to`.
    pub fn pay_all_of(&mut self, coin: OutPoint, to: &ScriptBuf) -> Transaction {
        let mut builder = self.wallet.build_tx();
        builder
            .manually_selected_only()
            .add_utxo(coin)
            .unwrap()
            .drain_to(to.clone())
            .fee_rate(FeeRate::from_sat_per_vb(5).unwrap());
        let psbt = builder.finish().unwrap();
        let tx = self.sign(psbt);
        self.wallet.apply_unconfirmed_txs([(tx.clone(), 1)]);
        tx
    }

    fn sign(&self, mut psbt: Psbt) -> Transaction {
        let key: Xpriv = KEY.parse().unwrap();
        psbt.sign(&key, self.wallet.secp_ctx()).unwrap();
        let options = SignOptions::default();
        assert!(self.wallet.finalize_psbt(&mut psbt, options).unwrap());
        psbt.extract_tx().unwrap()
    }

    /// Mines transactions, and waits until the node has the block.
    pub fn mine(&mut self, txs: Vec<Transaction>) {
        let script = ScriptBuf::from_bytes(vec![0x51]);
        let block = self.chain.mine(&script, Amount::ZERO, txs).clone();
        self.peer.push_block(&block);
        self.node.wait_synced_to(self.chain.height(), DEADLINE);
    }

    /// The wallet learns the coins of the first three blocks and the tip, without a client.
    pub fn fund(&mut self) {
        for (height, block) in (1..=3).zip(&self.chain.blocks()[1..]) {
            self.wallet.apply_block(block, height).unwrap();
        }
        let tip = self.chain.tip().clone();
        let known = self.wallet.latest_checkpoint().block_id();
        self.wallet
            .apply_block_connected_to(&tip, self.chain.height(), known)
            .unwrap();
    }

    /// Replaces the blocks above `height` by `count` empty ones.
    pub fn reorganise(&mut self, height: u32, count: u32) {
        self.chain = self.chain.branch_at(height);
        self.chain.mine_empty_blocks(count);
        self.peer.push_blocks(self.chain.blocks());
        let tip = self.chain.tip_hash();
        self.node.wait_synced_to_hash(tip, DEADLINE);
    }
}
