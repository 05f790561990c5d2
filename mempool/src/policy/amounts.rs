//! Amounts and ages of the inputs (Bitcoin Core's `CheckTxInputs`).

use bitcoin::{Amount, Transaction};
use pulse_primitives::{Height, bitcoin, block::SpentOutput};

use super::MAX_MONEY;
use crate::{error::Rejected, feerate::format_money};

/// Blocks until a coinbase may be spent.
pub const COINBASE_MATURITY: u32 = 100;

/// Whether the coinbase at `height` may not be spent yet in the block at `spend_height`.
#[must_use]
pub fn is_immature(height: Height, spend_height: Height) -> bool {
    spend_height.saturating_sub(height) < COINBASE_MATURITY
}

/// The fee of a transaction that spends `inputs` in the block at `spend_height`.
///
/// # Errors
/// [`Rejected`].
pub fn check_amounts(
    tx: &Transaction,
    inputs: &[SpentOutput],
    spend_height: Height,
) -> Result<Amount, Rejected> {
    let mut value_in = 0;
    for input in inputs {
        if input.is_coinbase && is_immature(input.height, spend_height) {
            let reason = "bad-txns-premature-spend-of-coinbase";
            return Err(Rejected::premature(reason).debug(format!(
                "tried to spend coinbase at depth {}",
                i64::from(spend_height) - i64::from(input.height)
            )));
        }
        let value = input.output.value.to_sat();
        if value > MAX_MONEY || value_in + value > MAX_MONEY {
            return Err(Rejected::consensus("bad-txns-inputvalues-outofrange"));
        }
        value_in += value;
    }
    let value_out = tx
        .output
        .iter()
        .try_fold(0u64, |sum, output| sum.checked_add(output.value.to_sat()))
        .ok_or_else(|| Rejected::consensus("bad-txns-txouttotal-toolarge"))?;
    let fee = value_in.checked_sub(value_out).ok_or_else(|| {
        Rejected::consensus("bad-txns-in-belowout").debug(format!(
            "value in ({}) < value out ({})",
            format_money(value_in),
            format_money(value_out)
        ))
    })?;
    Ok(Amount::from_sat(fee))
}
