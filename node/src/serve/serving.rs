//! One peer that is served: what it wants, and what it is known to have.

use std::{sync::Arc, time::Duration};

use pulse_primitives::{
    Height,
    bitcoin::{
        BlockHash,
        bip152::BlockTransactionsRequest,
        p2p::{
            message::NetworkMessage,
            message_blockdata::{GetBlocksMessage, GetHeadersMessage, Inventory},
            message_filter::{GetCFCheckpt, GetCFHeaders, GetCFilters},
        },
    },
    tip::ChainTip,
};
use tokio::{task::spawn_blocking, time::timeout};
use tracing::{debug, warn};

use super::{
    Server,
    blocks::OutOfRange,
    filters::{FilterAnswers, NoAnswer},
};
use crate::{
    chain::FreshBlock,
    metrics,
    net::{Fault, Peer},
    p2p::{compact::COMPACT_VERSION, message::Message},
};

/// Most entries of one `getdata`; Bitcoin Core asks for 16 blocks at a time.
pub(crate) const MAX_GETDATA: usize = 1000;
/// Deepest block below the tip that is served compact (Bitcoin Core's
/// `MAX_CMPCTBLOCK_DEPTH`); the mempool of who asks for an older one is of no use.
const MAX_COMPACT_DEPTH: Height = 5;
/// Deepest block below the tip of which single transactions are served (Bitcoin Core's
/// `MAX_BLOCKTXN_DEPTH`).
const MAX_BLOCKTXN_DEPTH: Height = 10;
/// Blocks below the tip that are kept in memory when they are asked for.
const RECENT_DEPTH: Height = 2;

/// How long a peer that asks for a block waits for the kernel to have connected it.
const JUDGING_LIMIT: Duration = Duration::from_secs(60);

/// What is kept of a peer to serve it.
pub(crate) struct Serving {
    server: Arc<Server>,
    peer: Arc<Peer>,
    /// The peer sent `sendheaders`.
    wants_headers: bool,
    /// The peer wants new blocks at once, as compact blocks (BIP 152).
    wants_compact: bool,
    /// The newest block that the peer has the headers up to, as far as we know.
    known: Option<BlockHash>,
    /// A block that the peer said it has; its header may not be judged yet.
    told: Option<BlockHash>,
    /// The last block of a full answer to `getblocks`: who asks for it is told the tip,
    /// so that it asks for the next ones.
    continuation: Option<BlockHash>,
}

/// A form of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Whole,
    Stripped,
    Compact,
}

impl Serving {
    pub fn new(server: Arc<Server>, peer: Arc<Peer>) -> Self {
        Self {
            server,
            peer,
            wants_headers: false,
            wants_compact: false,
            known: None,
            told: None,
            continuation: None,
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
            Message::SendCmpct {
                version: COMPACT_VERSION,
                high_bandwidth,
            } => self.wants_compact = high_bandwidth,
            Message::GetHeaders(wanted) => self.send_headers(&wanted).await,
            Message::GetBlocks(wanted) => self.send_hashes(&wanted).await,
            Message::GetData(wanted) => self.send_blocks(wanted).await?,
            Message::GetBlockTxn(wanted) => self.send_transactions(wanted).await?,
            Message::GetCFilters(wanted) => self.send_filters(wanted).await?,
            Message::GetCFHeaders(wanted) => self.send_filter_headers(wanted).await?,
            Message::GetCFCheckpt(wanted) => self.send_filter_checkpoints(wanted).await?,
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

    /// The way to ask for the chain before there was `getheaders`.
    async fn send_hashes(&mut self, wanted: &GetBlocksMessage) {
        let answers = &self.server.answers;
        if !answers.is_worth_telling() {
            return;
        }
        let (hashes, more) = answers.hashes_after(&wanted.locator_hashes, &wanted.stop_hash);
        if more {
            self.continuation = hashes.last().copied();
        }
        if !hashes.is_empty() {
            let entries = hashes.into_iter().map(Inventory::Block).collect();
            self.peer.answer(NetworkMessage::Inv(entries)).await;
        }
    }

    /// Sends the blocks one after another, then a `notfound` with what there is not.
    async fn send_blocks(&mut self, wanted: Vec<Inventory>) -> Result<(), Fault> {
        if wanted.len() > MAX_GETDATA {
            return Err(Fault::Misbehaved("asked_too_much"));
        }
        let mut missing = Vec::new();
        for entry in wanted {
            let (hash, form) = match entry {
                Inventory::WitnessBlock(hash) => (hash, Form::Whole),
                Inventory::Block(hash) => (hash, Form::Stripped),
                Inventory::CompactBlock(hash) => (hash, Form::Compact),
                _ => {
                    missing.push(entry);
                    continue;
                }
            };
            if !self.send_block(hash, form).await? {
                missing.push(entry);
            }
            if self.peer.is_closing() {
                return Ok(());
            }
        }
        if !missing.is_empty() {
            self.peer.answer(NetworkMessage::NotFound(missing)).await;
        }
        Ok(())
    }

    /// Sends a block; `false` if there is none that the peer may have.
    async fn send_block(&mut self, hash: BlockHash, form: Form) -> Result<bool, Fault> {
        let answers = &self.server.answers;
        let Some(height) = self.servable(&hash).await else {
            return Ok(false);
        };
        // The target is about the uplink of strangers.
        let is_counted = !self.peer.kind.is_sibling();
        if is_counted && answers.is_historical(&hash) && self.server.upload_target_is_reached() {
            debug!(peer = %self.peer.id, height, "upload target reached");
            return Err(Fault::Useless("upload_target"));
        }
        let is_recent = answers.is_within(height, RECENT_DEPTH);
        let as_compact = form == Form::Compact && answers.is_within(height, MAX_COMPACT_DEPTH);
        // Reading and hashing 4 MB hold up nobody there.
        let block = self
            .blocking(move |server| match form {
                Form::Compact if as_compact => server.blocks.compact(&hash),
                Form::Whole | Form::Compact => server.blocks.whole(&hash, is_recent),
                Form::Stripped => server.blocks.stripped(&hash),
            })
            .await
            .flatten();
        let Some(block) = block else {
            return Ok(false);
        };
        if self.peer.answer(block).await {
            metrics::block_served();
        }
        if self.continuation == Some(hash) {
            self.continuation = None;
            let tip = self.server.answers.active_tip().hash;
            let inv = vec![Inventory::Block(tip)];
            self.peer.answer(NetworkMessage::Inv(inv)).await;
        }
        Ok(true)
    }

    /// Height of a block that peers may be told of. One that the kernel is about to connect is
    /// waited for: whoever sends a whole block has found it valid.
    async fn servable(&self, hash: &BlockHash) -> Option<Height> {
        let server = &self.server;
        let (mut tips, mut fresh) = (server.tip(), server.fresh());
        let judged = async {
            loop {
                let height = server.answers.servable(hash);
                let block = server.fresh_block(hash);
                if height.is_some() || block.is_none_or(|block| block.is_refused) {
                    return height;
                }
                let changed = tokio::select! {
                    changed = tips.changed() => changed,
                    changed = fresh.changed() => changed,
                };
                if changed.is_err() {
                    return None;
                }
            }
        };
        timeout(JUDGING_LIMIT, judged).await.unwrap_or_default()
    }

    async fn send_transactions(&mut self, wanted: BlockTransactionsRequest) -> Result<(), Fault> {
        let answers = &self.server.answers;
        let hash = wanted.block_hash;
        let fresh = self.server.fresh_block(&hash);
        let fresh_height = fresh.as_ref().map(|fresh| fresh.tip.height);
        let Some(height) = answers.servable(&hash).or(fresh_height) else {
            return Ok(());
        };
        if !answers.is_within(height, MAX_BLOCKTXN_DEPTH) {
            // Too deep to be a block that is being relayed: the whole one costs less.
            self.send_block(hash, Form::Whole).await?;
            return Ok(());
        }
        let is_recent = answers.is_within(height, RECENT_DEPTH);
        let transactions = self
            .blocking(move |server| {
                let blocks = &server.blocks;
                blocks.transactions(&wanted, is_recent, fresh.as_ref())
            })
            .await;
        match transactions {
            Some(Ok(Some(transactions))) => {
                self.peer.answer(transactions).await;
                Ok(())
            }
            Some(Err(OutOfRange)) => Err(Fault::Misbehaved("blocktxn_out_of_range")),
            Some(Ok(None)) | None => Ok(()),
        }
    }

    async fn send_filters(&mut self, wanted: GetCFilters) -> Result<(), Fault> {
        let stop = self.server.answers.servable(&wanted.stop_hash);
        let mut range = match FilterAnswers::range(&wanted, stop) {
            Ok(range) => range,
            Err(reason) => return no_filters(&reason),
        };
        loop {
            let some = self
                .filters(move |server, filters| {
                    let messages =
                        filters.next_filters(&mut range, |at| server.answers.hash_at(at))?;
                    Ok((messages, range))
                })
                .await;
            let messages = match some {
                Ok((messages, rest)) => {
                    range = rest;
                    messages
                }
                Err(reason) => return no_filters(&reason),
            };
            if messages.is_empty() {
                return Ok(());
            }
            for message in messages {
                if !self.peer.answer(message).await {
                    return Ok(()); // The connection is gone.
                }
            }
        }
    }

    async fn send_filter_headers(&mut self, wanted: GetCFHeaders) -> Result<(), Fault> {
        let answer = self
            .filters(move |server, filters| {
                let stop = server.answers.servable(&wanted.stop_hash);
                filters.headers(&wanted, stop)
            })
            .await;
        self.send_filter_answer(answer).await
    }

    async fn send_filter_checkpoints(&mut self, wanted: GetCFCheckpt) -> Result<(), Fault> {
        let answer = self
            .filters(move |server, filters| {
                let stop = server.answers.servable(&wanted.stop_hash);
                filters.checkpoints(&wanted, stop)
            })
            .await;
        self.send_filter_answer(answer).await
    }

    async fn send_filter_answer(
        &mut self,
        answer: Result<NetworkMessage, NoAnswer>,
    ) -> Result<(), Fault> {
        match answer {
            Ok(message) => {
                self.peer.answer(message).await;
                Ok(())
            }
            Err(reason) => no_filters(&reason),
        }
    }

    /// Asks the source of filters, where waiting for the disk holds up nobody.
    async fn filters<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Server, &FilterAnswers) -> Result<T, NoAnswer> + Send + 'static,
    ) -> Result<T, NoAnswer> {
        let answer = self.blocking(move |server| {
            let filters = server.filters.get().ok_or(NoAnswer::BadQuestion)?;
            ask(server, filters)
        });
        answer.await.unwrap_or(Err(NoAnswer::NotThere))
    }

    /// Works where it holds up nobody. `None` only when it panics, which is logged, or
    /// when the runtime ends.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Server) -> T + Send + 'static,
    ) -> Option<T> {
        let server = Arc::clone(&self.server);
        spawn_blocking(move || work(&server)).await.ok()
    }

    /// Sends a block that the kernel is about to connect to a peer that wants new ones at once and
    /// lacks nothing else.
    pub async fn announce_fresh(&mut self, fresh: FreshBlock) {
        let answers = &self.server.answers;
        let tip = fresh.tip;
        if !self.wants_compact
            || fresh.is_refused
            || !answers.is_worth_telling()
            || answers.is_catching_up(&tip)
        {
            return;
        }
        self.update_known();
        let answers = &self.server.answers;
        let is_next = |known: BlockHash| {
            !answers.leads_to(&known, &tip)
                && answers
                    .way_to(tip.hash, known)
                    .is_some_and(|way| way.len() == 1)
        };
        if !self.known.is_some_and(is_next) {
            return;
        }
        let compact = self.blocking(move |server| server.blocks.fresh_compact(&fresh));
        if let Some(compact) = compact.await.flatten() {
            self.known = Some(tip.hash);
            self.peer.send(compact);
        }
    }

    /// Takes up what the peer said it has, once its header is judged.
    fn update_known(&mut self) {
        let answers = &self.server.answers;
        if let Some(told) = self.told.take_if(|told| answers.has_header(told)) {
            self.known = Some(told);
        }
    }

    /// Tells the peer of a new tip, unless it is known to have it: by a compact block if
    /// it wants that and lacks nothing else, by headers if it wants those and they
    /// connect, else by its hash.
    pub async fn announce(&mut self, tip: ChainTip) {
        let answers = &self.server.answers;
        // A peer takes a message for each block of a chain that is being synced for a flood.
        if !answers.is_worth_telling() || answers.is_catching_up(&tip) {
            return;
        }
        self.update_known();
        let answers = &self.server.answers;
        let inv = NetworkMessage::Inv(vec![Inventory::Block(tip.hash)]);
        let Some(known) = self.known else {
            self.peer.send(inv);
            return;
        };
        if answers.leads_to(&known, &tip) {
            return;
        }
        match answers.way_to(tip.hash, known) {
            Some(way) if way.is_empty() => {}
            Some(way) if self.wants_compact && way.len() == 1 => {
                let compact = self.blocking(move |server| server.blocks.compact(&tip.hash));
                match compact.await.flatten() {
                    Some(compact) => {
                        self.known = Some(tip.hash);
                        self.peer.send(compact);
                    }
                    None => {
                        self.peer.send(inv);
                    }
                }
            }
            Some(way) if self.wants_headers => {
                self.known = Some(tip.hash);
                self.peer.send(NetworkMessage::Headers(way));
            }
            _ => {
                self.peer.send(inv);
            }
        }
    }
}

/// What follows when there is no answer about filters.
fn no_filters(reason: &NoAnswer) -> Result<(), Fault> {
    match reason {
        NoAnswer::BadQuestion => Err(Fault::Useless("bad_filter_question")),
        NoAnswer::NotThere => Ok(()),
        NoAnswer::Source(err) => {
            warn!(%err, "block filters cannot be served");
            Ok(())
        }
    }
}
