//! `undo`: what a block changed, so that it can be taken back without its block files.
//!
//! Key: height (4). Value: block hash (32), height (4), txnum of the coinbase (4),
//! then varints unless a length is given:
//! - number of transactions, upper 5 bytes of each one's keyed hash (5 each);
//! - number of outputs created, for each: script key (8), transaction (relative to the
//!   coinbase), vout, satoshis, flags: 1 if this block spends it, 2 if it replaces an output
//!   of an earlier transaction with the same id, whose txnum follows then;
//! - number of outputs spent, for each: script key (8), txnum that created it, vout,
//!   satoshis, spender (relative to the coinbase).
//!
//! About 40 bytes per input and output. Only the newest blocks have one.

use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, hashes::Hash},
};

use super::{
    TxNum,
    codec::{BadRow, Reader, put_varint},
    tx,
};
use crate::keys::ScriptKey;

/// Flags of a created output.
const SPENT_HERE: u64 = 1;
const REPLACES: u64 = 2;

/// An output that a block created and that can be spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Created {
    /// Key of its script.
    pub script: ScriptKey,
    /// The transaction that has it.
    pub txnum: TxNum,
    /// Its index there.
    pub vout: u32,
    /// Its value, in satoshis.
    pub amount: u64,
    /// Whether the same block spends it, so that it never has a `utxo` row.
    pub spent_here: bool,
    /// The earlier transaction with the same id whose unspent output it replaces (BIP 30).
    pub replaces: Option<TxNum>,
}

/// An output that a block spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spent {
    /// Key of its script.
    pub script: ScriptKey,
    /// The transaction that created it.
    pub txnum: TxNum,
    /// Its index there.
    pub vout: u32,
    /// Its value, in satoshis.
    pub amount: u64,
    /// The transaction that spends it.
    pub spender: TxNum,
}

/// Everything that must be known to take a block back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delta {
    /// Hash of the block.
    pub hash: BlockHash,
    /// Its height.
    pub height: Height,
    /// Number of its coinbase.
    pub first_txnum: TxNum,
    /// First part of the `tx` key of each transaction.
    pub tx_prefixes: Vec<[u8; tx::PREFIX_LEN]>,
    /// Outputs created, in chain order.
    pub created: Vec<Created>,
    /// Outputs spent, in the order of the inputs.
    pub spent: Vec<Spent>,
}

impl Delta {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(
            48 + 5 * self.tx_prefixes.len() + 20 * (self.created.len() + self.spent.len()),
        );
        out.extend_from_slice(self.hash.as_byte_array());
        out.extend_from_slice(&self.height.to_be_bytes());
        out.extend_from_slice(&self.first_txnum.to_be_bytes());
        put_varint(&mut out, self.tx_prefixes.len() as u64);
        for prefix in &self.tx_prefixes {
            out.extend_from_slice(prefix);
        }
        put_varint(&mut out, self.created.len() as u64);
        for output in &self.created {
            out.extend_from_slice(&output.script.to_be_bytes());
            put_varint(&mut out, u64::from(output.txnum - self.first_txnum));
            put_varint(&mut out, u64::from(output.vout));
            put_varint(&mut out, output.amount);
            let replaces = if output.replaces.is_some() {
                REPLACES
            } else {
                0
            };
            put_varint(&mut out, u64::from(output.spent_here) | replaces);
            if let Some(earlier) = output.replaces {
                put_varint(&mut out, u64::from(earlier));
            }
        }
        put_varint(&mut out, self.spent.len() as u64);
        for output in &self.spent {
            out.extend_from_slice(&output.script.to_be_bytes());
            put_varint(&mut out, u64::from(output.txnum));
            put_varint(&mut out, u64::from(output.vout));
            put_varint(&mut out, output.amount);
            put_varint(&mut out, u64::from(output.spender - self.first_txnum));
        }
        out
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, BadRow> {
        let mut reader = Reader::new(value);
        let hash = BlockHash::from_byte_array(reader.array()?);
        let height = reader.u32()?;
        let first_txnum = reader.u32()?;
        let relative = |reader: &mut Reader<'_>| {
            first_txnum
                .checked_add(reader.varint_u32()?)
                .ok_or(BadRow("txnum over 32 bits"))
        };
        let delta = Self {
            hash,
            height,
            first_txnum,
            tx_prefixes: list(&mut reader, |reader| reader.array())?,
            created: list(&mut reader, |reader| {
                let (script, txnum) = (reader.u64()?, relative(reader)?);
                let (vout, amount) = (reader.varint_u32()?, reader.varint()?);
                let flags = reader.varint()?;
                let replaces = flags & REPLACES != 0;
                Ok(Created {
                    script,
                    txnum,
                    vout,
                    amount,
                    spent_here: flags & SPENT_HERE != 0,
                    replaces: replaces.then(|| reader.varint_u32()).transpose()?,
                })
            })?,
            spent: list(&mut reader, |reader| {
                Ok(Spent {
                    script: reader.u64()?,
                    txnum: reader.varint_u32()?,
                    vout: reader.varint_u32()?,
                    amount: reader.varint()?,
                    spender: relative(reader)?,
                })
            })?,
        };
        reader.end()?;
        Ok(delta)
    }
}

/// Reads a number and as many items. The number is not trusted for an allocation.
fn list<'a, T>(
    reader: &mut Reader<'a>,
    item: impl Fn(&mut Reader<'a>) -> Result<T, BadRow>,
) -> Result<Vec<T>, BadRow> {
    let count = reader.varint()?;
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(item(reader)?);
    }
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn deltas_round_trip(
            first_txnum in 0u32..1000,
            prefixes in proptest::collection::vec(any::<[u8; 5]>(), 0..5),
            outputs in proptest::collection::vec(any::<(u64, u8, u32, u64, bool)>(), 0..5),
        ) {
            let delta = Delta {
                hash: BlockHash::all_zeros(),
                height: 5,
                first_txnum,
                tx_prefixes: prefixes,
                created: outputs.iter().map(|o| Created {
                    script: o.0, txnum: first_txnum + u32::from(o.1), vout: o.2, amount: o.3, spent_here: o.4,
                    replaces: (o.1 > 100).then_some(o.2),
                }).collect(),
                spent: outputs.iter().map(|o| Spent {
                    script: o.0, txnum: o.2, vout: o.2, amount: o.3, spender: first_txnum + u32::from(o.1),
                }).collect(),
            };
            let bytes = delta.encode();
            prop_assert_eq!(Delta::decode(&bytes), Ok(delta));
            prop_assert!(Delta::decode(&bytes[..bytes.len() - 1]).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Delta::decode(&bytes);
        }
    }
}
