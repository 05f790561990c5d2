//! A peer that serves a chain of blocks and misbehaves as it is told.

use std::sync::Arc;

use parking_lot::Mutex;
use pulse_node::p2p::codec::{Message, encode_frame, encode_message, read_message};
use pulse_primitives::bitcoin::{
    Block, BlockHash,
    consensus::serialize,
    p2p::{
        Address, ServiceFlags, message::NetworkMessage, message_blockdata::Inventory,
        message_network::VersionMessage,
    },
};
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{broadcast, watch},
};

use super::regtest;

/// A block with its hash, which is looked up often.
type Hashed = (BlockHash, Block);

/// What the peer does when a block is asked for.
pub enum Reply {
    /// Sends the block.
    Block,
    /// Writes these bytes instead.
    Bytes(Vec<u8>),
    /// Does nothing.
    Nothing,
    /// Writes these bytes and hangs up.
    HangUp(Vec<u8>),
}

type Script = Box<dyn Fn(usize, &Block) -> Reply + Send + std::marker::Sync>;

struct State {
    magic: [u8; 4],
    /// Blocks from height 1.
    blocks: Mutex<Vec<Hashed>>,
    requested: Mutex<Vec<BlockHash>>,
    connections: Mutex<u32>,
    header_requests: Mutex<u32>,
    /// `None`: headers are never answered.
    script: Option<Script>,
    announcements: broadcast::Sender<NetworkMessage>,
    /// While `true`, blocks that are asked for are not answered yet.
    holding: watch::Sender<bool>,
}

/// A peer that listens until it is dropped.
pub struct TestPeer {
    pub addr: String,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for TestPeer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestPeer {
    /// A peer that does all that it is asked for.
    pub async fn honest(blocks: Vec<Block>) -> Self {
        Self::scripted(blocks, |_, _| Reply::Block).await
    }

    /// As [`TestPeer::honest`], on another network than regtest.
    pub async fn honest_on(magic: [u8; 4], blocks: Vec<Block>) -> Self {
        Self::listen(magic, blocks, Some(Box::new(|_, _| Reply::Block))).await
    }

    /// A peer that decides for each block, by its height, how to answer.
    pub async fn scripted(
        blocks: Vec<Block>,
        script: impl Fn(usize, &Block) -> Reply + Send + std::marker::Sync + 'static,
    ) -> Self {
        Self::listen(regtest().magic, blocks, Some(Box::new(script))).await
    }

    /// A peer that never answers after the handshake.
    pub async fn silent() -> Self {
        Self::listen(regtest().magic, Vec::new(), None).await
    }

    async fn listen(magic: [u8; 4], blocks: Vec<Block>, script: Option<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State {
            magic,
            blocks: Mutex::new(hashed(blocks)),
            requested: Mutex::default(),
            connections: Mutex::new(0),
            header_requests: Mutex::new(0),
            script,
            announcements: broadcast::channel(64).0,
            holding: watch::Sender::new(false),
        });
        let task = tokio::spawn({
            let state = Arc::clone(&state);
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    *state.connections.lock() += 1;
                    let state = Arc::clone(&state);
                    // However it ends, the node under test is what is looked at.
                    tokio::spawn(async move { serve(stream, &state).await });
                }
            }
        });
        Self { addr, state, task }
    }

    /// Keeps back all blocks that are asked for from now on, or sends them.
    pub fn hold(&self, hold: bool) {
        self.state.holding.send_replace(hold);
    }

    /// Hashes of all blocks that were asked for, in order.
    pub fn requested(&self) -> Vec<BlockHash> {
        self.state.requested.lock().clone()
    }

    /// How often somebody connected.
    pub fn connections(&self) -> u32 {
        *self.state.connections.lock()
    }

    /// How often it was asked for headers.
    pub fn header_requests(&self) -> u32 {
        *self.state.header_requests.lock()
    }

    /// Replaces the chain without a word.
    pub fn set_chain(&self, blocks: Vec<Block>) {
        *self.state.blocks.lock() = hashed(blocks);
    }

    /// Replaces the chain and announces its tip by `headers` or by `inv`.
    pub fn announce(&self, blocks: Vec<Block>, by_inv: bool) {
        let tip = blocks.last().unwrap().header;
        self.set_chain(blocks);
        let message = if by_inv {
            NetworkMessage::Inv(vec![Inventory::Block(tip.block_hash())])
        } else {
            NetworkMessage::Headers(vec![tip])
        };
        self.say(message);
    }

    /// Sends a message to everybody who is connected.
    pub fn say(&self, message: NetworkMessage) {
        // Nobody may be connected.
        let _ = self.state.announcements.send(message);
    }
}

fn hashed(blocks: Vec<Block>) -> Vec<Hashed> {
    blocks
        .into_iter()
        .map(|block| (block.block_hash(), block))
        .collect()
}

async fn serve(stream: TcpStream, state: &State) -> Option<()> {
    let magic = state.magic;
    let (reader, writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let writer = Arc::new(tokio::sync::Mutex::new(writer));
    shake_hands(&mut reader, &writer, state).await?;
    let mut announcements = state.announcements.subscribe();
    let announce = async {
        while let Ok(message) = announcements.recv().await {
            write(&writer, &encode_message(message, magic)).await?;
        }
        None
    };
    let answer = async {
        loop {
            match read_message(&mut reader, magic).await.ok()?.0 {
                Message::Ping(nonce) => {
                    let pong = NetworkMessage::Pong(nonce);
                    write(&writer, &encode_message(pong, magic)).await?;
                }
                Message::GetHeaders(request) if state.script.is_some() => {
                    *state.header_requests.lock() += 1;
                    let headers = headers_after(&state.blocks.lock(), &request.locator_hashes);
                    let headers = NetworkMessage::Headers(headers);
                    write(&writer, &encode_message(headers, magic)).await?;
                }
                Message::GetData(wanted) => {
                    let hashes: Vec<_> = wanted
                        .into_iter()
                        .map(|entry| match entry {
                            Inventory::WitnessBlock(hash) => hash,
                            other => panic!("asked for {other:?}"),
                        })
                        .collect();
                    state.requested.lock().extend(&hashes);
                    for hash in hashes {
                        send_block(&writer, state, hash).await?;
                    }
                }
                _ => {}
            }
        }
    };
    tokio::select! { end = announce => end, end = answer => end }
}

async fn shake_hands(
    reader: &mut BufReader<OwnedReadHalf>,
    writer: &tokio::sync::Mutex<OwnedWriteHalf>,
    state: &State,
) -> Option<()> {
    let magic = state.magic;
    let nobody = Address::new(&([0, 0, 0, 0], 0).into(), ServiceFlags::NONE);
    let mut version = VersionMessage::new(
        ServiceFlags::NETWORK | ServiceFlags::WITNESS,
        0,
        nobody.clone(),
        nobody,
        1,
        "/scripted:1/".to_owned(),
        i32::try_from(state.blocks.lock().len()).unwrap(),
    );
    version.version = 70_016;
    for message in [
        NetworkMessage::Version(version),
        NetworkMessage::WtxidRelay,
        NetworkMessage::SendAddrV2,
        NetworkMessage::Verack,
    ] {
        write(writer, &encode_message(message, magic)).await?;
    }
    while read_message(reader, magic).await.ok()?.0 != Message::Verack {}
    Some(())
}

fn headers_after(
    blocks: &[Hashed],
    locator: &[BlockHash],
) -> Vec<pulse_primitives::bitcoin::block::Header> {
    let start = locator
        .iter()
        .find_map(|hash| {
            let index = blocks.iter().position(|(known, _)| known == hash)?;
            Some(index + 1)
        })
        .unwrap_or(0);
    blocks[start..]
        .iter()
        .take(2000)
        .map(|(_, block)| block.header)
        .collect()
}

async fn send_block(
    writer: &tokio::sync::Mutex<OwnedWriteHalf>,
    state: &State,
    hash: BlockHash,
) -> Option<()> {
    let mut holding = state.holding.subscribe();
    holding.wait_for(|holding| !*holding).await.ok()?;
    let found = state
        .blocks
        .lock()
        .iter()
        .enumerate()
        .find(|(_, (known, _))| *known == hash)
        .map(|(index, (_, block))| (index + 1, block.clone()));
    let (height, block) = found.expect("only blocks that were announced are asked for");
    match (state.script.as_ref()?)(height, &block) {
        Reply::Block => {
            let frame = encode_frame("block", &serialize(&block), state.magic);
            write(writer, &frame).await
        }
        Reply::Bytes(bytes) => write(writer, &bytes).await,
        Reply::Nothing => Some(()),
        Reply::HangUp(bytes) => {
            write(writer, &bytes).await?;
            None
        }
    }
}

/// The frame of a `block` message on regtest.
pub fn block_frame(block: &Block) -> Vec<u8> {
    encode_frame("block", &serialize(block), regtest().magic)
}

async fn write(writer: &tokio::sync::Mutex<OwnedWriteHalf>, bytes: &[u8]) -> Option<()> {
    writer.lock().await.write_all(bytes).await.ok()
}
