//! What a peer's questions are answered with.

use std::{iter::successors, sync::Arc};

use pulse_primitives::{
    Height,
    bitcoin::{
        Block, BlockHash, Witness, Work,
        block::Header,
        consensus::{deserialize, serialize},
        hashes::{Hash, sha256d},
    },
    ports::{BlockSource, BlockSourceError},
    tip::ChainTip,
};
use tokio::sync::watch;
use tracing::warn;

use crate::{
    chain::Chain,
    headers::{HeaderStore, MAX_HEADERS},
};

/// Most headers of an announcement; a longer way is left to `getheaders` (Bitcoin
/// Core's `MAX_BLOCKS_TO_ANNOUNCE`).
const MAX_ANNOUNCED: usize = 8;

/// The active chain as peers may ask about it. Synchronous.
pub(super) struct Answers {
    chain: Chain,
    headers: Arc<HeaderStore>,
    min_chain_work: Work,
}

impl Answers {
    pub fn new(chain: Chain, headers: Arc<HeaderStore>, min_chain_work: Work) -> Self {
        Self {
            chain,
            headers,
            min_chain_work,
        }
    }

    /// Watch of the active tip.
    pub fn tip(&self) -> watch::Receiver<ChainTip> {
        self.chain.tip()
    }

    /// Whether the active chain has the network's minimum work. Before, it could not
    /// be told from one that was made cheaply.
    pub fn is_worth_telling(&self) -> bool {
        let work = self.headers.work_of(&self.chain.active_tip().hash);
        work.is_some_and(|work| work >= self.min_chain_work)
    }

    /// Whether the header of this block is known, on whichever chain.
    pub fn has_header(&self, hash: &BlockHash) -> bool {
        self.headers.contains(hash)
    }

    /// Whether `tip` is `known` or an ancestor of it, as far as the best header chain
    /// tells.
    pub fn leads_to(&self, known: &BlockHash, tip: &ChainTip) -> bool {
        let headers = &self.headers;
        headers.height_of(known).is_some_and(|height| {
            height >= tip.height
                && headers.best_hash_at(height).as_ref() == Some(known)
                && headers.best_hash_at(tip.height) == Some(tip.hash)
        })
    }

    /// Headers of the active chain behind the first block of `locator` that is in it
    /// (else behind genesis), to `stop` or for 2000; and that block. With an empty
    /// locator: the header of `stop` alone, if it is in the active chain.
    pub fn headers_after(
        &self,
        locator: &[BlockHash],
        stop: &BlockHash,
    ) -> (Option<BlockHash>, Vec<Header>) {
        if locator.is_empty() {
            let header = self
                .active_height(stop)
                .and_then(|_| self.headers.header(stop));
            return (None, header.into_iter().collect());
        }
        let fork = locator.iter().find_map(|hash| self.active_height(hash));
        let fork = fork.unwrap_or(0);
        let Some(fork_hash) = self.chain.hash_at(fork) else {
            return (None, Vec::new()); // A reorganisation came between.
        };
        let mut headers: Vec<Header> = Vec::new();
        let mut prev_hash = fork_hash;
        for height in (fork + 1..).take(MAX_HEADERS) {
            let Some(hash) = self.chain.hash_at(height) else {
                break;
            };
            let Some(header) = self.headers.header(&hash) else {
                break;
            };
            // Heights are read one by one, so a reorganisation can come between them.
            if header.prev_blockhash != prev_hash {
                break;
            }
            headers.push(header);
            prev_hash = hash;
            if hash == *stop {
                break;
            }
        }
        (Some(fork_hash), headers)
    }

    /// The headers that lead a peer which has `known` and its ancestors to `tip`,
    /// oldest first. Empty if it is there; `None` if it is not near.
    pub fn way_to(&self, tip: BlockHash, known: BlockHash) -> Option<Vec<Header>> {
        let parent = |hash: &BlockHash| {
            self.headers
                .header(hash)
                .map(|header| header.prev_blockhash)
        };
        let has: Vec<_> = successors(Some(known), parent)
            .take(MAX_ANNOUNCED + 1)
            .collect();
        let mut way = Vec::new();
        let mut at = tip;
        while !has.contains(&at) {
            if way.len() == MAX_ANNOUNCED {
                return None;
            }
            let header = self.headers.header(&at)?;
            at = header.prev_blockhash;
            way.push(header);
        }
        way.reverse();
        Some(way)
    }

    /// A block of the active chain as it goes over the wire, with its witnesses or
    /// stripped of them; `None` if it is not in the active chain or cannot be read.
    /// Reads the disk.
    pub fn block(&self, hash: &BlockHash, witnesses: bool) -> Option<Vec<u8>> {
        let height = self.active_height(hash)?;
        let block = self.read(hash, height).and_then(|bytes| {
            if witnesses {
                Ok(bytes)
            } else {
                strip_witnesses(&bytes)
            }
        });
        block
            .inspect_err(|err| warn!(%hash, height, %err, "a block cannot be served"))
            .ok()
    }

    fn read(&self, hash: &BlockHash, height: Height) -> Result<Vec<u8>, BlockSourceError> {
        let position = self.chain.locate(hash, height)?;
        let bytes = self.chain.read_block(&position, 0, position.block_len)?;
        let is_it = bytes
            .get(..80)
            .is_some_and(|header| BlockHash::from_raw_hash(sha256d::Hash::hash(header)) == *hash);
        if is_it {
            Ok(bytes)
        } else {
            Err(BlockSourceError::Stale { position })
        }
    }

    /// Height of a block that is in the active chain.
    fn active_height(&self, hash: &BlockHash) -> Option<Height> {
        let height = self.headers.height_of(hash)?;
        (self.chain.hash_at(height).as_ref() == Some(hash)).then_some(height)
    }
}

/// The block as nodes before segregated witnesses know it (BIP 144).
fn strip_witnesses(bytes: &[u8]) -> Result<Vec<u8>, BlockSourceError> {
    let mut block: Block =
        deserialize(bytes).map_err(|_| BlockSourceError::Malformed { what: "a block" })?;
    for input in block.txdata.iter_mut().flat_map(|tx| &mut tx.input) {
        input.witness = Witness::new();
    }
    Ok(serialize(&block))
}
