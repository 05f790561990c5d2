//! Frames of the unencrypted transport, one after another.

use pulse_p2p::{
    codec::{HEAD_LEN, encode_frame},
    transport::Connection,
};

use super::{against, block_on, outcome, read_all};
use crate::seeds::{self, MAGIC};

/// Reads the bytes as they are, and again with checksums that are right.
pub fn run(data: &[u8]) -> u64 {
    let repaired = with_checksums(data);
    outcome([data, &repaired].map(|data| {
        let (outcome, bytes) = block_on(against(data, |stream| async {
            read_all(&mut Connection::v1(stream, MAGIC)).await
        }));
        assert!(bytes <= data.len() as u64, "more than there was");
        outcome
    }))
}

/// A mutated payload would nearly always end at its checksum.
pub(super) fn with_checksums(mut data: &[u8]) -> Vec<u8> {
    let mut repaired = Vec::with_capacity(data.len());
    while let Some((head, rest)) = data.split_first_chunk::<HEAD_LEN>() {
        let len = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
        let Some(payload) = rest.get(..len as usize) else {
            break;
        };
        let frame = encode_frame("", payload, MAGIC);
        repaired.extend_from_slice(&head[..20]);
        repaired.extend_from_slice(&frame[20..]);
        data = &rest[payload.len()..];
    }
    repaired.extend_from_slice(data);
    repaired
}

/// Every message by itself, and all of them.
pub fn seeds() -> Vec<Vec<u8>> {
    let frames = seeds::messages()
        .into_iter()
        .map(|message| encode_frame(message.command(), &message.payload(), MAGIC));
    let mut seeds: Vec<_> = frames.collect();
    seeds.push(seeds.concat());
    seeds
}
