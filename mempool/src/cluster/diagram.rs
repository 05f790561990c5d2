//! Comparing fee rate diagrams: which of two sets of chunks earns more at every size.

use std::cmp::Ordering;

use super::linearize::ChunkRate;
use crate::feerate::FeeFrac;

/// Compares the diagrams of two lists of chunks, each sorted by falling rate. A diagram
/// goes on level behind its end. `None` if each is better somewhere.
pub(crate) fn compare_chunks(a: &[ChunkRate], b: &[ChunkRate]) -> Option<Ordering> {
    let lists = [a, b];
    let mut next = [0; 2];
    let mut sums = [FeeFrac::default(); 2];
    let mut better = [false; 2];
    loop {
        let done = [next[0] == a.len(), next[1] == b.len()];
        if done == [true, true] {
            break;
        }
        let point = |side: usize| lists[side][next[side]].rate + sums[side];
        // The side whose next corner comes first is held against the other's line there.
        let side = if done[0] || done[1] {
            usize::from(done[0])
        } else {
            usize::from(point(0).size > point(1).size)
        };
        let other = 1 - side;
        let corner = point(side);
        let slope = corner - sums[other];
        let line = if done[other] {
            FeeFrac::new(0, 1)
        } else {
            lists[other][next[other]].rate
        };
        let order = slope.cmp_rate(&line);
        if !done[other] && point(other).size == corner.size {
            sums[other] = point(other);
            next[other] += 1;
        }
        match order {
            Ordering::Greater => better[side] = true,
            Ordering::Less => better[other] = true,
            Ordering::Equal => {}
        }
        sums[side] = corner;
        next[side] += 1;
    }
    match better {
        [true, true] => None,
        [true, false] => Some(Ordering::Greater),
        [false, true] => Some(Ordering::Less),
        [false, false] => Some(Ordering::Equal),
    }
}

/// Sorts chunks of several clusters by falling rate: the diagram of all together.
pub(crate) fn sort(chunks: &mut [ChunkRate]) {
    chunks.sort_by(|a, b| b.rate.cmp_rate(&a.rate));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(chunks: &[(i64, i64)]) -> Vec<ChunkRate> {
        let chunk = |&(fee, size)| ChunkRate {
            rate: FeeFrac::new(fee, size),
            count: 1,
        };
        chunks.iter().map(chunk).collect()
    }

    #[test]
    fn more_fee_for_the_same_size_is_better() {
        let (a, b) = (list(&[(10, 5)]), list(&[(9, 5)]));
        assert_eq!(compare_chunks(&a, &b), Some(Ordering::Greater));
        assert_eq!(compare_chunks(&b, &a), Some(Ordering::Less));
        assert_eq!(compare_chunks(&a, &a), Some(Ordering::Equal));
    }

    #[test]
    fn the_same_fee_for_less_size_is_better() {
        let (a, b) = (list(&[(10, 4)]), list(&[(10, 5)]));
        assert_eq!(compare_chunks(&a, &b), Some(Ordering::Greater));
    }

    #[test]
    fn diagrams_that_cross_do_not_compare() {
        let (a, b) = (list(&[(10, 5)]), list(&[(11, 100)]));
        assert_eq!(compare_chunks(&a, &b), None);
    }

    #[test]
    fn an_empty_diagram_is_worse_than_any_fee() {
        assert_eq!(
            compare_chunks(&list(&[(1, 1)]), &[]),
            Some(Ordering::Greater)
        );
        assert_eq!(compare_chunks(&list(&[(0, 1)]), &[]), Some(Ordering::Equal));
    }
}
