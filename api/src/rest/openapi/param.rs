//! Parameters of paths, by the names that they have in the templates.

use pulse_request::RequestError;
use serde_json::{Value, json};

use super::error::ErrorText;

/// A parameter of a path.
pub(crate) struct Param {
    /// For people.
    pub(crate) description: &'static str,
    /// What it looks like.
    pub(crate) schema: Value,
    /// How it is refused.
    pub(crate) errors: Vec<ErrorText>,
}

/// 64 hex digits of either case.
pub(super) fn hex64() -> Value {
    json!({"type": "string", "pattern": "^[0-9a-fA-F]{64}$"})
}

fn number(most: u64) -> Value {
    json!({"type": "integer", "minimum": 0, "maximum": most})
}

impl Param {
    /// The parameter of this name in a template.
    ///
    /// # Panics
    /// If it is not known here; a test asks for all.
    pub(super) fn of(template: &str, name: &str) -> Self {
        let script = template.starts_with("/scripthash/");
        let (description, schema, errors) = match name {
            "hash" if script => (
                "SHA-256 of the script, not reversed (Electrum's is)",
                hex64(),
                vec![RequestError::InvalidScripthash.into()],
            ),
            "hash" => (
                "Hash of the block",
                hex64(),
                vec![RequestError::InvalidHex.into()],
            ),
            "txid" => (
                "Id of the transaction",
                hex64(),
                vec![RequestError::InvalidHex.into()],
            ),
            "last_seen_txid" => (
                "The transaction after which the list begins; what does not parse is ignored",
                hex64(),
                vec![],
            ),
            "last_txid" => (
                "The transaction after which the list begins; what does not parse is ignored",
                hex64(),
                vec![],
            ),
            "height" => (
                "Height of a block",
                number(u64::MAX),
                vec![RequestError::InvalidNumber.into()],
            ),
            "index" => (
                "Place in the block, from 0",
                number(u64::MAX),
                vec![RequestError::InvalidNumber.into()],
            ),
            "vout" => (
                "Number of the output",
                number(u32::MAX.into()),
                vec![RequestError::InvalidNumber.into()],
            ),
            "start_height" => (
                "Height of the first block; what is no number is ignored",
                number(u64::MAX),
                vec![],
            ),
            "start_index" => (
                "Place of the first transaction, a multiple of 25; what is no number is 0",
                number(u32::MAX.into()),
                vec![],
            ),
            "address" => (
                "An address of the network",
                json!({"type": "string", "minLength": 1}),
                vec![ErrorText::address(), RequestError::WrongNetwork.into()],
            ),
            _ => panic!("{template}: describe {name} with Operation::param"),
        };
        Self {
            description,
            schema,
            errors,
        }
    }
}
