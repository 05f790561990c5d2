//! States of scripts, outpoints and transactions, as clients are told them.
//!
//! # Correctness
//! A state is drawn from the index and the mempool of the same block, and holds everything
//! that it is about: two states of a key that look the same are the same. Its fingerprint
//! is a hash of it and nothing else, so that it can be compared with one of another
//! connection or another process. The history of a script is in it by its newest confirmed
//! transaction with the hash of its block, which commits to everything before it, and by
//! its unconfirmed transactions.
//!
//! # Limits
//! A script with more than [`HASHED_TXS`] unconfirmed transactions has a new state with
//! every change of the mempool.

use std::sync::Arc;

use pulse_indexer::query::View;
use pulse_primitives::{
    bitcoin::{
        OutPoint, Txid,
        hashes::{Hash, sha256},
        hex::DisplayHex,
    },
    mempool::{MempoolTx, MempoolView, RemovedTx, ScriptHash, ScriptMempoolTotals},
    tip::ChainTip,
};
use serde_json::{Value, json};

use crate::{
    rest::{
        error::RestError,
        parts::{self, Spent},
    },
    state::ApiState,
};

/// Unconfirmed transactions of a script that are listed, oldest arrival first.
const LISTED_TXS: usize = 50;
/// Those that its fingerprint is made of.
const HASHED_TXS: usize = 1_000;
/// Bytes of a fingerprint.
const FINGERPRINT_BYTES: usize = 16;

/// What a client can subscribe to by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// A script, named by its address or by its hash.
    Script(ScriptHash),
    /// An output: whether it is there, and what spends it.
    Outpoint(OutPoint),
    /// A transaction.
    Tx(Txid),
}

/// A state of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct State {
    /// The tip at which it was drawn.
    pub(super) tip: ChainTip,
    /// Where a transaction is, in a word; nothing for other keys.
    pub(super) word: Option<&'static str>,
    /// Keys of the message, `fingerprint` among them.
    pub(super) body: Value,
    pub(super) fingerprint: [u8; FINGERPRINT_BYTES],
}

impl State {
    fn new(tip: ChainTip, word: Option<&'static str>, mut body: Value, further: &[u8]) -> Self {
        let mut bytes = body.to_string().into_bytes();
        bytes.extend_from_slice(further);
        let hash = sha256::Hash::hash(&bytes).to_byte_array();
        let mut fingerprint = [0; FINGERPRINT_BYTES];
        fingerprint.copy_from_slice(&hash[..FINGERPRINT_BYTES]);
        body["fingerprint"] = fingerprint.to_lower_hex_string().into();
        Self {
            tip,
            word,
            body,
            fingerprint,
        }
    }
}

/// State of each of `keys`, all of one moment.
///
/// # Errors
/// That of the index and mempool as a whole, or of each key.
#[allow(
    clippy::type_complexity,
    reason = "a name would hide more than it tells"
)]
pub(super) fn states(
    api: &ApiState,
    keys: &[Key],
) -> Result<Vec<Result<Arc<State>, RestError>>, RestError> {
    let (view, tip, unconfirmed) = parts::with_mempool(api, |mempool| {
        let copies = keys.iter().map(|key| Unconfirmed::of(mempool, key));
        copies.collect::<Vec<_>>()
    })?;
    let mut unconfirmed = unconfirmed.into_iter().flatten();
    let states = keys.iter().map(|key| {
        let unconfirmed = unconfirmed.next().unwrap_or_else(|| Unconfirmed::none(key));
        unconfirmed.state(&view, tip).map(Arc::new)
    });
    Ok(states.collect())
}

/// What the mempool has of a key.
enum Unconfirmed {
    Script {
        script: ScriptHash,
        totals: ScriptMempoolTotals,
        txids: Vec<Txid>,
        /// Number of the mempool's state, if there are more transactions.
        sequence: Option<u64>,
    },
    Outpoint {
        outpoint: OutPoint,
        funding: TxIn,
        spender: Option<(Txid, u32)>,
    },
    Tx(Txid, TxIn),
}

/// What the mempool has of a transaction.
#[derive(Default)]
struct TxIn {
    entry: Option<MempoolTx>,
    removed: Option<RemovedTx>,
}

impl TxIn {
    fn of(mempool: &dyn MempoolView, txid: &Txid) -> Self {
        Self {
            entry: mempool.tx(txid),
            removed: mempool.removed(txid),
        }
    }

    /// Where the transaction is, in a word and in JSON.
    fn place(&self, view: &View<'_>, txid: &Txid) -> Result<(&'static str, Value), RestError> {
        let block = view.tx_block(txid)?;
        let mut body = json!({"status": parts::status(block)});
        let word = match (block, &self.entry, &self.removed) {
            (Some(_), ..) => "confirmed",
            (None, Some(entry), _) => {
                body["fee"] = entry.fee.to_sat().into();
                body["vsize"] = entry.vsize.into();
                "mempool"
            }
            (None, None, Some(removed)) => {
                body["removal"] = parts::removed(*txid, removed);
                "removed"
            }
            (None, None, None) => "unknown",
        };
        body["state"] = word.into();
        Ok((word, body))
    }
}

impl Unconfirmed {
    fn of(mempool: &dyn MempoolView, key: &Key) -> Self {
        match *key {
            Key::Script(script) => {
                let txs = mempool.script_txs(&script, HASHED_TXS + 1);
                Self::Script {
                    script,
                    totals: mempool.script_totals(&script),
                    sequence: (txs.len() > HASHED_TXS).then(|| mempool.sequence()),
                    txids: txs.iter().map(|entry| entry.txid).collect(),
                }
            }
            Key::Outpoint(outpoint) => Self::Outpoint {
                outpoint,
                funding: TxIn::of(mempool, &outpoint.txid),
                spender: mempool.spender(&outpoint),
            },
            Key::Tx(txid) => Self::Tx(txid, TxIn::of(mempool, &txid)),
        }
    }

    /// That of a node without a mempool.
    fn none(key: &Key) -> Self {
        match *key {
            Key::Script(script) => Self::Script {
                script,
                totals: ScriptMempoolTotals::default(),
                txids: Vec::new(),
                sequence: None,
            },
            Key::Outpoint(outpoint) => Self::Outpoint {
                outpoint,
                funding: TxIn::default(),
                spender: None,
            },
            Key::Tx(txid) => Self::Tx(txid, TxIn::default()),
        }
    }

    /// The state, with what is confirmed.
    fn state(&self, view: &View<'_>, tip: ChainTip) -> Result<State, RestError> {
        match self {
            Self::Script {
                script,
                totals,
                txids,
                sequence,
            } => {
                let hash = script.as_byte_array();
                let stats = view.script_stats(hash)?;
                let newest = match stats.tx_count {
                    0 => None,
                    _ => view.script_txs(hash, None, 1)?.pop(),
                };
                let (chain, mempool) = parts::totals(stats, *totals);
                let body = json!({
                    "chain_stats": chain,
                    "mempool_stats": mempool,
                    "last_confirmed": newest.map(|tx| json!({
                        "txid": tx.txid,
                        "status": parts::status(Some(tx.block)),
                    })),
                    "unconfirmed": txids[..txids.len().min(LISTED_TXS)],
                });
                let mut further: Vec<u8> = (txids.iter().skip(LISTED_TXS))
                    .flat_map(|txid| txid.to_byte_array())
                    .collect();
                if let Some(sequence) = sequence {
                    further.extend_from_slice(&sequence.to_be_bytes());
                }
                Ok(State::new(tip, None, body, &further))
            }
            Self::Outpoint {
                outpoint,
                funding,
                spender,
            } => {
                let (_, funding) = funding.place(view, &outpoint.txid)?;
                let spent = match (view.spender(outpoint)?, *spender) {
                    (Some(spender), _) => Spent::Confirmed(spender),
                    (None, Some((txid, vin))) => Spent::Unconfirmed { txid, vin },
                    (None, None) => Spent::No,
                };
                let body = json!({"funding": funding, "outspend": parts::outspend(spent)});
                Ok(State::new(tip, None, body, &[]))
            }
            Self::Tx(txid, unconfirmed) => {
                let (word, body) = unconfirmed.place(view, txid)?;
                Ok(State::new(tip, Some(word), body, &[]))
            }
        }
    }
}
