//! What an endpoint's function works with: one view of the index, and the rule for
//! answers that a later block could change.

use pulse_indexer::query::View;
use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, Network},
    status::{Readiness, Trust},
    tip::ChainTip,
};

use super::{error::RestError, reply::Cache, router::Basis, script::Rendering};
use crate::{state::ApiState, together::AtTip};

/// Confirmations from which an answer counts as final for caches.
const FINAL_DEPTH_BLOCKS: Height = 10;

/// One view of the index with the state of the node.
///
/// # Correctness
/// Blocks, confirmed transactions and their spenders are answered at any time. An answer
/// that a later block could change (the tip, anything about a script, "it is not spent",
/// and "there is no such thing") goes through [`Snapshot::require_synced`] or
/// [`Snapshot::absent`]. The report
/// of the node is drawn after the view, so a view is never called synced because of an
/// older, lower best header.
pub(super) struct Snapshot<'a> {
    pub(super) view: View<'a>,
    state: &'a ApiState,
}

impl AtTip for Snapshot<'_> {
    fn tip(&self) -> Option<ChainTip> {
        self.view.tip()
    }
}

impl<'a> Snapshot<'a> {
    pub(super) fn take(state: &'a ApiState) -> Result<Self, RestError> {
        let view = state.query().view()?;
        if let Some(partial) = state.takes_part() {
            partial.note(view.tip().map(|tip| tip.height));
        }
        Ok(Self { view, state })
    }

    /// Tip of the index in this view.
    pub(super) fn tip(&self) -> Result<ChainTip, RestError> {
        self.view.tip().ok_or_else(|| RestError::NotSynced {
            reason: "the index is empty".to_owned(),
        })
    }

    pub(super) fn network(&self) -> Network {
        self.state.params().network
    }

    pub(super) fn rendering(&self) -> Rendering {
        self.state.rendering()
    }

    /// # Errors
    /// [`RestError::NotSynced`] as long as a block that the node does not have yet could
    /// change the answer, unless the client takes a part for the whole.
    pub(super) fn require_synced(&self) -> Result<(), RestError> {
        match self.state.takes_part() {
            Some(_) => Ok(()),
            None => self.require_complete(),
        }
    }

    /// # Errors
    /// [`RestError::NotSynced`] as long as the node is, whatever the client takes.
    pub(super) fn require_complete(&self) -> Result<(), RestError> {
        match self.state.readiness(&self.view) {
            Readiness::Synced => Ok(()),
            Readiness::NotSynced { reason } => Err(RestError::NotSynced { reason }),
        }
    }

    /// The error for something that the index does not hold: `not_found` if the index is
    /// complete, else that it is not.
    pub(super) fn absent(&self, not_found: RestError) -> RestError {
        match self.require_synced() {
            Ok(()) => not_found,
            Err(not_synced) => not_synced,
        }
    }

    /// How long caches may keep an answer that rests on the block at `height`.
    pub(super) fn cache_at(&self, height: Height) -> Cache {
        let depth = match self.view.tip() {
            Some(tip) => tip.height.saturating_sub(height),
            None => 0,
        };
        // What a sibling says may turn out to be false, and caches never ask again.
        let is_proven = self.state.trust().trust == Trust::Validated;
        if depth >= FINAL_DEPTH_BLOCKS && is_proven {
            Cache::Long
        } else {
            Cache::Short
        }
    }

    /// The block that an answer follows from, if that is settled.
    ///
    /// # Errors
    /// A failed read.
    pub(super) fn block_behind(&self, basis: Basis) -> Result<Option<BlockHash>, RestError> {
        let cache = match basis {
            Basis::Block(hash) => {
                let block = self.view.block_by_hash(&hash)?;
                return Ok(block.map(|block| block.hash));
            }
            Basis::DeepBlock(hash) => {
                let block = self.view.block_by_hash(&hash)?;
                block.map(|block| self.settled_at(block.height, block.hash))
            }
            Basis::Tx(txid) => {
                let block = self.view.tx_block(&txid)?;
                block.map(|block| self.settled_at(block.height, block.hash))
            }
        };
        Ok(match cache {
            Some(Cache::Settled(block)) => Some(block),
            _ => None,
        })
    }

    /// The same as [`Snapshot::cache_at`] for an answer that follows from its path and the block at `height`, whose hash
    /// is `block`, alone.
    pub(super) fn settled_at(&self, height: Height, block: BlockHash) -> Cache {
        match self.cache_at(height) {
            Cache::Long => Cache::Settled(block),
            other => other,
        }
    }
}
