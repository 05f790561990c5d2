//! What a replacement must pay.

use bitcoin::Txid;
use pulse_primitives::bitcoin;

use crate::feerate::{fee_at, format_money};

/// Most clusters that a replacement may conflict with directly.
pub const MAX_CONFLICTING_CLUSTERS: usize = 100;

/// At least the fees of what it replaces, and its own relay on top.
///
/// # Errors
/// Bitcoin Core's detail.
pub fn check_fees(
    original_fees: u64,
    fees: u64,
    vsize: u64,
    incremental_sat_kvb: u64,
    txid: &Txid,
) -> Result<(), String> {
    let Some(additional) = fees.checked_sub(original_fees) else {
        return Err(format!(
            "rejecting replacement {txid}, less fees than conflicting txs; {} < {}",
            format_money(fees),
            format_money(original_fees)
        ));
    };
    let relay = fee_at(incremental_sat_kvb, vsize);
    if additional < relay {
        return Err(format!(
            "rejecting replacement {txid}, not enough additional fees to relay; {} < {}",
            format_money(additional),
            format_money(relay)
        ));
    }
    Ok(())
}
