//! Messages from a connection.

use std::{fmt, io, mem};

use bip324::{InboundCipher, NUM_LENGTH_BYTES};
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};

use super::{TransportKind, short_ids};
use crate::{
    codec::{CodecError, FrameHead, HEAD_LEN, decode, parse_command},
    message::{MAX_PAYLOAD, Message, max_payload},
};

/// What is read at once, in bytes, and by how much a message's memory grows at least.
const READ_LEN: usize = 64 * 1024;
/// Header and tag of a packet, in bytes.
pub(super) const PACKET_OVERHEAD: usize = 1 + 16;
/// Longest packet, in bytes: a long command and the longest payload.
const MAX_PACKET: usize = PACKET_OVERHEAD + 1 + 12 + MAX_PAYLOAD;
/// Header bit of a packet that is to be ignored (BIP 324).
const DECOY: u8 = 0x80;
/// Decoys that may come between two messages.
const MAX_DECOYS: u32 = 1000;

/// The bytes that arrive.
pub(super) struct Source {
    stream: BufReader<Box<dyn AsyncRead + Send + Unpin>>,
    /// What has been read and not been taken.
    buffer: Vec<u8>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("buffered", &self.buffer.len())
            .finish_non_exhaustive()
    }
}

impl Source {
    pub fn new(stream: Box<dyn AsyncRead + Send + Unpin>) -> Self {
        Self {
            stream: BufReader::with_capacity(READ_LEN, stream),
            buffer: Vec::new(),
        }
    }

    pub fn buffered(&self) -> &[u8] {
        &self.buffer
    }

    /// Reads once, until at most `len` bytes are buffered. Cancel-safe.
    pub async fn read_up_to(&mut self, len: usize) -> io::Result<()> {
        let missing = len.saturating_sub(self.buffer.len());
        self.buffer.reserve(missing.min(READ_LEN));
        let mut stream = (&mut self.stream).take(missing as u64);
        if stream.read_buf(&mut self.buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Reads until at least `len` bytes are buffered. Cancel-safe.
    pub async fn fill(&mut self, len: usize) -> io::Result<()> {
        while self.buffer.len() < len {
            self.read_up_to(len).await?;
        }
        Ok(())
    }

    /// The first `len` bytes, which are buffered.
    pub fn take(&mut self, len: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(len);
        mem::replace(&mut self.buffer, rest)
    }

    /// Makes `bytes` the next to be taken; nothing is buffered.
    pub fn put_back(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The first `N` bytes. Cancel-safe.
    pub async fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        self.fill(N).await?;
        let (array, rest) = self
            .buffer
            .split_first_chunk()
            .expect("the buffer was filled");
        let (array, rest) = (*array, rest.to_vec());
        self.buffer = rest;
        Ok(array)
    }
}

/// Reads messages from a peer.
#[derive(Debug)]
pub struct MessageReader {
    source: Source,
    state: State,
    negotiated: bool,
}

enum State {
    V1 {
        magic: [u8; 4],
        /// Of the frame whose payload is being read.
        head: Option<FrameHead>,
    },
    V2 {
        cipher: Box<InboundCipher>,
        /// Of the packet that is being read.
        len: Option<usize>,
        /// Decoys since the last message.
        decoys: u32,
        /// Bytes since the last message.
        taken: u64,
    },
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The keys stay out of it.
        f.write_str(match self {
            Self::V1 { .. } => "V1",
            Self::V2 { .. } => "V2",
        })
    }
}

impl MessageReader {
    pub(super) fn v1(source: Source, magic: [u8; 4]) -> Self {
        Self {
            source,
            state: State::V1 { magic, head: None },
            negotiated: false,
        }
    }

    pub(super) fn v2(source: Source, cipher: InboundCipher) -> Self {
        Self {
            source,
            state: State::V2 {
                cipher: Box::new(cipher),
                len: None,
                decoys: 0,
                taken: 0,
            },
            negotiated: false,
        }
    }

    pub(super) fn kind(&self) -> TransportKind {
        match self.state {
            State::V1 { .. } => TransportKind::V1,
            State::V2 { .. } => TransportKind::V2,
        }
    }

    pub(super) fn end_negotiation(&mut self) {
        self.negotiated = true;
    }

    /// Reads one message; gives it with the number of bytes that it took on the wire.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`CodecError`]; the connection is of no use then.
    pub async fn read(&mut self) -> Result<(Message, u64), CodecError> {
        let (message, len) = match &mut self.state {
            State::V1 { magic, head } => read_v1(&mut self.source, *magic, head).await?,
            State::V2 {
                cipher,
                len,
                decoys,
                taken,
            } => {
                let packet = read_v2(&mut self.source, cipher, len, decoys, taken).await?;
                (decode_packet(packet)?, mem::take(taken))
            }
        };
        match message {
            // As Bitcoin Core does (BIP 155 and BIP 339).
            Message::WtxidRelay | Message::SendAddrV2 if self.negotiated => {
                Err(CodecError::AfterVerack)
            }
            message => Ok((message, len)),
        }
    }
}

async fn read_v1(
    source: &mut Source,
    magic: [u8; 4],
    head: &mut Option<FrameHead>,
) -> Result<(Message, u64), CodecError> {
    let len = match head {
        Some(head) => head.payload_len,
        None => {
            let bytes = source.array::<HEAD_LEN>().await?;
            head.insert(FrameHead::parse(&bytes, magic)?).payload_len
        }
    };
    source.fill(len as usize).await?;
    let payload = source.take(len as usize);
    let head = head.take().expect("it was judged above");
    Ok((head.decode(payload)?, HEAD_LEN as u64 + u64::from(len)))
}

/// Reads packets until one is not a decoy; gives its header and contents.
async fn read_v2(
    source: &mut Source,
    cipher: &mut InboundCipher,
    pending: &mut Option<usize>,
    decoys: &mut u32,
    taken: &mut u64,
) -> Result<Vec<u8>, CodecError> {
    loop {
        let len = match *pending {
            Some(len) => len,
            None => {
                let bytes = source.array::<NUM_LENGTH_BYTES>().await?;
                // Once for each packet: the cipher moves on.
                let len = cipher.decrypt_packet_len(bytes);
                if len > MAX_PACKET {
                    return Err(CodecError::Oversized {
                        command: "packet".to_owned(),
                        len: u32::try_from(len).unwrap_or(u32::MAX),
                    });
                }
                *pending.insert(len)
            }
        };
        source.fill(len).await?;
        let mut packet = source.take(len);
        *pending = None;
        *taken += (NUM_LENGTH_BYTES + len) as u64;
        let plain_len = {
            let (_, plain) = cipher
                .decrypt_in_place(&mut packet, None)
                .map_err(|_| CodecError::Cipher)?;
            plain.len()
        };
        packet.truncate(plain_len);
        if packet.first().is_some_and(|header| header & DECOY == 0) {
            *decoys = 0;
            return Ok(packet);
        }
        *decoys += 1;
        if *decoys > MAX_DECOYS {
            return Err(CodecError::TooManyDecoys);
        }
    }
}

/// ```text
/// header 1 | id 1 | payload                 a command that has an id
/// header 1 | 0 | command 12 | payload       any other
/// ```
fn decode_packet(mut packet: Vec<u8>) -> Result<Message, CodecError> {
    let (command, start) = match packet.get(1) {
        Some(0) => {
            let command = packet.get(2..14).ok_or(CodecError::BadCommand)?;
            (parse_command(command)?, 14)
        }
        // What is not known is ignored, as in Bitcoin Core.
        Some(id) => match short_ids::command_of(*id) {
            Some(command) => (command.to_owned(), 2),
            None => return Ok(Message::Other(format!("short id {id}"))),
        },
        None => return Ok(Message::Other(String::new())),
    };
    packet.drain(..start);
    if packet.len() > max_payload(&command) {
        let len = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        return Err(CodecError::Oversized { command, len });
    }
    decode(command, packet)
}
