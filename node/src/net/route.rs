//! Who acts upon a message of a peer.
//!
//! ```text
//! headers, block, block entries of inv and notfound        -> sync
//! transaction entries of inv, getdata and notfound         -> relay
//! getheaders, sendheaders, block entries of getdata        -> serve
//! ```
//!
//! Pure.

use pulse_primitives::bitcoin::{BlockHash, p2p::message_blockdata::Inventory};

use super::peer::Fault;
use crate::{p2p::codec::Message, serve::MAX_GETDATA};

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
        Message::Block(block) => routes.sync = Some(Message::Block(block)),
        Message::Inv(entries) => {
            let (blocks, others) = split(entries);
            routes.told = blocks.last().and_then(block_of);
            routes.sync = some(blocks, Message::Inv);
            routes.relay = some(others, Message::Inv);
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
        message @ (Message::GetHeaders(_) | Message::SendHeaders) => routes.serve = Some(message),
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
