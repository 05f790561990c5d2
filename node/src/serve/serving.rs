//! One peer that is served: what it wants, and what it is known to have.

use std::sync::Arc;

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
use tokio::task::spawn_blocking;

use super::Server;
use crate::{
    metrics,
    net::{Fault, Outgoing, Peer},
    p2p::codec::Message,
};

/// Most entries of one `getdata`; Bitcoin Core asks for 16 blocks at a time.
pub(crate) const MAX_GETDATA: usize = 1000;

/// What is kept of a peer to serve it.
pub(crate) struct Serving {
    server: Arc<Server>,
    peer: Arc<Peer>,
    /// The peer sent `sendheaders`.
    wants_headers: bool,
    /// The newest block that the peer has the headers up to, as far as we know.
    known: Option<BlockHash>,
    /// A block that the peer said it has; its header may not be judged yet.
    told: Option<BlockHash>,
}

impl Serving {
    pub fn new(server: Arc<Server>, peer: Arc<Peer>) -> Self {
        Self {
            server,
            peer,
            wants_headers: false,
            known: None,
            told: None,
        }
    }

    /// Answers a question about the chain; other messages are none of its business.
    /// Waits until the answers have room in the peer's outbox.
    ///
    /// # Errors
    /// What is wrong with the question.
    pub async fn answer(&mut self, message: Message) -> Result<(), Fault> {
        match message {
            Message::SendHeaders => self.wants_headers = true,
            Message::GetHeaders(wanted) => self.send_headers(&wanted).await,
            Message::GetData(wanted) => self.send_blocks(wanted).await?,
            _ => {}
        }
        Ok(())
    }

    /// The peer has told that it has this block.
    pub fn peer_has(&mut self, hash: BlockHash) {
        self.told = Some(hash);
    }

    async fn send_headers(&mut self, wanted: &GetHeadersMessage) {
        let answers = &self.server.answers;
        let (known, headers) = if answers.is_worth_telling() {
            answers.headers_after(&wanted.locator_hashes, &wanted.stop_hash)
        } else {
            (None, Vec::new())
        };
        // A header that was asked for by its hash alone need not connect to others.
        if let Some(fork) = known {
            self.known = Some(headers.last().map_or(fork, |header| header.block_hash()));
        }
        self.peer.answer(NetworkMessage::Headers(headers)).await;
    }

    /// Sends the blocks one after another, then a `notfound` with what there is not.
    async fn send_blocks(&mut self, wanted: Vec<Inventory>) -> Result<(), Fault> {
        if wanted.len() > MAX_GETDATA {
            return Err(Fault::Misbehaved("asked_too_much"));
        }
        let mut missing = Vec::new();
        for entry in wanted {
            let block = match entry {
                Inventory::WitnessBlock(hash) => self.block(hash, true).await,
                Inventory::Block(hash) => self.block(hash, false).await,
                _ => None,
            };
            match block {
                Some(block) => {
                    if !self.peer.answer(block).await {
                        return Ok(()); // The connection is gone.
                    }
                    metrics::block_served();
                }
                None => missing.push(entry),
            }
        }
        if !missing.is_empty() {
            self.peer.answer(NetworkMessage::NotFound(missing)).await;
        }
        Ok(())
    }

    /// Reads the block where waiting for the disk holds up nobody.
    async fn block(&self, hash: BlockHash, witnesses: bool) -> Option<Outgoing> {
        let server = Arc::clone(&self.server);
        let block = spawn_blocking(move || {
            let block = server.answers.block(&hash, witnesses)?;
            Some(Outgoing::Raw {
                command: "block",
                payload: block.into(),
            })
        });
        // It fails only when it panics, which is logged, or when the runtime ends.
        block.await.ok().flatten()
    }

    /// Tells the peer of a new tip, unless it is known to have it.
    pub fn announce(&mut self, tip: ChainTip) {
        let answers = &self.server.answers;
        if !answers.is_worth_telling() {
            return;
        }
        if let Some(told) = self.told.take_if(|told| answers.has_header(told)) {
            self.known = Some(told);
        }
        let Some(known) = self.known else {
            self.peer
                .send(NetworkMessage::Inv(vec![Inventory::Block(tip.hash)]));
            return;
        };
        if answers.leads_to(&known, &tip) {
            return;
        }
        match answers.way_to(tip.hash, known) {
            Some(way) if way.is_empty() => {}
            Some(way) if self.wants_headers => {
                self.known = Some(tip.hash);
                self.peer.send(NetworkMessage::Headers(way));
            }
            _ => {
                self.peer
                    .send(NetworkMessage::Inv(vec![Inventory::Block(tip.hash)]));
            }
        }
    }
}
