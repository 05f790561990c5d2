//! Protocol versions and how client and server agree upon one.

use std::fmt;

use serde_json::Value;

use super::error::ElectrumError;

/// A protocol version such as 1.4.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version([u16; 3]);

/// The oldest version that is spoken.
pub(super) const OLDEST: Version = Version([1, 4, 0]);
/// The newest.
pub(super) const NEWEST: Version = Version([1, 6, 0]);

/// The shortest form: `1.6`, `1.4.2`.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.0;
        write!(f, "{major}.{minor}")?;
        match patch {
            0 => Ok(()),
            patch => write!(f, ".{patch}"),
        }
    }
}

impl Version {
    /// Whether the methods and answers are those of 1.6.
    pub(super) fn is_1_6(self) -> bool {
        self >= NEWEST
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = [0; 3];
        for (place, part) in text.split('.').enumerate() {
            *parts.get_mut(place)? = part.parse().ok()?;
        }
        Some(Self(parts))
    }

    /// The version to speak with a client that asks for `asked`: one version, or its
    /// oldest and newest. None asked is 1.4.
    ///
    /// # Errors
    /// [`ElectrumError::UnsupportedVersion`] if there is none in common,
    /// [`ElectrumError::Rpc`] if it is no version.
    pub(super) fn negotiate(asked: Option<&Value>) -> Result<Self, ElectrumError> {
        let wrong = || ElectrumError::params("invalid protocol version");
        let (min, max) = match asked {
            None => (OLDEST, OLDEST),
            Some(Value::String(text)) => {
                let version = Self::parse(text).ok_or_else(wrong)?;
                (version, version)
            }
            Some(Value::Array(range)) => match range.as_slice() {
                [Value::String(min), Value::String(max)] => (
                    Self::parse(min).ok_or_else(wrong)?,
                    Self::parse(max).ok_or_else(wrong)?,
                ),
                _ => return Err(wrong()),
            },
            Some(_) => return Err(wrong()),
        };
        let version = max.min(NEWEST);
        if version < min.max(OLDEST) {
            return Err(ElectrumError::UnsupportedVersion {
                asked: match asked {
                    Some(Value::String(text)) => text.chars().take(32).collect(),
                    _ => format!("{min} to {max}"),
                },
            });
        }
        Ok(version)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_newest_common_version_is_spoken() {
        for (asked, spoken) in [
            (None, "1.4"),
            (Some(json!("1.4")), "1.4"),
            (Some(json!("1.4.2")), "1.4.2"),
            (Some(json!("1.6")), "1.6"),
            (Some(json!(["1.4", "1.6"])), "1.6"),
            (Some(json!(["1.2", "1.4.3"])), "1.4.3"),
            (Some(json!(["1.4", "2.0"])), "1.6"),
            (Some(json!(["0.10", "1.5"])), "1.5"),
        ] {
            let version = Version::negotiate(asked.as_ref()).unwrap();
            assert_eq!(version.to_string(), spoken, "{asked:?}");
        }
    }

    #[test]
    fn versions_not_in_common_are_refused() {
        for (asked, text) in [
            (json!("1.2"), "unsupported protocol version: 1.2"),
            (json!("1.7"), "unsupported protocol version: 1.7"),
            (
                json!(["1.0", "1.3"]),
                "unsupported protocol version: 1.0 to 1.3",
            ),
            (
                json!(["1.7", "2"]),
                "unsupported protocol version: 1.7 to 2.0",
            ),
        ] {
            let error = Version::negotiate(Some(&asked)).unwrap_err();
            assert_eq!((error.code(), error.to_string().as_str()), (1, text));
        }
        for asked in [
            json!("x"),
            json!(7),
            json!(["1.4"]),
            json!("1.2.3.4"),
            json!(""),
        ] {
            assert_eq!(Version::negotiate(Some(&asked)).unwrap_err().code(), -32602);
        }
    }
}
