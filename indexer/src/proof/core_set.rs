//! The set of unspent outputs in Bitcoin Core's terms: what `gettxoutsetinfo` prints.
//!
//! blocks of the indexed chain -> their outputs without a `spend` row -> counts and hashes
//!
//! The rows say which outputs are unspent, the blocks what they are: `utxo` rows alone lack
//! scripts and txids. Outputs and `spend` rows come in the same order, so both are read
//! once from front to back.
//!
//! # Correctness
//! Core's set lacks some outputs that the index has: that of genesis, and those of the
//! two coinbases that later ones with the same id replaced (BIP 30). Neither has outputs
//! that can never be spent. Blocks are proven by their hash when they are read.
//!
//! An element is outpoint (32 + 4), height * 2 + coinbase (4), satoshis (8), script with its
//! length: `TxOutSer` in Core's `src/kernel/coinstats.cpp`. MuHash takes elements in any
//! order; `hash_serialized_3` is the double SHA-256 over all of them by txid and index.
//!
//! # Limits
//! `hash_serialized_3` needs the whole set sorted. It is spread over 256 files by the first
//! byte of the txid and sorted file by file: the disk takes about 80 bytes per output,
//! memory a 256th of that.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use pulse_primitives::{
    Height,
    bitcoin::{
        BlockHash, Network, TxOut, Txid,
        consensus::serialize,
        constants::genesis_block,
        hashes::{Hash, HashEngine, sha256d},
    },
    block::ConnectedBlock,
};

use super::muhash::MuHash;
use crate::keys::is_unspendable;

/// Heights of the blocks of mainnet whose coinbases were replaced by later ones with the
/// same id before they were spent (`IsBIP30Unspendable` of Bitcoin Core).
const REPLACED_COINBASES: [Height; 2] = [91_722, 91_812];

/// Buffer of each file of [`Sorted`].
const BUFFER_BYTES: usize = 32 << 10;

/// What `gettxoutsetinfo` prints of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoreStats {
    /// `txouts`: unspent outputs.
    pub txouts: u64,
    /// `bogosize`: a size that is comparable between implementations.
    pub bogosize: u64,
    /// `total_amount`, in satoshis.
    pub total_sats: u64,
    /// `muhash`, as it is printed.
    pub muhash: String,
    /// `hash_serialized_3`, as it is printed, if it was asked for.
    pub hash_serialized: Option<String>,
}

/// Collects a set.
pub(crate) struct CoreSet {
    is_mainnet: bool,
    txouts: u64,
    bogosize: u64,
    total_sats: u64,
    muhash: MuHash,
    sorted: Option<Sorted>,
}

impl CoreSet {
    /// The empty set of the network with this first block. With a directory for it, `hash_serialized_3` is computed
    /// too; the directory is made, and removed at the end.
    pub(crate) fn new(genesis: BlockHash, sorted_in: Option<&Path>) -> io::Result<Self> {
        Ok(Self {
            is_mainnet: genesis == genesis_block(Network::Bitcoin).block_hash(),
            txouts: 0,
            bogosize: 0,
            total_sats: 0,
            muhash: MuHash::new(),
            sorted: sorted_in.map(Sorted::new).transpose()?,
        })
    }

    /// Adds the outputs of a block that are unspent. `is_spent` says of each output whether
    /// it is spent, by the position of its transaction and its index, and is asked in that
    /// order about all that can be.
    pub(crate) fn add_block<E: From<io::Error>>(
        &mut self,
        block: &ConnectedBlock,
        mut is_spent: impl FnMut(usize, u32) -> Result<bool, E>,
    ) -> Result<(), E> {
        let replaced = self.is_mainnet && REPLACED_COINBASES.contains(&block.height);
        for (position, (tx, txid)) in block.block.txdata.iter().zip(&block.txids).enumerate() {
            let is_coinbase = position == 0;
            for (vout, output) in (0..).zip(&tx.output) {
                if is_unspendable(&output.script_pubkey)
                    || is_spent(position, vout)?
                    || block.height == 0
                    || (is_coinbase && replaced)
                {
                    continue;
                }
                self.insert(txid, vout, block.height, is_coinbase, output)?;
            }
        }
        Ok(())
    }

    fn insert(
        &mut self,
        txid: &Txid,
        vout: u32,
        height: Height,
        is_coinbase: bool,
        output: &TxOut,
    ) -> io::Result<()> {
        let code = (height << 1) | u32::from(is_coinbase);
        let mut element = txid.as_byte_array().to_vec();
        element.extend_from_slice(&vout.to_le_bytes());
        element.extend_from_slice(&code.to_le_bytes());
        element.extend_from_slice(&serialize(output));
        self.txouts += 1;
        // Outpoint, height with coinbase flag, amount, length of the script: 50 bytes.
        self.bogosize += 50 + output.script_pubkey.len() as u64;
        self.total_sats = self.total_sats.wrapping_add(output.value.to_sat());
        self.muhash.insert(&element);
        match &mut self.sorted {
            Some(sorted) => sorted.insert(&element),
            None => Ok(()),
        }
    }

    /// The numbers of what was added.
    pub(crate) fn finish(self) -> io::Result<CoreStats> {
        Ok(CoreStats {
            txouts: self.txouts,
            bogosize: self.bogosize,
            total_sats: self.total_sats,
            muhash: printed(self.muhash.finish()),
            hash_serialized: match self.sorted {
                Some(sorted) => Some(printed(sorted.finish()?)),
                None => None,
            },
        })
    }
}

fn printed(mut hash: [u8; 32]) -> String {
    hash.reverse();
    hex::encode(hash)
}

/// Elements on the disk, to be read in order: a file for each first byte of the txid.
struct Sorted {
    dir: PathBuf,
    files: Vec<BufWriter<File>>,
}

impl Sorted {
    fn new(dir: &Path) -> io::Result<Self> {
        if dir.exists() {
            // Of a run that was killed.
            fs::remove_dir_all(dir)?;
        }
        fs::create_dir(dir)?;
        let file = |number| {
            Ok(BufWriter::with_capacity(
                BUFFER_BYTES,
                File::create(part(dir, number))?,
            ))
        };
        Ok(Self {
            dir: dir.to_owned(),
            files: (0..256).map(file).collect::<io::Result<_>>()?,
        })
    }

    fn insert(&mut self, element: &[u8]) -> io::Result<()> {
        let file = &mut self.files[usize::from(element[0])];
        let len = u32::try_from(element.len()).map_err(io::Error::other)?;
        file.write_all(&len.to_le_bytes())?;
        file.write_all(element)
    }

    fn finish(mut self) -> io::Result<[u8; 32]> {
        let mut engine = sha256d::Hash::engine();
        for (number, file) in std::mem::take(&mut self.files).into_iter().enumerate() {
            file.into_inner()?;
            let bytes = fs::read(part(&self.dir, number))?;
            let mut elements = Vec::new();
            let mut rest = bytes.as_slice();
            while let Some((len, tail)) = rest.split_first_chunk() {
                let len = u32::from_le_bytes(*len) as usize;
                let (element, tail) = tail
                    .split_at_checked(len)
                    .filter(|(element, _)| element.len() >= 36)
                    .ok_or_else(|| io::Error::other("a temporary file was changed"))?;
                let vout = [element[32], element[33], element[34], element[35]];
                elements.push((&element[..32], u32::from_le_bytes(vout), element));
                rest = tail;
            }
            elements.sort_unstable();
            for (_, _, element) in elements {
                engine.input(element);
            }
        }
        Ok(sha256d::Hash::from_engine(engine).to_byte_array())
    }
}

impl Drop for Sorted {
    fn drop(&mut self) {
        self.files.clear();
        // Left behind, they are removed by the next run.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn part(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("{number:03}"))
}
