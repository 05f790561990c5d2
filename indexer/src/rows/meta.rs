//! `meta`: one row per fact about the database, keyed by its name.
//!
//! | key | value |
//! |-|-|
//! | `version` | format version (4) |
//! | `chain` | network magic (4), hash of genesis (32) |
//! | `salt` | salt of the keyed hashes (16) |
//! | `cursor` | height (4), hash (32), time (4), next txnum (4); absent while nothing is indexed |
//! | `ring` | lowest height (4) that may have an `undo` row, and the height behind the highest (4) |
//! | `utxo_commitment` | [`UtxoSummary`](crate::UtxoSummary) of the rows at the cursor (48); absent with it |
//! | `unsettled` | empty; present while the runs of a bulk load are not yet merged |
//! | `checkpoints` | first script key (8) that has yet to be looked at for a checkpoint, empty when all were; absent before that began |
//! | `collision` and a script key (8) | empty: two scripts were found to share the key |
//! | `filters` | height (4) behind the highest that has a `filter` row; absent as long as none ever had |

use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, hashes::Hash},
    tip::ChainTip,
};

use super::{
    TxNum,
    codec::{BadRow, KeyBuf, Reader},
};
use crate::keys::ScriptKey;

pub(crate) const VERSION: &[u8] = b"version";
pub(crate) const CHAIN: &[u8] = b"chain";
pub(crate) const SALT: &[u8] = b"salt";
pub(crate) const CURSOR: &[u8] = b"cursor";
pub(crate) const RING: &[u8] = b"ring";
pub(crate) const UTXO_COMMITMENT: &[u8] = b"utxo_commitment";
pub(crate) const CHECKPOINTS: &[u8] = b"checkpoints";
pub(crate) const COLLISION: &[u8] = b"collision";
pub(crate) const UNSETTLED: &[u8] = b"unsettled";
pub(crate) const FILTERS: &[u8] = b"filters";

/// Key of the row that says that scripts share a key.
pub(crate) fn collision(script: ScriptKey) -> KeyBuf {
    KeyBuf::new().bytes(COLLISION).u64(script)
}

/// Reads the value of `filters`.
pub(crate) fn filters(value: &[u8]) -> Result<Height, BadRow> {
    let mut reader = Reader::new(value);
    let next = reader.u32()?;
    reader.end()?;
    Ok(next)
}

/// How far the busy scripts have been given checkpoints (`agg` rows).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checkpoints {
    /// Not begun: there may be old ones.
    None,
    /// All busy scripts below this key have one.
    Below(ScriptKey),
    /// All have.
    All,
}

impl Checkpoints {
    /// Whether the script has one, if it is busy.
    pub(crate) fn cover(self, script: ScriptKey) -> bool {
        match self {
            Self::None => false,
            Self::Below(next) => script < next,
            Self::All => true,
        }
    }

    /// The value; `None` if there is no such row.
    pub(crate) fn encode(self) -> Option<Vec<u8>> {
        match self {
            Self::None => None,
            Self::Below(next) => Some(next.to_be_bytes().to_vec()),
            Self::All => Some(Vec::new()),
        }
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, BadRow> {
        if value.is_empty() {
            return Ok(Self::All);
        }
        let mut reader = Reader::new(value);
        let next = reader.u64()?;
        reader.end()?;
        Ok(Self::Below(next))
    }
}

/// How far the index has come. Written in the same batch as the rows it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    /// The newest indexed block.
    pub tip: ChainTip,
    /// Number that the next transaction gets.
    pub next_txnum: TxNum,
}

impl Cursor {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(44);
        out.extend_from_slice(&self.tip.height.to_be_bytes());
        out.extend_from_slice(self.tip.hash.as_byte_array());
        out.extend_from_slice(&self.tip.time.to_be_bytes());
        out.extend_from_slice(&self.next_txnum.to_be_bytes());
        out
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, BadRow> {
        let mut reader = Reader::new(value);
        let cursor = Self {
            tip: ChainTip {
                height: reader.u32()?,
                hash: BlockHash::from_byte_array(reader.array()?),
                time: reader.u32()?,
            },
            next_txnum: reader.u32()?,
        };
        reader.end()?;
        Ok(cursor)
    }
}

/// Heights that may have an `undo` row: `low..next`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ring {
    /// Lowest height.
    pub low: Height,
    /// Height behind the highest.
    pub next: Height,
}

impl Ring {
    pub(crate) fn encode(&self) -> [u8; 8] {
        let mut out = [0; 8];
        out[..4].copy_from_slice(&self.low.to_be_bytes());
        out[4..].copy_from_slice(&self.next.to_be_bytes());
        out
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, BadRow> {
        let mut reader = Reader::new(value);
        let ring = Self {
            low: reader.u32()?,
            next: reader.u32()?,
        };
        reader.end()?;
        Ok(ring)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_round_trip() {
        let cursor = Cursor {
            tip: ChainTip {
                height: 1,
                hash: BlockHash::from_byte_array([2; 32]),
                time: 3,
            },
            next_txnum: 4,
        };
        assert_eq!(Cursor::decode(&cursor.encode()), Ok(cursor));
        let ring = Ring { low: 5, next: 6 };
        assert_eq!(Ring::decode(&ring.encode()), Ok(ring));
        for made in [Checkpoints::Below(7), Checkpoints::All] {
            assert_eq!(Checkpoints::decode(&made.encode().unwrap()), Ok(made));
        }
    }
}
