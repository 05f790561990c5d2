//! Comparison of fee rate diagrams against a look at every corner.

use proptest::prelude::*;

use super::model::compare;
use crate::{
    cluster::{
        diagram::{compare_chunks, sort},
        linearize::ChunkRate,
    },
    feerate::FeeFrac,
};

fn diagrams(most: i64) -> impl Strategy<Value = Vec<ChunkRate>> {
    prop::collection::vec((0..most, 1..most), 0..6).prop_map(|chunks| {
        let mut chunks: Vec<ChunkRate> = chunks
            .into_iter()
            .map(|(fee, size)| ChunkRate {
                rate: FeeFrac::new(fee, size),
                count: 1,
            })
            .collect();
        sort(&mut chunks);
        chunks
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn comparison_is_that_of_all_corners(a in diagrams(8), b in diagrams(8)) {
        prop_assert_eq!(compare_chunks(&a, &b), compare(&a, &b));
    }

    #[test]
    fn comparison_holds_for_large_numbers(
        a in diagrams(2_000_000_000_000),
        b in diagrams(2_000_000_000_000),
    ) {
        prop_assert_eq!(compare_chunks(&a, &b), compare(&a, &b));
    }

    #[test]
    fn comparison_is_mirrored(a in diagrams(8), b in diagrams(8)) {
        let mirrored = compare_chunks(&b, &a).map(std::cmp::Ordering::reverse);
        prop_assert_eq!(compare_chunks(&a, &b), mirrored);
    }
}
