//! Size of the mempool and its fee histogram, in Esplora's bins.
//!
//! Rates here are those of single transactions, fee / (weight / 4) without rounding, not
//! of chunks: clients of Esplora and Electrum expect that.

use pulse_primitives::mempool::Backlog;

use crate::Mempool;

/// A bin is closed once it holds more than this, in vB.
const BIN_VSIZE: u64 = 50_000;

impl Mempool {
    /// Its size and its fee histogram.
    #[must_use]
    pub fn backlog(&self) -> Backlog {
        let txs = self.iter().map(|entry| (entry.fee.to_sat(), entry.weight));
        backlog(txs, self.usage_bytes())
    }
}

/// Sums up a mempool. `txs` are `(fee in sat, weight in weight units)` in any order;
/// `memory_bytes` is what the mempool takes.
pub fn backlog(txs: impl IntoIterator<Item = (u64, u64)>, memory_bytes: u64) -> Backlog {
    let mut total_fee_sat = 0;
    let mut rated: Vec<(f64, u64)> = txs
        .into_iter()
        .map(|(fee_sat, weight)| {
            total_fee_sat += fee_sat;
            (
                fee_sat as f64 / (weight.max(1) as f64 / 4.0),
                weight.div_ceil(4),
            )
        })
        .collect();
    Backlog {
        count: rated.len() as u64,
        vsize: rated.iter().map(|&(_, vsize)| vsize).sum(),
        total_fee_sat,
        memory_bytes,
        histogram: histogram(&mut rated),
    }
}

/// `(lowest fee rate in sat/vB, vsize in vB)` of each bin, by falling rate, from `(fee
/// rate, vsize)` of each transaction. A bin ends when it holds more than [`BIN_VSIZE`] and
/// the next transaction has another rate, so no rate is in two bins.
fn histogram(rated: &mut [(f64, u64)]) -> Vec<(f64, u64)> {
    rated.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let mut bins = Vec::new();
    let mut open: Option<(f64, u64)> = None;
    for &(rate, vsize) in rated.iter() {
        let filled = match open {
            Some(bin) if bin.1 > BIN_VSIZE && bin.0 != rate => {
                bins.push(bin);
                0
            }
            Some((_, filled)) => filled,
            None => 0,
        };
        open = Some((rate, filled + vsize));
    }
    bins.extend(open);
    bins
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A transaction of `vsize` vB that pays `rate` sat/vB.
    fn tx(rate: u64, vsize: u64) -> (u64, u64) {
        (rate * vsize, vsize * 4)
    }

    #[test]
    fn empty_mempool_has_no_bins() {
        assert_eq!(
            backlog([], 7),
            Backlog {
                memory_bytes: 7,
                ..Backlog::default()
            }
        );
    }

    #[test]
    fn totals_sum_all_transactions() {
        let all = backlog([(10, 561), (20, 400)], 0);
        assert_eq!(
            (all.count, all.vsize, all.total_fee_sat),
            (2, 141 + 100, 30)
        );
    }

    #[test]
    fn bin_stays_open_at_exactly_fifty_thousand() {
        let all = backlog([tx(9, 50_000), tx(8, 100), tx(7, 100)], 0);
        assert_eq!(all.histogram, [(8.0, 50_100), (7.0, 100)]);
    }

    #[test]
    fn bin_is_labelled_with_its_lowest_rate() {
        let all = backlog([tx(3, 10), tx(50, 50_001), tx(20, 1), tx(10, 60_000)], 0);
        assert_eq!(all.histogram, [(50.0, 50_001), (10.0, 60_001), (3.0, 10)]);
    }

    #[test]
    fn equal_rates_share_a_bin_of_any_size() {
        let all = backlog([tx(5, 40_000), tx(5, 40_000), tx(5, 40_000), tx(1, 1)], 0);
        assert_eq!(all.histogram, [(5.0, 120_000), (1.0, 1)]);
    }

    #[test]
    fn rate_is_by_weight_and_size_rounded_up() {
        // 561 WU are 140.25 vB, which count as 141.
        assert_eq!(backlog([(561, 561)], 0).histogram, [(4.0, 141)]);
    }

    #[test]
    fn free_transactions_are_binned() {
        assert_eq!(backlog([(0, 400), (0, 400)], 0).histogram, [(0.0, 200)]);
    }
}
