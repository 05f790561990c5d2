//! One number that stands for all `utxo` rows, kept with the cursor.
//!
//! Each unspent output is hashed by itself with keyed BLAKE3, and the hashes are added
//! up as 256-bit integers, modulo 2^256. A block adds what it creates and subtracts what it
//! spends, in the batch that moves the cursor; taking it back does the opposite. The sum
//! depends on the set alone, so an index has the same one however it got there, and
//! adding up all rows anew must give it again.
//!
//! What is hashed: script key (8), txnum (4), vout (4), satoshis (8), big endian. Not the
//! bytes of the row, so that another encoding of the rows leaves the sum as it is.
//!
//! # Correctness
//! A row that is missing, double, or differs by a bit changes the sum, except with a
//! probability of 2^-256: the terms are pseudorandom and independent.
//!
//! # Security
//! Sums of hashes without a key can be forged: with terms of one's own choice, two sets
//! with the same sum are found by the generalised birthday attack. The key is derived from
//! the salt, which nobody outside of the database knows, so nobody can choose terms.
//! For a set hash that others can compute, see Bitcoin Core's MuHash.

use std::{
    ops::{AddAssign, ControlFlow, SubAssign},
    sync::atomic::{AtomicBool, Ordering},
};

use pulse_primitives::tip::ChainTip;

use super::ProofError;
use crate::{
    keys::{Salt, ScriptKey},
    rows::{
        TxNum,
        codec::{BadRow, Reader as RowReader},
        delta::Delta,
        script,
    },
    store::{Family, Store, StoreError, reader::Reader},
};

/// Context of the key, by the rule of BLAKE3: application, date, purpose.
const KEY_CONTEXT: &str = "pulse-node 2026-11-21 commitment over unspent outputs";

/// Rows between two looks at whether to stop.
const STOP_INTERVAL: u64 = 1 << 14;

/// The commitment and, for people, how many outputs it covers and their sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UtxoSummary {
    /// Sum of the hashes, lowest 64 bits first.
    sum: [u64; 4],
    /// Number of unspent outputs.
    pub outputs: u64,
    /// Their values added up, in satoshis.
    pub sats: u64,
}

/// Hashes unspent outputs under the key of one database.
#[derive(Clone)]
pub(crate) struct UtxoHasher {
    key: [u8; 32],
}

impl UtxoHasher {
    pub(crate) fn new(salt: &Salt) -> Self {
        Self {
            key: blake3::derive_key(KEY_CONTEXT, salt),
        }
    }

    /// The set of this output alone.
    pub(crate) fn output(
        &self,
        script: ScriptKey,
        txnum: TxNum,
        vout: u32,
        sats: u64,
    ) -> UtxoSummary {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&script.to_be_bytes());
        bytes[8..12].copy_from_slice(&txnum.to_be_bytes());
        bytes[12..16].copy_from_slice(&vout.to_be_bytes());
        bytes[16..].copy_from_slice(&sats.to_be_bytes());
        let hash = blake3::keyed_hash(&self.key, &bytes);
        UtxoSummary {
            sum: limbs(hash.as_bytes()),
            outputs: 1,
            sats,
        }
    }

    /// The output of a `utxo` row.
    pub(crate) fn row(&self, key: &[u8], value: &[u8]) -> Result<UtxoSummary, BadRow> {
        let script = RowReader::new(key).u64()?;
        let (txnum, vout) = script::utxo_outpoint(key)?;
        Ok(self.output(script, txnum, vout, script::amount(value)?))
    }

    /// What a block adds to the set, less what it takes away.
    pub(crate) fn change(&self, delta: &Delta) -> UtxoSummary {
        let mut change = UtxoSummary::default();
        for output in delta.created.iter().filter(|output| !output.spent_here) {
            change += self.output(output.script, output.txnum, output.vout, output.amount);
        }
        let before = delta.first_txnum;
        for output in delta.spent.iter().filter(|output| output.txnum < before) {
            change -= self.output(output.script, output.txnum, output.vout, output.amount);
        }
        for (script, txnum, vout, amount) in delta.replaced() {
            change -= self.output(script, txnum, vout, amount);
        }
        change
    }
}

fn limbs(bytes: &[u8; 32]) -> [u64; 4] {
    let mut limbs = [0; 4];
    for (limb, bytes) in limbs.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *limb = u64::from_le_bytes(*bytes);
    }
    limbs
}

impl UtxoSummary {
    /// The commitment: 256 bits, lowest byte first.
    #[must_use]
    pub fn commitment(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (bytes, limb) in bytes.chunks_exact_mut(8).zip(self.sum) {
            bytes.copy_from_slice(&limb.to_le_bytes());
        }
        bytes
    }

    /// Value of `meta/utxo_commitment`: commitment (32), outputs (8), satoshis (8).
    pub(crate) fn encode(&self) -> [u8; 48] {
        let mut out = [0; 48];
        out[..32].copy_from_slice(&self.commitment());
        out[32..40].copy_from_slice(&self.outputs.to_be_bytes());
        out[40..].copy_from_slice(&self.sats.to_be_bytes());
        out
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, BadRow> {
        let mut reader = RowReader::new(value);
        let summary = Self {
            sum: limbs(&reader.array()?),
            outputs: reader.u64()?,
            sats: reader.u64()?,
        };
        reader.end()?;
        Ok(summary)
    }
}

/// Union of disjoint sets. Changes of several blocks are added up before they meet the
/// set, so numbers may be below zero in between, and wrap.
impl AddAssign for UtxoSummary {
    fn add_assign(&mut self, other: Self) {
        let mut carry = false;
        for (limb, other) in self.sum.iter_mut().zip(other.sum) {
            let (sum, first) = limb.overflowing_add(other);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (*limb, carry) = (sum, first || second);
        }
        self.outputs = self.outputs.wrapping_add(other.outputs);
        self.sats = self.sats.wrapping_add(other.sats);
    }
}

/// Difference of a set and a part of it.
impl SubAssign for UtxoSummary {
    fn sub_assign(&mut self, other: Self) {
        let mut borrow = false;
        for (limb, other) in self.sum.iter_mut().zip(other.sum) {
            let (difference, first) = limb.overflowing_sub(other);
            let (difference, second) = difference.overflowing_sub(u64::from(borrow));
            (*limb, borrow) = (difference, first || second);
        }
        self.outputs = self.outputs.wrapping_sub(other.outputs);
        self.sats = self.sats.wrapping_sub(other.sats);
    }
}

impl std::fmt::Display for UtxoSummary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { outputs, sats, .. } = self;
        let commitment = hex::encode(self.commitment());
        write!(f, "{outputs} outputs, {sats} sat, commitment {commitment}")
    }
}

/// Adds up all `utxo` rows of a snapshot. `progress` is told now and then how many rows
/// were read. `None` if it was stopped.
pub(crate) fn scan(
    reader: &Reader<'_>,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(u64),
) -> Result<Option<UtxoSummary>, StoreError> {
    let mut found = UtxoSummary::default();
    let ended = reader.scan(Family::Utxo, |key, value| {
        found += reader.keys.utxos.row(key, value)?;
        if found.outputs.is_multiple_of(STOP_INTERVAL) {
            progress(found.outputs);
            if stop.load(Ordering::Relaxed) {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(ended.is_continue().then_some(found))
}

/// Adds up all `utxo` rows and compares the sum with the one that was kept with the
/// cursor. `Some` when they are equal, `None` if it was stopped or nothing is indexed.
/// One sequential read of a snapshot, while the index may go on.
///
/// # Errors
/// [`ProofError::UtxosDiffer`], [`ProofError::Store`].
pub(crate) fn check(
    store: &Store,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(u64),
) -> Result<Option<UtxoSummary>, ProofError> {
    let reader = store.reader();
    let Some(cursor) = reader.cursor()? else {
        return Ok(None);
    };
    let expected = reader.utxo_summary()?;
    let Some(found) = scan(&reader, stop, progress)? else {
        return Ok(None);
    };
    if found != expected {
        let ChainTip { height, hash, .. } = cursor.tip;
        return Err(ProofError::UtxosDiffer {
            height,
            hash,
            expected: Box::new(expected),
            found: Box::new(found),
        });
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_commitment_is_that_of_the_format() {
        let hasher = UtxoHasher::new(&[7; 16]);
        let mut set = hasher.output(1, 2, 3, 4);
        set += hasher.output(0xffee_ddcc_bbaa_9988, u32::MAX, 300, u64::MAX - 5);
        assert_eq!(
            set.to_string(),
            "2 outputs, 18446744073709551614 sat, commitment b394c2fbc078fbb23f520c09a8f6ebd27cbc11ed1870ef6c95381cdda8525f29"
        );
        assert_eq!(UtxoSummary::decode(&set.encode()), Ok(set));
        assert!(UtxoSummary::decode(&set.encode()[1..]).is_err());
    }

    proptest! {
        #[test]
        fn the_order_of_changes_does_not_matter(
            rows in proptest::collection::vec(any::<(u64, u32, u32, u64)>(), 1..20),
            cut in any::<prop::sample::Index>(),
        ) {
            let hasher = UtxoHasher::new(&[1; 16]);
            let outputs = rows.iter().map(|r| hasher.output(r.0, r.1, r.2, r.3)).collect::<Vec<_>>();
            let mut all = UtxoSummary::default();
            for output in &outputs {
                all += *output;
            }
            let cut = cut.index(outputs.len());
            // Taken away before they were added, and added again.
            let mut other = UtxoSummary::default();
            for output in outputs[..cut].iter().rev() {
                other -= *output;
            }
            for output in outputs.iter().chain(&outputs[..cut]).rev() {
                other += *output;
            }
            prop_assert_eq!(other, all);
        }

        #[test]
        fn any_other_output_gives_another_sum(a in any::<(u64, u32, u32, u64)>(), bit in 0u32..64) {
            let hasher = UtxoHasher::new(&[1; 16]);
            let commitment = |s, t, v, a| hasher.output(s, t, v, a).commitment();
            let original = commitment(a.0, a.1, a.2, a.3);
            prop_assert_ne!(commitment(a.0 ^ (1 << bit), a.1, a.2, a.3), original);
            prop_assert_ne!(commitment(a.0, a.1 ^ (1 << (bit % 32)), a.2, a.3), original);
            prop_assert_ne!(commitment(a.0, a.1, a.2 ^ (1 << (bit % 32)), a.3), original);
            prop_assert_ne!(commitment(a.0, a.1, a.2, a.3 ^ (1 << bit)), original);
        }
    }
}
