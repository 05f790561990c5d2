//! What an unconfirmed transaction is mined with, and what became of one that was replaced
//! (docs/api.md). Not Esplora.

use std::collections::HashSet;

use pulse_primitives::{
    bitcoin::Txid,
    mempool::{MempoolView, RemovalReason, RemovedTx},
};
use serde_json::json;

use super::{
    error::RestError,
    model::{CpfpJson, MemberJson, PresentJson, RecommendedFeesJson, RemovedJson, ReplacementJson},
    openapi::Paths,
    reply::{Cache, Reply},
    snapshot::Snapshot,
    unconfirmed::with_mempool,
};
use crate::state::ApiState;

/// Most replacements of replacements that are followed.
const MOST_STEPS: usize = 1_000;

type Answer = Result<Reply, RestError>;

/// Ancestors and descendants of an unconfirmed transaction, and its chunk: those with which it
/// would be mined, whose fee rate counts for it.
///
/// # Errors
/// [`RestError::NotInMempool`], [`RestError::NotSynced`] or [`RestError::MempoolBehind`].
pub(super) fn cpfp(state: &ApiState, txid: &Txid) -> Answer {
    Snapshot::take(state)?.require_complete()?;
    let (_, package) = with_mempool(state, |mempool| mempool.package(txid))?;
    let package = package.flatten().ok_or(RestError::NotInMempool)?;
    Ok(Reply::json(&CpfpJson::from(&package), Cache::Short))
}

/// The transactions that replaced one, one after the other, and what the last of them is now.
///
/// # Errors
/// [`RestError::NotReplaced`], [`RestError::NotSynced`] or [`RestError::MempoolBehind`].
pub(super) fn replacement(state: &ApiState, txid: &Txid) -> Answer {
    Snapshot::take(state)?.require_complete()?;
    let (at, steps) = with_mempool(state, |mempool| steps(mempool, *txid))?;
    let (steps, last, is_waiting) = steps.ok_or(RestError::NotReplaced)?;
    if steps.is_empty() {
        return Err(RestError::NotReplaced);
    }
    // What is confirmed was not replaced, whatever is remembered.
    if at.view.tx_block(txid)?.is_some() {
        return Err(RestError::NotReplaced);
    }
    let present = match (at.view.tx_block(&last)?, is_waiting) {
        (Some(block), _) => Some(PresentJson::new(last, Some(block))),
        (None, true) => Some(PresentJson::new(last, None)),
        (None, false) => None,
    };
    let steps = steps.iter();
    let chain = steps.map(|(txid, removed)| RemovedJson::new(*txid, removed));
    Ok(Reply::json(
        &ReplacementJson::new(chain.collect(), present),
        Cache::Short,
    ))
}

/// What was removed one after the other from `txid` on, the transaction that took the last
/// one's place, and whether it waits in the mempool.
fn steps(mempool: &dyn MempoolView, txid: Txid) -> (Vec<(Txid, RemovedTx)>, Txid, bool) {
    let (mut steps, mut seen, mut last) = (Vec::new(), HashSet::new(), txid);
    while steps.len() < MOST_STEPS && mempool.tx(&last).is_none() && seen.insert(last) {
        let Some(removed) = mempool.removed(&last) else {
            break;
        };
        let by = match removed.reason {
            RemovalReason::Replaced { by } => Some(by),
            RemovalReason::Conflict { with } => Some(with),
            _ => None,
        };
        // One that left for another reason has no successor, but may end the chain.
        if by.is_none() && steps.is_empty() {
            break;
        }
        steps.push((last, removed));
        match by {
            Some(by) => last = by,
            None => break,
        }
    }
    let is_waiting = mempool.tx(&last).is_some();
    (steps, last, is_waiting)
}

/// Fee rates to choose from.
///
/// # Errors
/// [`RestError::NotSynced`] or [`RestError::MempoolBehind`].
pub(super) fn recommended_fees(state: &ApiState) -> Answer {
    let mempool = super::mempool::following(state)?;
    let fees = RecommendedFeesJson::new(
        &mempool.fee_estimates(),
        &mempool.projected_blocks(),
        (mempool.min_fee_rate_sat_kvb()).max(mempool.relay_fees().min_relay_sat_kvb),
    );
    Ok(Reply::json(&fees, Cache::Short))
}

/// The description of these routes.
pub(super) fn describe(paths: &mut Paths) {
    paths.tag(
        "Mempool",
        "Unconfirmed transactions and fees; only on nodes with a mempool",
    );
    paths
        .get("/fees/recommended", "Fee rates to choose from, in sat/vB")
        .about("Not Esplora.")
        .json::<RecommendedFeesJson>(&[Cache::Short])
        .of_mempool();
    let operation = paths.get(
        "/tx/:txid/cpfp",
        "What an unconfirmed transaction is mined with",
    );
    let member = operation.reference::<MemberJson>();
    let members = json!({"type": "array", "items": member});
    let schema = json!({
        "type": "object",
        "required": [
            "txid", "fee", "vsize", "weight", "fee_rate", "effective_fee_rate", "ancestors",
            "descendants", "chunk"
        ],
        "properties": {
            "txid": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            "fee": {"type": "integer", "minimum": 0},
            "vsize": {"type": "integer", "minimum": 0},
            "weight": {"type": "integer", "minimum": 0},
            "fee_rate": {"type": "number"},
            "effective_fee_rate": {"type": "number"},
            "ancestors": members,
            "descendants": members,
            "chunk": members,
        },
    });
    operation
        .about("Not Esplora. The chunk is what it is mined with, itself included.")
        .shaped(&schema, &[Cache::Short])
        .of_mempool()
        .error(RestError::NotInMempool);
    paths
        .get("/tx/:txid/replacement", "What replaced a transaction")
        .about("Not Esplora. One after the other, and what the last of them is now.")
        .json::<ReplacementJson>(&[Cache::Short])
        .of_mempool()
        .error(RestError::NotReplaced);
}
