//! Histories and status hashes of scripts.
//!
//! # Correctness
//! What is kept of a script belongs to a block of the chain. It is used only while that
//! block is in the chain, and continued by what came after it. So a reorganisation makes
//! useless just what was kept at blocks that left.
//!
//! # Limits
//! A history longer than the limit has no answer but an error. Long ones are kept in
//! [`LISTS_BYTES`] of memory, so that asking again costs little; of every script whose
//! status was asked for, the unfinished hash is kept, at most [`STATUSES`].

use std::sync::Arc;

use pulse_primitives::{
    Height,
    bitcoin::{Txid, hashes::Hash},
    mempool::{MempoolView, ScriptHash},
    tip::ChainTip,
};
use quick_cache::{Weighter, sync::Cache};

use super::{
    error::ElectrumError,
    status::{self, Confirmed, Waiting},
    view::At,
};

/// Unfinished hashes that are kept, some 250 bytes each: 64 MB.
const STATUSES: usize = 262_144;
/// Memory for long histories.
const LISTS_BYTES: u64 = 64 << 20;
/// Entries from which a history is long.
const LONG: usize = 32;

/// Confirmed transactions in the order of the chain.
type List = Arc<Vec<(Height, Txid)>>;

/// Something that is true up to a block.
#[derive(Clone)]
struct Until<T> {
    tip: ChainTip,
    value: T,
}

#[derive(Clone)]
struct ListWeight;

impl Weighter<ScriptHash, Until<List>> for ListWeight {
    fn weight(&self, _: &ScriptHash, list: &Until<List>) -> u64 {
        36 * list.value.len() as u64 + 200
    }
}

/// What is kept of scripts.
pub(super) struct Histories {
    limit: usize,
    statuses: Cache<ScriptHash, Arc<Until<Confirmed>>>,
    lists: Cache<ScriptHash, Until<List>, ListWeight>,
}

impl Histories {
    /// Histories of at most `limit` entries.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            statuses: Cache::new(STATUSES),
            lists: Cache::with_weighter(4_096, LISTS_BYTES, ListWeight),
        }
    }

    /// Most entries of a history.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// The confirmed part of a history.
    ///
    /// # Errors
    /// [`ElectrumError::HistoryTooLarge`], or a failed read.
    pub(super) fn confirmed(
        &self,
        at: &At<'_>,
        script: &ScriptHash,
    ) -> Result<List, ElectrumError> {
        let kept = self.lists.get(script);
        let kept = match kept {
            Some(kept) if is_in_chain(at, kept.tip)? => Some(kept),
            _ => None,
        };
        let from = kept.as_ref().map_or(0, |kept| kept.tip.height + 1);
        let known = kept.as_ref().map_or(0, |kept| kept.value.len());
        let newer = self.read(at, script, from, self.limit.saturating_sub(known))?;
        let list = match kept {
            Some(kept) if newer.is_empty() => kept.value,
            Some(kept) => Arc::new([kept.value.as_slice(), newer.as_slice()].concat()),
            None => Arc::new(newer),
        };
        if list.len() >= LONG {
            let kept = Until {
                tip: at.tip,
                value: Arc::clone(&list),
            };
            self.lists.insert(*script, kept);
        }
        Ok(list)
    }

    /// The hash over the confirmed part of a history.
    ///
    /// # Errors
    /// As [`Self::confirmed`].
    pub(super) fn hashed(
        &self,
        at: &At<'_>,
        script: &ScriptHash,
    ) -> Result<Confirmed, ElectrumError> {
        let kept = match self.statuses.get(script) {
            Some(kept) if is_in_chain(at, kept.tip)? => Some(kept),
            _ => None,
        };
        let confirmed = match kept {
            Some(kept) if kept.tip == at.tip => return Ok(kept.value.clone()),
            Some(kept) => {
                let newer = self.read(at, script, kept.tip.height + 1, self.limit)?;
                let mut confirmed = kept.value.clone();
                confirmed.extend(&newer);
                confirmed
            }
            None => {
                let mut confirmed = Confirmed::default();
                confirmed.extend(&self.confirmed(at, script)?);
                confirmed
            }
        };
        let kept = Until {
            tip: at.tip,
            value: confirmed.clone(),
        };
        self.statuses.insert(*script, Arc::new(kept));
        Ok(confirmed)
    }

    fn read(
        &self,
        at: &At<'_>,
        script: &ScriptHash,
        from: Height,
        limit: usize,
    ) -> Result<Vec<(Height, Txid)>, ElectrumError> {
        let found = (at.view).script_history(script.as_byte_array(), from..Height::MAX, limit)?;
        found.ok_or(ElectrumError::HistoryTooLarge { limit: self.limit })
    }
}

fn is_in_chain(at: &At<'_>, tip: ChainTip) -> Result<bool, ElectrumError> {
    Ok(tip == at.tip || at.view.block_hash_at(tip.height)? == Some(tip.hash))
}

/// The unconfirmed part of a history in canonical order, at most `limit` entries.
pub(super) fn waiting(
    mempool: &dyn MempoolView,
    script: &ScriptHash,
    limit: usize,
) -> Vec<Waiting> {
    let entries = mempool.script_txs(script, limit);
    let mut waiting: Vec<Waiting> = entries
        .iter()
        .map(|entry| Waiting {
            txid: entry.txid,
            fee: entry.fee.to_sat(),
            has_unconfirmed_parents: mempool.has_unconfirmed_parents(&entry.txid),
        })
        .collect();
    status::sort(&mut waiting);
    waiting
}
