//! `txpos`: where each transaction lies within its block.
//!
//! Key: txnum of the first transaction of a chunk (4). A chunk holds up to
//! [`CHUNK_TXS`] consecutive transactions of one block.
//!
//! Value, all varints: height, offset of the first transaction in the block, offset
//! of the first undo entry in the block's undo data; then for each transaction its
//! length, the length of its undo entry and, unless that is 0 (coinbase), the four
//! bytes of [`Keys::undo_check`](crate::keys::Keys::undo_check). About 8 bytes each.

use pulse_primitives::Height;

use super::{
    TxNum,
    codec::{BadRow, Reader, put_varint},
};

/// Most transactions in a chunk.
pub(crate) const CHUNK_TXS: usize = 64;

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
    /// Check of the undo bytes; zeros for a coinbase.
    pub undo_check: [u8; 4],
}

/// Writes the value of a chunk: the positions must be consecutive and not empty.
pub(crate) fn put_chunk(out: &mut Vec<u8>, txs: &[TxPos]) {
    let Some(first) = txs.first() else { return };
    put_varint(out, u64::from(first.height));
    put_varint(out, u64::from(first.offset));
    put_varint(out, u64::from(first.undo_offset));
    for tx in txs {
        put_varint(out, u64::from(tx.len));
        put_varint(out, u64::from(tx.undo_len));
        if tx.undo_len > 0 {
            out.extend_from_slice(&tx.undo_check);
        }
    }
}

/// Positions of a chunk, in chain order. Ends after the first row that does not decode.
pub(crate) fn iter_chunk<'a>(key: &[u8], value: &'a [u8]) -> Result<ChunkIter<'a>, BadRow> {
    let mut key = Reader::new(key);
    let txnum = key.u32()?;
    key.end()?;
    let mut reader = Reader::new(value);
    Ok(ChunkIter {
        txnum,
        height: reader.varint_u32()?,
        offset: reader.varint_u32()?,
        undo_offset: reader.varint_u32()?,
        reader,
    })
}

/// See [`iter_chunk`].
pub(crate) struct ChunkIter<'a> {
    reader: Reader<'a>,
    txnum: TxNum,
    height: Height,
    offset: u32,
    undo_offset: u32,
}

impl ChunkIter<'_> {
    fn take(&mut self) -> Result<TxPos, BadRow> {
        const OVERFLOW: BadRow = BadRow("position over 32 bits");
        let len = self.reader.varint_u32()?;
        let undo_len = self.reader.varint_u32()?;
        let undo_check = if undo_len > 0 {
            self.reader.array()?
        } else {
            [0; 4]
        };
        let pos = TxPos {
            txnum: self.txnum,
            height: self.height,
            offset: self.offset,
            len,
            undo_offset: self.undo_offset,
            undo_len,
            undo_check,
        };
        self.txnum = self.txnum.checked_add(1).ok_or(OVERFLOW)?;
        self.offset = self.offset.checked_add(len).ok_or(OVERFLOW)?;
        self.undo_offset = self.undo_offset.checked_add(undo_len).ok_or(OVERFLOW)?;
        Ok(pos)
    }
}

impl Iterator for ChunkIter<'_> {
    type Item = Result<TxPos, BadRow>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let item = self.take();
        if item.is_err() {
            self.reader = Reader::new(&[]);
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
            lens in proptest::collection::vec((60u32..100_000, 0u32..50_000, any::<[u8; 4]>()), 1..CHUNK_TXS),
        ) {
            let (mut txnum, mut offset, mut undo_offset) = (first, offset, undo_offset);
            let mut txs = Vec::new();
            for (len, undo_len, check) in lens {
                let undo_check = if undo_len == 0 { [0; 4] } else { check };
                txs.push(TxPos { txnum, height, offset, len, undo_offset, undo_len, undo_check });
                (txnum, offset, undo_offset) = (txnum + 1, offset + len, undo_offset + undo_len);
            }
            let mut value = Vec::new();
            put_chunk(&mut value, &txs);
            let read = iter_chunk(&first.to_be_bytes(), &value).unwrap().collect::<Result<Vec<_>, _>>();
            prop_assert_eq!(read, Ok(txs));
        }

        #[test]
        fn damaged_chunks_end_with_an_error(value in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(iter) = iter_chunk(&[0; 4], &value) {
                prop_assert!(iter.count() <= 64);
            }
        }
    }
}
