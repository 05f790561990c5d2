//! `hist`, `agg` and `utxo`: what happened to a script, its totals, its live outputs.
//!
//! | family | key | value |
//! |-|-|-|
//! | hist | script key (8), txnum (4) | empty |
//! | agg | script key (8) | varints: transactions, outputs funded, their sum, outputs spent, their sum |
//! | utxo | script key (8), txnum (4), vout (ordered, 1 to 5) | varint: satoshis |

use super::{
    TxNum,
    codec::{BadRow, KeyBuf, Reader, put_varint},
};
use crate::{keys::ScriptKey, query::model::ScriptStats};

/// Length of the script key that starts every key here.
pub(crate) const PREFIX_LEN: usize = 8;

/// Key of a `hist` row.
pub(crate) fn hist_key(script: ScriptKey, txnum: TxNum) -> KeyBuf {
    KeyBuf::new().u64(script).u32(txnum)
}

/// Transaction number of a `hist` key.
pub(crate) fn hist_txnum(key: &[u8]) -> Result<TxNum, BadRow> {
    let mut reader = Reader::new(key);
    reader.u64()?;
    let txnum = reader.u32()?;
    reader.end()?;
    Ok(txnum)
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

/// Writes the value of an `agg` row.
pub(crate) fn put_totals(out: &mut Vec<u8>, totals: &ScriptStats) {
    put_varint(out, totals.tx_count);
    put_varint(out, totals.funded_txo_count);
    put_varint(out, totals.funded_txo_sum);
    put_varint(out, totals.spent_txo_count);
    put_varint(out, totals.spent_txo_sum);
}

/// Reads the value of an `agg` row.
pub(crate) fn totals(value: &[u8]) -> Result<ScriptStats, BadRow> {
    let mut reader = Reader::new(value);
    let totals = ScriptStats {
        tx_count: reader.varint()?,
        funded_txo_count: reader.varint()?,
        funded_txo_sum: reader.varint()?,
        spent_txo_count: reader.varint()?,
        spent_txo_sum: reader.varint()?,
    };
    reader.end()?;
    Ok(totals)
}

/// Combines two totals number by number.
///
/// Sums wrap: a chain whose money passes one script 8,000 times over would exceed 64
/// bits, which no chain with Bitcoin's supply has come near; wrapping keeps addition
/// and subtraction exact inverses even then.
pub(crate) fn combine(a: &ScriptStats, b: &ScriptStats, f: fn(u64, u64) -> u64) -> ScriptStats {
    ScriptStats {
        tx_count: f(a.tx_count, b.tx_count),
        funded_txo_count: f(a.funded_txo_count, b.funded_txo_count),
        funded_txo_sum: f(a.funded_txo_sum, b.funded_txo_sum),
        spent_txo_count: f(a.spent_txo_count, b.spent_txo_count),
        spent_txo_sum: f(a.spent_txo_sum, b.spent_txo_sum),
    }
}

/// Sum of encoded totals; `None` if one does not decode. The merge operator of `agg`.
pub(crate) fn merge_totals<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<Vec<u8>> {
    let mut sum = ScriptStats::default();
    for value in values {
        sum = combine(&sum, &totals(value).ok()?, u64::wrapping_add);
    }
    let mut out = Vec::with_capacity(24);
    put_totals(&mut out, &sum);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rows_round_trip(script in any::<u64>(), txnum in any::<u32>(), vout in any::<u32>(), n in any::<[u64; 5]>()) {
            prop_assert_eq!(hist_txnum(hist_key(script, txnum).as_ref()), Ok(txnum));
            prop_assert_eq!(utxo_outpoint(utxo_key(script, txnum, vout).as_ref()), Ok((txnum, vout)));
            let stats = ScriptStats {
                tx_count: n[0], funded_txo_count: n[1], funded_txo_sum: n[2], spent_txo_count: n[3], spent_txo_sum: n[4],
            };
            let mut value = Vec::new();
            put_totals(&mut value, &stats);
            prop_assert_eq!(totals(&value), Ok(stats));
            let merged = merge_totals([value.as_slice(), value.as_slice()].into_iter()).unwrap();
            let back = combine(&totals(&merged).unwrap(), &stats, u64::wrapping_sub);
            prop_assert_eq!(back, stats);
        }

        #[test]
        fn utxo_keys_sort_in_chain_order(a in any::<(u32, u32)>(), b in any::<(u32, u32)>(), shift in 0u32..32) {
            let (a, b) = ((a.0 >> 30, a.1 >> shift), (b.0 >> 30, b.1 >> shift));
            let (x, y) = (utxo_key(1, a.0, a.1), utxo_key(1, b.0, b.1));
            prop_assert_eq!(x.as_ref().cmp(y.as_ref()), a.cmp(&b));
        }
    }
}
