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
use pulse_request::RequestError;
use serde_json::json;

use super::{
    body,
    error::RestError,
    list::{List, Outlet},
    mempool,
    model::{OutspendJson, TxJson},
    openapi::{Operation, Paths},
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
    let mut list = List::new(outlet, at.settled_at(block.height, block.hash), None);
    let mut start = 0;
    while start < block.tx_count {
        let details = at.view.block_txs(&block, start, STEP)?;
        for detail in &details {
            list.push(&TxJson::new(detail, at.rendering())?)?;
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
            Some(Found::Confirmed(detail)) => list.push(&TxJson::new(&detail, at.rendering())?)?,
            Some(Found::Unconfirmed(entry)) => {
                list.push(&TxJson::unconfirmed(&entry, at.rendering())?)?;
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
            list.push(&TxJson::unconfirmed(entry, state.rendering())?)?;
        }
    }
    list.finish()
}

/// The description of these routes.
pub(super) fn describe(paths: &mut Paths) {
    paths.tag(
        "Copies",
        "Whole blocks, the whole mempool, and transactions by the thousand, as mempool/electrs \
         has them for a backend that keeps copies",
    );
    paths
        .get("/internal/block/:hash/txs", "All transactions of a block")
        .list::<TxJson<'_>>(None, &[Cache::Short, Cache::Long])
        .error(RestError::BlockNotFound);
    let short = [Cache::Short];
    paths
        .get(
            "/internal/mempool/txs/all",
            "All transactions of the mempool, oldest arrival first",
        )
        .list::<TxJson<'_>>(None, &short)
        .of_mempool();
    for template in ["/internal/mempool/txs", "/internal/mempool/txs/:last_txid"] {
        paths
            .get(
                template,
                "Transactions of the mempool in the order of their ids",
            )
            .query(
                "max_txs",
                "Entries in the list; what is no number is ignored.",
                &json!({"type": "integer", "minimum": 0, "default": MEMPOOL_TXS}),
            )
            .list::<TxJson<'_>>(None, &short)
            .of_mempool();
    }
    named(paths.post(
        "/internal/mempool/txs",
        "Those of these transactions that are in the mempool",
    ))
    .list::<TxJson<'_>>(None, &short)
    .of_mempool();
    named(paths.post(
        "/internal/txs",
        "Those of these transactions that are confirmed or in the mempool",
    ))
    .list::<TxJson<'_>>(None, &short);
    let spends = "What spends each output of each of these transactions";
    let operation = named(paths.post("/internal/txs/outspends/by-txid", spends));
    let spends = json!({"type": "array", "items": operation.reference::<OutspendJson>()});
    operation
        .about("An empty list stands for one that is unknown or no txid.")
        .lists(&spends, &short);
    let operation = paths.post(
        "/internal/txs/outspends/by-outpoint",
        "What spends each of these outputs",
    );
    listed(operation, "Outputs as TXID:VOUT; what is none is unspent.")
        .list::<OutspendJson>(None, &short);
}

fn named(operation: &mut Operation) -> &mut Operation {
    listed(operation, "Ids of transactions; what is none is left out.")
}

fn listed<'a>(operation: &'a mut Operation, what: &str) -> &'a mut Operation {
    let strings = json!({"type": "array", "items": {"type": "string"}});
    operation
        .read()
        .body("application/json", what, &strings)
        .error(RequestError::InvalidBody {
            what: String::new(),
        })
}
