//! What a check of the index found.

use std::fmt;

use pulse_primitives::{Height, bitcoin::Txid, tip::ChainTip};

use super::{CoreStats, UtxoSummary};

/// Differences that a report lists; more are only counted.
const MAX_LISTED: usize = 100;

/// A row that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Column family.
    pub family: &'static str,
    /// Key of the row; empty if the difference is not that of one row.
    pub key: Vec<u8>,
    /// Height of the block that the key names.
    pub height: Option<Height>,
    /// Id of the transaction that the key names.
    pub txid: Option<Txid>,
    /// What is wrong with it.
    pub what: Wrong,
}

/// What is wrong with a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// It is not there; this would be its value.
    Missing(Vec<u8>),
    /// It should not be there; this is its value.
    Extra(Vec<u8>),
    /// It has another value.
    Value {
        /// What is there.
        found: Vec<u8>,
        /// What should be.
        expected: Vec<u8>,
    },
    /// It cannot be read, or does not add up with others.
    Text(String),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.family)?;
        if !self.key.is_empty() {
            write!(f, " {}", hex::encode(&self.key))?;
        }
        if let Some(height) = self.height {
            write!(f, " (block {height}")?;
            if let Some(txid) = self.txid {
                write!(f, ", transaction {txid}")?;
            }
            write!(f, ")")?;
        }
        match &self.what {
            Wrong::Missing(value) => write!(f, ": missing, should be {}", shown(value)),
            Wrong::Extra(value) => write!(f, ": should not be there, is {}", shown(value)),
            Wrong::Value { found, expected } => {
                write!(f, ": is {}, should be {}", shown(found), shown(expected))
            }
            Wrong::Text(text) => write!(f, ": {text}"),
        }
    }
}

/// A value as hex, cut if it is long.
fn shown(value: &[u8]) -> String {
    const MAX_BYTES: usize = 64;
    match value {
        [] => "empty".to_owned(),
        _ if value.len() <= MAX_BYTES => hex::encode(value),
        _ => {
            let start = hex::encode(&value[..MAX_BYTES]);
            format!("{start}... ({} bytes)", value.len())
        }
    }
}

/// What a check of the index found.
#[derive(Debug, Clone)]
pub struct VerifyReport {
    /// First block that was checked.
    pub from: Height,
    /// Newest indexed block.
    pub tip: ChainTip,
    /// Rows that the blocks make.
    pub rows: u64,
    /// The first differences.
    pub listed: Vec<Difference>,
    /// Number of differences; there may be more where `more` says so.
    pub differences: u64,
    /// Whether rows differ that were not looked at one by one.
    pub more: bool,
    /// Block positions that are no longer true, which the node renews by itself.
    pub stale_positions: u64,
    /// What the `utxo` rows add up to, if they can be read.
    pub utxos: Option<UtxoSummary>,
    /// Bitcoin Core's numbers of the unspent outputs at the tip, if they were asked for.
    pub core: Option<CoreStats>,
}

impl VerifyReport {
    pub(super) fn new(from: Height, tip: ChainTip) -> Self {
        Self {
            from,
            tip,
            rows: 0,
            listed: Vec::new(),
            differences: 0,
            more: false,
            stale_positions: 0,
            utxos: None,
            core: None,
        }
    }

    /// Whether the index is what the blocks make it.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.differences == 0 && !self.more
    }

    pub(super) fn add(&mut self, difference: Difference) {
        self.differences += 1;
        if self.listed.len() < MAX_LISTED {
            self.listed.push(difference);
        }
    }

    /// Adds something that is not wrong with one row alone.
    pub(super) fn add_text(&mut self, family: &'static str, text: String) {
        self.add(Difference {
            family,
            key: Vec::new(),
            height: None,
            txid: None,
            what: Wrong::Text(text),
        });
    }
}
