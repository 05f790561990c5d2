//! Index and mempool as one view, for the answers of this server.
//!
//! # Correctness
//! As for the REST API: what has an unconfirmed part is drawn from index and mempool at the
//! same block ([`together::join`]). Anything that a later block could change needs a synced
//! node. In a reorganisation the index goes back before it goes on, and a place where it is for a
//! moment is nothing that a wallet should be told of: also when no more than the blocks are
//! missing that a synced node may lack.
//!
//! Nothing waits here; the session does ([`super::patience`]).

use pulse_indexer::query::View;
use pulse_primitives::{mempool::MempoolView, status::Readiness, tip::ChainTip};

use super::error::ElectrumError;
use crate::{
    state::ApiState,
    together::{self, AtTip},
};

/// One view of the index, with its tip.
pub(super) struct At<'a> {
    pub(super) view: View<'a>,
    pub(super) tip: ChainTip,
}

impl AtTip for At<'_> {
    fn tip(&self) -> Option<ChainTip> {
        Some(self.tip)
    }
}

/// The index as it is, synced or not.
///
/// # Errors
/// [`ElectrumError::NotSynced`] if it is empty, or a failed read.
pub(super) fn index(state: &ApiState) -> Result<At<'_>, ElectrumError> {
    let view = state.query().view()?;
    let tip = view.tip().ok_or_else(|| ElectrumError::NotSynced {
        reason: "the index is empty".to_owned(),
    })?;
    Ok(At { view, tip })
}

/// The index as it is, but for a place where a reorganisation only passes.
///
/// # Errors
/// [`ElectrumError::NotSynced`] if it is empty, [`ElectrumError::CatchingUp`], or a failed read.
pub(super) fn tip(state: &ApiState) -> Result<At<'_>, ElectrumError> {
    Ok(at_rest(state)?.0)
}

/// As [`tip`], and whether answers are complete.
fn at_rest(state: &ApiState) -> Result<(At<'_>, Readiness), ElectrumError> {
    let at = index(state)?;
    // Drawn after the view, so that it is never held against an older best header.
    let readiness = state.readiness(&at.view);
    match state.is_between(at.tip) {
        true => Err(ElectrumError::CatchingUp {
            reason: "the chain is being reorganised".to_owned(),
        }),
        false => Ok((at, readiness)),
    }
}

/// The index of a synced node.
///
/// # Errors
/// [`ElectrumError::NotSynced`], [`ElectrumError::CatchingUp`], or a failed read.
pub(super) fn synced(state: &ApiState) -> Result<At<'_>, ElectrumError> {
    let (at, readiness) = at_rest(state)?;
    complete(state, readiness)?;
    Ok(at)
}

/// That the node is synced, in a reorganisation or not.
///
/// # Errors
/// As [`synced`].
pub(super) fn is_synced(state: &ApiState) -> Result<(), ElectrumError> {
    let at = index(state)?;
    complete(state, state.readiness(&at.view))
}

fn complete(state: &ApiState, readiness: Readiness) -> Result<(), ElectrumError> {
    match readiness {
        Readiness::Synced => Ok(()),
        Readiness::NotSynced { reason } => Err(match state.was_synced() {
            true => ElectrumError::CatchingUp { reason },
            false => ElectrumError::NotSynced { reason },
        }),
    }
}

/// That the chain ends at `tip`, the one of a view in which something was not found. A node
/// in its first sync serves what it has, so there it does.
///
/// # Errors
/// [`ElectrumError::CatchingUp`] if it does not, or not yet again.
pub(super) fn ends_at(state: &ApiState, tip: ChainTip) -> Result<(), ElectrumError> {
    match synced(state) {
        Ok(at) if at.tip != tip => Err(ElectrumError::CatchingUp {
            reason: "the chain goes on".to_owned(),
        }),
        Err(error) if error.passes() => Err(error),
        _ => Ok(()),
    }
}

/// What `copy` takes of the mempool, and the index at the same block. `None` instead of a
/// copy if the node has no mempool.
///
/// # Errors
/// As [`synced`]; [`ElectrumError::MempoolBehind`] when the two do not meet.
pub(super) fn with_mempool<T>(
    state: &ApiState,
    copy: impl Fn(&dyn MempoolView) -> T,
) -> Result<(At<'_>, Option<T>), ElectrumError> {
    let Some(mempool) = state.mempool() else {
        return Ok((synced(state)?, None));
    };
    let (at, copied) = together::join(state, mempool, copy, || synced(state))?;
    Ok((at, Some(copied)))
}
