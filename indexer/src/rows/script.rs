//! `hist` and `utxo`: what happened to a script, and its live outputs.
//!
//! | family | key | value |
//! |-|-|-|
//! | hist | script key (8), txnum (4) | what the transaction does to the script: [`Change::put`] |
//! | utxo | script key (8), txnum (4), vout (ordered, 1 to 5) | varint: satoshis |
//!
//! A `hist` value has one of these forms. Nine in ten rows have one of the first three.
//!
//! | form | meaning |
//! |-|-|
//! | empty | spends one output, worth an unstated sum |
//! | short integer, lower two bits 0 | creates one output, worth the other bits |
//! | short integer, lower two bits 1 | creates one output, worth m * 10^e: e in the next four bits, m in the others |
//! | short integer, lower two bits 2 | spends one output, worth the other bits |
//! | byte 3 or 7, then varints | outputs created, their sum, outputs spent, and (7 only) their sum |
//!
//! A short integer is little endian without its upper zero bytes, but at least one byte: the
//! row says how long it is.

use super::{
    TxNum,
    codec::{BadRow, KeyBuf, Reader, put_short, put_varint, short},
};
use crate::keys::ScriptKey;

/// Length of the script key that starts every key here.
pub(crate) const PREFIX_LEN: usize = 8;

/// Key of a `hist` row.
pub(crate) fn hist_key(script: ScriptKey, txnum: TxNum) -> KeyBuf {
    KeyBuf::new().u64(script).u32(txnum)
}

/// Script key and transaction number of a `hist` key.
pub(crate) fn hist_parts(key: &[u8]) -> Result<(ScriptKey, TxNum), BadRow> {
    let mut reader = Reader::new(key);
    let parts = (reader.u64()?, reader.u32()?);
    reader.end()?;
    Ok(parts)
}

/// Transaction number of a `hist` key.
pub(crate) fn hist_txnum(key: &[u8]) -> Result<TxNum, BadRow> {
    Ok(hist_parts(key)?.1)
}

/// What one transaction does to a script.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Outputs created.
    pub funded: u32,
    /// Their value, in satoshis.
    pub funded_sum: u64,
    /// Outputs spent.
    pub spent: u32,
    /// Their value, in satoshis; `None` if the row does not state it.
    pub spent_sum: Option<u64>,
}

/// Lower two bits of a short integer: what it is.
const FUNDED: u128 = 0;
const FUNDED_DECIMAL: u128 = 1;
const SPENT: u128 = 2;
const GENERAL: u8 = 3;
const GENERAL_WITH_SUM: u8 = 7;

impl Change {
    /// Writes the value of a `hist` row. With `spent_sum` 0 if nothing is spent; there is one
    /// encoding for each change.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        match (self.funded, self.spent, self.spent_sum) {
            (1, 0, _) => put_short(out, funded_one(self.funded_sum)),
            (0, 1, None) => {}
            (0, 1, Some(sum)) if self.funded_sum == 0 => {
                put_short(out, (u128::from(sum) << 2) | SPENT);
            }
            (funded, spent, sum) => {
                let sum = sum.filter(|_| spent > 0);
                out.push(if sum.is_some() {
                    GENERAL_WITH_SUM
                } else {
                    GENERAL
                });
                put_varint(out, u64::from(funded));
                put_varint(out, self.funded_sum);
                put_varint(out, u64::from(spent));
                if let Some(sum) = sum {
                    put_varint(out, sum);
                }
            }
        }
    }

    /// The value of a `hist` row that does not state what its spent outputs were worth.
    pub(crate) fn without_spent_sum(self) -> Vec<u8> {
        let mut out = Vec::new();
        let spent_sum = None;
        Self { spent_sum, ..self }.put(&mut out);
        out
    }

    /// Reads the value of a `hist` row.
    pub(crate) fn decode(value: &[u8]) -> Result<Self, BadRow> {
        const SUM: BadRow = BadRow("sum over 64 bits");
        let one = |funded_sum: u128| {
            let funded_sum = u64::try_from(funded_sum).map_err(|_| SUM)?;
            Ok(Self {
                funded: 1,
                funded_sum,
                ..Self::default()
            })
        };
        let Some(first) = value.first() else {
            return Ok(Self {
                spent: 1,
                ..Self::default()
            });
        };
        if first & 3 == GENERAL {
            let mut reader = Reader::new(&value[1..]);
            let (funded, funded_sum) = (reader.varint_u32()?, reader.varint()?);
            let spent = reader.varint_u32()?;
            let spent_sum = match *first {
                GENERAL => None,
                GENERAL_WITH_SUM => Some(reader.varint()?),
                _ => return Err(BadRow("unknown form")),
            };
            reader.end()?;
            return Ok(Self {
                funded,
                funded_sum,
                spent,
                spent_sum,
            });
        }
        let number = short(value)?;
        match number & 3 {
            FUNDED => one(number >> 2),
            FUNDED_DECIMAL => {
                let exponent = u32::try_from(number >> 2 & 15).map_err(|_| SUM)?;
                one((number >> 6).checked_mul(10u128.pow(exponent)).ok_or(SUM)?)
            }
            _ => Ok(Self {
                spent: 1,
                spent_sum: Some(u64::try_from(number >> 2).map_err(|_| SUM)?),
                ..Self::default()
            }),
        }
    }
}

/// The shorter of the two forms of one output of that value; the first if both are as long.
fn funded_one(sats: u64) -> u128 {
    let plain = (u128::from(sats) << 2) | FUNDED;
    let (mut mantissa, mut exponent) = (sats, 0);
    while mantissa != 0 && mantissa.is_multiple_of(10) && exponent < 15 {
        (mantissa, exponent) = (mantissa / 10, exponent + 1);
    }
    let decimal = (u128::from(mantissa) << 6) | (exponent << 2) | FUNDED_DECIMAL;
    let bytes = |number: u128| (128 - number.leading_zeros()).div_ceil(8).max(1);
    if bytes(decimal) < bytes(plain) {
        decimal
    } else {
        plain
    }
}

/// Key of a `utxo` row.
pub(crate) fn utxo_key(script: ScriptKey, txnum: TxNum, vout: u32) -> KeyBuf {
    KeyBuf::new().u64(script).u32(txnum).ordered(vout)
}

/// Transaction number and output index of a `utxo` key.
pub(crate) fn utxo_outpoint(key: &[u8]) -> Result<(TxNum, u32), BadRow> {
    let mut reader = Reader::new(key);
    reader.u64()?;
    let outpoint = (reader.u32()?, reader.ordered()?);
    reader.end()?;
    Ok(outpoint)
}

/// Writes the value of a `utxo` row.
pub(crate) fn put_amount(out: &mut Vec<u8>, sats: u64) {
    put_varint(out, sats);
}

/// Reads the value of a `utxo` row.
pub(crate) fn amount(value: &[u8]) -> Result<u64, BadRow> {
    let mut reader = Reader::new(value);
    let sats = reader.varint()?;
    reader.end()?;
    Ok(sats)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(change: &Change) -> Vec<u8> {
        let mut value = Vec::new();
        change.put(&mut value);
        value
    }

    proptest! {
        #[test]
        fn rows_round_trip(script in any::<u64>(), txnum in any::<u32>(), vout in any::<u32>()) {
            prop_assert_eq!(hist_parts(hist_key(script, txnum).as_ref()), Ok((script, txnum)));
            prop_assert_eq!(utxo_outpoint(utxo_key(script, txnum, vout).as_ref()), Ok((txnum, vout)));
        }

        #[test]
        fn changes_round_trip(
            funded in prop_oneof![Just(0u32), Just(1), any::<u32>()],
            spent in prop_oneof![Just(0u32), Just(1), any::<u32>()],
            sums in any::<[u64; 2]>(),
            shift in 0u32..64,
            stated in any::<bool>(),
        ) {
            let change = Change {
                funded,
                funded_sum: if funded > 0 { sums[0] >> shift } else { 0 },
                spent,
                spent_sum: (stated && spent > 0).then_some(sums[1] >> shift),
            };
            prop_assert_eq!(Change::decode(&encoded(&change)), Ok(change));
        }

        #[test]
        fn no_bytes_panic(value in proptest::collection::vec(any::<u8>(), 0..24)) {
            let _ = Change::decode(&value);
            let _ = amount(&value);
        }

        #[test]
        fn utxo_keys_sort_in_chain_order(a in any::<(u32, u32)>(), b in any::<(u32, u32)>(), shift in 0u32..32) {
            let (a, b) = ((a.0 >> 30, a.1 >> shift), (b.0 >> 30, b.1 >> shift));
            let (x, y) = (utxo_key(1, a.0, a.1), utxo_key(1, b.0, b.1));
            prop_assert_eq!(x.as_ref().cmp(y.as_ref()), a.cmp(&b));
        }
    }

    #[test]
    fn usual_changes_are_short() {
        let funds = |sats| Change {
            funded: 1,
            funded_sum: sats,
            ..Change::default()
        };
        for (change, len) in [
            (
                Change {
                    spent: 1,
                    ..Change::default()
                },
                0,
            ),
            (funds(0), 1),
            (funds(546), 2),
            (funds(100_000_000), 1),
            (funds(5_000_000_000), 2),
            (funds(1_234_567), 3),
            (funds(123_456_789), 4),
            (funds(u64::MAX), 9),
        ] {
            let value = encoded(&change);
            assert_eq!(value.len(), len, "{change:?}");
            assert_eq!(Change::decode(&value), Ok(change));
        }
    }
}
