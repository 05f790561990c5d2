//! `txpos`: where each transaction lies within its block.
//!
//! Key: txnum of the first transaction of a chunk (4). A chunk holds up to
//! [`CHUNK_TXS`] consecutive transactions of one block.
//!
//! Value, varints: height, offset of the first transaction in the block, offset of the
//! first undo entry in the block's undo data, number of transactions; the length of each;
//! the length of each one's undo entry (0 for a coinbase); then the check of each run of undo
//! entries (4 bytes). Lengths stand together because they compress, checks do not. About
//! 3.4 bytes per transaction before compression.
//!
//! A run is what has to be read to prove one undo entry: as many whole entries as fit into
//! [`RUN_BYTES`], but at least one, within a chunk. Its check is
//! [`Keys::undo_check`](crate::keys::Keys::undo_check) of its bytes, keyed, so that other bytes
//! pass with a chance of 1 in 2^32, whoever made them. One check for about 15 transactions
//! takes a fifteenth of the space of a check for each; reading a kilobyte instead of a few
//! bytes costs a page of the page cache either way.

use std::ops::Range;

use pulse_primitives::Height;

use super::{
    TxNum,
    codec::{BadRow, Reader, put_varint},
};

/// Most transactions in a chunk.
pub(crate) const CHUNK_TXS: usize = 64;

/// Most bytes of undo entries that share a check, unless a single entry is longer.
const RUN_BYTES: u32 = 1024;

/// Where one transaction and the outputs that it spends lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TxPos {
    /// Number of the transaction.
    pub txnum: TxNum,
    /// Height of its block.
    pub height: Height,
    /// Offset in the block, in bytes.
    pub offset: u32,
    /// Length in bytes.
    pub len: u32,
    /// Offset of its undo entry in the block's undo data, in bytes.
    pub undo_offset: u32,
    /// Length of the undo entry in bytes; 0 for a coinbase.
    pub undo_len: u32,
    /// The undo entries among which its own is proven; empty for a coinbase.
    pub run: UndoRun,
}

/// Undo entries side by side that share a check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct UndoRun {
    /// Offset of the first in the block's undo data, in bytes.
    pub offset: u32,
    /// Length of all of them in bytes.
    pub len: u32,
    /// Check of these bytes.
    pub check: [u8; 4],
}

/// The transactions of a chunk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunk<'a> {
    /// Height of the block.
    pub height: Height,
    /// Offset of the first transaction in the block, in bytes.
    pub offset: u32,
    /// Offset of its undo entry, or of the first that follows, in the block's undo data.
    pub undo_offset: u32,
    /// Length of each transaction in bytes.
    pub lens: &'a [u32],
    /// Length of the undo entry of each in bytes; 0 for a coinbase.
    pub undo_lens: &'a [u32],
}

/// How many bytes, of the undo entries of these lengths, belong to the first one's run.
fn run_len(lens: impl IntoIterator<Item = u32>) -> u32 {
    let mut run = 0u32;
    for len in lens {
        if run > 0 && run.saturating_add(len) > RUN_BYTES {
            break;
        }
        run = run.saturating_add(len);
    }
    run
}

/// Writes the value of a chunk. `check` gives the check of a range of the block's undo data.
pub(crate) fn put_chunk(
    out: &mut Vec<u8>,
    chunk: &Chunk<'_>,
    mut check: impl FnMut(Range<u32>) -> [u8; 4],
) {
    for value in [chunk.height, chunk.offset, chunk.undo_offset] {
        put_varint(out, u64::from(value));
    }
    put_varint(out, chunk.lens.len() as u64);
    for len in chunk.lens.iter().chain(chunk.undo_lens) {
        put_varint(out, u64::from(*len));
    }
    let (mut offset, mut run_end) = (chunk.undo_offset, chunk.undo_offset);
    for (index, len) in chunk.undo_lens.iter().enumerate() {
        if *len > 0 && offset >= run_end {
            run_end = offset.saturating_add(run_len(chunk.undo_lens[index..].iter().copied()));
            out.extend_from_slice(&check(offset..run_end));
        }
        offset = offset.saturating_add(*len);
    }
}

/// Positions of a chunk, in chain order. Ends after the first that does not decode.
pub(crate) fn iter_chunk<'a>(key: &[u8], value: &'a [u8]) -> Result<ChunkIter<'a>, BadRow> {
    let mut key = Reader::new(key);
    let txnum = key.u32()?;
    key.end()?;
    let mut lens = Reader::new(value);
    let height = lens.varint_u32()?;
    let offset = lens.varint_u32()?;
    let undo_offset = lens.varint_u32()?;
    let left = lens.varint_u32()?;
    if left as usize > CHUNK_TXS {
        return Err(BadRow("too many transactions in a chunk"));
    }
    let behind = |reader: &Reader<'a>| {
        let mut reader = reader.clone();
        for _ in 0..left {
            reader.varint_u32()?;
        }
        Ok(reader)
    };
    let undo_lens = behind(&lens)?;
    Ok(ChunkIter {
        checks: behind(&undo_lens)?,
        lens,
        undo_lens,
        left,
        txnum,
        height,
        offset,
        undo_offset,
        run: UndoRun {
            offset: undo_offset,
            ..UndoRun::default()
        },
    })
}

/// See [`iter_chunk`].
pub(crate) struct ChunkIter<'a> {
    lens: Reader<'a>,
    undo_lens: Reader<'a>,
    checks: Reader<'a>,
    /// Transactions yet to come.
    left: u32,
    txnum: TxNum,
    height: Height,
    offset: u32,
    undo_offset: u32,
    /// The run of the latest undo entry.
    run: UndoRun,
}

impl ChunkIter<'_> {
    fn take(&mut self) -> Result<TxPos, BadRow> {
        const OVERFLOW: BadRow = BadRow("position over 32 bits");
        let mut undo_lens = self.undo_lens.clone();
        let len = self.lens.varint_u32()?;
        let undo_len = self.undo_lens.varint_u32()?;
        let run_end = self.run.offset.checked_add(self.run.len).ok_or(OVERFLOW)?;
        if undo_len > 0 && self.undo_offset >= run_end {
            let lens = (0..self.left).map_while(|_| undo_lens.varint_u32().ok());
            self.run = UndoRun {
                offset: self.undo_offset,
                len: run_len(lens),
                check: self.checks.array()?,
            };
        }
        let pos = TxPos {
            txnum: self.txnum,
            height: self.height,
            offset: self.offset,
            len,
            undo_offset: self.undo_offset,
            undo_len,
            run: if undo_len > 0 {
                self.run
            } else {
                UndoRun::default()
            },
        };
        self.left -= 1;
        if self.left == 0 {
            self.checks.end()?;
        }
        self.txnum = self.txnum.checked_add(1).ok_or(OVERFLOW)?;
        self.offset = self.offset.checked_add(len).ok_or(OVERFLOW)?;
        self.undo_offset = self.undo_offset.checked_add(undo_len).ok_or(OVERFLOW)?;
        Ok(pos)
    }
}

impl Iterator for ChunkIter<'_> {
    type Item = Result<TxPos, BadRow>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let item = self.take();
        if item.is_err() {
            self.left = 0;
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn chunks_round_trip(
            first in 0u32..1_000_000,
            height in any::<u32>(),
            offset in 0u32..4_000_000,
            undo_offset in 0u32..4_000_000,
            lens in proptest::collection::vec((60u32..100_000, 1u32..600), 1..CHUNK_TXS),
            long in any::<[(u8, u16); 2]>(),
            coinbase in any::<bool>(),
        ) {
            let (lens, mut undo_lens): (Vec<_>, Vec<_>) = lens.into_iter().unzip();
            for (at, len) in long {
                let at = usize::from(at) % undo_lens.len();
                undo_lens[at] = u32::from(len) + 1;
            }
            if coinbase {
                undo_lens[0] = 0;
            }
            let chunk = Chunk { height, offset, undo_offset, lens: &lens, undo_lens: &undo_lens };
            let mut value = Vec::new();
            let mut runs = Vec::new();
            put_chunk(&mut value, &chunk, |run| {
                let check = (run.start ^ run.end.rotate_left(16)).to_be_bytes();
                runs.push(UndoRun { offset: run.start, len: run.end - run.start, check });
                check
            });
            let read = iter_chunk(&first.to_be_bytes(), &value).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
            prop_assert_eq!(read.len(), lens.len());
            let (mut offset, mut undo_offset) = (offset, undo_offset);
            for (index, pos) in read.iter().enumerate() {
                prop_assert_eq!((pos.txnum, pos.height), (first + index as u32, height));
                prop_assert_eq!((pos.offset, pos.len), (offset, lens[index]));
                prop_assert_eq!((pos.undo_offset, pos.undo_len), (undo_offset, undo_lens[index]));
                // Exactly one of the runs holds it, and only a long entry makes a long run.
                if pos.undo_len > 0 {
                    prop_assert!(runs.contains(&pos.run));
                    prop_assert!(pos.run.offset <= undo_offset);
                    prop_assert!(undo_offset + pos.undo_len <= pos.run.offset + pos.run.len);
                    prop_assert!(pos.run.len <= RUN_BYTES.max(pos.undo_len));
                }
                offset += pos.len;
                undo_offset += pos.undo_len;
            }
            // Runs lie side by side and hold everything.
            prop_assert_eq!(runs.iter().map(|run| run.len).sum::<u32>(), undo_lens.iter().sum::<u32>());
            prop_assert!(runs.windows(2).all(|two| two[0].offset + two[0].len == two[1].offset));
            // Nothing may be missing or left over.
            for damaged in [&value[..value.len() - 1], &[value.as_slice(), &[0]].concat()] {
                let read = iter_chunk(&first.to_be_bytes(), damaged);
                prop_assert!(read.and_then(|iter| iter.collect::<Result<Vec<_>, _>>()).is_err());
            }
        }

        #[test]
        fn damaged_chunks_end_with_an_error(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(iter) = iter_chunk(&[0; 4], &value) {
                prop_assert!(iter.count() <= 64);
            }
        }
    }
}
