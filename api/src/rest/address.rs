//! Addresses and scripthashes: A1 to A5 of the Esplora contract (docs/api.md).
//!
//! A later block can change every answer here, so all of them need a synced node. There
//! is no mempool yet: its parts are zeros and empty lists.

use pulse_indexer::query::model::TxDetail;
use pulse_primitives::bitcoin::Txid;

use super::{
    error::RestError,
    model::{StatsJson, TxJson, UtxoJson},
    params::Subject,
    reply::{Cache, Reply},
    snapshot::Snapshot,
};

/// Confirmed transactions in one list.
const TXS_PER_PAGE: usize = 25;

type Answer = Result<Reply, RestError>;

/// A1: totals; zeros for a script that was never used.
pub(super) fn stats(at: &Snapshot<'_>, of: &Subject) -> Answer {
    at.require_synced()?;
    let stats = at.view.script_stats(&of.hash)?;
    Ok(Reply::json(&StatsJson::new(of, stats), Cache::Short))
}

/// A2: unconfirmed transactions, then the newest 25 confirmed ones.
pub(super) fn txs(at: &Snapshot<'_>, of: &Subject) -> Answer {
    chain_txs(at, of, None)
}

/// A3: up to 25 confirmed transactions, newest first, starting after `after`. Empty if
/// `after` is not in the history.
pub(super) fn chain_txs(at: &Snapshot<'_>, of: &Subject, after: Option<&Txid>) -> Answer {
    at.require_synced()?;
    let details = at.view.script_txs(&of.hash, after, TXS_PER_PAGE)?;
    tx_list(at, &details)
}

/// A4: unconfirmed transactions.
pub(super) fn mempool_txs(at: &Snapshot<'_>, _of: &Subject) -> Answer {
    at.require_synced()?;
    tx_list(at, &[])
}

/// A5: unspent outputs, confirmed ones in chain order.
pub(super) fn utxos(at: &Snapshot<'_>, of: &Subject) -> Answer {
    at.require_synced()?;
    let utxos =
        (at.view.script_utxos(&of.hash, at.utxos_limit())?).ok_or(RestError::TooManyUtxos)?;
    let utxos: Vec<UtxoJson> = utxos.into_iter().map(Into::into).collect();
    Ok(Reply::json(&utxos, Cache::Short))
}

fn tx_list(at: &Snapshot<'_>, details: &[TxDetail]) -> Answer {
    let txs = (details.iter())
        .map(|detail| TxJson::new(detail, at.network()))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Reply::json(&txs, Cache::Short))
}
