//! `spend`: who spent an output.
//!
//! Key: txnum of the funding transaction (4), vout (ordered, 1 to 5). Value: txnum of
//! the spender (4). Which of its inputs it was is found by reading the spender.

use super::{
    TxNum,
    codec::{BadRow, KeyBuf, Reader},
};

/// The key.
pub(crate) fn key(funding: TxNum, vout: u32) -> KeyBuf {
    KeyBuf::new().u32(funding).ordered(vout)
}

/// Output index of a key.
pub(crate) fn vout(key: &[u8]) -> Result<u32, BadRow> {
    let mut reader = Reader::new(key);
    reader.u32()?;
    let vout = reader.ordered()?;
    reader.end()?;
    Ok(vout)
}

/// Transaction number of a value.
pub(crate) fn spender(value: &[u8]) -> Result<TxNum, BadRow> {
    let mut reader = Reader::new(value);
    let txnum = reader.u32()?;
    reader.end()?;
    Ok(txnum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_in_chain_order() {
        let mut last = KeyBuf::new();
        for (txnum, index) in [(0, 0), (0, 247), (0, 248), (0, 70_000), (1, 0), (256, 3)] {
            let key = key(txnum, index);
            assert_eq!(vout(key.as_ref()), Ok(index));
            assert!(last.as_ref() < key.as_ref());
            last = key;
        }
        assert_eq!(spender(&9u32.to_be_bytes()), Ok(9));
        assert!(spender(&[0; 5]).is_err());
    }
}
