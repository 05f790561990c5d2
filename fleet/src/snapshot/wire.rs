//! What is said over a stream about snapshots: one question at a time, one answer to each.
//!
//! ```text
//! question  kind u8 | manifest 32 | file u32 BE | chunk u32 BE
//!           1 what do you offer (the rest is zero), 2 the manifest, 3 a chunk of a file
//! answer    status u8 | length u32 BE | bytes
//!           0 here it is, 1 not here (any more), 2 not now
//! offers    count u8 | (manifest 32 | height u32 BE | length u8 | signature)*
//! ```
//!
//! Files and chunks are named by their places in the manifest, whose BLAKE3 hash `manifest`
//! is. A question of another kind is answered with 1, so that a later minor version can ask
//! more.

use pulse_primitives::Height;
use pulse_snapshot::ChunkHash;

/// Bytes of a question.
pub const QUESTION_LEN: usize = 41;
/// Bytes before those of an answer.
pub const ANSWER_LEN: usize = 5;
/// Most snapshots that one sibling offers.
pub const MAX_OFFERS: usize = 4;
/// Longest signature, in bytes.
pub const MAX_SIGNATURE: usize = 128;
/// Longest answer to [`Question::Offers`], in bytes.
pub const MAX_OFFERS_LEN: u32 = 1024;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// What there is.
    Offers,
    /// The manifest with this hash.
    Manifest(ChunkHash),
    /// A chunk of a file of the snapshot with this manifest.
    Chunk {
        /// Hash of the manifest.
        manifest: ChunkHash,
        /// Place of the file in it.
        file: u32,
        /// Place of the chunk in the file.
        chunk: u32,
    },
}

impl Question {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; QUESTION_LEN] {
        let zero = ChunkHash::from_bytes([0; 32]);
        let (kind, manifest, file, chunk) = match *self {
            Self::Offers => (1, zero, 0, 0),
            Self::Manifest(manifest) => (2, manifest, 0, 0),
            Self::Chunk {
                manifest,
                file,
                chunk,
            } => (3, manifest, file, chunk),
        };
        let mut bytes = [0; QUESTION_LEN];
        bytes[0] = kind;
        bytes[1..33].copy_from_slice(&manifest.to_bytes());
        bytes[33..37].copy_from_slice(&file.to_be_bytes());
        bytes[37..].copy_from_slice(&chunk.to_be_bytes());
        bytes
    }

    /// Reverse of [`Question::encode`]; `None` for another kind.
    #[must_use]
    pub fn decode(bytes: &[u8; QUESTION_LEN]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let (manifest, rest) = rest.split_first_chunk()?;
        let (file, rest) = rest.split_first_chunk()?;
        let (chunk, _) = rest.split_first_chunk()?;
        let manifest = ChunkHash::from_bytes(*manifest);
        match kind {
            1 => Some(Self::Offers),
            2 => Some(Self::Manifest(manifest)),
            3 => Some(Self::Chunk {
                manifest,
                file: u32::from_be_bytes(*file),
                chunk: u32::from_be_bytes(*chunk),
            }),
            _ => None,
        }
    }
}

/// How an answer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// So many bytes follow.
    Here(u32),
    /// It is not here, or not any more.
    Gone,
    /// It may be had later.
    Later,
}

impl Answer {
    /// Its bytes.
    #[must_use]
    pub fn encode(self) -> [u8; ANSWER_LEN] {
        let (status, len) = match self {
            Self::Here(len) => (0, len),
            Self::Gone => (1, 0),
            Self::Later => (2, 0),
        };
        let [a, b, c, d] = len.to_be_bytes();
        [status, a, b, c, d]
    }

    /// Reverse of [`Answer::encode`]; `None` for what it never makes.
    #[must_use]
    pub fn decode([status, a, b, c, d]: [u8; ANSWER_LEN]) -> Option<Self> {
        match (status, u32::from_be_bytes([a, b, c, d])) {
            (0, len) => Some(Self::Here(len)),
            (1, 0) => Some(Self::Gone),
            (2, 0) => Some(Self::Later),
            _ => None,
        }
    }
}

/// A snapshot that is offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// Hash of its manifest.
    pub manifest: ChunkHash,
    /// Height of its tip.
    pub height: Height,
    /// Of whoever offers it.
    pub signature: Vec<u8>,
}

/// The answer to [`Question::Offers`]. What is too much is left out.
#[must_use]
pub fn encode_offers(offers: &[Offered]) -> Vec<u8> {
    let offers = offers
        .iter()
        .filter(|offer| offer.signature.len() <= MAX_SIGNATURE)
        .take(MAX_OFFERS);
    let mut bytes = vec![0];
    for offer in offers {
        bytes[0] += 1;
        bytes.extend(offer.manifest.to_bytes());
        bytes.extend(offer.height.to_be_bytes());
        bytes.push(u8::try_from(offer.signature.len()).unwrap_or(0));
        bytes.extend(&offer.signature);
    }
    bytes
}

/// Reverse of [`encode_offers`]; `None` for anything else. Bytes behind are ignored, so that
/// a later minor version can say more.
#[must_use]
pub fn decode_offers(bytes: &[u8]) -> Option<Vec<Offered>> {
    let (count, mut rest) = bytes.split_first()?;
    if usize::from(*count) > MAX_OFFERS {
        return None;
    }
    let offers = (0..*count).map(|_| {
        let (manifest, after) = rest.split_first_chunk()?;
        let (height, after) = after.split_first_chunk()?;
        let (len, after) = after.split_first()?;
        let len = usize::from(*len);
        let (signature, after) = after.split_at_checked(len)?;
        rest = after;
        (len <= MAX_SIGNATURE).then(|| Offered {
            manifest: ChunkHash::from_bytes(*manifest),
            height: u32::from_be_bytes(*height),
            signature: signature.to_vec(),
        })
    });
    offers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_answers_read_back_and_others_are_not_understood() {
        let manifest = ChunkHash::of(b"manifest");
        for question in [
            Question::Offers,
            Question::Manifest(manifest),
            Question::Chunk {
                manifest,
                file: 7,
                chunk: u32::MAX,
            },
        ] {
            assert_eq!(Question::decode(&question.encode()), Some(question));
        }
        assert_eq!(Question::decode(&[4; QUESTION_LEN]), None);
        for answer in [
            Answer::Here(0),
            Answer::Here(9),
            Answer::Gone,
            Answer::Later,
        ] {
            assert_eq!(Answer::decode(answer.encode()), Some(answer));
        }
        assert_eq!(Answer::decode([3, 0, 0, 0, 0]), None);
        assert_eq!(Answer::decode([1, 0, 0, 0, 1]), None);
    }

    #[test]
    fn offers_read_back_and_are_never_more_than_a_few() {
        let offer = |height| Offered {
            manifest: ChunkHash::of(b"manifest"),
            height,
            signature: vec![3; 64],
        };
        let offers: Vec<_> = (0..3).map(offer).collect();
        let mut bytes = encode_offers(&offers);
        for len in 0..bytes.len() {
            assert_eq!(decode_offers(&bytes[..len]), None, "{len} bytes");
        }
        bytes.push(1);
        assert_eq!(decode_offers(&bytes), Some(offers));

        let mut many: Vec<_> = (0..9).map(offer).collect();
        many[0].signature = vec![3; MAX_SIGNATURE + 1];
        let bytes = encode_offers(&many);
        assert!(bytes.len() <= usize::try_from(MAX_OFFERS_LEN).unwrap());
        assert_eq!(
            decode_offers(&bytes).as_deref(),
            Some(&many[1..=MAX_OFFERS])
        );
        assert_eq!(decode_offers(&[5]), None);
    }
}
