//! Headers of the indexed chain, and the blocks that they lead to.

use std::{ops::Range, sync::Arc};

use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, block::Header},
    block::ConnectedBlock,
};

use super::{Query, QueryError, View, merkle::MerkleTree};

impl View<'_> {
    /// Headers of the blocks at `heights`, lowest first; those above the tip are left out.
    ///
    /// # Errors
    /// [`QueryError::Store`].
    pub fn headers(&self, heights: Range<Height>) -> Result<Vec<Header>, QueryError> {
        let mut headers = Vec::new();
        self.reader
            .for_each_block(heights, |row| headers.push(row.header))?;
        Ok(headers)
    }

    /// Hashes of the blocks at `heights`, lowest first; those above the tip are left out.
    ///
    /// # Errors
    /// [`QueryError::Store`].
    pub fn block_hashes(&self, heights: Range<Height>) -> Result<Vec<BlockHash>, QueryError> {
        let mut hashes = Vec::new();
        self.reader
            .for_each_block(heights, |row| hashes.push(row.hash()))?;
        Ok(hashes)
    }

    /// Hash of the block at `height`; `None` above the tip.
    ///
    /// # Errors
    /// [`QueryError::Store`].
    pub fn block_hash_at(&self, height: Height) -> Result<Option<BlockHash>, QueryError> {
        match self.tip {
            Some(tip) if height <= tip.height => Ok(Some(self.block_ref(height)?.hash)),
            _ => Ok(None),
        }
    }
}

impl Query {
    /// A block that is or was connected, with the outputs that it spent.
    ///
    /// # Errors
    /// [`QueryError::Source`] if no file holds it.
    pub fn connected_block(
        &self,
        hash: &BlockHash,
        height: Height,
    ) -> Result<ConnectedBlock, QueryError> {
        let block = self.inner.source.load(hash, height)?;
        // What asks for it will ask for histories next.
        let tree = Arc::new(MerkleTree::new(block.txids.clone()));
        self.inner.txids.insert(*hash, tree);
        Ok(block)
    }
}
