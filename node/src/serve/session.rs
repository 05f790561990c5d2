//! One peer that is served, from the handshake to the end of its connection.

use std::{net::SocketAddr, pin::pin, sync::Arc};

use pulse_primitives::{
    bitcoin::{
        BlockHash,
        p2p::{
            message::NetworkMessage,
            message_blockdata::{GetHeadersMessage, Inventory},
        },
    },
    tip::ChainTip,
};
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{TcpStream, tcp::OwnedWriteHalf},
    task::spawn_blocking,
    time::timeout,
};
use tracing::debug;

use super::Context;
use crate::{
    metrics,
    p2p::{
        codec::{CodecError, Message, encode_frame, encode_message, read_message},
        handshake::{Direction, HandshakeError, LocalVersion, handshake},
        metrics as p2p_metrics,
        peer::CloseReason,
    },
};

/// Most entries of one `getdata`; Bitcoin Core asks for 16 blocks at a time.
const MAX_GETDATA: usize = 1000;
/// What the peer must take within the write limit, in bytes: slow peers may take long
/// for a block, but not for ever.
const WRITE_CHUNK: usize = 64 * 1024;

/// The connection after the handshake, but for its reading half.
pub(super) struct Session {
    context: Arc<Context>,
    writer: OwnedWriteHalf,
    /// The peer sent `sendheaders`.
    wants_headers: bool,
    /// The newest block that the peer has the headers up to, as far as we know.
    known: Option<BlockHash>,
}

impl Session {
    /// Shakes hands and serves until the connection ends. Dropping the future closes it.
    pub async fn run(
        context: Arc<Context>,
        mut stream: TcpStream,
        addr: SocketAddr,
    ) -> CloseReason {
        // Answers are waited for.
        if let Err(err) = stream.set_nodelay(true) {
            return CloseReason::Ended(err);
        }
        // Watched from before the handshake, so that no tip behind the height that is
        // told there goes unannounced.
        let mut tips = context.answers.tip();
        let local = LocalVersion {
            nonce: context.nonce,
            start_height: tips.borrow_and_update().height,
        };
        let shake = handshake(&mut stream, context.magic, &local, Direction::Inbound);
        let remote = match timeout(context.limits.handshake, shake).await {
            Ok(Ok(remote)) => remote,
            Ok(Err(err)) => return CloseReason::Handshake(err),
            Err(_) => return CloseReason::Handshake(HandshakeError::Timeout),
        };
        debug!(%addr, user_agent = remote.user_agent, "inbound peer connected");
        let _counted = metrics::InboundPeer::new();

        let (reader, writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let (magic, idle) = (context.magic, context.limits.idle);
        let mut session = Self {
            context,
            writer,
            wants_headers: false,
            known: None,
        };
        loop {
            // Reading is not cancel-safe: the future lives until it has a message.
            let mut read = pin!(timeout(idle, read_message(&mut reader, magic)));
            let read = loop {
                tokio::select! {
                    read = &mut read => break read,
                    changed = tips.changed() => {
                        if changed.is_err() {
                            return CloseReason::Stopped;
                        }
                        let tip = *tips.borrow_and_update();
                        if let Err(reason) = session.announce(tip).await {
                            return reason;
                        }
                    }
                }
            };
            let (message, len) = match read {
                Ok(Ok(read)) => read,
                Ok(Err(CodecError::Io(err))) => return CloseReason::Ended(err),
                Ok(Err(err)) => return CloseReason::Malformed(err),
                Err(_) => return CloseReason::Inactive,
            };
            p2p_metrics::received_bytes(len);
            if let Err(reason) = session.answer(message).await {
                return reason;
            }
        }
    }

    async fn answer(&mut self, message: Message) -> Result<(), CloseReason> {
        match message {
            Message::Ping(nonce) => self.send(NetworkMessage::Pong(nonce)).await,
            Message::SendHeaders => {
                self.wants_headers = true;
                Ok(())
            }
            Message::GetHeaders(wanted) => self.send_headers(&wanted).await,
            Message::GetData(wanted) => self.send_blocks(wanted).await,
            _ => Ok(()),
        }
    }

    async fn send_headers(&mut self, wanted: &GetHeadersMessage) -> Result<(), CloseReason> {
        let answers = &self.context.answers;
        let (known, headers) = if answers.is_worth_telling() {
            answers.headers_after(&wanted.locator_hashes, &wanted.stop_hash)
        } else {
            (None, Vec::new())
        };
        // A header that was asked for by its hash alone need not connect to others.
        if let Some(fork) = known {
            self.known = Some(headers.last().map_or(fork, |header| header.block_hash()));
        }
        self.send(NetworkMessage::Headers(headers)).await
    }

    /// Sends the blocks one after another, then a `notfound` with what there is not.
    async fn send_blocks(&mut self, wanted: Vec<Inventory>) -> Result<(), CloseReason> {
        if wanted.len() > MAX_GETDATA {
            return Err(CloseReason::AskedTooMuch {
                count: wanted.len(),
            });
        }
        let mut missing = Vec::new();
        for entry in wanted {
            let frame = match entry {
                Inventory::WitnessBlock(hash) => self.block_frame(hash, true).await,
                Inventory::Block(hash) => self.block_frame(hash, false).await,
                _ => None,
            };
            match frame {
                Some(frame) => {
                    self.write(&frame).await?;
                    metrics::block_served();
                }
                None => missing.push(entry),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        self.send(NetworkMessage::NotFound(missing)).await
    }

    /// Reads the block and makes its frame where waiting for the disk and hashing 4 MB
    /// hold up nobody.
    async fn block_frame(&self, hash: BlockHash, witnesses: bool) -> Option<Vec<u8>> {
        let answers = Arc::clone(&self.context.answers);
        let magic = self.context.magic;
        let frame = spawn_blocking(move || {
            let block = answers.block(&hash, witnesses)?;
            Some(encode_frame("block", &block, magic))
        });
        // It fails only when it panics, which is logged, or when the runtime ends.
        frame.await.ok().flatten()
    }

    /// Tells the peer of a new tip, unless it knows it from its own questions.
    async fn announce(&mut self, tip: ChainTip) -> Result<(), CloseReason> {
        let answers = &self.context.answers;
        if !answers.is_worth_telling() {
            return Ok(());
        }
        let way = self.known.and_then(|known| answers.way_to(tip.hash, known));
        match way {
            Some(way) if way.is_empty() => Ok(()),
            Some(way) if self.wants_headers => {
                self.known = Some(tip.hash);
                self.send(NetworkMessage::Headers(way)).await
            }
            _ => {
                let inv = vec![Inventory::Block(tip.hash)];
                self.send(NetworkMessage::Inv(inv)).await
            }
        }
    }

    async fn send(&mut self, message: NetworkMessage) -> Result<(), CloseReason> {
        let frame = encode_message(message, self.context.magic);
        self.write(&frame).await
    }

    async fn write(&mut self, frame: &[u8]) -> Result<(), CloseReason> {
        for chunk in frame.chunks(WRITE_CHUNK) {
            match timeout(self.context.limits.write, self.writer.write_all(chunk)).await {
                Ok(Ok(())) => p2p_metrics::sent_bytes(chunk.len() as u64),
                Ok(Err(err)) => return Err(CloseReason::Ended(err)),
                Err(_) => return Err(CloseReason::NotReading),
            }
        }
        Ok(())
    }
}
