//! `blk` and `pos`: what a block is, and where it lies at present.
//!
//! | family | key | value |
//! |-|-|-|
//! | blk | height (4) | header (80), txnum of the coinbase (4), varints: transactions, size, weight |
//! | pos | height (4) | file (4), block offset (4), block length (4), undo offset (4), undo length (4) |
//!
//! `pos` is apart from `blk` because it differs from run to run and is renewed.

use pulse_primitives::{
    Height,
    bitcoin::{
        BlockHash,
        block::Header,
        consensus::{deserialize, serialize},
    },
    block::BlockPosition,
};

use super::{
    TxNum,
    codec::{BadRow, Reader, put_varint},
};

/// A `blk` row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockRow {
    /// The header.
    pub header: Header,
    /// Number of the block's first transaction.
    pub first_txnum: TxNum,
    /// Number of transactions.
    pub tx_count: u32,
    /// Serialised size, in bytes.
    pub size: u32,
    /// Weight (BIP 141).
    pub weight: u32,
}

impl BlockRow {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = serialize(&self.header);
        out.extend_from_slice(&self.first_txnum.to_be_bytes());
        put_varint(&mut out, u64::from(self.tx_count));
        put_varint(&mut out, u64::from(self.size));
        put_varint(&mut out, u64::from(self.weight));
        out
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, BadRow> {
        let mut reader = Reader::new(value);
        let row = Self {
            header: deserialize(reader.bytes(80)?).map_err(|_| BadRow("header"))?,
            first_txnum: reader.u32()?,
            tx_count: reader.varint_u32()?,
            size: reader.varint_u32()?,
            weight: reader.varint_u32()?,
        };
        reader.end()?;
        Ok(row)
    }

    pub(crate) fn hash(&self) -> BlockHash {
        self.header.block_hash()
    }

    /// Number of the first transaction behind this block.
    pub(crate) fn next_txnum(&self) -> TxNum {
        self.first_txnum.saturating_add(self.tx_count)
    }
}

/// Key of `blk`, `pos` and `undo` rows.
pub(crate) fn key(height: Height) -> [u8; 4] {
    height.to_be_bytes()
}

/// Value of a `pos` row.
pub(crate) fn encode_position(position: &BlockPosition) -> [u8; 20] {
    let mut out = [0; 20];
    let fields = [
        position.file,
        position.block_offset,
        position.block_len,
        position.undo_offset,
        position.undo_len,
    ];
    for (bytes, field) in out.chunks_exact_mut(4).zip(fields) {
        bytes.copy_from_slice(&field.to_be_bytes());
    }
    out
}

/// Reads the value of a `pos` row.
pub(crate) fn decode_position(value: &[u8]) -> Result<BlockPosition, BadRow> {
    let mut reader = Reader::new(value);
    let position = BlockPosition {
        file: reader.u32()?,
        block_offset: reader.u32()?,
        block_len: reader.u32()?,
        undo_offset: reader.u32()?,
        undo_len: reader.u32()?,
    };
    reader.end()?;
    Ok(position)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulse_primitives::bitcoin::{Network, constants::genesis_block};

    #[test]
    fn rows_round_trip() {
        let row = BlockRow {
            header: genesis_block(Network::Bitcoin).header,
            first_txnum: 0x0102_0304,
            tx_count: 1,
            size: 285,
            weight: 1140,
        };
        assert_eq!(BlockRow::decode(&row.encode()), Ok(row.clone()));
        assert!(BlockRow::decode(&row.encode()[1..]).is_err());

        let position = BlockPosition {
            file: 1,
            block_offset: 2,
            block_len: 3,
            undo_offset: 4,
            undo_len: u32::MAX,
        };
        assert_eq!(decode_position(&encode_position(&position)), Ok(position));
    }
}
