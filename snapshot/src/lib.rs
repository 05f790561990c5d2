//! Snapshots on disk: a folder of files and a manifest that proves them.
//!
//! ```text
//! Draft (files linked or copied) -> hashed -> manifest -> renamed: a snapshot
//! snapshot -> Snapshot::open (manifest, names) -> Staging (chunk by chunk, proven) -> placed
//! ```
//!
//! The crate knows files and hashes, and neither kernel nor index: what belongs into a
//! snapshot and when it is consistent, is decided where it is made. [`Staging`] takes
//! chunks of 16 MiB in any order from anywhere.
//!
//! # Correctness
//! The manifest is written last, and the folder gets its name after that, with everything
//! synced before: what was cut short has no manifest and another name. A restored chunk is
//! written only after it has met its hash.
//!
//! # Security
//! The hashes prove that a snapshot is whole and unchanged since its manifest was written,
//! not who wrote it: whoever can change both files and manifest can change the chain that
//! is restored. Names are compared with a short list of folders before anything is opened.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod direct;
mod draft;
mod error;
mod files;
mod manifest;
mod progress;
mod restore;
mod staging;
#[cfg(test)]
mod tests;

pub use direct::ChunkBuffer;
pub use draft::Draft;
pub use error::SnapshotError;
pub use files::{available_bytes, same_file_system};
pub use manifest::{
    BlockRef, CHUNK_LEN, ChunkHash, FORMAT, FileEntry, MAX_MANIFEST_BYTES, Manifest, ManifestHead,
    Origin,
};
pub use progress::Progress;
pub use restore::Snapshot;
pub use staging::{STAGING_FOLDER, Staging, TOP_LEVEL};
