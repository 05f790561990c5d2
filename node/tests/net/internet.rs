//! An internet of one's own: a SOCKS5 proxy that answers as whoever is dialled.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use parking_lot::Mutex;
use pulse_node::p2p::{
    AddrEntry, ConnectionKind, NetAddress,
    addrman::{AddrMan, AddrRecord},
    message::{Message, Outgoing},
    transport::Connection,
    version::{Nonces, handshake},
};
use pulse_primitives::{
    bitcoin::p2p::{ServiceFlags, message::NetworkMessage, message_blockdata::Inventory},
    network::ChainParams,
    ports::{PeerStore, StoreKey},
};
use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::common::{MemStore, local};

/// What a peer of this internet does after the handshake.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// Reads, and says nothing.
    Quiet,
    /// Asks for more blocks at once than anyone may.
    Greedy,
    /// Tells these addresses when it is asked.
    Tells(Vec<AddrEntry>),
    /// Is in truth at this address of the machine.
    At(SocketAddr),
}

struct State {
    magic: [u8; 4],
    dialled: Mutex<Vec<String>>,
    left: Mutex<Vec<String>>,
    told: Mutex<Vec<(String, AddrEntry)>>,
    behaviours: Mutex<HashMap<String, Behaviour>>,
    otherwise: Behaviour,
}

/// The proxy, until it is dropped.
pub struct Internet {
    pub proxy: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Drop for Internet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Internet {
    /// Everybody in it behaves like this.
    pub async fn start(params: &ChainParams, otherwise: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap();
        let state = Arc::new(State {
            magic: params.magic,
            dialled: Mutex::default(),
            left: Mutex::default(),
            told: Mutex::default(),
            behaviours: Mutex::default(),
            otherwise,
        });
        let task = tokio::spawn({
            let state = Arc::clone(&state);
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let state = Arc::clone(&state);
                    // However it ends, the node under test is what is looked at.
                    tokio::spawn(async move { serve(stream, &state).await });
                }
            }
        });
        Self { proxy, state, task }
    }

    /// Lets the host at `target` (`HOST:PORT`) behave otherwise.
    pub fn set(&self, target: &str, behaviour: Behaviour) {
        let mut behaviours = self.state.behaviours.lock();
        behaviours.insert(target.to_owned(), behaviour);
    }

    /// Whom the node has dialled, in order, as `HOST:PORT`.
    pub fn dialled(&self) -> Vec<String> {
        self.state.dialled.lock().clone()
    }

    /// With whom a connection has ended after the handshake, in order.
    pub fn left(&self) -> Vec<String> {
        self.state.left.lock().clone()
    }

    /// The addresses that the node has told, and to whom.
    pub fn told(&self) -> Vec<(String, AddrEntry)> {
        self.state.told.lock().clone()
    }
}

async fn serve(mut stream: TcpStream, state: &State) -> Option<()> {
    let target = socks(&mut stream).await?;
    state.dialled.lock().push(target.clone());
    let behaviour = state.behaviours.lock().get(&target).cloned();
    let behaviour = behaviour.unwrap_or_else(|| state.otherwise.clone());
    if let Behaviour::At(addr) = behaviour {
        let mut there = TcpStream::connect(addr).await.ok()?;
        tokio::io::copy_bidirectional(&mut stream, &mut there)
            .await
            .ok()?;
        return Some(());
    }
    let mut connection = Connection::v1(stream, state.magic);
    let nonces = Nonces::default();
    let local = local(&nonces);
    let shake = handshake(&mut connection, &local, ConnectionKind::Inbound);
    shake.await.ok()?;
    if matches!(behaviour, Behaviour::Greedy) {
        let hash = ChainParams::new(pulse_primitives::bitcoin::Network::Regtest, None);
        let entries = vec![Inventory::WitnessBlock(hash.genesis_hash()); 2000];
        let greedy = Outgoing::Message(NetworkMessage::GetData(entries));
        connection.write(&greedy).await.ok()?;
    }
    let _ = listen(&mut connection, &behaviour, &target, state).await;
    state.left.lock().push(target);
    Some(())
}

/// Until the connection ends.
async fn listen(
    connection: &mut Connection,
    behaviour: &Behaviour,
    target: &str,
    state: &State,
) -> Option<()> {
    loop {
        match connection.read().await.ok()?.0 {
            Message::Ping(nonce) => {
                let pong = Outgoing::Message(NetworkMessage::Pong(nonce));
                connection.write(&pong).await.ok()?;
            }
            Message::GetAddr => {
                if let Behaviour::Tells(entries) = behaviour {
                    let told = Outgoing::addr(entries, true);
                    connection.write(&told).await.ok()?;
                }
            }
            Message::Addr(entries) => {
                let told = entries.into_iter().map(|entry| (target.to_owned(), entry));
                state.told.lock().extend(told);
            }
            _ => {}
        }
    }
}

/// The proxy's side of RFC 1928 and 1929; the target.
async fn socks(stream: &mut TcpStream) -> Option<String> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.ok()?;
    let mut methods = vec![0; usize::from(head[1])];
    stream.read_exact(&mut methods).await.ok()?;
    let with_name = methods.contains(&2);
    let method = if with_name { 2 } else { 0 };
    stream.write_all(&[5, method]).await.ok()?;
    if with_name {
        for version in [true, false] {
            if version {
                stream.read_u8().await.ok()?;
            }
            let len = stream.read_u8().await.ok()?;
            let mut text = vec![0; usize::from(len)];
            stream.read_exact(&mut text).await.ok()?;
        }
        stream.write_all(&[1, 0]).await.ok()?;
    }
    let mut request = [0; 4];
    stream.read_exact(&mut request).await.ok()?;
    let host = match request[3] {
        1 => {
            let mut ip = [0; 4];
            stream.read_exact(&mut ip).await.ok()?;
            Ipv4Addr::from(ip).to_string()
        }
        3 => {
            let len = stream.read_u8().await.ok()?;
            let mut name = vec![0; usize::from(len)];
            stream.read_exact(&mut name).await.ok()?;
            String::from_utf8(name).ok()?
        }
        other => panic!("an address of type {other}"),
    };
    let port = stream.read_u16().await.ok()?;
    let answer = [5, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    stream.write_all(&answer).await.ok()?;
    Some(format!("{host}:{port}"))
}

/// Now, in seconds since 1970.
pub fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// What a peer tells of these addresses (`HOST:PORT`).
pub fn entries(addresses: &[String]) -> Vec<AddrEntry> {
    let entry = |text: &String| {
        let address: NetAddress = text.parse().unwrap();
        AddrEntry {
            time: u32::try_from(now()).unwrap(),
            services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
            addr: address.addr,
            port: address.port,
        }
    };
    addresses.iter().map(entry).collect()
}

/// What an earlier run would have saved that had heard of these addresses.
pub fn store_with(addresses: &[String]) -> Arc<MemStore> {
    let mut man = AddrMan::new([7; 32]);
    let mut rng = StdRng::seed_from_u64(7);
    for entry in entries(addresses) {
        let record = AddrRecord {
            address: entry.address(),
            services: entry.services,
            time: u64::from(entry.time),
        };
        man.add(&record, record.address.addr, 0, now(), &mut rng);
    }
    let store = MemStore::default();
    store.save(StoreKey::Addresses, &man.encode());
    Arc::new(store)
}
