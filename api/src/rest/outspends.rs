//! Spenders of many outputs at once: X5 of the Esplora contract, and its like for operators
//! (docs/api.md).

use pulse_indexer::query::model::Spender;
use pulse_primitives::bitcoin::{OutPoint, Txid};
use serde_json::json;

use super::{
    error::RestError,
    model::OutspendJson,
    openapi::Paths,
    reply::{Cache, Reply},
    snapshot::Snapshot,
    unconfirmed::with_mempool,
};
use crate::state::ApiState;

/// Most transactions in one query.
const MOST_TXIDS: usize = 50;
/// Looks at the index before a client is told that it moves too fast.
const MOST_LOOKS: usize = 3;

type Answer = Result<Reply, RestError>;

/// X5: what spends each output of each transaction that a query names (`txids=T,T`). An empty
/// list stands for one that is unknown or no txid.
pub(super) fn of_query(state: &ApiState, txids: Option<&str>) -> Answer {
    let txids = txids.ok_or(RestError::NoTxids)?;
    if txids.split(',').count() > MOST_TXIDS {
        return Err(RestError::TooManyTxids);
    }
    of_txids(state, txids.split(','))
}

/// The same for any number of them.
pub(super) fn of_txids<'t>(state: &ApiState, txids: impl Iterator<Item = &'t str>) -> Answer {
    let txids: Vec<Option<Txid>> = txids.map(|text| text.parse().ok()).collect();
    for _ in 0..MOST_LOOKS {
        if let Some(spenders) = spenders(state, &txids)? {
            return Ok(Reply::json(&spenders, Cache::Short));
        }
    }
    Err(RestError::MempoolBehind)
}

/// What spends the outputs of each transaction; `None` if the index has moved meanwhile.
fn spenders(
    state: &ApiState,
    txids: &[Option<Txid>],
) -> Result<Option<Vec<Vec<OutspendJson>>>, RestError> {
    let at = Snapshot::take(state)?;
    at.require_synced()?;
    let tip = at.view.tip();
    let mut confirmed = Vec::with_capacity(txids.len());
    for txid in txids {
        confirmed.push(match txid {
            Some(txid) => at.view.spenders(txid)?,
            None => None,
        });
    }
    drop(at);
    let (at, unconfirmed) = with_mempool(state, |mempool| {
        let of = |(txid, confirmed): (&Option<Txid>, &Option<Vec<Option<Spender>>>)| {
            let Some(txid) = *txid else {
                return Vec::new();
            };
            let count = match confirmed {
                Some(spenders) => spenders.len(),
                None => mempool.tx(&txid).map_or(0, |entry| entry.tx.output.len()),
            };
            let outpoints = (0..).take(count).map(|vout| OutPoint { txid, vout });
            outpoints
                .map(|outpoint| mempool.spender(&outpoint))
                .collect()
        };
        txids.iter().zip(&confirmed).map(of).collect::<Vec<_>>()
    })?;
    if at.view.tip() != tip {
        return Ok(None);
    }
    let unconfirmed = unconfirmed.unwrap_or_else(|| vec![Vec::new(); txids.len()]);
    let lists = confirmed.into_iter().zip(unconfirmed);
    let lists = lists.map(|(confirmed, unconfirmed)| {
        let count = confirmed.as_ref().map_or(unconfirmed.len(), Vec::len);
        let confirmed = confirmed.unwrap_or_default();
        (0..count)
            .map(|vout| outspend(at_index(&confirmed, vout), at_index(&unconfirmed, vout)))
            .collect()
    });
    Ok(Some(lists.collect()))
}

/// What spends each of these outputs. Unknown ones, and what is none, are unspent.
pub(super) fn of_outpoints(state: &ApiState, outpoints: &[String]) -> Answer {
    let outpoints: Vec<Option<OutPoint>> = outpoints.iter().map(|o| o.parse().ok()).collect();
    let (at, unconfirmed) = with_mempool(state, |mempool| {
        let spender = |outpoint: &Option<OutPoint>| mempool.spender(outpoint.as_ref()?);
        outpoints.iter().map(spender).collect::<Vec<_>>()
    })?;
    let unconfirmed = unconfirmed.unwrap_or_default();
    let mut outspends = Vec::with_capacity(outpoints.len());
    for (index, outpoint) in outpoints.iter().enumerate() {
        let confirmed = match outpoint {
            Some(outpoint) => at.view.spender(outpoint)?,
            None => None,
        };
        outspends.push(outspend(confirmed, at_index(&unconfirmed, index)));
    }
    Ok(Reply::json(&outspends, Cache::Short))
}

fn at_index<T: Copy>(list: &[Option<T>], index: usize) -> Option<T> {
    list.get(index).copied().flatten()
}

/// A confirmed spender goes before one in the mempool.
fn outspend(confirmed: Option<Spender>, unconfirmed: Option<(Txid, u32)>) -> OutspendJson {
    match (confirmed, unconfirmed) {
        (Some(spender), _) => OutspendJson::from(spender),
        (None, Some((txid, vin))) => OutspendJson::unconfirmed(txid, vin),
        (None, None) => OutspendJson::unspent(),
    }
}

/// The description of these routes.
pub(super) fn describe(paths: &mut Paths) {
    paths.tag("Transactions", "Transactions, confirmed or in the mempool");
    let operation = paths.get(
        "/txs/outspends",
        "What spends each output of each of up to 50 transactions",
    );
    let spends = json!({"type": "array", "items": operation.reference::<OutspendJson>()});
    operation
        .about(
            "As mempool/electrs has it. An empty list stands for one that is unknown or no txid.",
        )
        .query(
            "txids",
            "Ids of transactions, with commas between them",
            &json!({"type": "string"}),
        )
        .lists(&spends, &[Cache::Short])
        .error(RestError::NoTxids)
        .error(RestError::TooManyTxids);
}
