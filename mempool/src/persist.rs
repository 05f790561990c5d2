//! The mempool in a file: which transactions it held, since when, and which were submitted
//! here.
//!
//! ```text
//! "pulsepool" | version u8 | count u64 | count * (time u64 | flags u8 | length u32 | tx) | crc32 u32
//! ```
//!
//! Numbers are little-endian; the checksum is over everything before it; bit 0 of the flags
//! is [`Entry::local`].
//!
//! # Correctness
//! A file says nothing about validity: what is read must be accepted again.
//!
//! # Limits
//! Reading stops at an error: what came before it is lost too, since the checksum is last.

use std::io::{self, Read, Write};

use bitcoin::{
    Transaction,
    consensus::{deserialize, serialize},
};
use crc32fast::Hasher;
use pulse_primitives::bitcoin;

use crate::{Entry, Mempool};

const MAGIC: &[u8; 9] = b"pulsepool";
const VERSION: u8 = 1;
const LOCAL: u8 = 1;
/// Longer than any transaction that is accepted (400,000 weight units).
const MAX_TX_BYTES: u32 = 400_000;

/// A transaction that was in the mempool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedTx {
    /// The transaction.
    pub tx: Transaction,
    /// When it was accepted, in seconds since 1970.
    pub time: u64,
    /// See [`Entry::local`].
    pub local: bool,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// Reading fails, or the file ends early.
    #[error("mempool file")]
    Io(#[from] io::Error),
    /// It is not a mempool file, or of another version.
    #[error("not a mempool file of version {VERSION}")]
    Format,
    /// It is damaged.
    #[error("mempool file fails its checksum")]
    Damaged,
}

impl Mempool {
    /// What [`dump`] writes, oldest arrival first, parents before children. Cheap to copy:
    /// take it under the lock and write it without.
    #[must_use]
    pub fn saved(&self) -> Vec<SavedEntry> {
        let mut entries: Vec<&Entry> = self.iter().collect();
        // What came back from a block arrived after its children.
        entries.sort_by_cached_key(|entry| (self.ancestors(&entry.txid).len(), entry.sequence));
        let saved = entries.into_iter().map(|entry| SavedEntry {
            tx: std::sync::Arc::clone(&entry.tx),
            time: entry.time,
            local: entry.local,
        });
        saved.collect()
    }
}

/// A transaction to be saved.
#[derive(Debug, Clone)]
pub struct SavedEntry {
    tx: std::sync::Arc<Transaction>,
    time: u64,
    local: bool,
}

/// Writes the file.
///
/// # Errors
/// Those of `out`.
pub fn dump(saved: &[SavedEntry], out: &mut impl Write) -> io::Result<()> {
    let mut crc = Hasher::new();
    let mut put = |bytes: &[u8]| {
        crc.update(bytes);
        out.write_all(bytes)
    };
    put(MAGIC)?;
    put(&[VERSION])?;
    put(&(saved.len() as u64).to_le_bytes())?;
    for entry in saved {
        let raw = serialize(&*entry.tx);
        let length = u32::try_from(raw.len()).map_err(io::Error::other)?;
        put(&entry.time.to_le_bytes())?;
        put(&[if entry.local { LOCAL } else { 0 }])?;
        put(&length.to_le_bytes())?;
        put(&raw)?;
    }
    out.write_all(&crc.finalize().to_le_bytes())
}

/// Reads a file.
///
/// # Errors
/// [`LoadError`].
pub fn load(input: &mut impl Read) -> Result<Vec<SavedTx>, LoadError> {
    let mut reader = Checked {
        input,
        crc: Hasher::new(),
    };
    if &reader.array::<9>()? != MAGIC || reader.array()? != [VERSION] {
        return Err(LoadError::Format);
    }
    let count = u64::from_le_bytes(reader.array()?);
    let mut saved = Vec::new();
    for _ in 0..count {
        let time = u64::from_le_bytes(reader.array()?);
        let [flags] = reader.array()?;
        let length = u32::from_le_bytes(reader.array()?);
        if length > MAX_TX_BYTES {
            return Err(LoadError::Damaged);
        }
        let mut raw = vec![0; length as usize];
        reader.read(&mut raw)?;
        let tx = deserialize(&raw).map_err(|_| LoadError::Damaged)?;
        saved.push(SavedTx {
            tx,
            time,
            local: flags & LOCAL != 0,
        });
    }
    let sum = reader.crc.clone().finalize();
    if u32::from_le_bytes(reader.array()?) != sum {
        return Err(LoadError::Damaged);
    }
    Ok(saved)
}

/// Reads, and sums up what was read.
struct Checked<'a, R> {
    input: &'a mut R,
    crc: Hasher,
}

impl<R: Read> Checked<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.input.read_exact(bytes)?;
        self.crc.update(bytes);
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }
}
