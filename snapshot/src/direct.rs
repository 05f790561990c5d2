//! Writing without a copy in the page cache of the operating system.
//!
//! Most bytes of a snapshot are blocks, which nobody reads soon. Through the page cache each of
//! them would be copied once more, and push out what somebody does read.
//!
//! # Correctness
//! Where the file system does not offer it, or memory and place in the file are not aligned as it
//! wants them, the bytes take the usual way. In both cases they are on the disk for certain
//! only after a sync.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    ops::{Deref, DerefMut},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use rustix::fs::OFlags;

/// What addresses, lengths and places are multiples of: no disk in use has larger sectors.
const ALIGNMENT: usize = 4096;

/// Bytes of a chunk, aligned for [`write_at`].
#[derive(Debug, Default)]
pub struct ChunkBuffer {
    /// Never grows in place, which could move it.
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl ChunkBuffer {
    /// Makes room for `len` bytes; what they are is not said.
    pub fn resize(&mut self, len: usize) {
        if self.memory.len() < len + ALIGNMENT {
            self.memory = vec![0; len + ALIGNMENT];
        }
        // Without an answer it is a buffer like any other.
        let start = self.memory.as_ptr().align_offset(ALIGNMENT);
        self.start = start.min(ALIGNMENT);
        self.len = len;
    }
}

impl Deref for ChunkBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl DerefMut for ChunkBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

/// Writes `bytes` at `start` into a file that is there, past the page cache as far as that can
/// be.
pub(crate) fn write_at(path: &Path, bytes: &[u8], start: u64) -> io::Result<()> {
    let direct = match is_aligned(bytes, start) {
        true => bytes.len() - bytes.len() % ALIGNMENT,
        false => 0,
    };
    let (direct, rest) = bytes.split_at(direct);
    if !write_direct_at(path, direct, start)? {
        return write_cached_at(path, bytes, start);
    }
    match rest.is_empty() {
        true => Ok(()),
        false => write_cached_at(path, rest, start + direct.len() as u64),
    }
}

/// `false` if the file system does not offer it, or there is nothing to write.
fn write_direct_at(path: &Path, bytes: &[u8], start: u64) -> io::Result<bool> {
    let Ok(flags) = i32::try_from(OFlags::DIRECT.bits()) else {
        return Ok(false);
    };
    if bytes.is_empty() {
        return Ok(false);
    }
    let open = OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(path);
    match open.and_then(|file| file.write_all_at(bytes, start)) {
        Err(err) if matches!(err.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            Ok(false)
        }
        written => written.map(|()| true),
    }
}

/// By way of the page cache.
pub(crate) fn write_cached_at(path: &Path, bytes: &[u8], start: u64) -> io::Result<()> {
    let file: File = OpenOptions::new().write(true).open(path)?;
    file.write_all_at(bytes, start)
}

/// Whether both memory and place in the file begin as they should.
fn is_aligned(bytes: &[u8], start: u64) -> bool {
    bytes.as_ptr().align_offset(ALIGNMENT) == 0 && start.is_multiple_of(ALIGNMENT as u64)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn aligned_or_not_the_bytes_are_where_they_belong() {
        // The folder of the build is on a disk, that for temporary files may be memory.
        for dir in [
            tempfile::tempdir().unwrap(),
            tempfile::tempdir_in(".").unwrap(),
        ] {
            let path = dir.path().join("file");
            let mut expected = vec![0; 5 * ALIGNMENT];
            fs::write(&path, &expected).unwrap();
            let mut buffer = ChunkBuffer::default();
            for (start, len) in [
                (0, ALIGNMENT),
                (2 * ALIGNMENT, 2 * ALIGNMENT),
                (ALIGNMENT + 1, ALIGNMENT),
                (ALIGNMENT, 2 * ALIGNMENT + 7),
                (4 * ALIGNMENT, 100),
                (4 * ALIGNMENT + 100, ALIGNMENT - 100),
            ] {
                buffer.resize(len);
                buffer.fill(u8::try_from(start % 251).unwrap() + 1);
                assert_eq!(is_aligned(&buffer, start as u64), start % ALIGNMENT == 0);
                expected[start..start + len].copy_from_slice(&buffer);
                write_at(&path, &buffer, start as u64).unwrap();
                assert_eq!(fs::read(&path).unwrap(), expected);
            }
            let missing = write_at(&dir.path().join("none"), &buffer, 0).unwrap_err();
            assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        }
    }
}
