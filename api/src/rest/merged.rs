//! Transactions of several scripts as one list, and their effects in short: X1 to X3 of the
//! Esplora contract (docs/api.md), as mempool/electrs answers them.
//!
//! # Limits
//! A client may name [`MOST_SCRIPTS`] scripts. Of each as many rows are looked at as the answer
//! has entries.

use std::collections::{BTreeMap, HashSet};

use pulse_indexer::query::{ScriptHash, model::TxDetail};
use pulse_primitives::{
    bitcoin::{
        Network, TxOut, Txid,
        hashes::{Hash, sha256},
    },
    mempool::{self, MempoolTx, MempoolView},
};
use pulse_request::RequestError;
use serde_json::json;

use super::{
    body,
    error::RestError,
    list::{List, Outlet},
    model::{SummaryJson, TxJson},
    openapi::{Operation, Paths},
    params::{self, Asked, SubjectKind},
    reply::{Cache, Reply},
    snapshot::Snapshot,
    unconfirmed::with_mempool,
};
use crate::state::ApiState;

/// Transactions in one list, unconfirmed and confirmed ones together.
const TXS: usize = 50;
/// Most of them that a client can ask for at once.
const MOST_TXS: usize = 1_000;
/// Most unconfirmed transactions of a script that are looked at for the place to go on from.
const MOST_UNCONFIRMED: usize = 10_000;
/// Most entries of a summary.
const MOST_SUMMARIES: usize = 5_000;
/// Most scripts in one request.
const MOST_SCRIPTS: usize = 300;
/// Longest body with them, in bytes.
const MOST_BYTES: usize = MOST_SCRIPTS * 72;

type Answer = Result<Reply, RestError>;

/// The scripts that a body names, each once; what does not parse is left out.
///
/// # Errors
/// [`RestError::TooManyScripts`], or the parser's text.
pub(super) fn scripts(
    body: &[u8],
    kind: SubjectKind,
    network: Network,
) -> Result<HashSet<ScriptHash>, RestError> {
    if body.len() > MOST_BYTES {
        return Err(RestError::TooManyScripts);
    }
    let texts = body::strings(body)?;
    if texts.len() > MOST_SCRIPTS {
        return Err(RestError::TooManyScripts);
    }
    let parsed = texts.iter().filter_map(|text| match kind {
        SubjectKind::Address => params::address(text, network).ok(),
        SubjectKind::Scripthash => params::scripthash(text).ok(),
    });
    Ok(parsed.map(|subject| subject.hash).collect())
}

/// X1, X2: transactions of `of` within one budget: unconfirmed ones, oldest arrival first,
/// then confirmed ones, newest first. They begin after one that the client names, wherever it
/// is.
pub(super) fn txs(
    state: &ApiState,
    of: &HashSet<ScriptHash>,
    asked: &Asked,
    outlet: Outlet,
) -> Answer {
    let limit = asked.max_txs(TXS, MOST_TXS);
    let after = asked.after_txid.as_ref();
    let (at, waiting) = with_mempool(state, |mempool| waiting(mempool, of, after, limit))?;
    let (waiting, cursor) = match (waiting.flatten(), after) {
        (Some(waiting), _) => (waiting, None),
        (None, None) => (Vec::new(), None),
        (None, Some(after)) => {
            let place = at.view.place_of(after, of)?;
            (Vec::new(), Some(place.ok_or(RestError::AfterTxidNotFound)?))
        }
    };
    let mut list = List::new(outlet, Cache::Short, None);
    for entry in &waiting {
        list.push(&TxJson::unconfirmed(entry, at.rendering())?)?;
    }
    let left = limit - waiting.len();
    let page = at.view.merged_page(of, cursor.as_ref(), left)?;
    let page = page.ok_or(RestError::AfterTxidNotFound)?;
    for detail in at.view.merged_txs(of, &page) {
        list.push(&TxJson::new(&detail?, at.rendering())?)?;
    }
    list.finish()
}

/// Up to `limit` unconfirmed transactions of the scripts, oldest arrival first, after one of
/// them. `None` if that is not one of them.
fn waiting(
    mempool: &dyn MempoolView,
    of: &HashSet<ScriptHash>,
    after: Option<&Txid>,
    limit: usize,
) -> Option<Vec<MempoolTx>> {
    let (begin, most) = match after {
        None => (0, limit),
        Some(txid) => (mempool.tx(txid)?.sequence, MOST_UNCONFIRMED),
    };
    let mut by_arrival = BTreeMap::new();
    for script in of {
        let script = mempool::ScriptHash::from_byte_array(*script);
        let entries = mempool.script_txs(&script, most);
        let entries = entries.into_iter().filter(|entry| entry.sequence >= begin);
        by_arrival.extend(entries.map(|entry| (entry.sequence, entry)));
        while by_arrival.len() > limit.saturating_add(1) {
            by_arrival.pop_last();
        }
    }
    if let Some(after) = after {
        let first = by_arrival.pop_first();
        first.filter(|(_, entry)| entry.txid == *after)?;
    }
    Some(by_arrival.into_values().take(limit).collect())
}

/// X3: what each confirmed transaction changed for the scripts together, newest first.
pub(super) fn summary(
    state: &ApiState,
    of: &HashSet<ScriptHash>,
    after: Option<&Txid>,
    asked: &Asked,
    outlet: Outlet,
) -> Answer {
    let limit = asked.max_txs(MOST_SUMMARIES, MOST_SUMMARIES);
    let at = Snapshot::take(state)?;
    at.require_synced()?;
    let cursor = match after {
        None => None,
        Some(after) => {
            let place = at.view.place_of(after, of)?;
            Some(place.ok_or(RestError::AfterTxidNotFound)?)
        }
    };
    let page = at.view.merged_page(of, cursor.as_ref(), limit)?;
    let page = page.ok_or(RestError::AfterTxidNotFound)?;
    let mut list = List::new(outlet, Cache::Short, None);
    for placed in at.view.placed_txs(of, &page) {
        let (position, detail) = placed?;
        list.push(&SummaryJson::new(&detail, position, change(&detail, of)))?;
    }
    list.finish()
}

/// What a transaction paid to the scripts, less what it spent of theirs, in satoshis.
fn change(detail: &TxDetail, of: &HashSet<ScriptHash>) -> i64 {
    let sum = |outputs: &[TxOut]| {
        let own = outputs.iter().filter(|output| {
            of.contains(&sha256::Hash::hash(output.script_pubkey.as_bytes()).to_byte_array())
        });
        own.fold(0_i64, |sum, output| {
            sum.saturating_add_unsigned(output.value.to_sat())
        })
    };
    sum(&detail.tx.output).saturating_sub(sum(&detail.prevouts))
}

/// The description of these routes. What they do to lists of one script stands with those.
pub(super) fn describe(paths: &mut Paths) {
    paths.tag(
        "Several scripts",
        "Lists of one or more scripts, as mempool/electrs has them",
    );
    for template in [
        "/address/:address/txs/summary",
        "/address/:address/txs/summary/:last_txid",
        "/scripthash/:hash/txs/summary",
        "/scripthash/:hash/txs/summary/:last_txid",
    ] {
        let operation = paths.get(template, "What each confirmed transaction changed");
        summaries(operation);
    }
    for (txs, summary, summary_after) in [
        (
            "/addresses/txs",
            "/addresses/txs/summary",
            "/addresses/txs/summary/:last_txid",
        ),
        (
            "/scripthashes/txs",
            "/scripthashes/txs/summary",
            "/scripthashes/txs/summary/:last_txid",
        ),
    ] {
        let operation = paths.post(txs, "Transactions of several scripts as one list");
        several(operation)
            .max_txs(TXS, MOST_TXS)
            .after_txid()
            .list::<TxJson<'_>>(None, &[Cache::Short]);
        for template in [summary, summary_after] {
            let operation = paths.post(template, "What each transaction changed for them");
            summaries(several(operation));
        }
    }
}

/// What a list of summaries takes and answers.
fn summaries(operation: &mut Operation) {
    operation
        .max_txs(MOST_SUMMARIES, MOST_SUMMARIES)
        .list::<SummaryJson>(None, &[Cache::Short])
        .error(RestError::AfterTxidNotFound);
}

/// What names several scripts.
fn several(operation: &mut Operation) -> &mut Operation {
    operation
        .read()
        .body(
            "application/json",
            "Addresses or scripthashes; what does not parse is left out.",
            &json!({
                "type": "array",
                "maxItems": MOST_SCRIPTS,
                "items": {"type": "string"},
            }),
        )
        .error(RestError::TooManyScripts)
        .error(RequestError::InvalidBody {
            what: String::new(),
        })
}
