//! Fees: estimates, floors, and the spread of those that are paid.

use std::sync::Arc;

use pulse_primitives::mempool::MempoolSource;
use serde_json::{Value, json};

use super::Answer;
use crate::electrum::{
    Inner,
    error::ElectrumError,
    rpc::{Params, json as text},
    version::Version,
    view,
};

/// Satoshis of a bitcoin.
const COIN: f64 = 100_000_000.0;

/// The mempool of a synced node.
fn source(state: &Inner) -> Result<&Arc<dyn MempoolSource>, ElectrumError> {
    view::is_synced(&state.api)?;
    let mempool = state.api.mempool().ok_or(ElectrumError::MempoolBehind)?;
    Ok(&mempool.source)
}

/// Bitcoins of an amount in satoshis that is not large.
fn btc(sat: u64) -> f64 {
    u32::try_from(sat).map_or(f64::MAX, f64::from) / COIN
}

/// BTC per 1000 vB for confirmation within some blocks, -1 if there is no estimate, as in a
/// node that is not synced. The mode (1.6) is checked, but there is one kind of estimate only.
pub(super) fn estimate(state: &Inner, _: Version, params: &Params) -> Answer {
    let target = params.number(0, "number")?;
    match params.get(1, "mode") {
        None => {}
        Some(Value::String(mode))
            if ["economical", "conservative", "unset"]
                .contains(&mode.to_ascii_lowercase().as_str()) => {}
        Some(_) => return Err(ElectrumError::params("unknown mode")),
    }
    let estimates = match source(state) {
        Ok(source) => source.fee_estimates(),
        // Wallets ask every minute, and hang up over an error.
        Err(ElectrumError::NotSynced { .. } | ElectrumError::CatchingUp { .. }) => {
            return Ok("-1".to_owned());
        }
        Err(error) => return Err(error),
    };
    let mut within = estimates.by_target.iter();
    // One for fewer blocks holds for more. For the very next block there is none anywhere:
    // Bitcoin Core answers with that for two, and so is it here.
    let found = within.rfind(|(blocks, _)| u32::from(*blocks) <= target.max(2));
    Ok(match found.filter(|_| target > 0) {
        // sat/vB to BTC per 1000 vB, rounded to satoshis.
        Some((_, rate)) => text(&((rate * 1000.0).round() / COIN)),
        None => "-1".to_owned(),
    })
}

/// BTC per 1000 vB.
pub(super) fn relay(state: &Inner, _: Version, _: &Params) -> Answer {
    Ok(text(&btc(source(state)?.relay_fees().min_relay_sat_kvb)))
}

/// BTC per 1000 vB each.
pub(super) fn info(state: &Inner, _: Version, _: &Params) -> Answer {
    let source = source(state)?;
    let fees = source.relay_fees();
    let least = source.min_fee_rate_sat_kvb().max(fees.min_relay_sat_kvb);
    Ok(text(&json!({
        "mempoolminfee": btc(least),
        "minrelaytxfee": btc(fees.min_relay_sat_kvb),
        "incrementalrelayfee": btc(fees.incremental_sat_kvb),
    })))
}

/// Fee rates in sat/vB, strictly falling, with the virtual size of each.
pub(super) fn histogram(state: &Inner, _: Version, _: &Params) -> Answer {
    let backlog = source(state)?.backlog();
    let mut bins: Vec<(f64, u64)> = Vec::with_capacity(backlog.histogram.len());
    for (rate, vsize) in &backlog.histogram {
        match bins.last_mut() {
            // Wallets refuse two bins of one fee rate.
            Some((last, sum)) if *last <= *rate => *sum += vsize,
            _ => bins.push((*rate, *vsize)),
        }
    }
    Ok(text(&bins))
}
