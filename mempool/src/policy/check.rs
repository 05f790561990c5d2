//! Checks of consensus that need nothing but the transaction.

use std::collections::HashSet;

use bitcoin::Transaction;
use pulse_primitives::bitcoin;

use super::{MAX_MONEY, WITNESS_SCALE};
use crate::error::Rejected;

const MAX_BLOCK_WEIGHT: u64 = 4_000_000;
/// Amounts above are negative to Bitcoin Core, which reads them with a sign.
const MAX_SIGNED: u64 = i64::MAX.unsigned_abs();

/// Refuses what no block can hold, and coinbases. The kernel checks the same again.
///
/// # Errors
/// [`Rejected`].
pub fn check_transaction(tx: &Transaction) -> Result<(), Rejected> {
    if tx.input.is_empty() {
        return Err(Rejected::consensus("bad-txns-vin-empty"));
    }
    if tx.output.is_empty() {
        return Err(Rejected::consensus("bad-txns-vout-empty"));
    }
    if tx.base_size() as u64 * WITNESS_SCALE > MAX_BLOCK_WEIGHT {
        return Err(Rejected::consensus("bad-txns-oversize"));
    }
    let mut total = 0;
    for output in &tx.output {
        let value = output.value.to_sat();
        if value > MAX_SIGNED {
            return Err(Rejected::consensus("bad-txns-vout-negative"));
        }
        if value > MAX_MONEY {
            return Err(Rejected::consensus("bad-txns-vout-toolarge"));
        }
        total += value;
        if total > MAX_MONEY {
            return Err(Rejected::consensus("bad-txns-txouttotal-toolarge"));
        }
    }
    let mut seen = HashSet::with_capacity(tx.input.len());
    if !tx.input.iter().all(|i| seen.insert(i.previous_output)) {
        return Err(Rejected::consensus("bad-txns-inputs-duplicate"));
    }
    if tx.is_coinbase() {
        let length = tx.input[0].script_sig.len();
        if !(2..=100).contains(&length) {
            return Err(Rejected::consensus("bad-cb-length"));
        }
        return Err(Rejected::consensus("coinbase"));
    }
    if tx.input.iter().any(|i| i.previous_output.is_null()) {
        return Err(Rejected::consensus("bad-txns-prevout-null"));
    }
    Ok(())
}
