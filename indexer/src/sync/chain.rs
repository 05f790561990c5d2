//! What the sync loop keeps in memory: where each block's transaction numbers begin,
//! and which number each recent transaction has.

use std::{collections::VecDeque, ops::Range};

use pulse_primitives::{Height, bitcoin::BlockHash};

use super::filters::FilterTip;
use crate::{
    prepared::Prepared,
    rows::{
        TxNum,
        meta::{Cursor, Ring},
    },
    store::{StoreError, reader::Reader},
};

/// The indexed chain, including blocks that are on their way into the store.
pub(super) struct Chain {
    /// The newest block; `None` while there is none.
    pub cursor: Option<Cursor>,
    /// Heights that may have a stored delta.
    pub ring: Ring,
    /// The newest block that has a filter.
    pub filters: FilterTip,
    /// Number of the first transaction of each block, by height.
    first_txnums: Vec<TxNum>,
    recent: Recent,
}

/// The newest blocks without gaps, in chain order.
struct Recent {
    blocks: VecDeque<RecentBlock>,
    /// Transactions in `blocks`.
    txs: usize,
    /// Most transactions, except that blocks not yet written stay anyway.
    max_txs: usize,
}

/// Which of a block's transactions has a given keyed hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// None has.
    None,
    /// Exactly this one.
    One(TxNum),
    /// Several have.
    Many,
}

impl Found {
    /// Of a list of candidates.
    pub(super) fn among(candidates: &[TxNum]) -> Self {
        match candidates {
            [] => Self::None,
            [one] => Self::One(*one),
            _ => Self::Many,
        }
    }
}

impl Chain {
    /// Reads the chain from the store.
    pub(super) fn load(reader: &Reader<'_>, max_recent_txs: u32) -> Result<Self, StoreError> {
        let cursor = reader.cursor()?;
        let mut first_txnums = Vec::new();
        if let Some(cursor) = &cursor {
            let mut next = 0;
            reader.for_each_block(0..cursor.tip.height.saturating_add(1), |row| {
                if row.first_txnum == next {
                    first_txnums.push(row.first_txnum);
                    next = row.next_txnum();
                }
            })?;
            if next != cursor.next_txnum
                || first_txnums.len() as u64 != u64::from(cursor.tip.height) + 1
            {
                return Err(StoreError::Damaged {
                    family: "blk",
                    what: "blocks do not add up to the cursor",
                });
            }
        }
        Ok(Self {
            cursor,
            ring: reader.ring()?,
            filters: FilterTip::load(reader)?,
            first_txnums,
            recent: Recent {
                blocks: VecDeque::new(),
                txs: 0,
                max_txs: usize::try_from(max_recent_txs).unwrap_or(usize::MAX),
            },
        })
    }

    /// Height that the next block has.
    pub(super) fn next_height(&self) -> Height {
        self.cursor.map_or(0, |cursor| cursor.tip.height + 1)
    }

    /// Number that the next transaction gets.
    pub(super) fn next_txnum(&self) -> TxNum {
        self.cursor.map_or(0, |cursor| cursor.next_txnum)
    }

    /// Whether `block` is the next one.
    pub(super) fn connects(&self, block: &Prepared) -> bool {
        block.connected.height == self.next_height()
            && self
                .cursor
                .is_none_or(|cursor| block.connected.block.header.prev_blockhash == cursor.tip.hash)
    }

    /// Transaction numbers of the block at `height`.
    pub(super) fn txnums_at(&self, height: Height) -> Option<Range<TxNum>> {
        let index = usize::try_from(height).ok()?;
        let start = *self.first_txnums.get(index)?;
        let end = self.first_txnums.get(index + 1).copied();
        Some(start..end.unwrap_or_else(|| self.next_txnum()))
    }

    /// Height of the block that has transaction `txnum`, and its position there.
    pub(super) fn place_of(&self, txnum: TxNum) -> Option<(Height, usize)> {
        let behind = self.first_txnums.partition_point(|first| *first <= txnum);
        let height = behind.checked_sub(1)?;
        let index = txnum - self.first_txnums[height];
        Some((Height::try_from(height).ok()?, usize::try_from(index).ok()?))
    }

    /// Looks a keyed hash up in the recent block at `height`; `None` if that block
    /// is not kept in memory.
    pub(super) fn find_recent(&self, height: Height, hash: u64) -> Option<Found> {
        Some(self.recent_at(height)?.find(hash))
    }

    /// Hash of the recent block at `height`.
    pub(super) fn recent_hash(&self, height: Height) -> Option<BlockHash> {
        Some(self.recent_at(height)?.hash)
    }

    fn recent_at(&self, height: Height) -> Option<&RecentBlock> {
        let behind = self.next_height().checked_sub(height)?;
        let index = self
            .recent
            .blocks
            .len()
            .checked_sub(usize::try_from(behind).ok()?)?;
        self.recent.blocks.get(index)
    }

    /// Adds the next block. `table` is its table of transactions.
    pub(super) fn push(&mut self, table: RecentBlock, cursor: Cursor) {
        self.first_txnums.push(table.first_txnum);
        self.recent.txs += table.hashes.len();
        self.recent.blocks.push_back(table);
        self.cursor = Some(cursor);
    }

    /// All blocks were written: those too many in memory may go.
    pub(super) fn committed(&mut self, ring: Ring) {
        self.ring = ring;
        while self.recent.txs > self.recent.max_txs {
            let Some(block) = self.recent.blocks.pop_front() else {
                return;
            };
            self.recent.txs -= block.hashes.len();
        }
    }

    /// The newest block was taken back.
    pub(super) fn pop(&mut self, cursor: Cursor, ring: Ring) {
        self.first_txnums.pop();
        if let Some(block) = self.recent.blocks.pop_back() {
            self.recent.txs -= block.hashes.len();
        }
        self.cursor = Some(cursor);
        self.ring = ring;
    }
}

/// A block's transactions by keyed hash: 8 bytes each and an open-addressing table
/// of at most 16.
pub(super) struct RecentBlock {
    hash: BlockHash,
    first_txnum: TxNum,
    hashes: Vec<u64>,
    /// Index into `hashes` plus one; 0 is free. At least half are.
    slots: Vec<u32>,
}

impl RecentBlock {
    pub(super) fn new(hash: BlockHash, first_txnum: TxNum, hashes: &[u64]) -> Self {
        let mut block = Self {
            hash,
            first_txnum,
            hashes: hashes.to_vec(),
            slots: vec![0; (2 * hashes.len()).next_power_of_two()],
        };
        for (index, hash) in (1u32..).zip(hashes) {
            let mut slot = block.slot(*hash);
            while block.slots[slot] != 0 {
                slot = (slot + 1) % block.slots.len();
            }
            block.slots[slot] = index;
        }
        block
    }

    fn slot(&self, hash: u64) -> usize {
        // The number of slots is a power of two.
        usize::try_from(hash & (self.slots.len() as u64 - 1)).unwrap_or(0)
    }

    /// Which transaction has this keyed hash.
    pub(super) fn find(&self, hash: u64) -> Found {
        let mut found = Found::None;
        let mut slot = self.slot(hash);
        while let Some(index) = self.slots[slot].checked_sub(1) {
            if self.hashes[index as usize] == hash {
                if found != Found::None {
                    return Found::Many;
                }
                found = Found::One(self.first_txnum + index);
            }
            slot = (slot + 1) % self.slots.len();
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use pulse_primitives::bitcoin::hashes::Hash;

    proptest! {
        #[test]
        fn tables_find_what_a_scan_finds(hashes in proptest::collection::vec(0u64..40, 1..60), wanted in 0u64..40) {
            let block = RecentBlock::new(BlockHash::all_zeros(), 100, &hashes);
            let scan = (100..).zip(&hashes).filter(|(_, hash)| **hash == wanted).map(|(n, _)| n).collect::<Vec<_>>();
            prop_assert_eq!(block.find(wanted), Found::among(&scan));
        }
    }
}
