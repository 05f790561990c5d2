//! The best order of a cluster: spanning-forest linearisation.
//!
//! The cluster is cut into chunks, each held together by a tree of *active* dependencies.
//! Taking one of these away parts its chunk in two: the *top*, with the parent, and the
//! rest, with the child. If the top has a better rate than the whole, the two are parted.
//! What lies between chunks then is mended: a chunk that depends on another with a lower
//! rate joins with it, the lowest first upwards, the highest first downwards. When no
//! dependency is worth taking away the chunks are those of the best diagram there is.
//!
//! ```text
//! known order -> chunks -> { part, mend } until none is worth it or the work is used up
//! ```
//!
//! It is the simplex method, applied to the choice of the set with the best rate. Described
//! by P. Wuille in "Spanning-forest cluster linearization" (delvingbitcoin.org, 2025); Bitcoin
//! Core uses it since version 31.
//!
//! # Correctness
//! Between two steps no chunk depends on one with a lower rate, so chunks by falling rate
//! are an order, and no step makes its diagram worse: it may be stopped after any.
//!
//! # Limits
//! No bound on the number of steps is proven. Choices between equals are made at random (the
//! same each time for the same cluster), so that it does not go round in circles, and the
//! work has a limit.

use std::collections::VecDeque;

use super::linearize::{Graph, Set, bits};
use crate::{feerate::FeeFrac, policy::MAX_CLUSTER_TXS};

/// Transactions with their common rate.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    set: Set,
    rate: FeeFrac,
}

impl Part {
    fn has(&self, i: usize) -> bool {
        self.set & 1 << i != 0
    }

    fn join(&mut self, other: Self) {
        self.set |= other.set;
        self.rate += other.rate;
    }

    fn leave(&mut self, other: Self) {
        self.set &= !other.set;
        self.rate -= other.rate;
    }
}

/// An active dependency.
#[derive(Debug, Clone, Copy)]
struct Link {
    parent: usize,
    child: usize,
    /// What of its chunk stays with the parent if it is taken away.
    top: Part,
}

/// A chunk.
#[derive(Debug, Default)]
struct Tree {
    all: Part,
    /// One less than transactions.
    links: Vec<Link>,
    /// Outside of it: what its transactions depend on directly, and what on them.
    parents: Set,
    children: Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

/// The state: chunks, and which transaction is in which.
#[derive(Debug)]
pub(super) struct Forest {
    /// Direct dependencies that do not follow from others.
    parents: [Set; MAX_CLUSTER_TXS],
    children: [Set; MAX_CLUSTER_TXS],
    /// Empty places are those of chunks that have joined another.
    trees: Vec<Tree>,
    tree_of: [usize; MAX_CLUSTER_TXS],
    /// Chunks that may be worth parting.
    open: VecDeque<usize>,
    random: u64,
    /// Visits of transactions and dependencies that are left.
    work: u32,
}

impl Forest {
    /// Chunks at least as good as those of `order`, which respects the dependencies.
    pub fn new(graph: &Graph, order: &[usize], work: u32) -> Self {
        let mut parents = [0; MAX_CLUSTER_TXS];
        let mut children = [0; MAX_CLUSTER_TXS];
        for &i in order {
            let mut direct = graph.ancestors(i) & !(1 << i);
            let mut unseen = direct;
            while unseen != 0 {
                let j = unseen.trailing_zeros() as usize;
                direct &= !graph.ancestors(j) | 1 << j;
                unseen &= !graph.ancestors(j);
            }
            parents[i] = direct;
            bits(direct).for_each(|j| children[j] |= 1 << i);
        }
        let mut forest = Self {
            parents,
            children,
            trees: Vec::with_capacity(order.len()),
            tree_of: [0; MAX_CLUSTER_TXS],
            open: VecDeque::with_capacity(order.len()),
            random: 0x9e37_79b9_7f4a_7c15,
            work,
        };
        for (i, &direct) in parents.iter().enumerate().take(order.len()) {
            forest.tree_of[i] = i;
            let all = Part {
                set: 1 << i,
                rate: graph.rate_of(i),
            };
            forest.trees.push(Tree {
                all,
                parents: direct,
                ..Tree::default()
            });
        }
        for &i in order {
            // Those that depend on it come later.
            forest.mend(i, Direction::Up);
        }
        for (at, tree) in forest.trees.iter_mut().enumerate() {
            if tree.all.set != 0 {
                let below = bits(tree.all.set).fold(0, |all, i| all | children[i]);
                tree.children = below & !tree.all.set;
                forest.open.push_back(at);
            }
        }
        forest
    }

    /// Improves the chunks until they are the best, or until the work is used up: `false`.
    pub fn improve(&mut self) -> bool {
        while let Some(at) = self.open.pop_front() {
            if self.work == 0 {
                return false;
            }
            let Some(link) = self.worth_parting(at) else {
                continue;
            };
            let (top, rest) = self.part(at, link);
            if self.trees[top].parents & self.trees[rest].all.set != 0 {
                // The top depends on the rest by another way: they join again by that one.
                let joined = self.join(rest, top);
                self.open.push_back(joined);
            } else {
                for (at, direction) in [(top, Direction::Up), (rest, Direction::Down)] {
                    let joined = self.mend(at, direction);
                    self.open.push_back(joined);
                }
            }
        }
        true
    }

    /// The chunks by falling rate, parents first; within one the transactions as in
    /// `known`, an order that respects the dependencies.
    pub fn order(&self, known: &[usize]) -> Vec<usize> {
        let mut trees: Vec<&Tree> = self.trees.iter().filter(|t| t.all.set != 0).collect();
        trees.sort_by(|a, b| {
            let rates = b.all.rate.cmp_rate(&a.all.rate);
            rates.then(a.all.rate.size.cmp(&b.all.rate.size))
        });
        let mut order = Vec::with_capacity(known.len());
        let mut placed: Set = 0;
        while !trees.is_empty() {
            // Of equal rates a later one may be a parent.
            let ready = trees.iter().position(|tree| tree.parents & !placed == 0);
            let tree = trees.remove(ready.expect("dependencies between chunks have no circles"));
            placed |= tree.all.set;
            order.extend(known.iter().filter(|&&i| tree.all.has(i)));
        }
        order
    }

    /// What is left of the work that may be spent.
    pub fn work_left(&self) -> u32 {
        self.work
    }

    /// One of the links whose top has a better rate than their chunk.
    fn worth_parting(&mut self, at: usize) -> Option<usize> {
        let count = self.trees[at].links.len();
        self.spend(count);
        let mut found = None;
        let mut seen = 0;
        for n in 0..count {
            let tree = &self.trees[at];
            if tree.links[n].top.rate.cmp_rate(&tree.all.rate).is_gt() {
                seen += 1;
                if self.below(seen) == 0 {
                    found = Some(n);
                }
            }
        }
        found
    }

    /// Takes a link away: the places of the top and of the rest.
    fn part(&mut self, at: usize, link: usize) -> (usize, usize) {
        let mut tree = std::mem::take(&mut self.trees[at]);
        let gone = tree.links.swap_remove(link);
        self.spend(2 * tree.links.len());
        let upper = gone.top;
        let mut lower = tree.all;
        lower.leave(upper);
        let (mut top, mut rest) = (self.tree(upper), self.tree(lower));
        for mut link in tree.links {
            if upper.has(link.parent) {
                if link.top.has(gone.parent) {
                    link.top.leave(lower);
                }
                top.links.push(link);
            } else {
                if link.top.has(gone.child) {
                    link.top.leave(upper);
                }
                rest.links.push(link);
            }
        }
        // The place itself is empty for now.
        let mut places = self.trees.iter().zip(0..);
        let free = places.find(|&(tree, n)| n != at && tree.all.set == 0);
        let (_, free) = free.expect("as many places as transactions");
        bits(upper.set).for_each(|i| self.tree_of[i] = free);
        self.trees[free] = top;
        self.trees[at] = rest;
        (free, at)
    }

    /// A chunk without its links.
    fn tree(&self, all: Part) -> Tree {
        let over = |of: &[Set]| bits(all.set).fold(0, |set, i| set | of[i]) & !all.set;
        Tree {
            all,
            links: Vec::with_capacity(all.set.count_ones() as usize - 1),
            parents: over(&self.parents),
            children: over(&self.children),
        }
    }

    /// Joins the chunk with those that it depends on although their rate is lower (or that
    /// depend on it although theirs is higher). The place of what has become of it.
    fn mend(&mut self, mut at: usize, direction: Direction) -> usize {
        while let Some(other) = self.neighbour(at, direction) {
            at = match direction {
                Direction::Up => self.join(other, at),
                Direction::Down => self.join(at, other),
            };
        }
        at
    }

    /// The worst of the chunks above that are no better, or the best of those below that are
    /// no worse.
    fn neighbour(&mut self, at: usize, direction: Direction) -> Option<usize> {
        let tree = &self.trees[at];
        let mut rate = tree.all.rate;
        let mut near = match direction {
            Direction::Up => tree.parents,
            Direction::Down => tree.children,
        };
        let mut found = None;
        let mut equals = 0;
        while near != 0 {
            self.spend(1);
            let other = self.tree_of[near.trailing_zeros() as usize];
            let part = self.trees[other].all;
            near &= !part.set;
            let order = match direction {
                Direction::Up => rate.cmp_rate(&part.rate),
                Direction::Down => part.rate.cmp_rate(&rate),
            };
            if order.is_lt() {
                continue;
            }
            equals = if order.is_eq() { equals + 1 } else { 1 };
            if self.below(equals) == 0 {
                rate = part.rate;
                found = Some(other);
            }
        }
        found
    }

    /// Joins two chunks by one of the dependencies between them. Its place.
    fn join(&mut self, top: usize, bottom: usize) -> usize {
        let mut upper = std::mem::take(&mut self.trees[top]);
        let mut lower = std::mem::take(&mut self.trees[bottom]);
        let down = |i: usize| self.children[i] & lower.all.set;
        let between = bits(upper.all.set & lower.parents);
        let count: u32 = between.map(|i| down(i).count_ones()).sum();
        let mut nth = self.below(count);
        let mut link = None;
        for parent in bits(upper.all.set & lower.parents) {
            let children = self.children[parent] & lower.all.set;
            if nth < children.count_ones() {
                let child = bits(children).nth(nth as usize);
                link = child.map(|child| (parent, child));
                break;
            }
            nth -= children.count_ones();
        }
        let (parent, child) = link.expect("chunks are joined where one depends on the other");
        for link in &mut upper.links {
            if link.top.has(parent) {
                link.top.join(lower.all);
            }
        }
        for link in &mut lower.links {
            if link.top.has(child) {
                link.top.join(upper.all);
            }
        }
        lower.links.push(Link {
            parent,
            child,
            top: upper.all,
        });
        lower.links.append(&mut upper.links);
        bits(upper.all.set).for_each(|i| self.tree_of[i] = bottom);
        lower.all.join(upper.all);
        lower.parents = (lower.parents | upper.parents) & !lower.all.set;
        lower.children = (lower.children | upper.children) & !lower.all.set;
        self.spend(2 * lower.links.len());
        self.trees[bottom] = lower;
        bottom
    }

    fn spend(&mut self, work: usize) {
        let work = u32::try_from(work).unwrap_or(u32::MAX);
        self.work = self.work.saturating_sub(work);
    }

    /// A number below `end`, at random (xorshift).
    fn below(&mut self, end: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let high = (u128::from(self.random) * u128::from(end)) >> 64;
        u32::try_from(high).expect("below a number of 32 bits")
    }
}
