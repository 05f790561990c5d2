//! Clusters: the unconfirmed transactions that depend on each other, however indirectly.
//!
//! Each cluster keeps the order in which it would be mined, cut into chunks; the chunks of
//! all clusters, sorted by fee rate, are the order of the whole mempool: the first would be
//! mined next, the last leaves first when memory runs out.
//!
//! ```text
//! Clusters::stage (what would be) -> limits, fee rate diagrams -> Clusters::apply
//! ```
//!
//! # Correctness
//! Chunks of one cluster fall in rate, and a chunk's ancestors are in it or in earlier
//! ones. So the last chunk of all has no descendants outside itself.
//!
//! # Limits
//! 64 transactions and 404,000 weight units (as policy weighs) each. Orders are the best there
//! are, unless finding one takes more work than a change of the mempool may cause.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, HashMap, HashSet},
};

use crate::{
    feerate::FeeFrac,
    memory,
    policy::{MAX_CLUSTER_TXS, MAX_CLUSTER_WEIGHT},
};

pub(crate) mod diagram;
mod forest;
pub(crate) mod linearize;

use linearize::{ChunkRate, Graph, Set, bits};

/// Place of a transaction in the mempool's arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Slot(pub u32);

/// Place of a cluster in the arena of clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ClusterId(u32);

impl ClusterId {
    pub fn number(self) -> u64 {
        self.0.into()
    }
}

const NO_CLUSTER: u32 = u32::MAX;

/// A transaction that is in the mempool, or one that would be added (by its index).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Member {
    /// In the mempool.
    Pool(Slot),
    /// To be added.
    New(usize),
}

/// A transaction that would be added.
#[derive(Debug, Clone)]
pub(crate) struct NewTx {
    /// Fee and adjusted weight.
    pub rate: FeeFrac,
    /// First bytes of the id: decides between equals.
    pub tie: u64,
    /// What it spends from; only those before it of the new ones.
    pub parents: Vec<Member>,
}

/// A cluster would be too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// A transaction in its cluster.
#[derive(Debug, Clone, Copy)]
struct Node<M> {
    member: M,
    rate: FeeFrac,
    tie: u64,
    /// By position in the cluster's order, itself included.
    ancestors: Set,
}

/// A chunk of a cluster.
#[derive(Debug, Clone, Copy)]
struct Chunk {
    rate: FeeFrac,
    /// Position behind its last transaction.
    end: usize,
    /// Size of it and of the chunks right before it with the same rate.
    equal_size: i64,
    /// Greatest of its transactions.
    tie: u64,
}

#[derive(Debug)]
struct Cluster<M> {
    /// In mining order.
    nodes: Vec<Node<M>>,
    chunks: Vec<Chunk>,
}

/// Place of a chunk in the order of all: best rate first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChunkKey {
    rate: FeeFrac,
    equal_size: i64,
    tie: u64,
    cluster: ClusterId,
    index: u32,
}

impl Ord for ChunkKey {
    fn cmp(&self, other: &Self) -> Ordering {
        let rest = |key: &Self| (key.equal_size, key.tie, key.cluster, key.index);
        other
            .rate
            .cmp_rate(&self.rate)
            .then_with(|| rest(self).cmp(&rest(other)))
    }
}

impl PartialOrd for ChunkKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What the clusters would be after a change.
#[derive(Debug)]
pub(crate) struct Staging {
    /// Clusters that would go.
    affected: Vec<ClusterId>,
    /// Clusters that would come.
    clusters: Vec<Cluster<Member>>,
    /// Chunks of the former and of the latter, by falling rate; none if nothing is added.
    pub before: Vec<ChunkRate>,
    pub after: Vec<ChunkRate>,
}

impl Staging {
    /// Whether the change earns more at every size.
    pub fn improves(&self) -> bool {
        diagram::compare_chunks(&self.after, &self.before) == Some(Ordering::Greater)
    }
}

/// All clusters.
#[derive(Debug, Default)]
pub(crate) struct Clusters {
    clusters: Vec<Option<Cluster<Slot>>>,
    free: Vec<u32>,
    /// By slot.
    of: Vec<u32>,
    order: BTreeSet<ChunkKey>,
    bytes: usize,
}

impl Clusters {
    /// The cluster of a transaction.
    pub fn of(&self, slot: Slot) -> Option<ClusterId> {
        let id = *self.of.get(slot.0 as usize)?;
        (id != NO_CLUSTER).then_some(ClusterId(id))
    }

    fn get(&self, id: ClusterId) -> &Cluster<Slot> {
        self.clusters[id.0 as usize]
            .as_ref()
            .expect("ids of clusters that are gone are not kept")
    }

    fn locate(&self, slot: Slot) -> Option<(&Cluster<Slot>, usize)> {
        let cluster = self.get(self.of(slot)?);
        let at = cluster.nodes.iter().position(|node| node.member == slot)?;
        Some((cluster, at))
    }

    /// The transactions that `slot` depends on, itself included, in mining order.
    pub fn ancestors(&self, slot: Slot) -> Vec<Slot> {
        let Some((cluster, at)) = self.locate(slot) else {
            return Vec::new();
        };
        let set = cluster.nodes[at].ancestors;
        bits(set).map(|i| cluster.nodes[i].member).collect()
    }

    /// The transactions that depend on `slot`, itself included, in mining order.
    pub fn descendants(&self, slot: Slot) -> Vec<Slot> {
        let Some((cluster, at)) = self.locate(slot) else {
            return Vec::new();
        };
        let nodes = cluster.nodes.iter();
        nodes
            .filter(|node| node.ancestors & 1 << at != 0)
            .map(|node| node.member)
            .collect()
    }

    /// All transactions of the cluster of `slot`.
    #[cfg(test)]
    pub fn cluster_slots(&self, slot: Slot) -> Vec<Slot> {
        let cluster = self.get(self.of(slot).unwrap());
        cluster.nodes.iter().map(|node| node.member).collect()
    }

    /// Chunk of a transaction and its position: what comes first in mining order is less.
    pub fn mining_key(&self, slot: Slot) -> Option<(ChunkKey, usize)> {
        let (cluster, at) = self.locate(slot)?;
        let index = cluster.chunks.iter().position(|chunk| at < chunk.end)?;
        Some((key(self.of(slot)?, index, &cluster.chunks[index]), at))
    }

    /// The transactions of the chunk of `slot`, in mining order.
    pub fn chunk_of(&self, slot: Slot) -> Vec<Slot> {
        let chunk = self.mining_key(slot);
        chunk.map_or_else(Vec::new, |(key, _)| self.chunk(&key).1.collect())
    }

    /// Rate and transactions of a chunk.
    fn chunk(&self, key: &ChunkKey) -> (FeeFrac, impl Iterator<Item = Slot> + Clone + '_) {
        let cluster = self.get(key.cluster);
        let index = key.index as usize;
        let start = index
            .checked_sub(1)
            .map_or(0, |before| cluster.chunks[before].end);
        let nodes = &cluster.nodes[start..cluster.chunks[index].end];
        (key.rate, nodes.iter().map(|node| node.member))
    }

    /// All chunks, best first.
    pub fn chunks(
        &self,
    ) -> impl Iterator<Item = (ClusterId, FeeFrac, impl Iterator<Item = Slot> + Clone + '_)> + '_
    {
        self.order.iter().map(|key| {
            let (rate, slots) = self.chunk(key);
            (key.cluster, rate, slots)
        })
    }

    /// The chunk with the lowest rate.
    pub fn worst(&self) -> Option<(FeeFrac, Vec<Slot>)> {
        let (rate, slots) = self.chunk(self.order.last()?);
        Some((rate, slots.collect()))
    }

    /// Memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the clusters would be without `removed`, with `added`, and with dependencies
    /// between transactions (parent, child) that were not known to be such.
    ///
    /// `removed` must hold, with a transaction, all its descendants or all its ancestors.
    pub fn stage(
        &self,
        removed: &HashSet<Slot>,
        added: &[NewTx],
        links: &[(Slot, Slot)],
    ) -> Result<Staging, TooLarge> {
        let mut affected: Vec<ClusterId> = removed
            .iter()
            .copied()
            .chain(added.iter().flat_map(NewTx::pool_members))
            .chain(links.iter().flat_map(|&(parent, child)| [parent, child]))
            .filter_map(|slot| self.of(slot))
            .collect();
        affected.sort_unstable();
        affected.dedup();

        let grows = !added.is_empty() || !links.is_empty();
        let mut pieces: Vec<(ClusterId, Set)> = Vec::new();
        let mut piece_of: HashMap<Slot, usize> = HashMap::new();
        for &id in &affected {
            let cluster = self.get(id);
            let mut left: Set = 0;
            for (i, node) in cluster.nodes.iter().enumerate() {
                if !removed.contains(&node.member) {
                    left |= 1 << i;
                }
            }
            for part in components(cluster, left) {
                if grows {
                    let members = bits(part).map(|i| cluster.nodes[i].member);
                    piece_of.extend(members.map(|slot| (slot, pieces.len())));
                }
                pieces.push((id, part));
            }
        }

        let mut joined = Joined::new(pieces.len() + added.len());
        for (n, tx) in added.iter().enumerate() {
            let this = pieces.len() + n;
            for parent in &tx.parents {
                match parent {
                    Member::Pool(slot) => {
                        if let Some(&piece) = piece_of.get(slot) {
                            joined.join(this, piece);
                        }
                    }
                    Member::New(before) => joined.join(this, pieces.len() + before),
                }
            }
        }
        for (parent, child) in links {
            if let (Some(&parent), Some(&child)) = (piece_of.get(parent), piece_of.get(child)) {
                joined.join(parent, child);
            }
        }

        let mut clusters = Vec::new();
        let mut work = linearize::MAX_WORK;
        for group in joined.groups() {
            let parts = group.iter().filter(|&&i| i < pieces.len());
            let parts: Vec<_> = parts.map(|&i| pieces[i]).collect();
            let new = group.iter().filter_map(|&i| i.checked_sub(pieces.len()));
            let new: Vec<_> = new.collect();
            clusters.push(self.compose(&parts, &new, added, links, &mut work)?);
        }
        let mut before: Vec<ChunkRate> = Vec::new();
        let mut after: Vec<ChunkRate> = Vec::new();
        if grows {
            let gone = affected.iter().map(|&id| self.get(id));
            before.extend(gone.flat_map(Cluster::chunk_rates));
            after.extend(clusters.iter().flat_map(Cluster::chunk_rates));
            diagram::sort(&mut before);
            diagram::sort(&mut after);
        }
        Ok(Staging {
            affected,
            clusters,
            before,
            after,
        })
    }

    /// One cluster of parts of clusters and of new transactions; `work` may be spent on its
    /// order.
    fn compose(
        &self,
        parts: &[(ClusterId, Set)],
        new: &[usize],
        added: &[NewTx],
        links: &[(Slot, Slot)],
        work: &mut u32,
    ) -> Result<Cluster<Member>, TooLarge> {
        let count: usize = parts.iter().map(|(_, set)| set.count_ones() as usize).sum();
        if count + new.len() > MAX_CLUSTER_TXS {
            return Err(TooLarge);
        }
        let mut nodes: Vec<Node<Member>> = Vec::with_capacity(count + new.len());
        let mut parents: Vec<Set> = Vec::with_capacity(count + new.len());
        let mut place: HashMap<Member, usize> = HashMap::new();
        let grows = !new.is_empty() || !links.is_empty();
        for &(id, set) in parts {
            let cluster = self.get(id);
            let first = nodes.len();
            for i in bits(set) {
                let node = &cluster.nodes[i];
                let member = Member::Pool(node.member);
                if grows {
                    place.insert(member, nodes.len());
                }
                // Positions in the whole cluster become positions in the part.
                let known = bits(node.ancestors & set)
                    .map(|j| (set & ((1 << j) - 1)).count_ones() as usize)
                    .fold(0, |known, j| known | 1 << (first + j));
                parents.push(known);
                nodes.push(Node {
                    member,
                    rate: node.rate,
                    tie: node.tie,
                    ancestors: 0,
                });
            }
        }
        for &n in new {
            let member = Member::New(n);
            place.insert(member, nodes.len());
            let direct = added[n].parents.iter().filter_map(|p| place.get(p));
            parents.push(direct.fold(0, |set, &i| set | 1 << i));
            nodes.push(Node {
                member,
                rate: added[n].rate,
                tie: added[n].tie,
                ancestors: 0,
            });
        }
        for &(parent, child) in links {
            let place = |slot| place.get(&Member::Pool(slot)).copied();
            if let (Some(parent), Some(child)) = (place(parent), place(child)) {
                parents[child] |= 1 << parent;
            }
        }
        let weight: i64 = nodes.iter().map(|node| node.rate.size).sum();
        // A lone transaction has its own limit, which is lower.
        if weight > MAX_CLUSTER_WEIGHT {
            return Err(TooLarge);
        }
        let graph = Graph::new(nodes.iter().map(|node| node.rate).collect(), &parents);
        let base: Vec<usize> = (0..nodes.len()).collect();
        let order = linearize::linearize(&graph, &base, work);
        Ok(Cluster::new(&graph, &order, &nodes))
    }

    /// Makes a staged change; `slots` are those of the added transactions.
    pub fn apply(&mut self, staging: Staging, slots: &[Slot]) {
        for id in staging.affected {
            self.remove(id);
        }
        for cluster in staging.clusters {
            let nodes = cluster.nodes.iter().map(|node| Node {
                member: match node.member {
                    Member::Pool(slot) => slot,
                    Member::New(n) => slots[n],
                },
                rate: node.rate,
                tie: node.tie,
                ancestors: node.ancestors,
            });
            let nodes = nodes.collect();
            self.insert(Cluster {
                nodes,
                chunks: cluster.chunks,
            });
        }
    }

    fn remove(&mut self, id: ClusterId) {
        let Some(cluster) = self.clusters[id.0 as usize].take() else {
            return;
        };
        for (index, chunk) in cluster.chunks.iter().enumerate() {
            self.order.remove(&key(id, index, chunk));
        }
        for node in &cluster.nodes {
            self.of[node.member.0 as usize] = NO_CLUSTER;
        }
        self.bytes -= cluster.bytes();
        self.free.push(id.0);
    }

    fn insert(&mut self, cluster: Cluster<Slot>) {
        let id = self.free.pop().unwrap_or_else(|| {
            self.clusters.push(None);
            u32::try_from(self.clusters.len() - 1).expect("fewer clusters than memory allows")
        });
        for node in &cluster.nodes {
            let slot = node.member.0 as usize;
            if slot >= self.of.len() {
                self.of.resize(slot + 1, NO_CLUSTER);
            }
            self.of[slot] = id;
        }
        let id = ClusterId(id);
        for (index, chunk) in cluster.chunks.iter().enumerate() {
            self.order.insert(key(id, index, chunk));
        }
        self.bytes += cluster.bytes();
        self.clusters[id.0 as usize] = Some(cluster);
    }
}

fn key(cluster: ClusterId, index: usize, chunk: &Chunk) -> ChunkKey {
    ChunkKey {
        rate: chunk.rate,
        equal_size: chunk.equal_size,
        tie: chunk.tie,
        cluster,
        index: u32::try_from(index).expect("at most 64 chunks"),
    }
}

impl NewTx {
    fn pool_members(&self) -> impl Iterator<Item = Slot> + '_ {
        self.parents.iter().filter_map(|parent| match parent {
            Member::Pool(slot) => Some(*slot),
            Member::New(_) => None,
        })
    }
}

impl<M: Copy> Cluster<M> {
    /// `nodes` in the order of `order`, which is over `graph`.
    fn new(graph: &Graph, order: &[usize], nodes: &[Node<M>]) -> Self {
        let mut position = [0; MAX_CLUSTER_TXS];
        for (at, &i) in order.iter().enumerate() {
            position[i] = at;
        }
        let nodes: Vec<_> = order
            .iter()
            .map(|&i| Node {
                ancestors: bits(graph.ancestors(i)).fold(0, |set, j| set | 1 << position[j]),
                ..nodes[i]
            })
            .collect();
        let mut end = 0;
        let mut chunks: Vec<Chunk> = Vec::new();
        for ChunkRate { rate, count } in linearize::chunks(graph, order) {
            let start = end;
            end += count;
            let before = chunks.last().filter(|c| c.rate.cmp_rate(&rate).is_eq());
            chunks.push(Chunk {
                rate,
                end,
                equal_size: before.map_or(0, |c| c.equal_size) + rate.size,
                tie: nodes[start..end].iter().map(|n| n.tie).max().unwrap_or(0),
            });
        }
        chunks.shrink_to_fit();
        Self { nodes, chunks }
    }

    fn chunk_rates(&self) -> impl Iterator<Item = ChunkRate> + '_ {
        let mut start = 0;
        self.chunks.iter().map(move |chunk| {
            let count = chunk.end - start;
            start = chunk.end;
            ChunkRate {
                rate: chunk.rate,
                count,
            }
        })
    }

    fn bytes(&self) -> usize {
        memory::allocation(size_of_val(&self.nodes[..]))
            + memory::allocation(size_of_val(&self.chunks[..]))
            + memory::in_vec::<Option<Self>>(1)
            + memory::in_vec::<u32>(self.nodes.len())
            + memory::in_tree::<ChunkKey>(self.chunks.len())
    }
}

/// The connected parts of `left`, each keeping the cluster's order.
fn components(cluster: &Cluster<Slot>, mut left: Set) -> Vec<Set> {
    let mut parts = Vec::new();
    while left != 0 {
        let mut part: Set = 1 << left.trailing_zeros();
        loop {
            let mut grown = part;
            for i in bits(left) {
                let set = cluster.nodes[i].ancestors & left;
                if set & grown != 0 {
                    grown |= set;
                }
            }
            if grown == part {
                break;
            }
            part = grown;
        }
        left &= !part;
        parts.push(part);
    }
    parts
}

/// Which pieces belong together (union-find).
struct Joined(Vec<usize>);

impl Joined {
    fn new(count: usize) -> Self {
        Self((0..count).collect())
    }

    fn root(&mut self, mut i: usize) -> usize {
        while self.0[i] != i {
            self.0[i] = self.0[self.0[i]];
            i = self.0[i];
        }
        i
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.0[a.max(b)] = a.min(b);
    }

    /// Pieces that belong together, each group rising.
    fn groups(mut self) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = vec![Vec::new(); self.0.len()];
        for i in 0..self.0.len() {
            let root = self.root(i);
            groups[root].push(i);
        }
        groups.retain(|group| !group.is_empty());
        groups
    }
}
