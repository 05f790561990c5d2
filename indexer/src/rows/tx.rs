//! `tx`: from a transaction id to its number.
//!
//! Key: upper 5 bytes of the keyed hash of the txid, txnum (4). Value: empty.
//!
//! Two transactions may share the five bytes, so a row is a candidate that the raw
//! transaction has to confirm. With 1.4 billion transactions about one look-up in a
//! thousand meets a second candidate.

use super::{
    TxNum,
    codec::{BadRow, Reader},
};

/// Length of the hash in the key.
pub(crate) const PREFIX_LEN: usize = 5;

/// First part of the key.
pub(crate) fn prefix(hash: u64) -> [u8; PREFIX_LEN] {
    let [a, b, c, d, e, ..] = hash.to_be_bytes();
    [a, b, c, d, e]
}

/// The key.
pub(crate) fn key(prefix: [u8; PREFIX_LEN], txnum: TxNum) -> [u8; 9] {
    let mut key = [0; 9];
    key[..PREFIX_LEN].copy_from_slice(&prefix);
    key[PREFIX_LEN..].copy_from_slice(&txnum.to_be_bytes());
    key
}

/// The transaction number in a key.
pub(crate) fn txnum(key: &[u8]) -> Result<TxNum, BadRow> {
    let mut reader = Reader::new(key);
    reader.array::<PREFIX_LEN>()?;
    let txnum = reader.u32()?;
    reader.end()?;
    Ok(txnum)
}
