//! Buckets of fee rates: bounds grow by 5 % from 100 to 10,000,000 sat/kvB, as Bitcoin
//! Core's; the last bucket has no bound.

/// Upper bounds of the buckets but the last, in sat/kvB, rising. A rate is in the first
/// bucket whose bound it does not exceed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Buckets {
    bounds: Vec<f64>,
}

impl Buckets {
    pub(super) fn new() -> Self {
        let bounds = std::iter::successors(Some(100.0_f64), |bound| Some(bound * 1.05))
            .take_while(|&bound| bound <= 1e7)
            .collect();
        Self { bounds }
    }

    /// Number of buckets.
    pub(super) fn len(&self) -> usize {
        self.bounds.len() + 1
    }

    /// Index of the bucket of `rate`, in sat/kvB.
    pub(super) fn index(&self, rate: f64) -> usize {
        self.bounds.partition_point(|&bound| bound < rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_as_many_buckets_as_in_bitcoin_core() {
        assert_eq!(Buckets::new().len(), 237);
    }

    #[test]
    fn bound_belongs_to_the_bucket_below() {
        let buckets = Buckets::new();
        assert_eq!(buckets.index(0.0), 0);
        assert_eq!(buckets.index(100.0), 0);
        assert_eq!(buckets.index(100.1), 1);
        assert_eq!(buckets.index(105.1), 2);
    }

    #[test]
    fn any_rate_has_a_bucket() {
        let buckets = Buckets::new();
        assert_eq!(buckets.index(2.1e18), buckets.len() - 1);
    }
}
