//! Slow and simple: what clusters of a few transactions are worth, found by trying all.

use std::cmp::Ordering;

use crate::{
    cluster::linearize::{ChunkRate, Graph, Set, bits},
    feerate::FeeFrac,
};

/// Transactions and their direct parents, all before them.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub rates: Vec<FeeFrac>,
    pub parents: Vec<Set>,
}

impl Model {
    pub fn graph(&self) -> Graph {
        Graph::new(self.rates.clone(), &self.parents)
    }

    pub fn len(&self) -> usize {
        self.rates.len()
    }

    pub fn sum(&self, set: Set) -> FeeFrac {
        bits(set).fold(FeeFrac::default(), |sum, i| sum + self.rates[i])
    }

    /// Ancestors of `i`, itself included.
    pub fn ancestors(&self, i: usize) -> Set {
        bits(self.parents[i]).fold(1 << i, |all, parent| all | self.ancestors(parent))
    }

    /// Whether `order` has each transaction once, behind its parents.
    pub fn is_order(&self, order: &[usize]) -> bool {
        let mut placed: Set = 0;
        let valid = order.iter().all(|&i| {
            let ready = self.parents[i] & !placed == 0 && placed & (1 << i) == 0;
            placed |= 1 << i;
            ready
        });
        valid && order.len() == self.len()
    }

    /// Chunks of the best order there is: again and again, of all sets that hold the
    /// ancestors of their members, the one with the best rate (the smallest of these).
    pub fn best(&self) -> Vec<ChunkRate> {
        let all: Set = (1 << self.len()) - 1;
        let mut taken: Set = 0;
        let mut chunks = Vec::new();
        while taken != all {
            let mut best: Option<(Set, FeeFrac)> = None;
            let left = all & !taken;
            // Every subset of what is left.
            let mut set = left;
            while set != 0 {
                let closed = bits(set).all(|i| self.parents[i] & !(set | taken) == 0);
                if closed {
                    let rate = self.sum(set);
                    let better = best.is_none_or(|(_, so_far)| {
                        rate.cmp_rate(&so_far)
                            .then(so_far.size.cmp(&rate.size))
                            .is_gt()
                    });
                    if better {
                        best = Some((set, rate));
                    }
                }
                set = (set - 1) & left;
            }
            let (set, rate) = best.unwrap();
            taken |= set;
            chunks.push(ChunkRate {
                rate,
                count: set.count_ones() as usize,
            });
        }
        chunks
    }

    /// Chunks of the order that takes the best set of ancestors again and again.
    pub fn greedy(&self) -> Vec<ChunkRate> {
        let mut taken: Set = 0;
        let mut order = Vec::new();
        while order.len() < self.len() {
            let best = (0..self.len())
                .filter(|i| taken & (1 << i) == 0)
                .map(|i| self.ancestors(i) & !taken)
                .reduce(|a, b| {
                    if self.sum(b).cmp_rate(&self.sum(a)).is_gt() {
                        b
                    } else {
                        a
                    }
                })
                .unwrap();
            // Parents are before their children in the model.
            order.extend(bits(best));
            taken |= best;
        }
        self.chunks(&order)
    }

    /// Chunks of an order.
    pub fn chunks(&self, order: &[usize]) -> Vec<ChunkRate> {
        let mut chunks: Vec<ChunkRate> = Vec::new();
        for &i in order {
            chunks.push(ChunkRate {
                rate: self.rates[i],
                count: 1,
            });
            while let [.., a, b] = chunks[..] {
                if !b.rate.cmp_rate(&a.rate).is_gt() {
                    break;
                }
                chunks.truncate(chunks.len() - 2);
                chunks.push(ChunkRate {
                    rate: a.rate + b.rate,
                    count: a.count + b.count,
                });
            }
        }
        chunks
    }
}

/// Fee at `size` of the diagram of `chunks`, as a fraction.
pub fn fee_at(chunks: &[ChunkRate], size: i64) -> (i128, i128) {
    let mut sum = FeeFrac::default();
    for chunk in chunks {
        if sum.size + chunk.rate.size >= size {
            // On this chunk's line.
            let (fee, over) = (i128::from(chunk.rate.fee), i128::from(chunk.rate.size));
            return (
                i128::from(sum.fee) * over + fee * i128::from(size - sum.size),
                over,
            );
        }
        sum += chunk.rate;
    }
    (sum.fee.into(), 1)
}

/// Compares two diagrams at every corner of either.
pub fn compare(a: &[ChunkRate], b: &[ChunkRate]) -> Option<Ordering> {
    let corners = |chunks: &[ChunkRate]| -> Vec<i64> {
        chunks
            .iter()
            .scan(0, |size, chunk| {
                *size += chunk.rate.size;
                Some(*size)
            })
            .collect()
    };
    let (mut better, mut worse) = (false, false);
    for size in [corners(a), corners(b)].concat() {
        let ((a_fee, a_over), (b_fee, b_over)) = (fee_at(a, size), fee_at(b, size));
        match (a_fee * b_over).cmp(&(b_fee * a_over)) {
            Ordering::Greater => better = true,
            Ordering::Less => worse = true,
            Ordering::Equal => {}
        }
    }
    match (better, worse) {
        (true, true) => None,
        (true, false) => Some(Ordering::Greater),
        (false, true) => Some(Ordering::Less),
        (false, false) => Some(Ordering::Equal),
    }
}
