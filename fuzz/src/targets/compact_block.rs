//! Compact blocks (BIP 152).

use pulse_primitives::bitcoin::consensus::serialize;

use super::message::decode;
use crate::seeds;

/// What decodes is within its limits and the same when it is sent on.
pub fn run(data: &[u8]) -> u64 {
    decode("cmpctblock", data)
}

/// A block with two prefilled transactions.
pub fn seeds() -> Vec<Vec<u8>> {
    vec![serialize(&seeds::compact_block())]
}
