//! Index and mempool at the same block.
//!
//! mempool (copied, let go) -> view of the index -> same tip? -> both, or once more
//!
//! # Correctness
//! The mempool that builds upon a block and the index that ends with it never hold the
//! same transaction, and never both lack one that is being confirmed. So an answer with
//! an unconfirmed part is drawn from the two only when their tips are the same. They
//! differ for a moment after each block, while the mempool follows the index.
//!
//! # Limits
//! After [`ApiState::patience`] there is no answer. An empty list instead would tell wallets
//! that their transactions are gone.

use std::{
    thread,
    time::{Duration, Instant},
};

use pulse_primitives::{mempool::MempoolView, tip::ChainTip};

use crate::state::{ApiState, MempoolPorts};

/// First pause between two looks; doubled up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// A view of the index, as a server takes it.
pub(crate) trait AtTip {
    /// The block that it ends with.
    fn tip(&self) -> Option<ChainTip>;
}

/// The mempool does not follow the index in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Apart;

/// What `copy` takes of the mempool, and what `take` sees of the index at the same block.
///
/// # Errors
/// Those of `take`, or [`Apart`].
pub(crate) fn join<A: AtTip, T, E: From<Apart>>(
    state: &ApiState,
    mempool: &MempoolPorts,
    copy: impl Fn(&dyn MempoolView) -> T,
    take: impl Fn() -> Result<A, E>,
) -> Result<(A, T), E> {
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
        let at = take()?;
        if let Some((tip, copied)) = copied
            && tip == at.tip()
        {
            return Ok((at, copied));
        }
        drop(at);
        if started.elapsed() >= state.patience() {
            return Err(Apart.into());
        }
        thread::sleep(pause);
        pause = (2 * pause).min(LONGEST_PAUSE);
    }
}
