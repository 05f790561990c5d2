//! Orders of clusters against the best order there is.

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use super::model::{Model, compare, fee_at};
use crate::{
    cluster::linearize::{ChunkRate, chunks, linearize},
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

fn linearized(model: &Model, base: &[usize], greedy: bool) -> (Vec<usize>, Vec<ChunkRate>) {
    let graph = model.graph();
    let order = linearize(&graph, base, greedy);
    let chunks = chunks(&graph, &order);
    (order, chunks)
}

fn identity(model: &Model) -> Vec<usize> {
    (0..model.len()).collect()
}

fn at_least(a: &[ChunkRate], b: &[ChunkRate]) -> bool {
    compare(a, b).is_some_and(std::cmp::Ordering::is_ge)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn orders_respect_dependencies(model in models(20), seed in any::<u64>()) {
        let mut base = identity(&model);
        // Any base will do, also one that ignores dependencies.
        base.sort_by_key(|&i| (i as u64 + 1).wrapping_mul(seed | 1));
        for greedy in [false, true] {
            prop_assert!(model.is_order(&linearized(&model, &base, greedy).0));
        }
    }

    #[test]
    fn chunks_are_those_of_the_order(model in models(20)) {
        let (order, chunks) = linearized(&model, &identity(&model), true);
        prop_assert_eq!(&chunks, &model.chunks(&order));
        prop_assert!(chunks.is_sorted_by(|a, b| a.rate.cmp_rate(&b.rate).is_ge()));
    }

    #[test]
    fn orders_are_never_worse_than_the_base(model in models(20)) {
        let base = identity(&model);
        for greedy in [false, true] {
            let (_, chunks) = linearized(&model, &base, greedy);
            prop_assert!(at_least(&chunks, &model.chunks(&base)));
        }
    }

    #[test]
    fn orders_are_never_worse_than_greedy_ones(
        model in prop_oneof![models(16), sponsored(6, 6), sponsored(10, 8)],
    ) {
        let (_, chunks) = linearized(&model, &identity(&model), true);
        prop_assert!(at_least(&chunks, &model.greedy()), "{:?} {:?}", chunks, model.greedy());
    }

    #[test]
    fn no_order_beats_the_best(model in models(8)) {
        let (_, chunks) = linearized(&model, &identity(&model), true);
        prop_assert!(at_least(&model.best(), &chunks));
    }

    #[test]
    fn trees_are_ordered_best(model in models(8), upwards in any::<bool>()) {
        // One parent each, or one child each.
        let mut model = model;
        for i in 0..model.len() {
            model.parents[i] &= model.parents[i].wrapping_neg();
        }
        if upwards {
            let mut parents = vec![0; model.len()];
            for (i, set) in model.parents.iter().enumerate() {
                if *set != 0 {
                    let (child, parent) = (set.trailing_zeros() as usize, i);
                    parents[model.len() - 1 - child] |= 1 << (model.len() - 1 - parent);
                }
            }
            model.parents = parents;
        }
        let (_, chunks) = linearized(&model, &identity(&model), true);
        prop_assert!(at_least(&chunks, &model.best()), "{:?} {:?}", chunks, model.best());
    }
}

/// Share of `cases` models that are ordered best, and the greatest share of the fee that is
/// missing at a corner of the best diagram.
fn optimality(strategy: &impl Strategy<Value = Model>, cases: u32) -> (f64, f64) {
    let mut runner = TestRunner::deterministic();
    let (mut best, mut gap) = (0, 0.0_f64);
    for _ in 0..cases {
        let model = strategy.new_tree(&mut runner).unwrap().current();
        let (_, chunks) = linearized(&model, &identity(&model), true);
        let ideal = model.best();
        best += u32::from(at_least(&chunks, &ideal));
        let mut size = 0;
        for chunk in &ideal {
            size += chunk.rate.size;
            let ((fee, over), (most, most_over)) = (fee_at(&chunks, size), fee_at(&ideal, size));
            if most > 0 {
                let share = (fee * most_over) as f64 / (most * over) as f64;
                gap = gap.max(1.0 - share);
            }
        }
    }
    (f64::from(best) / f64::from(cases), gap)
}

/// Not all clusters are ordered best. How often, and how far off they are at worst, must not
/// get worse unnoticed.
#[test]
fn orders_are_close_to_the_best() {
    let (best, gap) = optimality(&models(10), 3_000);
    assert!(best > 0.999 && gap < 0.02, "any: {best} {gap}");
    let (best, gap) = optimality(&sponsored(5, 5), 3_000);
    assert!(best > 0.995 && gap < 0.06, "sponsored: {best} {gap}");
}
