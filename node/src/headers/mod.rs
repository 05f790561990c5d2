//! Our own header store: which chain of headers is best, and how far a peer's
//! chain and ours agree.
//!
//! ```text
//! headers message -> check (linkage, proof of work) -> kernel -> insert -> best chain
//! ```
//!
//! The kernel has headers too, but reading them from it leaks memory per call and
//! gives no total work, so the tree is kept here as well: in memory, and in
//! `headers.dat` in order of arrival. Contextual rules (difficulty, time) are the
//! kernel's; only what it accepted is to be inserted.
//!
//! # Correctness
//! The file is written before the tree, so what is in memory is on the disk. Failed
//! marks are kept in memory only: after a restart the kernel tells them again.
//!
//! # Security
//! Every header costs its sender the proof of work of its own target, and about 150
//! bytes of our memory. Who inserts headers of peers has them go through [`presync`]
//! first while their chain has not shown enough work.

mod error;
mod file;
pub mod presync;
mod tree;

#[cfg(test)]
mod tests;

use std::path::Path;

use parking_lot::{Mutex, RwLock};
use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, Target, Work, block::Header},
    network::ChainParams,
    tip::ChainTip,
};

use presync::ChainStart;

pub use error::{HeaderError, HeaderStoreError};
use file::HeaderFile;
use tree::{HeaderIndex, Tree};

/// Most headers in one `headers` message (Bitcoin Core).
pub const MAX_HEADERS: usize = 2000;

/// Tip of the best valid header chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BestHeader {
    /// Height, hash and time of the tip.
    pub tip: ChainTip,
    /// Work of the whole chain, genesis included.
    pub work: Work,
}

/// All known headers and the best valid chain among them. Meant to be shared as
/// `Arc<HeaderStore>`; all calls are short, but [`HeaderStore::insert`] waits for the disk.
pub struct HeaderStore {
    tree: RwLock<Tree>,
    /// `None` for a store that lives in memory only. Taken before `tree`, so that
    /// readers never wait for the disk.
    file: Mutex<Option<HeaderFile>>,
    /// Easiest target of the network.
    easiest_target: Target,
}

impl HeaderStore {
    /// Opens `headers.dat` at `path`, or creates it, and verifies every record: its
    /// checksum, proof of work, and that its parent stands before it.
    ///
    /// An end that was not fully written (power cut) is cut off with a warning.
    ///
    /// # Errors
    /// [`HeaderStoreError`] when the file is of another network or format, damaged
    /// elsewhere than at its end, or cannot be read. Nothing is changed then.
    pub fn open(path: &Path, params: &ChainParams) -> Result<Self, HeaderStoreError> {
        let records = std::fs::metadata(path).map_or(0, |metadata| metadata.len() / 84);
        // Room for a month of blocks more, so that the vectors do not double soon.
        let capacity = usize::try_from(records).unwrap_or(0) + 5000;
        let mut tree = Tree::new(&params.genesis().header, capacity);
        let easiest_target = params.consensus.max_attainable_target;
        let file = HeaderFile::open(path, params, |header| {
            let hash = proven_hash(header, easiest_target).ok_or("its proof of work is bad")?;
            if tree.find(&hash).is_some() {
                return Err("it is there twice");
            }
            let parent = tree
                .find(&header.prev_blockhash)
                .ok_or("its parent does not stand before it")?;
            tree.push(header, hash, parent);
            Ok(())
        })?;
        Ok(Self {
            tree: RwLock::new(tree),
            file: Mutex::new(Some(file)),
            easiest_target,
        })
    }

    /// A store that forgets everything when it is dropped.
    #[must_use]
    pub fn in_memory(params: &ChainParams) -> Self {
        Self {
            tree: RwLock::new(Tree::new(&params.genesis().header, 0)),
            file: Mutex::new(None),
            easiest_target: params.consensus.max_attainable_target,
        }
    }

    /// Tip and work of the best valid chain. Genesis in an empty store.
    #[must_use]
    pub fn best(&self) -> BestHeader {
        let tree = self.tree.read();
        let index = tree.best_index();
        BestHeader {
            tip: tree.tip(index),
            work: tree.work(index),
        }
    }

    /// Hash at `height` of the best valid chain; `None` above its tip.
    #[must_use]
    pub fn best_hash_at(&self, height: Height) -> Option<BlockHash> {
        let tree = self.tree.read();
        tree.best_at(height).map(|index| tree.hash(index))
    }

    /// Height of a known header, on the best chain or not.
    #[must_use]
    pub fn height_of(&self, hash: &BlockHash) -> Option<Height> {
        self.with(hash, Tree::height)
    }

    /// Work of the chain from genesis to a known header.
    #[must_use]
    pub fn work_of(&self, hash: &BlockHash) -> Option<Work> {
        self.with(hash, Tree::work)
    }

    /// A known header, on the best chain or not.
    #[must_use]
    pub fn header(&self, hash: &BlockHash) -> Option<Header> {
        self.with(hash, Tree::header)
    }

    /// Whether the header is known (valid or not).
    #[must_use]
    pub fn contains(&self, hash: &BlockHash) -> bool {
        self.with(hash, |_, _| ()).is_some()
    }

    /// Whether the header is known and it or an ancestor is marked invalid.
    #[must_use]
    pub fn is_invalid(&self, hash: &BlockHash) -> bool {
        self.with(hash, Tree::is_failed).unwrap_or(false)
    }

    /// Whether the header is known and part of the best valid chain.
    #[must_use]
    pub fn is_on_best(&self, hash: &BlockHash) -> bool {
        self.with(hash, |tree, index| {
            tree.best_at(tree.height(index)) == Some(index)
        })
        .unwrap_or(false)
    }

    /// Whether other headers with the same parent are known, valid or not.
    #[must_use]
    pub fn has_siblings(&self, hash: &BlockHash) -> bool {
        self.with(hash, Tree::has_siblings).unwrap_or(false)
    }

    /// A known header as the start of a chain that is to be found out about.
    #[must_use]
    pub fn chain_start(&self, hash: &BlockHash) -> Option<ChainStart> {
        self.with(hash, |tree, index| ChainStart {
            height: tree.height(index),
            hash: *hash,
            bits: tree.header(index).bits,
            work: tree.work(index),
            median_time: tree.median_time(index),
        })
    }

    /// The newest common ancestor of a known header and the best valid chain.
    #[must_use]
    pub fn fork_point(&self, hash: &BlockHash) -> Option<ChainTip> {
        self.with(hash, |tree, index| tree.tip(tree.fork_point(index)))
    }

    /// Block locator of the best chain, as `getheaders` wants it: newest first, the
    /// first ten one by one, then at doubling distances, genesis last. At most 101
    /// hashes (Bitcoin Core's limit); heights of 32 bits give at most 43.
    ///
    /// It starts at the parent of the tip, so that a peer with the same tip answers
    /// with that one header and thereby says that it has it.
    #[must_use]
    pub fn locator(&self) -> Vec<BlockHash> {
        let tree = self.tree.read();
        locator(&tree, tree.parent(tree.best_index()))
    }

    /// Block locator of the chain that ends in `hash`, which itself comes first.
    #[must_use]
    pub fn locator_from(&self, hash: &BlockHash) -> Option<Vec<BlockHash>> {
        self.with(hash, locator)
    }

    fn with<T>(&self, hash: &BlockHash, get: impl FnOnce(&Tree, HeaderIndex) -> T) -> Option<T> {
        let tree = self.tree.read();
        tree.find(hash).map(|index| get(&tree, index))
    }

    /// Number of headers, genesis included.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "genesis is always there")]
    pub fn len(&self) -> usize {
        self.tree.read().len()
    }

    /// All headers but genesis in order of arrival, so that parents come before their
    /// children. The store is locked for some of them at a time, never across an item.
    pub fn all(&self) -> impl Iterator<Item = Header> + '_ {
        (1..)
            .step_by(MAX_HEADERS)
            .map(|start| self.chunk(start))
            .take_while(|chunk| !chunk.is_empty())
            .flatten()
    }

    fn chunk(&self, start: usize) -> Vec<Header> {
        let tree = self.tree.read();
        (start..tree.len().min(start + MAX_HEADERS))
            .map(|at| tree.header(HeaderIndex::try_from(at).expect("an index of an entry")))
            .collect()
    }

    /// Checks a run of headers by itself: length, linkage among each other, proof of
    /// work against the header's own target and the network's easiest. Gives the
    /// hashes, in order.
    ///
    /// # Errors
    /// [`HeaderError`]: the first thing found wrong.
    pub fn check_run(&self, headers: &[Header]) -> Result<Vec<BlockHash>, HeaderError> {
        if headers.len() > MAX_HEADERS {
            return Err(HeaderError::TooMany {
                count: headers.len(),
            });
        }
        let mut hashes = Vec::with_capacity(headers.len());
        let mut prev_hash = None;
        for (index, header) in headers.iter().enumerate() {
            let hash = proven_hash(header, self.easiest_target).ok_or_else(|| {
                HeaderError::BadProofOfWork {
                    hash: header.block_hash(),
                }
            })?;
            if prev_hash.is_some_and(|prev_hash| prev_hash != header.prev_blockhash) {
                return Err(HeaderError::Discontinuous { index, hash });
            }
            hashes.push(hash);
            prev_hash = Some(hash);
        }
        Ok(hashes)
    }

    /// Checks what can be checked without the rules of the kernel: all of
    /// [`HeaderStore::check_run`], and that the first header's parent is known and
    /// nothing of it is invalid. Keeps nothing. Gives the hashes, in order.
    ///
    /// # Errors
    /// [`HeaderError`]: the first thing found wrong.
    pub fn check(&self, headers: &[Header]) -> Result<Vec<BlockHash>, HeaderError> {
        let hashes = self.check_run(headers)?;
        let tree = self.tree.read();
        if let (Some(first), Some(hash)) = (headers.first(), hashes.first())
            && tree.find(hash).is_none()
            && tree.find(&first.prev_blockhash).is_none()
        {
            return Err(HeaderError::Unconnected {
                hash: *hash,
                prev_hash: first.prev_blockhash,
            });
        }
        let failed = |hash: &BlockHash| tree.find(hash).is_some_and(|index| tree.is_failed(index));
        let first_parent = headers.first().map(|header| header.prev_blockhash);
        if let Some(hash) = first_parent.iter().chain(&hashes).find(|hash| failed(hash)) {
            return Err(HeaderError::InvalidChain { hash: *hash });
        }
        Ok(hashes)
    }

    /// Adds headers, oldest first, after [`HeaderStore::check`]ing them again; those
    /// already known are skipped. Returns when the new ones are on the disk. Gives the
    /// number of new ones.
    ///
    /// # Errors
    /// [`HeaderStoreError::Refused`] or [`HeaderStoreError::Io`]; nothing was added then.
    pub fn insert(&self, headers: &[Header]) -> Result<usize, HeaderStoreError> {
        let mut file = self.file.lock();
        let hashes = self.check(headers)?;
        // The run is one chain, so whatever of it is known stands at its start.
        let known = {
            let tree = self.tree.read();
            hashes
                .iter()
                .take_while(|hash| tree.find(hash).is_some())
                .count()
        };
        let (headers, hashes) = (&headers[known..], &hashes[known..]);
        if headers.is_empty() {
            return Ok(0);
        }
        if let Some(file) = file.as_mut() {
            file.append(headers)?;
        }
        let mut tree = self.tree.write();
        for (header, hash) in headers.iter().zip(hashes) {
            let parent = tree
                .find(&header.prev_blockhash)
                .expect("checked above, and headers are never removed");
            tree.push(header, *hash, parent);
        }
        Ok(headers.len())
    }

    /// Marks a block and all its descendants invalid and recomputes the best chain.
    /// `false` if the header is unknown, marked already, or genesis.
    pub fn mark_invalid(&self, hash: &BlockHash) -> bool {
        let mut tree = self.tree.write();
        match tree.find(hash) {
            Some(index) if index != 0 => tree.mark_failed(index),
            _ => false,
        }
    }

    /// Writes all headers that are known now to a new file at `path`, and waits until it is
    /// on the disk.
    ///
    /// # Errors
    /// [`HeaderStoreError::Io`], also when the file exists already.
    pub fn copy_to(&self, path: &Path) -> Result<(), HeaderStoreError> {
        // Nothing is appended meanwhile, so that the copy ends with a whole header.
        let file = self.file.lock();
        file.as_ref().map_or(Ok(()), |file| file.copy_to(path))
    }

    /// Waits until the file and its metadata are on the disk.
    ///
    /// # Errors
    /// [`HeaderStoreError::Io`].
    pub fn flush(&self) -> Result<(), HeaderStoreError> {
        self.file.lock().as_ref().map_or(Ok(()), HeaderFile::sync)
    }
}

/// Hash of a header that meets its own target, if that target is one of the network.
fn proven_hash(header: &Header, easiest_target: Target) -> Option<BlockHash> {
    let target = header.target();
    if target > easiest_target {
        return None;
    }
    header.validate_pow(target).ok()
}

fn locator(tree: &Tree, from: HeaderIndex) -> Vec<BlockHash> {
    let mut hashes = vec![tree.hash(from)];
    let mut at = from;
    let mut step: Height = 1;
    while tree.height(at) > 0 {
        let wanted = tree.height(at).saturating_sub(step);
        // Off the best chain there is only the way from parent to parent.
        while tree.height(at) > wanted {
            at = match tree.best_at(tree.height(at)) {
                Some(on_best) if on_best == at => tree
                    .best_at(wanted)
                    .expect("below a header of the best chain"),
                _ => tree.parent(at),
            };
        }
        hashes.push(tree.hash(at));
        if hashes.len() > 10 {
            step = step.saturating_mul(2);
        }
    }
    hashes
}
