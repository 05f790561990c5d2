//! What a data directory is bound to, and its file: `node.json`.

use std::{fs, path::Path};

use pulse_meta::durable;
use pulse_primitives::{bitcoin::BlockHash, network::ChainParams};
use pulse_snapshot::Origin;
use serde::{Deserialize, Serialize};

use super::{DataDirError, FORMAT, io_error};

/// What a directory is bound to: `node.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// Version of the layout.
    pub format: u32,
    /// Name of the network.
    pub network: String,
    /// Hash of its first block.
    pub genesis: BlockHash,
    /// Challenge of a custom signet, as hex.
    pub signet_challenge: Option<String>,
    /// Whether the chain is simulated here.
    pub simulated: bool,
    /// Seed of the simulated chain.
    pub seed: Option<u64>,
}

impl Binding {
    /// That of a directory which a snapshot of this origin is restored into.
    pub fn of(origin: &Origin) -> Self {
        let origin = origin.clone();
        Self {
            format: origin.layout,
            network: origin.network,
            genesis: origin.genesis,
            signet_challenge: origin.signet_challenge,
            simulated: origin.simulated,
            seed: origin.seed,
        }
    }

    /// What a snapshot of the directory states.
    pub fn origin(&self) -> Origin {
        let binding = self.clone();
        Origin {
            layout: binding.format,
            network: binding.network,
            genesis: binding.genesis,
            signet_challenge: binding.signet_challenge,
            simulated: binding.simulated,
            seed: binding.seed,
        }
    }

    /// Writes it to the file at `path`, whole or not at all.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), DataDirError> {
        let mut text =
            serde_json::to_string_pretty(self).expect("a struct of strings and numbers serialises");
        text.push('\n');
        durable::write(path, text.as_bytes(), 0o644).map_err(|err| io_error(path, err))
    }

    /// That of a directory that is made for `chain`, simulated with a seed or not.
    pub fn new(chain: &ChainParams, simulated: Option<u64>) -> Self {
        Self {
            format: FORMAT,
            network: chain.name().to_owned(),
            genesis: chain.genesis_hash(),
            signet_challenge: chain.signet_challenge.as_ref().map(hex::encode),
            simulated: simulated.is_some(),
            seed: simulated,
        }
    }

    /// Reads the file at `path` of the directory `root`; the format first, because another
    /// one may have other fields.
    ///
    /// # Errors
    /// [`DataDirError::Format`], [`DataDirError::Damaged`], [`DataDirError::Io`].
    pub fn read(root: &Path, path: &Path) -> Result<Self, DataDirError> {
        #[derive(Deserialize)]
        struct FormatOnly {
            format: u32,
        }
        let damaged = |err: serde_json::Error| DataDirError::Damaged {
            path: path.to_owned(),
            reason: err.to_string(),
        };
        let text = fs::read(path).map_err(|err| io_error(path, err))?;
        let found = serde_json::from_slice::<FormatOnly>(&text)
            .map_err(damaged)?
            .format;
        if found != FORMAT {
            return Err(DataDirError::Format {
                dir: root.to_owned(),
                found,
            });
        }
        serde_json::from_slice(&text).map_err(damaged)
    }

    /// Whether a directory that is bound to this may be used as one that is bound to `asked`.
    /// The seed of a simulated chain may differ.
    ///
    /// # Errors
    /// [`DataDirError::Bound`].
    pub fn refuse_other_than(&self, asked: &Self, root: &Path) -> Result<(), DataDirError> {
        let seed = None;
        let same = Self {
            seed,
            ..self.clone()
        } == Self {
            seed,
            ..asked.clone()
        };
        if same {
            return Ok(());
        }
        Err(DataDirError::Bound {
            dir: root.to_owned(),
            holds: self.describe(),
            asked: asked.describe(),
        })
    }

    fn describe(&self) -> String {
        let simulated = if self.simulated { "a simulated " } else { "" };
        let challenge = match &self.signet_challenge {
            Some(challenge) => format!(" with challenge {challenge}"),
            None => String::new(),
        };
        format!(
            "{simulated}{}{challenge} (genesis {})",
            self.network, self.genesis
        )
    }
}
