//! Integers in keys and values.

/// A row whose bytes do not decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadRow(pub(crate) &'static str);

/// Appends a varint: seven bits per byte, lowest first.
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let byte = value.to_le_bytes()[0];
        value >>= 7;
        if value == 0 {
            out.push(byte & 0x7f);
            return;
        }
        out.push(byte | 0x80);
    }
}

/// Appends an integer little endian without its upper zero bytes, but at least one byte. Its
/// length must be known to whoever reads it.
pub(crate) fn put_short(out: &mut Vec<u8>, value: u128) {
    let len = 16 - value.leading_zeros() as usize / 8;
    out.extend_from_slice(&value.to_le_bytes()[..len.max(1)]);
}

/// Reads what [`put_short`] wrote: all of `bytes`.
pub(crate) fn short(bytes: &[u8]) -> Result<u128, BadRow> {
    let mut le = [0; 16];
    let head = le
        .get_mut(..bytes.len())
        .ok_or(BadRow("short integer too long"))?;
    head.copy_from_slice(bytes);
    match bytes {
        [] | [_, .., 0] => Err(BadRow("short integer of another length")),
        _ => Ok(u128::from_le_bytes(le)),
    }
}

/// Takes values from the front of a row.
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], BadRow> {
        let (head, rest) = self
            .bytes
            .split_at_checked(len)
            .ok_or(BadRow("too short"))?;
        self.bytes = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], BadRow> {
        let (head, rest) = self.bytes.split_first_chunk().ok_or(BadRow("too short"))?;
        self.bytes = rest;
        Ok(*head)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, BadRow> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, BadRow> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub(crate) fn varint(&mut self) -> Result<u64, BadRow> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(BadRow("varint too long"))
    }

    pub(crate) fn varint_u32(&mut self) -> Result<u32, BadRow> {
        u32::try_from(self.varint()?).map_err(|_| BadRow("varint over 32 bits"))
    }

    /// Reads what [`KeyBuf::ordered`] wrote.
    pub(crate) fn ordered(&mut self) -> Result<u32, BadRow> {
        let [lead] = self.array()?;
        let len = match lead {
            ..=ORDERED_MAX => return Ok(u32::from(lead)),
            _ => usize::from(lead - ORDERED_MAX),
        };
        if len > 4 {
            return Err(BadRow("ordered integer over 32 bits"));
        }
        let mut be = [0; 4];
        be[4 - len..].copy_from_slice(self.bytes(len)?);
        Ok(u32::from_be_bytes(be))
    }

    pub(crate) fn end(&self) -> Result<(), BadRow> {
        if self.bytes.is_empty() {
            Ok(())
        } else {
            Err(BadRow("too long"))
        }
    }
}

/// Largest number that [`KeyBuf::ordered`] writes as a single byte.
const ORDERED_MAX: u8 = 0xf7;

/// A key on the stack, at most 24 bytes.
#[derive(Clone, Copy)]
pub(crate) struct KeyBuf {
    bytes: [u8; 24],
    len: usize,
}

impl KeyBuf {
    pub(crate) fn new() -> Self {
        Self {
            bytes: [0; 24],
            len: 0,
        }
    }

    pub(crate) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
        self
    }

    pub(crate) fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    pub(crate) fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_be_bytes())
    }

    /// A variable-length integer whose byte order is its numeric order: up to 247 one
    /// byte, otherwise 247 + n and the n significant bytes, big endian.
    pub(crate) fn ordered(self, value: u32) -> Self {
        let be = value.to_be_bytes();
        if value <= u32::from(ORDERED_MAX) {
            return self.bytes(&be[3..]);
        }
        let skip = be.iter().take_while(|byte| **byte == 0).count();
        let lead = ORDERED_MAX + [4, 3, 2, 1][skip];
        self.bytes(&[lead]).bytes(&be[skip..])
    }
}

impl AsRef<[u8]> for KeyBuf {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_round_trip(value in any::<u64>(), shift in 0u32..64) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint(), Ok(value));
            prop_assert_eq!(reader.end(), Ok(()));
        }

        #[test]
        fn short_integers_round_trip(value in any::<u128>(), shift in 0u32..128) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put_short(&mut bytes, value);
            prop_assert_eq!(short(&bytes), Ok(value));
            bytes.push(0);
            prop_assert!(short(&bytes).is_err());
        }

        #[test]
        fn ordered_integers_sort_as_numbers(a in any::<u32>(), b in any::<u32>(), shift in 0u32..32) {
            let (a, b) = (a >> shift, b >> (shift / 2));
            let (x, y) = (KeyBuf::new().ordered(a), KeyBuf::new().ordered(b));
            prop_assert_eq!(x.as_ref().cmp(y.as_ref()), a.cmp(&b));
            let mut reader = Reader::new(x.as_ref());
            prop_assert_eq!(reader.ordered(), Ok(a));
            prop_assert_eq!(reader.end(), Ok(()));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..16)) {
            let _ = Reader::new(&bytes).varint();
            let _ = Reader::new(&bytes).ordered();
        }
    }

    #[test]
    fn ordered_edges_have_their_lengths() {
        for (value, len) in [
            (0, 1),
            (247, 1),
            (248, 2),
            (255, 2),
            (256, 3),
            (65_536, 4),
            (u32::MAX, 5),
        ] {
            let key = KeyBuf::new().ordered(value);
            assert_eq!(key.as_ref().len(), len, "{value}");
            assert_eq!(Reader::new(key.as_ref()).ordered(), Ok(value));
        }
    }
}
