//! The serving side from its public surface: another node of ours, and raw sockets.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::{
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use pulse_node::{
    chain::{Chain, ChainConfig},
    config::SyncConfig,
    headers::HeaderStore,
    net::{Net, NetError, NetHandle, NetLimits, PeerEvents},
    p2p::codec::{Message, encode_frame, encode_message, read_message},
    sync::{Sync, SyncHandle},
};
use pulse_primitives::{
    bitcoin::{
        Block, BlockHash, Network,
        block::Header,
        consensus::{deserialize, serialize},
        hashes::Hash,
        hex::FromHex,
        p2p::{
            Address, ServiceFlags,
            message::NetworkMessage,
            message_blockdata::{GetHeadersMessage, Inventory},
            message_network::VersionMessage,
        },
    },
    network::ChainParams,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, spawn_blocking},
};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(30);

fn regtest() -> ChainParams {
    ChainParams::new(Network::Regtest, None)
}

/// Blocks 1 to 206 of a regtest chain, or `None` where they are missing and the
/// machine is no CI.
fn regtest_blocks() -> Option<Vec<Vec<u8>>> {
    let dir = std::env::var_os("PULSE_CHAINDATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/chaindata"),
        PathBuf::from,
    );
    let path = dir.join("runs/regtest-kernel-1-206.txt");
    if !path.exists() {
        let in_ci = std::env::var_os("CI").is_some();
        assert!(!in_ci, "{} is missing", path.display());
        eprintln!("skipped: {} is missing", path.display());
        return None;
    }
    let text = std::fs::read_to_string(path).unwrap();
    let blocks: Vec<_> = text
        .split(|c: char| !c.is_ascii_hexdigit())
        .filter(|part| part.len() > 160)
        .map(|part| Vec::from_hex(part).unwrap())
        .collect();
    assert_eq!(blocks.len(), 206);
    Some(blocks)
}

fn header(block: &[u8]) -> Header {
    deserialize(&block[..80]).unwrap()
}

fn hash(block: &[u8]) -> BlockHash {
    header(block).block_hash()
}

/// Kernel and header store in a directory of their own.
struct Node {
    _dir: TempDir,
    chain: Chain,
    store: Arc<HeaderStore>,
}

impl Node {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let (chain, store) = spawn_blocking(move || {
            let store = HeaderStore::open(&path.join("headers.dat"), &regtest()).unwrap();
            let store = Arc::new(store);
            let config = ChainConfig {
                dir: path.join("kernel"),
                params: regtest(),
                script_threads: 1,
                is_second: false,
            };
            (Chain::open(&config, Arc::clone(&store)).unwrap(), store)
        })
        .await
        .unwrap();
        Self {
            _dir: dir,
            chain,
            store,
        }
    }

    fn net(
        &self,
        config: &SyncConfig,
        params: &ChainParams,
        listener: Option<TcpListener>,
    ) -> (Net, NetHandle, PeerEvents) {
        let (chain, store) = (self.chain.clone(), Arc::clone(&self.store));
        Net::new(config, params, chain, store, listener).unwrap()
    }

    fn sync(&self, config: SyncConfig, peers: NetHandle, events: PeerEvents) -> (Sync, SyncHandle) {
        let (chain, store) = (self.chain.clone(), Arc::clone(&self.store));
        Sync::new(config, regtest(), chain, store, peers, events.sync)
    }

    async fn wait_for_tip(&self, hash: BlockHash) {
        let deadline = Instant::now() + PATIENCE;
        while self.chain.active_tip().hash != hash {
            assert!(Instant::now() < deadline, "waited too long for {hash}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn close(self) {
        spawn_blocking(move || self.chain.close()).await.unwrap();
    }
}

/// A node that serves, and gets its blocks from the test.
struct Server {
    node: Node,
    intake: SyncHandle,
    addr: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<Result<(), NetError>>,
}

impl Server {
    async fn start(blocks: &[Vec<u8>], limits: NetLimits, params: ChainParams) -> Self {
        let node = Node::open().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let config = SyncConfig {
            // What is not v1 is not waited for.
            v2_transport: false,
            ..SyncConfig::default()
        };
        let (net, peers, events) = node.net(&config, &params, Some(listener));
        // Nobody asks the peers for anything.
        let (_, intake) = node.sync(config, peers, events);
        let stop = CancellationToken::new();
        let task = tokio::spawn(net.with_limits(limits).run(stop.clone()));
        let server = Self {
            node,
            intake,
            addr,
            stop,
            task,
        };
        for block in blocks {
            server.feed(block).await;
        }
        server
    }

    async fn feed(&self, block: &[u8]) {
        self.intake.submit_local(block.to_vec()).await.unwrap();
        assert_eq!(self.node.chain.active_tip().hash, hash(block));
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        self.node.close().await;
    }
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.unwrap()
}

/// A peer that says and hears what the test wants.
struct Client(TcpStream);

impl Client {
    /// Connects, shakes hands, and wants headers announced.
    async fn connect(addr: SocketAddr) -> Self {
        let (mut client, _) = Self::connect_plainly(addr).await;
        client.send(NetworkMessage::SendHeaders).await;
        client
    }

    /// Connects and shakes hands; gives the height that it is told.
    async fn connect_plainly(addr: SocketAddr) -> (Self, i32) {
        Self::try_connect(addr).await.expect("a handshake")
    }

    /// `None` if the connection is closed instead.
    async fn try_connect(addr: SocketAddr) -> Option<(Self, i32)> {
        let mut client = Self(TcpStream::connect(addr).await.unwrap());
        let nobody = Address::new(&([0, 0, 0, 0], 0).into(), ServiceFlags::NONE);
        let services = ServiceFlags::NONE;
        let agent = "/client:1/".to_owned();
        let mut version = VersionMessage::new(services, 0, nobody.clone(), nobody, 1, agent, 0);
        version.version = 70_016;
        client.try_send(NetworkMessage::Version(version)).await?;
        let Message::Version(theirs) = client.try_receive().await? else {
            panic!("no version");
        };
        assert_eq!(theirs.version, 70_016);
        let served = ServiceFlags::NETWORK | ServiceFlags::WITNESS;
        assert!(theirs.services.has(served));
        while client.try_receive().await? != Message::Verack {}
        client.try_send(NetworkMessage::Verack).await?;
        assert_eq!(client.try_receive().await?, Message::SendHeaders);
        Some((client, theirs.start_height))
    }

    async fn try_send(&mut self, message: NetworkMessage) -> Option<()> {
        let frame = encode_message(message, regtest().magic);
        in_time(self.0.write_all(&frame)).await.ok()
    }

    async fn try_receive(&mut self) -> Option<Message> {
        let read = in_time(read_message(&mut self.0, regtest().magic)).await;
        read.ok().map(|(message, _)| message)
    }

    async fn send_raw(&mut self, bytes: &[u8]) {
        in_time(self.0.write_all(bytes)).await.unwrap();
    }

    async fn send(&mut self, message: NetworkMessage) {
        self.send_raw(&encode_message(message, regtest().magic))
            .await;
    }

    async fn receive(&mut self) -> Message {
        let read = in_time(read_message(&mut self.0, regtest().magic)).await;
        read.unwrap().0
    }

    async fn headers(&mut self, locator: Vec<BlockHash>, stop: BlockHash) -> Vec<Header> {
        let wanted = GetHeadersMessage::new(locator, stop);
        self.send(NetworkMessage::GetHeaders(wanted)).await;
        match self.receive().await {
            Message::Headers(headers) => headers,
            other => panic!("{other:?}"),
        }
    }

    async fn block(&mut self) -> Vec<u8> {
        match self.receive().await {
            Message::Block(block) => block.bytes,
            other => panic!("{other:?}"),
        }
    }

    /// Everything sent before has been answered when the pong comes.
    async fn ping(&mut self) {
        self.send(NetworkMessage::Ping(7)).await;
        let expected = encode_message(NetworkMessage::Pong(7), regtest().magic);
        let mut pong = vec![0; expected.len()];
        in_time(self.0.read_exact(&mut pong)).await.unwrap();
        assert_eq!(pong, expected);
    }

    /// Waits until the other side has closed the connection, without a word.
    async fn is_closed(&mut self) {
        let mut rest = [0; 64];
        match in_time(self.0.read(&mut rest)).await {
            Ok(len) => assert_eq!(len, 0, "it answered"),
            Err(err) => assert_eq!(err.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_node_reaches_our_tip_and_follows_it() {
    let Some(blocks) = regtest_blocks() else {
        return;
    };
    let server = Server::start(&blocks[..200], NetLimits::default(), regtest()).await;
    let follower = Node::open().await;
    let config = SyncConfig {
        connect: vec![server.addr.to_string()],
        ..SyncConfig::default()
    };
    let (net, peers, events) = follower.net(&config, &regtest(), None);
    let (sync, _handle) = follower.sync(config, peers, events);
    let stop = CancellationToken::new();
    let net = tokio::spawn(net.run(stop.clone()));
    let task = tokio::spawn(sync.run(stop.clone()));
    follower.wait_for_tip(hash(&blocks[199])).await;
    for block in &blocks[200..203] {
        server.feed(block).await;
        follower.wait_for_tip(hash(block)).await;
    }
    // Faster than they are announced.
    for block in &blocks[203..] {
        server.feed(block).await;
    }
    follower.wait_for_tip(hash(&blocks[205])).await;

    stop.cancel();
    task.await.unwrap().unwrap();
    net.await.unwrap().unwrap();
    follower.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_and_blocks_of_the_active_chain_are_told() {
    let Some(blocks) = regtest_blocks() else {
        return;
    };
    let server = Server::start(&blocks[..205], NetLimits::default(), regtest()).await;
    let mut client = Client::connect(server.addr).await;
    let all: Vec<_> = blocks[..205].iter().map(|block| header(block)).collect();
    let (none, genesis) = (BlockHash::all_zeros(), regtest().genesis_hash());

    assert_eq!(client.headers(vec![genesis], none).await, all);
    let unknown = BlockHash::from_byte_array([9; 32]);
    assert_eq!(client.headers(vec![unknown], none).await, all);
    let locator = vec![unknown, hash(&blocks[99]), hash(&blocks[9])];
    let stop = hash(&blocks[104]);
    assert_eq!(client.headers(locator.clone(), none).await, all[100..]);
    assert_eq!(client.headers(locator, stop).await, all[100..105]);
    assert_eq!(client.headers(vec![], stop).await, all[104..105]);
    assert_eq!(client.headers(vec![hash(&blocks[204])], none).await, []);

    // Block 206's header is known, but it is not in the active chain.
    server.node.store.insert(&[header(&blocks[205])]).unwrap();
    let missing = vec![
        Inventory::WitnessBlock(unknown),
        Inventory::WitnessBlock(hash(&blocks[205])),
        Inventory::Transaction(pulse_primitives::bitcoin::Txid::all_zeros()),
    ];
    let with_witness = blocks[..205]
        .iter()
        .find(|block| {
            let block: Block = deserialize(block).unwrap();
            block.txdata[1..]
                .iter()
                .any(|tx| tx.input.iter().any(|input| !input.witness.is_empty()))
        })
        .unwrap();
    let mut wanted = missing.clone();
    wanted.push(Inventory::WitnessBlock(hash(with_witness)));
    wanted.push(Inventory::Block(hash(with_witness)));
    wanted.push(Inventory::WitnessBlock(genesis));
    client.send(NetworkMessage::GetData(wanted)).await;
    assert_eq!(client.block().await, *with_witness);
    let stripped: Block = deserialize(&client.block().await).unwrap();
    assert_eq!(stripped.block_hash(), hash(with_witness));
    assert!(stripped.check_merkle_root());
    let mut inputs = stripped.txdata.iter().flat_map(|tx| &tx.input);
    assert!(inputs.all(|input| input.witness.is_empty()));
    assert_eq!(client.block().await, serialize(&regtest().genesis()));
    assert_eq!(client.receive().await, Message::NotFound(missing));

    // All in one question, more than any buffer holds.
    let wanted = blocks[..205].iter().cycle().take(1000);
    let entries = wanted
        .clone()
        .map(|block| Inventory::WitnessBlock(hash(block)));
    client
        .send(NetworkMessage::GetData(entries.collect()))
        .await;
    for block in wanted {
        assert_eq!(client.block().await, *block);
    }
    client.ping().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_tips_are_announced_as_the_peer_wants_it() {
    let Some(blocks) = regtest_blocks() else {
        return;
    };
    let server = Server::start(&blocks[..20], NetLimits::default(), regtest()).await;
    let (mut plain, height) = Client::connect_plainly(server.addr).await;
    assert_eq!(height, 20);
    let mut modern = Client::connect(server.addr).await;
    let mut stranger = Client::connect(server.addr).await;
    plain.ping().await;
    stranger.ping().await;
    let none = BlockHash::all_zeros();
    assert_eq!(modern.headers(vec![hash(&blocks[19])], none).await, []);

    server.feed(&blocks[20]).await;
    let inv = Message::Inv(vec![Inventory::Block(hash(&blocks[20]))]);
    assert_eq!(plain.receive().await, inv);
    // It has not told what it has, so a header might not connect.
    assert_eq!(stranger.receive().await, inv);
    let announced = Message::Headers(vec![header(&blocks[20])]);
    assert_eq!(modern.receive().await, announced);
    // A block beside the active chain is not announced: 22 waits for its body.
    server.node.store.insert(&[header(&blocks[21])]).unwrap();
    modern.ping().await;
    server.feed(&blocks[21]).await;
    let announced = Message::Headers(vec![header(&blocks[21])]);
    assert_eq!(modern.receive().await, announced);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_below_the_minimum_work_is_not_told() {
    let Some(blocks) = regtest_blocks() else {
        return;
    };
    let mut params = regtest();
    params.min_chain_work = blocks[..11]
        .iter()
        .map(|block| header(block).work())
        .fold(params.genesis().header.work(), |sum, work| sum + work);
    let server = Server::start(&blocks[..9], NetLimits::default(), params).await;
    let mut client = Client::connect(server.addr).await;
    let (none, genesis) = (BlockHash::all_zeros(), regtest().genesis_hash());
    assert_eq!(client.headers(vec![genesis], none).await, []);
    server.feed(&blocks[9]).await;
    client.ping().await;
    server.feed(&blocks[10]).await;
    let inv = Message::Inv(vec![Inventory::Block(hash(&blocks[10]))]);
    assert_eq!(client.receive().await, inv);
    assert_eq!(client.headers(vec![genesis], none).await.len(), 11);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_peers_are_closed_and_the_others_go_on() {
    let server = Server::start(&[], NetLimits::default(), regtest()).await;
    let magic = regtest().magic;
    let mut honest = Client::connect(server.addr).await;
    honest.ping().await;

    let mut oversized = encode_frame("block", &[], magic);
    oversized[16..20].copy_from_slice(&81_000_000_u32.to_le_bytes());
    let mut bad_checksum = encode_message(NetworkMessage::Ping(1), magic);
    bad_checksum[24] ^= 1;
    let entries = vec![Inventory::WitnessBlock(regtest().genesis_hash()); 5000];
    let greedy = encode_message(NetworkMessage::GetData(entries), magic);
    let locator = vec![BlockHash::all_zeros(); 102];
    let locator = GetHeadersMessage::new(locator, BlockHash::all_zeros());
    let long_locator = encode_message(NetworkMessage::GetHeaders(locator), magic);
    let foreign = encode_message(NetworkMessage::Ping(1), [1, 2, 3, 4]);
    let malformed = encode_frame("getdata", &[0xff; 9], magic);
    for bytes in [
        oversized.clone(),
        bad_checksum,
        greedy,
        long_locator,
        foreign,
        malformed,
        vec![0; 24],
    ] {
        let mut hostile = Client::connect(server.addr).await;
        hostile.send_raw(&bytes).await;
        hostile.is_closed().await;
    }
    // Before the handshake.
    for bytes in [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
        encode_message(NetworkMessage::Ping(1), magic),
        oversized,
    ] {
        let mut hostile = Client(TcpStream::connect(server.addr).await.unwrap());
        hostile.send_raw(&bytes).await;
        hostile.is_closed().await;
    }
    honest.ping().await;
    Client::connect(server.addr).await.ping().await;
    assert!(!server.task.is_finished());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_above_the_limit_are_closed_until_one_ends() {
    let limits = NetLimits {
        max_inbound: 2,
        ..NetLimits::default()
    };
    let server = Server::start(&[], limits, regtest()).await;
    let mut first = Client::connect(server.addr).await;
    let second = Client::connect(server.addr).await;
    let mut third = Client(TcpStream::connect(server.addr).await.unwrap());
    third.is_closed().await;
    first.ping().await;
    drop(second);
    let deadline = Instant::now() + PATIENCE;
    let mut fourth = loop {
        if let Some((client, _)) = Client::try_connect(server.addr).await {
            break client;
        }
        assert!(Instant::now() < deadline, "the place is not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    fourth.ping().await;
    // A stop closes them all.
    server.stop().await;
    first.is_closed().await;
    fourth.is_closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_are_silent_or_do_not_read_are_closed() {
    let limits = NetLimits {
        handshake: Duration::from_millis(300),
        idle: Duration::from_millis(300),
        write: Duration::from_millis(300),
        ..NetLimits::default()
    };
    let server = Server::start(&[], limits, regtest()).await;
    Client(TcpStream::connect(server.addr).await.unwrap())
        .is_closed()
        .await;
    Client::connect(server.addr).await.is_closed().await;

    // Its questions fill the server's way to it, then its own way to the server.
    let mut deaf = Client::connect(server.addr).await;
    let entries = vec![Inventory::WitnessBlock(regtest().genesis_hash()); 1000];
    let question = encode_message(NetworkMessage::GetData(entries), regtest().magic);
    in_time(async { while deaf.0.write_all(&question).await.is_ok() {} }).await;
    server.stop().await;
}
