//! Blocks as peers ask for them: whole, stripped of witnesses, compact, or some of their
//! transactions.
//!
//! Synchronous; touches the disk.
//!
//! # Limits
//! The newest blocks are kept as they go over the wire, so that a block that many peers
//! ask for at once is read, and made compact, once.

use std::sync::{Arc, OnceLock};

use pulse_primitives::bitcoin::{
    Block, BlockHash, Witness,
    bip152::{BlockTransactions, BlockTransactionsRequest},
    consensus::{deserialize, serialize},
};
use quick_cache::sync::Cache;
use tracing::warn;

use crate::{
    chain::{Chain, FreshBlock},
    net::Outgoing,
    p2p::compact::compact_block,
};

/// Blocks that are kept, each up to 4 MB.
const RECENT: usize = 4;

/// A block in the forms that are asked for most.
struct Recent {
    bytes: Vec<u8>,
    whole: OnceLock<Outgoing>,
    compact: OnceLock<Option<Outgoing>>,
}

/// A question for transactions that the block does not have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OutOfRange;

/// Blocks of the kernel's files, and those that are about to be written to them.
pub(super) struct Blocks {
    chain: Chain,
    recent: Cache<BlockHash, Arc<Recent>>,
}

impl Blocks {
    pub fn new(chain: Chain) -> Self {
        Self {
            chain,
            recent: Cache::new(RECENT),
        }
    }

    /// The block with its witnesses.
    pub fn whole(&self, hash: &BlockHash, is_recent: bool) -> Option<Outgoing> {
        if !is_recent {
            return Some(raw("block", self.read(hash)?));
        }
        let recent = self.recent(hash)?;
        let whole = recent
            .whole
            .get_or_init(|| raw("block", recent.bytes.clone()));
        Some(whole.clone())
    }

    /// The block as nodes before segregated witnesses know it (BIP 144).
    pub fn stripped(&self, hash: &BlockHash) -> Option<Outgoing> {
        let mut block = self.decode(hash, &self.read(hash)?)?;
        for input in block.txdata.iter_mut().flat_map(|tx| &mut tx.input) {
            input.witness = Witness::new();
        }
        Some(raw("block", serialize(&block)))
    }

    /// The block in compact form (BIP 152), for a recent one.
    pub fn compact(&self, hash: &BlockHash) -> Option<Outgoing> {
        self.compact_of(hash, self.recent(hash)?.as_ref())
    }

    /// A block that the kernel's files need not have yet, in compact form.
    pub fn fresh_compact(&self, fresh: &FreshBlock) -> Option<Outgoing> {
        self.compact_of(&fresh.tip.hash, self.keep(fresh)?.as_ref())
    }

    fn compact_of(&self, hash: &BlockHash, recent: &Recent) -> Option<Outgoing> {
        let compact = recent.compact.get_or_init(|| {
            let block = self.decode(hash, &recent.bytes)?;
            let compact = compact_block(&block, rand::random())?;
            Some(raw("cmpctblock", serialize(&compact)))
        });
        compact.clone()
    }

    /// Some transactions of a block, in the order asked for; `None` if it cannot be read. `fresh`: the
    /// block, if the kernel's files need not have it yet.
    pub fn transactions(
        &self,
        request: &BlockTransactionsRequest,
        is_recent: bool,
        fresh: Option<&FreshBlock>,
    ) -> Result<Option<Outgoing>, OutOfRange> {
        let hash = &request.block_hash;
        let block = if is_recent || fresh.is_some() {
            fresh
                .map_or_else(|| self.recent(hash), |fresh| self.keep(fresh))
                .and_then(|recent| self.decode(hash, &recent.bytes))
        } else {
            self.read(hash).and_then(|bytes| self.decode(hash, &bytes))
        };
        let Some(block) = block else {
            return Ok(None);
        };
        let transactions =
            BlockTransactions::from_request(request, &block).map_err(|_| OutOfRange)?;
        Ok(Some(raw("blocktxn", serialize(&transactions))))
    }

    /// Keeps a block that the kernel's files do not have yet.
    fn keep(&self, fresh: &FreshBlock) -> Option<Arc<Recent>> {
        self.recent_or(&fresh.tip.hash, || Some(fresh.bytes.to_vec()))
    }

    fn recent(&self, hash: &BlockHash) -> Option<Arc<Recent>> {
        self.recent_or(hash, || self.read(hash))
    }

    fn recent_or(
        &self,
        hash: &BlockHash,
        read: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Option<Arc<Recent>> {
        let load = || {
            let recent = Recent {
                bytes: read().ok_or(())?,
                whole: OnceLock::new(),
                compact: OnceLock::new(),
            };
            Ok::<_, ()>(Arc::new(recent))
        };
        // Who asks for the same block at the same time waits for the one read.
        self.recent.get_or_insert_with(hash, load).ok()
    }

    fn read(&self, hash: &BlockHash) -> Option<Vec<u8>> {
        let bytes = self.chain.block_bytes(hash);
        bytes
            .inspect_err(|err| warn!(%hash, %err, "a block cannot be served"))
            .ok()
    }

    fn decode(&self, hash: &BlockHash, bytes: &[u8]) -> Option<Block> {
        deserialize(bytes)
            .inspect_err(|err| warn!(%hash, %err, "a block cannot be served"))
            .ok()
    }
}

fn raw(command: &'static str, payload: Vec<u8>) -> Outgoing {
    Outgoing::Raw {
        command,
        payload: payload.into(),
    }
}
