//! Who acts upon a message of a peer.
//!
//! ```text
//! headers, block, cmpctblock, blocktxn, sendcmpct, blocks of inv and notfound -> sync
//! tx, feefilter, mempool, transactions of inv, getdata and notfound           -> relay
//! getheaders, getblocks, sendheaders, getblocktxn, getcf*, blocks of getdata,
//!   sendcmpct                                                                 -> serve
//! ping, pong, addr, getaddr                                                   -> net
//! ```
//!
//! Pure.

use pulse_primitives::bitcoin::{BlockHash, p2p::message_blockdata::Inventory};

use super::peer::Fault;
use crate::{p2p::message::Message, serve::MAX_GETDATA};

/// Who takes messages of all peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Consumer {
    /// Headers and blocks.
    Sync,
    /// Transactions.
    Relay,
}

/// The parts of a message, by who acts upon them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Routes {
    pub sync: Option<Message>,
    pub relay: Option<Message>,
    pub serve: Option<Message>,
    /// A block that the peer thereby says to have.
    pub told: Option<BlockHash>,
}

/// Takes a message apart. Without a relay, transactions that the peer asks for are
/// answered for by the serving side, which has none.
pub(super) fn route(message: Message, relay_listens: bool) -> Result<Routes, Fault> {
    let mut routes = Routes::default();
    match message {
        Message::Headers(headers) => {
            routes.told = headers.last().map(|header| header.block_hash());
            routes.sync = Some(Message::Headers(headers));
        }
        Message::CompactBlock(block) => {
            routes.told = Some(block.header.block_hash());
            routes.sync = Some(Message::CompactBlock(block));
        }
        message @ (Message::Block(_) | Message::BlockTxn(_)) => routes.sync = Some(message),
        message @ Message::SendCmpct { .. } => {
            routes.sync = Some(message.clone());
            routes.serve = Some(message);
        }
        message @ (Message::Tx(_) | Message::FeeFilter(_) | Message::Mempool) => {
            routes.relay = Some(message);
        }
        Message::Inv(entries) => {
            // A sibling that has no more to tell says so by an empty one.
            let is_end = entries.is_empty();
            let (blocks, others) = split(entries);
            routes.told = blocks.last().and_then(block_of);
            routes.sync = some(blocks, Message::Inv);
            routes.relay = match is_end {
                true => Some(Message::Inv(others)),
                false => some(others, Message::Inv),
            };
        }
        Message::NotFound(entries) => {
            let (blocks, others) = split(entries);
            routes.sync = some(blocks, Message::NotFound);
            routes.relay = some(others, Message::NotFound);
        }
        Message::GetData(entries) if !relay_listens => {
            routes.serve = Some(Message::GetData(entries));
        }
        Message::GetData(entries) => {
            let (blocks, others) = split(entries);
            if blocks.len() > MAX_GETDATA {
                return Err(Fault::Misbehaved("asked_too_much"));
            }
            routes.serve = some(blocks, Message::GetData);
            routes.relay = some(others, Message::GetData);
        }
        message @ (Message::GetHeaders(_)
        | Message::GetBlocks(_)
        | Message::SendHeaders
        | Message::GetBlockTxn(_)
        | Message::GetCFilters(_)
        | Message::GetCFHeaders(_)
        | Message::GetCFCheckpt(_)) => routes.serve = Some(message),
        // A second version or verack is harmless; Bitcoin Core ignores them as well.
        _ => {}
    }
    Ok(routes)
}

/// Entries of blocks, and all others.
fn split(entries: Vec<Inventory>) -> (Vec<Inventory>, Vec<Inventory>) {
    entries
        .into_iter()
        .partition(|entry| block_of(entry).is_some())
}

/// The block that an entry names.
fn block_of(entry: &Inventory) -> Option<BlockHash> {
    match entry {
        Inventory::Block(hash) | Inventory::WitnessBlock(hash) | Inventory::CompactBlock(hash) => {
            Some(*hash)
        }
        _ => None,
    }
}

fn some(entries: Vec<Inventory>, message: fn(Vec<Inventory>) -> Message) -> Option<Message> {
    (!entries.is_empty()).then(|| message(entries))
}
