//! Index and mempool as one view, for the answers of this API: [`together::join`], once the
//! node is synced.

use pulse_indexer::query::{QueryError, View};
use pulse_primitives::mempool::MempoolView;

use super::{error::RestError, snapshot::Snapshot};
use crate::{
    state::{ApiState, MempoolPorts},
    together,
};

/// What `copy` takes of the mempool, and a view of the index at the same block. `None`
/// instead of a copy if the node has no mempool.
///
/// # Errors
/// [`RestError::NotSynced`], [`RestError::MempoolBehind`] when the two do not meet in
/// time, or a failed read.
pub(super) fn with_mempool<'a, T>(
    state: &'a ApiState,
    copy: impl Fn(&dyn MempoolView) -> T,
) -> Result<(Snapshot<'a>, Option<T>), RestError> {
    // Before the node is synced, a part of the chain has no mempool.
    let Some(mempool) = (state.mempool()).filter(|_| state.takes_part().is_none()) else {
        return without_mempool(state, copy);
    };
    join(state, mempool, copy)
}

/// The answer for a node without mempool, and for a client that takes a part of the chain:
/// with the mempool only if the node turns out to be synced.
#[allow(clippy::type_complexity, reason = "as above")]
fn without_mempool<'a, T>(
    state: &'a ApiState,
    copy: impl Fn(&dyn MempoolView) -> T,
) -> Result<(Snapshot<'a>, Option<T>), RestError> {
    let at = Snapshot::take(state)?;
    at.require_synced()?;
    match state.mempool() {
        Some(mempool) if at.require_complete().is_ok() => {
            drop(at);
            join(state, mempool, copy)
        }
        _ => Ok((at, None)),
    }
}

/// Index and mempool at the same block.
fn join<'a, T>(
    state: &'a ApiState,
    mempool: &MempoolPorts,
    copy: impl Fn(&dyn MempoolView) -> T,
) -> Result<(Snapshot<'a>, Option<T>), RestError> {
    let take = || {
        let at = Snapshot::take(state)?;
        at.require_synced()?;
        Ok::<_, RestError>(at)
    };
    let (at, copied) = together::join(state, mempool, copy, take)?;
    Ok((at, Some(copied)))
}

/// Where something was found.
pub(super) enum Found<C, U> {
    /// In the index.
    Confirmed(C),
    /// In the mempool.
    Unconfirmed(U),
}

/// What `confirmed` finds in the index, else what `unconfirmed` finds in the mempool at
/// the same block. What is confirmed is found without asking the mempool, synced or not.
///
/// # Errors
/// As [`with_mempool`] if it is not confirmed.
#[allow(
    clippy::type_complexity,
    reason = "a name would hide more than it tells"
)]
pub(super) fn find<'a, C, U>(
    state: &'a ApiState,
    confirmed: impl Fn(&View<'a>) -> Result<Option<C>, QueryError>,
    unconfirmed: impl Fn(&dyn MempoolView) -> Option<U>,
) -> Result<(Snapshot<'a>, Option<Found<C, U>>), RestError> {
    let at = Snapshot::take(state)?;
    if let Some(found) = confirmed(&at.view)? {
        return Ok((at, Some(Found::Confirmed(found))));
    }
    at.require_synced()?;
    drop(at);
    let (at, waiting) = with_mempool(state, unconfirmed)?;
    let found = match confirmed(&at.view)? {
        Some(found) => Some(Found::Confirmed(found)),
        None => waiting.flatten().map(Found::Unconfirmed),
    };
    Ok((at, found))
}
