//! Frames of Bitcoin's P2P protocol: magic, command, length, checksum, payload.

use std::io::{self, Read};

use bitcoin::{
    consensus::{deserialize, serialize},
    hashes::{Hash, sha256d},
    p2p::{
        Magic,
        message::{NetworkMessage, RawNetworkMessage},
    },
};

/// Bytes in front of a payload.
pub const HEADER_LEN: usize = 24;
/// Longest payload that is read.
const MAX_PAYLOAD: usize = 4_000_000;

/// The header of a frame.
///
/// # Panics
/// If the command is longer than 12 bytes.
#[must_use]
pub fn frame_header(
    magic: [u8; 4],
    command: &str,
    len: u32,
    checksum: [u8; 4],
) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&magic);
    header[4..4 + command.len()].copy_from_slice(command.as_bytes());
    header[16..20].copy_from_slice(&len.to_le_bytes());
    header[20..].copy_from_slice(&checksum);
    header
}

/// First four bytes of the double SHA-256.
#[must_use]
pub fn checksum(payload: &[u8]) -> [u8; 4] {
    let hash = sha256d::Hash::hash(payload).to_byte_array();
    [hash[0], hash[1], hash[2], hash[3]]
}

/// A whole frame with this message.
#[must_use]
pub fn encode(magic: [u8; 4], message: NetworkMessage) -> Vec<u8> {
    serialize(&RawNetworkMessage::new(Magic::from_bytes(magic), message))
}

/// Reads one frame and decodes it.
///
/// # Errors
/// Those of the stream; [`io::ErrorKind::InvalidData`] when the bytes are no frame of
/// this network.
pub fn read_message(stream: &mut impl Read, magic: [u8; 4]) -> io::Result<NetworkMessage> {
    let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    let mut frame = vec![0; HEADER_LEN];
    stream.read_exact(&mut frame)?;
    if frame[..4] != magic {
        return Err(invalid(format!("magic {:02x?}", &frame[..4])));
    }
    let len = u32::from_le_bytes([frame[16], frame[17], frame[18], frame[19]]);
    let len = usize::try_from(len).expect("fits");
    if len > MAX_PAYLOAD {
        return Err(invalid(format!("a payload of {len} bytes")));
    }
    frame.resize(HEADER_LEN + len, 0);
    stream.read_exact(&mut frame[HEADER_LEN..])?;
    deserialize::<RawNetworkMessage>(&frame)
        .map(RawNetworkMessage::into_payload)
        .map_err(|err| invalid(err.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_those_of_the_library() {
        let payload = 7u64.to_le_bytes();
        let magic = [1, 2, 3, 4];
        let mut frame = frame_header(magic, "ping", 8, checksum(&payload)).to_vec();
        frame.extend_from_slice(&payload);
        assert_eq!(frame, encode(magic, NetworkMessage::Ping(7)));
        let message = read_message(&mut frame.as_slice(), magic).unwrap();
        assert_eq!(message, NetworkMessage::Ping(7));
    }
}
