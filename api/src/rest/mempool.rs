//! The mempool and fee estimates: M1 to M4 and X6 of the Esplora contract, and the projected
//! blocks, which are our own (docs/api.md).

use std::sync::Arc;

use pulse_primitives::{bitcoin::Txid, mempool::MempoolSource};

use super::{
    error::RestError,
    list::{List, Outlet},
    model::{BacklogJson, FeeEstimatesJson, Id, ProjectedBlockJson, RecentJson},
    openapi::Paths,
    params::Asked,
    reply::{Cache, Reply},
    snapshot::Snapshot,
    unconfirmed::with_mempool,
};
use crate::state::ApiState;

/// Transactions in the list of the newest.
const RECENT_TXS: usize = 10;
/// Ids in one page.
const TXIDS_PER_PAGE: usize = 10_000;

type Answer = Result<Reply, RestError>;

/// M1: size of the mempool, and its fee rates.
pub(super) fn backlog(state: &ApiState) -> Answer {
    let backlog = following(state)?.backlog();
    Ok(Reply::json(&BacklogJson::from(&*backlog), Cache::Short))
}

/// M2: all txids, oldest arrival first.
pub(super) fn txids(state: &ApiState, outlet: Outlet) -> Answer {
    let mut list = List::new(outlet, Cache::Short, None);
    for txid in all_txids(state)? {
        list.push(&txid)?;
    }
    list.finish()
}

/// All txids of a synced node, oldest arrival first.
pub(super) fn all_txids(state: &ApiState) -> Result<Vec<Txid>, RestError> {
    Snapshot::take(state)?.require_complete()?;
    let (_, txids) = with_mempool(state, |mempool| mempool.txids())?;
    Ok(txids.unwrap_or_default())
}

/// X6: ids in ascending order of their bytes, after one.
pub(super) fn txids_page(state: &ApiState, after: Option<&Txid>, asked: &Asked) -> Answer {
    let limit = asked.max_txs(TXIDS_PER_PAGE, TXIDS_PER_PAGE);
    Ok(Reply::json(&sorted(state, after, limit)?, Cache::Short))
}

/// Up to `limit` ids in ascending order of their bytes, after one.
pub(super) fn sorted(
    state: &ApiState,
    after: Option<&Txid>,
    limit: usize,
) -> Result<Vec<Txid>, RestError> {
    let mut txids = all_txids(state)?;
    if let Some(after) = after {
        txids.retain(|txid| txid > after);
    }
    if limit < txids.len() {
        txids.select_nth_unstable(limit);
        txids.truncate(limit);
    }
    txids.sort_unstable();
    Ok(txids)
}

/// M3: the ten newest arrivals, newest first.
pub(super) fn recent(state: &ApiState) -> Answer {
    let recent = following(state)?.view().recent(RECENT_TXS);
    let recent: Vec<RecentJson> = recent.iter().map(Into::into).collect();
    Ok(Reply::json(&recent, Cache::Brief))
}

/// M4: fee rates by confirmation target. A target without an estimate is left out.
pub(super) fn fee_estimates(state: &ApiState) -> Answer {
    let estimates = following(state)?.fee_estimates();
    Ok(Reply::json(&FeeEstimatesJson(&estimates), Cache::Short))
}

/// The next blocks as the mempool would fill them, best first.
pub(super) fn projected_blocks(state: &ApiState) -> Answer {
    let blocks = following(state)?.projected_blocks();
    let blocks: Vec<ProjectedBlockJson> = blocks.iter().map(Into::into).collect();
    Ok(Reply::json(&blocks, Cache::Short))
}

/// The mempool, once it follows the chain.
pub(super) fn following(state: &ApiState) -> Result<&Arc<dyn MempoolSource>, RestError> {
    Snapshot::take(state)?.require_complete()?;
    let mempool = state.mempool().ok_or(RestError::MempoolBehind)?;
    if mempool.source.view().tip().is_none() {
        return Err(RestError::MempoolBehind);
    }
    Ok(&mempool.source)
}

/// The description of these routes.
pub(super) fn describe(paths: &mut Paths) {
    paths.tag(
        "Mempool",
        "Unconfirmed transactions and fees; only on nodes with a mempool",
    );
    paths
        .get(
            "/mempool",
            "Size of the mempool, and how its fee rates are spread",
        )
        .json::<BacklogJson<'_>>(&[Cache::Short])
        .of_mempool();
    paths
        .get(
            "/mempool/txids",
            "Ids of all unconfirmed transactions, oldest arrival first",
        )
        .list::<Id>(None, &[Cache::Short])
        .of_mempool();
    for template in ["/mempool/txids/page", "/mempool/txids/page/:last_txid"] {
        paths
            .get(
                template,
                "Ids of unconfirmed transactions in the order of their bytes",
            )
            .about("As mempool/electrs has it.")
            .max_txs(10_000, 10_000)
            .list::<Id>(Some(10_000), &[Cache::Short])
            .of_mempool();
    }
    paths
        .get("/mempool/recent", "The ten newest arrivals, newest first")
        .list::<RecentJson>(Some(10), &[Cache::Brief])
        .of_mempool();
    paths
        .get(
            "/mempool/projected-blocks",
            "The next blocks if the mempool were mined as it is, best first",
        )
        .about("Not Esplora. The last one may hold all the rest.")
        .list::<ProjectedBlockJson>(None, &[Cache::Short])
        .of_mempool();
    paths
        .get(
            "/fee-estimates",
            "Fee rates by confirmation target in blocks",
        )
        .about("A target without enough data is left out.")
        .json::<FeeEstimatesJson<'_>>(&[Cache::Short])
        .of_mempool();
}
