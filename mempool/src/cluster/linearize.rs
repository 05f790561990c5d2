//! The order in which a cluster would be mined, and its chunks. Pure, over bit sets of up
//! to 64 transactions.

use std::cmp::Ordering;

use super::forest::Forest;
use crate::feerate::FeeFrac;

/// A set of transactions of a graph, one bit each.
pub(crate) type Set = u64;

/// The bits of a set, rising.
pub(crate) fn bits(mut set: Set) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (set != 0).then(|| {
            let bit = set.trailing_zeros();
            set &= set - 1;
            bit as usize
        })
    })
}

/// Up to 64 transactions and which depend on which.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    rates: Vec<FeeFrac>,
    /// Of each transaction, with itself.
    ancestors: Vec<Set>,
    descendants: Vec<Set>,
}

impl Graph {
    /// From the fee and size of each transaction and the set of those that it depends on,
    /// directly at least.
    pub fn new(rates: Vec<FeeFrac>, parents: &[Set]) -> Self {
        let mut ancestors: Vec<Set> = (0..rates.len()).map(|i| parents[i] | 1 << i).collect();
        loop {
            let mut changed = false;
            for i in 0..ancestors.len() {
                let all = bits(ancestors[i]).fold(0, |all, j| all | ancestors[j]);
                changed |= all != ancestors[i];
                ancestors[i] = all;
            }
            if !changed {
                break;
            }
        }
        let mut descendants = vec![0; rates.len()];
        for (i, set) in ancestors.iter().enumerate() {
            for j in bits(*set) {
                descendants[j] |= 1 << i;
            }
        }
        Self {
            rates,
            ancestors,
            descendants,
        }
    }

    pub fn ancestors(&self, i: usize) -> Set {
        self.ancestors[i]
    }

    pub fn rate_of(&self, i: usize) -> FeeFrac {
        self.rates[i]
    }

    fn rate(&self, set: Set) -> FeeFrac {
        bits(set).fold(FeeFrac::default(), |sum, i| sum + self.rates[i])
    }
}

/// Consecutive transactions of an order that are mined together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkRate {
    /// Fee and size of all.
    pub rate: FeeFrac,
    /// How many.
    pub count: usize,
}

/// The work that may go into finding the best orders of all clusters that one change
/// touches, in visits of transactions and dependencies: about a millisecond. Ordinary full
/// clusters take some hundred, the worst known 50,000.
pub(crate) const MAX_WORK: u32 = 100_000;

/// The best order of the graph. `base` is an order already known, which need not respect the
/// dependencies. `work` is what may be spent; what is left of it remains. If that does not
/// suffice, a good order: never worse than `base`, nor than taking the best set of ancestors
/// again and again; with nothing to spend, never worse than `base`.
pub(crate) fn linearize(graph: &Graph, base: &[usize], work: &mut u32) -> Vec<usize> {
    let mut known = topological(graph, base);
    if known.len() < 2 {
        return known;
    }
    post_linearize(graph, &mut known);
    // Up to two transactions every connected order is the best one.
    if known.len() == 2 || *work == 0 {
        return known;
    }
    let mut forest = Forest::new(graph, &known, *work);
    let is_best = forest.improve();
    *work = forest.work_left();
    let mut found = forest.order(&known);
    if is_best {
        return found;
    }
    post_linearize(graph, &mut found);
    let mut fresh = by_ancestor_sets(graph);
    post_linearize(graph, &mut fresh);
    let (found_chunks, fresh_chunks) = (chunks(graph, &found), chunks(graph, &fresh));
    match super::diagram::compare_chunks(&fresh_chunks, &found_chunks) {
        Some(Ordering::Greater) => fresh,
        Some(_) => found,
        None => {
            let mut merged = merge(graph, found, fresh);
            post_linearize(graph, &mut merged);
            merged
        }
    }
}

/// An order at least as good as both (Bitcoin Core's `MergeLinearizations`): again and
/// again the better first chunk of what remains of the two, or what it shares with the
/// first chunks of the other if that is better still.
fn merge(graph: &Graph, a: Vec<usize>, b: Vec<usize>) -> Vec<usize> {
    let mut orders = [a, b];
    let mut merged = Vec::with_capacity(orders[0].len());
    while !orders[0].is_empty() {
        let [first, second] = [0, 1].map(|n| chunks(graph, &orders[n])[0]);
        let better = usize::from(second.rate.cmp_rate(&first.rate).is_gt());
        let chunk = [first, second][better];
        let set = orders[better][..chunk.count]
            .iter()
            .fold(0, |set, i| set | 1 << i);
        let taken = shared_part(graph, set, chunk.rate, &orders[1 - better]);
        merged.extend(orders[better].iter().filter(|&&i| taken & (1 << i) != 0));
        for order in &mut orders {
            order.retain(|&i| taken & (1 << i) == 0);
        }
    }
    merged
}

/// What `set`, whose rate is `rate`, shares with the first chunks of `order`, with as few of
/// them as make a better rate; `set` itself if none do.
fn shared_part(graph: &Graph, set: Set, rate: FeeFrac, order: &[usize]) -> Set {
    let mut shared: Set = 0;
    let mut at = 0;
    for chunk in chunks(graph, order) {
        let members = &order[at..at + chunk.count];
        at += chunk.count;
        shared |= members.iter().fold(0, |all, i| all | 1 << i) & set;
        if shared != 0 && graph.rate(shared).cmp_rate(&rate).is_gt() {
            return shared;
        }
    }
    set
}

/// `base`, with each transaction moved behind what it depends on.
fn topological(graph: &Graph, base: &[usize]) -> Vec<usize> {
    let mut order = Vec::with_capacity(base.len());
    let mut placed: Set = 0;
    let mut waiting = base.to_vec();
    while !waiting.is_empty() {
        waiting.retain(|&i| {
            let ready = graph.ancestors[i] & !placed == 1 << i;
            if ready {
                placed |= 1 << i;
                order.push(i);
            }
            !ready
        });
    }
    order
}

/// Repeatedly takes the transaction whose remaining ancestors, itself included, have the
/// best fee rate, with these ancestors.
fn by_ancestor_sets(graph: &Graph) -> Vec<usize> {
    let count = graph.rates.len();
    let mut remaining: Set = if count == 64 {
        Set::MAX
    } else {
        (1 << count) - 1
    };
    let mut sums: Vec<FeeFrac> = (0..count).map(|i| graph.rate(graph.ancestors[i])).collect();
    let mut order = Vec::with_capacity(count);
    while remaining != 0 {
        let mut best = remaining.trailing_zeros() as usize;
        for i in bits(remaining) {
            if sums[i].cmp_rate(&sums[best]).is_gt() {
                best = i;
            }
        }
        let taken = graph.ancestors[best] & remaining;
        remaining &= !taken;
        let mut group: Vec<usize> = bits(taken).collect();
        group.sort_by_key(|&i| graph.ancestors[i].count_ones());
        order.extend(group);
        for i in bits(remaining) {
            let gone = graph.ancestors[i] & taken;
            if gone != 0 {
                sums[i] -= graph.rate(gone);
            }
        }
    }
    order
}

/// Transactions that move together while an order is improved.
struct Group {
    order: Vec<usize>,
    set: Set,
    /// What the group cannot be moved across.
    bound: Set,
    rate: FeeFrac,
}

/// Makes an order at least as good, with connected chunks: best possible where each
/// transaction has at most one parent, or each at most one child. Two passes, from the back
/// and from the front: each lets a group with a better rate pass the one before it, or
/// joins the two if it depends on that one.
pub(crate) fn post_linearize(graph: &Graph, order: &mut Vec<usize>) {
    for backwards in [true, false] {
        let mut groups: Vec<Group> = Vec::with_capacity(order.len());
        if backwards {
            order.reverse();
        }
        for &i in order.iter() {
            let mut rate = graph.rates[i];
            let bound = if backwards {
                rate.fee = -rate.fee;
                graph.descendants[i]
            } else {
                graph.ancestors[i]
            };
            let mut group = Group {
                order: vec![i],
                set: 1 << i,
                bound,
                rate,
            };
            let mut at = groups.len();
            while at > 0 && group.rate.cmp_rate(&groups[at - 1].rate).is_gt() {
                at -= 1;
                if group.bound & groups[at].set != 0 {
                    let mut before = groups.remove(at);
                    before.order.append(&mut group.order);
                    before.set |= group.set;
                    before.bound |= group.bound;
                    before.rate += group.rate;
                    group = before;
                }
            }
            groups.insert(at, group);
        }
        order.clear();
        order.extend(groups.iter().flat_map(|group| &group.order));
        if backwards {
            order.reverse();
        }
    }
}

/// The chunks of an order: each the prefix of what remains with the best fee rate.
pub(crate) fn chunks(graph: &Graph, order: &[usize]) -> Vec<ChunkRate> {
    let mut chunks: Vec<ChunkRate> = Vec::with_capacity(order.len());
    for &i in order {
        let mut chunk = ChunkRate {
            rate: graph.rates[i],
            count: 1,
        };
        while let Some(before) = chunks.pop_if(|c| chunk.rate.cmp_rate(&c.rate).is_gt()) {
            chunk.rate += before.rate;
            chunk.count += before.count;
        }
        chunks.push(chunk);
    }
    chunks
}
