//! What makes this node this one, in a file: today its identity.
//!
//! A snapshot has nothing of it, so that it can be given to others; this file is secret.

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
use serde::{Deserialize, Serialize};

use crate::{config::Config, data_dir::DataDir};

/// Version of the file.
const FORMAT: u32 = 1;
const IDENTITY_FILE: &str = "identity.key";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exported {
    format: u32,
    /// As in `identity.key`.
    identity: String,
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
    Ok(())
}

/// `pulse-node import FILE`: into a data directory that no node runs in and that has no
/// other identity.
pub fn import(config: &Config, file: &Path, mut out: impl Write) -> anyhow::Result<()> {
    let text = fs::read(file).with_context(|| file.display().to_string())?;
    let exported: Exported = serde_json::from_slice(&text)
        .with_context(|| format!("{} was not written by export", file.display()))?;
    if exported.format != FORMAT {
        bail!(
            "{} has format {}, and this version of pulse-node reads format {FORMAT}",
            file.display(),
            exported.format
        );
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
    identity::write(&dir.root().join(IDENTITY_FILE), &key)?;
    writeln!(out, "{peer_id}")?;
    Ok(())
}
