//! Which of the kernel's files will never change again.
//!
//! Blocks are appended to the newest `blk` file in the order of their arrival; when the next
//! does not fit into 128 MiB, the file is cut at its end and left for good. The undo data of
//! a block is appended to the `rev` file of the same number when the block is connected for
//! the first time, however late that is.
//!
//! So a pair is settled when its `blk` file has been left and each block in it is of the
//! active chain, and therefore has its undo data. A file has been left when its frames fill
//! it to the last byte and beyond the last step in which the kernel makes room (16 MiB), for
//! one in use ends with room that is not used.
//!
//! # Correctness
//! After a kill the kernel can go on in a file that it had left, until it has written as
//! much as before. Frames beyond its new end are of blocks that it does not know any more,
//! so that they are not of the active chain. The two newest pairs never count as settled,
//! whatever they look like.
//!
//! All this holds of the kernel's state on the disk only after a flush, which closing it is.

use std::fs;

use pulse_primitives::bitcoin::BlockHash;

use super::blockfiles::{BlockFiles, Kind};

/// A file that is shorter has not been left: 128 MiB less the kernel's step of 16 MiB.
const LEFT_BYTES: u64 = 112 << 20;

/// Newest pairs that are never taken for settled.
const NEWEST: u32 = 2;

impl BlockFiles {
    /// Numbers of the settled pairs.
    pub fn settled(&self, is_active: impl Fn(&BlockHash) -> bool) -> Vec<u32> {
        self.settled_from(LEFT_BYTES, is_active)
    }

    fn settled_from(&self, left_bytes: u64, is_active: impl Fn(&BlockHash) -> bool) -> Vec<u32> {
        (0..self.file_count().saturating_sub(NEWEST))
            .filter(|file| {
                let path = self.path(Kind::Block, *file);
                fs::metadata(path).is_ok_and(|meta| {
                    meta.len() >= left_bytes && self.is_full(*file, meta.len(), &is_active)
                })
            })
            .collect()
    }

    /// Whether frames of active blocks fill the file to its last byte.
    fn is_full(&self, file: u32, len: u64, is_active: impl Fn(&BlockHash) -> bool) -> bool {
        let mut offset = 0;
        while offset < len {
            let Some(frame) = self.frame_at(Kind::Block, file, offset) else {
                return false;
            };
            if !self.header_hash(frame).is_some_and(|hash| is_active(&hash)) {
                return false;
            }
            offset = frame.end(0);
        }
        offset == len
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, fs::OpenOptions};

    use super::super::blockfiles::tests::{Fixture, block};

    fn settled(fixture: &Fixture, active: &[u32], left_bytes: u64) -> Vec<u32> {
        let active: HashSet<_> = active.iter().map(|n| block(*n).block_hash()).collect();
        let files = fixture.open();
        files.settled_from(left_bytes, |hash| active.contains(hash))
    }

    #[test]
    fn a_pair_is_settled_when_it_was_left_and_all_its_blocks_are_active() {
        let fixture = Fixture::new();
        let mut end = 0;
        for file in 0..5 {
            let name = format!("blk{file:05}.dat");
            end = fixture.block(&name, 0, &block(2 * file));
            end = fixture.block(&name, end, &block(2 * file + 1));
        }
        let all: Vec<u32> = (0..10).collect();
        assert_eq!(settled(&fixture, &all, end), [0, 1, 2]);
        // A block that may still be connected: undo data would be appended.
        let without: Vec<u32> = all.iter().copied().filter(|n| *n != 3).collect();
        assert_eq!(settled(&fixture, &without, end), [0, 2]);
        // Too short to have been left.
        assert!(settled(&fixture, &all, end + 1).is_empty());
        // Room behind the last frame, made for the next.
        let path = fixture.dir.path().join("blk00002.dat");
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(end + 1).unwrap();
        assert_eq!(settled(&fixture, &all, end), [0, 1]);
        file.set_len(end - 1).unwrap();
        assert_eq!(settled(&fixture, &all, end - 1), [0, 1]);
    }
}
