//! Messages of the Bitcoin protocol, apart from how they are framed.
//!
//! ```text
//! command, payload -> [payload limit] -> decode -> Message
//! Outgoing -> command, payload
//! ```
//!
//! # Security
//! Each command has its own [`max_payload`]. Counts are judged against the protocol's
//! limit and against what is left of the payload before anything is allocated. Bytes
//! after the end of a message are ignored, as in Bitcoin Core, so that later versions
//! may append fields. A block stays as bytes, for the kernel to decode.

use bytes::Bytes;
use pulse_primitives::bitcoin::{
    BlockHash, Transaction, VarInt,
    bip152::{BlockTransactions, BlockTransactionsRequest, HeaderAndShortIds},
    block::Header,
    consensus::{Decodable, Encodable},
    hashes::{Hash, sha256d},
    p2p::{
        ServiceFlags,
        message::NetworkMessage,
        message_blockdata::{GetBlocksMessage, GetHeadersMessage, Inventory},
        message_filter::{GetCFCheckpt, GetCFHeaders, GetCFilters},
        message_network::VersionMessage,
    },
};

use crate::addr_entry::{AddrEntry, MAX_ADDR, decode_addr, decode_addrv2};

/// Longest payload of any message, in bytes (Bitcoin Core's `MAX_PROTOCOL_MESSAGE_LENGTH`).
pub const MAX_PAYLOAD: usize = 4_000_000;
/// Most entries of `inv`, `getdata` and `notfound` (Bitcoin Core's `MAX_INV_SZ`).
pub const MAX_INVENTORY: usize = 50_000;
/// Most headers of a `headers` message (Bitcoin Core's `MAX_HEADERS_RESULTS`).
pub const MAX_HEADERS: usize = 2000;
/// Most hashes of a block locator (Bitcoin Core's `MAX_LOCATOR_SZ`).
pub const MAX_LOCATOR: usize = 101;
/// Longest user agent, in bytes (Bitcoin Core's `MAX_SUBVERSION_LENGTH`).
pub const MAX_USER_AGENT: usize = 256;

/// Most transactions of a block, as far as BIP 152 can count them.
const MAX_BLOCK_TXS: usize = 1 << 16;
/// A header and the count of its transactions, which is 0.
const HEADER_ENTRY_LEN: usize = 81;
/// The only type of compact filters (BIP 158).
const BASIC_FILTER: u8 = 0;
/// Most satoshis there can be; a `feefilter` above is not meant.
const MAX_MONEY: u64 = 21_000_000 * 100_000_000;

/// A message from a peer, as far as the node acts upon it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// `version`
    Version(Box<VersionMessage>),
    /// `verack`
    Verack,
    /// `wtxidrelay` (BIP 339)
    WtxidRelay,
    /// `sendaddrv2` (BIP 155)
    SendAddrV2,
    /// `sendheaders` (BIP 130)
    SendHeaders,
    /// `sendcmpct` (BIP 152)
    SendCmpct {
        /// Version of compact blocks; 2 is the one with witnesses.
        version: u64,
        /// Whether new blocks shall come without being asked for.
        high_bandwidth: bool,
    },
    /// `feefilter`, in satoshis per 1000 virtual bytes (BIP 133)
    FeeFilter(u64),
    /// `ping` with its nonce (BIP 31)
    Ping(u64),
    /// `pong` with the nonce of the ping
    Pong(u64),
    /// `getaddr`
    GetAddr,
    /// `addr` or `addrv2`, without the entries of unknown networks
    Addr(Vec<AddrEntry>),
    /// `inv`
    Inv(Vec<Inventory>),
    /// `getdata`
    GetData(Vec<Inventory>),
    /// `notfound`
    NotFound(Vec<Inventory>),
    /// `getheaders`
    GetHeaders(Box<GetHeadersMessage>),
    /// `getblocks`
    GetBlocks(Box<GetBlocksMessage>),
    /// `headers`
    Headers(Vec<Header>),
    /// `block`
    Block(RawBlock),
    /// `cmpctblock` (BIP 152): at least one and at most 65,535 transactions. Indexes
    /// are as on the wire, each the distance from the one before.
    CompactBlock(Box<HeaderAndShortIds>),
    /// `getblocktxn` (BIP 152), with absolute, ascending indexes below 65,536
    GetBlockTxn(BlockTransactionsRequest),
    /// `blocktxn` (BIP 152)
    BlockTxn(BlockTransactions),
    /// `tx`
    Tx(Box<Transaction>),
    /// `mempool` (BIP 35)
    Mempool,
    /// `getcfilters` of basic filters (BIP 157)
    GetCFilters(GetCFilters),
    /// `getcfheaders` of basic filters (BIP 157)
    GetCFHeaders(GetCFHeaders),
    /// `getcfcheckpt` of basic filters (BIP 157)
    GetCFCheckpt(GetCFCheckpt),
    /// Any other message, by its command; its payload is not looked at. Also a
    /// `feefilter` that is not an amount of money.
    Other(String),
}

/// A block as it came from the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawBlock {
    /// Hash of the header.
    pub hash: BlockHash,
    /// The serialised block: 80 bytes of header and at least one byte more.
    pub bytes: Vec<u8>,
}

/// Why a payload is not the message of its command. All of it is the peer's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It does not decode.
    #[error("malformed")]
    Malformed,
    /// It has more entries than the protocol allows.
    #[error("{count} entries, more than {limit}")]
    TooMany {
        /// Entries that it claims.
        count: u64,
        /// Entries that it may have.
        limit: usize,
    },
}

/// Longest payload of `command`, in bytes. What the protocol limits, with room for
/// the length prefix and, in short messages, for fields to come; messages that are not
/// known get the general limit.
#[must_use]
pub fn max_payload(command: &str) -> usize {
    match command {
        "verack" | "ping" | "pong" | "sendheaders" | "wtxidrelay" | "sendaddrv2" | "sendcmpct"
        | "feefilter" | "getaddr" | "mempool" | "getcfilters" | "getcfheaders" | "getcfcheckpt" => {
            64
        }
        "version" => 1024,
        "addr" => 3 + MAX_ADDR * 30,
        "addrv2" => 3 + MAX_ADDR * (4 + 9 + 1 + 3 + 512 + 2),
        "headers" => 3 + MAX_HEADERS * HEADER_ENTRY_LEN,
        "inv" | "notfound" | "getdata" => 3 + MAX_INVENTORY * 36,
        "getheaders" | "getblocks" => 4 + 1 + MAX_LOCATOR * 32 + 32,
        "getblocktxn" => 32 + 5 + MAX_BLOCK_TXS * 3,
        _ => MAX_PAYLOAD,
    }
}

impl Message {
    /// The message of this command and payload. The payload's length has been judged
    /// by [`max_payload`].
    ///
    /// # Errors
    /// [`DecodeError`].
    pub fn decode(command: &str, payload: Vec<u8>) -> Result<Self, DecodeError> {
        let rest = &mut payload.as_slice();
        Ok(match command {
            "version" => Self::Version(Box::new(decode_version(rest)?)),
            "verack" => Self::Verack,
            "wtxidrelay" => Self::WtxidRelay,
            "sendaddrv2" => Self::SendAddrV2,
            "sendheaders" => Self::SendHeaders,
            "sendcmpct" => match take::<u8>(rest)? {
                announce @ (0 | 1) => Self::SendCmpct {
                    version: take(rest)?,
                    high_bandwidth: announce == 1,
                },
                _ => return Err(DecodeError::Malformed),
            },
            "feefilter" => match take::<u64>(rest)? {
                rate @ ..=MAX_MONEY => Self::FeeFilter(rate),
                _ => Self::Other(command.to_owned()),
            },
            "ping" => Self::Ping(take(rest)?),
            "pong" => Self::Pong(take(rest)?),
            "getaddr" => Self::GetAddr,
            "addr" => Self::Addr(decode_addr(rest)?),
            "addrv2" => Self::Addr(decode_addrv2(rest)?),
            "inv" => Self::Inv(take_list(rest, MAX_INVENTORY, 36)?),
            "getdata" => Self::GetData(take_list(rest, MAX_INVENTORY, 36)?),
            "notfound" => Self::NotFound(take_list(rest, MAX_INVENTORY, 36)?),
            "getheaders" => Self::GetHeaders(Box::new(GetHeadersMessage {
                version: take(rest)?,
                locator_hashes: take_list(rest, MAX_LOCATOR, 32)?,
                stop_hash: take(rest)?,
            })),
            "getblocks" => Self::GetBlocks(Box::new(GetBlocksMessage {
                version: take(rest)?,
                locator_hashes: take_list(rest, MAX_LOCATOR, 32)?,
                stop_hash: take(rest)?,
            })),
            "headers" => Self::Headers(decode_headers(rest)?),
            "block" => return raw_block(payload).map(Self::Block),
            "cmpctblock" => Self::CompactBlock(Box::new(decode_compact_block(rest)?)),
            "getblocktxn" => Self::GetBlockTxn(decode_get_block_txn(rest)?),
            "blocktxn" => Self::BlockTxn(BlockTransactions {
                block_hash: take(rest)?,
                transactions: take_list(rest, MAX_BLOCK_TXS, MIN_TX_LEN)?,
            }),
            "tx" => Self::Tx(Box::new(take(rest)?)),
            "mempool" => Self::Mempool,
            "getcfilters" => Self::GetCFilters(GetCFilters {
                filter_type: take_filter_type(rest)?,
                start_height: take(rest)?,
                stop_hash: take(rest)?,
            }),
            "getcfheaders" => Self::GetCFHeaders(GetCFHeaders {
                filter_type: take_filter_type(rest)?,
                start_height: take(rest)?,
                stop_hash: take(rest)?,
            }),
            "getcfcheckpt" => Self::GetCFCheckpt(GetCFCheckpt {
                filter_type: take_filter_type(rest)?,
                stop_hash: take(rest)?,
            }),
            _ => Self::Other(command.to_owned()),
        })
    }
}

/// Fewest bytes of a transaction that decodes: version, counts, lock time.
const MIN_TX_LEN: usize = 10;

/// Takes a value off the front of `rest`.
pub(crate) fn take<T: Decodable>(rest: &mut &[u8]) -> Result<T, DecodeError> {
    T::consensus_decode_from_finite_reader(rest).map_err(|_| DecodeError::Malformed)
}

/// Takes `N` bytes off the front of `rest`.
pub(crate) fn take_bytes<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], DecodeError> {
    let (bytes, after) = rest.split_first_chunk().ok_or(DecodeError::Malformed)?;
    *rest = after;
    Ok(*bytes)
}

/// Takes a count of entries that have at least `entry_len` bytes each.
pub(crate) fn take_count(
    rest: &mut &[u8],
    limit: usize,
    entry_len: usize,
) -> Result<usize, DecodeError> {
    let VarInt(claimed) = take(rest)?;
    match usize::try_from(claimed) {
        Ok(count) if count <= limit => {
            if count * entry_len > rest.len() {
                return Err(DecodeError::Malformed);
            }
            Ok(count)
        }
        _ => Err(DecodeError::TooMany {
            count: claimed,
            limit,
        }),
    }
}

fn take_list<T: Decodable>(
    rest: &mut &[u8],
    limit: usize,
    entry_len: usize,
) -> Result<Vec<T>, DecodeError> {
    let count = take_count(rest, limit, entry_len)?;
    (0..count).map(|_| take(rest)).collect()
}

fn take_filter_type(rest: &mut &[u8]) -> Result<u8, DecodeError> {
    match take(rest)? {
        BASIC_FILTER => Ok(BASIC_FILTER),
        _ => Err(DecodeError::Malformed),
    }
}

/// What follows the first address may be missing, as in Bitcoin Core. The user agent
/// may be any bytes.
fn decode_version(rest: &mut &[u8]) -> Result<VersionMessage, DecodeError> {
    let mut version = VersionMessage {
        version: take(rest)?,
        services: ServiceFlags::from(take::<u64>(rest)?),
        timestamp: take(rest)?,
        receiver: take(rest)?,
        sender: crate::version::nobody(),
        nonce: 1,
        user_agent: String::new(),
        start_height: -1,
        relay: true,
    };
    if !rest.is_empty() {
        version.sender = take(rest)?;
        version.nonce = take(rest)?;
    }
    if !rest.is_empty() {
        let len = take_count(rest, MAX_USER_AGENT, 1)?;
        let (bytes, after) = rest.split_at(len);
        version.user_agent = String::from_utf8_lossy(bytes).into_owned();
        *rest = after;
    }
    if !rest.is_empty() {
        version.start_height = take(rest)?;
    }
    if !rest.is_empty() {
        version.relay = take::<u8>(rest)? != 0;
    }
    Ok(version)
}

fn decode_headers(rest: &mut &[u8]) -> Result<Vec<Header>, DecodeError> {
    let count = take_count(rest, MAX_HEADERS, HEADER_ENTRY_LEN)?;
    (0..count)
        .map(|_| {
            let header = take(rest)?;
            match take::<u8>(rest)? {
                0 => Ok(header),
                _ => Err(DecodeError::Malformed),
            }
        })
        .collect()
}

fn raw_block(bytes: Vec<u8>) -> Result<RawBlock, DecodeError> {
    let header = bytes.get(..80).filter(|_| bytes.len() > 80);
    let hash = sha256d::Hash::hash(header.ok_or(DecodeError::Malformed)?);
    let hash = BlockHash::from_raw_hash(hash);
    Ok(RawBlock { hash, bytes })
}

fn decode_compact_block(rest: &mut &[u8]) -> Result<HeaderAndShortIds, DecodeError> {
    let block = HeaderAndShortIds {
        header: take(rest)?,
        nonce: take(rest)?,
        short_ids: take_list(rest, MAX_BLOCK_TXS - 1, 6)?,
        prefilled_txs: take_list(rest, MAX_BLOCK_TXS - 1, 1 + MIN_TX_LEN)?,
    };
    match block.short_ids.len() + block.prefilled_txs.len() {
        1..MAX_BLOCK_TXS => Ok(block),
        _ => Err(DecodeError::Malformed),
    }
}

fn decode_get_block_txn(rest: &mut &[u8]) -> Result<BlockTransactionsRequest, DecodeError> {
    let block_hash = take(rest)?;
    let count = take_count(rest, MAX_BLOCK_TXS, 1)?;
    let mut indexes = Vec::with_capacity(count);
    let mut next = 0;
    for _ in 0..count {
        let VarInt(skipped) = take(rest)?;
        let index = skipped
            .checked_add(next)
            .filter(|index| *index < MAX_BLOCK_TXS as u64)
            .ok_or(DecodeError::Malformed)?;
        indexes.push(index);
        next = index + 1;
    }
    Ok(BlockTransactionsRequest {
        block_hash,
        indexes,
    })
}

/// A message to a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// One that is serialised when it is written.
    Message(NetworkMessage),
    /// One that is serialised already, such as a block. Cloning it is cheap.
    Raw {
        /// At most 12 bytes of printable ASCII.
        command: &'static str,
        /// The payload.
        payload: Bytes,
    },
}

impl Outgoing {
    /// A payload that is serialised already.
    #[must_use]
    pub fn raw(command: &'static str, payload: impl Into<Bytes>) -> Self {
        Self::Raw {
            command,
            payload: payload.into(),
        }
    }

    /// The first [`MAX_ADDR`] entries as `addrv2` if the peer sent `sendaddrv2`, and
    /// else as `addr`, without those that it cannot carry.
    #[must_use]
    pub fn addr(entries: &[AddrEntry], addr_v2: bool) -> Self {
        let entries = entries.iter();
        Self::Message(if addr_v2 {
            NetworkMessage::AddrV2(entries.take(MAX_ADDR).map(|entry| entry.to_v2()).collect())
        } else {
            let fitting = entries.filter_map(|entry| entry.to_v1());
            NetworkMessage::Addr(fitting.take(MAX_ADDR).collect())
        })
    }

    /// Its command.
    #[must_use]
    pub fn command(&self) -> &str {
        match self {
            Self::Message(NetworkMessage::Unknown { command, .. }) => command.as_ref(),
            Self::Message(message) => message.cmd(),
            Self::Raw { command, .. } => command,
        }
    }

    /// Its payload.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        match self {
            Self::Message(message) => {
                let mut payload = Vec::new();
                message
                    .consensus_encode(&mut payload)
                    .expect("writing to memory does not fail");
                payload.into()
            }
            Self::Raw { payload, .. } => payload.clone(),
        }
    }
}

impl From<NetworkMessage> for Outgoing {
    fn from(message: NetworkMessage) -> Self {
        Self::Message(message)
    }
}

#[cfg(test)]
mod tests;
