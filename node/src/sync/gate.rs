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

/// What becomes of a `headers` message.
pub(super) enum Passage {
    /// These are to be taken in; there may be more of them than one message holds.
    TakeIn {
        headers: Vec<Header>,
        /// The presync that they come from goes on.
        presync: Option<Box<Presync>>,
    },
    /// Nothing is to be taken in yet.
    Withheld {
        /// Goes on if there is one; else the chain is over and has too little work.
        presync: Option<Box<Presync>>,
    },
    /// The first one's parent is not known.
    Unconnected,
    /// They break a rule.
    Refused {
        /// Which one, for logs.
        reason: String,
    },
}

/// Decides over headers before anything is kept of them.
pub(super) struct Gate {
    pub params: ChainParams,
    pub chain: Chain,
    pub store: Arc<HeaderStore>,
}

impl Gate {
    /// Looks at a message of a peer, of which a presync may be under way.
    pub fn pass(&self, headers: Vec<Header>, presync: Option<Box<Presync>>) -> Passage {
        if headers.is_empty() {
            // In the middle of a presync this means that the peer has changed its mind.
            return Passage::TakeIn {
                headers,
                presync: None,
            };
        }
        if let Err(err) = self.store.check_run(&headers) {
            return Passage::Refused {
                reason: err.to_string(),
            };
        }
        if let Some(presync) = presync
            && let Some(passage) = proceed(presync, &headers)
        {
            return passage;
        }
        self.judge(headers)
    }

    /// Headers that no presync has taken.
    fn judge(&self, headers: Vec<Header>) -> Passage {
        let Some(start) = headers
            .first()
            .and_then(|first| self.store.chain_start(&first.prev_blockhash))
        else {
            return Passage::Unconnected;
        };
        let take_in = |headers| Passage::TakeIn {
            headers,
            presync: None,
        };
        let threshold = self.threshold();
        let work = headers
            .iter()
            .fold(start.work, |sum, header| sum + header.work());
        if work >= threshold || self.is_known(&headers) {
            return take_in(headers);
        }
        if headers.len() < MAX_HEADERS {
            debug!(height = start.height, "a chain with little work is ignored");
            return Passage::Withheld { presync: None };
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
        proceed(Box::new(presync), &headers).unwrap_or(Passage::Withheld { presync: None })
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

/// Feeds a presync; `None` when the message has nothing to do with it.
fn proceed(mut presync: Box<Presync>, headers: &[Header]) -> Option<Passage> {
    let outcome = presync.process(headers, headers.len() == MAX_HEADERS);
    let presync = match outcome.next {
        Next::AskForMore => Some(presync),
        Next::Done => None,
        Next::GiveUp(reason) => {
            debug!(height = presync.height(), %reason, "headers presync given up");
            return None;
        }
    };
    Some(if outcome.accept.is_empty() {
        Passage::Withheld { presync }
    } else {
        Passage::TakeIn {
            headers: outcome.accept,
            presync,
        }
    })
}
