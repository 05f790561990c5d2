//! The folder of real chain data, and readers for the forms in it.
//!
//! Its README says where each file comes from and what was checked.

use std::{
    env, fs,
    io::Read,
    path::{Path, PathBuf},
};

use bitcoin::{Block, Network, consensus::deserialize};
use pulse_primitives::network::ChainParams;
use serde::Deserialize;

use crate::golden::Golden;

/// The folder of real chain data.
#[derive(Debug, Clone)]
pub struct ChainData {
    root: PathBuf,
}

impl ChainData {
    /// The folder that `PULSE_CHAINDATA` names, or `../shared/chaindata` beside the
    /// repository. `None` if it is not there; a line on standard error then says that
    /// the test is skipped.
    ///
    /// # Panics
    /// If it is not there and `CI` is `true`, so that no test is skipped unnoticed.
    #[must_use]
    pub fn locate() -> Option<Self> {
        let root = env::var_os("PULSE_CHAINDATA").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/chaindata"),
            PathBuf::from,
        );
        if root.join("runs").is_dir() {
            return Some(Self { root });
        }
        let message = format!(
            "no chain data in {} (PULSE_CHAINDATA names another place)",
            root.display()
        );
        assert!(env::var("CI").as_deref() != Ok("true"), "{message}");
        #[allow(clippy::print_stderr)] // the only way to say it from within a test
        {
            eprintln!("skipped: {message}");
        }
        None
    }

    /// Path of a file in the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Bytes of a file, unpacked if its name ends in `.zst` or `.bz2`.
    ///
    /// # Panics
    /// If it cannot be read.
    #[must_use]
    pub fn read(&self, name: &str) -> Vec<u8> {
        read_unpacked(&self.path(name))
    }

    /// Mainnet, heights 0 to 4,312.
    #[must_use]
    pub fn mainnet(&self) -> Vec<Block> {
        let params = ChainParams::new(Network::Bitcoin, None);
        parse_framed(&self.read("runs/mainnet-0-4312.blk.zst"), params.magic)
    }

    /// Genesis of mainnet and the 2,016 blocks of a real fork of it with less work.
    #[must_use]
    pub fn mainnet_alt(&self) -> Vec<Block> {
        let params = ChainParams::new(Network::Bitcoin, None);
        let mut blocks = vec![params.genesis()];
        blocks.extend(parse_framed(
            &self.read("runs/mainnet-alt-1-2016.blk.zst"),
            params.magic,
        ));
        blocks
    }

    /// Testnet3, heights 0 to 394.
    #[must_use]
    pub fn testnet3(&self) -> Vec<Block> {
        let params = ChainParams::new(Network::Testnet, None);
        parse_framed(&self.read("runs/testnet3-0-394.blk.zst"), params.magic)
    }

    /// The default signet, heights 0 to 120.
    #[must_use]
    pub fn signet(&self) -> Vec<Block> {
        #[derive(Deserialize)]
        struct Entry {
            block: String,
        }
        let entries: Vec<Entry> = parse_json(&self.read("runs/signet-0-120.blocks.json.zst"));
        entries
            .iter()
            .map(|entry| parse_hex(&entry.block))
            .collect()
    }

    /// Regtest, heights 0 to 206, as the kernel's own tests use it.
    #[must_use]
    pub fn regtest_kernel(&self) -> Vec<Block> {
        let text = String::from_utf8(self.read("runs/regtest-kernel-1-206.txt"))
            .expect("the file is text");
        let genesis = ChainParams::new(Network::Regtest, None).genesis();
        std::iter::once(genesis)
            .chain(text.split_whitespace().map(parse_hex))
            .collect()
    }

    /// Regtest, heights 0 to 103, and Bitcoin Core's getblockstats for 101 to 103.
    #[must_use]
    pub fn regtest_stats(&self) -> (Vec<Block>, Vec<serde_json::Value>) {
        #[derive(Deserialize)]
        struct File {
            blocks: Vec<String>,
            stats: Vec<serde_json::Value>,
        }
        let file: File = parse_json(&self.read("runs/regtest-getblockstats.json"));
        let blocks = file.blocks.iter().map(|hex| parse_hex(hex)).collect();
        (blocks, file.stats)
    }

    /// Two regtest chains from genesis: heights 0 to 10, and a longer one (0 to 16)
    /// that leaves the first behind height 5.
    #[must_use]
    pub fn regtest_reorg(&self) -> (Vec<Block>, Vec<Block>) {
        let (trunk, branch): (Vec<String>, Vec<String>) =
            parse_json(&self.read("runs/regtest-reorg.json"));
        let mut first = vec![ChainParams::new(Network::Regtest, None).genesis()];
        first.extend(trunk.iter().map(|hex| parse_hex(hex)));
        let branch: Vec<Block> = branch.iter().map(|hex| parse_hex(hex)).collect();
        let fork = first
            .iter()
            .position(|block| block.block_hash() == branch[0].header.prev_blockhash)
            .expect("the branch starts on the trunk");
        let second = first[..=fork].iter().cloned().chain(branch).collect();
        (first, second)
    }

    /// The blocks of a file in `invalid/`, as they stand there.
    #[must_use]
    pub fn invalid(&self, name: &str) -> Vec<Block> {
        let params = ChainParams::new(Network::Bitcoin, None);
        parse_framed(&self.read(&format!("invalid/{name}")), params.magic)
    }

    /// Names of the files in `invalid/`, sorted.
    #[must_use]
    pub fn invalid_names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.path("invalid"))
            .expect("the folder is there")
            .map(|entry| {
                let name = entry.expect("the folder can be read").file_name();
                name.into_string().expect("names are ASCII")
            })
            .collect();
        names.sort();
        names
    }

    /// The golden answers of `golden/scripthash-NAME.jsonl.zst`, for instance
    /// `mainnet-0-4312`, `testnet3-0-394` or `regtest-kernel-0-206`.
    #[must_use]
    pub fn golden(&self, name: &str) -> Golden {
        Golden::parse(&self.read(&format!("golden/scripthash-{name}.jsonl.zst")))
    }
}

/// Bytes of a file, unpacked if its name ends in `.zst` or `.bz2`.
///
/// # Panics
/// If it cannot be read.
#[must_use]
pub fn read_unpacked(path: &Path) -> Vec<u8> {
    let fail = |err: std::io::Error| -> ! { panic!("reading {}: {err}", path.display()) };
    let packed = fs::read(path).unwrap_or_else(|err| fail(err));
    let mut bytes = Vec::new();
    let result = match path.extension().and_then(|extension| extension.to_str()) {
        Some("zst") => zstd::stream::copy_decode(packed.as_slice(), &mut bytes),
        Some("bz2") => bzip2::read::BzDecoder::new(packed.as_slice())
            .read_to_end(&mut bytes)
            .map(|_| ()),
        _ => return packed,
    };
    result.unwrap_or_else(|err| fail(err));
    bytes
}

/// Blocks in the framing of Bitcoin Core's block files: magic, length (4 bytes, little
/// endian), block.
///
/// # Panics
/// If the bytes are anything else.
#[must_use]
pub fn parse_framed(mut bytes: &[u8], magic: [u8; 4]) -> Vec<Block> {
    let mut blocks = Vec::new();
    while let Some((header, rest)) = bytes.split_first_chunk::<8>() {
        assert_eq!(header[..4], magic, "magic of block {}", blocks.len());
        let len = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        let (block, rest) = rest
            .split_at_checked(usize::try_from(len).expect("fits"))
            .expect("the frame is complete");
        blocks.push(deserialize(block).expect("the block decodes"));
        bytes = rest;
    }
    assert!(bytes.is_empty(), "{} bytes are left over", bytes.len());
    blocks
}

fn parse_hex(text: &str) -> Block {
    deserialize(&hex::decode(text).expect("the block is hex")).expect("the block decodes")
}

fn parse_json<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> T {
    serde_json::from_slice(bytes).expect("the JSON has the documented form")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_chain(blocks: &[Block], len: usize) {
        assert_eq!(blocks.len(), len);
        for pair in blocks.windows(2) {
            assert_eq!(pair[1].header.prev_blockhash, pair[0].block_hash());
        }
    }

    #[test]
    fn every_run_is_a_chain_of_the_documented_length() {
        let Some(data) = ChainData::locate() else {
            return;
        };
        assert_chain(&data.mainnet(), 4_313);
        assert_chain(&data.mainnet_alt(), 2_017);
        assert_chain(&data.testnet3(), 395);
        assert_chain(&data.signet(), 121);
        assert_chain(&data.regtest_kernel(), 207);
        let (blocks, stats) = data.regtest_stats();
        assert_chain(&blocks, 104);
        assert_eq!(stats.len(), 3);
        let (trunk, branch) = data.regtest_reorg();
        assert_chain(&trunk, 11);
        assert_chain(&branch, 17);
        for name in data.invalid_names() {
            assert!(!data.invalid(&name).is_empty(), "{name}");
        }
    }

    #[test]
    fn golden_answers_are_read_completely() {
        let Some(data) = ChainData::locate() else {
            return;
        };
        for (name, tip, scripts) in [
            ("mainnet-0-4312", 4_312, 4_359),
            ("testnet3-0-394", 394, 417),
            ("regtest-kernel-0-206", 206, 38),
        ] {
            let golden = data.golden(name);
            assert_eq!(golden.tip_height, tip);
            assert_eq!(golden.scripts.len(), scripts);
            for script in &golden.scripts {
                assert_eq!(script.tx_count, script.history.len() as u64);
                assert_eq!(
                    script.funded_txo_count - script.spent_txo_count,
                    script.utxos.len() as u64
                );
            }
        }
    }
}
