//! Answers from the index. Read-only; each [`View`] is one RocksDB snapshot, so that
//! an answer never mixes two tips.

pub mod model;

use std::sync::Arc;

use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, OutPoint, Txid},
    ports::BlockSource,
    tip::ChainTip,
};
use tokio::sync::watch;

use model::{
    BlockInfo, BlockRef, MerkleBlockProof, MerkleProof, ScriptStats, Spender, TxDetail, Utxo,
};

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The block files no longer hold what the index recorded; positions are being
    /// renewed. Ask again shortly (503).
    #[error("the position of block {height} is being renewed; try again")]
    PositionRenewing {
        /// Height of the block whose position is stale.
        height: Height,
    },
}

/// The scripthash of the REST API: SHA-256 of the script, not reversed.
pub type ScriptHash = [u8; 32];

/// Handle to the read side. Cheap to clone.
#[derive(Clone)]
pub struct Query {
    _source: Arc<dyn BlockSource>,
}

/// One snapshot of the index.
pub struct View<'a> {
    _query: &'a Query,
}

#[allow(unused_variables, clippy::todo)]
impl Query {
    /// A consistent view of the index as it is now.
    pub fn view(&self) -> Result<View<'_>, QueryError> {
        todo!()
    }
    /// Watch of the index tip (`None`: nothing indexed yet). A new tip is published
    /// only after its rows are readable.
    pub fn tip_watch(&self) -> watch::Receiver<Option<ChainTip>> {
        todo!()
    }
}

#[allow(unused_variables, clippy::todo)]
impl View<'_> {
    /// Tip of this view.
    pub fn tip(&self) -> Option<ChainTip> {
        todo!()
    }
    /// The block at `height`, `None` above the tip.
    pub fn block_at(&self, height: Height) -> Result<Option<BlockInfo>, QueryError> {
        todo!()
    }
    /// The block of that hash, `None` if unknown, not yet indexed, or stale.
    pub fn block_by_hash(&self, hash: &BlockHash) -> Result<Option<BlockInfo>, QueryError> {
        todo!()
    }
    /// Whether the header of that hash is known, indexed or not (to tell 503 from 404 while syncing).
    pub fn header_known(&self, hash: &BlockHash) -> bool {
        todo!()
    }
    /// The serialised block.
    pub fn block_raw(&self, block: &BlockInfo) -> Result<Vec<u8>, QueryError> {
        todo!()
    }
    /// Ids of the block's transactions, in block order.
    pub fn block_txids(&self, block: &BlockInfo) -> Result<Arc<Vec<Txid>>, QueryError> {
        todo!()
    }
    /// Up to `count` transactions of the block from position `start`.
    pub fn block_txs(
        &self,
        block: &BlockInfo,
        start: u32,
        count: u32,
    ) -> Result<Vec<TxDetail>, QueryError> {
        todo!()
    }
    /// The confirmed transaction of that id.
    pub fn tx(&self, txid: &Txid) -> Result<Option<TxDetail>, QueryError> {
        todo!()
    }
    /// Its serialised bytes and the confirming block.
    pub fn tx_raw(&self, txid: &Txid) -> Result<Option<(Vec<u8>, BlockRef)>, QueryError> {
        todo!()
    }
    /// The block that confirms the transaction.
    pub fn tx_block(&self, txid: &Txid) -> Result<Option<BlockRef>, QueryError> {
        todo!()
    }
    /// Merkle branch of a confirmed transaction.
    pub fn merkle_proof(&self, txid: &Txid) -> Result<Option<MerkleProof>, QueryError> {
        todo!()
    }
    /// Partial merkle tree matching exactly this transaction.
    pub fn merkle_block(&self, txid: &Txid) -> Result<Option<MerkleBlockProof>, QueryError> {
        todo!()
    }
    /// Confirmed spender of an output; `None` if unspent or unknown.
    pub fn spender(&self, outpoint: &OutPoint) -> Result<Option<Spender>, QueryError> {
        todo!()
    }
    /// Confirmed spender of each output; `None` if the transaction is unknown.
    pub fn spenders(&self, txid: &Txid) -> Result<Option<Vec<Option<Spender>>>, QueryError> {
        todo!()
    }
    /// Confirmed totals of a script; zeros if it was never used.
    pub fn script_stats(&self, script: &ScriptHash) -> Result<ScriptStats, QueryError> {
        todo!()
    }
    /// Up to `limit` confirmed transactions of a script, newest first, starting after
    /// `after` (exclusive). Empty when `after` is not in the history.
    pub fn script_txs(
        &self,
        script: &ScriptHash,
        after: Option<&Txid>,
        limit: usize,
    ) -> Result<Vec<TxDetail>, QueryError> {
        todo!()
    }
    /// Confirmed unspent outputs of a script in chain order, `None` when there are
    /// more than `limit`.
    pub fn script_utxos(
        &self,
        script: &ScriptHash,
        limit: usize,
    ) -> Result<Option<Vec<Utxo>>, QueryError> {
        todo!()
    }
}
