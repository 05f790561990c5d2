//! Orders of clusters against the best order there is.

use proptest::prelude::*;

use super::model::{Model, compare, fee_at};
use crate::{
    cluster::linearize::{ChunkRate, chunks, linearize},
    feerate::FeeFrac,
};

/// Up to `most` transactions; small numbers, so that rates are often equal.
fn models(most: usize) -> impl Strategy<Value = Model> {
    (1..=most).prop_flat_map(|count| {
        let rates = prop::collection::vec((0..30_i64, 1..12_i64), count);
        let parents = prop::collection::vec((any::<u64>(), any::<u64>()), count);
        (rates, parents, any::<bool>()).prop_map(|(rates, parents, sparse)| Model {
            rates: rates
                .into_iter()
                .map(|(fee, size)| FeeFrac::new(fee, size))
                .collect(),
            parents: (0..)
                .zip(parents)
                .map(|(i, (a, b))| if sparse { a & b } else { a } & ((1_u64 << i) - 1))
                .collect(),
        })
    })
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
    #![proptest_config(ProptestConfig::with_cases(2_000))]

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
    fn orders_are_never_worse_than_greedy_ones(model in models(12)) {
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

/// Not all clusters are ordered best; how far off they are at worst, and how often, must not
/// get worse unnoticed.
#[test]
fn orders_are_close_to_the_best() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};

    let mut runner = TestRunner::deterministic();
    let strategy = models(8);
    let (mut best, mut worst_gap, cases) = (0_u32, 0.0_f64, 5_000);
    for _ in 0..cases {
        let model = strategy.new_tree(&mut runner).unwrap().current();
        let (_, chunks) = linearized(&model, &identity(&model), true);
        let ideal = model.best();
        best += u32::from(at_least(&chunks, &ideal));
        // Greatest share of the fee that is missing at any corner of the best diagram.
        let mut size = 0;
        for chunk in &ideal {
            size += chunk.rate.size;
            let ((fee, over), (most, most_over)) = (fee_at(&chunks, size), fee_at(&ideal, size));
            if most > 0 {
                let share = (fee * most_over) as f64 / (most * over) as f64;
                worst_gap = worst_gap.max(1.0 - share);
            }
        }
    }
    let share = f64::from(best) / f64::from(cases);
    eprintln!("best: {share}, worst gap {worst_gap}");
    assert!(share > 0.9, "{share}");
    assert!(worst_gap < 0.5, "{worst_gap}");
}
