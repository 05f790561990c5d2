//! Blocks: as they are taken off the wire, and as the index decodes them.

use pulse_primitives::bitcoin::{
    Block, BlockHash,
    consensus::{deserialize, serialize},
};

use super::{magnitude, message::decode, outcome};
use crate::seeds;

/// A block that decodes is the same bytes again, under the hash that was told.
pub fn run(data: &[u8]) -> u64 {
    let wire = decode("block", data);
    match deserialize::<Block>(data) {
        Ok(block) => {
            assert_eq!(serialize(&block), data);
            let header: [u8; 80] = data[..80].try_into().expect("a block has a header");
            let hash: BlockHash = block.block_hash();
            let again: pulse_primitives::bitcoin::block::Header =
                deserialize(&header).expect("it decoded before");
            assert_eq!(again.block_hash(), hash);
            outcome((wire, magnitude(block.txdata.len())))
        }
        Err(_) => outcome((wire, "malformed")),
    }
}

/// A block with and without transactions.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut block = seeds::block();
    let full = serialize(&block);
    block.txdata.clear();
    vec![full, serialize(&block)]
}
