//! Addresses and scripthashes: A1 to A5 of the Esplora contract (docs/api.md).
//!
//! A later block can change every answer here, so all of them need a synced node or a
//! client that takes what is indexed so far for the whole.

use std::collections::HashSet;

use pulse_primitives::{
    bitcoin::{Txid, hashes::Hash},
    mempool::ScriptHash,
};

use super::{
    error::RestError,
    model::{StatsJson, TxJson, UtxoJson},
    params::Subject,
    reply::{Cache, Reply},
    snapshot::Snapshot,
    unconfirmed::with_mempool,
};
use crate::state::ApiState;

/// Confirmed transactions in one list.
const TXS_PER_PAGE: usize = 25;
/// Unconfirmed transactions in one list; the newest beyond that are left out.
const MEMPOOL_TXS: usize = 50;

type Answer = Result<Reply, RestError>;

/// A1: totals; zeros for a script that was never used.
pub(super) fn stats(state: &ApiState, of: &Subject) -> Answer {
    let (at, unconfirmed) = with_mempool(state, |mempool| mempool.script_totals(&hash(of)))?;
    let confirmed = at.view.script_stats(&of.hash)?;
    let stats = StatsJson::new(of, confirmed, unconfirmed.unwrap_or_default());
    Ok(Reply::json(&stats, Cache::Short))
}

/// A2: up to 50 unconfirmed transactions, oldest arrival first, then the newest 25
/// confirmed ones, newest first.
pub(super) fn txs(state: &ApiState, of: &Subject) -> Answer {
    let (at, unconfirmed) =
        with_mempool(state, |mempool| mempool.script_txs(&hash(of), MEMPOOL_TXS))?;
    let confirmed = at.view.script_txs(&of.hash, None, TXS_PER_PAGE)?;
    let unconfirmed = unconfirmed.unwrap_or_default();
    let known: HashSet<Txid> = confirmed.iter().map(|detail| detail.txid).collect();
    let unconfirmed = (unconfirmed.iter())
        .filter(|entry| !known.contains(&entry.txid))
        .map(|entry| TxJson::unconfirmed(entry, at.network()));
    let confirmed = confirmed
        .iter()
        .map(|detail| TxJson::new(detail, at.network()));
    let txs = unconfirmed
        .chain(confirmed)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Reply::json(&txs, Cache::Short))
}

/// A3: up to 25 confirmed transactions, newest first, starting after `after`. Empty if
/// `after` is not in the history.
pub(super) fn chain_txs(at: &Snapshot<'_>, of: &Subject, after: Option<&Txid>) -> Answer {
    at.require_synced()?;
    let details = at.view.script_txs(&of.hash, after, TXS_PER_PAGE)?;
    let txs = (details.iter())
        .map(|detail| TxJson::new(detail, at.network()))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Reply::json(&txs, Cache::Short))
}

/// A4: up to 50 unconfirmed transactions, oldest arrival first.
pub(super) fn mempool_txs(state: &ApiState, of: &Subject) -> Answer {
    Snapshot::take(state)?.require_complete()?;
    let (at, unconfirmed) =
        with_mempool(state, |mempool| mempool.script_txs(&hash(of), MEMPOOL_TXS))?;
    let unconfirmed = unconfirmed.unwrap_or_default();
    let txs = (unconfirmed.iter())
        .map(|entry| TxJson::unconfirmed(entry, at.network()))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Reply::json(&txs, Cache::Short))
}

/// A5: outputs that nothing spends, neither a block nor the mempool: confirmed ones in
/// chain order, then unconfirmed ones.
pub(super) fn utxos(state: &ApiState, of: &Subject) -> Answer {
    let (at, unconfirmed) = with_mempool(state, |mempool| mempool.script_outputs(&hash(of)))?;
    let unconfirmed = unconfirmed.unwrap_or_default();
    let spent: HashSet<_> = unconfirmed.spent.into_iter().collect();
    // The limit is on what is left after the mempool's spends.
    let limit = at.utxos_limit();
    let confirmed = at
        .view
        .script_utxos(&of.hash, limit.saturating_add(spent.len()))?;
    let confirmed = confirmed.ok_or(RestError::TooManyUtxos)?;
    let mut utxos: Vec<UtxoJson> = (confirmed.into_iter())
        .filter(|utxo| !spent.contains(&utxo.outpoint))
        .map(Into::into)
        .collect();
    let unconfirmed = unconfirmed.unspent.into_iter();
    utxos.extend(unconfirmed.map(|(outpoint, value)| UtxoJson::unconfirmed(outpoint, value)));
    if utxos.len() > limit {
        return Err(RestError::TooManyUtxos);
    }
    Ok(Reply::json(&utxos, Cache::Short))
}

/// The script's hash as the mempool names it.
fn hash(of: &Subject) -> ScriptHash {
    ScriptHash::from_byte_array(of.hash)
}
