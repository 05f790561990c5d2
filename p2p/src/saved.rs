//! The envelope of everything about peers that outlives a run.
//!
//! ```text
//! kind: 4 bytes | version: 1 byte | content | checksum: 4 bytes
//! ```
//!
//! The checksum is the first four bytes of the double SHA-256 of all before it.

use pulse_primitives::bitcoin::{
    consensus::{Decodable, Encodable, encode},
    hashes::{Hash, sha256d},
};

const KIND_LEN: usize = 4;
const CHECKSUM_LEN: usize = 4;

/// Why saved bytes cannot be used. The caller starts empty instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SavedError {
    /// More bytes than such a thing ever has.
    #[error("it has {len} bytes, more than {max}")]
    TooLong {
        /// Bytes that it has.
        len: usize,
        /// Bytes that it may have.
        max: usize,
    },
    /// It is something else, or cut off at once.
    #[error("it does not begin as it should")]
    WrongKind,
    /// Written by a version of this program that this one does not know.
    #[error("its format is version {version}, which is not known here")]
    Version {
        /// The version that it names.
        version: u8,
    },
    /// Its bytes have changed since they were written.
    #[error("its checksum is wrong")]
    Checksum,
    /// The checksum is right but the content is not.
    #[error("{what} does not decode")]
    Malformed {
        /// What was being decoded.
        what: &'static str,
    },
}

/// What something is, which version of it is written, and how long it may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: [u8; KIND_LEN],
    pub(crate) version: u8,
    pub(crate) max_len: usize,
}

impl Kind {
    /// Puts `content` into the envelope.
    pub(crate) fn seal(&self, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(content.len() + KIND_LEN + 1 + CHECKSUM_LEN);
        bytes.extend_from_slice(&self.name);
        bytes.push(self.version);
        bytes.extend_from_slice(content);
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        bytes
    }

    /// Takes the content out of the envelope.
    pub(crate) fn open<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], SavedError> {
        let (len, max) = (bytes.len(), self.max_len);
        if len > max {
            return Err(SavedError::TooLong { len, max });
        }
        let body = len.checked_sub(CHECKSUM_LEN);
        let (body, sum) = bytes.split_at(body.ok_or(SavedError::WrongKind)?);
        let after_name = body.strip_prefix(&self.name).ok_or(SavedError::WrongKind)?;
        if sum != checksum(body) {
            return Err(SavedError::Checksum);
        }
        match after_name.split_first() {
            Some((version, content)) if *version == self.version => Ok(content),
            Some((&version, _)) => Err(SavedError::Version { version }),
            None => Err(SavedError::WrongKind),
        }
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    let [a, b, c, d, ..] = sha256d::Hash::hash(bytes).to_byte_array();
    [a, b, c, d]
}

/// Writes `value` as consensus encoding has it.
pub(crate) fn put(to: &mut Vec<u8>, value: &impl Encodable) {
    value
        .consensus_encode(to)
        .expect("writing to memory does not fail");
}

/// Takes a value from the front of `from`.
pub(crate) fn take<T: Decodable>(from: &mut &[u8], what: &'static str) -> Result<T, SavedError> {
    T::consensus_decode(from).map_err(|_: encode::Error| SavedError::Malformed { what })
}

/// That nothing is left.
pub(crate) fn finish(from: &[u8], what: &'static str) -> Result<(), SavedError> {
    if from.is_empty() {
        Ok(())
    } else {
        Err(SavedError::Malformed { what })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const KIND: Kind = Kind {
        name: *b"test",
        version: 3,
        max_len: 20,
    };

    #[test]
    fn contents_come_out_as_they_went_in() {
        for content in [&b""[..], b"abc"] {
            assert_eq!(KIND.open(&KIND.seal(content)), Ok(content));
        }
    }

    #[test]
    fn each_kind_of_damage_has_its_error() {
        let sealed = KIND.seal(b"abc");
        let other = Kind {
            name: *b"else",
            ..KIND
        };
        let newer = Kind { version: 4, ..KIND };
        assert_eq!(other.open(&sealed), Err(SavedError::WrongKind));
        assert_eq!(newer.open(&sealed), Err(SavedError::Version { version: 3 }));
        assert_eq!(KIND.open(b""), Err(SavedError::WrongKind));
        assert!(matches!(
            KIND.open(&[0; 21]),
            Err(SavedError::TooLong { len: 21, max: 20 })
        ));
        for at in 4..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert_eq!(KIND.open(&damaged), Err(SavedError::Checksum));
        }
        for len in 8..sealed.len() {
            assert_eq!(KIND.open(&sealed[..len]), Err(SavedError::Checksum));
        }
    }
}
