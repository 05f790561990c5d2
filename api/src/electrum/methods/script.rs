//! Scripts: balance, history, unspent outputs, status.

use std::{collections::HashSet, fmt::Write};

use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, OutPoint, Txid, hashes::Hash},
    mempool::{ScriptHash, ScriptMempoolTotals},
};
use serde::Serialize;
use serde_json::{Value, json};

use super::Answer;
use crate::electrum::{
    Inner,
    error::ElectrumError,
    histories::waiting,
    rpc::{Params, json as text},
    script_of,
    status::{Status, Waiting},
    version::Version,
    view,
};

/// The script that a request names.
///
/// # Errors
/// [`ElectrumError::Rpc`].
pub(in crate::electrum) fn script_param(params: &Params) -> Result<ScriptHash, ElectrumError> {
    // Any hash that is shown reversed will do to read the digits.
    let reversed: Txid = params.hash(0, "scripthash")?;
    let mut bytes = reversed.to_byte_array();
    bytes.reverse();
    Ok(script_of(bytes))
}

/// Status of each script, all of one moment.
///
/// # Errors
/// That of the index and mempool as a whole, or of each script.
#[allow(
    clippy::type_complexity,
    reason = "a name would hide more than it tells"
)]
pub(in crate::electrum) fn statuses(
    state: &Inner,
    scripts: &[ScriptHash],
) -> Result<Vec<Result<Status, ElectrumError>>, ElectrumError> {
    let limit = state.histories.limit();
    let (at, unconfirmed) = view::with_mempool(&state.api, |mempool| {
        let scripts = scripts.iter();
        scripts
            .map(|script| waiting(mempool, script, limit))
            .collect::<Vec<_>>()
    })?;
    let unconfirmed = unconfirmed.unwrap_or_else(|| vec![Vec::new(); scripts.len()]);
    let statuses = scripts.iter().zip(&unconfirmed).map(|(script, waiting)| {
        let confirmed = state.histories.hashed(&at, script)?;
        Ok(confirmed.status(waiting))
    });
    Ok(statuses.collect())
}

pub(super) fn status(state: &Inner, _: Version, params: &Params) -> Answer {
    let script = script_param(params)?;
    let status = statuses(state, &[script])?.remove(0)?;
    Ok(text(&status))
}

pub(super) fn balance(state: &Inner, _: Version, params: &Params) -> Answer {
    let script = script_param(params)?;
    let (at, unconfirmed) =
        view::with_mempool(&state.api, |mempool| mempool.script_totals(&script))?;
    let confirmed = at.view.script_stats(script.as_byte_array())?;
    let ScriptMempoolTotals {
        funded_sat,
        spent_sat,
        ..
    } = unconfirmed.unwrap_or_default();
    let confirmed = confirmed
        .funded_txo_sum
        .saturating_sub(confirmed.spent_txo_sum);
    let unconfirmed = i128::from(funded_sat) - i128::from(spent_sat);
    Ok(format!(
        r#"{{"confirmed":{confirmed},"unconfirmed":{unconfirmed}}}"#
    ))
}

/// An unconfirmed entry of a history.
#[derive(Serialize)]
struct WaitingJson {
    fee: u64,
    height: i32,
    tx_hash: Txid,
}

impl From<&Waiting> for WaitingJson {
    fn from(waiting: &Waiting) -> Self {
        Self {
            fee: waiting.fee,
            height: waiting.height(),
            tx_hash: waiting.txid,
        }
    }
}

/// All of it, or that in the blocks from `from_height` up to, but without, `to_height`,
/// where -1 is the end with what is unconfirmed.
pub(super) fn history(state: &Inner, _: Version, params: &Params) -> Answer {
    let script = script_param(params)?;
    let from = params.number_or(1, "from_height", 0)?;
    let to = match params.get(2, "to_height") {
        Some(Value::Number(n)) if n.as_i64() == Some(-1) => None,
        None => None,
        Some(_) => Some(params.number(2, "to_height")?),
    };
    let limit = state.histories.limit();
    let (at, unconfirmed) = view::with_mempool(&state.api, |mempool| match to {
        None => waiting(mempool, &script, limit),
        Some(_) => Vec::new(),
    })?;
    let mut answer = String::from("[");
    let mut push = |height: Height, txid: &Txid| {
        let comma = if answer.len() > 1 { "," } else { "" };
        write!(answer, r#"{comma}{{"height":{height},"tx_hash":"{txid}"}}"#)
            .expect("a String takes everything");
    };
    let whole;
    let part;
    let confirmed = match (from, to) {
        (0, None) => {
            whole = state.histories.confirmed(&at, &script)?;
            &*whole
        }
        (from, to) => {
            let range = from..to.unwrap_or(Height::MAX).max(from);
            let found = at
                .view
                .script_history(script.as_byte_array(), range, limit)?;
            part = found.ok_or(ElectrumError::HistoryTooLarge { limit })?;
            &part
        }
    };
    for (height, txid) in confirmed {
        push(*height, txid);
    }
    for entry in unconfirmed.iter().flatten() {
        let comma = if answer.len() > 1 { "," } else { "" };
        answer.push_str(comma);
        answer.push_str(&text(&WaitingJson::from(entry)));
    }
    answer.push(']');
    Ok(answer)
}

pub(super) fn mempool(state: &Inner, _: Version, params: &Params) -> Answer {
    let script = script_param(params)?;
    let limit = state.histories.limit();
    let (_, waiting) = view::with_mempool(&state.api, |mempool| waiting(mempool, &script, limit))?;
    let waiting = waiting.unwrap_or_default();
    let entries: Vec<WaitingJson> = waiting.iter().map(Into::into).collect();
    Ok(text(&entries))
}

/// The first transaction that touches it, or null. As Fulcrum has it: of those in the mempool
/// any one, with height 0 and a hash of zeros.
pub(super) fn first_use(state: &Inner, _: Version, params: &Params) -> Answer {
    let script = script_param(params)?;
    let (at, waiting) = view::with_mempool(&state.api, |mempool| mempool.script_txs(&script, 1))?;
    let history = state.histories.confirmed(&at, &script)?;
    let (hash, height, txid) = match (history.first(), waiting.unwrap_or_default().first()) {
        (Some((height, txid)), _) => (at.view.block_hash_at(*height)?, *height, *txid),
        (None, Some(entry)) => (Some(BlockHash::all_zeros()), 0, entry.txid),
        (None, None) => return Ok("null".to_owned()),
    };
    Ok(text(
        &json!({"block_hash": hash, "height": height, "tx_hash": txid}),
    ))
}

#[derive(Serialize)]
struct UnspentJson {
    height: Height,
    tx_hash: Txid,
    tx_pos: u32,
    value: u64,
}

impl UnspentJson {
    fn new(height: Height, outpoint: OutPoint, value: u64) -> Self {
        Self {
            height,
            tx_hash: outpoint.txid,
            tx_pos: outpoint.vout,
            value,
        }
    }
}

/// In the order of the chain, then of the mempool, without what the mempool spends.
pub(super) fn unspent(state: &Inner, _: Version, params: &Params) -> Answer {
    let script = script_param(params)?;
    let (at, unconfirmed) =
        view::with_mempool(&state.api, |mempool| mempool.script_outputs(&script))?;
    let unconfirmed = unconfirmed.unwrap_or_default();
    let spent: HashSet<OutPoint> = unconfirmed.spent.into_iter().collect();
    let limit = state.histories.limit();
    let too_many = || ElectrumError::HistoryTooLarge { limit };
    let confirmed = (at.view)
        .script_utxos(script.as_byte_array(), limit.saturating_add(spent.len()))?
        .ok_or_else(too_many)?;
    let mut unspent: Vec<UnspentJson> = (confirmed.iter())
        .filter(|utxo| !spent.contains(&utxo.outpoint))
        .map(|utxo| UnspentJson::new(utxo.block.height, utxo.outpoint, utxo.value))
        .collect();
    let waiting = unconfirmed.unspent.into_iter();
    unspent.extend(waiting.map(|(at, value)| UnspentJson::new(0, at, value.to_sat())));
    if unspent.len() > limit {
        return Err(too_many());
    }
    Ok(text(&unspent))
}
