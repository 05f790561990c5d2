//! The JSON of the Esplora API. Keys stand in the order in which they are sent; those
//! that are `Option` with `skip_serializing_if` are left out, the others are `null`.

use pulse_indexer::query::model::{
    BalanceChange, BlockInfo, BlockRef, MerkleProof, ScriptStats, Spender, TxDetail, Utxo,
};
use pulse_primitives::{
    Height,
    bitcoin::{
        self, Address, Amount, BlockHash, OutPoint, Script, TxMerkleNode, Txid, Witness,
        hashes::Hash,
    },
    mempool::{MempoolTx, ScriptMempoolTotals},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    error::RestError,
    params::{Subject, SubjectKind},
    script::{self, Rendering},
};

mod mempool;
mod relatives;
mod schema;
mod submit;
mod text;

pub(super) use mempool::{
    BacklogJson, FeeEstimatesJson, ProjectedBlockJson, RecentJson, RemovedJson,
};
pub(super) use relatives::{
    CpfpJson, MemberJson, PresentJson, RecommendedFeesJson, ReplacementJson,
};
pub(super) use schema::{Hex, string_schema};
pub(super) use submit::{PackageJson, TestJson, test_json};
pub(super) use text::Id;

/// A block, without its transactions.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Block)]
pub(super) struct BlockJson {
    #[schema(value_type = Id)]
    id: BlockHash,
    #[schema(value_type = u32)]
    height: Height,
    /// The signed version of the header, as unsigned.
    version: u32,
    timestamp: u32,
    tx_count: u32,
    size: u32,
    weight: u32,
    #[schema(value_type = Id)]
    merkle_root: TxMerkleNode,
    /// `null` for genesis.
    #[schema(value_type = Option<Id>, required = true)]
    previousblockhash: Option<BlockHash>,
    mediantime: u32,
    nonce: u32,
    bits: u32,
    difficulty: f64,
}

impl From<&BlockInfo> for BlockJson {
    fn from(block: &BlockInfo) -> Self {
        let header = &block.header;
        Self {
            id: block.hash,
            height: block.height,
            version: header.version.to_consensus().cast_unsigned(),
            timestamp: header.time,
            tx_count: block.tx_count,
            size: block.size,
            weight: block.weight,
            merkle_root: header.merkle_root,
            previousblockhash: Some(header.prev_blockhash)
                .filter(|hash| *hash != BlockHash::all_zeros()),
            mediantime: block.median_time,
            nonce: header.nonce,
            bits: header.bits.to_consensus(),
            difficulty: header.difficulty_float(),
        }
    }
}

/// Whether a block is in the chain, and what follows it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BlockStatus)]
pub(super) struct BlockStatusJson {
    pub(super) in_best_chain: bool,
    #[schema(value_type = Option<u32>, required = true)]
    pub(super) height: Option<Height>,
    #[schema(value_type = Option<Id>, required = true)]
    pub(super) next_best: Option<BlockHash>,
}

/// Whether and where something is confirmed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TxStatus)]
pub(super) struct StatusJson {
    confirmed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, nullable = false)]
    block_height: Option<Height>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    block_hash: Option<Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    block_time: Option<u32>,
}

impl From<Option<BlockRef>> for StatusJson {
    fn from(block: Option<BlockRef>) -> Self {
        Self {
            confirmed: block.is_some(),
            block_height: block.map(|block| block.height),
            block_hash: block.map(|block| block.hash.into()),
            block_time: block.map(|block| block.time),
        }
    }
}

/// A transaction with the outputs that it spends.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tx)]
pub(super) struct TxJson<'a> {
    txid: Id,
    /// The signed version, as unsigned.
    version: u32,
    locktime: u32,
    vin: Vec<InputJson<'a>>,
    vout: Vec<OutputJson<'a>>,
    size: usize,
    weight: u64,
    /// In satoshis; 0 for a coinbase.
    fee: u64,
    status: StatusJson,
}

impl<'a> TxJson<'a> {
    /// The JSON of a confirmed transaction.
    ///
    /// # Errors
    /// [`RestError::Inconsistent`] if the spent outputs cannot be those of the inputs.
    pub(super) fn new(detail: &'a TxDetail, rendering: Rendering) -> Result<Self, RestError> {
        Self::render(
            &detail.tx,
            detail.txid,
            &detail.prevouts,
            Some(detail.block),
            rendering,
        )
    }

    /// The JSON of a transaction in the mempool.
    ///
    /// # Errors
    /// As [`TxJson::new`].
    pub(super) fn unconfirmed(
        entry: &'a MempoolTx,
        rendering: Rendering,
    ) -> Result<Self, RestError> {
        Self::render(&entry.tx, entry.txid, &entry.prevouts, None, rendering)
    }

    fn render(
        tx: &'a bitcoin::Transaction,
        txid: Txid,
        prevouts: &'a [bitcoin::TxOut],
        block: Option<BlockRef>,
        rendering: Rendering,
    ) -> Result<Self, RestError> {
        let inconsistent = |what| RestError::Inconsistent { txid, what };
        let is_coinbase = tx.is_coinbase();
        if prevouts.len() != if is_coinbase { 0 } else { tx.input.len() } {
            return Err(inconsistent("not one spent output per input"));
        }
        let fee = if is_coinbase {
            0
        } else {
            let spent = total(prevouts).ok_or_else(|| inconsistent("input values overflow"))?;
            let created =
                total(&tx.output).ok_or_else(|| inconsistent("output values overflow"))?;
            spent
                .checked_sub(created)
                .ok_or_else(|| inconsistent("outputs exceed inputs"))?
        };
        // A coinbase has one input and no spent output.
        let spent = prevouts.iter().map(Some).chain(std::iter::repeat(None));
        Ok(Self {
            txid: txid.into(),
            version: tx.version.0.cast_unsigned(),
            locktime: tx.lock_time.to_consensus_u32(),
            vin: (tx.input.iter().zip(spent))
                .map(|(input, prevout)| InputJson::new(input, prevout, is_coinbase, rendering))
                .collect(),
            vout: (tx.output.iter())
                .map(|output| OutputJson::new(output, rendering))
                .collect(),
            size: tx.total_size(),
            weight: tx.weight().to_wu(),
            fee,
            status: block.into(),
        })
    }
}

/// Sum of the values in satoshis, `None` if it does not fit.
fn total(outputs: &[bitcoin::TxOut]) -> Option<u64> {
    (outputs.iter()).try_fold(0_u64, |sum, output| sum.checked_add(output.value.to_sat()))
}

/// An input.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TxInput)]
struct InputJson<'a> {
    txid: Id,
    vout: u32,
    /// `null` for a coinbase.
    #[schema(required = true)]
    prevout: Option<OutputJson<'a>>,
    #[serde(serialize_with = "text::script")]
    #[schema(value_type = Hex)]
    scriptsig: &'a Script,
    #[serde(serialize_with = "text::asm")]
    #[schema(value_type = String)]
    scriptsig_asm: &'a Script,
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "text::witness"
    )]
    #[schema(value_type = Option<Vec<Hex>>, nullable = false)]
    witness: Option<&'a Witness>,
    is_coinbase: bool,
    sequence: u32,
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "text::asm_if_any"
    )]
    #[schema(value_type = Option<String>, nullable = false)]
    inner_redeemscript_asm: Option<&'a Script>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "text::asm_if_any"
    )]
    #[schema(value_type = Option<String>, nullable = false)]
    inner_witnessscript_asm: Option<&'a Script>,
}

impl<'a> InputJson<'a> {
    fn new(
        input: &'a bitcoin::TxIn,
        prevout: Option<&'a bitcoin::TxOut>,
        is_coinbase: bool,
        rendering: Rendering,
    ) -> Self {
        let inner =
            prevout.map(|out| script::InnerScripts::of(input, &out.script_pubkey, rendering.types));
        Self {
            txid: input.previous_output.txid.into(),
            vout: input.previous_output.vout,
            prevout: prevout.map(|out| OutputJson::new(out, rendering)),
            scriptsig: &input.script_sig,
            scriptsig_asm: &input.script_sig,
            witness: Some(&input.witness).filter(|witness| !witness.is_empty()),
            is_coinbase,
            sequence: input.sequence.to_consensus_u32(),
            inner_redeemscript_asm: inner.as_ref().and_then(|inner| inner.redeem),
            inner_witnessscript_asm: inner.as_ref().and_then(|inner| inner.witness),
        }
    }
}

/// An output.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TxOutput)]
struct OutputJson<'a> {
    #[serde(serialize_with = "text::script")]
    #[schema(value_type = Hex)]
    scriptpubkey: &'a Script,
    #[serde(serialize_with = "text::asm")]
    #[schema(value_type = String)]
    scriptpubkey_asm: &'a Script,
    #[schema(value_type = script::TypeName)]
    scriptpubkey_type: &'static str,
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "text::address"
    )]
    #[schema(value_type = Option<String>, nullable = false)]
    scriptpubkey_address: Option<Address>,
    /// In satoshis.
    value: u64,
}

impl<'a> OutputJson<'a> {
    fn new(output: &'a bitcoin::TxOut, rendering: Rendering) -> Self {
        let script = output.script_pubkey.as_script();
        Self {
            scriptpubkey: script,
            scriptpubkey_asm: script,
            scriptpubkey_type: script::type_name(script, rendering.types),
            scriptpubkey_address: script::address(script, rendering.network),
            value: output.value.to_sat(),
        }
    }
}

/// Whether and by what an output is spent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Outspend)]
pub(super) struct OutspendJson {
    spent: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    txid: Option<Id>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    vin: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    status: Option<StatusJson>,
}

impl OutspendJson {
    /// Spent by a transaction in the mempool.
    pub(super) fn unconfirmed(txid: Txid, vin: u32) -> Self {
        Self {
            spent: true,
            txid: Some(txid.into()),
            vin: Some(vin),
            status: Some(None.into()),
        }
    }

    /// Not spent, or unknown.
    pub(super) const fn unspent() -> Self {
        Self {
            spent: false,
            txid: None,
            vin: None,
            status: None,
        }
    }
}

impl From<Spender> for OutspendJson {
    fn from(spender: Spender) -> Self {
        Self {
            spent: true,
            txid: Some(spender.txid.into()),
            vin: Some(spender.vin),
            status: Some(Some(spender.block).into()),
        }
    }
}

/// Proof that a transaction is in a block.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MerkleProof)]
pub(super) struct MerkleProofJson {
    #[schema(value_type = u32)]
    block_height: Height,
    merkle: Vec<Id>,
    pos: u32,
}

impl From<MerkleProof> for MerkleProofJson {
    fn from(proof: MerkleProof) -> Self {
        Self {
            block_height: proof.block.height,
            merkle: proof.merkle.into_iter().map(Id::from).collect(),
            pos: proof.pos,
        }
    }
}

/// Totals of an address or scripthash. Exactly one of the two names is set.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ScriptStats)]
pub(super) struct StatsJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    address: Option<&'a str>,
    chain_stats: TotalsJson,
    mempool_stats: TotalsJson,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false)]
    scripthash: Option<&'a str>,
}

impl<'a> StatsJson<'a> {
    /// Confirmed and unconfirmed totals of `of`.
    pub(super) fn new(of: &'a Subject, chain: ScriptStats, mempool: ScriptMempoolTotals) -> Self {
        let name = |kind| (of.kind == kind).then_some(of.text.as_str());
        Self {
            address: name(SubjectKind::Address),
            chain_stats: chain.into(),
            mempool_stats: mempool.into(),
            scripthash: name(SubjectKind::Scripthash),
        }
    }
}

/// Confirmed or unconfirmed totals of a script.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ScriptTotals)]
pub(super) struct TotalsJson {
    funded_txo_count: u64,
    funded_txo_sum: u64,
    spent_txo_count: u64,
    spent_txo_sum: u64,
    tx_count: u64,
}

impl From<ScriptStats> for TotalsJson {
    fn from(stats: ScriptStats) -> Self {
        Self {
            funded_txo_count: stats.funded_txo_count,
            funded_txo_sum: stats.funded_txo_sum,
            spent_txo_count: stats.spent_txo_count,
            spent_txo_sum: stats.spent_txo_sum,
            tx_count: stats.tx_count,
        }
    }
}

impl From<ScriptMempoolTotals> for TotalsJson {
    fn from(totals: ScriptMempoolTotals) -> Self {
        Self {
            funded_txo_count: totals.funded_count,
            funded_txo_sum: totals.funded_sat,
            spent_txo_count: totals.spent_count,
            spent_txo_sum: totals.spent_sat,
            tx_count: totals.tx_count,
        }
    }
}

/// What a script was worth with a block.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Balance)]
pub(super) struct BalanceJson {
    #[schema(value_type = u32)]
    block_height: Height,
    block_hash: Id,
    block_time: u32,
    /// In satoshis.
    balance: u64,
}

impl BalanceJson {
    pub(super) fn new(block: BlockRef, balance: u64) -> Self {
        Self {
            block_height: block.height,
            block_hash: block.hash.into(),
            block_time: block.time,
            balance,
        }
    }
}

/// What a block did to a script.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BalanceChange)]
pub(super) struct BalanceChangeJson {
    #[schema(value_type = u32)]
    block_height: Height,
    block_hash: Id,
    block_time: u32,
    /// Its transactions that touch the script.
    tx_count: u32,
    /// In satoshis; negative if it spends more.
    change: i64,
    /// With the block, in satoshis.
    balance: u64,
}

impl From<BalanceChange> for BalanceChangeJson {
    fn from(change: BalanceChange) -> Self {
        Self {
            block_height: change.block.height,
            block_hash: change.block.hash.into(),
            block_time: change.block.time,
            tx_count: change.tx_count,
            change: change.change,
            balance: change.balance,
        }
    }
}

/// What a confirmed transaction changed for a script.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TxSummary)]
pub(super) struct SummaryJson {
    txid: Id,
    #[schema(value_type = u32)]
    height: Height,
    /// What it paid less what it spent, in satoshis.
    value: i64,
    /// Time of its block.
    time: u32,
    /// Its position in the block.
    tx_position: u32,
}

impl SummaryJson {
    /// `position` in its block, `value` in satoshis.
    pub(super) fn new(detail: &TxDetail, position: u32, value: i64) -> Self {
        Self {
            txid: detail.txid.into(),
            height: detail.block.height,
            value,
            time: detail.block.time,
            tx_position: position,
        }
    }
}

/// An unspent output.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Utxo)]
pub(super) struct UtxoJson<'a> {
    txid: Id,
    vout: u32,
    status: StatusJson,
    /// In satoshis.
    value: u64,
    /// Only if it was asked for.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "text::script_if_any"
    )]
    #[schema(value_type = Option<Hex>, nullable = false)]
    scriptpubkey: Option<&'a Script>,
}

impl<'a> UtxoJson<'a> {
    /// The same with its script.
    pub(super) fn with_script(self, scriptpubkey: Option<&'a Script>) -> Self {
        Self {
            scriptpubkey,
            ..self
        }
    }

    /// An output of a transaction in the mempool.
    pub(super) fn unconfirmed(outpoint: OutPoint, value: Amount) -> Self {
        Self {
            txid: outpoint.txid.into(),
            vout: outpoint.vout,
            status: None.into(),
            value: value.to_sat(),
            scriptpubkey: None,
        }
    }
}

impl From<Utxo> for UtxoJson<'_> {
    fn from(utxo: Utxo) -> Self {
        Self {
            txid: utxo.outpoint.txid.into(),
            vout: utxo.outpoint.vout,
            status: Some(utxo.block).into(),
            value: utxo.value,
            scriptpubkey: None,
        }
    }
}

#[cfg(test)]
mod tests;
