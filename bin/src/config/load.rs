//! Merges defaults, file, environment and flags.
//!
//! Each layer is checked as it is laid on, so whatever is wrong belongs to the newest
//! one and the message can name it.

use std::{ffi::OsString, fs, path::Path};

use figment::{
    Figment,
    error::Kind,
    providers::{Format, Serialized, Toml},
    value::Value,
};

use super::{Config, ConfigError, RawConfig};
use crate::cli::Flags;

const PREFIX: &str = "PULSE_";

/// Variables with our prefix that are no configuration: where tests find real chain
/// data, and what the build puts into the version.
const NOT_CONFIGURATION: [&str; 2] = ["PULSE_CHAINDATA", "PULSE_COMMIT"];

/// The configuration and what an operator should know about how it came about.
#[derive(Debug)]
pub struct Loaded {
    /// What is true.
    pub config: Config,
    /// One sentence each.
    pub warnings: Vec<String>,
}

/// Merges `flags`, the variables of `env`, and the file that `flags` names.
///
/// # Errors
/// [`ConfigError`]: the first thing found wrong.
pub fn load(
    flags: &Flags,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Loaded, ConfigError> {
    let mut layers = Layers::default();
    if let Some(path) = &flags.config {
        layers.lay_file(path)?;
    }
    let mut warnings = Vec::new();
    let mut variables = env
        .into_iter()
        .filter_map(|(name, value)| {
            // Names and values that are no text cannot be ours.
            Some((name.into_string().ok()?, value.into_string().ok()?))
        })
        .filter(|(name, _)| name.starts_with(PREFIX) && !NOT_CONFIGURATION.contains(&name.as_str()))
        .collect::<Vec<_>>();
    variables.sort();
    for (name, value) in variables {
        if !layers.lay_variable(&name, &value)? {
            warnings.push(format!("unknown environment variable {name} is ignored"));
        }
    }
    for (flag, key, value) in flags.given() {
        let origin = match value.as_str() {
            Some(text) => format!("{flag} {text}"),
            None => flag.to_owned(),
        };
        layers
            .lay_value(key, value)
            .map_err(|err| value_error(&origin, &err))?;
    }
    let config = Config::resolve(layers.raw, layers.given.contains("node.network"))?;
    Ok(Loaded { config, warnings })
}

/// What has been laid on the defaults so far.
#[derive(Default)]
struct Layers {
    given: Figment,
    raw: RawConfig,
}

impl Layers {
    fn lay(&mut self, given: Figment) -> Result<(), Box<figment::Error>> {
        self.raw = Figment::from(Serialized::defaults(RawConfig::default()))
            .merge(&given)
            .extract()
            .map_err(Box::new)?;
        self.given = given;
        Ok(())
    }

    fn lay_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = fs::read_to_string(path).map_err(|err| ConfigError::File {
            path: path.to_owned(),
            err,
        })?;
        let origin = path.display().to_string();
        self.lay(self.given.clone().merge(Toml::string(&text)))
            .map_err(|err| match &err.kind {
                Kind::UnknownField(..) => ConfigError::UnknownKey {
                    key: err.path.join("."),
                    origin,
                },
                _ if err.path.is_empty() => value_error(&origin, &err),
                _ => value_error(&format!("{origin}: {}", err.path.join(".")), &err),
            })
    }

    /// Whether the variable names a key.
    fn lay_variable(&mut self, name: &str, text: &str) -> Result<bool, ConfigError> {
        let key = name[PREFIX.len()..].to_lowercase().replace("__", ".");
        if !key.contains('.') {
            return Ok(false);
        }
        // A variable has no type: text where text is wanted (a hex number may look like
        // any other), else what it is in TOML, else a list with commas.
        let parsed = toml_value(text).unwrap_or_else(|| Value::from(text));
        let list = text.split(',').map(str::trim).collect::<Vec<_>>();
        match self.lay_value(&key, Value::from(text)) {
            Ok(()) => return Ok(true),
            Err(err) if matches!(err.kind, Kind::UnknownField(..)) => return Ok(false),
            Err(_) => {}
        }
        if let Err(err) = self.lay_value(&key, parsed) {
            self.lay_value(&key, Value::from(list))
                .map_err(|_| value_error(name, &err))?;
        }
        Ok(true)
    }

    fn lay_value(&mut self, key: &str, value: Value) -> Result<(), Box<figment::Error>> {
        self.lay(self.given.clone().merge(Serialized::default(key, value)))
    }
}

/// What `text` means on the right side of a line of TOML.
fn toml_value(text: &str) -> Option<Value> {
    let mut table = toml::from_str::<toml::Table>(&format!("value = {text}")).ok()?;
    Value::serialize(table.remove("value")?).ok()
}

/// The first line is the cause; further ones are about layers that are not ours.
fn value_error(origin: &str, err: &figment::Error) -> ConfigError {
    let reason = err.kind.to_string();
    ConfigError::Value {
        origin: origin.to_owned(),
        reason: reason.trim_end().replace('\n', "; "),
    }
}
