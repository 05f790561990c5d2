//! Fees over sizes, compared without rounding, and how Bitcoin Core prints them.

use std::{
    cmp::Ordering,
    ops::{Add, AddAssign, Sub, SubAssign},
};

/// A fee in satoshis over a size (weight units in clusters, vB elsewhere).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeeFrac {
    /// Satoshis.
    pub fee: i64,
    /// Size; 0 only in an empty sum.
    pub size: i64,
}

impl FeeFrac {
    /// `fee` over `size`.
    #[must_use]
    pub fn new(fee: i64, size: i64) -> Self {
        Self { fee, size }
    }

    /// Compares the rates, exactly. An empty one equals all.
    #[must_use]
    pub fn cmp_rate(&self, other: &Self) -> Ordering {
        let left = i128::from(self.fee) * i128::from(other.size);
        let right = i128::from(other.fee) * i128::from(self.size);
        left.cmp(&right)
    }
}

impl AddAssign for FeeFrac {
    fn add_assign(&mut self, other: Self) {
        self.fee += other.fee;
        self.size += other.size;
    }
}

impl SubAssign for FeeFrac {
    fn sub_assign(&mut self, other: Self) {
        self.fee -= other.fee;
        self.size -= other.size;
    }
}

impl Add for FeeFrac {
    type Output = Self;
    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl Sub for FeeFrac {
    type Output = Self;
    fn sub(mut self, other: Self) -> Self {
        self -= other;
        self
    }
}

/// Fee in satoshis for `vsize` vB at `rate` sat per 1000 vB, rounded up.
#[must_use]
pub fn fee_at(rate_sat_kvb: u64, vsize: u64) -> u64 {
    let fee = (u128::from(rate_sat_kvb) * u128::from(vsize)).div_ceil(1000);
    u64::try_from(fee).unwrap_or(u64::MAX)
}

/// Rate in sat per 1000 vB of `fee` satoshis for `vsize` vB, rounded down. 0 for no size.
#[must_use]
pub fn rate_sat_kvb(fee: u64, vsize: u64) -> u64 {
    let rate = (u128::from(fee) * 1000)
        .checked_div(u128::from(vsize))
        .unwrap_or(0);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

const COIN: u64 = 100_000_000;

/// Satoshis as Bitcoin Core prints money: bitcoins with at least two decimals.
pub(crate) fn format_money(sat: u64) -> String {
    let mut text = format!("{}.{:08}", sat / COIN, sat % COIN);
    let least = text.len() - 6;
    let kept = text.trim_end_matches('0').len();
    text.truncate(kept.max(least));
    text
}

/// A rate as Bitcoin Core prints it: `0.00001000 BTC/kvB`.
pub(crate) fn format_rate(fee: u64, vsize: u64) -> String {
    let rate = rate_sat_kvb(fee, vsize);
    format!("{}.{:08} BTC/kvB", rate / COIN, rate % COIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_keeps_two_decimals() {
        assert_eq!(format_money(0), "0.00");
        assert_eq!(format_money(1), "0.00000001");
        assert_eq!(format_money(150_000_000), "1.50");
        assert_eq!(format_money(2_100_000_000_000_000), "21000000.00");
    }

    #[test]
    fn fees_round_up_and_rates_down() {
        assert_eq!(fee_at(100, 141), 15);
        assert_eq!(fee_at(100, 110), 11);
        assert_eq!(rate_sat_kvb(11, 110), 100);
        assert_eq!(rate_sat_kvb(10, 110), 90);
        assert_eq!(format_rate(1000, 1000), "0.00001000 BTC/kvB");
    }

    #[test]
    fn rates_compare_without_rounding() {
        let big = FeeFrac::new(i64::MAX / 2, i64::MAX / 4);
        let two = FeeFrac::new(2, 1);
        assert_eq!(big.cmp_rate(&two), Ordering::Greater);
        assert_eq!(two.cmp_rate(&FeeFrac::new(4, 2)), Ordering::Equal);
    }
}
