//! A node's net under test, and clients that connect to it.

use std::{
    collections::HashMap,
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use pulse_node::{
    chain::{Chain, ChainConfig},
    config::SyncConfig,
    headers::HeaderStore,
    net::{Net, NetError, NetHandle, NetLimits, Peer, PeerEvent},
    p2p::{
        ConnectionKind,
        codec::CodecError,
        message::{Message, Outgoing},
        transport::Connection,
        version::{LocalVersion, Nonces, USER_AGENT, handshake, local_services},
    },
    sync::{Sync, SyncHandle},
};
use pulse_primitives::{
    bitcoin::{Network, consensus::serialize, p2p::message::NetworkMessage},
    network::ChainParams,
    ports::{PeerStore, StoreKey},
};
use pulse_testkit::ChainBuilder;
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::mpsc,
    task::{JoinHandle, spawn_blocking},
};
use tokio_util::sync::CancellationToken;

/// Longest that anything may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Parameters of regtest.
pub fn regtest() -> ChainParams {
    ChainParams::new(Network::Regtest, None)
}

/// Limits that let a test see what happens after minutes.
pub fn limits(config: &SyncConfig) -> NetLimits {
    NetLimits {
        dial_interval: Duration::from_millis(5),
        ..NetLimits::from(config)
    }
}

/// What is saved, in memory.
#[derive(Default)]
pub struct MemStore(Mutex<HashMap<StoreKey, Vec<u8>>>);

impl PeerStore for MemStore {
    fn load(&self, key: StoreKey) -> Option<Vec<u8>> {
        self.0.lock().get(&key).cloned()
    }

    fn save(&self, key: StoreKey, bytes: &[u8]) {
        self.0.lock().insert(key, bytes.to_vec());
    }

    fn remove(&self, key: StoreKey) {
        self.0.lock().remove(&key);
    }
}

/// What the net of a node hands to its other parts.
pub struct Open {
    pub sync: Sync,
    pub relay: mpsc::Receiver<PeerEvent>,
}

/// A kernel, a header store and the net above them.
pub struct Node {
    _dir: TempDir,
    chain: Chain,
    pub addr: SocketAddr,
    pub net: NetHandle,
    intake: SyncHandle,
    stop: CancellationToken,
    task: JoinHandle<Result<(), NetError>>,
}

impl Node {
    /// A node on regtest that listens.
    pub async fn start(config: SyncConfig) -> Self {
        let limits = limits(&config);
        Self::start_with(config, limits, None).await
    }

    /// The same with other limits and what an earlier run has saved.
    pub async fn start_with(
        config: SyncConfig,
        limits: NetLimits,
        store: Option<Arc<MemStore>>,
    ) -> Self {
        Self::start_on(regtest(), config, limits, store).await
    }

    /// The same on another network.
    pub async fn start_on(
        params: ChainParams,
        config: SyncConfig,
        limits: NetLimits,
        store: Option<Arc<MemStore>>,
    ) -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        Self::start_behind(listener, params, config, limits, store).await
    }

    /// The same behind a listener that there is. Nobody takes what peers send.
    pub async fn start_behind(
        listener: TcpListener,
        params: ChainParams,
        config: SyncConfig,
        limits: NetLimits,
        store: Option<Arc<MemStore>>,
    ) -> Self {
        let start = Self::start_open(listener, params, config, limits, store);
        start.await.0
    }

    /// The same, and what it hands to the rest of a node.
    pub async fn start_open(
        listener: TcpListener,
        params: ChainParams,
        config: SyncConfig,
        limits: NetLimits,
        store: Option<Arc<MemStore>>,
    ) -> (Self, Open) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let chain_params = params.clone();
        let (chain, headers) = spawn_blocking(move || {
            let headers = HeaderStore::open(&path.join("headers.dat"), &chain_params).unwrap();
            let headers = Arc::new(headers);
            let config = ChainConfig {
                dir: path.join("kernel"),
                params: chain_params,
                script_threads: 1,
                is_second: false,
            };
            (Chain::open(&config, Arc::clone(&headers)).unwrap(), headers)
        })
        .await
        .unwrap();
        let port = listener.local_addr().unwrap().port();
        let (net, handle, events) = Net::new(
            &config,
            &params,
            chain.clone(),
            Arc::clone(&headers),
            Some(listener),
        )
        .unwrap();
        // Not run by itself; it takes in blocks that the test makes.
        let (sync, intake) = Sync::new(
            config,
            params,
            chain.clone(),
            headers,
            handle.clone(),
            events.sync,
        );
        let mut net = net.with_limits(limits);
        if let Some(store) = store {
            net = net.with_store(store);
        }
        let stop = CancellationToken::new();
        let node = Self {
            _dir: dir,
            chain,
            addr: SocketAddr::from(([127, 0, 0, 1], port)),
            net: handle,
            intake,
            task: tokio::spawn(net.run(stop.clone())),
            stop,
        };
        let open = Open {
            sync,
            relay: events.relay,
        };
        (node, open)
    }

    /// A node on regtest that syncs with the peers that it finds.
    pub async fn start_syncing(config: SyncConfig, store: Option<Arc<MemStore>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let limits = limits(&config);
        let (node, open) = Self::start_open(listener, regtest(), config, limits, store).await;
        tokio::spawn(open.sync.run(node.stop.child_token()));
        node
    }

    /// Takes in a block of this moment, so that the chain is up to date.
    pub async fn make_block(&self) {
        let mut chain = ChainBuilder::new(regtest());
        chain.not_before(u32::try_from(self.net.clock().unix()).unwrap());
        let block = serialize(chain.mine_empty());
        self.intake.submit_local(block).await.unwrap();
    }

    /// Height of the active chain.
    pub fn height(&self) -> u32 {
        self.chain.active_height()
    }

    /// Lets time pass until `condition` holds, `step` by `step`.
    pub async fn pass_until(&self, what: &str, step: Duration, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "waited too long for {what}");
            self.net.clock().advance(step);
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Peers of one kind.
    pub fn peers_of(&self, kind: ConnectionKind) -> Vec<Arc<Peer>> {
        let mut peers = self.net.peers();
        peers.retain(|peer| peer.kind == kind);
        peers
    }

    /// Waits until there are so many peers of one kind.
    pub async fn wait_for(&self, kind: ConnectionKind, count: usize) {
        let what = format!("{count} of {}", kind.name());
        wait_until(&what, || self.peers_of(kind).len() == count).await;
    }

    /// Tells it to stop, and leaves it at that.
    pub fn end(&self) {
        self.stop.cancel();
    }

    /// Stops in order.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
        spawn_blocking(move || self.chain.close()).await.unwrap();
    }
}

/// Somebody who connects to the node.
pub struct Client(pub Connection);

impl Client {
    /// Connects and shakes hands.
    pub async fn connect(addr: SocketAddr) -> Self {
        Self::connect_from([127, 0, 0, 1].into(), addr)
            .await
            .expect("a handshake")
    }

    /// The same from this address of the machine; `None` if it is not let in.
    pub async fn connect_from(ip: IpAddr, addr: SocketAddr) -> Option<Self> {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((ip, 0).into()).unwrap();
        let stream = in_time(socket.connect(addr)).await.unwrap();
        Self::greet(Connection::v1(stream, regtest().magic)).await
    }

    /// Shakes hands over a connection that there is.
    pub async fn greet(mut connection: Connection) -> Option<Self> {
        let nonces = Nonces::default();
        let local = local(&nonces);
        let shake = handshake(&mut connection, &local, ConnectionKind::Manual);
        in_time(shake).await.ok()?;
        Some(Self(connection))
    }

    pub async fn send(&mut self, message: NetworkMessage) {
        in_time(self.0.write(&Outgoing::Message(message)))
            .await
            .unwrap();
    }

    /// The next message; `None` if the connection has ended.
    pub async fn receive(&mut self) -> Option<Message> {
        match in_time(self.0.read()).await {
            Ok((message, _)) => Some(message),
            Err(CodecError::Io(_)) => None,
            Err(err) => panic!("{err}"),
        }
    }

    /// Whether the node answers.
    pub async fn ping(&mut self) -> bool {
        let ping = Outgoing::Message(NetworkMessage::Ping(7));
        if in_time(self.0.write(&ping)).await.is_err() {
            return false;
        }
        loop {
            match self.receive().await {
                Some(Message::Pong(nonce)) => return nonce == 7,
                Some(_) => {}
                None => return false,
            }
        }
    }

    /// What the node has said until it answers a ping that is sent now.
    pub async fn said(&mut self) -> Vec<Message> {
        let nonce = rand::random();
        self.send(NetworkMessage::Ping(nonce)).await;
        let mut said = Vec::new();
        loop {
            match self.receive().await.expect("the connection stands") {
                Message::Pong(answer) if answer == nonce => return said,
                message => said.push(message),
            }
        }
    }

    /// Waits until the node has ended the connection.
    pub async fn is_closed(&mut self) {
        while self.receive().await.is_some() {}
    }
}

/// What a client or a scripted peer says of itself.
pub fn local(nonces: &Nonces) -> LocalVersion<'_> {
    LocalVersion {
        services: local_services(false, false),
        user_agent: USER_AGENT,
        start_height: 0,
        time: 1_700_000_000,
        relay: true,
        limited_peers: false,
        nonces,
    }
}

/// The result of `what`, which must not take for ever.
pub async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it takes too long")
}

/// Waits until `condition` holds.
///
/// # Panics
/// After [`PATIENCE`].
pub async fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
