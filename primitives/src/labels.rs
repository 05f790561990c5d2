//! The operator's names for addresses and other things, from the metadata to the API, in the
//! form of BIP 329. No implementations.

use std::fmt;

use bitcoin::{Address, OutPoint, Txid};
use serde::{Deserialize, Serialize};

/// Most labels that are kept.
pub const MAX_LABELS: usize = 100_000;
/// Longest label and longest origin, in bytes.
pub const MAX_LABEL_LEN: usize = 1_000;
/// Longest reference, in bytes: an extended public key has 111.
const MAX_REFERENCE_LEN: usize = 200;

/// What a label is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelKind {
    /// An address.
    Addr,
    /// An input, as `TXID:INDEX`.
    Input,
    /// An output, as `TXID:INDEX`.
    Output,
    /// A public key, as hex.
    Pubkey,
    /// A transaction, by its id.
    Tx,
    /// An extended public key.
    Xpub,
}

impl LabelKind {
    /// All kinds, in the order of their names.
    pub const ALL: [Self; 6] = [
        Self::Addr,
        Self::Input,
        Self::Output,
        Self::Pubkey,
        Self::Tx,
        Self::Xpub,
    ];

    /// Its name in BIP 329; never changes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Addr => "addr",
            Self::Input => "input",
            Self::Output => "output",
            Self::Pubkey => "pubkey",
            Self::Tx => "tx",
            Self::Xpub => "xpub",
        }
    }

    /// The kind of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for LabelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A label as a line of BIP 329. Keys that this program does not know are left out when one
/// is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: LabelKind,
    /// Which one.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The name.
    #[serde(default)]
    pub label: String,
    /// The wallet that it is of, as an abbreviated descriptor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Whether an output may be spent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spendable: Option<bool>,
}

impl Label {
    /// Whether its reference is of its kind, and nothing is too long.
    ///
    /// # Errors
    /// [`LabelError::Invalid`].
    pub fn check(&self) -> Result<(), LabelError> {
        let wrong = |what| Err(LabelError::Invalid { what });
        if self.label.len() > MAX_LABEL_LEN {
            return wrong("the label is too long");
        }
        if self
            .origin
            .as_ref()
            .is_some_and(|origin| origin.len() > MAX_LABEL_LEN)
        {
            return wrong("the origin is too long");
        }
        let reference = self.reference.as_str();
        let is_word = reference.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let fits = match self.kind {
            LabelKind::Tx => reference.parse::<Txid>().is_ok(),
            LabelKind::Addr => reference.parse::<Address<_>>().is_ok(),
            LabelKind::Input | LabelKind::Output => reference.parse::<OutPoint>().is_ok(),
            LabelKind::Pubkey | LabelKind::Xpub => is_word && !reference.is_empty(),
        };
        match fits && reference.len() <= MAX_REFERENCE_LEN {
            true => Ok(()),
            false => wrong("the reference is not of its type"),
        }
    }
}

/// Why labels could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    /// A label that cannot be.
    #[error("{what}")]
    Invalid {
        /// What is wrong.
        what: &'static str,
    },
    /// There would be more than [`MAX_LABELS`].
    #[error("there are {MAX_LABELS} labels already")]
    TooMany,
    /// The store failed.
    #[error("the labels cannot be read or written")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Keeps labels. Calls may touch the disk: not for async code.
pub trait LabelStore: Send + Sync + 'static {
    /// One of them.
    ///
    /// # Errors
    /// [`LabelError::Store`].
    fn label(&self, kind: LabelKind, reference: &str) -> Result<Option<Label>, LabelError>;

    /// Sets these, all or none; they are on the disk when this returns.
    ///
    /// # Errors
    /// [`LabelError`].
    fn set_labels(&self, labels: &[Label]) -> Result<(), LabelError>;

    /// Forgets one; `false` if it is not there.
    ///
    /// # Errors
    /// [`LabelError::Store`].
    fn remove_label(&self, kind: LabelKind, reference: &str) -> Result<bool, LabelError>;

    /// Up to `limit` of them in the order of kind and reference, after one.
    ///
    /// # Errors
    /// [`LabelError::Store`].
    fn labels(
        &self,
        after: Option<(LabelKind, &str)>,
        limit: usize,
    ) -> Result<Vec<Label>, LabelError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(kind: LabelKind, reference: &str) -> Label {
        Label {
            kind,
            reference: reference.to_owned(),
            label: "x".to_owned(),
            origin: None,
            spendable: None,
        }
    }

    #[test]
    fn references_are_of_their_kind() {
        let txid = "f91d0a8a78462bc59398f2c5d7a84fcff491c26ba54c4833478b202796c8aafd";
        let (output, address) = (
            format!("{txid}:1"),
            "bc1q34aq5drpuwy3wgl9lhup9892qp6svr8ldzyy7c",
        );
        for (kind, good, bad) in [
            (LabelKind::Tx, txid, "f91d"),
            (
                LabelKind::Addr,
                address,
                "bc1q34aq5drpuwy3wgl9lhup9892qp6svr8ldzyy7d",
            ),
            (LabelKind::Input, &output, txid),
            (LabelKind::Output, &output, "1"),
            (
                LabelKind::Pubkey,
                "0283409659355b6d1cc3c32decd5d561abaac86c37a353b52895a5e6c196d6f448",
                "02 83",
            ),
            (
                LabelKind::Xpub,
                "xpub661MyMwAqRbcFtXgS5sYJABqqG9YLmC4Q1Rdap9gSE8Nq",
                "",
            ),
        ] {
            assert!(label(kind, good).check().is_ok(), "{good}");
            assert!(label(kind, bad).check().is_err(), "{bad}");
            assert_eq!(LabelKind::from_name(kind.name()), Some(kind));
        }
        let long = "a".repeat(MAX_REFERENCE_LEN + 1);
        assert!(label(LabelKind::Xpub, &long).check().is_err());
        let long = Label {
            label: "a".repeat(MAX_LABEL_LEN + 1),
            ..label(LabelKind::Tx, txid)
        };
        assert!(long.check().is_err());
    }
}
