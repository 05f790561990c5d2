//! JSON of the mempool and of fee estimates.

use pulse_primitives::{
    bitcoin::Txid,
    mempool::{Backlog, FeeEstimates, MempoolTx, ProjectedBlock, RemovalReason, RemovedTx},
};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::{Id, schema::RemovalReasonName};

/// Weight units in a virtual byte.
const WEIGHT_PER_VBYTE: u64 = 4;

/// Size of the mempool, and its fee rates.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Mempool)]
pub(in crate::rest) struct BacklogJson<'a> {
    count: u64,
    vsize: u64,
    /// In satoshis.
    total_fee: u64,
    /// Fee rate in sat/vB and vsize, by falling fee rate.
    #[schema(value_type = Vec<[f64; 2]>)]
    fee_histogram: &'a [(f64, u64)],
}

impl<'a> From<&'a Backlog> for BacklogJson<'a> {
    fn from(backlog: &'a Backlog) -> Self {
        Self {
            count: backlog.count,
            vsize: backlog.vsize,
            total_fee: backlog.total_fee_sat,
            fee_histogram: &backlog.histogram,
        }
    }
}

/// A new arrival.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RecentTx)]
pub(in crate::rest) struct RecentJson {
    #[schema(value_type = Id)]
    txid: Txid,
    /// In satoshis.
    fee: u64,
    vsize: u64,
    /// Sum of the inputs, in satoshis.
    value: u64,
}

impl From<&MempoolTx> for RecentJson {
    fn from(entry: &MempoolTx) -> Self {
        let values = entry.prevouts.iter().map(|output| output.value.to_sat());
        Self {
            txid: entry.txid,
            fee: entry.fee.to_sat(),
            vsize: entry.weight.div_ceil(WEIGHT_PER_VBYTE),
            value: values.fold(0, u64::saturating_add),
        }
    }
}

/// Fee rates in sat/vB by confirmation target.
#[derive(Debug, ToSchema)]
#[schema(as = FeeEstimates, value_type = std::collections::BTreeMap<String, f64>)]
pub(in crate::rest) struct FeeEstimatesJson<'a>(pub(in crate::rest) &'a FeeEstimates);

impl Serialize for FeeEstimatesJson<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        // Number keys become strings.
        to.collect_map(self.0.by_target.iter().copied())
    }
}

/// One of the next blocks.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProjectedBlock)]
pub(in crate::rest) struct ProjectedBlockJson {
    tx_count: u64,
    weight: u64,
    vsize: u64,
    /// In satoshis.
    total_fee: u64,
    /// In sat/vB, half of the weight pays more.
    median_fee_rate: f64,
    /// In sat/vB, at 0, 10, 25, 50, 75, 90 and 100 % of the weight.
    fee_range: [f64; 7],
}

impl From<&ProjectedBlock> for ProjectedBlockJson {
    fn from(block: &ProjectedBlock) -> Self {
        Self {
            tx_count: block.tx_count,
            weight: block.weight,
            vsize: block.vsize,
            total_fee: block.total_fee_sat,
            median_fee_rate: block.median_fee_rate,
            fee_range: block.fee_range,
        }
    }
}

/// Why a transaction left the mempool.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RemovedTx)]
pub(in crate::rest) struct RemovedJson {
    #[schema(value_type = Id)]
    txid: Txid,
    #[schema(value_type = RemovalReasonName)]
    reason: &'static str,
    /// The transaction that took its inputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Id>, nullable = false)]
    by: Option<Txid>,
    /// In seconds since 1970.
    time: u64,
}

impl RemovedJson {
    pub(in crate::rest) fn new(txid: Txid, removed: &RemovedTx) -> Self {
        let (reason, by) = match removed.reason {
            RemovalReason::Replaced { by } => ("replaced", Some(by)),
            RemovalReason::Conflict { with } => ("conflict", Some(with)),
            RemovalReason::Expired => ("expired", None),
            RemovalReason::SizeLimit => ("size_limit", None),
            RemovalReason::Reorg => ("reorg", None),
            _ => ("other", None),
        };
        Self {
            txid,
            reason,
            by,
            time: removed.time,
        }
    }
}
