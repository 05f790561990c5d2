//! A node under test, scripted peers on loopback sockets, and regtest blocks.

pub mod peer;
pub mod wire;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use pulse_node::{
    chain::{Chain, ChainConfig},
    clock::Clock,
    config::SyncConfig,
    headers::HeaderStore,
    net::{Net, NetError},
    p2p::compact::CompactSource,
    serve::Server,
    sync::{Sync, SyncError, SyncHandle},
};
use pulse_primitives::{
    bitcoin::{
        Amount, Block, BlockHash, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
        TxMerkleNode, TxOut, Witness, absolute::LockTime, block::Header, hashes::Hash,
        script::Builder, transaction::Version,
    },
    network::ChainParams,
};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    task::{JoinHandle, spawn_blocking},
};
use tokio_util::sync::CancellationToken;

/// Parameters of regtest.
pub fn regtest() -> ChainParams {
    ChainParams::new(Network::Regtest, None)
}

/// A valid regtest block on `prev`; blocks of different branches differ.
pub fn mine(prev: &Header, height: u32, branch: i64) -> Block {
    mine_paying(prev, height, branch, Amount::from_int_btc(50))
}

/// As [`mine`]; the coinbase claims `claim`, which makes the block invalid if it is too much.
pub fn mine_paying(prev: &Header, height: u32, branch: i64, claim: Amount) -> Block {
    let subsidy_epochs = height / 150;
    let coinbase = Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: Builder::new()
                .push_int(height.into())
                .push_int(branch)
                .push_int(0)
                .into_script(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output: vec![TxOut {
            value: claim / (1 << subsidy_epochs),
            script_pubkey: ScriptBuf::from_bytes(vec![0x51]),
        }],
    };
    let mut block = Block {
        header: Header {
            version: pulse_primitives::bitcoin::block::Version::from_consensus(0x2000_0000),
            prev_blockhash: prev.block_hash(),
            merkle_root: TxMerkleNode::all_zeros(),
            time: prev.time + 600,
            bits: prev.bits,
            nonce: 0,
        },
        txdata: vec![coinbase],
    };
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    while block.header.validate_pow(block.header.target()).is_err() {
        block.header.nonce += 1;
    }
    block
}

/// Gives the block other transactions besides its coinbase, or another time, and mines it
/// again.
pub fn remine(mut block: Block, txs: Vec<Transaction>, time: u32) -> Block {
    block.txdata.extend(txs);
    block.header.time = time;
    block.header.merkle_root = block.compute_merkle_root().unwrap();
    while block.header.validate_pow(block.header.target()).is_err() {
        block.header.nonce += 1;
    }
    block
}

/// The first `keep` blocks of `chain`, and `count` new ones on top.
pub fn branch(chain: &[Block], keep: usize, count: usize, tag: i64) -> Vec<Block> {
    let mut blocks = chain[..keep].to_vec();
    for _ in 0..count {
        let prev = tip_header(&blocks);
        let height = u32::try_from(blocks.len()).unwrap() + 1;
        blocks.push(mine(&prev, height, tag));
    }
    blocks
}

/// Header of the last block, or of genesis.
pub fn tip_header(blocks: &[Block]) -> Header {
    blocks
        .last()
        .map_or_else(|| regtest().genesis().header, |block| block.header)
}

/// Hash of the last block.
pub fn tip_hash(blocks: &[Block]) -> BlockHash {
    tip_header(blocks).block_hash()
}

/// A configuration that is not patient, with these peers.
pub fn config(peers: &[&peer::TestPeer]) -> SyncConfig {
    SyncConfig {
        connect: peers.iter().map(|peer| peer.addr.clone()).collect(),
        stall_timeout_secs: 1,
        headers_timeout_secs: 1,
        retry_max_secs: 2,
        // The peers speak v1 only, and connections to them are counted.
        v2_transport: false,
        ..SyncConfig::default()
    }
}

/// Kernel, header store and sync in a directory.
pub struct Node {
    pub dir: TempDir,
    pub chain: Chain,
    pub store: Arc<HeaderStore>,
    pub handle: SyncHandle,
    /// The time that it goes by.
    pub clock: Clock,
    /// Where others can connect, if they can.
    pub addr: Option<SocketAddr>,
    /// What it serves from.
    pub server: Arc<Server>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), SyncError>>,
    net: JoinHandle<Result<(), NetError>>,
}

impl Node {
    /// Starts in a new directory.
    pub async fn start(config: SyncConfig, params: ChainParams) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), config, params).await
    }

    /// Starts in a directory that may have been used before.
    pub async fn start_in(dir: TempDir, config: SyncConfig, params: ChainParams) -> Self {
        Self::start_with(dir, config, params, None, Arc::new(())).await
    }

    /// Starts in a new directory, on regtest, and listens.
    pub async fn listening(config: SyncConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        Self::start_with(dir, config, regtest(), Some(listener), Arc::new(())).await
    }

    /// Starts with all that can be chosen.
    pub async fn start_with(
        dir: TempDir,
        config: SyncConfig,
        params: ChainParams,
        listener: Option<TcpListener>,
        source: Arc<dyn CompactSource>,
    ) -> Self {
        let addr = listener
            .as_ref()
            .map(|listener| listener.local_addr().unwrap());
        let path = dir.path().to_owned();
        let chain_params = params.clone();
        let (chain, store) = spawn_blocking(move || {
            let store = HeaderStore::open(&path.join("headers.dat"), &chain_params).unwrap();
            let store = Arc::new(store);
            let config = ChainConfig {
                dir: path.join("kernel"),
                params: chain_params,
                script_threads: 1,
                is_second: false,
            };
            (Chain::open(&config, Arc::clone(&store)).unwrap(), store)
        })
        .await
        .unwrap();
        let (net, peers, events) = Net::new(
            &config,
            &params,
            chain.clone(),
            Arc::clone(&store),
            listener,
        )
        .unwrap();
        let (server, clock) = (net.server(), peers.clock().clone());
        let (sync, handle) = Sync::new(
            config,
            params,
            chain.clone(),
            Arc::clone(&store),
            peers,
            events.sync,
        );
        let sync = sync.with_compact_source(source);
        let stop = CancellationToken::new();
        let net = tokio::spawn(net.run(stop.clone()));
        let task = tokio::spawn(sync.run(stop.clone()));
        Self {
            dir,
            chain,
            store,
            handle,
            clock,
            addr,
            server,
            stop,
            task,
            net,
        }
    }

    /// Waits until the active chain ends in `hash`.
    pub async fn wait_for_tip(&self, hash: BlockHash) {
        wait_until("the tip", || self.chain.active_tip().hash == hash).await;
    }

    /// Stops everything in order; the directory can be used again.
    pub async fn stop(self) -> TempDir {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        self.net.await.unwrap().unwrap();
        spawn_blocking(move || self.chain.close()).await.unwrap();
        self.dir
    }
}

/// Waits until `condition` holds.
///
/// # Panics
/// After 30 seconds.
pub async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
