//! Addresses and scripthashes: A1 to A6 of the Esplora contract (docs/api.md).
//!
//! A later block can change every answer here, so all of them need a synced node or a
//! client that takes what is indexed so far for the whole.

use pulse_indexer::query::{Cursor, HistoryPage};
use pulse_primitives::{
    bitcoin::{Txid, hashes::Hash},
    mempool::ScriptHash,
};
use serde_json::json;

use super::{
    error::RestError,
    holdings::{History, Unspent},
    list::{List, Outlet},
    model::{StatsJson, TxJson, UtxoJson},
    openapi::{Param, Paths},
    params::{Asked, Page, Subject},
    reply::{Cache, Reply},
    snapshot::Snapshot,
    unconfirmed::with_mempool,
};
use crate::state::ApiState;

/// Confirmed transactions in one list.
pub(super) const TXS_PER_PAGE: usize = 25;
/// Most of them that a client can ask for at once.
pub(super) const MOST_TXS: usize = 1_000;
/// Unconfirmed transactions in one list; the newest beyond that are left out.
pub(super) const MEMPOOL_TXS: usize = 50;

type Answer = Result<Reply, RestError>;

/// A1: totals; zeros for a script that was never used.
pub(super) fn stats(state: &ApiState, of: &Subject) -> Answer {
    let (at, unconfirmed) = with_mempool(state, |mempool| mempool.script_totals(&hash(of)))?;
    let confirmed = at.view.script_stats(&of.hash)?;
    let stats = StatsJson::new(of, confirmed, unconfirmed.unwrap_or_default());
    Ok(Reply::json(&stats, Cache::Short))
}

/// A2: up to 50 unconfirmed transactions, oldest arrival first, then the newest 25
/// confirmed ones, newest first. A client may ask for more of these, and for those behind a
/// cursor, which no unconfirmed ones go before.
pub(super) fn txs(state: &ApiState, of: &Subject, asked: &Asked, outlet: Outlet) -> Answer {
    let heights = asked.heights()?;
    let asked = asked.page(TXS_PER_PAGE, MOST_TXS)?;
    let (limit, cursor) = limit_and_cursor(asked, TXS_PER_PAGE);
    if cursor.is_some() {
        let at = Snapshot::take(state)?;
        at.require_synced()?;
        let page = at
            .view
            .history_page(&of.hash, heights, cursor.as_ref(), limit)?;
        let page = page.ok_or(RestError::CursorGone)?;
        return confirmed(&at, of, &page, asked, outlet);
    }
    let (at, unconfirmed) =
        with_mempool(state, |mempool| mempool.script_txs(&hash(of), MEMPOOL_TXS))?;
    let unconfirmed = unconfirmed.unwrap_or_default();
    let found = History::newest(&at, &of.hash, unconfirmed, heights, limit)?;
    let mut list = List::new(
        outlet,
        Cache::Short,
        found.next().filter(|_| asked.is_some()),
    );
    found.write(&at, &mut list)?;
    list.finish()
}

/// A3: up to 25 confirmed transactions, newest first, starting after `after`. Empty if
/// `after` is not in the history.
pub(super) fn chain_txs(
    state: &ApiState,
    of: &Subject,
    after: Option<&Txid>,
    asked: &Asked,
    outlet: Outlet,
) -> Answer {
    let heights = asked.heights()?;
    let usual = asked.max_txs(TXS_PER_PAGE, MOST_TXS);
    let asked = asked.page(usual, MOST_TXS)?;
    let (limit, cursor) = limit_and_cursor(asked, usual);
    let at = Snapshot::take(state)?;
    at.require_synced()?;
    let page = match (after, cursor) {
        (Some(after), None) => {
            let page = (at.view).history_page_after(&of.hash, heights, after, limit)?;
            match page {
                Some(page) => page,
                None => return List::new(outlet, Cache::Short, None).finish(),
            }
        }
        (_, cursor) => (at
            .view
            .history_page(&of.hash, heights, cursor.as_ref(), limit)?)
        .ok_or(RestError::CursorGone)?,
    };
    confirmed(&at, of, &page, asked, outlet)
}

/// The transactions of a page. Where the next one begins is told to who asked for a page.
fn confirmed(
    at: &Snapshot<'_>,
    of: &Subject,
    page: &HistoryPage,
    asked: Option<Page>,
    outlet: Outlet,
) -> Answer {
    let mut list = List::new(
        outlet,
        Cache::Short,
        page.next().filter(|_| asked.is_some()),
    );
    for detail in at.view.page_txs(&of.hash, page) {
        list.push(&TxJson::new(&detail?, at.rendering())?)?;
    }
    list.finish()
}

fn limit_and_cursor(asked: Option<Page>, usual: usize) -> (usize, Option<Cursor>) {
    asked.map_or((usual, None), |page| (page.limit, page.cursor))
}

/// A4: up to 50 unconfirmed transactions, oldest arrival first.
pub(super) fn mempool_txs(state: &ApiState, of: &Subject, asked: &Asked) -> Answer {
    Snapshot::take(state)?.require_complete()?;
    let limit = asked.max_txs(MEMPOOL_TXS, MOST_TXS);
    let (at, unconfirmed) = with_mempool(state, |mempool| mempool.script_txs(&hash(of), limit))?;
    let unconfirmed = unconfirmed.unwrap_or_default();
    let txs = (unconfirmed.iter())
        .map(|entry| TxJson::unconfirmed(entry, at.rendering()))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Reply::json(&txs, Cache::Short))
}

/// A5: outputs that nothing spends, neither a block nor the mempool: confirmed ones in
/// chain order, then unconfirmed ones. A client may ask for pages of them; the unconfirmed
/// ones are on the last, and those that the mempool spends leave gaps.
pub(super) fn utxos(state: &ApiState, of: &Subject, asked: &Asked, outlet: Outlet) -> Answer {
    let most = state.config().utxos_limit;
    let page = asked.page(most, most)?;
    let heights = asked.heights()?;
    let (at, unconfirmed) = with_mempool(state, |mempool| {
        let entries = usize::from(asked.scriptpubkey);
        (
            mempool.script_outputs(&hash(of)),
            mempool.script_txs(&hash(of), entries),
        )
    })?;
    let (outputs, entries) = unconfirmed.unwrap_or_default();
    let found = Unspent::find(&at, &of.hash, outputs, heights, page, most)?;
    let script = match asked.scriptpubkey {
        true => found.script(&at, &entries)?,
        false => None,
    };
    let mut list = List::new(outlet, Cache::Short, found.next());
    found.write(&at, script.as_deref(), &mut list)?;
    list.finish()
}

/// A6: addresses that begin with a prefix. There is no index of them
/// (docs/decisions/0007).
pub(super) fn by_prefix() -> Answer {
    Err(RestError::AddressSearchOff)
}

/// The script's hash as the mempool names it.
pub(super) fn hash(of: &Subject) -> ScriptHash {
    ScriptHash::from_byte_array(of.hash)
}

/// The description of these routes, which exist for both ways to name a script.
pub(super) fn describe(paths: &mut Paths) {
    for [stats, txs, chain, chain_after, unconfirmed, utxo] in [
        [
            "/address/:address",
            "/address/:address/txs",
            "/address/:address/txs/chain",
            "/address/:address/txs/chain/:last_seen_txid",
            "/address/:address/txs/mempool",
            "/address/:address/utxo",
        ],
        [
            "/scripthash/:hash",
            "/scripthash/:hash/txs",
            "/scripthash/:hash/txs/chain",
            "/scripthash/:hash/txs/chain/:last_seen_txid",
            "/scripthash/:hash/txs/mempool",
            "/scripthash/:hash/utxo",
        ],
    ] {
        match stats.starts_with("/address") {
            true => paths.tag(
                "Addresses",
                "What an address was paid, and what is left of it",
            ),
            false => paths.tag("Scripthashes", "The same for any script, by its hash"),
        }
        paths
            .get(stats, "Totals of a script; zeros if it was never used")
            .json::<StatsJson<'_>>(&[Cache::Short]);
        paths
            .get(
                txs,
                "Up to 50 unconfirmed transactions, then the newest 25 confirmed ones",
            )
            .about(
                "The unconfirmed ones by their arrival, oldest first; the confirmed ones newest \
                 first. `limit` counts confirmed ones, and with a `cursor` no others go before \
                 them. `max_txs` and `after_txid` ask for one list of both kinds, for which the \
                 other parameters do not count.",
            )
            .max_txs(50, MOST_TXS)
            .after_txid()
            .list::<TxJson<'_>>(None, &[Cache::Short])
            .pages()
            .heights();
        paths
            .get(chain, "The newest 25 confirmed transactions, newest first")
            .max_txs(TXS_PER_PAGE, MOST_TXS)
            .list::<TxJson<'_>>(None, &[Cache::Short])
            .pages()
            .heights();
        paths
            .get(
                chain_after,
                "25 confirmed transactions after one of them, newest first",
            )
            .about("Nothing if that one is not in the history.")
            .max_txs(TXS_PER_PAGE, MOST_TXS)
            .list::<TxJson<'_>>(None, &[Cache::Short])
            .pages()
            .heights();
        paths
            .get(
                unconfirmed,
                "Up to 50 unconfirmed transactions, oldest arrival first",
            )
            .max_txs(MEMPOOL_TXS, MOST_TXS)
            .list::<TxJson<'_>>(None, &[Cache::Short]);
        paths
            .get(utxo, "Outputs that neither a block nor the mempool spends")
            .about(
                "Confirmed ones in the order of the chain, then unconfirmed ones. More than \
                 `[http] utxos_limit` of them are given in pages only.",
            )
            .list::<UtxoJson<'_>>(None, &[Cache::Short])
            .pages()
            .heights()
            .query(
                "scriptpubkey",
                "Not Esplora: whether outputs have their script.",
                &json!({"type": "boolean"}),
            )
            .error(RestError::TooManyUtxos);
    }
    paths.tag("Addresses", "");
    paths
        .own_get(
            "/address-prefix/:prefix",
            "Addresses that begin with some characters",
        )
        .param(
            "prefix",
            Param {
                description: "The first characters of an address",
                schema: json!({"type": "string"}),
                errors: Vec::new(),
            },
        )
        .about("This node has no such index.")
        .error(RestError::AddressSearchOff);
}
