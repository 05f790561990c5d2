//! Transactions: T1 to T8 of the Esplora contract, and what became of those that left the
//! mempool (docs/api.md).

use pulse_indexer::query::model::Spender;
use pulse_primitives::{
    bitcoin::{
        OutPoint, Txid,
        consensus::{encode::serialize_hex, serialize},
        hex::DisplayHex,
    },
    mempool::MempoolTx,
};

use super::{
    error::RestError,
    model::{MerkleProofJson, OutspendJson, RemovedJson, StatusJson, TxJson},
    openapi::Paths,
    reply::{Cache, Reply},
    snapshot::Snapshot,
    unconfirmed::{Found, find, with_mempool},
};
use crate::state::ApiState;

type Answer = Result<Reply, RestError>;

/// T1: a transaction with the outputs that it spends.
pub(super) fn info(state: &ApiState, txid: &Txid) -> Answer {
    let (at, found) = find(state, |view| view.tx(txid), |mempool| mempool.tx(txid))?;
    match found.ok_or(RestError::TxNotFound)? {
        Found::Confirmed(detail) => {
            let tx = TxJson::new(&detail, at.rendering())?;
            let block = detail.block;
            Ok(Reply::json(&tx, at.settled_at(block.height, block.hash)))
        }
        Found::Unconfirmed(entry) => {
            let tx = TxJson::unconfirmed(&entry, at.rendering())?;
            Ok(Reply::json(&tx, Cache::Short))
        }
    }
}

/// T2: its bytes as lower-case hex.
pub(super) fn hex(state: &ApiState, txid: &Txid) -> Answer {
    let (bytes, cache) = bytes(state, txid)?;
    Ok(Reply::text(bytes.to_lower_hex_string(), cache))
}

/// T3: its bytes.
pub(super) fn raw(state: &ApiState, txid: &Txid) -> Answer {
    let (bytes, cache) = bytes(state, txid)?;
    Ok(Reply::binary(bytes, cache))
}

fn bytes(state: &ApiState, txid: &Txid) -> Result<(Vec<u8>, Cache), RestError> {
    let (at, found) = find(state, |view| view.tx_raw(txid), |mempool| mempool.tx(txid))?;
    Ok(match found.ok_or(RestError::TxNotFound)? {
        Found::Confirmed((bytes, block)) => (bytes, at.settled_at(block.height, block.hash)),
        Found::Unconfirmed(MempoolTx { tx, .. }) => (serialize(&*tx), Cache::Short),
    })
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
    let cache = at.settled_at(proof.block.height, proof.block.hash);
    Ok(Reply::json(&MerkleProofJson::from(proof), cache))
}

/// T6: a `merkleblock` message (BIP 37) that matches exactly this transaction, as hex.
pub(super) fn merkle_block_proof(at: &Snapshot<'_>, txid: &Txid) -> Answer {
    let found = at.view.merkle_block(txid)?;
    let (proof, block) = found.ok_or_else(|| at.absent(RestError::ProofNotFound))?;
    let cache = at.settled_at(block.height, block.hash);
    Ok(Reply::text(serialize_hex(&proof), cache))
}

/// T7: what spends an output, a confirmed transaction before one in the mempool. Unknown
/// and unspendable outputs are unspent; that is an answer, not an error.
pub(super) fn outspend(state: &ApiState, outpoint: &OutPoint) -> Answer {
    let (at, found) = find(
        state,
        |view| view.spender(outpoint),
        |mempool| mempool.spender(outpoint),
    )?;
    let (outspend, cache) = match found {
        Some(Found::Confirmed(spender)) => (
            OutspendJson::from(spender),
            at.cache_at(spender.block.height),
        ),
        Some(Found::Unconfirmed((txid, vin))) => {
            (OutspendJson::unconfirmed(txid, vin), Cache::Short)
        }
        None => (OutspendJson::unspent(), Cache::Short),
    };
    Ok(Reply::json(&outspend, cache))
}

/// T8: what spends each output.
pub(super) fn outspends(state: &ApiState, txid: &Txid) -> Answer {
    let at = Snapshot::take(state)?;
    let confirmed = at.view.spenders(txid)?;
    let tip = at.view.tip();
    if let Some(spenders) = &confirmed
        && spenders.iter().all(Option::is_some)
    {
        // Nothing is left for a later block or the mempool to spend.
        return Ok(outspend_list(spenders, &[]));
    }
    drop(at);
    // How many outputs there are never changes, wherever the transaction moves meanwhile.
    let count = match &confirmed {
        Some(spenders) => spenders.len(),
        None => {
            let (_, found) = find(
                state,
                |view| Ok(view.spenders(txid)?.map(|spenders| spenders.len())),
                |mempool| Some(mempool.tx(txid)?.tx.output.len()),
            )?;
            let (Found::Confirmed(count) | Found::Unconfirmed(count)) =
                found.ok_or(RestError::TxNotFound)?;
            count
        }
    };
    let (at, unconfirmed) = with_mempool(state, |mempool| {
        outpoints(*txid, count)
            .map(|outpoint| mempool.spender(&outpoint))
            .collect::<Vec<_>>()
    })?;
    let confirmed = match confirmed {
        Some(spenders) if at.view.tip() == tip => Some(spenders),
        _ => at.view.spenders(txid)?,
    };
    let confirmed = confirmed.unwrap_or_else(|| vec![None; count]);
    Ok(outspend_list(&confirmed, &unconfirmed.unwrap_or_default()))
}

/// One outspend per output: its confirmed spender, else the unconfirmed one at the same
/// place.
pub(super) fn outspend_entries(
    confirmed: &[Option<Spender>],
    unconfirmed: &[Option<(Txid, u32)>],
) -> impl Iterator<Item = OutspendJson> {
    let unconfirmed = unconfirmed.iter().copied().chain(std::iter::repeat(None));
    (confirmed.iter().zip(unconfirmed)).map(|spenders| match spenders {
        (Some(spender), _) => OutspendJson::from(*spender),
        (None, Some((txid, vin))) => OutspendJson::unconfirmed(txid, vin),
        (None, None) => OutspendJson::unspent(),
    })
}

fn outspend_list(confirmed: &[Option<Spender>], unconfirmed: &[Option<(Txid, u32)>]) -> Reply {
    let outspends: Vec<_> = outspend_entries(confirmed, unconfirmed).collect();
    Reply::json(&outspends, Cache::Short)
}

fn outpoints(txid: Txid, count: usize) -> impl Iterator<Item = OutPoint> {
    (0..).take(count).map(move |vout| OutPoint { txid, vout })
}

/// Why a transaction left the mempool without being confirmed. Not part of Esplora.
pub(super) fn removed(state: &ApiState, txid: &Txid) -> Answer {
    Snapshot::take(state)?.require_complete()?;
    let (_, found) = find(
        state,
        |view| view.tx_block(txid),
        |mempool| match mempool.tx(txid) {
            Some(_) => None,
            None => mempool.removed(txid),
        },
    )?;
    match found {
        Some(Found::Unconfirmed(removed)) => Ok(Reply::json(
            &RemovedJson::new(*txid, &removed),
            Cache::Short,
        )),
        Some(Found::Confirmed(_)) | None => Err(RestError::NotRemoved),
    }
}

/// The description of these routes.
pub(super) fn describe(paths: &mut Paths) {
    let by_depth = [Cache::Short, Cache::Long];
    paths.tag("Transactions", "Transactions, confirmed or in the mempool");
    paths
        .get("/tx/:txid", "A transaction with the outputs that it spends")
        .json::<TxJson<'_>>(&by_depth)
        .error(RestError::TxNotFound);
    paths
        .get("/tx/:txid/hex", "A transaction as hex, with witnesses")
        .text("^([0-9a-f]{2})+$", &by_depth)
        .error(RestError::TxNotFound);
    paths
        .get("/tx/:txid/raw", "A transaction as bytes, with witnesses")
        .binary(&by_depth)
        .error(RestError::TxNotFound);
    paths
        .get(
            "/tx/:txid/status",
            "Whether and where a transaction is confirmed",
        )
        .about("Unknown ones are not; that is an answer, not an error.")
        .json::<StatusJson>(&by_depth);
    paths
        .get(
            "/tx/:txid/merkle-proof",
            "Proof that a transaction is in its block",
        )
        .json::<MerkleProofJson>(&by_depth)
        .error(RestError::ProofNotFound);
    paths
        .get(
            "/tx/:txid/merkleblock-proof",
            "The same as a `merkleblock` message (BIP 37) in hex",
        )
        .text("^([0-9a-f]{2})+$", &by_depth)
        .error(RestError::ProofNotFound);
    paths
        .get(
            "/tx/:txid/outspend/:vout",
            "Whether and by what an output is spent",
        )
        .about("Unknown outputs are not; that is an answer, not an error.")
        .json::<OutspendJson>(&by_depth);
    paths
        .get(
            "/tx/:txid/outspends",
            "The same for each output of a transaction",
        )
        .list::<OutspendJson>(None, &[Cache::Short])
        .error(RestError::TxNotFound);
    paths
        .get(
            "/tx/:txid/removed",
            "Why a transaction left the mempool without being confirmed",
        )
        .about("Not Esplora. It is remembered for a while.")
        .json::<RemovedJson>(&[Cache::Short])
        .of_mempool()
        .error(RestError::NotRemoved);
}
