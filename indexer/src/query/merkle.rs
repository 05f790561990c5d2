//! Proofs that a transaction is in a block.

use std::sync::Arc;

use pulse_primitives::bitcoin::{
    MerkleBlock, Txid,
    hashes::{Hash, HashEngine, sha256d},
};

use super::{
    QueryError, View,
    model::{BlockInfo, MerkleBlockProof, MerkleProof},
    read::missing,
};

impl View<'_> {
    /// Merkle branch of a confirmed transaction.
    ///
    /// # Errors
    /// [`QueryError::PositionRenewing`] if its block is not where the index says, or a
    /// failed read.
    pub fn merkle_proof(&self, txid: &Txid) -> Result<Option<MerkleProof>, QueryError> {
        let Some((block, txids, pos)) = self.find_in_block(txid)? else {
            return Ok(None);
        };
        Ok(Some(MerkleProof {
            block_height: block.height,
            merkle: branch(&txids, pos),
            pos: u32::try_from(pos).map_err(|_| missing("txpos"))?,
        }))
    }

    /// Partial merkle tree matching exactly this transaction.
    ///
    /// # Errors
    /// As [`View::merkle_proof`].
    pub fn merkle_block(&self, txid: &Txid) -> Result<Option<MerkleBlockProof>, QueryError> {
        let Some((block, txids, _)) = self.find_in_block(txid)? else {
            return Ok(None);
        };
        Ok(Some(MerkleBlock::from_header_txids_with_predicate(
            &block.header,
            &txids,
            |id| id == txid,
        )))
    }

    /// The block of a transaction, the block's ids, and its position among them.
    #[allow(clippy::type_complexity, reason = "used twice, a few lines above")]
    fn find_in_block(
        &self,
        txid: &Txid,
    ) -> Result<Option<(BlockInfo, Arc<Vec<Txid>>, usize)>, QueryError> {
        let positions = self.reader.tx_positions();
        for txnum in self.reader.tx_candidates(self.reader.keys.txid(txid))? {
            let height = self.tx_pos(&positions, txnum)?.height;
            let first_txnum = self.row(height)?.first_txnum;
            let block = self.block_at(height)?.ok_or_else(|| missing("blk"))?;
            let txids = self.block_txids(&block)?;
            let index = txnum.checked_sub(first_txnum);
            let index = index.and_then(|index| usize::try_from(index).ok());
            let index = index.ok_or_else(|| missing("blk"))?;
            if txids.get(index) == Some(txid) {
                return Ok(Some((block, txids, index)));
            }
        }
        Ok(None)
    }
}

/// Siblings of the leaf at `index`, from the leaf up. An odd row repeats its last
/// node.
fn branch(txids: &[Txid], mut index: usize) -> Vec<Txid> {
    let mut row = txids.to_vec();
    let mut branch = Vec::new();
    while row.len() > 1 {
        branch.push(row[(index ^ 1).min(row.len() - 1)]);
        row = row
            .chunks(2)
            .map(|pair| parent(&pair[0], &pair[pair.len() - 1]))
            .collect();
        index /= 2;
    }
    branch
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
            for (index, txid) in txids.iter().enumerate() {
                let (mut node, mut at) = (*txid, index);
                for sibling in branch(&txids, index) {
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
