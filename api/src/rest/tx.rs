//! Transactions: T1 to T8 of the Esplora contract (docs/api.md).

use pulse_primitives::bitcoin::{
    OutPoint, Txid, consensus::encode::serialize_hex, hex::DisplayHex,
};

use super::{
    error::RestError,
    model::{MerkleProofJson, OutspendJson, StatusJson, TxJson},
    reply::{Cache, Reply},
    snapshot::Snapshot,
};

type Answer = Result<Reply, RestError>;

/// T1: a transaction with the outputs that it spends.
pub(super) fn info(at: &Snapshot<'_>, txid: &Txid) -> Answer {
    let detail = known(at, at.view.tx(txid)?)?;
    let tx = TxJson::new(&detail, at.network())?;
    Ok(Reply::json(&tx, at.cache_at(detail.block.height)))
}

/// T2: its bytes as lower-case hex.
pub(super) fn hex(at: &Snapshot<'_>, txid: &Txid) -> Answer {
    let (bytes, block) = known(at, at.view.tx_raw(txid)?)?;
    let cache = at.cache_at(block.height);
    Ok(Reply::text(bytes.to_lower_hex_string(), cache))
}

/// T3: its bytes.
pub(super) fn raw(at: &Snapshot<'_>, txid: &Txid) -> Answer {
    let (bytes, block) = known(at, at.view.tx_raw(txid)?)?;
    Ok(Reply::binary(bytes, at.cache_at(block.height)))
}

/// T4: whether and where it is confirmed. Unknown ones are not; that is an answer, not
/// an error.
pub(super) fn status(at: &Snapshot<'_>, txid: &Txid) -> Answer {
    let block = at.view.tx_block(txid)?;
    let cache = match &block {
        Some(block) => at.cache_at(block.height),
        None => {
            at.require_synced()?;
            Cache::Short
        }
    };
    Ok(Reply::json(&StatusJson::from(block), cache))
}

/// T5: its merkle branch.
pub(super) fn merkle_proof(at: &Snapshot<'_>, txid: &Txid) -> Answer {
    let proof = (at.view.merkle_proof(txid)?).ok_or_else(|| at.absent(RestError::ProofNotFound))?;
    let cache = at.cache_at(proof.block_height);
    Ok(Reply::json(&MerkleProofJson::from(proof), cache))
}

/// T6: a `merkleblock` message (BIP 37) that matches exactly this transaction, as hex.
pub(super) fn merkle_block_proof(at: &Snapshot<'_>, txid: &Txid) -> Answer {
    let proof = (at.view.merkle_block(txid)?).ok_or_else(|| at.absent(RestError::ProofNotFound))?;
    let cache = match at.view.block_by_hash(&proof.header.block_hash())? {
        Some(block) => at.cache_at(block.height),
        None => Cache::Short,
    };
    Ok(Reply::text(serialize_hex(&proof), cache))
}

/// T7: what spends an output. Unknown and unspendable outputs are unspent; that is an
/// answer, not an error.
pub(super) fn outspend(at: &Snapshot<'_>, outpoint: &OutPoint) -> Answer {
    at.require_synced()?;
    let spender = at.view.spender(outpoint)?;
    let cache = match &spender {
        Some(spender) => at.cache_at(spender.block.height),
        None => Cache::Short,
    };
    Ok(Reply::json(&OutspendJson::from(spender), cache))
}

/// T8: what spends each output.
pub(super) fn outspends(at: &Snapshot<'_>, txid: &Txid) -> Answer {
    at.require_synced()?;
    let spenders = known(at, at.view.spenders(txid)?)?;
    let outspends: Vec<OutspendJson> = spenders.into_iter().map(Into::into).collect();
    Ok(Reply::json(&outspends, Cache::Short))
}

fn known<T>(at: &Snapshot<'_>, found: Option<T>) -> Result<T, RestError> {
    found.ok_or_else(|| at.absent(RestError::TxNotFound))
}
