//! The JSON of scanned wallets.

use std::collections::HashSet;

use pulse_primitives::{
    Height,
    bitcoin::{Address, BlockHash, Network, hashes::Hash, hex::DisplayHex},
    mempool::ScriptHash,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    keychain::{Derived, Keychain},
    scan::{Scan, Used},
};
use crate::rest::{
    error::RestError,
    model::{TotalsJson, UtxoJson},
};

/// What is said of a wallet whatever is asked.
#[derive(Debug, Serialize)]
pub(super) struct HeadJson {
    /// Of the block that all of the answer is drawn from.
    height: Height,
    hash: BlockHash,
    balance: BalanceJson,
    keychains: Vec<KeychainJson>,
}

/// Satoshis.
#[derive(Debug, Default, Serialize)]
struct BalanceJson {
    confirmed: u64,
    /// What the mempool adds to it; negative if it spends more.
    unconfirmed: i64,
}

#[derive(Debug, Serialize)]
struct KeychainJson {
    /// Place of its descriptor in the request.
    descriptor: usize,
    branch: usize,
    /// The first index behind the last that is used; `null` if there is but one script.
    next_index: Option<u32>,
    used: Vec<UsedJson>,
}

#[derive(Debug, Serialize)]
struct UsedJson {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    scripthash: String,
    chain_stats: TotalsJson,
    mempool_stats: TotalsJson,
}

impl HeadJson {
    /// # Errors
    /// [`RestError::NotSynced`] if nothing is indexed.
    pub(super) fn new(found: &Scan<'_>, keychains: &[Keychain]) -> Result<Self, RestError> {
        let tip = found.at.tip()?;
        let mut balance = BalanceJson::default();
        // A script of two keychains counts once.
        let mut counted = HashSet::new();
        let mut keychains_json: Vec<_> = (keychains.iter().zip(&found.next))
            .map(|(keychain, next)| KeychainJson {
                descriptor: keychain.descriptor,
                branch: keychain.branch,
                next_index: keychain.is_ranged().then_some(*next),
                used: Vec::new(),
            })
            .collect();
        for used in &found.used {
            let derived = &keychains[used.keychain].scripts[used.index as usize];
            let waiting = found
                .waiting
                .get(&ScriptHash::from_byte_array(derived.hash));
            let waiting = waiting.map(|waiting| waiting.totals).unwrap_or_default();
            let confirmed = &used.confirmed;
            if counted.insert(derived.hash) {
                balance.confirmed +=
                    (confirmed.funded_txo_sum).saturating_sub(confirmed.spent_txo_sum);
                balance.unconfirmed += i64::try_from(waiting.funded_sat).unwrap_or(i64::MAX)
                    - i64::try_from(waiting.spent_sat).unwrap_or(i64::MAX);
            }
            keychains_json[used.keychain].used.push(UsedJson {
                index: used.index,
                address: address(derived, found.at.network()),
                scripthash: derived.hash.to_lower_hex_string(),
                chain_stats: used.confirmed.into(),
                mempool_stats: waiting.into(),
            });
        }
        Ok(Self {
            height: tip.height,
            hash: tip.hash,
            balance,
            keychains: keychains_json,
        })
    }
}

fn address(derived: &Derived, network: Network) -> Option<String> {
    let address = Address::from_script(&derived.script, network);
    address.ok().map(|address| address.to_string())
}

/// An unspent output with its place in the wallet.
#[derive(Debug, Serialize)]
pub(super) struct OwnedUtxoJson<'a> {
    #[serde(flatten)]
    utxo: UtxoJson<'a>,
    /// Place in the list of keychains.
    keychain: usize,
    index: u32,
}

impl<'a> OwnedUtxoJson<'a> {
    pub(super) fn new(utxo: UtxoJson<'a>, used: &Used) -> Self {
        Self {
            utxo,
            keychain: used.keychain,
            index: used.index,
        }
    }
}

/// Schema of [`HeadJson`].
pub(super) fn schema() -> Value {
    let count = json!({"type": "integer", "minimum": 0});
    let hash = json!({"type": "string", "pattern": "^[0-9a-f]{64}$"});
    let totals = json!({"type": "object"});
    let used = json!({
        "type": "object",
        "required": ["index", "scripthash", "chain_stats", "mempool_stats"],
        "properties": {
            "index": count, "address": {"type": "string"}, "scripthash": hash,
            "chain_stats": totals, "mempool_stats": totals,
        },
    });
    let keychain = json!({
        "type": "object",
        "required": ["descriptor", "branch", "next_index", "used"],
        "properties": {
            "descriptor": count, "branch": count,
            "next_index": {"type": ["integer", "null"], "minimum": 0},
            "used": {"type": "array", "items": used},
        },
    });
    json!({
        "type": "object",
        "required": ["height", "hash", "balance", "keychains"],
        "properties": {
            "height": count,
            "hash": hash,
            "balance": {
                "type": "object",
                "required": ["confirmed", "unconfirmed"],
                "properties": {"confirmed": count, "unconfirmed": {"type": "integer"}},
            },
            "keychains": {"type": "array", "items": keychain},
        },
    })
}
