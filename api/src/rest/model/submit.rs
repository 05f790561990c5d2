//! JSON of verdicts on transactions of clients. What does not apply is `null`.

use pulse_primitives::{
    bitcoin::{Amount, Txid, Wtxid},
    mempool::{AcceptedTx, PackageOutcome, TestOutcome, TxVerdict},
};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::Id;

/// Outcome of a package.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PackageResult)]
pub(in crate::rest) struct PackageJson<'a> {
    #[schema(value_type = String)]
    package_msg: &'a str,
    #[serde(rename = "tx-results")]
    #[schema(value_type = std::collections::BTreeMap<String, ResultJson>)]
    tx_results: Results<'a>,
    #[serde(rename = "replaced-transactions")]
    #[schema(value_type = Vec<Id>)]
    replaced: &'a [Txid],
}

impl<'a> From<&'a PackageOutcome> for PackageJson<'a> {
    fn from(outcome: &'a PackageOutcome) -> Self {
        Self {
            package_msg: &outcome.message,
            tx_results: Results(&outcome.verdicts),
            replaced: &outcome.replaced,
        }
    }
}

/// Verdicts by wtxid, in the order of the package.
#[derive(Debug)]
struct Results<'a>(&'a [TxVerdict]);

impl Serialize for Results<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let results = self.0.iter();
        to.collect_map(results.map(|verdict| (verdict.wtxid, ResultJson::from(verdict))))
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PackageTxResult)]
struct ResultJson<'a> {
    #[schema(value_type = Id)]
    txid: Txid,
    #[serde(rename = "other-wtxid")]
    #[schema(value_type = Option<Id>, required = true)]
    other_wtxid: Option<Wtxid>,
    #[schema(required = true)]
    vsize: Option<u64>,
    #[schema(required = true)]
    fees: Option<FeesJson<'a>>,
    #[schema(required = true)]
    error: Option<String>,
}

impl<'a> From<&'a TxVerdict> for ResultJson<'a> {
    fn from(verdict: &'a TxVerdict) -> Self {
        let accepted = verdict
            .result
            .as_ref()
            .and_then(|result| result.as_ref().ok());
        let other_wtxid = accepted.and_then(|accepted| accepted.other_wtxid);
        // Of another transaction with this id there is nothing to tell.
        let own = accepted.filter(|_| other_wtxid.is_none());
        Self {
            txid: verdict.txid,
            other_wtxid,
            vsize: own.map(|accepted| accepted.vsize),
            fees: own.map(FeesJson::from),
            error: match &verdict.result {
                Some(Ok(_)) => None,
                Some(Err(refused)) => Some(refused.to_string()),
                None => Some("package-not-validated".to_owned()),
            },
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TxFees)]
struct FeesJson<'a> {
    /// In BTC.
    base: f64,
    /// In BTC per 1000 vB; `null`, like the next, if it was in the mempool before.
    #[serde(rename = "effective-feerate")]
    #[schema(required = true)]
    effective_fee_rate: Option<f64>,
    #[serde(rename = "effective-includes")]
    #[schema(value_type = Option<Vec<Id>>, required = true)]
    effective_includes: Option<&'a [Wtxid]>,
}

impl<'a> From<&'a AcceptedTx> for FeesJson<'a> {
    fn from(accepted: &'a AcceptedTx) -> Self {
        let includes = Some(accepted.effective_includes.as_slice());
        let includes = includes.filter(|includes| !includes.is_empty());
        let rate = Amount::from_sat(accepted.effective_fee_rate_sat_kvb);
        Self {
            base: accepted.fee.to_btc(),
            effective_fee_rate: includes.map(|_| rate.to_btc()),
            effective_includes: includes,
        }
    }
}

/// Verdict on a transaction that is only tested.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TestResult)]
pub(in crate::rest) struct TestJson<'a> {
    #[schema(value_type = Id)]
    txid: Txid,
    #[schema(value_type = Id)]
    wtxid: Wtxid,
    #[serde(rename = "package-error", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    package_error: Option<&'a str>,
    /// `null` if it was not judged.
    #[schema(required = true)]
    allowed: Option<bool>,
    #[schema(required = true)]
    vsize: Option<u64>,
    #[schema(required = true)]
    fees: Option<FeesJson<'a>>,
    #[serde(rename = "reject-reason")]
    #[schema(value_type = Option<String>, required = true)]
    reject_reason: Option<&'a str>,
}

/// Verdicts in the order of the transactions.
pub(in crate::rest) fn test_json(outcome: &TestOutcome) -> Vec<TestJson<'_>> {
    let verdicts = outcome.verdicts.iter();
    verdicts
        .map(|verdict| TestJson {
            package_error: outcome.package_error.as_deref(),
            ..TestJson::from(verdict)
        })
        .collect()
}

impl<'a> From<&'a TxVerdict> for TestJson<'a> {
    fn from(verdict: &'a TxVerdict) -> Self {
        let result = verdict.result.as_ref();
        let accepted = result.and_then(|result| result.as_ref().ok());
        let refused = result.and_then(|result| result.as_ref().err());
        Self {
            txid: verdict.txid,
            wtxid: verdict.wtxid,
            package_error: None,
            allowed: result.map(Result::is_ok),
            vsize: accepted.map(|accepted| accepted.vsize),
            fees: accepted.map(FeesJson::from),
            reject_reason: refused.map(|refused| match refused.reason.as_str() {
                // Bitcoin Core has another word for it here.
                "bad-txns-inputs-missingorspent" => "missing-inputs",
                reason => reason,
            }),
        }
    }
}
