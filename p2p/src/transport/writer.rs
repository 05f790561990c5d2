//! Messages to a connection.

use std::{fmt, io, time::Duration};

use bip324::{OutboundCipher, PacketType};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    time::timeout,
};

use super::short_ids;
use crate::{codec::encode_frame, message::Outgoing};

/// What has to be taken within the stall limit, in bytes: slow peers may take long for
/// a block, but not for ever.
const CHUNK_LEN: usize = 64 * 1024;

/// Where bytes are written to.
pub(super) struct Sink {
    stream: Box<dyn AsyncWrite + Send + Unpin>,
    stall_limit: Option<Duration>,
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink")
            .field("stall_limit", &self.stall_limit)
            .finish_non_exhaustive()
    }
}

impl Sink {
    pub fn new(stream: Box<dyn AsyncWrite + Send + Unpin>) -> Self {
        Self {
            stream,
            stall_limit: None,
        }
    }

    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for chunk in bytes.chunks(CHUNK_LEN) {
            let write = self.stream.write_all(chunk);
            match self.stall_limit {
                Some(limit) => timeout(limit, write).await??,
                None => write.await?,
            }
        }
        self.stream.flush().await
    }
}

/// Writes messages to a peer.
#[derive(Debug)]
pub struct MessageWriter {
    sink: Sink,
    framing: Framing,
}

enum Framing {
    V1 { magic: [u8; 4] },
    V2 { cipher: Box<OutboundCipher> },
}

impl fmt::Debug for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The keys stay out of it.
        f.write_str(match self {
            Self::V1 { .. } => "V1",
            Self::V2 { .. } => "V2",
        })
    }
}

impl MessageWriter {
    pub(super) fn v1(sink: Sink, magic: [u8; 4]) -> Self {
        let framing = Framing::V1 { magic };
        Self { sink, framing }
    }

    pub(super) fn v2(sink: Sink, cipher: OutboundCipher) -> Self {
        let cipher = Box::new(cipher);
        let framing = Framing::V2 { cipher };
        Self { sink, framing }
    }

    /// From now on a peer that does not take 64 KiB within `limit` fails the write with
    /// [`io::ErrorKind::TimedOut`]. There is no limit before.
    pub fn set_stall_limit(&mut self, limit: Duration) {
        self.sink.stall_limit = Some(limit);
    }

    /// Writes one message; gives the number of bytes that it took on the wire.
    ///
    /// Not cancel-safe: dropped in the middle, the peer gets half a message.
    ///
    /// # Errors
    /// Of the connection, which is of no use then. [`io::ErrorKind::InvalidInput`] if
    /// the message is longer than the transport can carry, which no message is that
    /// peers accept.
    pub async fn write(&mut self, message: &Outgoing) -> io::Result<u64> {
        let payload = message.payload();
        let bytes = match &mut self.framing {
            Framing::V1 { magic } => encode_frame(message.command(), &payload, *magic),
            Framing::V2 { cipher } => encrypt(cipher, message.command(), &payload)?,
        };
        self.sink.write(&bytes).await?;
        Ok(bytes.len() as u64)
    }

    /// Tells the peer that nothing more will come.
    ///
    /// # Errors
    /// Of the connection.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.sink.stream.shutdown().await
    }
}

fn encrypt(cipher: &mut OutboundCipher, command: &str, payload: &[u8]) -> io::Result<Vec<u8>> {
    let mut contents = Vec::with_capacity(1 + 12 + payload.len());
    match short_ids::id_of(command) {
        Some(id) => contents.push(id),
        None => {
            contents.push(0);
            contents.extend(command.bytes().chain(std::iter::repeat(0)).take(12));
        }
    }
    contents.extend_from_slice(payload);
    // The length has three bytes.
    if contents.len() >= 1 << 24 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut packet = vec![0; OutboundCipher::encryption_buffer_len(contents.len())];
    cipher
        .encrypt(&contents, &mut packet, PacketType::Genuine, None)
        .map_err(io::Error::other)?;
    Ok(packet)
}
