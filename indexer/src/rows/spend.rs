//! `spend`: who spent an output.
//!
//! Key: txnum of the funding transaction (4), vout (ordered, 1 to 5). Value: how many
//! transactions later it was spent, as a short integer (1 to 4). Which of the spender's
//! inputs it was is found by reading the spender.

use super::{
    TxNum,
    codec::{BadRow, KeyBuf, Reader, put_short, short},
};

/// The key.
pub(crate) fn key(funding: TxNum, vout: u32) -> KeyBuf {
    KeyBuf::new().u32(funding).ordered(vout)
}

/// Writes the value.
pub(crate) fn put_spender(out: &mut Vec<u8>, funding: TxNum, spender: TxNum) {
    // An output is spent after the transaction that has it, so nothing wraps.
    put_short(out, u128::from(spender.wrapping_sub(funding)));
}

/// Funding transaction and output index of a key.
pub(crate) fn output(key: &[u8]) -> Result<(TxNum, u32), BadRow> {
    let mut reader = Reader::new(key);
    let output = (reader.u32()?, reader.ordered()?);
    reader.end()?;
    Ok(output)
}

/// Number of the spender, by the value of an output of `funding`.
pub(crate) fn spender(funding: TxNum, value: &[u8]) -> Result<TxNum, BadRow> {
    const FAR: BadRow = BadRow("txnum over 32 bits");
    let later = TxNum::try_from(short(value)?).map_err(|_| FAR)?;
    funding.checked_add(later).ok_or(FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_round_trip_in_chain_order() {
        let mut last = KeyBuf::new();
        for (txnum, index) in [(0, 0), (0, 247), (0, 248), (0, 70_000), (1, 0), (256, 3)] {
            let key = key(txnum, index);
            assert_eq!(output(key.as_ref()), Ok((txnum, index)));
            assert!(last.as_ref() < key.as_ref());
            last = key;
        }
        for (funding, later, len) in [(0, 0, 1), (5, 255, 1), (5, 256, 2), (9, u32::MAX - 9, 4)] {
            let mut value = Vec::new();
            put_spender(&mut value, funding, funding + later);
            assert_eq!(value.len(), len);
            assert_eq!(spender(funding, &value), Ok(funding + later));
        }
        assert!(spender(1, &[0xff; 4]).is_err());
        assert!(spender(1, &[]).is_err());
    }
}
