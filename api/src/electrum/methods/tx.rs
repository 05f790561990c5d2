//! Transactions: by id, with proofs, and handed in.

use std::collections::BTreeMap;

use pulse_indexer::query::{QueryError, View};
use pulse_primitives::{
    Height,
    bitcoin::{
        Amount, OutPoint, Transaction, Txid,
        consensus::{deserialize, encode::serialize_hex},
        hashes::Hash,
        hex::FromHex,
    },
    mempool::{MempoolView, PackageOutcome, ScriptHash, SubmitLimits, TxSubmitter, TxVerdict},
};
use serde_json::{Map, Value, json};

use super::{Answer, block::header_at};
use crate::electrum::{
    Inner, core_json,
    error::ElectrumError,
    merkle, name_of,
    rpc::{Params, json as text},
    version::Version,
    view::{self, At},
};

/// Most transactions of a package (Bitcoin Core).
const MAX_PACKAGE: usize = 25;
/// Fee rate above which a transaction is refused, in sat per 1000 vB: 0.10 BTC, Bitcoin
/// Core's `DEFAULT_MAX_RAW_TX_FEE_RATE`.
const MAX_FEE_RATE_SAT_KVB: u64 = 10_000_000;

/// Where a transaction was found.
enum Found {
    Confirmed(Transaction, core_json::Confirmation),
    Unconfirmed(Transaction),
}

/// A transaction of the index, or of the mempool at the same block.
fn find(state: &Inner, txid: &Txid) -> Result<Found, ElectrumError> {
    let confirmed = |at: &At<'_>| -> Result<Option<Found>, ElectrumError> {
        let Some((raw, block)) = at.view.tx_raw(txid)? else {
            return Ok(None);
        };
        let tx: Transaction = deserialize(&raw).map_err(|_| ElectrumError::Internal)?;
        let confirmation = core_json::Confirmation {
            hash: block.hash,
            count: at.tip.height.saturating_sub(block.height) + 1,
            time: block.time,
        };
        Ok(Some(Found::Confirmed(tx, confirmation)))
    };
    // What is confirmed is found without asking the mempool, synced or not.
    if let Some(found) = confirmed(&view::index(&state.api)?)? {
        return Ok(found);
    }
    let (at, waiting) = view::with_mempool(&state.api, |mempool| mempool.tx(txid))?;
    if let Some(found) = confirmed(&at)? {
        return Ok(found);
    }
    let waiting = waiting.flatten().ok_or(ElectrumError::NoTx)?;
    Ok(Found::Unconfirmed((*waiting.tx).clone()))
}

/// What is found in the index as it is, or else in that of a synced node, with the view in
/// which it was: an index on its way may lack what a later block holds.
fn find_confirmed<T>(
    state: &Inner,
    find: impl Fn(&View<'_>) -> Result<Option<T>, QueryError>,
) -> Result<Option<(At<'_>, T)>, ElectrumError> {
    let at = view::index(&state.api)?;
    if let Some(found) = find(&at.view)? {
        return Ok(Some((at, found)));
    }
    drop(at);
    let at = view::synced(&state.api)?;
    Ok(find(&at.view)?.map(|found| (at, found)))
}

pub(super) fn get(state: &Inner, _: Version, params: &Params) -> Answer {
    let txid: Txid = params.hash(0, "tx_hash")?;
    let verbose = params.flag(1, "verbose")?;
    let (tx, confirmation) = match find(state, &txid)? {
        Found::Confirmed(tx, confirmation) => (tx, Some(confirmation)),
        Found::Unconfirmed(tx) => (tx, None),
    };
    if !verbose {
        return Ok(text(&serialize_hex(&tx)));
    }
    let network = state.api.params().network;
    Ok(text(&core_json::transaction(&tx, confirmation, network)))
}

/// The transaction that a request names.
///
/// # Errors
/// [`ElectrumError::Rpc`].
pub(in crate::electrum) fn tx_param(params: &Params) -> Result<Txid, ElectrumError> {
    Ok(params.hash(0, "tx_hash")?)
}

/// Height of each transaction; 0 in the mempool, whatever it spends, as Fulcrum has it; `None`
/// if it is unknown.
///
/// # Errors
/// As [`view::with_mempool`], or of each one a failed read.
#[allow(
    clippy::type_complexity,
    reason = "a name would hide more than it tells"
)]
pub(super) fn heights(
    state: &Inner,
    txids: &[Txid],
) -> Result<Vec<Result<Option<Height>, ElectrumError>>, ElectrumError> {
    let (at, waiting) = view::with_mempool(&state.api, |mempool| {
        let txids = txids.iter();
        txids
            .map(|txid| mempool.tx(txid).is_some())
            .collect::<Vec<_>>()
    })?;
    let waiting = waiting.unwrap_or_else(|| vec![false; txids.len()]);
    let heights = txids.iter().zip(waiting).map(|(txid, waits)| {
        let block = at.view.tx_block(txid)?;
        Ok(block.map(|block| block.height).or(waits.then_some(0)))
    });
    Ok(heights.collect())
}

pub(super) fn height(state: &Inner, _: Version, params: &Params) -> Answer {
    let txid = tx_param(params)?;
    // What is confirmed is found without asking the mempool, synced or not.
    if let Some(block) = view::index(&state.api)?.view.tx_block(&txid)? {
        return Ok(block.height.to_string());
    }
    let heights = heights(state, &[txid])?;
    let height = heights.into_iter().next().unwrap_or(Ok(None));
    Ok(text(&height?))
}

/// Its block, with the header if that is wanted. As Fulcrum has it, an error if there is none.
pub(super) fn blockhash(state: &Inner, _: Version, params: &Params) -> Answer {
    let txid: Txid = params.hash(0, "tx_hash")?;
    let with_header = params.flag(1, "include_header")?;
    let block = find_confirmed(state, |view| view.tx_block(&txid))?;
    let (at, block) = block.ok_or(ElectrumError::NotConfirmed)?;
    let mut answer = json!({"block_hash": block.hash, "block_height": block.height});
    if with_header {
        let header = header_at(&at.view, block.height)?;
        answer["block_header"] = json!(serialize_hex(&header));
    }
    Ok(text(&answer))
}

pub(super) fn merkle(state: &Inner, _: Version, params: &Params) -> Answer {
    let txid: Txid = params.hash(0, "tx_hash")?;
    let asked = match params.get(1, "height") {
        None => None,
        Some(_) => Some(params.number(1, "height")?),
    };
    let proof = find_confirmed(state, |view| {
        let proof = view.merkle_proof(&txid)?;
        Ok(proof.filter(|proof| asked.is_none_or(|height| height == proof.block.height)))
    })?;
    let Some((_, proof)) = proof else {
        return Err(match asked {
            Some(height) => ElectrumError::NotInBlock { txid, height },
            None => ElectrumError::NoTx,
        });
    };
    Ok(text(&json!({
        "block_height": proof.block.height,
        "merkle": proof.merkle,
        "pos": proof.pos,
    })))
}

pub(super) fn id_from_pos(state: &Inner, _: Version, params: &Params) -> Answer {
    let height: Height = params.number(0, "height")?;
    let pos = params.number(1, "tx_pos")?;
    let with_proof = params.flag(2, "merkle")?;
    let at = view::index(&state.api)?;
    let Some(block) = at.view.block_at(height)? else {
        view::ends_at(&state.api, at.tip)?;
        return Err(ElectrumError::NoBlock { height });
    };
    let txids = at.view.block_txids(&block)?;
    let index = usize::try_from(pos).unwrap_or(usize::MAX);
    let txid = txids
        .get(index)
        .ok_or(ElectrumError::NoPosition { pos, height })?;
    if !with_proof {
        return Ok(text(txid));
    }
    let leaves = txids.iter().map(|txid| txid.to_raw_hash()).collect();
    let (branch, _) = merkle::branch(leaves, index);
    Ok(text(&json!({"tx_hash": txid, "merkle": branch})))
}

/// Value and script of an output that nothing spends, neither a block nor the mempool.
pub(super) fn utxo(state: &Inner, _: Version, params: &Params) -> Answer {
    let outpoint = OutPoint {
        txid: params.hash(0, "tx_hash")?,
        vout: params.number(1, "out_n")?,
    };
    let (at, waiting) = view::with_mempool(&state.api, |mempool| {
        let is_spent = mempool.spender(&outpoint).is_some();
        (is_spent, unconfirmed_output(mempool, outpoint))
    })?;
    let (is_spent, unconfirmed) = waiting.unwrap_or_default();
    if is_spent {
        return Ok("null".to_owned());
    }
    let script = |script: &[u8]| name_of(&ScriptHash::hash(script));
    let coin = at.view.unspent(&[outpoint])?.pop().flatten();
    Ok(match (coin, unconfirmed) {
        (Some(coin), _) => text(&json!({
            "confirmed_height": coin.height,
            "scripthash": script(coin.output.script_pubkey.as_bytes()),
            "value": coin.output.value.to_sat(),
        })),
        (None, Some((value, bytes))) => text(&json!({
            "scripthash": script(&bytes),
            "value": value.to_sat(),
        })),
        (None, None) => "null".to_owned(),
    })
}

fn unconfirmed_output(mempool: &dyn MempoolView, outpoint: OutPoint) -> Option<(Amount, Vec<u8>)> {
    let entry = mempool.tx(&outpoint.txid)?;
    let output = entry.tx.output.get(usize::try_from(outpoint.vout).ok()?)?;
    Some((output.value, output.script_pubkey.to_bytes()))
}

fn submitter(state: &Inner) -> Result<&dyn TxSubmitter, ElectrumError> {
    view::synced(&state.api)?;
    let mempool = state.api.mempool().ok_or(ElectrumError::MempoolBehind)?;
    Ok(&*mempool.submitter)
}

fn limits() -> SubmitLimits {
    SubmitLimits {
        max_fee_rate_sat_kvb: Some(MAX_FEE_RATE_SAT_KVB),
        max_burn: Some(Amount::ZERO),
    }
}

fn decode(hex: &str) -> Option<Transaction> {
    let bytes = Vec::<u8>::from_hex(hex.trim()).ok()?;
    deserialize(&bytes).ok()
}

pub(super) fn broadcast(state: &Inner, _: Version, params: &Params) -> Answer {
    const UNDECODED: &str = "TX decode failed. Make sure the tx has at least one input.";
    let hex = params.text(0, "raw_tx")?;
    let tx = decode(hex).ok_or_else(|| ElectrumError::Rejected {
        reason: UNDECODED.to_owned(),
    })?;
    let txid = submitter(state)?.submit(tx, limits());
    let txid = txid.map_err(|refused| ElectrumError::Rejected {
        reason: refused.to_string(),
    })?;
    Ok(text(&txid))
}

pub(super) fn broadcast_package(state: &Inner, _: Version, params: &Params) -> Answer {
    let refuse = |reason: String| ElectrumError::PackageRejected { reason };
    let Some(Value::Array(list)) = params.get(0, "raw_txs") else {
        return Err(ElectrumError::params("raw_txs is not a list"));
    };
    if list.is_empty() || list.len() > MAX_PACKAGE {
        return Err(refuse(format!(
            "Array must contain between 1 and {MAX_PACKAGE} transactions"
        )));
    }
    let verbose = params.flag(1, "verbose")?;
    let mut txs = Vec::with_capacity(list.len());
    for entry in list {
        let hex = entry
            .as_str()
            .ok_or_else(|| ElectrumError::params("raw_txs holds something that is not hex"))?;
        let tx = decode(hex).ok_or_else(|| {
            refuse("TX decode failed. Make sure the tx has at least one input".to_owned())
        })?;
        txs.push(tx);
    }
    let outcome = submitter(state)?.submit_package(txs, limits());
    let outcome = outcome.map_err(|refused| refuse(refused.to_string()))?;
    Ok(match verbose {
        true => text(&verbose_outcome(&outcome)),
        false => text(&brief_outcome(&outcome)),
    })
}

/// What is wrong with one transaction of a package.
fn fault(verdict: &TxVerdict) -> Option<String> {
    match &verdict.result {
        Some(Ok(_)) => None,
        Some(Err(refused)) => Some(refused.to_string()),
        None => Some("package-not-validated".to_owned()),
    }
}

fn brief_outcome(outcome: &PackageOutcome) -> Value {
    let success = outcome.message == "success";
    let errors: Vec<Value> = (outcome.verdicts.iter())
        .filter_map(|verdict| Some(json!({"txid": verdict.txid, "error": fault(verdict)?})))
        .collect();
    // Wallets need the list whenever it was no success, even if nothing is to be said of
    // any one transaction.
    match success && errors.is_empty() {
        true => json!({"success": true}),
        false => json!({"success": success, "errors": errors}),
    }
}

/// As Bitcoin Core's `submitpackage`.
fn verbose_outcome(outcome: &PackageOutcome) -> Value {
    let mut results = BTreeMap::new();
    for verdict in &outcome.verdicts {
        let mut result = Map::new();
        result.insert("txid".to_owned(), json!(verdict.txid));
        if let Some(Ok(accepted)) = &verdict.result {
            match accepted.other_wtxid {
                Some(other) => {
                    result.insert("other-wtxid".to_owned(), json!(other));
                }
                None => {
                    let mut fees = Map::new();
                    fees.insert("base".to_owned(), json!(accepted.fee.to_btc()));
                    if !accepted.effective_includes.is_empty() {
                        let rate = Amount::from_sat(accepted.effective_fee_rate_sat_kvb);
                        fees.insert("effective-feerate".to_owned(), json!(rate.to_btc()));
                        let includes = json!(accepted.effective_includes);
                        fees.insert("effective-includes".to_owned(), includes);
                    }
                    result.insert("vsize".to_owned(), json!(accepted.vsize));
                    result.insert("fees".to_owned(), Value::Object(fees));
                }
            }
        }
        if let Some(fault) = fault(verdict) {
            result.insert("error".to_owned(), json!(fault));
        }
        results.insert(verdict.wtxid.to_string(), Value::Object(result));
    }
    json!({
        "package_msg": outcome.message,
        "tx-results": results,
        "replaced-transactions": outcome.replaced,
    })
}
