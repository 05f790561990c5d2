//! Every metric of this crate: its name, its meaning, and how it is recorded.

use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use pulse_primitives::mempool::{FeeEstimates, RemovalReason};

use crate::{error::RejectClass, events::LeftReason};

const TRANSACTIONS: &str = "pulse_mempool_transactions";
const VSIZE: &str = "pulse_mempool_vsize_bytes";
const USAGE: &str = "pulse_mempool_usage_bytes";
const MIN_FEE_RATE: &str = "pulse_mempool_min_fee_rate_sat_per_kvb";
const ACCEPTED: &str = "pulse_mempool_accepted_total";
const REJECTED: &str = "pulse_mempool_rejected_total";
const LEFT: &str = "pulse_mempool_left_total";
const FEE_ESTIMATE: &str = "pulse_fee_estimate_sat_vb";

/// Targets whose estimates are shown, in blocks.
const SHOWN_TARGETS: [u16; 9] = [1, 2, 3, 6, 12, 25, 144, 504, 1008];

/// Registers the HELP text of every metric. Call once, when the recorder is installed.
pub fn describe() {
    describe_gauge!(TRANSACTIONS, Unit::Count, "Transactions in the mempool");
    describe_gauge!(
        VSIZE,
        Unit::Bytes,
        "Sum of the virtual sizes of the transactions in the mempool"
    );
    describe_gauge!(USAGE, Unit::Bytes, "Memory that the mempool takes");
    describe_gauge!(
        MIN_FEE_RATE,
        "Lowest fee rate that the mempool accepts, in satoshis per 1000 virtual bytes"
    );
    describe_counter!(
        ACCEPTED,
        Unit::Count,
        "Transactions accepted into the mempool"
    );
    describe_counter!(
        REJECTED,
        Unit::Count,
        "Transactions that the mempool refused, by kind of rule"
    );
    describe_counter!(
        LEFT,
        Unit::Count,
        "Transactions that left the mempool, by reason"
    );
    describe_gauge!(
        FEE_ESTIMATE,
        "Estimated fee rate in satoshis per virtual byte, by confirmation target in blocks; NaN if it cannot be told"
    );
    // There from the first scrape on.
    counter!(ACCEPTED).increment(0);
    for gauge in [gauge!(TRANSACTIONS), gauge!(VSIZE), gauge!(USAGE)] {
        gauge.increment(0.0);
    }
}

#[allow(clippy::cast_precision_loss, reason = "metrics are floats")]
pub(crate) fn size(transactions: usize, vsize: u64, usage_bytes: u64) {
    gauge!(TRANSACTIONS).set(transactions as f64);
    gauge!(VSIZE).set(vsize as f64);
    gauge!(USAGE).set(usage_bytes as f64);
}

#[allow(clippy::cast_precision_loss, reason = "metrics are floats")]
pub(crate) fn min_fee_rate(sat_kvb: u64) {
    gauge!(MIN_FEE_RATE).set(sat_kvb as f64);
}

/// The estimates of now.
pub fn fee_estimates(estimates: &FeeEstimates) {
    for target in SHOWN_TARGETS {
        let known = estimates.by_target.iter().find(|(of, _)| *of == target);
        let rate = known.map_or(f64::NAN, |(_, rate)| *rate);
        gauge!(FEE_ESTIMATE, "target" => target.to_string()).set(rate);
    }
}

pub(crate) fn accepted() {
    counter!(ACCEPTED).increment(1);
}

pub(crate) fn rejected(class: RejectClass) {
    counter!(REJECTED, "class" => class.name()).increment(1);
}

pub(crate) fn left(reason: &LeftReason) {
    let name = match reason {
        LeftReason::Confirmed(_) => "confirmed",
        LeftReason::Removed(RemovalReason::Replaced { .. }) => "replaced",
        LeftReason::Removed(RemovalReason::Conflict { .. }) => "conflict",
        LeftReason::Removed(RemovalReason::Expired) => "expired",
        LeftReason::Removed(RemovalReason::SizeLimit) => "size_limit",
        LeftReason::Removed(RemovalReason::Reorg) => "reorg",
        LeftReason::Removed(_) => "other",
    };
    counter!(LEFT, "reason" => name).increment(1);
}
