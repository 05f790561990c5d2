//! Many addresses, scripthashes or transactions in one request (docs/api.md). Not Esplora.
//!
//! body -> entries -> one view of the index with the mempool of the same block -> one object
//! per entry, in the order given, sent while they are made
//!
//! # Correctness
//! All entries of an answer are of the same block. An entry that is wrong, unknown or too long
//! has an `error` with the text that its own route would answer, and the others have their
//! answers all the same. A failed read ends the whole answer: it is no entry's fault.
//!
//! # Limits
//! [`MOST_ENTRIES`] in a request, and an answer takes no more entries once it has
//! [`FULL_BYTES`]: the rest are told so. What the mempool says of a script is copied once,
//! however often it is named.

use std::collections::HashMap;

use pulse_indexer::query::Heights;
use pulse_primitives::{
    bitcoin::{OutPoint, Txid, consensus::encode::serialize_hex, hashes::Hash, hex::DisplayHex},
    mempool::{MempoolTx, MempoolView, ScriptHash},
};
use pulse_request::RequestError;
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    address::{MEMPOOL_TXS, MOST_TXS, TXS_PER_PAGE},
    error::RestError,
    holdings::{History, Unspent},
    list::{List, Outlet},
    model::{OutspendJson, StatsJson, StatusJson, TxJson, UtxoJson},
    openapi::{Operation, Paths},
    params::{self, Asked, Page, Subject, SubjectKind},
    reply::{Cache, Reply},
    snapshot::Snapshot,
    tx::outspend_entries,
    unconfirmed::with_mempool,
};
use crate::state::ApiState;

/// Most entries in a request.
const MOST_ENTRIES: usize = 1_000;
/// Size of an answer from which on it takes no more entries, in bytes.
const FULL_BYTES: usize = 32 << 20;
/// Outputs of transactions whose spenders are told in one answer.
const MOST_OUTPUTS: usize = 100_000;
/// How often the outputs of transactions are counted anew because blocks came meanwhile.
const MOST_COUNTS: usize = 5;

type Answer = Result<Reply, RestError>;

/// What is asked of scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OfScripts {
    Stats,
    Utxos,
    Txs,
}

/// What is asked of transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OfTxs {
    Info,
    Hex,
    Status,
    Outspends,
}

/// An entry as it is named, with what is short of its answer.
#[derive(Debug, Default, Serialize)]
struct Entry<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scripthash: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    txid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<StatusJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tx: Option<TxJson<'a>>,
}

impl<'a> Entry<'a> {
    fn script(kind: SubjectKind, text: &'a str) -> Self {
        match kind {
            SubjectKind::Address => Self {
                address: Some(text),
                ..Self::default()
            },
            SubjectKind::Scripthash => Self {
                scripthash: Some(text),
                ..Self::default()
            },
        }
    }

    fn tx(text: &'a str) -> Self {
        Self {
            txid: Some(text),
            ..Self::default()
        }
    }

    fn failed(self, error: &impl std::fmt::Display) -> Self {
        Self {
            error: Some(error.to_string()),
            ..self
        }
    }
}

/// The strings of a body: a JSON array.
///
/// # Errors
/// [`RequestError::InvalidBody`], [`RestError::TooManyEntries`].
pub(super) fn entries(body: &[u8]) -> Result<Vec<String>, RestError> {
    let entries: Vec<String> =
        serde_json::from_slice(body).map_err(|err| RequestError::InvalidBody {
            what: err.to_string(),
        })?;
    match entries.len() > MOST_ENTRIES {
        true => Err(RestError::TooManyEntries { most: MOST_ENTRIES }),
        false => Ok(entries),
    }
}

/// Totals, unspent outputs or transactions of each script.
///
/// # Errors
/// What concerns all entries.
pub(super) fn scripts(
    state: &ApiState,
    (kind, what): (SubjectKind, OfScripts),
    texts: &[String],
    asked: &Asked,
    outlet: Outlet,
) -> Answer {
    let network = state.params().network;
    let subject = |text: &String| match kind {
        SubjectKind::Address => params::address(text, network),
        SubjectKind::Scripthash => params::scripthash(text),
    };
    let subjects: Vec<_> = texts.iter().map(subject).collect();
    let (most, heights) = (state.config().utxos_limit, asked.heights()?);
    let page = match what {
        OfScripts::Stats => None,
        OfScripts::Utxos => asked.page(most, most)?,
        OfScripts::Txs => asked.page(TXS_PER_PAGE, MOST_TXS)?,
    };
    if page.is_some_and(|page| page.cursor.is_some()) {
        // A place in the list of one of them is none in the others'.
        return Err(RequestError::InvalidCursor.into());
    }
    let list = List::new(outlet, Cache::Never, None);
    match what {
        OfScripts::Stats => stats(state, kind, texts, &subjects, list),
        OfScripts::Utxos => utxos(state, kind, texts, &subjects, (heights, page), list),
        OfScripts::Txs => txs(state, kind, texts, &subjects, (heights, page), list),
    }
}

/// What `copy` takes of the mempool for each script, and a view of the index at that block.
fn of_scripts<'a, T>(
    state: &'a ApiState,
    subjects: &[Result<Subject, RequestError>],
    copy: impl Fn(&dyn MempoolView, &ScriptHash) -> T,
) -> Result<(Snapshot<'a>, HashMap<ScriptHash, T>), RestError> {
    let (at, copied) = with_mempool(state, |mempool| {
        let mut copied = HashMap::new();
        for subject in subjects.iter().flatten() {
            let hash = ScriptHash::from_byte_array(subject.hash);
            copied.entry(hash).or_insert_with(|| copy(mempool, &hash));
        }
        copied
    })?;
    Ok((at, copied.unwrap_or_default()))
}

/// Gives each script to `one`, unless it is none or the answer is full.
fn each_script(
    kind: SubjectKind,
    texts: &[String],
    subjects: &[Result<Subject, RequestError>],
    mut list: List,
    mut one: impl FnMut(&Subject, ScriptHash, &mut List) -> Result<(), RestError>,
) -> Answer {
    for (text, subject) in texts.iter().zip(subjects) {
        list.in_time()?;
        let entry = Entry::script(kind, text);
        let done = match subject {
            Err(error) => {
                list.push(&entry.failed(error))?;
                continue;
            }
            Ok(_) if list.len() >= FULL_BYTES => Err(RestError::AnswerFull),
            Ok(subject) => one(
                subject,
                ScriptHash::from_byte_array(subject.hash),
                &mut list,
            ),
        };
        match done {
            Ok(()) => {}
            Err(error @ (RestError::AnswerFull | RestError::TooManyUtxos)) => {
                list.push(&entry.failed(&error))?;
            }
            Err(error) => return Err(error),
        }
    }
    list.finish()
}

fn stats(
    state: &ApiState,
    kind: SubjectKind,
    texts: &[String],
    subjects: &[Result<Subject, RequestError>],
    list: List,
) -> Answer {
    let (at, unconfirmed) =
        of_scripts(state, subjects, |mempool, hash| mempool.script_totals(hash))?;
    each_script(kind, texts, subjects, list, |of, hash, list| {
        let confirmed = at.view.script_stats(&of.hash)?;
        let unconfirmed = unconfirmed.get(&hash).copied().unwrap_or_default();
        list.push(&StatsJson::new(of, confirmed, unconfirmed))
    })
}

fn utxos(
    state: &ApiState,
    kind: SubjectKind,
    texts: &[String],
    subjects: &[Result<Subject, RequestError>],
    (heights, page): (Heights, Option<Page>),
    list: List,
) -> Answer {
    let most = state.config().utxos_limit;
    let (at, unconfirmed) = of_scripts(state, subjects, |mempool, hash| {
        mempool.script_outputs(hash)
    })?;
    each_script(kind, texts, subjects, list, |of, hash, list| {
        let unconfirmed = unconfirmed.get(&hash).cloned().unwrap_or_default();
        let found = Unspent::find(&at, &of.hash, unconfirmed, heights, page, most)?;
        let head = Entry {
            next_cursor: found.next().as_ref().map(params::cursor_text),
            ..Entry::script(kind, &of.text)
        };
        list.open(&head, "utxos");
        found.write(&at, None, list)?;
        list.close()
    })
}

fn txs(
    state: &ApiState,
    kind: SubjectKind,
    texts: &[String],
    subjects: &[Result<Subject, RequestError>],
    (heights, page): (Heights, Option<Page>),
    list: List,
) -> Answer {
    let limit = page.map_or(TXS_PER_PAGE, |page| page.limit);
    let (at, unconfirmed) = of_scripts(state, subjects, |mempool, hash| {
        mempool.script_txs(hash, MEMPOOL_TXS)
    })?;
    each_script(kind, texts, subjects, list, |of, hash, list| {
        let unconfirmed = unconfirmed.get(&hash).cloned().unwrap_or_default();
        let found = History::newest(&at, &of.hash, unconfirmed, heights, limit)?;
        let head = Entry {
            next_cursor: found.next().as_ref().map(params::cursor_text),
            ..Entry::script(kind, &of.text)
        };
        list.open(&head, "txs");
        found.write(&at, list)?;
        list.close()
    })
}

/// Bodies, bytes, states or spenders of each transaction.
///
/// # Errors
/// What concerns all entries.
pub(super) fn transactions(
    state: &ApiState,
    what: OfTxs,
    texts: &[String],
    outlet: Outlet,
) -> Answer {
    let txids: Vec<_> = texts.iter().map(|text| params::txid(text)).collect();
    let list = List::new(outlet, Cache::Never, None);
    if what == OfTxs::Outspends {
        return outspends(state, texts, &txids, list);
    }
    let (at, unconfirmed) = with_mempool(state, |mempool| {
        let found = txids.iter().flatten().filter_map(|txid| mempool.tx(txid));
        found
            .map(|entry| (entry.txid, entry))
            .collect::<HashMap<_, _>>()
    })?;
    let unconfirmed = unconfirmed.unwrap_or_default();
    each_tx(texts, &txids, list, |text, txid, list| {
        let waiting = unconfirmed.get(txid);
        let named = Entry::tx(text);
        match what {
            OfTxs::Status => list.push(&Entry {
                status: Some(at.view.tx_block(txid)?.into()),
                ..named
            }),
            OfTxs::Hex => list.push(&Entry {
                hex: Some(hex(&at, txid, waiting)?),
                ..named
            }),
            _ => {
                if let Some(detail) = at.view.tx(txid)? {
                    let tx = Some(TxJson::new(&detail, at.rendering())?);
                    return list.push(&Entry { tx, ..named });
                }
                let waiting = waiting.ok_or(RestError::TxNotFound)?;
                let tx = Some(TxJson::unconfirmed(waiting, at.rendering())?);
                list.push(&Entry { tx, ..named })
            }
        }
    })
}

fn hex(at: &Snapshot<'_>, txid: &Txid, waiting: Option<&MempoolTx>) -> Result<String, RestError> {
    match (at.view.tx_raw(txid)?, waiting) {
        (Some((bytes, _)), _) => Ok(bytes.to_lower_hex_string()),
        (None, Some(waiting)) => Ok(serialize_hex(&*waiting.tx)),
        (None, None) => Err(RestError::TxNotFound),
    }
}

/// Gives each transaction to `one`, unless it is none or the answer is full.
fn each_tx(
    texts: &[String],
    txids: &[Result<Txid, RequestError>],
    mut list: List,
    mut one: impl FnMut(&str, &Txid, &mut List) -> Result<(), RestError>,
) -> Answer {
    for (text, txid) in texts.iter().zip(txids) {
        list.in_time()?;
        let done = match txid {
            Err(error) => {
                list.push(&Entry::tx(text).failed(error))?;
                continue;
            }
            Ok(_) if list.len() >= FULL_BYTES => Err(RestError::AnswerFull),
            Ok(txid) => one(text, txid, &mut list),
        };
        match done {
            Ok(()) => {}
            Err(error @ (RestError::AnswerFull | RestError::TxNotFound)) => {
                list.push(&Entry::tx(text).failed(&error))?;
            }
            Err(error) => return Err(error),
        }
    }
    list.finish()
}

/// What the mempool says of the outputs of a transaction.
enum Copied {
    /// It does not have it, and how many outputs there are is not known yet.
    Unknown,
    /// The outputs of the transactions before it are enough for one answer.
    Full,
    /// Who spends each output.
    Spenders(Vec<Option<(Txid, u32)>>),
}

fn outspends(
    state: &ApiState,
    texts: &[String],
    txids: &[Result<Txid, RequestError>],
    list: List,
) -> Answer {
    // How many outputs there are never changes, wherever a transaction moves meanwhile; so
    // they are counted before the mempool is asked, which must not wait for a disk.
    let mut counts = HashMap::new();
    for _ in 0..MOST_COUNTS {
        let (at, unconfirmed) = with_mempool(state, |mempool| {
            let (mut copied, mut outputs) = (HashMap::new(), 0);
            for txid in txids.iter().flatten() {
                copied.entry(*txid).or_insert_with(|| {
                    let waiting = || mempool.tx(txid).map(|entry| entry.tx.output.len());
                    let Some(count) = counts.get(txid).copied().or_else(waiting) else {
                        return Copied::Unknown;
                    };
                    outputs += count;
                    if outputs > MOST_OUTPUTS {
                        return Copied::Full;
                    }
                    let outpoints = (0..).take(count).map(|vout| OutPoint { txid: *txid, vout });
                    Copied::Spenders(outpoints.map(|at| mempool.spender(&at)).collect())
                });
            }
            copied
        })?;
        let known = counts.len();
        if let Some(unconfirmed) = &unconfirmed {
            for (txid, copied) in unconfirmed {
                list.in_time()?;
                if matches!(copied, Copied::Unknown)
                    && let Some(outputs) = at.view.output_count(txid)?
                {
                    counts.insert(*txid, outputs);
                }
            }
        }
        if counts.len() > known {
            continue;
        }
        let unconfirmed = unconfirmed.unwrap_or_default();
        return each_tx(texts, txids, list, |text, txid, list| {
            let waiting = match unconfirmed.get(txid) {
                Some(Copied::Full) => return Err(RestError::AnswerFull),
                Some(Copied::Spenders(waiting)) => Some(&waiting[..]),
                Some(Copied::Unknown) | None => None,
            };
            let confirmed = match (at.view.spenders(txid)?, waiting) {
                (Some(confirmed), _) => confirmed,
                (None, Some(waiting)) => vec![None; waiting.len()],
                (None, None) => return Err(RestError::TxNotFound),
            };
            list.open(&Entry::tx(text), "outspends");
            for outspend in outspend_entries(&confirmed, waiting.unwrap_or_default()) {
                list.push(&outspend)?;
            }
            list.close()
        });
    }
    Err(RestError::MempoolBehind)
}

/// The description of these routes.
pub(super) fn describe(paths: &mut Paths) {
    const SCRIPTS: &str = "Addresses or scripthashes";
    const TXIDS: &str = "Ids of transactions";
    paths.tag(
        "Bulk",
        "Many addresses, scripthashes or transactions at once. Not Esplora",
    );
    for (stats, utxo, txs) in [
        (
            "/bulk/addresses/stats",
            "/bulk/addresses/utxo",
            "/bulk/addresses/txs",
        ),
        (
            "/bulk/scripthashes/stats",
            "/bulk/scripthashes/utxo",
            "/bulk/scripthashes/txs",
        ),
    ] {
        let operation = paths.post(stats, "Totals of each script");
        let totals = operation.reference::<StatsJson<'_>>();
        each(operation, SCRIPTS, &[], Some(totals));
        let operation = paths.post(utxo, "Unspent outputs of each script");
        let outputs = list_of(operation.reference::<UtxoJson<'_>>());
        each(operation, SCRIPTS, &[("utxos", outputs)], None);
        pages_of_each(operation);
        let operation = paths.post(txs, "Transactions of each script");
        let list = list_of(operation.reference::<TxJson<'_>>());
        each(operation, SCRIPTS, &[("txs", list)], None);
        pages_of_each(operation);
    }
    let operation = paths.post("/bulk/txs", "Each transaction");
    let tx = operation.reference::<TxJson<'_>>();
    each(operation, TXIDS, &[("tx", tx)], None);
    let operation = paths.post("/bulk/txs/hex", "The bytes of each transaction");
    let hex = json!({"type": "string", "pattern": "^([0-9a-f]{2})+$"});
    each(operation, TXIDS, &[("hex", hex)], None);
    let operation = paths.post("/bulk/txs/status", "Whether each transaction is confirmed");
    let status = operation.reference::<StatusJson>();
    each(operation, TXIDS, &[("status", status)], None);
    let operation = paths.post("/bulk/txs/outspends", "What spends the outputs of each");
    let outspends = list_of(operation.reference::<OutspendJson>());
    each(operation, TXIDS, &[("outspends", outspends)], None);
}

fn list_of(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

/// What a bulk request takes, and answers for each entry: its name, and one of these or why
/// there is none; or something else altogether.
fn each(operation: &mut Operation, what: &str, parts: &[(&str, Value)], other: Option<Value>) {
    let text = json!({"type": "string"});
    let mut properties = json!({
        "address": text, "scripthash": text, "txid": text, "error": text, "next_cursor": text,
    });
    for (name, schema) in parts {
        properties[*name] = schema.clone();
    }
    let entry = json!({"type": "object", "properties": properties});
    let entry = match other {
        Some(other) => json!({"anyOf": [other, entry]}),
        None => entry,
    };
    let entries = json!({
        "type": "array",
        "maxItems": MOST_ENTRIES,
        "items": {"type": "string"},
    });
    operation
        .read()
        .about("One entry per entry of the body, in its order; `error` if it has no answer.")
        .body("application/json", what, &entries)
        .lists(&entry, &[Cache::Never])
        .error(RequestError::InvalidBody {
            what: String::new(),
        })
        .error(RestError::TooManyEntries { most: MOST_ENTRIES })
        .error(RequestError::InvalidNumber)
        .error(RequestError::InvalidCursor);
}

fn pages_of_each(operation: &mut Operation) {
    let limit = json!({"type": "integer", "minimum": 1});
    operation
        .query("limit", "Outputs or transactions of each entry", &limit)
        .heights()
        .error(RequestError::InvalidLimit);
}
