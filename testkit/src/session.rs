//! One connection of a scripted peer.
//!
//! A thread reads and decodes; the session's own thread answers, serves blocks one at
//! a time, and announces new tips in between.

use std::{
    collections::VecDeque,
    io::{self, BufReader, Write},
    net::TcpStream,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bitcoin::{
    Block, BlockHash,
    absolute::LockTime,
    block::Header,
    consensus::{deserialize, serialize},
    hashes::Hash,
    p2p::{
        Address, ServiceFlags,
        message::NetworkMessage,
        message_blockdata::{GetHeadersMessage, Inventory},
        message_network::VersionMessage,
    },
};
use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

use crate::{
    behaviour::{AnswerOrder, Behaviour},
    peer::{Shared, TICK},
    served_chain::BlockBytes,
    wire::{checksum, encode, frame_header, read_message},
};

/// Most headers in a message.
const MAX_HEADERS: usize = 2_000;
/// A client that takes nothing for so long is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Length that [`Behaviour::HugeMessage`] announces.
const HUGE: u32 = 80_000_000;

pub(crate) struct Session<'a> {
    stream: &'a TcpStream,
    shared: &'a Arc<Shared>,
    magic: [u8; 4],
    inbox: Receiver<NetworkMessage>,
    queue: VecDeque<BlockHash>,
    served: u64,
    is_ready: bool,
    wants_headers: bool,
    /// Version of the chain and tip that the client was last told of.
    announced: (u64, BlockHash),
    rng: ChaCha8Rng,
}

impl<'a> Session<'a> {
    pub(crate) fn new(stream: &'a TcpStream, shared: &'a Arc<Shared>) -> io::Result<Self> {
        // The listener does not block, and some systems hand that down.
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let (version, tip, magic) = {
            let chain = shared.chain.read();
            let version = shared.version.load(Ordering::Acquire);
            (version, chain.tip_hash(), chain.params().magic)
        };
        let (sender, inbox) = sync_channel(64);
        let reader = stream.try_clone()?;
        let log = Arc::clone(shared);
        thread::spawn(move || read_all(reader, magic, &sender, &log));
        let seed = shared
            .behaviours
            .read()
            .iter()
            .find_map(|behaviour| match behaviour {
                Behaviour::Order(AnswerOrder::Shuffled(seed)) => Some(*seed),
                _ => None,
            });
        Ok(Self {
            stream,
            shared,
            magic,
            inbox,
            queue: VecDeque::new(),
            served: 0,
            is_ready: false,
            wants_headers: false,
            announced: (version, tip),
            rng: ChaCha8Rng::seed_from_u64(seed.unwrap_or_default()),
        })
    }

    /// Serves the connection until it ends or the peer stops.
    pub(crate) fn run(mut self) -> io::Result<()> {
        while !self.shared.is_stopped() {
            while let Some(message) = self.receive()? {
                if !self.has(Behaviour::Silent) {
                    self.handle(message)?;
                }
            }
            self.announce()?;
            if self.may_serve()
                && let Some(hash) = self.next_block()
            {
                self.serve(&hash)?;
            }
        }
        Ok(())
    }

    /// The next message; waits a moment for it if there is nothing to serve.
    fn receive(&self) -> io::Result<Option<NetworkMessage>> {
        let closed = || io::Error::from(io::ErrorKind::ConnectionAborted);
        if !self.queue.is_empty() && self.may_serve() {
            return match self.inbox.try_recv() {
                Ok(message) => Ok(Some(message)),
                Err(TryRecvError::Empty) => Ok(None),
                Err(TryRecvError::Disconnected) => Err(closed()),
            };
        }
        match self.inbox.recv_timeout(TICK) {
            Ok(message) => Ok(Some(message)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(closed()),
        }
    }

    fn handle(&mut self, message: NetworkMessage) -> io::Result<()> {
        match message {
            NetworkMessage::Version(_) => {
                self.send(NetworkMessage::Version(self.version()))?;
                self.send(NetworkMessage::Verack)
            }
            NetworkMessage::Verack => {
                self.is_ready = true;
                self.shared.log.lock().handshakes += 1;
                Ok(())
            }
            NetworkMessage::SendHeaders => {
                self.wants_headers = true;
                Ok(())
            }
            NetworkMessage::Ping(nonce) => self.send(NetworkMessage::Pong(nonce)),
            NetworkMessage::GetHeaders(request) => {
                self.shared.log.lock().getheaders += 1;
                if self.has(Behaviour::NoHeaders) {
                    return Ok(());
                }
                let headers = self.headers(&request);
                self.send(NetworkMessage::Headers(headers))
            }
            NetworkMessage::GetData(items) => self.enqueue(&items),
            _ => Ok(()),
        }
    }

    fn version(&self) -> VersionMessage {
        let nobody = Address::new(&([0, 0, 0, 0], 0).into(), ServiceFlags::NONE);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        VersionMessage {
            version: 70_016,
            services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
            timestamp: now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or_default()),
            receiver: nobody.clone(),
            sender: nobody,
            nonce: rand::thread_rng().r#gen(),
            user_agent: "/pulse-testkit:0.1/".to_owned(),
            start_height: i32::try_from(self.shared.chain.read().height()).expect("fits"),
            relay: false,
        }
    }

    fn headers(&self, request: &GetHeadersMessage) -> Vec<Header> {
        let chain = self.shared.chain.read();
        let fork = request
            .locator_hashes
            .iter()
            .find_map(|hash| chain.active_height(hash))
            .unwrap_or_default();
        let mut headers = chain.headers_from(fork + 1, MAX_HEADERS);
        if let Some(stop) = headers
            .iter()
            .position(|header| header.block_hash() == request.stop_hash)
        {
            headers.truncate(stop + 1);
        }
        self.spoil_headers(fork + 1, headers)
    }

    /// Applies [`Behaviour::BadPowHeader`] to headers from height `from` on.
    fn spoil_headers(&self, from: u32, mut headers: Vec<Header>) -> Vec<Header> {
        for behaviour in self.shared.behaviours.read().iter() {
            let Behaviour::BadPowHeader { height } = behaviour else {
                continue;
            };
            let Some(index) = height
                .checked_sub(from)
                .and_then(|n| usize::try_from(n).ok())
            else {
                continue;
            };
            if let Some(header) = headers.get_mut(index) {
                while header.validate_pow(header.target()).is_ok() {
                    header.nonce = header.nonce.wrapping_add(1);
                }
                // What follows no longer connects.
                headers.truncate(index + 1);
            }
        }
        headers
    }

    fn enqueue(&mut self, items: &[Inventory]) -> io::Result<()> {
        let mut log = self.shared.log.lock();
        log.getdata += 1;
        for item in items {
            let hash = match item {
                Inventory::WitnessBlock(hash) => hash,
                Inventory::Block(hash) => {
                    log.requested_without_witness += 1;
                    hash
                }
                _ => continue,
            };
            *log.requested.entry(*hash).or_default() += 1;
            self.queue.push_back(*hash);
        }
        log.max_in_flight = log.max_in_flight.max(self.queue.len());
        drop(log);
        if self.has(Behaviour::NotFound) {
            let missing = self.queue.drain(..).map(Inventory::WitnessBlock).collect();
            return self.send(NetworkMessage::NotFound(missing));
        }
        Ok(())
    }

    fn may_serve(&self) -> bool {
        !self
            .shared
            .behaviours
            .read()
            .iter()
            .any(|behaviour| matches!(behaviour, Behaviour::StallAfter(n) if self.served >= *n))
    }

    fn next_block(&mut self) -> Option<BlockHash> {
        let order = self
            .shared
            .behaviours
            .read()
            .iter()
            .find_map(|behaviour| match behaviour {
                Behaviour::Order(order) => Some(*order),
                _ => None,
            });
        match order {
            None => {}
            Some(AnswerOrder::Reversed) => return self.queue.pop_back(),
            Some(AnswerOrder::Shuffled(_)) => {
                self.queue.make_contiguous().shuffle(&mut self.rng);
            }
        }
        self.queue.pop_front()
    }

    fn serve(&mut self, hash: &BlockHash) -> io::Result<()> {
        let block = self.shared.chain.read().block(hash);
        let Some(mut block) = block else {
            let missing = vec![Inventory::WitnessBlock(*hash)];
            return self.send(NetworkMessage::NotFound(missing));
        };
        let behaviours = self.shared.behaviours.read().clone();
        let mut speed = None;
        let mut is_good = true;
        for behaviour in behaviours {
            match behaviour {
                Behaviour::Delay(delay) => self.shared.sleep(delay),
                Behaviour::SlowDrip { bytes_per_second } => speed = Some(bytes_per_second),
                Behaviour::BadMerkleRoot { height } if height == block.height => {
                    block = spoil_block(&block);
                    is_good = false;
                }
                Behaviour::HangUpMidBlock(n) if n == self.served => {
                    let frame = self.block_frame(&block);
                    self.write(&frame[..frame.len() / 2])?;
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                Behaviour::TruncatedFrame(n) if n == self.served => {
                    let frame = self.block_frame(&block);
                    self.served += 1;
                    return self.write(&frame[..frame.len() - 100]);
                }
                Behaviour::HugeMessage(n) if n == self.served => {
                    self.served += 1;
                    self.write(&frame_header(self.magic, "block", HUGE, block.checksum))?;
                    return self.write(&block.bytes);
                }
                Behaviour::Garbage(n) if n == self.served => {
                    self.served += 1;
                    let mut noise = [0u8; 1024];
                    self.rng.fill(&mut noise[..]);
                    return self.write(&noise);
                }
                Behaviour::UnrequestedBlock(n) if n == self.served => {
                    let unrequested = self.block_frame(&stranger(&block));
                    self.write(&unrequested)?;
                }
                _ => {}
            }
        }
        let magic = self.wire_magic();
        let len = u32::try_from(block.bytes.len()).expect("a block has at most 4 MB");
        let header = frame_header(magic, "block", len, block.checksum);
        match speed {
            None => {
                self.write(&header)?;
                self.write(&block.bytes)?;
            }
            Some(speed) => {
                let frame = self.block_frame(&block);
                self.drip(&frame, speed)?;
            }
        }
        self.served += 1;
        if is_good {
            let mut log = self.shared.log.lock();
            log.blocks_served += 1;
            log.bytes_served += u64::from(len);
        }
        Ok(())
    }

    /// Tells the client of a new tip, once.
    fn announce(&mut self) -> io::Result<()> {
        let version = self.shared.version.load(Ordering::Acquire);
        if !self.is_ready || version == self.announced.0 || self.has(Behaviour::NoHeaders) {
            return Ok(());
        }
        let (tip, headers, from) = {
            let chain = self.shared.chain.read();
            let from = chain.fork_height(&self.announced.1).unwrap_or_default() + 1;
            let headers = chain.headers_from(from, MAX_HEADERS + 1);
            (chain.tip_hash(), headers, from)
        };
        self.announced = (version, tip);
        if self.wants_headers && !headers.is_empty() && headers.len() <= MAX_HEADERS {
            let headers = self.spoil_headers(from, headers);
            self.send(NetworkMessage::Headers(headers))
        } else {
            self.send(NetworkMessage::Inv(vec![Inventory::Block(tip)]))
        }
    }

    fn has(&self, behaviour: Behaviour) -> bool {
        self.shared.behaviours.read().contains(&behaviour)
    }

    /// The magic that this peer writes.
    fn wire_magic(&self) -> [u8; 4] {
        if self.has(Behaviour::WrongMagic) {
            return self.magic.map(|byte| !byte);
        }
        self.magic
    }

    fn block_frame(&self, block: &BlockBytes) -> Vec<u8> {
        let len = u32::try_from(block.bytes.len()).expect("a block has at most 4 MB");
        let mut frame = frame_header(self.wire_magic(), "block", len, block.checksum).to_vec();
        frame.extend_from_slice(&block.bytes);
        frame
    }

    fn send(&self, message: NetworkMessage) -> io::Result<()> {
        self.write(&encode(self.wire_magic(), message))
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stream = self.stream;
        stream.write_all(bytes)
    }

    fn drip(&self, bytes: &[u8], bytes_per_second: u32) -> io::Result<()> {
        let steps = bytes_per_second.div_ceil(20).max(1);
        for chunk in bytes.chunks(usize::try_from(steps).expect("fits")) {
            if self.shared.is_stopped() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            self.write(chunk)?;
            self.shared.sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// Reads messages until the connection ends. Unreadable ones end it, too.
fn read_all(
    stream: TcpStream,
    magic: [u8; 4],
    inbox: &SyncSender<NetworkMessage>,
    shared: &Shared,
) {
    let mut stream = BufReader::new(stream);
    while let Ok(message) = read_message(&mut stream, magic) {
        if inbox.send(message).is_err() {
            return;
        }
    }
    if !shared.is_stopped() {
        shared.log.lock().closed_by_client += 1;
    }
}

/// The same block with another coinbase, which the merkle root does not know.
fn spoil_block(block: &BlockBytes) -> BlockBytes {
    let mut changed: Block = deserialize(&block.bytes).expect("the block was encoded by us");
    changed.txdata[0].lock_time = LockTime::from_consensus(1);
    let bytes = serialize(&changed);
    BlockBytes {
        checksum: checksum(&bytes),
        bytes,
        height: block.height,
    }
}

/// A block of which nobody has heard, like `block` but behind an unknown parent.
fn stranger(block: &BlockBytes) -> BlockBytes {
    let mut bytes = block.bytes.clone();
    bytes[4..36].copy_from_slice(BlockHash::hash(b"nobody's parent").as_byte_array());
    BlockBytes {
        checksum: checksum(&bytes),
        bytes,
        height: block.height,
    }
}
