//! `filter` and `filterhdr`: compact block filters (BIP 158, basic type).
//!
//! | family | key | value |
//! |-|-|-|
//! | filter | height (4) | the filter: count of its elements, Golomb-coded set |
//! | filterhdr | height (4) | block hash (32), filter hash (32), filter header (32) |
//!
//! Apart from each other, so that headers of many filters are read without the filters,
//! which have some 20 kB per full block. The keys are those of
//! [`block::key`](super::block::key).

use pulse_primitives::{
    bitcoin::{
        Block, BlockHash,
        bip158::{BlockFilterWriter, FilterHash, FilterHeader},
        hashes::Hash,
    },
    block::SpentOutput,
};

use super::codec::{BadRow, Reader};

/// What is known of a filter besides its bytes: a `filterhdr` row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FilterEntry {
    /// The block.
    pub block: BlockHash,
    /// Hash of the filter.
    pub hash: FilterHash,
    /// Its header: hash of the filter hash and the header before.
    pub header: FilterHeader,
}

impl FilterEntry {
    /// The entry of `filter`, whose predecessor has the header `previous`.
    pub(crate) fn new(block: BlockHash, filter: &[u8], previous: &FilterHeader) -> Self {
        let hash = FilterHash::hash(filter);
        Self {
            block,
            hash,
            header: hash.filter_header(previous),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        [
            self.block.to_byte_array(),
            self.hash.to_byte_array(),
            self.header.to_byte_array(),
        ]
        .concat()
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, BadRow> {
        let mut reader = Reader::new(value);
        let entry = Self {
            block: BlockHash::from_byte_array(reader.array()?),
            hash: FilterHash::from_byte_array(reader.array()?),
            header: FilterHeader::from_byte_array(reader.array()?),
        };
        reader.end()?;
        Ok(entry)
    }
}

/// The basic filter of a block: the scripts of its outputs but for `OP_RETURN`, and those
/// of the outputs that it spends.
pub(crate) fn build(block: &Block, spent: &[Vec<SpentOutput>]) -> Vec<u8> {
    let mut filter = Vec::new();
    let mut writer = BlockFilterWriter::new(&mut filter, block);
    writer.add_output_scripts();
    for spent in spent.iter().flatten() {
        writer.add_element(spent.output.script_pubkey.as_bytes());
    }
    writer
        .finish()
        .expect("writing to a vector in memory does not fail");
    filter
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulse_primitives::bitcoin::{Network, constants::genesis_block};

    #[test]
    fn the_filter_of_testnets_genesis_is_that_of_the_bip() {
        let block = genesis_block(Network::Testnet);
        let filter = build(&block, &[]);
        assert_eq!(hex::encode(&filter), "019dfca8");
        let zero = FilterHeader::all_zeros();
        let entry = FilterEntry::new(block.block_hash(), &filter, &zero);
        assert_eq!(
            entry.header.to_string(),
            "21584579b7eb08997773e5aeff3a7f932700042d0ed2a6129012b7d7ae81b750"
        );
        assert_eq!(FilterEntry::decode(&entry.encode()), Ok(entry));
        assert!(FilterEntry::decode(&entry.encode()[1..]).is_err());
    }
}
