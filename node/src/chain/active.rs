//! The active chain as the kernel last told it: hashes by height, and the tip.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::RwLock;
use pulse_primitives::{Height, bitcoin::BlockHash, tip::ChainTip};
use tokio::sync::watch;

use super::FreshBlock;
use crate::metrics;

/// Blocks that are remembered after a reorganisation took them out of the chain.
const MAX_STALE: usize = 1000;

/// A step of the active chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChainStep {
    /// The block became the tip.
    Connected(ChainTip),
    /// The block was the tip; its parent (with this time) is again.
    Disconnected(ChainTip),
}

/// Hashes of the active chain by height, 32 bytes per block, and watches of its tip and of the block
/// that is about to be it.
///
/// # Correctness
/// Steps are applied together when the kernel announces a tip, so that a reader
/// never sees the inside of a reorganisation.
pub(super) struct ActiveChain {
    hashes: RwLock<Vec<BlockHash>>,
    /// Blocks that were in the chain before, newest last.
    stale: RwLock<VecDeque<BlockHash>>,
    tip: watch::Sender<ChainTip>,
    /// The last block that was to become the tip.
    fresh: watch::Sender<Option<FreshBlock>>,
    /// Whether metrics tell of another one.
    is_second: bool,
}

impl ActiveChain {
    /// The chain with the given hashes, genesis first.
    pub fn new(hashes: Vec<BlockHash>, tip: ChainTip, is_second: bool) -> Arc<Self> {
        let chain = Self {
            hashes: RwLock::new(hashes),
            stale: RwLock::default(),
            tip: watch::Sender::new(tip),
            fresh: watch::Sender::default(),
            is_second,
        };
        chain.count(0, Some(tip));
        Arc::new(chain)
    }

    /// Tells the metrics how many blocks left, and where the chain ends now.
    fn count(&self, left: usize, tip: Option<ChainTip>) {
        if self.is_second {
            return;
        }
        if left > 0 {
            metrics::reorganised(left);
        }
        if let Some(tip) = tip {
            metrics::chain_tip(tip.height, tip.time);
        }
    }

    /// Applies `steps` in order and publishes the tip that they lead to.
    pub fn apply(&self, steps: &[ChainStep]) {
        let (mut tip, mut left) = (None, 0);
        {
            let mut stale = self.stale.write();
            let mut hashes = self.hashes.write();
            for step in steps {
                match step {
                    ChainStep::Connected(block) => {
                        hashes.truncate(block.height as usize);
                        hashes.push(block.hash);
                        tip = Some(*block);
                    }
                    ChainStep::Disconnected(block) => {
                        hashes.truncate(block.height as usize);
                        if stale.len() == MAX_STALE {
                            stale.pop_front();
                        }
                        stale.push_back(block.hash);
                        left += 1;
                        tip = None;
                    }
                }
            }
        }
        // Steps that end with a disconnection are half a reorganisation; the kernel
        // goes on with what it connects instead.
        self.count(left, tip);
        if let Some(tip) = tip {
            self.tip.send_if_modified(|old| {
                let changed = *old != tip;
                *old = tip;
                changed
            });
        }
    }

    /// Becomes the chain with the given hashes. Nothing happens if it is that already.
    pub fn become_chain(&self, hashes: Vec<BlockHash>, tip: ChainTip) {
        let left = {
            let mut stale = self.stale.write();
            let mut old = self.hashes.write();
            if *old == hashes {
                return;
            }
            let same = old.iter().zip(&hashes).take_while(|(a, b)| a == b).count();
            let left = old.len() - same;
            for hash in &old[same..] {
                if stale.len() == MAX_STALE {
                    stale.pop_front();
                }
                stale.push_back(*hash);
            }
            *old = hashes;
            left
        };
        self.count(left, Some(tip));
        self.tip.send_replace(tip);
    }

    /// Hash at `height`, `None` above the tip.
    pub fn hash_at(&self, height: Height) -> Option<BlockHash> {
        self.hashes.read().get(height as usize).copied()
    }

    /// Whether the block of that hash and height is in the chain.
    pub fn contains(&self, hash: &BlockHash, height: Height) -> bool {
        self.hash_at(height).as_ref() == Some(hash)
    }

    /// Whether the block was in the chain while this process ran, and so is valid. It may
    /// be again. Only the newest thousand are remembered.
    pub fn was_in(&self, hash: &BlockHash) -> bool {
        self.stale.read().contains(hash)
    }

    /// Watch of the tip.
    pub fn tip(&self) -> watch::Receiver<ChainTip> {
        self.tip.subscribe()
    }

    /// The kernel is about to connect this block. The first one of a height is shown.
    pub fn show_fresh(&self, block: FreshBlock) {
        if self.is_second {
            return;
        }
        self.fresh.send_if_modified(|last| {
            let is_first = last
                .as_ref()
                .is_none_or(|last| last.tip.height < block.tip.height);
            if is_first {
                *last = Some(block);
            }
            is_first
        });
    }

    /// The kernel has found this block invalid.
    pub fn refuse_fresh(&self, hash: &BlockHash) {
        self.fresh.send_if_modified(|last| {
            let Some(last) = last.as_mut().filter(|last| last.tip.hash == *hash) else {
                return false;
            };
            last.is_refused = true;
            true
        });
    }

    /// Watch of the last block that was to become the tip.
    pub fn fresh(&self) -> watch::Receiver<Option<FreshBlock>> {
        self.fresh.subscribe()
    }

    /// The tip now.
    pub fn current_tip(&self) -> ChainTip {
        *self.tip.borrow()
    }
}

#[cfg(test)]
mod tests {
    use pulse_primitives::bitcoin::hashes::Hash;

    use super::*;

    fn block(height: Height, tag: u8) -> ChainTip {
        ChainTip {
            height,
            hash: BlockHash::from_byte_array([tag; 32]),
            time: height,
        }
    }

    #[test]
    fn of_each_height_one_block_is_shown_before_it_is_connected() {
        let genesis = block(0, 0);
        let chain = ActiveChain::new(vec![genesis.hash], genesis, false);
        let mut watch = chain.fresh();
        let show = |tip| {
            chain.show_fresh(FreshBlock {
                tip,
                bytes: Arc::new([]),
                is_refused: false,
            });
        };
        let shown = |watch: &mut watch::Receiver<Option<FreshBlock>>| {
            let is_new = watch.has_changed().unwrap();
            let block = watch.borrow_and_update().clone().unwrap();
            (is_new, block.tip.hash, block.is_refused)
        };
        let (first, second) = (block(5, 1), block(5, 2));
        show(first);
        assert_eq!(shown(&mut watch), (true, first.hash, false));
        // Whether the first one is good or not: bad ones cost proof of work, and only one is told of.
        for is_refused in [false, true] {
            for other in [second, first, block(4, 3)] {
                show(other);
                assert_eq!(shown(&mut watch), (false, first.hash, is_refused));
            }
            chain.refuse_fresh(&second.hash);
            assert!(!watch.has_changed().unwrap());
            chain.refuse_fresh(&first.hash);
            assert_eq!(shown(&mut watch), (true, first.hash, true));
        }
        let next = block(6, 4);
        show(next);
        assert_eq!(shown(&mut watch), (true, next.hash, false));
    }

    #[test]
    fn a_reorganisation_replaces_the_branch_and_publishes_once() {
        let genesis = block(0, 0);
        let chain = ActiveChain::new(vec![genesis.hash], genesis, false);
        chain.apply(&[
            ChainStep::Connected(block(1, 1)),
            ChainStep::Connected(block(2, 2)),
        ]);
        let mut watch = chain.tip();
        watch.mark_unchanged();
        chain.apply(&[
            ChainStep::Disconnected(block(2, 2)),
            ChainStep::Disconnected(block(1, 1)),
            ChainStep::Connected(block(1, 11)),
            ChainStep::Connected(block(2, 12)),
            ChainStep::Connected(block(3, 13)),
        ]);
        assert!(watch.has_changed().unwrap());
        assert_eq!(*watch.borrow_and_update(), block(3, 13));
        assert!(chain.contains(&block(1, 11).hash, 1));
        assert!(!chain.contains(&block(2, 2).hash, 2));
        assert!(chain.was_in(&block(2, 2).hash));
        assert!(!chain.was_in(&block(2, 12).hash));
        assert_eq!(chain.hash_at(4), None);
    }

    #[test]
    fn a_chain_that_was_read_anew_replaces_what_differs() {
        let genesis = block(0, 0);
        let chain = ActiveChain::new(vec![genesis.hash, block(1, 1).hash], block(1, 1), false);
        let mut watch = chain.tip();
        watch.mark_unchanged();
        chain.become_chain(vec![genesis.hash, block(1, 1).hash], block(1, 1));
        assert!(!watch.has_changed().unwrap());
        let other = vec![genesis.hash, block(1, 11).hash, block(2, 12).hash];
        chain.become_chain(other, block(2, 12));
        assert_eq!(*watch.borrow_and_update(), block(2, 12));
        assert!(chain.was_in(&block(1, 1).hash));
        assert!(chain.contains(&block(2, 12).hash, 2));
    }
}
