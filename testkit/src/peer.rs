//! A Bitcoin peer on the loopback interface that serves a chain, well or badly.

use std::{
    collections::HashMap,
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use bitcoin::{Block, BlockHash};
use parking_lot::{Mutex, RwLock};
use pulse_primitives::Height;

use crate::{behaviour::Behaviour, served_chain::ServedChain, session::Session};

/// How often waiting threads look whether there is something else to do.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// What clients have asked of a peer, and what they got.
#[derive(Debug, Clone, Default)]
pub struct PeerLog {
    /// Connections accepted.
    pub connections: u64,
    /// Finished handshakes.
    pub handshakes: u64,
    /// Connections that the client closed.
    pub closed_by_client: u64,
    /// Requests for headers.
    pub getheaders: u64,
    /// Messages that ask for blocks.
    pub getdata: u64,
    /// How often each block was asked for.
    pub requested: HashMap<BlockHash, u32>,
    /// Blocks asked for without their witnesses.
    pub requested_without_witness: u64,
    /// Blocks sent completely and correctly.
    pub blocks_served: u64,
    /// Bytes of those.
    pub bytes_served: u64,
    /// Most blocks that a client waited for at once.
    pub max_in_flight: usize,
}

/// What the threads of a peer share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) chain: RwLock<ServedChain>,
    /// Counts changes of the chain.
    pub(crate) version: AtomicU64,
    pub(crate) behaviours: RwLock<Vec<Behaviour>>,
    pub(crate) log: Mutex<PeerLog>,
    pub(crate) stop: AtomicBool,
    /// Open connections, to be closed at the end. The number is that of the connection.
    streams: Mutex<HashMap<u64, TcpStream>>,
}

impl Shared {
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Sleeps for `duration`, but not beyond the end of the peer.
    pub(crate) fn sleep(&self, mut duration: Duration) {
        while !duration.is_zero() && !self.is_stopped() {
            let step = duration.min(TICK);
            thread::sleep(step);
            duration -= step;
        }
    }
}

/// A peer that runs in threads of its own until it is dropped.
///
/// It answers any number of connections with headers and blocks, and announces new
/// blocks by `headers` to those who asked for that, by `inv` to the others.
#[derive(Debug)]
pub struct ScriptedPeer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl ScriptedPeer {
    /// An honest peer on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// If there is no free port.
    #[must_use]
    pub fn honest(chain: ServedChain) -> Self {
        Self::start(chain, &[])
    }

    /// A peer with these behaviours on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// If there is no free port.
    #[must_use]
    pub fn start(chain: ServedChain, behaviours: &[Behaviour]) -> Self {
        Self::bind(([127, 0, 0, 1], 0).into(), chain, behaviours)
            .expect("there is a free port on the loopback interface")
    }

    /// A peer at a given address.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn bind(
        addr: SocketAddr,
        chain: ServedChain,
        behaviours: &[Behaviour],
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(addr)?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            chain: RwLock::new(chain),
            version: AtomicU64::new(0),
            behaviours: RwLock::new(behaviours.to_vec()),
            log: Mutex::default(),
            stop: AtomicBool::new(false),
            streams: Mutex::default(),
        });
        let acceptor = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || accept(&listener, &shared))
        };
        Ok(Self {
            addr,
            shared,
            acceptor: Some(acceptor),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Adds a block as the new tip and announces it.
    ///
    /// # Panics
    /// If its parent is not known.
    pub fn push_block(&self, block: &Block) {
        self.push_blocks(std::iter::once(block));
    }

    /// Adds blocks, the last of which becomes the tip, and announces the new tip. A
    /// chain that leaves the old one somewhere replaces it from there on.
    ///
    /// # Panics
    /// If a parent is not known.
    pub fn push_blocks<'a>(&self, blocks: impl IntoIterator<Item = &'a Block>) {
        self.shared.chain.write().extend(blocks);
        self.shared.version.fetch_add(1, Ordering::Release);
    }

    /// Replaces the chain altogether and announces its tip. Blocks of the old chain are
    /// forgotten.
    pub fn set_chain(&self, chain: ServedChain) {
        *self.shared.chain.write() = chain;
        self.shared.version.fetch_add(1, Ordering::Release);
    }

    /// Behaves otherwise from now on, on open connections too.
    pub fn set_behaviours(&self, behaviours: &[Behaviour]) {
        *self.shared.behaviours.write() = behaviours.to_vec();
    }

    /// Closes all connections. Clients may connect again.
    pub fn disconnect_all(&self) {
        for stream in self.shared.streams.lock().values() {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Number of open connections.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.shared.streams.lock().len()
    }

    /// What has happened so far.
    #[must_use]
    pub fn log(&self) -> PeerLog {
        self.shared.log.lock().clone()
    }

    /// Height of the tip that it serves.
    #[must_use]
    pub fn height(&self) -> Height {
        self.shared.chain.read().height()
    }

    /// Hash of the tip that it serves.
    #[must_use]
    pub fn tip_hash(&self) -> BlockHash {
        self.shared.chain.read().tip_hash()
    }
}

impl Drop for ScriptedPeer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.disconnect_all();
        if let Some(acceptor) = self.acceptor.take() {
            // A panic in it was printed already.
            let _ = acceptor.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut sessions: Vec<JoinHandle<()>> = Vec::new();
    for number in 0.. {
        let stream = loop {
            if shared.is_stopped() {
                shared
                    .streams
                    .lock()
                    .values()
                    .for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
                for session in sessions {
                    let _ = session.join();
                }
                return;
            }
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(_) => thread::sleep(TICK),
            }
        };
        sessions.retain(|session| !session.is_finished());
        let shared = Arc::clone(shared);
        sessions.push(thread::spawn(move || serve(number, stream, &shared)));
    }
}

fn serve(number: u64, stream: TcpStream, shared: &Arc<Shared>) {
    let Ok(copy) = stream.try_clone() else {
        return;
    };
    shared.streams.lock().insert(number, copy);
    shared.log.lock().connections += 1;
    // How a connection ends is the test's business, and is seen at the other end.
    let _ = Session::new(&stream, shared).and_then(Session::run);
    let _ = stream.shutdown(Shutdown::Both);
    shared.streams.lock().remove(&number);
}
