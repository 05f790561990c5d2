//! The best diagram of clusters of any size, by another way than the one under test: the set
//! with the best rate is a largest closure, found as a least cut (Picard 1976), for rates
//! that rise to the best (Dinkelbach 1967).

use std::collections::VecDeque;

use crate::{
    cluster::linearize::{ChunkRate, Graph, Set, bits},
    feerate::FeeFrac,
};

fn sum(rates: &[FeeFrac], set: Set) -> FeeFrac {
    bits(set).fold(FeeFrac::default(), |sum, i| sum + rates[i])
}

/// Chunks of the best order.
pub fn best(graph: &Graph, rates: &[FeeFrac]) -> Vec<ChunkRate> {
    let mut left = (0..rates.len()).fold(0, |set: Set, i| set | 1 << i);
    let mut chunks = Vec::new();
    while left != 0 {
        let mut set = left;
        loop {
            let better = closure(graph, rates, left, sum(rates, set));
            if better == 0 {
                break;
            }
            set = better;
        }
        chunks.push(ChunkRate {
            rate: sum(rates, set),
            count: set.count_ones() as usize,
        });
        left &= !set;
    }
    chunks
}

/// The set of `left`, with all its ancestors there, that earns most above `rate`; empty if
/// none earns more.
fn closure(graph: &Graph, rates: &[FeeFrac], left: Set, rate: FeeFrac) -> Set {
    let count = rates.len();
    let (source, sink) = (count, count + 1);
    let mut room = vec![vec![0_i128; count + 2]; count + 2];
    for i in bits(left) {
        let earns = i128::from(rates[i].fee) * i128::from(rate.size)
            - i128::from(rate.fee) * i128::from(rates[i].size);
        room[source][i] = earns.max(0);
        room[i][sink] = (-earns).max(0);
        for parent in bits(graph.ancestors(i) & left & !(1 << i)) {
            room[i][parent] = i128::MAX / 4;
        }
    }
    loop {
        let mut from = vec![None; count + 2];
        let mut queue = VecDeque::from([source]);
        from[source] = Some(source);
        while let Some(at) = queue.pop_front() {
            for to in 0..count + 2 {
                if from[to].is_none() && room[at][to] > 0 {
                    from[to] = Some(at);
                    queue.push_back(to);
                }
            }
        }
        if from[sink].is_none() {
            return bits(left)
                .filter(|&i| from[i].is_some())
                .fold(0, |set, i| set | 1 << i);
        }
        let mut path = vec![sink];
        while path[path.len() - 1] != source {
            path.push(from[path[path.len() - 1]].unwrap());
        }
        let steps = || path.windows(2).map(|step| (step[1], step[0]));
        let flow = steps().map(|(a, b)| room[a][b]).min().unwrap();
        for (a, b) in steps() {
            room[a][b] -= flow;
            room[b][a] += flow;
        }
    }
}
