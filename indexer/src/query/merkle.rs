//! Proofs that a transaction is in a block.

use std::sync::Arc;

use pulse_primitives::bitcoin::{
    MerkleBlock, Txid,
    hashes::{Hash, HashEngine, sha256d},
};

use super::{
    QueryError, View,
    model::{BlockRef, MerkleBlockProof, MerkleProof},
    read::missing,
};
use crate::{rows::txpos::TxPos, store::Family};

/// All nodes of a block's merkle tree: the txids, then the row above them, up to the root.
#[derive(Debug)]
pub(super) struct MerkleTree {
    nodes: Vec<Txid>,
    /// Number of leaves.
    txs: usize,
}

impl MerkleTree {
    /// The tree over `txids`. An odd row repeats its last node.
    pub(super) fn new(txids: Vec<Txid>) -> Self {
        let (txs, mut nodes) = (txids.len(), txids);
        let (mut start, mut width) = (0, txs);
        while width > 1 {
            for at in (0..width).step_by(2) {
                let right = (at + 1).min(width - 1);
                nodes.push(parent(&nodes[start + at], &nodes[start + right]));
            }
            start += width;
            width = width.div_ceil(2);
        }
        Self { nodes, txs }
    }

    /// The leaves.
    pub(super) fn txids(&self) -> &[Txid] {
        &self.nodes[..self.txs]
    }

    /// Number of all nodes.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The root; `None` of a tree without leaves.
    pub(super) fn root(&self) -> Option<&Txid> {
        self.nodes.last()
    }

    /// Siblings of the leaf at `index`, from the leaf up.
    fn branch(&self, mut index: usize) -> Vec<Txid> {
        let mut branch = Vec::new();
        let (mut start, mut width) = (0, self.txs);
        while width > 1 {
            branch.push(self.nodes[start + (index ^ 1).min(width - 1)]);
            start += width;
            width = width.div_ceil(2);
            index /= 2;
        }
        branch
    }
}

/// Where a transaction is in its block.
struct Place {
    block: BlockRef,
    tree: Arc<MerkleTree>,
    index: usize,
}

impl View<'_> {
    /// Merkle branch of a confirmed transaction.
    ///
    /// # Errors
    /// [`QueryError::PositionRenewing`] if its block is not where the index says, or a
    /// failed read.
    pub fn merkle_proof(&self, txid: &Txid) -> Result<Option<MerkleProof>, QueryError> {
        let Some(place) = self.find_in_block(txid)? else {
            return Ok(None);
        };
        Ok(Some(MerkleProof {
            block: place.block,
            merkle: place.tree.branch(place.index),
            pos: u32::try_from(place.index).map_err(|_| missing(Family::TxPos))?,
        }))
    }

    /// Partial merkle tree matching exactly this transaction, and the block.
    ///
    /// # Errors
    /// As [`View::merkle_proof`].
    pub fn merkle_block(
        &self,
        txid: &Txid,
    ) -> Result<Option<(MerkleBlockProof, BlockRef)>, QueryError> {
        let Some(place) = self.find_in_block(txid)? else {
            return Ok(None);
        };
        let header = self.row(place.block.height)?.header;
        let txids = place.tree.txids();
        let proof = MerkleBlock::from_header_txids_with_predicate(&header, txids, |id| id == txid);
        Ok(Some((proof, place.block)))
    }

    fn find_in_block(&self, txid: &Txid) -> Result<Option<Place>, QueryError> {
        if let Some(pos) = self.remembered_tx(txid) {
            return self.place(pos, txid);
        }
        let positions = self.reader.tx_positions();
        for txnum in self.reader.tx_candidates(self.reader.keys.txid(txid))? {
            let pos = self.tx_pos(&positions, txnum)?;
            if let Some(place) = self.place(pos, txid)? {
                self.remember_tx(txid, pos);
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    /// The place of the transaction at `pos`, if it has that id.
    fn place(&self, pos: TxPos, txid: &Txid) -> Result<Option<Place>, QueryError> {
        let block = self.block_ref(pos.height)?;
        let tree = self.tree(pos.height, &block.hash)?;
        let index = pos.txnum.checked_sub(self.row(pos.height)?.first_txnum);
        let index = index.and_then(|index| usize::try_from(index).ok());
        let index = index.ok_or_else(|| missing(Family::Blk))?;
        let found = tree.txids().get(index) == Some(txid);
        Ok(found.then_some(Place { block, tree, index }))
    }
}

/// Node above two others.
fn parent(left: &Txid, right: &Txid) -> Txid {
    let mut engine = sha256d::Hash::engine();
    engine.input(left.as_byte_array());
    engine.input(right.as_byte_array());
    Txid::from_raw_hash(sha256d::Hash::from_engine(engine))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulse_primitives::bitcoin::merkle_tree;

    #[test]
    fn branches_lead_to_the_root() {
        for count in 1u8..20 {
            let txids = (0..count)
                .map(|i| Txid::from_byte_array([i; 32]))
                .collect::<Vec<_>>();
            let root = merkle_tree::calculate_root(txids.iter().copied()).unwrap();
            let tree = MerkleTree::new(txids.clone());
            assert_eq!(tree.root(), Some(&root));
            assert_eq!(tree.txids(), txids);
            for (index, txid) in txids.iter().enumerate() {
                let (mut node, mut at) = (*txid, index);
                for sibling in tree.branch(index) {
                    node = if at % 2 == 0 {
                        parent(&node, &sibling)
                    } else {
                        parent(&sibling, &node)
                    };
                    at /= 2;
                }
                assert_eq!(node, root, "{index} of {count}");
            }
        }
    }
}
