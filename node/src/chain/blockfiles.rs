//! Reads the kernel's block files: `blkNNNNN.dat` and `revNNNNN.dat`.
//!
//! Both are sequences of frames, XORed with the eight bytes of `xor.dat` repeated
//! from the start of the file:
//!
//! ```text
//! blk: [magic 4][length 4, LE][block]
//! rev: [magic 4][length 4, LE][undo data][SHA-256d of previous block hash and undo data, 32]
//! ```
//!
//! A frame is found by walking the frames before it. The kernel appends, so the
//! walk starts behind the newest frame that is known to be live and is one step
//! long; only what this process has not seen yet costs more.
//!
//! A new folder gets its `xor.dat` here and not from the kernel, which does not wait until it
//! is on the disk: after a power cut it can be empty, and blocks that are there unreadable.
//!
//! # Correctness
//! After a kill the kernel writes again from an older offset, so that stale frames
//! can stand behind its new end. A block frame is therefore only taken when its
//! header hashes to the block asked for, an undo frame only when its checksum
//! matches; and every later read is proven by its caller (`BlockPosition`).
//!
//! The checksum names the previous block and not the block itself: undo data of blocks
//! with the same parent passes for each other's. Which of them is meant, the caller has
//! to say when there are such blocks.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use pulse_primitives::{
    bitcoin::{
        BlockHash,
        block::Header,
        consensus::deserialize,
        hashes::{Hash, HashEngine, sha256d},
    },
    block::BlockPosition,
    ports::BlockSourceError,
};
use quick_cache::sync::Cache;
use rustix::fs::{Advice, fadvise};

use crate::metrics::BlockfileReads;

/// The mask of all files.
const XOR_FILE: &str = "xor.dat";
/// Magic and length in front of each frame, in bytes.
const FRAME_HEAD: usize = 8;
/// Length of a block header, in bytes.
const HEADER: usize = 80;
/// Checksum behind the undo data, in bytes.
const CHECKSUM: usize = 32;
/// No frame can be longer: a block has at most 4,000,000 weight units, and the
/// undo data of one at most about as many bytes per input as a block has.
const MAX_FRAME: u32 = 32 * 1024 * 1024;
/// Files kept open.
const OPEN_FILES: usize = 128;

/// Which of the two kinds of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Block,
    Undo,
}

/// A frame's payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    file: u32,
    offset: u32,
    len: u32,
}

impl Frame {
    /// Offset behind the payload and what follows it.
    pub fn end(self, trailer: usize) -> u64 {
        u64::from(self.offset) + u64::from(self.len) + trailer as u64
    }
}

/// Reader of the kernel's block files. One for the whole process.
pub(super) struct BlockFiles {
    dir: PathBuf,
    magic: [u8; 4],
    xor: [u8; 8],
    open: Cache<(Kind, u32), Arc<File>>,
    counted: BlockfileReads,
    known: Mutex<Known>,
}

/// What has been found so far.
#[derive(Default)]
struct Known {
    /// Blocks by the first eight bytes of their hash: about 30 bytes each. A reader
    /// proves the frame, so two blocks that share a key cost a scan and no more.
    blocks: HashMap<u64, Frame>,
    /// Behind the newest block that this process saw the kernel store.
    tail: Option<(u32, u64)>,
    /// Undo frames of blocks that were read before, with the same keys.
    undo: HashMap<u64, Frame>,
    /// Per `rev` file, behind the undo frame that was read last: connected blocks
    /// are read in the order in which their undo data was written.
    undo_cursor: HashMap<u32, u64>,
}

fn key(hash: &BlockHash) -> u64 {
    let bytes = hash.as_byte_array();
    u64::from_le_bytes([
        bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
    ])
}

/// Gives a folder in which the kernel has not been yet a random `xor.dat`, which the kernel
/// takes over, and waits until it is on the disk. Hidden files do not count, as for the kernel.
///
/// # Errors
/// Whatever the operating system says.
pub(super) fn prepare(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        if !entry?.file_name().as_encoded_bytes().starts_with(b".") {
            return Ok(());
        }
    }
    let unfinished = dir.join(".xor.dat.tmp");
    let mut file = File::create(&unfinished)?;
    file.write_all(&rand::random::<[u8; 8]>())?;
    file.sync_all()?;
    fs::rename(&unfinished, dir.join(XOR_FILE))?;
    File::open(dir)?.sync_all()
}

impl BlockFiles {
    /// Opens the directory. `magic` is that of the network.
    ///
    /// # Errors
    /// If `xor.dat` exists and cannot be read or has not eight bytes.
    pub fn open(dir: &Path, magic: [u8; 4]) -> io::Result<Self> {
        let xor = match fs::read(dir.join(XOR_FILE)) {
            Ok(bytes) => bytes.try_into().map_err(|_| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    "xor.dat is not eight bytes long",
                )
            })?,
            Err(err) if err.kind() == io::ErrorKind::NotFound => [0; 8],
            Err(err) => return Err(err),
        };
        Ok(Self {
            dir: dir.to_owned(),
            magic,
            xor,
            open: Cache::new(OPEN_FILES),
            counted: BlockfileReads::new(),
            known: Mutex::default(),
        })
    }

    /// Notes where the kernel has just stored a block. Called on the kernel's thread
    /// after each new block; one small read when blocks follow each other.
    pub fn note_stored(&self, hash: &BlockHash) {
        let tail = self.known.lock().tail;
        let found = match tail {
            Some((file, offset)) => self
                .block_frame_at(file, offset, hash)
                .or_else(|| self.block_frame_at(file + 1, 0, hash)),
            None => None,
        };
        // A first block of this process, or a kernel that went on elsewhere.
        let Some(frame) = found.or_else(|| self.search_block(hash)) else {
            return; // A later read scans again and reports what it finds.
        };
        let mut known = self.known.lock();
        known.blocks.insert(key(hash), frame);
        known.tail = Some((frame.file, frame.end(0)));
    }

    /// Where the block's frame is.
    ///
    /// # Errors
    /// [`BlockSourceError::NotStored`] when no file holds it.
    fn block_frame(&self, hash: &BlockHash) -> Result<Frame, BlockSourceError> {
        let known = self.known.lock().blocks.get(&key(hash)).copied();
        if let Some(frame) = known
            && self.is_block(frame, hash)
        {
            return Ok(frame);
        }
        let frame = self
            .search_block(hash)
            .ok_or(BlockSourceError::NotStored { hash: *hash })?;
        self.known.lock().blocks.insert(key(hash), frame);
        Ok(frame)
    }

    /// Reads a whole block, whatever chain it is on. Undo data is not looked at.
    ///
    /// # Errors
    /// [`BlockSourceError::NotStored`], [`BlockSourceError::Io`].
    pub fn read_whole(&self, hash: &BlockHash) -> Result<Vec<u8>, BlockSourceError> {
        let frame = self.block_frame(hash)?;
        Ok(self.read(
            Kind::Block,
            frame.file,
            frame.offset.into(),
            frame.len as usize,
        )?)
    }

    /// Where block and undo data are now, and the undo data itself (empty for genesis).
    /// Of undo data whose checksum is right, the first for which `is_its_own` is taken.
    ///
    /// # Errors
    /// [`BlockSourceError::NotStored`] and [`BlockSourceError::UndoMissing`].
    pub fn find(
        &self,
        hash: &BlockHash,
        prev_hash: &BlockHash,
        is_genesis: bool,
        is_its_own: impl Fn(&[u8]) -> bool,
    ) -> Result<(BlockPosition, Vec<u8>), BlockSourceError> {
        let block = self.block_frame(hash)?;
        let mut position = BlockPosition {
            file: block.file,
            block_offset: block.offset,
            block_len: block.len,
            undo_offset: 0,
            undo_len: 0,
        };
        if is_genesis {
            return Ok((position, Vec::new()));
        }
        let (frame, undo) = self
            .find_undo(block.file, hash, prev_hash, is_its_own)
            .ok_or(BlockSourceError::UndoMissing { hash: *hash })?;
        position.undo_offset = frame.offset;
        position.undo_len = frame.len;
        Ok((position, undo))
    }

    /// Reads from a payload: `len` bytes, `offset` bytes behind its first.
    ///
    /// # Errors
    /// [`BlockSourceError::Stale`] when the range leaves the recorded payload or the
    /// file ends before, [`BlockSourceError::Io`].
    pub fn read_block(
        &self,
        position: &BlockPosition,
        offset: u32,
        len: u32,
    ) -> Result<Vec<u8>, BlockSourceError> {
        let start = (position.block_offset, position.block_len);
        self.read_payload(Kind::Block, position, start, offset, len)
    }

    /// As [`Self::read_block`], from the undo data.
    pub fn read_undo(
        &self,
        position: &BlockPosition,
        offset: u32,
        len: u32,
    ) -> Result<Vec<u8>, BlockSourceError> {
        let start = (position.undo_offset, position.undo_len);
        self.read_payload(Kind::Undo, position, start, offset, len)
    }

    fn read_payload(
        &self,
        kind: Kind,
        position: &BlockPosition,
        (start, payload_len): (u32, u32),
        offset: u32,
        len: u32,
    ) -> Result<Vec<u8>, BlockSourceError> {
        let stale = || BlockSourceError::Stale {
            position: *position,
        };
        if offset.checked_add(len).is_none_or(|end| end > payload_len) {
            return Err(stale());
        }
        let from = u64::from(start) + u64::from(offset);
        match self.read(kind, position.file, from, len as usize) {
            Ok(bytes) => Ok(bytes),
            Err(err)
                if matches!(
                    err.kind(),
                    io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound
                ) =>
            {
                Err(stale())
            }
            Err(err) => Err(err.into()),
        }
    }

    /// The frame at `offset`, if it is one.
    pub(super) fn frame_at(&self, kind: Kind, file: u32, offset: u64) -> Option<Frame> {
        let head = self.read(kind, file, offset, FRAME_HEAD).ok()?;
        let (magic, len) = head.split_first_chunk::<4>()?;
        let len = u32::from_le_bytes(len.try_into().ok()?);
        (*magic == self.magic && len <= MAX_FRAME).then_some(())?;
        Some(Frame {
            file,
            offset: u32::try_from(offset + FRAME_HEAD as u64).ok()?,
            len,
        })
    }

    fn block_frame_at(&self, file: u32, offset: u64, hash: &BlockHash) -> Option<Frame> {
        self.frame_at(Kind::Block, file, offset)
            .filter(|frame| self.is_block(*frame, hash))
    }

    fn is_block(&self, frame: Frame, hash: &BlockHash) -> bool {
        self.header_hash(frame) == Some(*hash)
    }

    pub(super) fn header_hash(&self, frame: Frame) -> Option<BlockHash> {
        if (frame.len as usize) < HEADER {
            return None;
        }
        let header = self
            .read(Kind::Block, frame.file, frame.offset.into(), HEADER)
            .ok()?;
        Some(BlockHash::from_raw_hash(sha256d::Hash::hash(&header)))
    }

    /// The headers of all blocks in the files, whatever chain they are on.
    pub fn headers(&self) -> impl Iterator<Item = Header> + '_ {
        (0..self.file_count()).flat_map(move |file| {
            let mut offset = 0;
            std::iter::from_fn(move || {
                let frame = self.frame_at(Kind::Block, file, offset)?;
                offset = frame.end(0);
                let start = frame.offset.into();
                let bytes = self.read(Kind::Block, file, start, HEADER).ok()?;
                deserialize(&bytes).ok()
            })
        })
    }

    /// Walks all block frames, newest file first and each from its start, so that a
    /// live frame is met before a stale copy behind it. Remembers what it meets.
    fn search_block(&self, hash: &BlockHash) -> Option<Frame> {
        for file in (0..self.file_count()).rev() {
            let mut offset = 0;
            let mut found = None;
            let mut met = Vec::new();
            while let Some(frame) = self.frame_at(Kind::Block, file, offset) {
                let Some(at) = self.header_hash(frame) else {
                    break;
                };
                met.push((key(&at), frame));
                if at == *hash {
                    found = found.or(Some(frame));
                }
                offset = frame.end(0);
            }
            let mut known = self.known.lock();
            for (key, frame) in met.into_iter().rev() {
                known.blocks.insert(key, frame);
            }
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// The undo frame of a block, in the `rev` file of that number.
    fn find_undo(
        &self,
        file: u32,
        hash: &BlockHash,
        prev_hash: &BlockHash,
        is_its_own: impl Fn(&[u8]) -> bool,
    ) -> Option<(Frame, Vec<u8>)> {
        let take = |frame: Frame| {
            let undo = self.checked_undo(frame, prev_hash)?;
            is_its_own(&undo).then_some((frame, undo))
        };
        let (remembered, cursor) = {
            let known = self.known.lock();
            (
                known.undo.get(&key(hash)).copied(),
                known.undo_cursor.get(&file).copied(),
            )
        };
        let found = remembered
            .filter(|frame| frame.file == file)
            .and_then(take)
            .or_else(|| take(self.frame_at(Kind::Undo, file, cursor?)?))
            .or_else(|| {
                let mut offset = 0;
                while let Some(frame) = self.frame_at(Kind::Undo, file, offset) {
                    let found = take(frame);
                    if found.is_some() {
                        return found;
                    }
                    offset = frame.end(CHECKSUM);
                }
                None
            })?;
        let mut known = self.known.lock();
        known.undo.insert(key(hash), found.0);
        known.undo_cursor.insert(file, found.0.end(CHECKSUM));
        Some(found)
    }

    /// The undo data of the frame if its checksum is that of a block behind `prev_hash`.
    fn checked_undo(&self, frame: Frame, prev_hash: &BlockHash) -> Option<Vec<u8>> {
        let len = frame.len as usize;
        let mut bytes = self
            .read(Kind::Undo, frame.file, frame.offset.into(), len + CHECKSUM)
            .ok()?;
        let checksum = bytes.split_off(len);
        let mut engine = sha256d::Hash::engine();
        engine.input(prev_hash.as_byte_array());
        engine.input(&bytes);
        (sha256d::Hash::from_engine(engine).as_byte_array()[..] == checksum[..]).then_some(bytes)
    }

    pub(super) fn path(&self, kind: Kind, file: u32) -> PathBuf {
        let prefix = match kind {
            Kind::Block => "blk",
            Kind::Undo => "rev",
        };
        self.dir.join(format!("{prefix}{file:05}.dat"))
    }

    pub(super) fn file_count(&self) -> u32 {
        (0..)
            .find(|file| !self.path(Kind::Block, *file).exists())
            .unwrap_or(u32::MAX)
    }

    fn read(&self, kind: Kind, file: u32, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let handle = self.open.get_or_insert_with(&(kind, file), || {
            let handle = File::open(self.path(kind, file))?;
            // Most reads are of one transaction: without this the system reads tenfold around
            // it. Whole blocks come in one read either way. Only advice, so it may fail.
            let _ = fadvise(&handle, 0, None, Advice::Random);
            Ok::<_, io::Error>(Arc::new(handle))
        })?;
        let mut bytes = vec![0; len];
        handle.read_exact_at(&mut bytes, offset)?;
        self.counted.read(len);
        unmask(&mut bytes, self.xor, offset);
        Ok(bytes)
    }
}

/// Removes the XOR mask from bytes that stand at `offset` in a file.
fn unmask(bytes: &mut [u8], key: [u8; 8], offset: u64) {
    let mut rotated = key;
    rotated.rotate_left(usize::try_from(offset % 8).unwrap_or(0));
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    let word = u64::from_ne_bytes(rotated);
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(rotated) {
        *byte ^= key;
    }
}

#[cfg(test)]
pub(super) mod tests;
