//! Clusters against a list of transactions, through random arrivals, departures and
//! replacements.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use rand::{Rng, SeedableRng, seq::IteratorRandom};
use rand_chacha::ChaCha8Rng;

use super::model::{Model, compare};
use crate::{
    cluster::{Clusters, Member, NewTx, Slot, linearize::ChunkRate},
    feerate::FeeFrac,
};

#[derive(Debug, Clone)]
struct Tx {
    rate: FeeFrac,
    parents: BTreeSet<u32>,
}

/// What the clusters must agree with.
#[derive(Debug, Clone, Default)]
struct Pool(BTreeMap<u32, Tx>);

impl Pool {
    fn reach(&self, from: u32, next: impl Fn(u32) -> Vec<u32>) -> BTreeSet<u32> {
        let mut seen = BTreeSet::from([from]);
        let mut open = vec![from];
        while let Some(at) = open.pop() {
            open.extend(next(at).into_iter().filter(|&other| seen.insert(other)));
        }
        seen
    }

    fn parents(&self, of: u32) -> Vec<u32> {
        self.0[&of].parents.iter().copied().collect()
    }

    fn children(&self, of: u32) -> Vec<u32> {
        let is_child = |tx: &Tx| tx.parents.contains(&of);
        self.0
            .iter()
            .filter(|(_, tx)| is_child(tx))
            .map(|(&slot, _)| slot)
            .collect()
    }

    fn ancestors(&self, of: u32) -> BTreeSet<u32> {
        self.reach(of, |at| self.parents(at))
    }

    fn descendants(&self, of: u32) -> BTreeSet<u32> {
        self.reach(of, |at| self.children(at))
    }

    fn cluster(&self, of: u32) -> BTreeSet<u32> {
        self.reach(of, |at| [self.parents(at), self.children(at)].concat())
    }

    fn remove(&mut self, slots: &BTreeSet<u32>) {
        self.0.retain(|slot, _| !slots.contains(slot));
        for tx in self.0.values_mut() {
            tx.parents.retain(|parent| !slots.contains(parent));
        }
    }

    /// Best chunks of the clusters of `of`, sorted together.
    fn best(&self, of: &BTreeSet<u32>) -> Vec<ChunkRate> {
        let mut left: BTreeSet<u32> = of.clone();
        let mut chunks = Vec::new();
        while let Some(&first) = left.first() {
            let cluster = self.cluster(first);
            left.retain(|slot| !cluster.contains(slot));
            let order = self.topological(&cluster);
            let place = |slot: &u32| order.iter().position(|other| other == slot).unwrap();
            let model = Model {
                rates: order.iter().map(|slot| self.0[slot].rate).collect(),
                parents: order
                    .iter()
                    .map(|slot| {
                        self.0[slot]
                            .parents
                            .iter()
                            .fold(0, |set, p| set | 1 << place(p))
                    })
                    .collect(),
            };
            chunks.extend(model.best());
        }
        crate::cluster::diagram::sort(&mut chunks);
        chunks
    }

    fn topological(&self, of: &BTreeSet<u32>) -> Vec<u32> {
        let mut order: Vec<u32> = of.iter().copied().collect();
        order.sort_by_key(|&slot| self.ancestors(slot).len());
        order
    }
}

fn as_set(slots: Vec<Slot>) -> BTreeSet<u32> {
    slots.into_iter().map(|slot| slot.0).collect()
}

/// Runs random changes; `check` sees each.
struct Run {
    rng: ChaCha8Rng,
    clusters: Clusters,
    pool: Pool,
    next: u32,
    /// Clusters are kept to this size.
    most: usize,
}

impl Run {
    fn new(seed: u64, most: usize) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            clusters: Clusters::default(),
            pool: Pool::default(),
            next: 0,
            most,
        }
    }

    fn rate(&mut self) -> FeeFrac {
        FeeFrac::new(self.rng.gen_range(0..40), self.rng.gen_range(1..10))
    }

    /// Parents for a new transaction, so that its cluster stays small enough.
    fn parents(&mut self, without: &BTreeSet<u32>) -> BTreeSet<u32> {
        let count = [0, 1, 1, 2, 3][self.rng.gen_range(0..5)];
        let others = self
            .pool
            .0
            .keys()
            .copied()
            .filter(|slot| !without.contains(slot));
        let mut parents: BTreeSet<u32> = others
            .choose_multiple(&mut self.rng, count)
            .into_iter()
            .collect();
        while parents
            .iter()
            .flat_map(|&p| self.pool.cluster(p))
            .collect::<BTreeSet<_>>()
            .len()
            >= self.most
        {
            parents.pop_first();
        }
        parents
    }

    /// Stages `removed` out and one transaction in; returns it with the staging.
    fn stage(&mut self, removed: &BTreeSet<u32>) -> (Tx, crate::cluster::Staging) {
        let parents = self.parents(removed);
        let tx = Tx {
            rate: self.rate(),
            parents,
        };
        let new = NewTx {
            rate: tx.rate,
            tie: self.rng.r#gen(),
            parents: tx.parents.iter().map(|&p| Member::Pool(Slot(p))).collect(),
        };
        let slots: HashSet<Slot> = removed.iter().map(|&slot| Slot(slot)).collect();
        (tx, self.clusters.stage(&slots, &[new], &[]).unwrap())
    }

    fn add(&mut self) {
        let (tx, staging) = self.stage(&BTreeSet::new());
        let slot = self.next;
        self.next += 1;
        self.clusters.apply(staging, &[Slot(slot)]);
        self.pool.0.insert(slot, tx);
    }

    fn some(&mut self) -> Option<u32> {
        self.pool.0.keys().copied().choose(&mut self.rng)
    }

    /// Descendants of one (an eviction), or ancestors (a block).
    fn leave(&mut self) {
        let Some(slot) = self.some() else { return };
        let slots = if self.rng.r#gen() {
            self.pool.descendants(slot)
        } else {
            self.pool.ancestors(slot)
        };
        let gone: HashSet<Slot> = slots.iter().map(|&slot| Slot(slot)).collect();
        let staging = self.clusters.stage(&gone, &[], &[]).unwrap();
        self.clusters.apply(staging, &[]);
        self.pool.remove(&slots);
    }

    /// A block confirms a transaction whose child comes back: the parent of some.
    fn come_back(&mut self) {
        let children: Vec<u32> = self
            .pool
            .0
            .keys()
            .copied()
            .choose_multiple(&mut self.rng, 2);
        let joined: BTreeSet<u32> = children
            .iter()
            .flat_map(|&child| self.pool.cluster(child))
            .collect();
        if joined.len() >= self.most {
            return;
        }
        let tx = Tx {
            rate: self.rate(),
            parents: BTreeSet::new(),
        };
        let new = NewTx {
            rate: tx.rate,
            tie: self.rng.r#gen(),
            parents: Vec::new(),
        };
        let none = HashSet::new();
        let staging = self.clusters.stage(&none, &[new], &[]).unwrap();
        let slot = self.next;
        self.next += 1;
        self.clusters.apply(staging, &[Slot(slot)]);
        let links = children.iter().map(|&child| (Slot(slot), Slot(child)));
        let links: Vec<_> = links.collect();
        let staging = self.clusters.stage(&none, &[], &links).unwrap();
        self.clusters.apply(staging, &[]);
        self.pool.0.insert(slot, tx);
        for child in children {
            self.pool.0.get_mut(&child).unwrap().parents.insert(slot);
        }
    }

    fn change(&mut self) {
        match self.rng.gen_range(0..10) {
            0..7 => self.add(),
            7 => self.come_back(),
            _ => self.leave(),
        }
    }

    fn assert_agrees(&self) {
        for &slot in self.pool.0.keys() {
            assert_eq!(
                as_set(self.clusters.ancestors(Slot(slot))),
                self.pool.ancestors(slot)
            );
            assert_eq!(
                as_set(self.clusters.descendants(Slot(slot))),
                self.pool.descendants(slot)
            );
            let cluster: BTreeSet<u32> = self
                .pool
                .0
                .keys()
                .copied()
                .filter(|&other| self.clusters.of(Slot(other)) == self.clusters.of(Slot(slot)))
                .collect();
            assert_eq!(cluster, self.pool.cluster(slot));
        }
    }

    /// Chunks fall in rate, add up, hold their ancestors or follow them.
    fn assert_mining_order(&self) {
        let mut mined: BTreeSet<u32> = BTreeSet::new();
        let mut above: Option<FeeFrac> = None;
        for (_, rate, slots) in self.clusters.chunks() {
            let slots: Vec<u32> = slots.map(|slot| slot.0).collect();
            let sum = slots
                .iter()
                .fold(FeeFrac::default(), |sum, s| sum + self.pool.0[s].rate);
            assert_eq!(sum, rate);
            assert!(above.is_none_or(|above| above.cmp_rate(&rate).is_ge()));
            above = Some(rate);
            for slot in slots {
                assert!(
                    self.pool
                        .parents(slot)
                        .iter()
                        .all(|parent| mined.contains(parent))
                );
                assert!(mined.insert(slot));
            }
        }
        assert_eq!(mined.len(), self.pool.0.len());
        if let Some((_, worst)) = self.clusters.worst() {
            let worst = as_set(worst);
            for &slot in &worst {
                assert!(self.pool.descendants(slot).is_subset(&worst));
            }
        }
    }
}

#[test]
fn clusters_are_the_connected_transactions() {
    for seed in 0..20 {
        let mut run = Run::new(seed, 64);
        for _ in 0..150 {
            run.change();
            run.assert_agrees();
        }
    }
}

#[test]
fn chunks_are_a_mining_order_at_any_time() {
    for seed in 100..140 {
        let mut run = Run::new(seed, 64);
        for _ in 0..200 {
            run.change();
            run.assert_mining_order();
        }
    }
}

#[test]
fn memory_returns_to_nothing() {
    let mut run = Run::new(7, 64);
    (0..300).for_each(|_| run.change());
    assert!(run.clusters.bytes() > 0);
    while !run.pool.0.is_empty() {
        run.leave();
    }
    assert_eq!(run.clusters.bytes(), 0);
    assert_eq!(run.clusters.chunks().count(), 0);
}

/// A replacement is taken if the mempool that results earns more at every size, by the best
/// orders of all clusters concerned. Where our orders are not the best, verdicts can
/// differ; they must not often.
#[test]
fn replacements_are_judged_as_by_the_best_orders() {
    let (mut judged, mut agreed, mut improving) = (0, 0, 0);
    for seed in 200..260 {
        let mut run = Run::new(seed, 8);
        for _ in 0..100 {
            run.change();
            let Some(conflict) = run.some() else { continue };
            let removed = run.pool.descendants(conflict);
            let (tx, staging) = run.stage(&removed);

            let mut concerned: BTreeSet<u32> = run.pool.cluster(conflict);
            concerned.extend(
                tx.parents
                    .iter()
                    .flat_map(|&parent| run.pool.cluster(parent)),
            );
            let before = run.pool.best(&concerned);
            let mut after = run.pool.clone();
            after.remove(&removed);
            after.0.insert(run.next, tx);
            concerned.retain(|slot| !removed.contains(slot));
            concerned.insert(run.next);
            let after = after.best(&concerned);

            let improves = compare(&after, &before).is_some_and(std::cmp::Ordering::is_gt);
            judged += 1;
            agreed += u32::from(improves == staging.improves());
            improving += u32::from(improves);
            let same = compare(&staging.before, &before).is_some_and(std::cmp::Ordering::is_eq)
                && compare(&staging.after, &after).is_some_and(std::cmp::Ordering::is_eq);
            assert!(!same || improves == staging.improves());
        }
    }
    assert!(improving * 10 > judged && improving * 10 < judged * 9);
    assert!(agreed * 100 >= judged * 98, "{agreed} of {judged}");
}
