//! The key that names this node among the nodes of its fleet, and its plain file.
//!
//! The file holds one line: the Ed25519 key pair in libp2p's protobuf encoding, as
//! hex. The encoding holds the public key too, so damage is recognised.

use std::{io, path::Path};

pub use libp2p_identity::{Keypair, PeerId};

use crate::durable;

/// What [`read`] found.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
pub enum Found {
    /// A valid key.
    Key(Keypair),
    /// No file.
    Nothing,
    /// A file that does not hold a key.
    Damaged,
}

/// Reads the identity file.
///
/// # Errors
/// Whatever the operating system says; a missing file is [`Found::Nothing`].
pub fn read(path: &Path) -> io::Result<Found> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(from_text(&bytes).map_or(Found::Damaged, Found::Key)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
        Err(err) => Err(err),
    }
}

/// Writes the identity file with mode 0600.
///
/// # Errors
/// Whatever the operating system says.
pub fn write(path: &Path, key: &Keypair) -> io::Result<()> {
    let mut text = to_text(key);
    text.push('\n');
    durable::write(path, text.as_bytes(), 0o600)
}

/// The key as it stands in the identity file, without the end of the line.
#[must_use]
pub fn to_text(key: &Keypair) -> String {
    hex::encode(encode(key))
}

/// Reverse of [`to_text`]; `None` when the text holds no key.
#[must_use]
pub fn from_text(text: &[u8]) -> Option<Keypair> {
    decode(&hex::decode(text.trim_ascii()).ok()?)
}

/// The key in libp2p's protobuf encoding.
pub(crate) fn encode(key: &Keypair) -> Vec<u8> {
    key.to_protobuf_encoding()
        .expect("an Ed25519 key pair has a protobuf encoding")
}

/// Reverse of [`encode`]; `None` when the bytes are not an Ed25519 key pair.
pub(crate) fn decode(bytes: &[u8]) -> Option<Keypair> {
    Keypair::from_protobuf_encoding(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_round_trips_and_any_flipped_bit_is_recognised() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity.key");
        assert!(matches!(read(&path).unwrap(), Found::Nothing));
        let key = Keypair::generate_ed25519();
        write(&path, &key).unwrap();
        let Found::Key(same) = read(&path).unwrap() else {
            panic!("the key that was just written must read");
        };
        assert_eq!(same.public(), key.public());

        let good = std::fs::read(&path).unwrap();
        for bit in 0..(good.len() - 1) * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &bad).unwrap();
            match read(&path).unwrap() {
                Found::Damaged => {}
                // A changed case of a hex digit is the same key.
                Found::Key(read) => assert_eq!(read.public(), key.public()),
                Found::Nothing => panic!("the file exists"),
            }
        }
    }
}
