//! Index and mempool as one view, for the answers of this server.
//!
//! # Correctness
//! As for the REST API: what has an unconfirmed part is drawn from the mempool that builds
//! upon a block and the index that ends with it, so that no transaction is in both or in
//! neither while it is being confirmed. They differ for a moment after each block.
//! Anything that a later block could change needs a synced node.

use std::{
    thread,
    time::{Duration, Instant},
};

use pulse_indexer::query::View;
use pulse_primitives::{mempool::MempoolView, status::Readiness, tip::ChainTip};

use super::error::ElectrumError;
use crate::state::ApiState;

/// How long a request waits for index and mempool to meet.
const PATIENCE: Duration = Duration::from_secs(1);
/// First pause between two looks; doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// One view of the index, with its tip.
pub(super) struct At<'a> {
    pub(super) view: View<'a>,
    pub(super) tip: ChainTip,
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

/// The index of a synced node.
///
/// # Errors
/// [`ElectrumError::NotSynced`], or a failed read.
pub(super) fn synced(state: &ApiState) -> Result<At<'_>, ElectrumError> {
    let at = index(state)?;
    // Drawn after the view, so that it is never held against an older best header.
    match state.status().report().readiness(Some(at.tip)) {
        Readiness::Synced => Ok(at),
        Readiness::NotSynced { reason } => Err(ElectrumError::NotSynced { reason }),
    }
}

/// What `copy` takes of the mempool, and the index at the same block. `None` instead of a
/// copy if the node has no mempool.
///
/// # Errors
/// As [`synced`]; [`ElectrumError::MempoolBehind`] when the two do not meet in time.
pub(super) fn with_mempool<T>(
    state: &ApiState,
    copy: impl Fn(&dyn MempoolView) -> T,
) -> Result<(At<'_>, Option<T>), ElectrumError> {
    let Some(mempool) = state.mempool() else {
        return Ok((synced(state)?, None));
    };
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let index_tip = *state.query().tip_watch().borrow();
        let copied = {
            let view = mempool.source.view();
            let tip = view.tip();
            // Most often a look at the tips tells that copying would be in vain.
            (tip.is_some() && tip == index_tip).then(|| (tip, copy(&*view)))
        };
        let at = synced(state)?;
        if let Some((tip, copied)) = copied
            && tip == Some(at.tip)
        {
            return Ok((at, Some(copied)));
        }
        drop(at);
        if started.elapsed() >= PATIENCE {
            return Err(ElectrumError::MempoolBehind);
        }
        thread::sleep(pause);
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}
