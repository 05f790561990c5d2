//! What a peer's questions are answered with.

use std::{iter::successors, sync::Arc};

use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, Work, block::Header},
    ports::BlockSource,
    tip::ChainTip,
};
use tokio::sync::watch;

use crate::{
    chain::{Chain, FreshBlock},
    headers::{HeaderStore, MAX_HEADERS},
};

/// Most headers of an announcement; a longer way is left to `getheaders` (Bitcoin
/// Core's `MAX_BLOCKS_TO_ANNOUNCE`).
const MAX_ANNOUNCED: usize = 8;
/// Blocks that the best header chain may be ahead of the tip before tips are not announced.
const CATCHING_UP: Height = 2;
/// Most hashes of an answer to `getblocks`.
const MAX_HASHES: usize = 500;
/// Age from which stale blocks are not told of (Bitcoin Core's `STALE_RELAY_AGE_LIMIT`),
/// in seconds.
const MAX_STALE_SECONDS: u32 = 30 * 24 * 60 * 60;
/// The same in blocks.
const MAX_STALE_BLOCKS: Height = 30 * 144;
/// Age from which a block is historical (Bitcoin Core's `HISTORICAL_BLOCK_AGE`), in
/// seconds.
const HISTORICAL_SECONDS: u32 = 7 * 24 * 60 * 60;

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

    /// Watch of the last block that was to become the tip.
    pub fn fresh(&self) -> watch::Receiver<Option<FreshBlock>> {
        self.chain.fresh()
    }

    /// Whether the active chain has the network's minimum work. Before, it could not
    /// be told from one that was made cheaply.
    pub fn is_worth_telling(&self) -> bool {
        let work = self.headers.work_of(&self.chain.active_tip().hash);
        work.is_some_and(|work| work >= self.min_chain_work)
    }

    /// Whether blocks that follow `tip` are on their way already: it is about to be replaced.
    pub fn is_catching_up(&self, tip: &ChainTip) -> bool {
        self.headers.best().tip.height > tip.height + CATCHING_UP
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
    /// locator: the header of `stop` alone, if it may be told.
    pub fn headers_after(
        &self,
        locator: &[BlockHash],
        stop: &BlockHash,
    ) -> (Option<BlockHash>, Vec<Header>) {
        if locator.is_empty() {
            let header = self.servable(stop).and_then(|_| self.headers.header(stop));
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

    /// Hashes of the active chain behind the first block of `locator` that is in it (else
    /// behind genesis), to before `stop` or for 500; and whether there are more.
    pub fn hashes_after(&self, locator: &[BlockHash], stop: &BlockHash) -> (Vec<BlockHash>, bool) {
        let fork = locator.iter().find_map(|hash| self.active_height(hash));
        let mut hashes = Vec::new();
        for height in fork.unwrap_or(0) + 1.. {
            match self.chain.hash_at(height) {
                Some(hash) if hash != *stop => hashes.push(hash),
                _ => break,
            }
            if hashes.len() == MAX_HASHES {
                return (hashes, true);
            }
        }
        (hashes, false)
    }

    /// Height of a block that peers may be told of: one of the active chain, or one that
    /// was in it within the last month.
    ///
    /// # Security
    /// Which old stale blocks a node has tells nodes apart, and so do headers that never
    /// were in its chain.
    pub fn servable(&self, hash: &BlockHash) -> Option<Height> {
        if let Some(height) = self.active_height(hash) {
            return Some(height);
        }
        if !self.chain.was_active(hash) {
            return None;
        }
        let best = self.headers.best().tip;
        let height = self.headers.height_of(hash)?;
        let header = self.headers.header(hash)?;
        let is_young = best.time.saturating_sub(header.time) < MAX_STALE_SECONDS
            && best.height.saturating_sub(height) < MAX_STALE_BLOCKS;
        is_young.then_some(height)
    }

    /// Whether the block is so old that serving it is not needed to relay the chain.
    pub fn is_historical(&self, hash: &BlockHash) -> bool {
        let best = self.headers.best().tip;
        self.headers
            .header(hash)
            .is_some_and(|header| best.time.saturating_sub(header.time) > HISTORICAL_SECONDS)
    }

    /// Whether the block at `height` lies at most `depth` blocks below the active tip.
    pub fn is_within(&self, height: Height, depth: Height) -> bool {
        height.saturating_add(depth) >= self.chain.active_tip().height
    }

    /// Hash at a height of the active chain.
    pub fn hash_at(&self, height: Height) -> Option<BlockHash> {
        self.chain.hash_at(height)
    }

    /// The active tip.
    pub fn active_tip(&self) -> ChainTip {
        self.chain.active_tip()
    }

    /// Height of a block that is in the active chain.
    fn active_height(&self, hash: &BlockHash) -> Option<Height> {
        let height = self.headers.height_of(hash)?;
        (self.chain.hash_at(height).as_ref() == Some(hash)).then_some(height)
    }
}
