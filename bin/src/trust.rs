//! Whose word the state of the chain is: `trust.json` in the data directory.
//!
//! A node that began with a sibling's snapshot has headers with proof of work, and a state
//! (unspent outputs, undo data, index) that it has not computed. The file says so until it
//! has. Without the file everything was computed here.
//!
//! # Correctness
//! The file is on the disk before the snapshot is put in its place, so that no node runs
//! with a sibling's state and takes it for its own.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use pulse_meta::durable;
use pulse_snapshot::BlockRef;
use serde::{Deserialize, Serialize};

const TRUST_FILE: &str = "trust.json";

/// Whose word it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    /// A sibling's.
    Sibling,
    /// It was computed here, from genesis, and is the same.
    Validated,
    /// It was computed here, and is not the same.
    Refuted,
}

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Whose word the state is.
    pub trust: Trust,
    /// Hash of the manifest of the snapshot.
    pub manifest: String,
    /// Tip of the snapshot.
    pub tip: BlockRef,
    /// Who has vouched for it.
    pub vouchers: Vec<Voucher>,
    /// The unspent outputs at the tip as they were computed here, if they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coins: Option<String>,
    /// What differs, if it is refuted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A sibling that has vouched for a snapshot, with the proof that it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Voucher {
    /// Its peer id.
    pub peer_id: String,
    /// Its signature over the manifest's hash, as hex (`fleet/src/snapshot.rs`).
    pub signature: String,
}

impl From<Trust> for pulse_primitives::status::Trust {
    fn from(trust: Trust) -> Self {
        match trust {
            Trust::Sibling => Self::Sibling,
            Trust::Validated => Self::Validated,
            Trust::Refuted => Self::Refuted,
        }
    }
}

impl Record {
    /// Reads that of the data directory `root`; `None` if everything was computed here.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(root: &Path) -> anyhow::Result<Option<Self>> {
        let path = path(root);
        let text = match fs::read(&path) {
            Err(err)
                if matches!(
                    err.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            read => read.with_context(|| path.display().to_string())?,
        };
        let record = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        Ok(Some(record))
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn write(&self, root: &Path) -> anyhow::Result<()> {
        let path = path(root);
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        durable::write(&path, text.as_bytes(), 0o644).with_context(|| path.display().to_string())
    }
}

/// Refuses to give away what is somebody else's word: whoever takes it from here would take it
/// for this node's.
///
/// # Errors
/// When the state of the data directory `root` is a sibling's that was not computed anew, or
/// was and is not the same; or when that cannot be told.
pub fn refuse_foreign(root: &Path) -> anyhow::Result<()> {
    match Record::read(root)?.map(|record| record.trust) {
        None | Some(Trust::Validated) => Ok(()),
        Some(Trust::Sibling) => bail!(
            "the state of this node is a sibling's, and is still being computed anew. Hint: wait until /stats says trust: validated"
        ),
        Some(Trust::Refuted) => bail!(
            "the state of this node is a sibling's and is false. Hint: see docs/fleet.md, A false snapshot"
        ),
    }
}

fn path(root: &Path) -> PathBuf {
    root.join(TRUST_FILE)
}

#[cfg(test)]
mod tests {
    use pulse_primitives::bitcoin::{BlockHash, hashes::Hash};

    use super::*;

    #[test]
    fn a_record_reads_back_and_what_is_no_record_is_an_error_and_not_trust() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), None);
        let record = Record {
            trust: Trust::Sibling,
            manifest: "00".repeat(32),
            tip: BlockRef {
                height: 7,
                hash: BlockHash::all_zeros(),
            },
            vouchers: vec![Voucher {
                peer_id: "12D3".to_owned(),
                signature: "00".repeat(64),
            }],
            coins: None,
            reason: None,
        };
        record.write(dir.path()).unwrap();
        assert_eq!(Record::read(dir.path()).unwrap(), Some(record.clone()));
        for (trust, is_given) in [
            (Trust::Sibling, false),
            (Trust::Refuted, false),
            (Trust::Validated, true),
        ] {
            let record = Record {
                trust,
                ..record.clone()
            };
            record.write(dir.path()).unwrap();
            assert_eq!(refuse_foreign(dir.path()).is_ok(), is_given, "{trust:?}");
        }
        fs::write(path(dir.path()), "{}").unwrap();
        Record::read(dir.path()).unwrap_err();
        refuse_foreign(dir.path()).unwrap_err();
    }
}
