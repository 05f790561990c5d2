//! Properties of orders and chunks, over random graphs.

use std::cmp::Ordering;

use proptest::prelude::*;

use super::{
    diagram::{compare_chunks, sort},
    linearize::{ChunkRate, Graph, Set, bits, chunks, linearize, post_linearize},
};
use crate::feerate::FeeFrac;

#[derive(Debug, Clone)]
struct Dag {
    rates: Vec<FeeFrac>,
    parents: Vec<Set>,
}

impl Dag {
    fn graph(&self) -> Graph {
        Graph::new(self.rates.clone(), &self.parents)
    }
}

/// Graphs of up to `most`, with up to `parents` parents each.
fn dag(most: usize, parents: usize) -> impl Strategy<Value = Dag> {
    let node = (
        0..1_000i64,
        1..500i64,
        prop::collection::vec(any::<usize>(), 0..=parents),
    );
    prop::collection::vec(node, 1..=most).prop_map(|nodes| {
        let rates = nodes.iter().map(|&(fee, size, _)| FeeFrac::new(fee, size));
        let parents = nodes.iter().enumerate().map(|(i, (_, _, parents))| {
            let chosen = parents.iter().filter(|_| i > 0).map(|p| p % i);
            chosen.fold(0, |set: Set, p| set | 1 << p)
        });
        Dag {
            rates: rates.collect(),
            parents: parents.collect(),
        }
    })
}

fn assert_topological(graph: &Graph, order: &[usize], count: usize) {
    let mut placed: Set = 0;
    for &i in order {
        assert_eq!(placed & 1 << i, 0);
        placed |= 1 << i;
        assert_eq!(graph.ancestors(i) & !placed, 0);
    }
    assert_eq!(order.len(), count);
}

/// The best diagram: repeatedly the closed set with the best rate, of all there are.
fn optimal(dag: &Dag) -> Vec<ChunkRate> {
    let graph = dag.graph();
    let mut left: Set = (1 << dag.rates.len()) - 1;
    let mut best_chunks = Vec::new();
    while left != 0 {
        let mut best: Option<(FeeFrac, Set)> = None;
        // Subsets of `left` that hold their ancestors.
        let mut set = left;
        while set != 0 {
            let closed = bits(set).all(|i| graph.ancestors(i) & left & !set == 0);
            if closed {
                let rate = bits(set).fold(FeeFrac::default(), |sum, i| sum + dag.rates[i]);
                if best.is_none_or(|(other, _)| rate.cmp_rate(&other).is_gt()) {
                    best = Some((rate, set));
                }
            }
            set = (set - 1) & left;
        }
        let (rate, set) = best.unwrap();
        best_chunks.push(ChunkRate {
            rate,
            count: set.count_ones() as usize,
        });
        left &= !set;
    }
    best_chunks
}

proptest! {
    #[test]
    fn orders_are_topological_and_chunks_fall(dag in dag(64, 4)) {
        let graph = dag.graph();
        let base: Vec<usize> = (0..dag.rates.len()).rev().collect();
        let order = linearize(&graph, &base);
        assert_topological(&graph, &order, dag.rates.len());
        let all = chunks(&graph, &order);
        for pair in all.windows(2) {
            prop_assert!(pair[0].rate.cmp_rate(&pair[1].rate).is_ge());
        }
        let count: usize = all.iter().map(|chunk| chunk.count).sum();
        prop_assert_eq!(count, dag.rates.len());
    }

    #[test]
    fn an_order_never_becomes_worse(dag in dag(32, 3)) {
        let graph = dag.graph();
        let base: Vec<usize> = (0..dag.rates.len()).collect();
        let before = chunks(&graph, &base);
        let after = chunks(&graph, &linearize(&graph, &base));
        let order = compare_chunks(&after, &before);
        prop_assert!(matches!(order, Some(Ordering::Greater | Ordering::Equal)));
    }

    #[test]
    fn with_one_parent_each_the_order_is_the_best(dag in dag(11, 1)) {
        let graph = dag.graph();
        let mut order: Vec<usize> = (0..dag.rates.len()).collect();
        post_linearize(&graph, &mut order);
        let found = chunks(&graph, &order);
        prop_assert_eq!(compare_chunks(&found, &optimal(&dag)), Some(Ordering::Equal));
    }

    #[test]
    fn no_order_is_better_than_the_best(dag in dag(10, 3)) {
        let graph = dag.graph();
        let base: Vec<usize> = (0..dag.rates.len()).collect();
        let found = chunks(&graph, &linearize(&graph, &base));
        let order = compare_chunks(&found, &optimal(&dag));
        prop_assert!(matches!(order, Some(Ordering::Less | Ordering::Equal)));
    }

    #[test]
    fn comparing_is_antisymmetric(a in rates(), b in rates()) {
        let forth = compare_chunks(&a, &b);
        prop_assert_eq!(forth.map(Ordering::reverse), compare_chunks(&b, &a));
        prop_assert_eq!(compare_chunks(&a, &a), Some(Ordering::Equal));
    }
}

fn rates() -> impl Strategy<Value = Vec<ChunkRate>> {
    let rate = (0..50i64, 1..20i64).prop_map(|(fee, size)| ChunkRate {
        rate: FeeFrac::new(fee, size),
        count: 1,
    });
    prop::collection::vec(rate, 0..6).prop_map(|mut all| {
        sort(&mut all);
        all
    })
}
