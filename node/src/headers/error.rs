//! Why headers were refused, and why the store could not be opened or written.

use std::path::PathBuf;

use pulse_primitives::bitcoin::BlockHash;

/// Why a run of headers from a peer is refused before the kernel sees it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The run is longer than a `headers` message may be.
    #[error("{count} headers in one message")]
    TooMany {
        /// Length of the run.
        count: usize,
    },
    /// The first header's parent is not known.
    #[error("header {hash} does not connect: its parent {prev_hash} is not known")]
    Unconnected {
        /// Hash of the first header.
        hash: BlockHash,
        /// Parent that it names.
        prev_hash: BlockHash,
    },
    /// A header does not name the one before it as its parent.
    #[error("header {hash} at position {index} of the run does not follow the one before")]
    Discontinuous {
        /// Position in the run.
        index: usize,
        /// Hash of the header.
        hash: BlockHash,
    },
    /// The hash does not meet the target, or the target is easier than the network allows.
    #[error("header {hash} has no valid proof of work")]
    BadProofOfWork {
        /// Hash of the header.
        hash: BlockHash,
    },
    /// The block or one of its ancestors is marked invalid.
    #[error("block {hash} is invalid or follows an invalid block")]
    InvalidChain {
        /// Hash of the header.
        hash: BlockHash,
    },
}

/// Why the header store could not be opened or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderStoreError {
    /// The headers themselves are refused; nothing was stored.
    #[error(transparent)]
    Refused(#[from] HeaderError),
    /// The file does not begin as a header file does.
    #[error(
        "{} is not a header file. Hint: stop the node, move the file aside and start again; it is rebuilt from peers",
        path.display()
    )]
    NotAHeaderFile {
        /// The file.
        path: PathBuf,
    },
    /// The file has a format that this program does not know.
    #[error(
        "{} has format version {found}, this program reads {expected}. Hint: start the program that wrote it, or move the file aside; it is rebuilt from peers",
        path.display()
    )]
    FormatVersion {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// Version that this program reads and writes.
        expected: u32,
    },
    /// The file belongs to another network.
    #[error("{} holds headers of another network. Hint: use one data directory per network", path.display())]
    WrongNetwork {
        /// The file.
        path: PathBuf,
    },
    /// A record in the middle of the file is damaged, so that what follows has lost its parents.
    #[error(
        "record {record} (byte {offset}) of {} is damaged: {what}. Hint: stop the node, move the file aside and start again; it is rebuilt from peers",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Number of the record, from 0.
        record: u64,
        /// Offset of its first byte.
        offset: u64,
        /// Which check failed.
        what: &'static str,
    },
    /// The operating system refused a read or a write.
    #[error("reading or writing {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
}
