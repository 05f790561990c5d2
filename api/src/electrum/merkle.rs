//! Proofs that a header is in the chain up to a checkpoint (`cp_height`).
//!
//! The tree is that of transactions in a block, over the hashes of all headers from
//! genesis to the checkpoint: an odd row repeats its last node. Its lower [`DEPTH`] rows
//! are kept as one node per [`SEGMENT`] headers.
//!
//! # Correctness
//! With each node the hash of its last block is kept. Nodes whose block has left the chain
//! are dropped before the tree is used.
//!
//! # Limits
//! 64 bytes per 1,024 blocks. A proof reads at most two segments of headers.

use parking_lot::Mutex;
use pulse_indexer::query::{QueryError, View};
use pulse_primitives::{
    Height,
    bitcoin::{
        BlockHash,
        hashes::{Hash, HashEngine, sha256d},
    },
};

/// Rows below the kept nodes.
const DEPTH: usize = 10;
/// Headers below a kept node.
const SEGMENT: usize = 1 << DEPTH;

type Node = sha256d::Hash;

/// A branch from a header up, and the root that it leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HeaderProof {
    pub(super) branch: Vec<Node>,
    pub(super) root: Node,
}

/// Kept nodes of whole segments: the node, and the hash of its last block.
#[derive(Default)]
pub(super) struct HeaderTree(Mutex<Vec<(Node, BlockHash)>>);

impl HeaderTree {
    /// Proof for the header at `height` in the tree up to `cp_height`, which is at or
    /// above it and not above the tip of `view`.
    pub(super) fn proof(
        &self,
        view: &View<'_>,
        height: Height,
        cp_height: Height,
    ) -> Result<HeaderProof, QueryError> {
        let hashes = |range| view.block_hashes(range);
        let last = |height| view.block_hash_at(height);
        self.prove(hashes, last, index(height), index(cp_height))
    }

    fn prove(
        &self,
        read: impl Fn(std::ops::Range<Height>) -> Result<Vec<BlockHash>, QueryError>,
        hash_at: impl Fn(Height) -> Result<Option<BlockHash>, QueryError>,
        height: usize,
        cp_height: usize,
    ) -> Result<HeaderProof, QueryError> {
        let segment = |n: usize, end: usize| {
            let (from, to) = (n * SEGMENT, ((n + 1) * SEGMENT).min(end));
            let hashes = read(to_height(from)..to_height(to))?;
            Ok::<Vec<Node>, QueryError>(hashes.into_iter().map(BlockHash::to_raw_hash).collect())
        };
        let end = cp_height + 1;
        let own = segment(height / SEGMENT, end)?;
        if end <= SEGMENT {
            let (branch, root) = climb(own, height, None);
            return Ok(HeaderProof { branch, root });
        }

        let whole = end / SEGMENT;
        let mut nodes = {
            let mut kept = self.0.lock();
            while let Some((_, last)) = kept.last()
                && hash_at(to_height(kept.len() * SEGMENT - 1))? != Some(*last)
            {
                kept.pop();
            }
            while kept.len() < whole {
                let hashes = segment(kept.len(), end)?;
                let last = BlockHash::from_raw_hash(hashes[hashes.len() - 1]);
                let (_, node) = climb(hashes, 0, Some(DEPTH));
                kept.push((node, last));
            }
            let nodes = kept[..whole].iter().map(|(node, _)| *node);
            nodes.collect::<Vec<Node>>()
        };
        if !end.is_multiple_of(SEGMENT) {
            let (_, node) = climb(segment(whole, end)?, 0, Some(DEPTH));
            nodes.push(node);
        }
        let (mut branch, _) = climb(own, height % SEGMENT, Some(DEPTH));
        let (upper, root) = climb(nodes, height / SEGMENT, None);
        branch.extend(upper);
        Ok(HeaderProof { branch, root })
    }
}

fn index(height: Height) -> usize {
    usize::try_from(height).expect("usize has 32 bits at least")
}

fn to_height(index: usize) -> Height {
    Height::try_from(index).expect("it is not above a height")
}

/// Siblings of the node at `index` and the top, after `depth` rows or at the root.
fn climb(mut row: Vec<Node>, mut index: usize, depth: Option<usize>) -> (Vec<Node>, Node) {
    let mut branch = Vec::new();
    while depth.map_or(row.len() > 1, |depth| branch.len() < depth) {
        branch.push(row[(index ^ 1).min(row.len() - 1)]);
        row = (row.chunks(2))
            .map(|pair| parent(&pair[0], &pair[pair.len() - 1]))
            .collect();
        index /= 2;
    }
    (branch, row[0])
}

fn parent(left: &Node, right: &Node) -> Node {
    let mut engine = Node::engine();
    engine.input(left.as_byte_array());
    engine.input(right.as_byte_array());
    Node::from_engine(engine)
}

/// Siblings of the leaf at `index` and the root.
pub(super) fn branch(leaves: Vec<Node>, index: usize) -> (Vec<Node>, Node) {
    climb(leaves, index, None)
}

#[cfg(test)]
mod tests {
    use pulse_primitives::bitcoin::merkle_tree::calculate_root;

    use super::*;

    fn chain(count: usize, fork_at: usize) -> Vec<BlockHash> {
        let hash = |n: usize| {
            let text = format!("{n} {}", n >= fork_at);
            BlockHash::hash(text.as_bytes())
        };
        (0..count).map(hash).collect()
    }

    fn check(tree: &HeaderTree, chain: &[BlockHash], height: usize, cp: usize) {
        let read = |range: std::ops::Range<Height>| {
            Ok(chain[range.start as usize..(range.end as usize).min(chain.len())].to_vec())
        };
        let hash_at = |height: Height| Ok(chain.get(height as usize).copied());
        let proof = tree.prove(read, hash_at, height, cp).unwrap();
        let leaves = chain[..=cp].iter().map(|hash| hash.to_raw_hash());
        assert_eq!(Some(proof.root), calculate_root(leaves), "{height} of {cp}");
        let (mut node, mut at) = (chain[height].to_raw_hash(), height);
        for sibling in &proof.branch {
            node = match at % 2 {
                0 => parent(&node, sibling),
                _ => parent(sibling, &node),
            };
            at /= 2;
        }
        assert_eq!(node, proof.root, "{height} of {cp}");
    }

    #[test]
    fn proofs_lead_to_the_root_of_all_headers() {
        let tree = HeaderTree::default();
        let chain = chain(5_000, usize::MAX);
        for cp in [
            0, 1, 2, 6, 1022, 1023, 1024, 1025, 2047, 2048, 3071, 3073, 4999,
        ] {
            for height in [0, 1, cp / 2, cp.max(1) - 1, cp] {
                check(&tree, &chain, height.min(cp), cp);
            }
        }
    }

    #[test]
    fn a_reorganisation_leaves_nothing_of_the_old_branch() {
        let tree = HeaderTree::default();
        check(&tree, &chain(5_000, usize::MAX), 4_500, 4_999);
        check(&tree, &chain(5_000, 3_000), 4_500, 4_999);
        check(&tree, &chain(2_500, 100), 2_000, 2_499);
        check(&tree, &chain(5_000, usize::MAX), 10, 4_999);
    }
}
