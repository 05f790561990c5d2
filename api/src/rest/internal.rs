//! Whole blocks, the whole mempool, and transactions by the thousand: X7 of the Esplora
//! contract (docs/api.md), for a backend of the operator that keeps copies.
//!
//! # Security
//! An answer costs what the client asks for, without a limit of entries, so these routes are
//! on the operator's listener only.

use pulse_primitives::{
    bitcoin::{BlockHash, Txid},
    mempool::MempoolTx,
};

use super::{
    body,
    error::RestError,
    list::{List, Outlet},
    mempool,
    model::TxJson,
    reply::{Cache, Reply},
    snapshot::Snapshot,
    unconfirmed::{Found, find},
};
use crate::state::ApiState;

/// Transactions that are read at a time.
const STEP: u32 = 500;
/// Unconfirmed transactions in one list, if the client says nothing.
const MEMPOOL_TXS: usize = 1_000;

type Answer = Result<Reply, RestError>;

/// All transactions of a block.
pub(super) fn block_txs(state: &ApiState, hash: &BlockHash, outlet: Outlet) -> Answer {
    let at = Snapshot::take(state)?;
    let block =
        (at.view.block_by_hash(hash)?).ok_or_else(|| at.absent(RestError::BlockNotFound))?;
    let mut list = List::new(outlet, at.cache_at(block.height), None);
    let mut start = 0;
    while start < block.tx_count {
        let details = at.view.block_txs(&block, start, STEP)?;
        for detail in &details {
            list.push(&TxJson::new(detail, at.network())?)?;
        }
        start += STEP;
    }
    list.finish()
}

/// All transactions of the mempool.
pub(super) fn whole_mempool(state: &ApiState, outlet: Outlet) -> Answer {
    let txids = mempool::all_txids(state)?;
    unconfirmed(state, &txids, outlet)
}

/// Transactions of the mempool in the order of their ids, after one.
pub(super) fn mempool_page(
    state: &ApiState,
    after: Option<&Txid>,
    max_txs: Option<usize>,
    outlet: Outlet,
) -> Answer {
    let txids = mempool::sorted(state, after, max_txs.unwrap_or(MEMPOOL_TXS))?;
    unconfirmed(state, &txids, outlet)
}

/// Those of the named transactions that are in the mempool.
pub(super) fn mempool_txs(state: &ApiState, body: &[u8], outlet: Outlet) -> Answer {
    unconfirmed(state, &txids(body)?, outlet)
}

/// Those of the named transactions that are confirmed or in the mempool.
pub(super) fn txs(state: &ApiState, body: &[u8], outlet: Outlet) -> Answer {
    let mut list = List::new(outlet, Cache::Short, None);
    for txid in &txids(body)? {
        let (at, found) = find(state, |view| view.tx(txid), |mempool| mempool.tx(txid))?;
        match found {
            Some(Found::Confirmed(detail)) => list.push(&TxJson::new(&detail, at.network())?)?,
            Some(Found::Unconfirmed(entry)) => {
                list.push(&TxJson::unconfirmed(&entry, at.network())?)?;
            }
            None => {}
        }
    }
    list.finish()
}

/// The ids that a body names; what is none is skipped.
fn txids(body: &[u8]) -> Result<Vec<Txid>, RestError> {
    let texts = body::strings(body)?;
    Ok(texts.iter().filter_map(|text| text.parse().ok()).collect())
}

/// Those of the transactions that are in the mempool when it is their turn: it is let go
/// between steps.
fn unconfirmed(state: &ApiState, txids: &[Txid], outlet: Outlet) -> Answer {
    let source = mempool::following(state)?;
    let mut list = List::new(outlet, Cache::Short, None);
    for step in txids.chunks(STEP as usize) {
        let entries: Vec<MempoolTx> = {
            let view = source.view();
            step.iter().filter_map(|txid| view.tx(txid)).collect()
        };
        for entry in &entries {
            list.push(&TxJson::unconfirmed(entry, state.params().network)?)?;
        }
    }
    list.finish()
}
