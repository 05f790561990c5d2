//! Why a snapshot could not be made, read or restored.

use std::{io, path::PathBuf};

/// Why a snapshot could not be made, read or restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The operating system refused.
    #[error("{}: {err}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        err: io::Error,
    },
    /// The place where something was to be made is taken.
    #[error("{} exists already and is not written over. Hint: give another place, or move it aside", path.display())]
    Exists {
        /// The place.
        path: PathBuf,
    },
    /// There is no manifest.
    #[error("{} is no snapshot: it has no manifest.json. A folder that ends in .partial is one that was not finished", dir.display())]
    NoManifest {
        /// The folder.
        dir: PathBuf,
    },
    /// The manifest is of another format.
    #[error(
        "the snapshot has format {found}, and this version of pulse-node reads format {expected}"
    )]
    Format {
        /// Its format.
        found: u32,
        /// The format that is read here.
        expected: u32,
    },
    /// The manifest does not meet its hash or contradicts itself.
    #[error("the snapshot is refused: its manifest is damaged or was changed: {what}")]
    Manifest {
        /// What is wrong with it.
        what: String,
    },
    /// A file is missing, too many, or not what the manifest says.
    #[error("the snapshot is refused: file {path}: {what}")]
    File {
        /// Its name in the snapshot.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// There is too little space.
    #[error("{} has {available} bytes free, and {needed} are needed", dir.display())]
    NoSpace {
        /// Where.
        dir: PathBuf,
        /// Free bytes.
        available: u64,
        /// Bytes that would be written.
        needed: u64,
    },
    /// It was told to stop.
    #[error("stopped before it was finished")]
    Cancelled,
    /// Not all chunks have been put.
    #[error("{missing} chunks of the snapshot are missing")]
    Incomplete {
        /// How many.
        missing: usize,
    },
}

impl SnapshotError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |err| Self::Io { path, err }
    }

    pub(crate) fn file(path: impl Into<String>, what: &'static str) -> Self {
        Self::File {
            path: path.into(),
            what,
        }
    }

    pub(crate) fn manifest(what: impl Into<String>) -> Self {
        Self::Manifest { what: what.into() }
    }
}
