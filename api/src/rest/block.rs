//! Blocks: B1 to B11 and G1 of the Esplora contract (docs/api.md).

use pulse_indexer::query::model::BlockInfo;
use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, consensus::encode::serialize_hex},
};

use super::{
    error::RestError,
    list::{List, Outlet, send_bytes},
    model::{BlockJson, BlockStatusJson, Id, TxJson},
    openapi::Paths,
    reply::{Cache, Reply},
    snapshot::Snapshot,
};
use crate::state::ApiState;

/// Blocks in one list.
const BLOCKS_PER_PAGE: Height = 10;
/// Transactions of a block in one list.
const TXS_PER_PAGE: u32 = 25;

type Answer = Result<Reply, RestError>;

/// B1: hash of the tip.
pub(super) fn tip_hash(at: &Snapshot<'_>) -> Answer {
    at.require_synced()?;
    Ok(Reply::text(at.tip()?.hash, Cache::Short))
}

/// B2: height of the tip.
pub(super) fn tip_height(at: &Snapshot<'_>) -> Answer {
    at.require_synced()?;
    Ok(Reply::text(at.tip()?.height, Cache::Short))
}

/// B3: up to ten blocks downwards from `start`, or from the tip.
pub(super) fn newest(at: &Snapshot<'_>, start: Option<u64>) -> Answer {
    let start = match start {
        None => {
            at.require_synced()?;
            at.tip()?.height
        }
        // What does not fit is above every tip.
        Some(height) => {
            Height::try_from(height).map_err(|_| at.absent(RestError::BlockNotFound))?
        }
    };
    let blocks = (0..=start)
        .rev()
        .take(BLOCKS_PER_PAGE as usize)
        .map(|height| Ok(BlockJson::from(&at_height(at, height)?)))
        .collect::<Result<Vec<_>, RestError>>()?;
    Ok(Reply::json(&blocks, Cache::Short))
}

/// B4: hash of the block at a height.
pub(super) fn hash_at(at: &Snapshot<'_>, height: u64) -> Answer {
    let height = Height::try_from(height).map_err(|_| at.absent(RestError::BlockNotFound))?;
    let block = at_height(at, height)?;
    Ok(Reply::text(block.hash, at.cache_at(height)))
}

/// B5: a block without its transactions.
pub(super) fn info(at: &Snapshot<'_>, hash: &BlockHash) -> Answer {
    let block = known(at, hash)?;
    Ok(Reply::json(&BlockJson::from(&block), Cache::Long))
}

/// B6: whether a block is in the best chain. Unknown and stale blocks are not; that is
/// an answer, not an error.
pub(super) fn status(at: &Snapshot<'_>, hash: &BlockHash) -> Answer {
    let Some(block) = at.view.block_by_hash(hash)? else {
        at.require_synced()?;
        let status = BlockStatusJson {
            in_best_chain: false,
            height: None,
            next_best: None,
        };
        return Ok(Reply::json(&status, Cache::Short));
    };
    let next = match block.height.checked_add(1) {
        Some(height) => at.view.block_at(height)?,
        None => None,
    };
    if next.is_none() {
        at.require_synced()?;
    }
    let status = BlockStatusJson {
        in_best_chain: true,
        height: Some(block.height),
        next_best: next.map(|block| block.hash),
    };
    Ok(Reply::json(&status, at.cache_at(block.height)))
}

/// B7: the header as 160 hex digits.
pub(super) fn header(at: &Snapshot<'_>, hash: &BlockHash) -> Answer {
    let block = known(at, hash)?;
    Ok(Reply::text(serialize_hex(&block.header), Cache::Long))
}

/// B8: the serialised block.
pub(super) fn raw(state: &ApiState, hash: &BlockHash, outlet: Outlet) -> Answer {
    let at = Snapshot::take(state)?;
    let bytes = at.view.block_raw(&known(&at, hash)?)?;
    // It takes no rows to send them.
    drop(at);
    send_bytes(outlet, bytes, Cache::Settled(*hash))
}

/// B9: ids of the block's transactions.
pub(super) fn txids(state: &ApiState, hash: &BlockHash, outlet: Outlet) -> Answer {
    let at = Snapshot::take(state)?;
    let txids = at.view.block_txids(&known(&at, hash)?)?;
    drop(at);
    let mut list = List::new(outlet, Cache::Settled(*hash), None);
    for txid in txids.iter() {
        list.push(&Id::from(*txid))?;
    }
    list.finish()
}

/// B10: id of one transaction of the block.
pub(super) fn txid(at: &Snapshot<'_>, hash: &BlockHash, index: u64) -> Answer {
    let block = known(at, hash)?;
    let txids = at.view.block_txids(&block)?;
    let txid = usize::try_from(index)
        .ok()
        .and_then(|index| txids.get(index))
        .ok_or(RestError::TxIndexOutOfRange)?;
    Ok(Reply::text(txid, Cache::Settled(*hash)))
}

/// B11: up to 25 transactions of the block from `start`.
pub(super) fn txs(state: &ApiState, hash: &BlockHash, start: u32, outlet: Outlet) -> Answer {
    let at = Snapshot::take(state)?;
    let block = known(&at, hash)?;
    if !start.is_multiple_of(TXS_PER_PAGE) {
        return Err(RestError::StartIndexNotMultiple);
    }
    if start >= block.tx_count {
        return Err(RestError::StartIndexOutOfRange);
    }
    let details = at.view.block_txs(&block, start, TXS_PER_PAGE)?;
    let mut list = List::new(outlet, at.settled_at(block.height, block.hash), None);
    let rendering = at.rendering();
    drop(at);
    for detail in details {
        list.push(&TxJson::new(&detail, rendering)?)?;
    }
    list.finish()
}

/// G1: a block to mine. This node makes none.
pub(super) fn template() -> Answer {
    Err(RestError::MiningOff)
}

fn known(at: &Snapshot<'_>, hash: &BlockHash) -> Result<BlockInfo, RestError> {
    at.view
        .block_by_hash(hash)?
        .ok_or_else(|| at.absent(RestError::BlockNotFound))
}

fn at_height(at: &Snapshot<'_>, height: Height) -> Result<BlockInfo, RestError> {
    at.view
        .block_at(height)?
        .ok_or_else(|| at.absent(RestError::BlockNotFound))
}

/// The description of these routes.
pub(super) fn describe(paths: &mut Paths) {
    const HASH: &str = "^[0-9a-f]{64}$";
    let by_depth = [Cache::Short, Cache::Long];
    paths.tag("Blocks", "Blocks of the best chain");
    paths
        .get("/blocks/tip/hash", "Hash of the tip")
        .text(HASH, &[Cache::Short]);
    paths
        .get("/blocks/tip/height", "Height of the tip")
        .text("^[0-9]+$", &[Cache::Short]);
    for (template, summary) in [
        ("/blocks", "The newest ten blocks"),
        (
            "/blocks/:start_height",
            "Ten blocks downwards from a height, which counts",
        ),
    ] {
        paths
            .get(template, summary)
            .list::<BlockJson>(Some(BLOCKS_PER_PAGE), &[Cache::Short])
            .error(RestError::BlockNotFound);
    }
    paths
        .get("/block-height/:height", "Hash of the block at a height")
        .text(HASH, &by_depth)
        .error(RestError::BlockNotFound);
    paths
        .get("/block/:hash", "A block without its transactions")
        .json::<BlockJson>(&[Cache::Long])
        .error(RestError::BlockNotFound);
    paths
        .get(
            "/block/:hash/status",
            "Whether a block is in the best chain",
        )
        .about("Unknown and stale blocks are not; that is an answer, not an error.")
        .json::<BlockStatusJson>(&by_depth);
    paths
        .get("/block/:hash/header", "The header of a block as hex")
        .text("^[0-9a-f]{160}$", &[Cache::Long])
        .error(RestError::BlockNotFound);
    paths
        .get("/block/:hash/raw", "A block as bytes, with witnesses")
        .binary(&[Cache::Long])
        .error(RestError::BlockNotFound);
    paths
        .get(
            "/block/:hash/txids",
            "Ids of a block's transactions, in its order",
        )
        .list::<Id>(None, &[Cache::Long])
        .error(RestError::BlockNotFound);
    paths
        .get(
            "/block/:hash/txid/:index",
            "Id of one transaction of a block",
        )
        .text(HASH, &[Cache::Long])
        .error(RestError::BlockNotFound)
        .error(RestError::TxIndexOutOfRange);
    for (template, summary) in [
        ("/block/:hash/txs", "The first 25 transactions of a block"),
        (
            "/block/:hash/txs/:start_index",
            "25 transactions of a block from a place",
        ),
    ] {
        paths
            .get(template, summary)
            .list::<TxJson<'_>>(Some(TXS_PER_PAGE), &by_depth)
            .error(RestError::BlockNotFound)
            .error(RestError::StartIndexNotMultiple)
            .error(RestError::StartIndexOutOfRange);
    }
    paths
        .own_get(
            "/block-template",
            "What a miner works on; not made by this node",
        )
        .error(RestError::MiningOff);
}
