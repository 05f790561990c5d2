//! Keyed hashes that stand for scripts, transaction ids and undo bytes in the index.
//!
//! # Security
//! Everything hashed here is chosen by strangers. The salt is random per database, so
//! nobody can grind two scripts or transactions that share a key. Each use has its
//! own key, derived from the salt with SipHash-2-4-128 over a label.

use pulse_primitives::bitcoin::{
    Script, Txid,
    hashes::{Hash, sha256},
};
use siphasher::{sip, sip128};

use crate::proof::commitment::UtxoHasher;

/// 16 random bytes, one value per database.
pub(crate) type Salt = [u8; 16];

/// Stands for a script: SipHash-2-4 over the SHA-256 of the script. Written big endian.
pub(crate) type ScriptKey = u64;

/// Largest script that can be spent, in bytes (`MAX_SCRIPT_SIZE` of Bitcoin Core).
const MAX_SCRIPT_LEN: usize = 10_000;

/// The keyed hashes of one database.
#[derive(Clone)]
pub(crate) struct Keys {
    script: sip::SipHasher24,
    txid: sip::SipHasher24,
    undo: sip::SipHasher24,
    /// Bits that script keys lose, so that tests meet collisions.
    #[cfg(test)]
    pub(crate) lost_bits: u32,
    /// Hashes unspent outputs for the commitment over all of them.
    pub(crate) utxos: UtxoHasher,
}

impl Keys {
    pub(crate) fn new(salt: &Salt) -> Self {
        let derive = |label: &[u8]| {
            let (key0, key1) = sip128::SipHasher24::new_with_key(salt).hash(label).as_u64();
            sip::SipHasher24::new_with_keys(key0, key1)
        };
        Self {
            script: derive(b"script"),
            txid: derive(b"txid"),
            undo: derive(b"undo"),
            #[cfg(test)]
            lost_bits: 0,
            utxos: UtxoHasher::new(salt),
        }
    }

    /// Key of a script by its SHA-256 (not reversed).
    pub(crate) fn script_hash(&self, hash: &[u8; 32]) -> ScriptKey {
        let key = self.script.hash(hash);
        #[cfg(test)]
        let key = key.checked_shl(self.lost_bits).unwrap_or(0);
        key
    }

    /// Key of a script.
    pub(crate) fn script(&self, script: &Script) -> ScriptKey {
        self.script_hash(&sha256::Hash::hash(script.as_bytes()).to_byte_array())
    }

    /// Keyed hash of a txid. The `tx` rows hold its upper 40 bits.
    pub(crate) fn txid(&self, txid: &Txid) -> u64 {
        self.txid.hash(txid.as_byte_array())
    }

    /// Four bytes by which undo entries prove themselves when read.
    pub(crate) fn undo_check(&self, bytes: &[u8]) -> [u8; 4] {
        let [a, b, c, d, ..] = self.undo.hash(bytes).to_be_bytes();
        [a, b, c, d]
    }
}

/// Whether an output with this script can never be spent, so that it is not indexed
/// (`CScript::IsUnspendable` of Bitcoin Core). An empty script can be.
pub(crate) fn is_unspendable(script: &Script) -> bool {
    script.is_op_return() || script.len() > MAX_SCRIPT_LEN
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulse_primitives::bitcoin::ScriptBuf;

    #[test]
    fn another_salt_gives_other_keys() {
        let script = ScriptBuf::from_bytes(vec![0x51]);
        let (a, b) = (Keys::new(&[1; 16]), Keys::new(&[2; 16]));
        assert_ne!(a.script(&script), b.script(&script));
        assert_ne!(a.undo_check(b"undo"), b.undo_check(b"undo"));
    }

    #[test]
    fn keys_are_those_of_formats_1_and_2() {
        let keys = Keys::new(&[7; 16]);
        assert_eq!(
            format!("{:016x}", keys.script(&ScriptBuf::from_bytes(vec![0x51]))),
            "daefdfc21b8b27bf"
        );
        assert_eq!(
            format!("{:016x}", keys.txid(&Txid::all_zeros())),
            "10e7c3a772fe731f"
        );
        assert_eq!(hex::encode(keys.undo_check(b"undo")), "5afcd3ec");
    }

    #[test]
    fn unspendable_is_what_core_says() {
        let script = |bytes: Vec<u8>| ScriptBuf::from_bytes(bytes);
        assert!(!is_unspendable(&script(vec![])));
        assert!(!is_unspendable(&script(vec![0x51; 10_000])));
        assert!(is_unspendable(&script(vec![0x51; 10_001])));
        assert!(is_unspendable(&script(vec![0x6a])));
        assert!(is_unspendable(&script(vec![0x6a, 0xff])));
    }
}
