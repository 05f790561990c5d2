//! The way from one tip to another, block by block, for those who tell clients what a block
//! has touched.
//!
//! # Limits
//! At most [`MAX_BLOCKS`] are read; who has more before it takes everything for touched.

use pulse_indexer::query::{Query, QueryError, View};
use pulse_primitives::{
    bitcoin::hashes::Hash, block::ConnectedBlock, mempool::ScriptHash, tip::ChainTip,
};
use tracing::warn;

/// Blocks that are read on the way from one tip to another.
const MAX_BLOCKS: usize = 50;

/// The blocks between `from` and `to`, the tip of `view`: stale ones first, newest first, then
/// new ones, oldest first. `None` if there are too many, or some cannot be read.
///
/// # Errors
/// A failed read of the index.
pub(crate) fn between(
    query: &Query,
    view: &View<'_>,
    from: ChainTip,
    to: ChainTip,
) -> Result<Option<Vec<ConnectedBlock>>, QueryError> {
    let mut blocks = Vec::new();
    let (mut height, mut hash) = (from.height, from.hash);
    while view.block_hash_at(height)? != Some(hash) {
        match query.connected_block(&hash, height) {
            Ok(block) if blocks.len() < MAX_BLOCKS && height > 0 => {
                hash = block.block.header.prev_blockhash;
                blocks.push(block);
                height -= 1;
            }
            Ok(_) => return Ok(None),
            Err(err) => {
                warn!(height, %hash, %err, "a stale block cannot be read");
                return Ok(None);
            }
        }
    }
    for height in height + 1..=to.height {
        let Some(hash) = view.block_hash_at(height)? else {
            return Ok(None);
        };
        match query.connected_block(&hash, height) {
            Ok(block) if blocks.len() < MAX_BLOCKS => blocks.push(block),
            Ok(_) => return Ok(None),
            Err(err) => {
                warn!(height, %hash, %err, "a block cannot be read");
                return Ok(None);
            }
        }
    }
    Ok(Some(blocks))
}

/// Scripts that `block` pays or spends from; the same one may occur several times.
pub(crate) fn scripts(block: &ConnectedBlock) -> impl Iterator<Item = ScriptHash> + '_ {
    let outputs = block.block.txdata.iter().flat_map(|tx| &tx.output);
    let spent = block.spent.iter().flatten().map(|spent| &spent.output);
    outputs
        .chain(spent)
        .map(|output| ScriptHash::hash(output.script_pubkey.as_bytes()))
}
