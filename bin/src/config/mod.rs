//! The configuration, in two steps: what was typed ([`RawConfig`]), then what is true
//! ([`Config`]).
//!
//! ```text
//! defaults < TOML file < PULSE_SECTION__KEY < flags -> RawConfig -> Config
//! ```
//!
//! An unknown key in the file stops the start; an unknown variable warns, because the
//! environment is shared with others.

mod load;
mod raw;
mod resolve;
#[cfg(test)]
mod tests;

pub use load::load;
pub use raw::{Bootstrap, LogConfig, LogFormat, RawConfig, TraceConfig};
pub use resolve::Config;

use std::path::PathBuf;

/// What is wrong with the configuration, and where it came from.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A key that does not exist.
    #[error("unknown key \"{key}\" in {origin}")]
    UnknownKey {
        /// The key with its section.
        key: String,
        /// File that holds it.
        origin: String,
    },
    /// A value of the wrong type or form.
    #[error("{origin}: {reason}")]
    Value {
        /// File and key, variable or flag.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file cannot be read.
    #[error("cannot read the configuration file {}: {err}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        err: std::io::Error,
    },
    /// A value that is well formed and still makes no sense.
    #[error("{key}: {reason}")]
    Meaning {
        /// The key with its section.
        key: &'static str,
        /// Why.
        reason: String,
    },
    /// The `[p2p]` section makes no sense.
    #[error(transparent)]
    P2p(#[from] pulse_node::config::ConfigError),
    /// The `[fleet]` section makes no sense.
    #[error(transparent)]
    Fleet(#[from] pulse_fleet::ConfigError),
}

impl ConfigError {
    fn meaning(key: &'static str, reason: impl Into<String>) -> Self {
        Self::Meaning {
            key,
            reason: reason.into(),
        }
    }
}
