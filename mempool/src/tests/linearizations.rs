//! Orders of clusters against the best order there is.

use std::cmp::Ordering;

use proptest::prelude::*;

use super::{
    flow,
    model::{Model, compare},
};
use crate::{
    cluster::linearize::{ChunkRate, MAX_WORK, bits, chunks, linearize},
    feerate::FeeFrac,
};

/// Up to `most` transactions; small numbers, so that rates are often equal.
fn models(most: usize) -> impl Strategy<Value = Model> {
    (1..=most).prop_flat_map(|count| {
        let rates = prop::collection::vec((0..30_i64, 1..12_i64), count);
        let parents = prop::collection::vec(any::<[u64; 3]>(), count);
        // A parent with a chance of one in two, four, or eight.
        let density = 1..=3_usize;
        (rates, parents, density).prop_map(|(rates, parents, density)| Model {
            rates: rates
                .into_iter()
                .map(|(fee, size)| FeeFrac::new(fee, size))
                .collect(),
            parents: (0..)
                .zip(parents)
                .map(|(i, random)| {
                    let before = (1_u64 << i) - 1;
                    random[..density]
                        .iter()
                        .fold(before, |set, bits| set & bits)
                })
                .collect(),
        })
    })
}

/// Parents that pay little and children that pay for some of them each: what is hard to
/// order well.
fn sponsored(parents: usize, children: usize) -> impl Strategy<Value = Model> {
    let rates = |count, fees| prop::collection::vec((fees, 1..12_i64), count);
    let links = prop::collection::vec(1..1_u64 << parents, children);
    (rates(parents, 0..4_i64), rates(children, 5..60_i64), links).prop_map(
        move |(poor, rich, links)| Model {
            rates: poor
                .into_iter()
                .chain(rich)
                .map(|(fee, size)| FeeFrac::new(fee, size))
                .collect(),
            parents: std::iter::repeat_n(0, parents).chain(links).collect(),
        },
    )
}

fn linearized(model: &Model, base: &[usize]) -> (Vec<usize>, Vec<ChunkRate>) {
    let graph = model.graph();
    let order = linearize(&graph, base, &mut { MAX_WORK });
    let chunks = chunks(&graph, &order);
    (order, chunks)
}

fn identity(model: &Model) -> Vec<usize> {
    (0..model.len()).collect()
}

fn at_least(a: &[ChunkRate], b: &[ChunkRate]) -> bool {
    compare(a, b).is_some_and(Ordering::is_ge)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn orders_respect_dependencies(model in models(20), seed in any::<u64>()) {
        let mut base = identity(&model);
        // Any base will do, also one that ignores dependencies.
        base.sort_by_key(|&i| (i as u64 + 1).wrapping_mul(seed | 1));
        prop_assert!(model.is_order(&linearized(&model, &base).0));
    }

    #[test]
    fn chunks_are_those_of_the_order(model in models(20)) {
        let (order, chunks) = linearized(&model, &identity(&model));
        prop_assert_eq!(&chunks, &model.chunks(&order));
        prop_assert!(chunks.is_sorted_by(|a, b| a.rate.cmp_rate(&b.rate).is_ge()));
    }

    #[test]
    fn orders_are_never_worse_than_the_base(model in models(20)) {
        let base = identity(&model);
        let (_, chunks) = linearized(&model, &base);
        prop_assert!(at_least(&chunks, &model.chunks(&base)));
    }

    #[test]
    fn orders_are_never_worse_than_greedy_ones(
        model in prop_oneof![models(16), sponsored(6, 6), sponsored(10, 8)],
    ) {
        let (_, chunks) = linearized(&model, &identity(&model));
        prop_assert!(at_least(&chunks, &model.greedy()), "{:?} {:?}", chunks, model.greedy());
    }

    #[test]
    fn clusters_are_ordered_best(model in prop_oneof![models(9), sponsored(4, 4)]) {
        let (_, chunks) = linearized(&model, &identity(&model));
        prop_assert_eq!(compare(&chunks, &model.best()), Some(Ordering::Equal));
    }

}

/// One parent each, or one child each.
fn trees(most: usize) -> impl Strategy<Value = Model> {
    (models(most), any::<bool>()).prop_map(|(mut model, upwards)| {
        for set in &mut model.parents {
            *set &= set.wrapping_neg();
        }
        if upwards {
            let mirrored = |i: usize| model.len() - 1 - i;
            let mut parents = vec![0; model.len()];
            for (i, set) in model.parents.iter().enumerate() {
                for parent in bits(*set) {
                    parents[mirrored(parent)] |= 1 << mirrored(i);
                }
            }
            model.parents = parents;
        }
        model
    })
}

/// Full clusters.
fn full() -> impl Strategy<Value = Model> {
    prop_oneof![
        models(64),
        sparse(64),
        sponsored(32, 32),
        sponsored(50, 14),
        sponsored(10, 54),
    ]
}

/// Up to three parents each, as wallets make them.
fn sparse(count: usize) -> impl Strategy<Value = Model> {
    let tx = (
        0..1_000_i64,
        1..400_i64,
        prop::collection::vec(any::<usize>(), 0..4),
    );
    prop::collection::vec(tx, count).prop_map(|txs| Model {
        rates: txs
            .iter()
            .map(|&(fee, size, _)| FeeFrac::new(fee, size))
            .collect(),
        parents: (0..)
            .zip(&txs)
            .map(|(i, (.., parents))| {
                let before = parents.iter().filter_map(|p| p.checked_rem(i));
                before.fold(0, |set, parent| set | 1 << parent)
            })
            .collect(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn trees_are_ordered_best_without_work(model in trees(64)) {
        let graph = model.graph();
        let found = chunks(&graph, &linearize(&graph, &identity(&model), &mut 0));
        prop_assert_eq!(compare(&found, &flow::best(&graph, &model.rates)), Some(Ordering::Equal));
    }

    #[test]
    fn full_clusters_are_ordered_best(model in full()) {
        let graph = model.graph();
        let order = linearize(&graph, &identity(&model), &mut { MAX_WORK });
        prop_assert!(model.is_order(&order));
        let found = chunks(&graph, &order);
        prop_assert_eq!(compare(&found, &flow::best(&graph, &model.rates)), Some(Ordering::Equal));
    }

    #[test]
    fn without_time_orders_are_still_good(model in full(), work in 0..20_000_u32) {
        let graph = model.graph();
        let base = identity(&model);
        let order = linearize(&graph, &base, &mut { work });
        prop_assert!(model.is_order(&order));
        let found = chunks(&graph, &order);
        prop_assert!(at_least(&found, &model.chunks(&base)));
        let best = chunks(&graph, &linearize(&graph, &base, &mut { MAX_WORK }));
        prop_assert!(at_least(&best, &found));
    }
}
