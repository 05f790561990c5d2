//! Which headers of a peer may be taken in: those of chains that have enough work, or
//! that have shown in a presync that they do.
//!
//! ```text
//! headers -> proof of work, linkage -> presync under way? -> enough work? -> taken in
//!                                          |                    |
//!                                       withheld           presync begins, or ignored
//! ```
//!
//! # Security
//! Without it, headers of difficulty 1 could be made by the million and would fill the
//! disk. A chain is let in when it has the network's minimum work and not less than the
//! active chain had 144 blocks ago (Bitcoin Core's `GetAntiDoSWorkThreshold`).

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use pulse_primitives::{
    bitcoin::{BlockHash, Work, block::Header},
    network::ChainParams,
    ports::BlockSource,
    tip::ChainTip,
};
use tracing::debug;

use crate::{
    chain::Chain,
    headers::{
        HeaderStore, MAX_HEADERS,
        presync::{Next, Presync, PresyncParams, Salt},
    },
};

/// A chain may lag this many blocks behind the active one and still be of interest.
const WORK_BUFFER_BLOCKS: usize = 144;
/// Most headers of an announcement of new blocks (Bitcoin Core's
/// `MAX_BLOCKS_TO_ANNOUNCE`).
const MAX_ANNOUNCED: usize = 8;

/// What becomes of a `headers` message.
pub(super) enum Passage {
    /// These are to be taken in; there may be more of them than one message holds.
    TakeIn(Vec<Header>),
    /// Nothing is to be taken in: their chain has not shown enough work (yet).
    Withheld,
    /// They came beside a presync and have nothing to do with it.
    Ignored,
    /// The first one's parent is not known.
    Unconnected,
    /// They break a rule.
    Refused {
        /// Which one, for logs.
        reason: String,
    },
}

/// A peer's presync, if one is under way.
pub(super) type MaybePresync = Option<Box<Presync>>;

/// Decides over headers before anything is kept of them.
pub(super) struct Gate {
    pub params: ChainParams,
    pub chain: Chain,
    pub store: Arc<HeaderStore>,
}

impl Gate {
    /// Looks at a message of a peer, of which a presync may be under way. Gives the
    /// presync back if it goes on, or one that begins.
    pub fn pass(&self, headers: Vec<Header>, presync: MaybePresync) -> (Passage, MaybePresync) {
        let Some(first) = headers.first() else {
            // In the middle of a presync this means that the peer has changed its mind.
            return (Passage::TakeIn(headers), None);
        };
        if let Err(err) = self.store.check_run(&headers) {
            let reason = err.to_string();
            return (Passage::Refused { reason }, None);
        }
        if let Some(presync) = presync {
            let continues = first.prev_blockhash == presync.continue_from();
            if !continues && headers.len() <= MAX_ANNOUNCED {
                return (Passage::Ignored, Some(presync));
            }
            if let Some(passed) = proceed(presync, &headers) {
                return passed;
            }
        }
        self.judge(headers)
    }

    /// Headers that no presync has taken.
    fn judge(&self, headers: Vec<Header>) -> (Passage, MaybePresync) {
        let Some(start) = headers
            .first()
            .and_then(|first| self.store.chain_start(&first.prev_blockhash))
        else {
            return (Passage::Unconnected, None);
        };
        let threshold = self.threshold();
        let work = headers
            .iter()
            .fold(start.work, |sum, header| sum + header.work());
        if work >= threshold || self.is_known(&headers) {
            return (Passage::TakeIn(headers), None);
        }
        if headers.len() < MAX_HEADERS {
            debug!(height = start.height, "a chain with little work is ignored");
            return (Passage::Withheld, None);
        }
        let salt = Salt {
            keys: rand::random(),
            offset: rand::random(),
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| elapsed.as_secs());
        let presync = Presync::new(
            self.params.consensus.clone(),
            PresyncParams::of(self.params.network),
            start,
            threshold,
            salt,
            now,
        );
        proceed(Box::new(presync), &headers).unwrap_or((Passage::Withheld, None))
    }

    /// Whether they are stored and on the best or the active chain, so that they cost
    /// nothing and tell nothing.
    fn is_known(&self, headers: &[Header]) -> bool {
        headers.last().is_some_and(|last| {
            let hash = last.block_hash();
            self.store.is_on_best(&hash) || self.is_active(&hash)
        })
    }

    fn is_active(&self, hash: &BlockHash) -> bool {
        self.store
            .height_of(hash)
            .is_some_and(|height| self.chain.hash_at(height).as_ref() == Some(hash))
    }

    /// Work that a chain must have for its headers to be stored.
    pub fn threshold(&self) -> Work {
        threshold(
            &self.store,
            &self.chain.active_tip(),
            self.params.min_chain_work,
        )
    }
}

/// Work that a chain must have for its headers to be stored, while `active` is the tip.
pub(super) fn threshold(store: &HeaderStore, active: &ChainTip, min_chain_work: Work) -> Work {
    let zero = Work::from_be_bytes([0; 32]);
    let near_tip = store
        .work_of(&active.hash)
        .zip(store.header(&active.hash))
        .map_or(zero, |(work, header)| {
            let one = header.work();
            let buffer = (0..WORK_BUFFER_BLOCKS).fold(zero, |sum, _| sum + one);
            if work > buffer { work - buffer } else { zero }
        });
    near_tip.max(min_chain_work)
}

/// Feeds a presync; `None` when the headers have left its chain.
fn proceed(mut presync: Box<Presync>, headers: &[Header]) -> Option<(Passage, MaybePresync)> {
    let outcome = presync.process(headers, headers.len() == MAX_HEADERS);
    let presync = match outcome.next {
        Next::AskForMore => Some(presync),
        Next::Done => None,
        Next::GiveUp(reason) => {
            debug!(height = presync.height(), %reason, "headers presync given up");
            return None;
        }
    };
    let passage = if outcome.accept.is_empty() {
        Passage::Withheld
    } else {
        Passage::TakeIn(outcome.accept)
    };
    Some((passage, presync))
}
