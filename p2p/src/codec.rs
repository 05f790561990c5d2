//! Frames of the unencrypted transport (v1): bytes to messages and back.
//!
//! ```text
//! magic 4 | command 12, padded with zeros | payload length u32 LE | checksum 4 | payload
//! ```
//!
//! # Security
//! The frame's head is judged before a byte of payload is read: a wrong magic or a
//! length above the command's limit ends the connection at once. Memory grows with
//! what arrives, not with what a length field promises.

use std::io;

use pulse_primitives::bitcoin::{
    consensus::serialize,
    hashes::{Hash, sha256d},
    p2p::{
        Magic,
        message::{NetworkMessage, RawNetworkMessage},
    },
};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::message::{DecodeError, max_payload};
pub use crate::message::{MAX_PAYLOAD, Message, RawBlock};

/// Length of a frame's head, in bytes.
pub const HEAD_LEN: usize = 24;

/// Why a frame could not be read. Everything but [`CodecError::Io`] is the peer's fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The connection failed or ended, perhaps in the middle of a frame.
    #[error("connection")]
    Io(#[from] io::Error),
    /// The frame is of another network, or not a frame at all.
    #[error("wrong network magic {found:02x?}")]
    WrongMagic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// The command is not printable ASCII padded with zeros.
    #[error("malformed command in a frame")]
    BadCommand,
    /// The payload is longer than the command allows.
    #[error("{command} with {len} bytes")]
    Oversized {
        /// The command.
        command: String,
        /// Length that the frame claims.
        len: u32,
    },
    /// The payload does not match its checksum.
    #[error("checksum of {command} does not match")]
    BadChecksum {
        /// The command.
        command: String,
    },
    /// The payload does not decode.
    #[error("malformed {command}")]
    Malformed {
        /// The command.
        command: String,
    },
    /// The payload has more entries than the protocol allows.
    #[error("{command} with {count} entries")]
    TooMany {
        /// The command.
        command: String,
        /// Entries that it claims.
        count: u64,
    },
    /// A packet of the encrypted transport was changed on its way.
    #[error("a packet does not authenticate")]
    Cipher,
    /// The peer sends decoys instead of messages.
    #[error("too many decoys")]
    TooManyDecoys,
    /// `wtxidrelay` or `sendaddrv2`, which belong before `verack`.
    #[error("negotiation after verack")]
    AfterVerack,
}

/// Reads one message; gives it with the number of bytes that it took.
///
/// Not cancel-safe: dropped in the middle, it loses the frame's start.
///
/// # Errors
/// [`CodecError`]; the connection is of no use then.
pub async fn read_message<R>(reader: &mut R, magic: [u8; 4]) -> Result<(Message, u64), CodecError>
where
    R: AsyncRead + Unpin,
{
    let mut head = [0; HEAD_LEN];
    reader.read_exact(&mut head).await?;
    let head = FrameHead::parse(&head, magic)?;
    let len = u64::from(head.payload_len);
    let mut payload = Vec::new();
    reader.take(len).read_to_end(&mut payload).await?;
    if payload.len() as u64 != len {
        return Err(CodecError::Io(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok((head.decode(payload)?, HEAD_LEN as u64 + len))
}

/// The judged head of a frame.
pub(crate) struct FrameHead {
    command: String,
    pub(crate) payload_len: u32,
    checksum: [u8; 4],
}

impl FrameHead {
    pub(crate) fn parse(head: &[u8; HEAD_LEN], magic: [u8; 4]) -> Result<Self, CodecError> {
        let found = [head[0], head[1], head[2], head[3]];
        if found != magic {
            return Err(CodecError::WrongMagic { found });
        }
        let command = parse_command(&head[4..16])?;
        let payload_len = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
        if payload_len as usize > max_payload(&command) {
            return Err(CodecError::Oversized {
                command,
                len: payload_len,
            });
        }
        Ok(Self {
            command,
            payload_len,
            checksum: [head[20], head[21], head[22], head[23]],
        })
    }

    pub(crate) fn decode(self, payload: Vec<u8>) -> Result<Message, CodecError> {
        if checksum(&payload) != self.checksum {
            let command = self.command;
            return Err(CodecError::BadChecksum { command });
        }
        decode(self.command, payload)
    }
}

/// The command in a field of 12 bytes.
pub(crate) fn parse_command(field: &[u8]) -> Result<String, CodecError> {
    let end = field
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(field.len());
    let (command, padding) = field.split_at(end);
    let printable = command.iter().all(|byte| (0x20..0x7f).contains(byte));
    let padded = padding.iter().all(|byte| *byte == 0);
    if command.is_empty() || !printable || !padded {
        return Err(CodecError::BadCommand);
    }
    Ok(String::from_utf8_lossy(command).into_owned())
}

/// Decodes a payload whose length has been judged.
pub(crate) fn decode(command: String, payload: Vec<u8>) -> Result<Message, CodecError> {
    Message::decode(&command, payload).map_err(|err| match err {
        DecodeError::Malformed => CodecError::Malformed { command },
        DecodeError::TooMany { count, .. } => CodecError::TooMany { command, count },
    })
}

fn checksum(payload: &[u8]) -> [u8; 4] {
    let hash = sha256d::Hash::hash(payload).to_byte_array();
    [hash[0], hash[1], hash[2], hash[3]]
}

/// The frame of a message to a peer.
#[must_use]
pub fn encode_message(message: NetworkMessage, magic: [u8; 4]) -> Vec<u8> {
    serialize(&RawNetworkMessage::new(Magic::from_bytes(magic), message))
}

/// The frame of a payload that is serialised already, such as a block. `command` has
/// at most 12 bytes; what is longer is cut off.
///
/// # Panics
/// When the payload is longer than 2^32 bytes.
#[must_use]
pub fn encode_frame(command: &str, payload: &[u8], magic: [u8; 4]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD_LEN + payload.len());
    frame.extend_from_slice(&magic);
    frame.extend(command.bytes().chain(std::iter::repeat(0)).take(12));
    let len = u32::try_from(payload.len()).expect("a payload below 4 GiB");
    frame.extend_from_slice(&len.to_le_bytes());
    frame.extend_from_slice(&checksum(payload));
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use pulse_primitives::bitcoin::{
        Network, constants::genesis_block, p2p::message_blockdata::Inventory,
    };

    use super::*;

    const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

    async fn read(mut bytes: &[u8]) -> Result<(Message, u64), CodecError> {
        read_message(&mut bytes, MAGIC).await
    }

    #[tokio::test]
    async fn messages_come_back_as_they_were_sent() {
        let genesis = genesis_block(Network::Regtest);
        let inventory = vec![Inventory::WitnessBlock(genesis.block_hash())];
        let cases = [
            (NetworkMessage::Verack, Message::Verack),
            (NetworkMessage::Ping(7), Message::Ping(7)),
            (
                NetworkMessage::Headers(vec![genesis.header; 3]),
                Message::Headers(vec![genesis.header; 3]),
            ),
            (NetworkMessage::Headers(vec![]), Message::Headers(vec![])),
            (
                NetworkMessage::Inv(inventory.clone()),
                Message::Inv(inventory.clone()),
            ),
            (
                NetworkMessage::GetData(inventory.clone()),
                Message::GetData(inventory.clone()),
            ),
            (
                NetworkMessage::Block(genesis.clone()),
                Message::Block(RawBlock {
                    hash: genesis.block_hash(),
                    bytes: serialize(&genesis),
                }),
            ),
            (NetworkMessage::SendHeaders, Message::SendHeaders),
            (NetworkMessage::WtxidRelay, Message::WtxidRelay),
        ];
        for (sent, expected) in cases {
            let frame = encode_message(sent, MAGIC);
            let (message, len) = read(&frame).await.unwrap();
            assert_eq!(message, expected);
            assert_eq!(len, frame.len() as u64);
        }
        let block = serialize(&genesis);
        assert_eq!(
            encode_frame("block", &block, MAGIC),
            encode_message(NetworkMessage::Block(genesis), MAGIC)
        );
    }

    #[tokio::test]
    async fn a_head_that_claims_80_mb_is_refused_without_waiting_for_the_payload() {
        for command in ["block", "whatever"] {
            let mut frame = encode_frame(command, &[], MAGIC);
            frame[16..20].copy_from_slice(&80_000_000_u32.to_le_bytes());
            // The other end stays open and silent: only a refusal from the head alone returns.
            let (mut ours, mut theirs) = tokio::io::duplex(1024);
            tokio::io::AsyncWriteExt::write_all(&mut theirs, &frame)
                .await
                .unwrap();
            assert!(matches!(
                read_message(&mut ours, MAGIC).await,
                Err(CodecError::Oversized {
                    len: 80_000_000,
                    ..
                })
            ));
        }
    }

    #[tokio::test]
    async fn each_command_has_its_own_limit() {
        for (command, len) in [("ping", 65), ("version", 1025), ("headers", 162_004)] {
            let frame = encode_frame(command, &vec![0; len], MAGIC);
            assert!(matches!(
                read(&frame).await,
                Err(CodecError::Oversized { .. })
            ));
        }
        let frame = encode_frame("whatever", &[0; 80], MAGIC);
        let other = Message::Other("whatever".to_owned());
        assert_eq!(read(&frame).await.unwrap(), (other, 104));
    }

    #[tokio::test]
    async fn a_wrong_checksum_is_refused() {
        let mut frame = encode_message(NetworkMessage::Ping(1), MAGIC);
        frame[24] ^= 1;
        assert!(matches!(
            read(&frame).await,
            Err(CodecError::BadChecksum { .. })
        ));
    }

    #[tokio::test]
    async fn a_frame_that_ends_early_is_an_end_of_the_connection() {
        let frame = encode_message(NetworkMessage::Ping(1), MAGIC);
        for len in 0..frame.len() {
            match read(&frame[..len]).await {
                Err(CodecError::Io(err)) => {
                    assert_eq!(err.kind(), io::ErrorKind::UnexpectedEof);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn frames_of_another_network_and_garbage_are_refused() {
        let frame = encode_message(NetworkMessage::Verack, [1, 2, 3, 4]);
        assert!(matches!(
            read(&frame).await,
            Err(CodecError::WrongMagic {
                found: [1, 2, 3, 4]
            })
        ));
        let mut frame = encode_message(NetworkMessage::Verack, MAGIC);
        frame[14] = b'x';
        assert!(matches!(read(&frame).await, Err(CodecError::BadCommand)));
    }

    #[tokio::test]
    async fn counts_above_the_limit_are_refused() {
        for command in ["inv", "headers", "addr"] {
            let frame = encode_frame(command, &[0xfe, 0xff, 0xff, 0xff, 0xff], MAGIC);
            assert!(matches!(
                read(&frame).await,
                Err(CodecError::TooMany {
                    count: 0xffff_ffff,
                    ..
                })
            ));
        }
    }

    #[tokio::test]
    async fn payloads_that_do_not_decode_are_refused() {
        let genesis = genesis_block(Network::Regtest);
        let header = serialize(&genesis.header);
        let with_txs = [&[1], header.as_slice(), &[1]].concat();
        let too_few = [&[2], header.as_slice(), &[0]].concat();
        for (command, payload) in [
            ("headers", with_txs),
            ("headers", too_few),
            ("headers", vec![]),
            ("ping", vec![]),
            ("block", header.clone()),
            ("version", vec![0; 20]),
        ] {
            assert!(matches!(
                read(&encode_frame(command, &payload, MAGIC)).await,
                Err(CodecError::Malformed { .. })
            ));
        }
    }
}
