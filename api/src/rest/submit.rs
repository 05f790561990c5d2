//! Transactions from clients: T9 to T11 and X4 of the Esplora contract (docs/api.md).
//!
//! query and body -> checks of the contract, in its order -> decoding -> [`TxSubmitter`]
//!
//! # Security
//! A submission keeps one of a few slots while its scripts are checked, so that clients
//! cannot keep all cores busy. The body's size is bounded before it gets here.

use pulse_primitives::{
    bitcoin::{Amount, Transaction, consensus::deserialize, hex::FromHex},
    mempool::{SubmitLimits, TxRejected, TxSubmitter},
};
use pulse_request::RequestError;
use serde_json::json;

use super::{
    body::{strings, text},
    error::RestError,
    model::{PackageJson, TestJson, test_json},
    openapi::{ErrorText, Paths},
    params::value,
    reply::{Cache, Reply},
    snapshot::Snapshot,
};
use crate::{BroadcastErrors, state::ApiState};

/// Most transactions of a package or a test.
const MAX_TXS: usize = 25;
/// Length that the hex of a package's transaction may have.
const TX_HEX_LEN: std::ops::Range<usize> = 120..800_000;
/// Fee rate above which a transaction is refused unless the client says otherwise, in sat
/// per 1000 vB: 0.10 BTC, Bitcoin Core's `DEFAULT_MAX_RAW_TX_FEE_RATE`.
const MAX_FEE_RATE_SAT_KVB: u64 = 10_000_000;
/// From this fee rate on, in BTC per 1000 vB, a client cannot mean a limit: some think
/// that it is sat/vB.
const NO_FEE_RATE_LIMIT_BTC: f64 = 1.0;

type Answer = Result<Reply, RestError>;

/// T9: the transaction in the body, as hex.
pub(super) fn tx(state: &ApiState, _query: Option<&str>, body: &[u8]) -> Answer {
    one(state, text(body)?)
}

/// T10: the transaction in the query, as hex.
pub(super) fn broadcast(state: &ApiState, query: Option<&str>, _body: &[u8]) -> Answer {
    submitter(state)?;
    one(state, &value(query, "tx").ok_or(RestError::MissingTx)?)
}

/// The mempool of a synced node.
fn submitter(state: &ApiState) -> Result<&dyn TxSubmitter, RestError> {
    Snapshot::take(state)?.require_complete()?;
    let mempool = state.mempool().ok_or(RestError::MempoolBehind)?;
    Ok(&*mempool.submitter)
}

fn one(state: &ApiState, hex: &str) -> Answer {
    let submitter = submitter(state)?;
    in_form(state, submit(submitter, hex))
}

/// With a refusal as the operator wants it to be written.
fn in_form<T>(state: &ApiState, answer: Result<T, RestError>) -> Result<T, RestError> {
    answer.map_err(|mut error| {
        if let RestError::Rpc { form, .. } = &mut error {
            *form = state.config().broadcast_errors;
        }
        error
    })
}

fn submit(submitter: &dyn TxSubmitter, hex: &str) -> Answer {
    const METHOD: &str = "sendrawtransaction";
    let bytes = Vec::<u8>::from_hex(hex.trim()).ok();
    let tx = bytes.and_then(|bytes| deserialize::<Transaction>(&bytes).ok());
    let tx = tx.ok_or_else(|| {
        let text = "TX decode failed. Make sure the tx has at least one input.";
        refused(METHOD, -22, text)
    })?;
    let limits = SubmitLimits {
        max_fee_rate_sat_kvb: Some(MAX_FEE_RATE_SAT_KVB),
        max_burn: Some(Amount::ZERO),
    };
    let txid = (submitter.submit(tx, limits)).map_err(|err| rejected(METHOD, &err))?;
    Ok(Reply::text(txid, Cache::Never))
}

/// T11: a child behind its parents.
pub(super) fn package(state: &ApiState, query: Option<&str>, body: &[u8]) -> Answer {
    const METHOD: &str = "submitpackage";
    let submitter = submitter(state)?;
    let (txs, limits) = in_form(state, list(METHOD, query, body))?;
    let outcome = submitter.submit_package(txs, limits);
    let outcome = in_form(state, outcome.map_err(|err| rejected(METHOD, &err)))?;
    Ok(Reply::json(&PackageJson::from(&outcome), Cache::Short))
}

/// X4: verdicts without accepting anything.
pub(super) fn test(state: &ApiState, query: Option<&str>, body: &[u8]) -> Answer {
    let submitter = submitter(state)?;
    let (txs, limits) = in_form(state, list("testmempoolaccept", query, body))?;
    let outcome = submitter.test(txs, limits);
    Ok(Reply::json(&test_json(&outcome), Cache::Short))
}

/// The transactions of a JSON array of hex, and the limits of the query.
fn list(
    method: &'static str,
    query: Option<&str>,
    body: &[u8],
) -> Result<(Vec<Transaction>, SubmitLimits), RestError> {
    let hexes = strings(body)?;
    if hexes.len() > MAX_TXS {
        return Err(RestError::TooManyTxs);
    }
    let limits = limits(query)?;
    let mut raw = Vec::with_capacity(hexes.len());
    for (index, hex) in hexes.iter().enumerate() {
        if !TX_HEX_LEN.contains(&hex.len()) {
            return Err(RestError::InvalidTxSize { index });
        }
        raw.push(Vec::<u8>::from_hex(hex).map_err(|_| RestError::InvalidTxHex { index })?);
    }
    if raw.is_empty() {
        let text = format!("Array must contain between 1 and {MAX_TXS} transactions.");
        return Err(refused(method, -8, text));
    }
    let decoded = raw.iter().zip(&hexes).map(|(bytes, hex)| {
        let text = || format!("TX decode failed: {hex} Make sure the tx has at least one input.");
        deserialize(bytes).map_err(|_| refused(method, -22, text()))
    });
    Ok((decoded.collect::<Result<_, _>>()?, limits))
}

/// `maxfeerate` (BTC per 1000 vB) and `maxburnamount` (BTC) of a query.
fn limits(query: Option<&str>) -> Result<SubmitLimits, RestError> {
    let max_fee_rate_sat_kvb = match value(query, "maxfeerate") {
        None => Some(MAX_FEE_RATE_SAT_KVB),
        Some(text) => {
            let (rate, sat) = btc(&text).ok_or(RestError::InvalidMaxFeeRate)?;
            Some(sat.to_sat()).filter(|sat| *sat > 0 && rate < NO_FEE_RATE_LIMIT_BTC)
        }
    };
    let max_burn = match value(query, "maxburnamount") {
        None => Amount::ZERO,
        Some(text) => btc(&text).ok_or(RestError::InvalidMaxBurn)?.1,
    };
    Ok(SubmitLimits {
        max_fee_rate_sat_kvb,
        max_burn: Some(max_burn),
    })
}

/// A number of bitcoins that is not negative, as given and in satoshis.
fn btc(text: &str) -> Option<(f64, Amount)> {
    let number: f64 = text.parse().ok()?;
    // Rounded to 8 decimals, as on the way to Bitcoin Core.
    let amount = format!("{number:.8} BTC").parse().ok()?;
    Some((number, amount))
}

fn rejected(method: &'static str, err: &TxRejected) -> RestError {
    refused(method, err.code, err.to_string())
}

fn refused(method: &'static str, code: i32, message: impl Into<String>) -> RestError {
    RestError::Rpc {
        method,
        code,
        message: message.into(),
        form: BroadcastErrors::default(),
    }
}

/// The description of these routes.
pub(super) fn describe(paths: &mut Paths) {
    const TXID: &str = "^[0-9a-f]{64}$";
    let not_utf8 = || RequestError::InvalidBody {
        what: String::new(),
    };
    paths.tag(
        "Submission",
        "Transactions of clients; only on nodes with a mempool",
    );
    paths
        .post("/tx", "Hands in a transaction")
        .about(
            "It is visible everywhere when the answer, its id, is sent. One that is in the \
             mempool already is accepted again.",
        )
        .body(
            "text/plain",
            "The transaction as hex; the content type does not matter.",
            &json!({"type": "string"}),
        )
        .text(TXID, &[Cache::Never])
        .of_mempool()
        .error(ErrorText::rpc("sendrawtransaction"))
        .error(not_utf8());
    paths
        .own_get("/broadcast", "The same with a GET")
        .query("tx", "The transaction as hex", &json!({"type": "string"}))
        .text(TXID, &[Cache::Never])
        .of_mempool()
        .error(RestError::MissingTx)
        .error(ErrorText::rpc("sendrawtransaction"));
    for (template, summary, method) in [
        (
            "/txs/package",
            "Hands in a child behind its parents",
            "submitpackage",
        ),
        (
            "/txs/test",
            "Judges transactions without accepting them",
            "testmempoolaccept",
        ),
    ] {
        let operation = paths.post(template, summary);
        operation
            .query(
                "maxfeerate",
                "BTC per 1000 vB from which a transaction is refused; 0, or 1 and more: none",
                &json!({"type": "number", "minimum": 0, "default": 0.1}),
            )
            .query(
                "maxburnamount",
                "BTC that may go into outputs that can never be spent",
                &json!({"type": "number", "minimum": 0, "default": 0}),
            )
            .body(
                "application/json",
                "Transactions as hex, parents before their children.",
                &json!({
                    "type": "array",
                    "minItems": 1,
                    "maxItems": MAX_TXS,
                    "items": {"type": "string", "minLength": 120, "maxLength": 799_999},
                }),
            );
        match template {
            "/txs/package" => operation.json::<PackageJson<'_>>(&[Cache::Short]),
            _ => operation.list::<TestJson<'_>>(None, &[Cache::Short]),
        };
        operation
            .of_mempool()
            .error(not_utf8())
            .error(RestError::TooManyTxs)
            .error(RestError::InvalidMaxFeeRate)
            .error(RestError::InvalidMaxBurn)
            .error(RestError::InvalidTxSize { index: 0 })
            .error(RestError::InvalidTxHex { index: 0 })
            .error(ErrorText::rpc(method));
    }
}
