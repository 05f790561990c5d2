//! Why metadata could not be read or written.

use std::{io, path::PathBuf};

/// Why metadata could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetaError {
    /// Another process has the database open.
    #[error("{} is in use by another process", dir.display())]
    InUse {
        /// Folder of the database.
        dir: PathBuf,
    },
    /// The operating system refused (permissions, space, open files ...). Says
    /// nothing about the contents, so nothing was moved aside.
    #[error("{}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The database failed while it was open. It will be moved aside at the next
    /// start; until then whatever is asked of it can fail again.
    #[error("metadata in {} is damaged: {reason}", dir.display())]
    Damaged {
        /// Folder of the database.
        dir: PathBuf,
        /// What was seen.
        reason: String,
    },
    /// A value is longer than [`crate::MAX_VALUE_LEN`]. Nothing was saved.
    #[error("the value {name} has {len} bytes, too many")]
    TooLong {
        /// Name of its key.
        name: &'static str,
        /// Its length, in bytes.
        len: usize,
    },
}

impl MetaError {
    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io {
            path: path.into(),
            source,
        }
    }
}
