//! What makes this node this one, in a file: its identity, and what its operator has written
//! into it (labels and API keys).
//!
//! A snapshot has nothing of it, so that it can be given to others; this file is secret. It is
//! JSON: `format`, `identity` (as in `identity.key`), and in `books` the `labels` (as the lines
//! of BIP 329) and `api_keys` (as `/api-keys/export` gives them: of a key its SHA-256, not the
//! key).
//!
//! # Correctness
//! Identity and labels are checked before anything is taken, and so are the API keys, which are
//! first and taken as a whole or not at all; the identity comes last. Taking a file again changes
//! nothing, so an import that failed can be repeated; labels and keys that are there already stay
//! unless the file has the same.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, bail};
use pulse_meta::{
    MetaStore,
    identity::{self, Found},
};
use pulse_primitives::{
    api_keys::{ApiKey, ApiKeyStore},
    labels::{Label, LabelStore, MAX_LABELS},
};
use serde::{Deserialize, Serialize};

use crate::{config::Config, control, data_dir::DataDir};

/// Version of the file. Version 1 had the identity alone.
const FORMAT: u32 = 2;
const OLDEST_FORMAT: u32 = 1;
const IDENTITY_FILE: &str = "identity.key";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exported {
    format: u32,
    /// As in `identity.key`.
    identity: String,
    #[serde(default)]
    books: Books,
}

/// What the operator has written into the node.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Books {
    labels: Vec<Label>,
    api_keys: Vec<ApiKey>,
}

impl Books {
    /// All that `meta` has.
    ///
    /// # Errors
    /// A failed read.
    pub fn of(meta: &MetaStore) -> anyhow::Result<Self> {
        Ok(Self {
            labels: meta.labels(None, MAX_LABELS)?,
            api_keys: meta.api_keys(),
        })
    }

    fn write_to(&self, meta: &MetaStore) -> anyhow::Result<()> {
        meta.import_keys(&self.api_keys).context("API keys")?;
        meta.set_labels(&self.labels).context("labels")
    }
}

impl std::fmt::Display for Books {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (labels, keys) = (self.labels.len(), self.api_keys.len());
        write!(out, "{labels} labels, {keys} API keys")
    }
}

/// Those of the node that runs in the data directory, or else what lies there.
fn books(config: &Config) -> anyhow::Result<Books> {
    if let Some(books) = control::ask_for_books(&config.data_dir)? {
        return Ok(books);
    }
    let seed = config.simulate.map(|simulate| simulate.seed);
    let dir = DataDir::open(&config.data_dir, &config.chain, seed)?;
    Books::of(&MetaStore::open(dir.root())?.0)
}

/// `pulse-node export FILE`: also beside a running node. The file must not exist; nobody
/// else can read it.
pub fn export(config: &Config, file: &Path, mut out: impl Write) -> anyhow::Result<()> {
    let path = config.data_dir.join(IDENTITY_FILE);
    let key = match identity::read(&path).with_context(|| path.display().to_string())? {
        Found::Key(key) => key,
        Found::Nothing => bail!("there is no identity in {} yet", config.data_dir.display()),
        Found::Damaged => bail!("{} holds no key", path.display()),
    };
    let exported = Exported {
        format: FORMAT,
        identity: identity::to_text(&key),
        books: books(config)?,
    };
    let mut text = serde_json::to_string_pretty(&exported)?;
    text.push('\n');
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file)
        .and_then(|mut open| {
            open.write_all(text.as_bytes())?;
            open.sync_all()
        })
        .with_context(|| file.display().to_string())?;
    writeln!(out, "{}", key.public().to_peer_id())?;
    writeln!(out, "{}", exported.books)?;
    Ok(())
}

/// `pulse-node import FILE`: into a data directory that no node runs in and that has no
/// other identity.
pub fn import(config: &Config, file: &Path, mut out: impl Write) -> anyhow::Result<()> {
    let text = fs::read(file).with_context(|| file.display().to_string())?;
    let exported: Exported = serde_json::from_slice(&text)
        .with_context(|| format!("{} was not written by export", file.display()))?;
    if !(OLDEST_FORMAT..=FORMAT).contains(&exported.format) {
        bail!(
            "{} has format {}, and this version of pulse-node reads up to format {FORMAT}",
            file.display(),
            exported.format
        );
    }
    for label in &exported.books.labels {
        (label.check())
            .with_context(|| format!("{}: label of {}", file.display(), label.reference))?;
    }
    let key = identity::from_text(exported.identity.as_bytes())
        .with_context(|| format!("{} holds no key", file.display()))?;
    let seed = config.simulate.map(|simulate| simulate.seed);
    let dir = DataDir::open(&config.data_dir, &config.chain, seed)?;
    let peer_id = key.public().to_peer_id();
    if let Some(other) = MetaStore::read_peer_id(dir.root())?.filter(|found| *found != peer_id) {
        bail!(
            "{} has the identity {other} already. Hint: move {IDENTITY_FILE} and meta/ aside to give it up",
            dir.root().display()
        );
    }
    // The identity last: what is wrong with the rest leaves the directory without it, and the
    // import can be repeated.
    exported.books.write_to(&MetaStore::open(dir.root())?.0)?;
    identity::write(&dir.root().join(IDENTITY_FILE), &key)?;
    writeln!(out, "{peer_id}")?;
    writeln!(out, "{}", exported.books)?;
    Ok(())
}
