//! What the push server takes of the REST API, so that both say the same in the same words.

use pulse_indexer::query::{
    View,
    model::{BlockInfo, BlockRef, ScriptStats, Spender},
};
use pulse_primitives::{
    bitcoin::{BlockHash, Network, Txid, hashes::Hash},
    mempool::{Backlog, MempoolView, RemovedTx, ScriptHash, ScriptMempoolTotals},
    tip::ChainTip,
};
use pulse_request::RequestError;
use serde_json::Value;

use super::{
    error::RestError,
    model::{BacklogJson, BlockJson, OutspendJson, RemovedJson, StatsJson, StatusJson},
    params::{self, Subject, SubjectKind},
    snapshot::Snapshot,
    unconfirmed,
};
use crate::state::ApiState;

/// # Errors
/// [`RestError::NotSynced`] as long as a block that the node does not have yet could change
/// an answer.
pub(crate) fn require_synced(state: &ApiState) -> Result<(), RestError> {
    Snapshot::take(state)?.require_complete()
}

/// What `copy` takes of the mempool, and the index at the same block with its tip. `None`
/// instead of a copy if the node has no mempool.
///
/// # Errors
/// [`RestError::NotSynced`], [`RestError::MempoolBehind`] when the two do not meet in time,
/// or a failed read.
#[allow(
    clippy::type_complexity,
    reason = "a name would hide more than it tells"
)]
pub(crate) fn with_mempool<'a, T>(
    state: &'a ApiState,
    copy: impl Fn(&dyn MempoolView) -> T,
) -> Result<(View<'a>, ChainTip, Option<T>), RestError> {
    let (at, copied) = unconfirmed::with_mempool(state, copy)?;
    let tip = at.tip()?;
    Ok((at.view, tip, copied))
}

/// A block as in `/block/:hash`.
pub(crate) fn block(block: &BlockInfo) -> Value {
    value(&BlockJson::from(block))
}

/// Whether and where something is confirmed, as in `/tx/:txid/status`.
pub(crate) fn status(block: Option<BlockRef>) -> Value {
    value(&StatusJson::from(block))
}

/// By what an output is spent, as in `/tx/:txid/outspend/:vout`.
pub(crate) enum Spent {
    No,
    Unconfirmed { txid: Txid, vin: u32 },
    Confirmed(Spender),
}

/// See [`Spent`].
pub(crate) fn outspend(spent: Spent) -> Value {
    value(&match spent {
        Spent::No => OutspendJson::unspent(),
        Spent::Unconfirmed { txid, vin } => OutspendJson::unconfirmed(txid, vin),
        Spent::Confirmed(spender) => OutspendJson::from(spender),
    })
}

/// Confirmed and unconfirmed totals, as in `/scripthash/:hash`.
pub(crate) fn totals(chain: ScriptStats, mempool: ScriptMempoolTotals) -> (Value, Value) {
    let of = Subject {
        kind: SubjectKind::Scripthash,
        text: String::new(),
        hash: [0; 32],
    };
    let mut stats = value(&StatsJson::new(&of, chain, mempool));
    (stats["chain_stats"].take(), stats["mempool_stats"].take())
}

/// Why a transaction left the mempool, as in `/tx/:txid/removed`.
pub(crate) fn removed(txid: Txid, removed: &RemovedTx) -> Value {
    value(&RemovedJson::new(txid, removed))
}

/// Size of the mempool and its fee rates, as in `/mempool`.
pub(crate) fn backlog(backlog: &Backlog) -> Value {
    value(&BacklogJson::from(backlog))
}

/// The script of an address.
///
/// # Errors
/// [`RequestError::InvalidAddress`], [`RequestError::WrongNetwork`].
pub(crate) fn address(text: &str, network: Network) -> Result<ScriptHash, RequestError> {
    params::address(text, network).map(|of| ScriptHash::from_byte_array(of.hash))
}

/// A script by its hash in byte order.
///
/// # Errors
/// [`RequestError::InvalidScripthash`].
pub(crate) fn scripthash(text: &str) -> Result<ScriptHash, RequestError> {
    params::scripthash(text).map(|of| ScriptHash::from_byte_array(of.hash))
}

/// A transaction by its id.
///
/// # Errors
/// [`RequestError::InvalidHex`].
pub(crate) fn txid(text: &str) -> Result<Txid, RequestError> {
    params::txid(text)
}

/// A block by its hash, as text for JSON.
pub(crate) fn place(height: u32, hash: &BlockHash) -> Value {
    serde_json::json!({"height": height, "hash": hash})
}

fn value(json: &impl serde::Serialize) -> Value {
    serde_json::to_value(json).expect("names are text and numbers are finite")
}
