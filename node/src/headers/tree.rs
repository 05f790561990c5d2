//! The block tree in memory. Pure: no files, no locks.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use pulse_primitives::{
    Height,
    bitcoin::{
        BlockHash, CompactTarget, TxMerkleNode, Work,
        block::{Header, Version},
        hashes::Hash,
    },
    tip::ChainTip,
};

/// Number of a header in order of arrival. Genesis is 0; a parent is always smaller
/// than its children.
pub(super) type HeaderIndex = u32;

/// Headers whose times the median is taken of.
const MEDIAN_SPAN: usize = 11;

/// A header without its parent's hash (which the parent's entry has), with what is
/// derived from its place in the tree. 128 bytes.
struct Entry {
    work: Work,
    hash: BlockHash,
    merkle_root: TxMerkleNode,
    version: Version,
    time: u32,
    bits: CompactTarget,
    nonce: u32,
    parent: HeaderIndex,
    height: Height,
    failed: bool,
    /// Whether it is known to have a child, and whether more than one.
    has_child: bool,
    is_fork: bool,
}

/// All known headers, the best valid chain among them, and the failed marks.
///
/// # Correctness
/// `best` is the path from genesis to the valid header with the most work; of equals,
/// the one that came first.
pub(super) struct Tree {
    entries: Vec<Entry>,
    by_hash: HashTable<HeaderIndex>,
    hasher: RandomState,
    best: Vec<HeaderIndex>,
}

impl Tree {
    /// A tree with nothing but `genesis`, and room for `capacity` headers.
    pub fn new(genesis: &Header, capacity: usize) -> Self {
        let mut tree = Self {
            entries: Vec::with_capacity(capacity),
            by_hash: HashTable::with_capacity(capacity),
            hasher: RandomState::new(),
            best: Vec::with_capacity(capacity),
        };
        tree.link(genesis, genesis.block_hash(), 0, 0, genesis.work(), false);
        tree.best.push(0);
        tree
    }

    /// Number of headers, genesis included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Number of the header with this hash.
    pub fn find(&self, hash: &BlockHash) -> Option<HeaderIndex> {
        self.by_hash
            .find(self.hasher.hash_one(hash), |index| {
                self.entries[*index as usize].hash == *hash
            })
            .copied()
    }

    /// Adds a header whose parent is `parent`, and moves the best chain if the header
    /// has more work.
    ///
    /// # Panics
    /// When there are more than 2^32 headers.
    pub fn push(&mut self, header: &Header, hash: BlockHash, parent: HeaderIndex) -> HeaderIndex {
        let (height, work, failed) = {
            let parent = &self.entries[parent as usize];
            (
                parent.height + 1,
                parent.work + header.work(),
                parent.failed,
            )
        };
        let index = self.link(header, hash, parent, height, work, failed);
        if !failed && work > self.work(self.best_index()) {
            self.set_best(index);
        }
        index
    }

    fn link(
        &mut self,
        header: &Header,
        hash: BlockHash,
        parent: HeaderIndex,
        height: Height,
        work: Work,
        failed: bool,
    ) -> HeaderIndex {
        let index =
            HeaderIndex::try_from(self.entries.len()).expect("2^32 headers do not fit into memory");
        if let Some(parent) = self.entries.get_mut(parent as usize) {
            parent.is_fork |= parent.has_child;
            parent.has_child = true;
        }
        self.entries.push(Entry {
            work,
            hash,
            merkle_root: header.merkle_root,
            version: header.version,
            time: header.time,
            bits: header.bits,
            nonce: header.nonce,
            parent,
            height,
            failed,
            has_child: false,
            is_fork: false,
        });
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.by_hash
            .insert_unique(hasher.hash_one(hash), index, |index| {
                hasher.hash_one(entries[*index as usize].hash)
            });
        index
    }

    /// Makes the path from genesis to `index` the best chain. Costs as much as the
    /// chains differ.
    fn set_best(&mut self, index: HeaderIndex) {
        let mut branch = Vec::new();
        let mut at = index;
        while self.best.get(self.height(at) as usize) != Some(&at) {
            branch.push(at);
            at = self.entries[at as usize].parent;
        }
        self.best.truncate(self.height(at) as usize + 1);
        self.best.extend(branch.into_iter().rev());
    }

    /// Marks the header and all that descend from it as failed, and recomputes the
    /// best chain. `false` if it was marked already.
    pub fn mark_failed(&mut self, index: HeaderIndex) -> bool {
        if self.entries[index as usize].failed {
            return false;
        }
        self.entries[index as usize].failed = true;
        let mut best = 0;
        for at in 1..self.entries.len() {
            let parent = self.entries[at].parent as usize;
            self.entries[at].failed |= self.entries[parent].failed;
            if !self.entries[at].failed && self.entries[at].work > self.entries[best].work {
                best = at;
            }
        }
        self.set_best(HeaderIndex::try_from(best).expect("an index of an entry"));
        true
    }

    /// Number of the tip of the best chain.
    pub fn best_index(&self) -> HeaderIndex {
        *self.best.last().expect("genesis is always there")
    }

    /// Number of the header at `height` of the best chain.
    pub fn best_at(&self, height: Height) -> Option<HeaderIndex> {
        self.best.get(height as usize).copied()
    }

    /// The newest common ancestor of a header and the best chain.
    pub fn fork_point(&self, index: HeaderIndex) -> HeaderIndex {
        let mut at = index;
        while self.best_at(self.height(at)) != Some(at) {
            at = self.entries[at as usize].parent;
        }
        at
    }

    /// The header itself.
    pub fn header(&self, index: HeaderIndex) -> Header {
        let entry = &self.entries[index as usize];
        let prev_blockhash = if index == 0 {
            BlockHash::all_zeros()
        } else {
            self.hash(entry.parent)
        };
        Header {
            version: entry.version,
            prev_blockhash,
            merkle_root: entry.merkle_root,
            time: entry.time,
            bits: entry.bits,
            nonce: entry.nonce,
        }
    }

    /// Hash of the header.
    pub fn hash(&self, index: HeaderIndex) -> BlockHash {
        self.entries[index as usize].hash
    }

    /// Height of the header.
    pub fn height(&self, index: HeaderIndex) -> Height {
        self.entries[index as usize].height
    }

    /// Work of the chain from genesis to this header.
    pub fn work(&self, index: HeaderIndex) -> Work {
        self.entries[index as usize].work
    }

    /// Median time of the eleven headers up to this one, or of as many as there are
    /// (BIP 113).
    pub fn median_time(&self, index: HeaderIndex) -> u32 {
        let mut times = Vec::with_capacity(MEDIAN_SPAN);
        let mut at = index;
        loop {
            times.push(self.entries[at as usize].time);
            if at == 0 || times.len() == MEDIAN_SPAN {
                break;
            }
            at = self.parent(at);
        }
        times.sort_unstable();
        times[times.len() / 2]
    }

    /// Number of the parent; genesis is its own.
    pub fn parent(&self, index: HeaderIndex) -> HeaderIndex {
        self.entries[index as usize].parent
    }

    /// Whether other headers with the same parent are known.
    pub fn has_siblings(&self, index: HeaderIndex) -> bool {
        index != 0 && self.entries[self.parent(index) as usize].is_fork
    }

    /// Whether the header or an ancestor is marked failed.
    pub fn is_failed(&self, index: HeaderIndex) -> bool {
        self.entries[index as usize].failed
    }

    /// Height, hash and time of the header.
    pub fn tip(&self, index: HeaderIndex) -> ChainTip {
        let entry = &self.entries[index as usize];
        ChainTip {
            height: entry.height,
            hash: entry.hash,
            time: entry.time,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_keeps_within_the_stated_memory() {
        assert_eq!(size_of::<Entry>(), 128);
    }
}
