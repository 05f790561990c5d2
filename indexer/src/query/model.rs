//! What a query returns: Bitcoin's own types with the block that confirms them.
//! No JSON here; that is the API's.

use std::sync::Arc;

use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, MerkleBlock, OutPoint, Transaction, TxOut, Txid, block::Header},
};

/// A block of the indexed chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockInfo {
    /// Height of the block.
    pub height: Height,
    /// Hash of the block.
    pub hash: BlockHash,
    /// The header.
    pub header: Header,
    /// Number of transactions.
    pub tx_count: u32,
    /// Serialised size with witnesses, in bytes.
    pub size: u32,
    /// Weight, in weight units (BIP 141).
    pub weight: u32,
    /// Median time of this block and up to ten before it, in seconds since 1970.
    pub median_time: u32,
}

/// The block that confirms something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRef {
    /// Height of the block.
    pub height: Height,
    /// Hash of the block.
    pub hash: BlockHash,
    /// Time in the header, in seconds since 1970.
    pub time: u32,
}

/// A confirmed transaction with the outputs that it spends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxDetail {
    /// The transaction.
    pub tx: Arc<Transaction>,
    /// Its txid, already computed.
    pub txid: Txid,
    /// One entry per input, in order. Empty for a coinbase.
    pub prevouts: Arc<[TxOut]>,
    /// The confirming block.
    pub block: BlockRef,
}

/// The confirmed spender of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spender {
    /// The spending transaction.
    pub txid: Txid,
    /// Index of the spending input.
    pub vin: u32,
    /// The block that confirms the spender.
    pub block: BlockRef,
}

/// Confirmed totals of one script.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScriptStats {
    /// Distinct transactions that fund or spend the script.
    pub tx_count: u64,
    /// Outputs to the script.
    pub funded_txo_count: u64,
    /// Their value, in satoshis.
    pub funded_txo_sum: u64,
    /// Outputs of the script that were spent.
    pub spent_txo_count: u64,
    /// Their value, in satoshis.
    pub spent_txo_sum: u64,
}

/// A confirmed unspent output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Utxo {
    /// The output.
    pub outpoint: OutPoint,
    /// Its value, in satoshis.
    pub value: u64,
    /// The block that confirms it.
    pub block: BlockRef,
}

/// What the transactions of a block do to the balance of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BalanceChange {
    /// The block.
    pub block: BlockRef,
    /// Its transactions that touch the script.
    pub tx_count: u32,
    /// What they add, in satoshis.
    pub change: i64,
    /// Balance with the block, in satoshis.
    pub balance: u64,
}

/// Proof that a transaction is in a block (Electrum's form).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MerkleProof {
    /// The block.
    pub block: BlockRef,
    /// Siblings from the leaf up.
    pub merkle: Vec<Txid>,
    /// Position of the transaction in the block.
    pub pos: u32,
}

/// Proof that a transaction is in a block (BIP 37's form).
pub type MerkleBlockProof = MerkleBlock;
