//! Whether a transaction could be in the next block: its lock time, and the ages of its
//! inputs (BIP 68, BIP 113).

use bitcoin::{Transaction, absolute::LOCK_TIME_THRESHOLD};
use pulse_primitives::{
    Height, bitcoin,
    coins::{CoinError, CoinView},
};

const DISABLED: u32 = 1 << 31;
const BY_TIME: u32 = 1 << 22;
const MASK: u32 = 0xffff;
const GRANULARITY: u32 = 9;

/// Whether the lock time lets the transaction into the block after `tip`.
///
/// # Errors
/// [`CoinError`].
pub fn is_final(tx: &Transaction, tip: Height, coins: &dyn CoinView) -> Result<bool, CoinError> {
    let lock_time = tx.lock_time.to_consensus_u32();
    if lock_time == 0 || tx.input.iter().all(|input| input.sequence.is_final()) {
        return Ok(true);
    }
    if lock_time < LOCK_TIME_THRESHOLD {
        return Ok(lock_time <= tip);
    }
    Ok(lock_time < coins.median_time_past(tip)?)
}

/// The last height and the last time at which the ages of the inputs still forbid the
/// transaction; -1 if nothing is forbidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockPoints {
    /// Last height of a block that cannot hold it.
    pub height: i64,
    /// Last median time past before a block that cannot hold it.
    pub time: i64,
    /// Height of the newest confirmed input: while that block is in the chain, this stays
    /// true. 0 if all inputs are unconfirmed.
    pub newest_input: Height,
}

impl LockPoints {
    /// Of a transaction whose inputs are in blocks of these heights; `None` for an
    /// unconfirmed one, taken to be confirmed in the next block.
    ///
    /// # Errors
    /// [`CoinError`].
    pub fn of(
        tx: &Transaction,
        input_heights: &[Option<Height>],
        tip: Height,
        coins: &dyn CoinView,
    ) -> Result<Self, CoinError> {
        let mut points = Self {
            height: -1,
            time: -1,
            newest_input: input_heights.iter().flatten().copied().max().unwrap_or(0),
        };
        if tx.version.0 < 2 {
            return Ok(points);
        }
        for (input, height) in tx.input.iter().zip(input_heights) {
            let sequence = input.sequence.to_consensus_u32();
            if sequence & DISABLED != 0 {
                continue;
            }
            let height = height.unwrap_or(tip + 1);
            let age = sequence & MASK;
            if sequence & BY_TIME != 0 {
                let start = coins.median_time_past(height.saturating_sub(1))?;
                let end = i64::from(start) + (i64::from(age) << GRANULARITY) - 1;
                points.time = points.time.max(end);
            } else {
                let end = i64::from(height) + i64::from(age) - 1;
                points.height = points.height.max(end);
            }
        }
        Ok(points)
    }

    /// Whether the ages let the transaction into the block after `tip`.
    ///
    /// # Errors
    /// [`CoinError`].
    pub fn are_reached(&self, tip: Height, coins: &dyn CoinView) -> Result<bool, CoinError> {
        if self.height > i64::from(tip) {
            return Ok(false);
        }
        Ok(self.time < 0 || self.time < i64::from(coins.median_time_past(tip)?))
    }
}
