//! JSON of packages, of replacements, and of fee rates to choose from.

use pulse_indexer::query::model::BlockRef;
use pulse_primitives::{
    bitcoin::Txid,
    mempool::{FeeEstimates, MempoolPackage, PackageMember, ProjectedBlock},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Id, RemovedJson, StatusJson};

/// An unconfirmed transaction with its relatives.
#[derive(Debug, Serialize)]
pub(in crate::rest) struct CpfpJson {
    #[serde(flatten)]
    tx: MemberJson,
    /// Of its chunk, in sat/vB.
    effective_fee_rate: f64,
    /// Without itself, parents first.
    ancestors: Vec<MemberJson>,
    /// Without itself, parents first.
    descendants: Vec<MemberJson>,
    /// With itself, parents first.
    chunk: Vec<MemberJson>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PackageMember)]
pub(in crate::rest) struct MemberJson {
    txid: Id,
    /// In satoshis.
    fee: u64,
    vsize: u64,
    weight: u64,
    /// In sat/vB.
    fee_rate: f64,
}

impl From<&PackageMember> for MemberJson {
    fn from(member: &PackageMember) -> Self {
        Self {
            txid: member.txid.into(),
            fee: member.fee.to_sat(),
            vsize: member.vsize,
            weight: member.weight,
            fee_rate: rate(member.fee.to_sat(), member.vsize),
        }
    }
}

/// In sat/vB, with three decimals.
fn rate(fee: u64, vsize: u64) -> f64 {
    rounded(fee as f64 / vsize.max(1) as f64)
}

fn rounded(rate: f64) -> f64 {
    (rate * 1_000.0).round() / 1_000.0
}

impl From<&MempoolPackage> for CpfpJson {
    fn from(package: &MempoolPackage) -> Self {
        let list = |members: &[PackageMember]| members.iter().map(MemberJson::from).collect();
        let (fee, vsize) = (package.chunk.iter()).fold((0, 0), |(fee, vsize), member| {
            (fee + member.fee.to_sat(), vsize + member.vsize)
        });
        Self {
            tx: (&package.tx).into(),
            effective_fee_rate: rate(fee, vsize),
            ancestors: list(&package.ancestors),
            descendants: list(&package.descendants),
            chunk: list(&package.chunk),
        }
    }
}

/// Replacements, one after the other.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Replacement)]
pub(in crate::rest) struct ReplacementJson {
    /// What was removed, oldest first.
    chain: Vec<RemovedJson>,
    /// What took the last one's place; `null` if that is gone, too.
    #[schema(required = true)]
    present: Option<PresentJson>,
}

impl ReplacementJson {
    pub(in crate::rest) fn new(chain: Vec<RemovedJson>, present: Option<PresentJson>) -> Self {
        Self { chain, present }
    }
}

/// A transaction that is there now.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PresentTx)]
pub(in crate::rest) struct PresentJson {
    txid: Id,
    status: StatusJson,
}

impl PresentJson {
    pub(in crate::rest) fn new(txid: Txid, block: Option<BlockRef>) -> Self {
        Self {
            txid: txid.into(),
            status: block.into(),
        }
    }
}

/// Fee rates to choose from, in sat/vB. Never below the one after it.
#[derive(Debug, Serialize, PartialEq, ToSchema)]
#[schema(as = RecommendedFees)]
#[serde(rename_all = "camelCase")]
pub(in crate::rest) struct RecommendedFeesJson {
    /// For one of the next two blocks.
    fastest_fee: f64,
    /// For one of the next three.
    half_hour_fee: f64,
    /// For one of the next six.
    hour_fee: f64,
    /// For one of the next 144.
    economy_fee: f64,
    /// What the mempool takes at all.
    minimum_fee: f64,
}

impl RecommendedFeesJson {
    /// From the estimates, and where they lack a target, from the median of the projected
    /// block that far away. `minimum` is in sat per 1000 vB.
    pub(in crate::rest) fn new(
        estimates: &FeeEstimates,
        projected: &[ProjectedBlock],
        minimum: u64,
    ) -> Self {
        // Rounded up: below it nothing is taken.
        let minimum_fee = minimum as f64 / 1_000.0;
        let within = |blocks: u16, least: f64| {
            // The estimate for the farthest target that is not farther than asked.
            let mut known = estimates.by_target.iter().rev();
            let known = known.find(|(target, _)| *target <= blocks);
            let rate = match known {
                Some((_, rate)) => *rate,
                None => (projected.get(usize::from(blocks) - 1))
                    .map_or(least, |block| block.median_fee_rate),
            };
            rounded(rate).max(least)
        };
        let economy_fee = within(144, minimum_fee);
        let hour_fee = within(6, economy_fee);
        let half_hour_fee = within(3, hour_fee);
        Self {
            fastest_fee: within(2, half_hour_fee),
            half_hour_fee,
            hour_fee,
            economy_fee,
            minimum_fee,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn projected(median_fee_rate: f64) -> ProjectedBlock {
        ProjectedBlock {
            tx_count: 1,
            weight: 4,
            vsize: 1,
            total_fee_sat: 1,
            fee_range: [median_fee_rate; 7],
            median_fee_rate,
        }
    }

    #[test]
    fn recommended_fees_never_rise_with_patience_nor_fall_below_the_minimum() {
        let fees = |by_target: &[(u16, f64)], blocks: &[ProjectedBlock]| {
            let estimates = FeeEstimates {
                by_target: by_target.to_vec(),
            };
            let fees = RecommendedFeesJson::new(&estimates, blocks, 1_234);
            [
                fees.fastest_fee,
                fees.half_hour_fee,
                fees.hour_fee,
                fees.economy_fee,
                fees.minimum_fee,
            ]
        };
        let minimum = 1.234;
        assert_eq!(fees(&[], &[]), [minimum; 5]);
        let all = [
            (1, 30.0),
            (2, 20.0),
            (3, 9.9996),
            (6, 5.0),
            (144, 2.0),
            (1008, 1.0),
        ];
        assert_eq!(fees(&all, &[]), [20.0, 10.0, 5.0, 2.0, minimum]);
        // Below the minimum, and out of order.
        assert_eq!(
            fees(&[(2, 1.0), (3, 4.0), (144, 0.5)], &[]),
            [4.0, 4.0, 4.0, minimum, minimum]
        );
        // Without estimates the projected blocks tell.
        let blocks = [projected(9.0), projected(7.0), projected(3.0)];
        assert_eq!(fees(&[], &blocks), [7.0, 3.0, minimum, minimum, minimum]);
    }
}
