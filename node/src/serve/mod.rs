//! Answers what peers ask about the active chain, and tells them of new tips.
//!
//! ```text
//! net's session of a peer -> Serving (what this peer asked and knows)
//!                               |
//!                            Server -> HeaderStore, Chain (BlockSource)
//! ```
//!
//! Every connected peer is served, whoever made the connection: `getheaders`, and
//! `getdata` for blocks. New tips are announced by `headers` to peers that sent
//! `sendheaders` (BIP 130), by `inv` to others.
//!
//! # Correctness
//! Only headers and blocks of the active chain are told, and a tip once it is active.
//! While the active chain has less than the network's minimum work, `getheaders` gets
//! an empty list and nothing is announced, as Bitcoin Core does it.
//!
//! # Security
//! One question is answered before the next is read, and an answer waits until there is
//! room in the peer's outbox, so a peer that does not read costs a block or two of
//! memory, and its connection after a while.

mod answers;
mod serving;

use std::sync::Arc;

use pulse_primitives::{bitcoin::Work, tip::ChainTip};
use tokio::sync::watch;

use crate::{chain::Chain, headers::HeaderStore};
use answers::Answers;
pub(crate) use serving::{MAX_GETDATA, Serving};

/// What peers are served from. One for all of them.
pub struct Server {
    answers: Answers,
}

impl Server {
    /// Serves `chain`, whose headers are `headers`, once it has `min_chain_work`.
    #[must_use]
    pub fn new(chain: Chain, headers: Arc<HeaderStore>, min_chain_work: Work) -> Self {
        Self {
            answers: Answers::new(chain, headers, min_chain_work),
        }
    }

    /// Watch of the active tip.
    #[must_use]
    pub fn tip(&self) -> watch::Receiver<ChainTip> {
        self.answers.tip()
    }
}
