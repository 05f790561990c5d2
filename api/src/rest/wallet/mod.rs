//! Wallets by output descriptor or extended public key (docs/api.md). Not Esplora.
//!
//! body -> [`keychain`] (scripts of each descriptor) -> [`scan`] (which are used) -> totals,
//! unspent outputs or transactions
//!
//! # Security
//! Nothing of what a client sends is kept, logged or sent back, and answers may not be cached.
//!
//! # Limits
//! See [`keychain`] and [`scan`]. Unspent outputs are bounded like those of one address.

mod model;
mod scan;

use std::collections::{HashMap, HashSet};

use pulse_indexer::query::{Heights, ScriptHash as IndexHash};
use pulse_primitives::{bitcoin::hashes::Hash, mempool::ScriptHash};
use pulse_request::{RequestError, keychain};
use serde::Deserialize;
use serde_json::json;

use self::{
    keychain::{Derived, Keychain},
    model::{HeadJson, OwnedUtxoJson},
    scan::{Scan, Used, Wanted},
};
use super::{
    address::{MOST_TXS, TXS_PER_PAGE},
    error::RestError,
    holdings::Unspent,
    list::{List, Outlet},
    model::TxJson,
    openapi::Paths,
    params::Asked,
    reply::{Cache, Reply},
};
use crate::state::ApiState;

/// Unused scripts in a row that end a keychain, unless the client says otherwise (BIP 44).
const USUAL_GAP: usize = 20;
/// Most that it can ask for.
const MOST_GAP: usize = 1_000;

type Answer = Result<Reply, RestError>;

/// What to scan. Has no `Debug`, so that no log can have it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wallet {
    descriptors: Vec<String>,
    gap_limit: Option<usize>,
}

/// A wallet that was scanned.
struct Scanned<'a> {
    keychains: Vec<Keychain>,
    found: Scan<'a>,
    /// What is said of it whatever is asked.
    head: HeadJson,
}

impl Scanned<'_> {
    fn script(&self, used: &Used) -> &Derived {
        &self.keychains[used.keychain].scripts[used.index as usize]
    }
}

/// # Errors
/// [`RestError::QueryTimeout`] when nobody waits for the answer any more.
fn in_time(outlet: &Outlet) -> Result<(), RestError> {
    match outlet.is_over() {
        true => Err(RestError::QueryTimeout),
        false => Ok(()),
    }
}

/// Reads a body, and scans the wallet in it.
///
/// # Errors
/// What is wrong with it, in words that do not repeat it; or a failed read.
fn scanned<'a>(
    state: &'a ApiState,
    body: &[u8],
    wanted: Wanted,
    outlet: &Outlet,
) -> Result<Scanned<'a>, RestError> {
    // The parser's text could quote the body.
    let wallet: Wallet = serde_json::from_slice(body).map_err(|_| RestError::InvalidWallet)?;
    let gap_limit = wallet.gap_limit.unwrap_or(USUAL_GAP);
    if gap_limit == 0 || gap_limit > MOST_GAP {
        return Err(RestError::InvalidGapLimit { most: MOST_GAP });
    }
    let mut keychains = keychain::keychains(&wallet.descriptors, state.params().network)?;
    let go_on = || in_time(outlet);
    let found = scan::scan(state, &mut keychains, gap_limit, wanted, go_on)?;
    let head = HeadJson::new(&found, &keychains)?;
    Ok(Scanned {
        keychains,
        found,
        head,
    })
}

/// Used scripts and totals of a wallet.
///
/// # Errors
/// What is wrong with the body, or a failed read.
pub(super) fn totals(state: &ApiState, body: &[u8], outlet: Outlet) -> Answer {
    let wallet = scanned(state, body, Wanted::Totals, &outlet)?;
    Ok(Reply::json(&wallet.head, Cache::Private))
}

/// The same, with its unspent outputs: by script in the order of the keychains, of each as
/// those of an address.
///
/// # Errors
/// As [`totals`]; [`RestError::TooManyUtxos`].
pub(super) fn utxos(state: &ApiState, body: &[u8], outlet: Outlet) -> Answer {
    let wallet = scanned(state, body, Wanted::Outputs, &outlet)?;
    let Scan {
        at, used, waiting, ..
    } = &wallet.found;
    // All are found before the first is sent, since there may be too many.
    let mut listed = HashSet::new();
    let (mut left, mut unspent) = (state.config().utxos_limit, Vec::new());
    for used in used {
        in_time(&outlet)?;
        let derived = wallet.script(used);
        // It may belong to two keychains.
        if !listed.insert(derived.hash) {
            continue;
        }
        let outputs = (waiting.get(&ScriptHash::from_byte_array(derived.hash)))
            .map(|waiting| waiting.outputs.clone());
        let of_script = Unspent::find(
            at,
            &derived.hash,
            outputs.unwrap_or_default(),
            Heights::ALL,
            None,
            left,
        )?;
        left = left.saturating_sub(of_script.len());
        unspent.push((used, of_script));
    }
    let mut list = List::within(outlet, Cache::Private, None, &wallet.head, "utxos");
    for (used, of_script) in unspent {
        of_script.each(at, |utxo| list.push(&OwnedUtxoJson::new(utxo, used)))?;
    }
    list.finish()
}

/// The same, with its transactions, each once: unconfirmed ones, oldest arrival first, then
/// confirmed ones, newest first. With a cursor no unconfirmed ones go before them.
///
/// # Errors
/// As [`totals`]; [`RestError::CursorGone`].
pub(super) fn txs(state: &ApiState, body: &[u8], page: &Asked, outlet: Outlet) -> Answer {
    let page = page.page(TXS_PER_PAGE, MOST_TXS)?;
    let (limit, cursor) = page.map_or((TXS_PER_PAGE, None), |page| (page.limit, page.cursor));
    let wallet = scanned(state, body, Wanted::Txs, &outlet)?;
    let Scan {
        at, used, waiting, ..
    } = &wallet.found;
    let scripts: HashSet<IndexHash> = (used.iter()).map(|used| wallet.script(used).hash).collect();
    let page = at.view.merged_page(&scripts, cursor.as_ref(), limit)?;
    let page = page.ok_or(RestError::CursorGone)?;
    let mut unconfirmed = HashMap::new();
    if cursor.is_none() {
        let waiting =
            (scripts.iter()).filter_map(|hash| waiting.get(&ScriptHash::from_byte_array(*hash)));
        let txs = waiting.flat_map(|waiting| &waiting.txs);
        unconfirmed.extend(txs.map(|entry| (entry.txid, entry)));
    }
    let mut unconfirmed: Vec<_> = unconfirmed.into_values().collect();
    unconfirmed.sort_unstable_by_key(|entry| entry.sequence);
    let mut list = List::within(outlet, Cache::Private, page.next(), &wallet.head, "txs");
    for entry in unconfirmed {
        if at.view.tx_block(&entry.txid)?.is_none() {
            list.push(&TxJson::unconfirmed(entry, at.rendering())?)?;
        }
    }
    for detail in at.view.merged_txs(&scripts, &page) {
        list.push(&TxJson::new(&detail?, at.rendering())?)?;
    }
    list.finish()
}

/// The description of these routes.
pub(super) fn describe(paths: &mut Paths) {
    paths.tag(
        "Wallets",
        "Scripts by output descriptor or extended public key. Not Esplora; nothing is kept",
    );
    let body = json!({
        "type": "object",
        "required": ["descriptors"],
        "additionalProperties": false,
        "properties": {
            "descriptors": {"type": "array", "minItems": 1, "maxItems": 20, "items": {"type": "string"}},
            "gap_limit": {
                "type": "integer", "minimum": 1, "maximum": MOST_GAP, "default": USUAL_GAP
            },
        },
    });
    for (template, summary, part) in [
        (
            "/descriptors",
            "Used scripts by keychain, and the balance",
            None,
        ),
        (
            "/descriptors/utxo",
            "The same, with unspent outputs",
            Some("utxos"),
        ),
        (
            "/descriptors/txs",
            "The same, with transactions",
            Some("txs"),
        ),
    ] {
        let operation = paths.post(template, summary);
        let listed = match part {
            Some("txs") => operation.reference::<TxJson<'_>>(),
            // With the place in the wallet.
            _ => json!({"type": "object"}),
        };
        let mut schema = model::schema();
        if let Some(part) = part {
            schema["properties"][part] = json!({"type": "array", "items": listed});
            let required = schema["required"].as_array_mut();
            required.expect("it is a list").push(part.into());
        }
        operation
            .read()
            .body("application/json", "What to scan.", &body)
            .shaped(&schema, &[Cache::Private])
            .error(RestError::InvalidWallet)
            .error(RestError::InvalidGapLimit { most: MOST_GAP })
            .error(RequestError::TooManyDescriptors {
                most: keychain::MOST_DESCRIPTORS,
            })
            .error(RequestError::InvalidDescriptor { index: 0, what: "" })
            .error(RequestError::TooManyDerivations)
            .error(RestError::TooManyUtxos);
        if part == Some("txs") {
            operation.pages();
        }
    }
}
