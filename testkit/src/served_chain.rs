//! The blocks that a peer serves, in memory or in a file.

use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bitcoin::{
    Block, BlockHash,
    block::Header,
    consensus::{deserialize, serialize},
};
use pulse_primitives::{Height, network::ChainParams};

use crate::wire::checksum;

/// Why a file cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockFileError {
    /// The operating system refused.
    #[error("reading {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The file is not a chain of framed blocks of this network.
    #[error("{path} at offset {offset}: {what}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong.
        what: &'static str,
    },
}

#[derive(Debug, Clone)]
enum Location {
    Memory(Arc<[u8]>),
    File {
        file: Arc<File>,
        offset: u64,
        len: u32,
    },
}

#[derive(Debug, Clone)]
struct Entry {
    header: Header,
    height: Height,
    location: Location,
    /// Computed once, so that serving costs as little as possible beside a benchmark.
    checksum: [u8; 4],
}

/// A tree of blocks with an active chain. Blocks that left the active chain can still
/// be served.
#[derive(Debug, Clone)]
pub struct ServedChain {
    params: ChainParams,
    known: HashMap<BlockHash, Entry>,
    active: Vec<BlockHash>,
}

/// A block's bytes and their checksum in a frame.
pub(crate) struct BlockBytes {
    pub(crate) bytes: Vec<u8>,
    pub(crate) checksum: [u8; 4],
    pub(crate) height: Height,
}

impl ServedChain {
    /// A chain that consists of genesis.
    #[must_use]
    pub fn new(params: &ChainParams) -> Self {
        let mut chain = Self {
            params: params.clone(),
            known: HashMap::new(),
            active: Vec::new(),
        };
        let genesis = params.genesis();
        let bytes = serialize(&genesis);
        let entry = Entry {
            header: genesis.header,
            height: 0,
            checksum: checksum(&bytes),
            location: Location::Memory(bytes.into()),
        };
        chain.known.insert(genesis.block_hash(), entry);
        chain.active.push(genesis.block_hash());
        chain
    }

    /// A chain in memory. Genesis in front may be left out.
    ///
    /// # Panics
    /// If a block does not follow a known one.
    #[must_use]
    pub fn from_blocks<'a>(
        params: &ChainParams,
        blocks: impl IntoIterator<Item = &'a Block>,
    ) -> Self {
        let mut chain = Self::new(params);
        chain.extend(blocks);
        chain
    }

    /// A chain in a file in the framing of Bitcoin Core's block files, in order and
    /// without gaps; genesis in front may be left out. The file is read once to the end,
    /// but only positions and headers stay in memory.
    ///
    /// # Errors
    /// [`BlockFileError`].
    pub fn from_file(params: &ChainParams, path: &Path) -> Result<Self, BlockFileError> {
        let fail = |source| BlockFileError::Io {
            path: path.to_owned(),
            source,
        };
        let file = Arc::new(File::open(path).map_err(fail)?);
        let end = file.metadata().map_err(fail)?.len();
        let mut chain = Self::new(params);
        let mut offset = 0;
        let mut bytes = Vec::new();
        while offset < end {
            let malformed = |what| BlockFileError::Malformed {
                path: path.to_owned(),
                offset,
                what,
            };
            let mut frame = [0; 8];
            file.read_exact_at(&mut frame, offset).map_err(fail)?;
            if frame[..4] != params.magic {
                return Err(malformed("the magic is that of another network"));
            }
            let len = u32::from_le_bytes([frame[4], frame[5], frame[6], frame[7]]);
            if !(80..=4_000_000).contains(&len) {
                return Err(malformed("the length is not that of a block"));
            }
            bytes.resize(usize::try_from(len).expect("fits"), 0);
            file.read_exact_at(&mut bytes, offset + 8).map_err(fail)?;
            let header: Header =
                deserialize(&bytes[..80]).map_err(|_| malformed("the header does not decode"))?;
            let location = Location::File {
                file: Arc::clone(&file),
                offset: offset + 8,
                len,
            };
            if header.block_hash() != params.genesis_hash()
                && !chain.add(header, location, checksum(&bytes))
            {
                return Err(malformed("the block does not follow a known one"));
            }
            offset += 8 + u64::from(len);
        }
        Ok(chain)
    }

    /// Adds a block and makes it the tip, whatever the tip was before.
    ///
    /// # Panics
    /// If its parent is not known.
    pub fn push(&mut self, block: &Block) {
        let bytes = serialize(block);
        let sum = checksum(&bytes);
        assert!(
            self.add(block.header, Location::Memory(bytes.into()), sum),
            "the parent of block {} is not known",
            block.block_hash()
        );
    }

    /// Adds blocks as [`ServedChain::push`] does; a genesis block is passed over. A
    /// whole other chain (from genesis on) therefore becomes the active one.
    pub fn extend<'a>(&mut self, blocks: impl IntoIterator<Item = &'a Block>) {
        let genesis = self.params.genesis_hash();
        for block in blocks {
            if block.block_hash() != genesis {
                self.push(block);
            }
        }
    }

    /// Parameters of the chain.
    #[must_use]
    pub fn params(&self) -> &ChainParams {
        &self.params
    }

    /// Height of the tip.
    #[must_use]
    pub fn height(&self) -> Height {
        Height::try_from(self.active.len() - 1).expect("fits")
    }

    /// Hash of the tip.
    #[must_use]
    pub fn tip_hash(&self) -> BlockHash {
        *self.active.last().expect("there is genesis")
    }

    /// Hash of the block at `height` of the active chain.
    #[must_use]
    pub fn hash_at(&self, height: Height) -> Option<BlockHash> {
        self.active.get(usize::try_from(height).ok()?).copied()
    }

    /// Height of a block if it is in the active chain.
    pub(crate) fn active_height(&self, hash: &BlockHash) -> Option<Height> {
        let height = self.known.get(hash)?.height;
        (self.hash_at(height) == Some(*hash)).then_some(height)
    }

    /// Headers of the active chain from `height` on, at most `count`.
    pub(crate) fn headers_from(&self, height: Height, count: usize) -> Vec<Header> {
        let from = usize::try_from(height).expect("fits");
        self.active
            .iter()
            .skip(from)
            .take(count)
            .map(|hash| self.known[hash].header)
            .collect()
    }

    /// Height of the last block of the active chain that is `hash` or before it.
    pub(crate) fn fork_height(&self, hash: &BlockHash) -> Option<Height> {
        let mut hash = *hash;
        loop {
            if let Some(height) = self.active_height(&hash) {
                return Some(height);
            }
            hash = self.known.get(&hash)?.header.prev_blockhash;
        }
    }

    /// The bytes of a block; `None` if it is not known.
    ///
    /// # Panics
    /// If the file can no longer be read.
    pub(crate) fn block(&self, hash: &BlockHash) -> Option<BlockBytes> {
        let entry = self.known.get(hash)?;
        let bytes = match &entry.location {
            Location::Memory(bytes) => bytes.to_vec(),
            Location::File { file, offset, len } => {
                let mut bytes = vec![0; usize::try_from(*len).expect("fits")];
                file.read_exact_at(&mut bytes, *offset)
                    .expect("the file was readable before");
                bytes
            }
        };
        Some(BlockBytes {
            bytes,
            checksum: entry.checksum,
            height: entry.height,
        })
    }

    fn add(&mut self, header: Header, location: Location, checksum: [u8; 4]) -> bool {
        let Some(parent) = self.known.get(&header.prev_blockhash) else {
            return false;
        };
        let height = parent.height + 1;
        // Back to where the parent's branch left the active chain, then along it.
        let mut path = vec![header.block_hash()];
        let mut hash = header.prev_blockhash;
        while self.active_height(&hash).is_none() {
            path.push(hash);
            hash = self.known[&hash].header.prev_blockhash;
        }
        let fork = self.known[&hash].height;
        self.known.insert(
            header.block_hash(),
            Entry {
                header,
                height,
                location,
                checksum,
            },
        );
        self.active
            .truncate(usize::try_from(fork).expect("fits") + 1);
        self.active.extend(path.into_iter().rev());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ChainBuilder;
    use bitcoin::Network;
    use pulse_simulator::write_blocks;

    fn params() -> ChainParams {
        ChainParams::new(Network::Regtest, None)
    }

    #[test]
    fn pushing_a_branch_switches_to_it_and_back() {
        let mut a = ChainBuilder::new(params());
        a.mine_empty_blocks(4);
        let mut b = a.branch_at(2);
        b.mine_empty_blocks(3);
        let mut chain = ServedChain::from_blocks(&params(), a.blocks());
        chain.extend(b.blocks());
        assert_eq!((chain.height(), chain.tip_hash()), (5, b.tip_hash()));
        assert_eq!(chain.fork_height(&a.tip_hash()), Some(2));
        assert!(chain.block(&a.tip_hash()).is_some(), "still served");
        let next = a.mine_empty().clone();
        chain.push(&next);
        assert_eq!((chain.height(), chain.tip_hash()), (5, a.tip_hash()));
        assert_eq!(chain.hash_at(3), Some(a.blocks()[3].block_hash()));
    }

    #[test]
    fn file_serves_the_same_bytes_as_memory() {
        let mut built = ChainBuilder::new(params());
        built.mine_empty_blocks(5);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chain.blk");
        write_blocks(&path, params().magic, built.blocks()).unwrap();
        let chain = ServedChain::from_file(&params(), &path).unwrap();
        assert_eq!(chain.tip_hash(), built.tip_hash());
        let served = chain.block(&built.tip_hash()).unwrap();
        assert_eq!(served.bytes, serialize(built.tip()));
        assert_eq!(served.checksum, checksum(&served.bytes));

        let other = ChainParams::new(Network::Signet, None);
        let err = ServedChain::from_file(&other, &path).unwrap_err();
        assert!(matches!(err, BlockFileError::Malformed { offset: 0, .. }));
    }
}
