//! Decodes the kernel's undo data (`rev*.dat`): the outputs that a block spent.
//!
//! Layout (Bitcoin Core `undo.h`, `compressor.h`): CompactSize number of
//! transactions without the coinbase; for each, CompactSize number of inputs; for
//! each input VARINT(height * 2 + coinbase), one VARINT that is always 0 when the
//! height is not 0, VARINT(compressed amount), and the compressed script.
//!
//! # Security
//! The bytes come from the disk. Lengths are checked against what is left before
//! anything is allocated.

use pulse_primitives::{
    Height,
    bitcoin::{Amount, ScriptBuf, TxOut, hashes::Hash, opcodes, secp256k1},
    block::SpentOutput,
    ports::BlockSourceError,
};

/// Scripts longer than this are unspendable; the kernel replaces them by OP_RETURN
/// when it reads them back (`MAX_SCRIPT_SIZE`).
const MAX_SCRIPT_SIZE: usize = 10_000;

/// Script forms that have a number of their own; raw scripts carry length + this.
const SPECIAL_SCRIPTS: u64 = 6;

/// The undo data of a whole block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BlockUndo {
    /// One list of spent outputs per transaction, without the coinbase.
    pub spent: Vec<Vec<SpentOutput>>,
    /// Length in bytes of each of them.
    pub lens: Vec<u32>,
    /// Offset in bytes of the first of them.
    pub first_offset: u32,
}

/// Decodes the undo data of a block.
///
/// # Errors
/// [`BlockSourceError::Malformed`] if it does not decode or bytes are left over.
pub(super) fn decode_block_undo(bytes: &[u8]) -> Result<BlockUndo, BlockSourceError> {
    let mut reader = Reader { rest: bytes };
    let count = reader.compact_size()?;
    // Each transaction takes at least one byte.
    let count = usize::try_from(count)
        .ok()
        .filter(|n| *n <= reader.rest.len())
        .ok_or(MALFORMED)?;
    let first_offset = len_u32(bytes.len() - reader.rest.len())?;
    let mut spent = Vec::with_capacity(count);
    let mut lens = Vec::with_capacity(count);
    for _ in 0..count {
        let before = reader.rest.len();
        spent.push(reader.tx_undo()?);
        lens.push(len_u32(before - reader.rest.len())?);
    }
    if !reader.rest.is_empty() {
        return Err(MALFORMED);
    }
    Ok(BlockUndo {
        spent,
        lens,
        first_offset,
    })
}

/// Decodes the undo data of one transaction.
///
/// # Errors
/// [`BlockSourceError::Malformed`] if it does not decode or bytes are left over.
pub(super) fn decode_tx_undo(bytes: &[u8]) -> Result<Vec<SpentOutput>, BlockSourceError> {
    let mut reader = Reader { rest: bytes };
    let spent = reader.tx_undo()?;
    if reader.rest.is_empty() {
        Ok(spent)
    } else {
        Err(MALFORMED)
    }
}

const MALFORMED: BlockSourceError = BlockSourceError::Malformed { what: "undo data" };

fn len_u32(len: usize) -> Result<u32, BlockSourceError> {
    u32::try_from(len).map_err(|_| MALFORMED)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take(&mut self, len: usize) -> Result<&[u8], BlockSourceError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(MALFORMED)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BlockSourceError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(MALFORMED)?;
        self.rest = rest;
        Ok(*head)
    }

    fn compact_size(&mut self) -> Result<u64, BlockSourceError> {
        Ok(match self.array::<1>()?[0] {
            0xfd => u64::from(u16::from_le_bytes(self.array()?)),
            0xfe => u64::from(u32::from_le_bytes(self.array()?)),
            0xff => u64::from_le_bytes(self.array()?),
            n => u64::from(n),
        })
    }

    /// Core's VARINT: base 128, most significant group first, one added between groups.
    fn varint(&mut self) -> Result<u64, BlockSourceError> {
        let mut n: u64 = 0;
        loop {
            let byte = self.array::<1>()?[0];
            n = n
                .checked_mul(128)
                .and_then(|n| n.checked_add(u64::from(byte & 0x7f)))
                .ok_or(MALFORMED)?;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
            n = n.checked_add(1).ok_or(MALFORMED)?;
        }
    }

    fn tx_undo(&mut self) -> Result<Vec<SpentOutput>, BlockSourceError> {
        let count = self.compact_size()?;
        // Each input takes at least three bytes.
        let count = usize::try_from(count)
            .ok()
            .filter(|n| *n <= self.rest.len() / 3)
            .ok_or(MALFORMED)?;
        let mut spent = Vec::with_capacity(count);
        for _ in 0..count {
            spent.push(self.spent_output()?);
        }
        Ok(spent)
    }

    fn spent_output(&mut self) -> Result<SpentOutput, BlockSourceError> {
        let code = self.varint()?;
        let height = Height::try_from(code >> 1).map_err(|_| MALFORMED)?;
        if height > 0 {
            self.varint()?;
        }
        let value = Amount::from_sat(decompress_amount(self.varint()?)?);
        let script_pubkey = self.script()?;
        Ok(SpentOutput {
            output: TxOut {
                value,
                script_pubkey,
            },
            height,
            is_coinbase: code & 1 == 1,
        })
    }

    fn script(&mut self) -> Result<ScriptBuf, BlockSourceError> {
        Ok(match self.varint()? {
            0 => ScriptBuf::new_p2pkh(&Hash::from_byte_array(self.array()?)),
            1 => ScriptBuf::new_p2sh(&Hash::from_byte_array(self.array()?)),
            parity @ (2 | 3) => p2pk(&sec1_key(parity == 3, self.array()?)),
            parity @ (4 | 5) => {
                let key = secp256k1::PublicKey::from_slice(&sec1_key(parity == 5, self.array()?))
                    .map_err(|_| MALFORMED)?;
                p2pk(&key.serialize_uncompressed())
            }
            len => {
                let len = usize::try_from(len - SPECIAL_SCRIPTS).map_err(|_| MALFORMED)?;
                let bytes = self.take(len)?;
                if len > MAX_SCRIPT_SIZE {
                    ScriptBuf::from_bytes(vec![opcodes::all::OP_RETURN.to_u8()])
                } else {
                    ScriptBuf::from_bytes(bytes.to_vec())
                }
            }
        })
    }
}

/// A compressed public key from its x coordinate and the parity of y.
fn sec1_key(odd: bool, x: [u8; 32]) -> [u8; 33] {
    let mut key = [0; 33];
    key[0] = 2 + u8::from(odd);
    key[1..].copy_from_slice(&x);
    key
}

/// Pay to public key: push of the key and OP_CHECKSIG.
fn p2pk(key: &[u8]) -> ScriptBuf {
    let mut script = Vec::with_capacity(key.len() + 2);
    script.push(if key.len() == 33 { 33 } else { 65 });
    script.extend_from_slice(key);
    script.push(opcodes::all::OP_CHECKSIG.to_u8());
    ScriptBuf::from_bytes(script)
}

/// Core's `DecompressAmount`: trailing decimal zeros are stored as an exponent.
fn decompress_amount(x: u64) -> Result<u64, BlockSourceError> {
    if x == 0 {
        return Ok(0);
    }
    let x = x - 1;
    let exponent = x % 10;
    let x = x / 10;
    let n = if exponent < 9 {
        (x / 9).checked_mul(10).ok_or(MALFORMED)? + x % 9 + 1
    } else {
        x.checked_add(1).ok_or(MALFORMED)?
    };
    let scale = 10u64.pow(u32::try_from(exponent).map_err(|_| MALFORMED)?);
    n.checked_mul(scale).ok_or(MALFORMED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_decompress_as_in_core() {
        // Pairs of Core's compress_tests.cpp: amount, compressed.
        for (amount, compressed) in [
            (0, 0x0),
            (1, 0x1),
            (1_000_000, 0x7),
            (100_000_000, 0x9),
            (50 * 100_000_000, 0x32),
            (21_000_000 * 100_000_000, 0x0140_6f40),
        ] {
            assert_eq!(decompress_amount(compressed).unwrap(), amount);
        }
    }

    #[test]
    fn an_input_with_a_p2pkh_script_decodes() {
        let mut bytes = vec![1, 1]; // one transaction with one input
        bytes.extend([0x83, 0x00]); // VARINT((3 + 1) * 128) = height 256, not a coinbase
        bytes.extend([0x00, 0x32, 0x00]); // dummy, 50 BTC, P2PKH
        bytes.extend([7; 20]);
        let undo = decode_block_undo(&bytes).unwrap();
        assert_eq!(undo.first_offset, 1);
        assert_eq!(undo.lens, [26]);
        let spent = &undo.spent[0][0];
        assert_eq!(spent.height, 256);
        assert!(!spent.is_coinbase);
        assert_eq!(spent.output.value, Amount::from_sat(5_000_000_000));
        assert!(spent.output.script_pubkey.is_p2pkh());
        assert_eq!(decode_tx_undo(&bytes[1..]).unwrap(), undo.spent[0]);
    }

    #[test]
    fn lengths_beyond_the_data_are_refused_before_allocation() {
        for bytes in [
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..],
            &[1, 0xfe, 0xff, 0xff, 0xff, 0xff],
            &[1, 1, 0x02, 0x00, 0x32, 0xfe, 0xfe, 0xfe, 0x7f],
            &[1],
            &[],
            &[0, 0],
        ] {
            assert!(decode_block_undo(bytes).is_err(), "{bytes:?}");
        }
    }
}
