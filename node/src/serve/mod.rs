//! Answers what peers ask about the active chain, and tells them of new tips.
//!
//! ```text
//! net's session of a peer -> Serving (what this peer asked and knows)
//!                               |
//!                            Server -> HeaderStore, Chain (BlockSource)
//! ```
//!
//! Every connected peer is served, whoever made the connection: headers, hashes, and
//! blocks whole, compact or in parts (BIP 152), and compact block filters if the node has
//! them (BIP 157). New blocks go as `cmpctblock` to peers that want that, before the kernel has
//! connected them; new tips are announced by `headers` to those that sent `sendheaders`
//! (BIP 130), by `inv` to others.
//!
//! # Correctness
//! Only headers and blocks of the active chain are told, besides blocks that were in it
//! within the last month, and a tip once it is active. What goes out before is the compact form
//! of a block behind the tip, and transactions of it that are asked for: its header, merkle root and
//! witness commitment are right, and no peer takes it for more than that.
//! While the active chain has less than the network's minimum work, `getheaders` gets
//! an empty list and nothing is announced, as Bitcoin Core does it.
//!
//! # Security
//! One question is answered before the next is read, and an answer waits until there is
//! room in the peer's outbox, so a peer that does not read costs a block or two of
//! memory, and its connection after a while. Blocks older than a week are refused, and
//! the connection closed, once the day's upload target is reached.

mod answers;
mod blocks;
mod filters;
mod serving;
mod upload;

use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use parking_lot::Mutex;
use pulse_primitives::{
    bitcoin::{BlockHash, Work},
    filters::FilterSource,
    tip::ChainTip,
};
use tokio::sync::watch;

use crate::{
    chain::{Chain, FreshBlock},
    headers::HeaderStore,
};
use answers::Answers;
use blocks::Blocks;
use filters::FilterAnswers;
pub(crate) use serving::{MAX_GETDATA, Serving};
use upload::UploadTarget;

/// What peers are served from. One for all of them.
pub struct Server {
    answers: Answers,
    blocks: Blocks,
    filters: OnceLock<FilterAnswers>,
    upload: Mutex<UploadTarget>,
}

impl Server {
    /// Serves `chain`, whose headers are `headers`, once it has `min_chain_work`. At most
    /// `max_upload_mib_per_day` are spent on historical blocks and all else; 0 is no limit.
    #[must_use]
    pub fn new(
        chain: Chain,
        headers: Arc<HeaderStore>,
        min_chain_work: Work,
        max_upload_mib_per_day: u64,
    ) -> Self {
        Self {
            blocks: Blocks::new(chain.clone()),
            answers: Answers::new(chain, headers, min_chain_work),
            filters: OnceLock::new(),
            upload: Mutex::new(UploadTarget::new(max_upload_mib_per_day, Instant::now())),
        }
    }

    /// Watch of the active tip.
    #[must_use]
    pub fn tip(&self) -> watch::Receiver<ChainTip> {
        self.answers.tip()
    }

    /// Watch of the last block that was to become the tip.
    #[must_use]
    pub fn fresh(&self) -> watch::Receiver<Option<FreshBlock>> {
        self.answers.fresh()
    }

    /// The block of that hash, if it was the last that was to become the tip.
    fn fresh_block(&self, hash: &BlockHash) -> Option<FreshBlock> {
        let fresh = self.answers.fresh().borrow().clone();
        fresh.filter(|fresh| fresh.tip.hash == *hash)
    }

    /// Serves compact block filters from `source` from now on. The first one counts.
    pub fn set_filters(&self, source: Arc<dyn FilterSource>) {
        let _ = self.filters.set(FilterAnswers::new(source));
    }

    /// Whether compact block filters are served (`NODE_COMPACT_FILTERS`).
    #[must_use]
    pub fn has_filters(&self) -> bool {
        self.filters.get().is_some()
    }

    /// So many bytes were sent to a peer, of whatever kind.
    pub fn note_sent(&self, bytes: u64) {
        self.upload.lock().sent(bytes, Instant::now());
    }

    fn upload_target_is_reached(&self) -> bool {
        self.upload.lock().is_reached(Instant::now())
    }
}
