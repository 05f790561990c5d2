//! `manifest.json`, which says what a snapshot is, and `manifest.b3`, which proves it.
//!
//! `manifest.b3` holds one line in the form of `b3sum`: the BLAKE3 hash of the bytes of
//! `manifest.json` as hex, two spaces, `manifest.json`. The manifest has the BLAKE3 hash of
//! each chunk of each file, so that these 32 bytes stand for the whole snapshot.
//!
//! # Security
//! Everything is checked here before a name is used: only known folders, only plain names,
//! sorted and therefore each once, sizes that fit the number of chunks.

use std::{fmt, fs, io::ErrorKind, path::Path};

use pulse_primitives::{Height, bitcoin::BlockHash};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{error::SnapshotError, files::write_synced};

/// Version of the manifest and of the layout.
///
/// History: 1, the first.
pub const FORMAT: u32 = 1;

/// Bytes in each chunk of a file but the last: 16 MiB.
pub const CHUNK_LEN: u64 = 16 << 20;

pub(crate) const MANIFEST_FILE: &str = "manifest.json";
pub(crate) const PROOF_FILE: &str = "manifest.b3";

/// Longest manifest that is read: about fourteen times that of mainnet in 2026.
pub const MAX_MANIFEST_BYTES: u64 = 64 << 20;
/// Longest name of a file in its folder.
const MAX_NAME_LEN: usize = 128;
/// Folders that can have files.
const FOLDERS: [&str; 5] = [
    "",
    "index/",
    "kernel/blocks/",
    "kernel/blocks/index/",
    "kernel/chainstate/",
];
/// The only file that stands in no folder.
const TOP_FILE: &str = "headers.dat";

/// What a snapshot is, and the hashes of its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the format, [`FORMAT`].
    pub format: u32,
    /// All but the files.
    pub snapshot: ManifestHead,
    /// Bytes per chunk, [`CHUNK_LEN`].
    pub chunk_len: u64,
    /// The files, sorted by path.
    pub files: Vec<FileEntry>,
}

/// What a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestHead {
    /// Version and commit of the program that made it.
    pub program: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// The chain that it is of.
    pub origin: Origin,
    /// Tip of the validated chain.
    pub tip: BlockRef,
    /// Total work of the chain up to the tip, 32 bytes big-endian as hex.
    pub chain_work: String,
    /// Newest block of the index, which is a block of the validated chain; `null` when
    /// nothing was indexed.
    pub indexed: Option<BlockRef>,
    /// Commitment over the unspent outputs at `indexed`, as hex, if the index keeps one.
    pub utxo_commitment: Option<String>,
}

/// What data directory a snapshot is of: the same facts as `node.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Version of the layout of the data directory.
    pub layout: u32,
    /// Name of the network.
    pub network: String,
    /// Hash of its first block.
    pub genesis: BlockHash,
    /// Challenge of a custom signet, as hex.
    pub signet_challenge: Option<String>,
    /// Whether the chain is simulated.
    pub simulated: bool,
    /// Seed of a simulated chain.
    pub seed: Option<u64>,
}

/// A block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlockRef {
    /// Its height.
    pub height: Height,
    /// Its hash.
    pub hash: BlockHash,
}

/// A file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Path in the snapshot and in the data directory, with `/`.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    /// BLAKE3 hash of each chunk; none for an empty file.
    pub chunks: Vec<ChunkHash>,
}

/// BLAKE3 hash of a chunk, or of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkHash([u8; 32]);

impl ChunkHash {
    /// Hashes the bytes of a chunk.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The hash with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Display for ChunkHash {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&hex::encode(self.0))
    }
}

impl Serialize for ChunkHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for ChunkHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).map_err(D::Error::custom)?;
        Ok(Self(hash))
    }
}

impl FileEntry {
    /// Where chunk `index` starts, and its length.
    #[must_use]
    pub fn chunk_range(&self, index: usize) -> (u64, usize) {
        let start = index as u64 * CHUNK_LEN;
        let len = self.size.saturating_sub(start).min(CHUNK_LEN);
        (start, usize::try_from(len).unwrap_or(0))
    }
}

impl Manifest {
    /// The manifest of a snapshot with these files.
    #[must_use]
    pub fn new(snapshot: ManifestHead, mut files: Vec<FileEntry>) -> Self {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Self {
            format: FORMAT,
            snapshot,
            chunk_len: CHUNK_LEN,
            files,
        }
    }

    /// Bytes of all files.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.size).sum()
    }

    /// Reads and checks the manifest in the folder `dir`. Gives its BLAKE3 hash too, which
    /// stands for the whole snapshot.
    ///
    /// # Errors
    /// [`SnapshotError`]; nothing else of the folder has been looked at.
    pub fn read(dir: &Path) -> Result<(Self, ChunkHash), SnapshotError> {
        let path = dir.join(MANIFEST_FILE);
        let bytes = match fs::metadata(&path) {
            Ok(meta) if meta.len() > MAX_MANIFEST_BYTES => {
                return Err(SnapshotError::manifest("it is too long"));
            }
            Ok(_) => fs::read(&path).map_err(SnapshotError::io(&path))?,
            Err(err) if err.kind() == ErrorKind::NotFound => {
                return Err(SnapshotError::NoManifest {
                    dir: dir.to_owned(),
                });
            }
            Err(err) => return Err(SnapshotError::io(&path)(err)),
        };
        let proof_path = dir.join(PROOF_FILE);
        let proof = fs::read(&proof_path).map_err(SnapshotError::io(&proof_path))?;
        if proof != proof_of(&bytes).as_bytes() {
            return Err(SnapshotError::manifest(
                "it does not meet the hash in manifest.b3",
            ));
        }
        Ok((Self::decode(&bytes)?, ChunkHash::of(&bytes)))
    }

    /// Reads and checks a manifest from its bytes, whose hash is known to be right.
    ///
    /// # Errors
    /// [`SnapshotError::Format`], [`SnapshotError::Manifest`], [`SnapshotError::File`].
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        #[derive(Deserialize)]
        struct FormatOnly {
            format: u32,
        }
        let damaged = |err: serde_json::Error| SnapshotError::manifest(err.to_string());
        // Another format may have other fields.
        let found = serde_json::from_slice::<FormatOnly>(bytes)
            .map_err(damaged)?
            .format;
        if found != FORMAT {
            return Err(SnapshotError::Format {
                found,
                expected: FORMAT,
            });
        }
        let manifest = serde_json::from_slice::<Self>(bytes).map_err(damaged)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Writes both files into `dir` and waits until they are on the disk.
    pub(crate) fn write(&self, dir: &Path) -> Result<ChunkHash, SnapshotError> {
        self.check()?;
        let mut bytes =
            serde_json::to_vec_pretty(self).expect("strings, numbers and lists serialise");
        bytes.push(b'\n');
        write_synced(&dir.join(MANIFEST_FILE), &bytes)?;
        write_synced(&dir.join(PROOF_FILE), proof_of(&bytes).as_bytes())?;
        Ok(ChunkHash::of(&bytes))
    }

    fn check(&self) -> Result<(), SnapshotError> {
        if self.chunk_len != CHUNK_LEN {
            return Err(SnapshotError::manifest("its chunks have another length"));
        }
        let work = &self.snapshot.chain_work;
        if work.len() != 64 || !work.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(SnapshotError::manifest("its work is no number of 32 bytes"));
        }
        if !self.files.is_sorted_by(|a, b| a.path < b.path) {
            return Err(SnapshotError::manifest(
                "its files are not sorted, or one is there twice",
            ));
        }
        let mut total = 0u64;
        for file in &self.files {
            if !is_known_path(&file.path) {
                return Err(SnapshotError::file(
                    &file.path,
                    "its name is not one that a snapshot can have",
                ));
            }
            if file.size.div_ceil(CHUNK_LEN) != file.chunks.len() as u64 {
                return Err(SnapshotError::file(
                    &file.path,
                    "its size does not fit its number of chunks",
                ));
            }
            total = total
                .checked_add(file.size)
                .ok_or_else(|| SnapshotError::manifest("its sizes add up to too much"))?;
        }
        Ok(())
    }
}

fn proof_of(manifest: &[u8]) -> String {
    format!("{}  {MANIFEST_FILE}\n", blake3::hash(manifest).to_hex())
}

/// Whether a snapshot can have a file of that name. A name that passes has no `..`, does
/// not start with `/`, and lies in a folder of the list.
pub(crate) fn is_known_path(path: &str) -> bool {
    let (folder, name) = path.split_at(path.rfind('/').map_or(0, |slash| slash + 1));
    let is_plain = !name.is_empty()
        && name.len() <= MAX_NAME_LEN
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    is_plain && FOLDERS.contains(&folder) && (folder.is_empty() == (name == TOP_FILE))
}
