//! A connection that carries messages, whichever transport is below.
//!
//! ```text
//! outbound   socket -> [v2 handshake] -> Connection (v2)    or, by the caller, v1
//! inbound    socket -> [first 16 bytes] -> v1, or v2 handshake -> Connection
//! Connection -> MessageReader, MessageWriter
//! ```
//!
//! # Correctness
//! [`MessageReader::read`] is cancel-safe: what has arrived is kept for the next call.
//! The handshakes and [`MessageWriter::write`] are not: the connection is of no use
//! when they are dropped half-way.
//!
//! # Security
//! Memory grows with what arrives, not with what a length field promises; a length
//! above the limit ends the connection before anything of it is kept. Every handshake
//! has one time limit for all of it.

mod reader;
mod short_ids;
mod v2;
mod writer;

use std::{io, net::SocketAddr, time::Duration};

use bip324::{InboundCipher, OutboundCipher, Role};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

pub use self::{reader::MessageReader, writer::MessageWriter};
use self::{reader::Source, writer::Sink};
use crate::{
    codec::CodecError,
    message::{Message, Outgoing},
};

/// First bytes of a connection of the unencrypted transport, after the magic.
const V1_COMMAND: &[u8; 12] = b"version\0\0\0\0\0";

/// How messages are framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransportKind {
    /// Frames with a checksum, unencrypted.
    V1,
    /// Encrypted packets (BIP 324).
    V2,
}

impl TransportKind {
    /// `v1` or `v2`, for logs and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// Why no transport could be set up on a connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The connection failed or ended.
    #[error("connection")]
    Io(#[from] io::Error),
    /// It took too long.
    #[error("it took too long")]
    Timeout,
    /// The peer hung up, stayed silent or answered as v1 instead of sending its key:
    /// it may well speak the unencrypted transport.
    #[error("it does not speak the encrypted transport")]
    NotV2,
    /// The peer is of another network.
    #[error("wrong network magic {found:02x?}")]
    WrongMagic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// More garbage than BIP 324 allows.
    #[error("garbage without an end")]
    TooMuchGarbage,
    /// More decoys than anyone needs before the version packet.
    #[error("too many decoys")]
    TooManyDecoys,
    /// The keys do not match or a packet was changed on its way.
    #[error("a packet does not authenticate")]
    Cipher,
}

impl TransportError {
    /// Whether a new connection with the unencrypted transport might work.
    #[must_use]
    pub fn suggests_v1(&self) -> bool {
        matches!(self, Self::NotV2)
    }

    /// Whether the peer broke the protocol, as opposed to being away.
    #[must_use]
    pub fn is_misbehaviour(&self) -> bool {
        !matches!(self, Self::Io(_) | Self::Timeout | Self::NotV2)
    }
}

/// A connection to a peer.
#[derive(Debug)]
pub struct Connection {
    reader: MessageReader,
    writer: MessageWriter,
    remote: Option<SocketAddr>,
}

impl Connection {
    /// The unencrypted transport over `stream`, in either direction.
    pub fn v1<S>(stream: S, magic: [u8; 4]) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (source, sink) = halves(stream);
        Self::with_v1(source, sink, magic)
    }

    /// Sets up the encrypted transport on a connection that we made.
    ///
    /// # Errors
    /// [`TransportError`]; [`TransportError::suggests_v1`] says whether to connect
    /// again for [`Connection::v1`].
    pub async fn connect_v2<S>(
        stream: S,
        magic: [u8; 4],
        limit: Duration,
    ) -> Result<Self, TransportError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (mut source, mut sink) = halves(stream);
        let mut answered = false;
        let shake = v2::shake(
            Role::Initiator,
            magic,
            &mut source,
            &mut sink,
            &mut answered,
        );
        let shaken = timeout(limit, shake).await;
        match shaken {
            Ok(Ok((inbound, outbound))) => Ok(Self::with_v2(source, sink, inbound, outbound)),
            Ok(Err(TransportError::Io(_))) | Err(_) if !answered => Err(TransportError::NotV2),
            Ok(Err(err)) => Err(err),
            Err(_) => Err(TransportError::Timeout),
        }
    }

    /// Sets up the transport on a connection that a peer made, as its first bytes
    /// demand. Nothing is sent to a peer that speaks v1. With `v2` false only v1 is
    /// understood.
    ///
    /// # Errors
    /// [`TransportError`].
    pub async fn accept<S>(
        stream: S,
        magic: [u8; 4],
        v2: bool,
        limit: Duration,
    ) -> Result<Self, TransportError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (source, sink) = halves(stream);
        if !v2 {
            return Ok(Self::with_v1(source, sink, magic));
        }
        timeout(limit, Self::accept_any(source, sink, magic))
            .await
            .map_err(|_| TransportError::Timeout)?
    }

    async fn accept_any(
        mut source: Source,
        mut sink: Sink,
        magic: [u8; 4],
    ) -> Result<Self, TransportError> {
        let v1_start = [magic.as_slice(), V1_COMMAND].concat();
        // One byte that differs is enough, so that nobody waits for more than there is.
        while v1_start.starts_with(source.buffered()) {
            if source.buffered().len() == v1_start.len() {
                return Ok(Self::with_v1(source, sink, magic));
            }
            source.read_up_to(v1_start.len()).await?;
        }
        let (inbound, outbound) =
            v2::shake(Role::Responder, magic, &mut source, &mut sink, &mut false).await?;
        Ok(Self::with_v2(source, sink, inbound, outbound))
    }

    fn with_v1(source: Source, sink: Sink, magic: [u8; 4]) -> Self {
        Self {
            reader: MessageReader::v1(source, magic),
            writer: MessageWriter::v1(sink, magic),
            remote: None,
        }
    }

    fn with_v2(
        source: Source,
        sink: Sink,
        inbound: InboundCipher,
        outbound: OutboundCipher,
    ) -> Self {
        Self {
            reader: MessageReader::v2(source, inbound),
            writer: MessageWriter::v2(sink, outbound),
            remote: None,
        }
    }

    /// Which transport it is.
    #[must_use]
    pub fn kind(&self) -> TransportKind {
        self.reader.kind()
    }

    /// The IP address that was dialled; `None` if it was not, or if only the proxy
    /// knows it.
    #[must_use]
    pub fn remote(&self) -> Option<SocketAddr> {
        self.remote
    }

    pub(crate) fn with_remote(self, remote: Option<SocketAddr>) -> Self {
        Self { remote, ..self }
    }

    /// [`MessageReader::read`].
    ///
    /// # Errors
    /// [`CodecError`]; the connection is of no use then.
    pub async fn read(&mut self) -> Result<(Message, u64), CodecError> {
        self.reader.read().await
    }

    /// [`MessageWriter::write`].
    ///
    /// # Errors
    /// Of the connection, which is of no use then.
    pub async fn write(&mut self, message: &Outgoing) -> io::Result<u64> {
        self.writer.write(message).await
    }

    /// Both directions for themselves. The connection is closed when both are dropped.
    #[must_use]
    pub fn into_split(self) -> (MessageReader, MessageWriter) {
        (self.reader, self.writer)
    }

    /// From here on nothing is accepted that belongs into the version handshake.
    pub(crate) fn end_negotiation(&mut self) {
        self.reader.end_negotiation();
    }
}

fn halves<S>(stream: S) -> (Source, Sink)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (read, write) = tokio::io::split(stream);
    (Source::new(Box::new(read)), Sink::new(Box::new(write)))
}

#[cfg(test)]
mod tests;
