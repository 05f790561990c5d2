//! Writes chains to files in the framing of Bitcoin Core's block files.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use bitcoin::{Block, BlockHash, consensus::Encodable};
use pulse_primitives::Height;

use crate::{Generator, GeneratorConfig};

/// Bytes buffered before they go to the file.
const BUFFER: usize = 8 << 20;

/// Why a chain could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimulateError {
    /// The operating system refused.
    #[error("writing {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// What `pulse-node simulate` writes.
#[derive(Debug, Clone)]
pub struct SimulateFileOptions {
    /// Height of the last block.
    pub blocks: u32,
    /// Transactions in a block besides the coinbase, once there are coins enough.
    pub txs_per_block: u32,
    /// Seed of the chain.
    pub seed: u64,
    /// Whether the traffic is as uneven as that of mainnet ([`GeneratorConfig::uneven`]).
    pub uneven: bool,
    /// The file, which is replaced if it exists.
    pub out: PathBuf,
}

/// A chain in numbers; while it is written, those so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainSummary {
    /// Height of the last block.
    pub height: Height,
    /// Hash of the last block.
    pub tip: BlockHash,
    /// Transactions, coinbases included.
    pub txs: u64,
    /// Inputs, those of coinbases excluded.
    pub inputs: u64,
    /// Outputs.
    pub outputs: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

impl ChainSummary {
    fn count(&mut self, height: Height, block: &Block, bytes: u64) {
        self.height = height;
        self.tip = block.block_hash();
        self.txs += block.txdata.len() as u64;
        self.inputs += block.txdata[1..]
            .iter()
            .map(|tx| tx.input.len() as u64)
            .sum::<u64>();
        self.outputs += block
            .txdata
            .iter()
            .map(|tx| tx.output.len() as u64)
            .sum::<u64>();
        self.bytes += bytes;
    }
}

/// Generates a regtest chain and writes it, genesis first, so that Bitcoin Core can
/// load it (`-loadblock`). `progress` is called after every block.
///
/// The chain is that of [`GeneratorConfig::regtest`] with the given seed and number of
/// transactions. The file appears under its name only when it is complete.
///
/// # Errors
/// [`SimulateError::Io`].
pub fn write_chain(
    options: &SimulateFileOptions,
    mut progress: impl FnMut(&ChainSummary),
) -> Result<ChainSummary, SimulateError> {
    let mut config = GeneratorConfig::regtest(options.seed).txs_per_block(options.txs_per_block);
    config.uneven = options.uneven;
    let mut generator = Generator::new(config);
    let genesis = generator.genesis();
    let mut partial = options.out.clone().into_os_string();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| SimulateError::Io { path, source }
    };
    let mut writer = BlockFileWriter::create(&partial, generator.config().params.magic)
        .map_err(fail(&partial))?;
    let mut summary = ChainSummary {
        height: 0,
        tip: genesis.block_hash(),
        txs: 0,
        inputs: 0,
        outputs: 0,
        bytes: 0,
    };
    let bytes = writer.write(&genesis).map_err(fail(&partial))?;
    summary.count(0, &genesis, bytes);
    for height in 1..=options.blocks {
        let block = generator.next_block();
        let bytes = writer.write(&block).map_err(fail(&partial))?;
        summary.count(height, &block, bytes);
        progress(&summary);
    }
    writer.finish().map_err(fail(&partial))?;
    fs::rename(&partial, &options.out).map_err(fail(&options.out))?;
    Ok(summary)
}

/// Writes `blocks` to a new file at `path`, as [`BlockFileWriter`] does.
///
/// # Errors
/// Those of the operating system.
pub fn write_blocks<'a>(
    path: &Path,
    magic: [u8; 4],
    blocks: impl IntoIterator<Item = &'a Block>,
) -> io::Result<()> {
    let mut writer = BlockFileWriter::create(path, magic)?;
    for block in blocks {
        writer.write(block)?;
    }
    writer.finish()
}

/// Writes blocks in the framing of Bitcoin Core's block files: magic (4 bytes), length
/// (4 bytes, little endian), block.
#[derive(Debug)]
pub struct BlockFileWriter {
    file: BufWriter<File>,
    magic: [u8; 4],
    block: Vec<u8>,
}

impl BlockFileWriter {
    /// Creates the file, or empties it.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn create(path: &Path, magic: [u8; 4]) -> io::Result<Self> {
        Ok(Self {
            file: BufWriter::with_capacity(BUFFER, File::create(path)?),
            magic,
            block: Vec::new(),
        })
    }

    /// Appends a block and returns how many bytes the file grew.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn write(&mut self, block: &Block) -> io::Result<u64> {
        self.block.clear();
        block
            .consensus_encode(&mut self.block)
            .expect("writing to memory does not fail");
        let len = u32::try_from(self.block.len()).expect("a block has at most 4 MB");
        self.file.write_all(&self.magic)?;
        self.file.write_all(&len.to_le_bytes())?;
        self.file.write_all(&self.block)?;
        Ok(8 + u64::from(len))
    }

    /// Brings everything to the disk.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }
}
