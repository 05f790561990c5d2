//! Which scripts of a wallet's keychains are used, in one view of index and mempool.
//!
//! derive -> one look at all scripts -> if a keychain may go on behind them: derive more, look
//! again
//!
//! # Correctness
//! The look that counts sees all scripts of all keychains at the same block. A keychain ends
//! with the first `gap_limit` unused scripts in a row; what lies behind is not looked for, as in
//! wallets.
//!
//! # Limits
//! [`MOST_SCRIPTS`] and [`MOST_KEYS`] derivations in a request, and its deadline.

use std::collections::HashMap;

use pulse_indexer::query::model::ScriptStats;
use pulse_primitives::{
    bitcoin::hashes::Hash,
    mempool::{MempoolTx, MempoolView, ScriptHash, ScriptMempoolTotals, ScriptOutputs},
};

use pulse_request::RequestError;

use super::keychain::{Budget, Keychain};
use crate::{
    rest::{address::MEMPOOL_TXS, error::RestError, snapshot::Snapshot, unconfirmed::with_mempool},
    state::ApiState,
};

/// Scripts that a request may have derived.
pub(super) const MOST_SCRIPTS: usize = 10_000;
/// Derivations of public keys that these may take; 10,000 take half a second.
const MOST_KEYS: usize = 60_000;

/// What is to be known of used scripts besides their totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Totals,
    Outputs,
    Txs,
}

/// What the mempool says of a used script.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) totals: ScriptMempoolTotals,
    pub(super) outputs: ScriptOutputs,
    pub(super) txs: Vec<MempoolTx>,
}

/// A script that was ever used.
pub(super) struct Used {
    /// Place of its keychain.
    pub(super) keychain: usize,
    /// Its place there.
    pub(super) index: u32,
    pub(super) confirmed: ScriptStats,
}

/// What was found.
pub(super) struct Scan<'a> {
    pub(super) at: Snapshot<'a>,
    /// By keychain and index.
    pub(super) used: Vec<Used>,
    /// Of each keychain, the first index behind the last that is used.
    pub(super) next: Vec<u32>,
    /// By hash.
    pub(super) waiting: HashMap<ScriptHash, Waiting>,
}

/// Scans `keychains`. `go_on` is asked now and then.
///
/// # Errors
/// [`RequestError::TooManyDerivations`], that of `go_on`, or a failed read.
pub(super) fn scan<'a>(
    state: &'a ApiState,
    keychains: &mut [Keychain],
    gap_limit: usize,
    wanted: Wanted,
    go_on: impl Fn() -> Result<(), RestError>,
) -> Result<Scan<'a>, RestError> {
    let mut budget = Budget {
        scripts: MOST_SCRIPTS,
        keys: MOST_KEYS,
    };
    let mut counts = vec![gap_limit; keychains.len()];
    loop {
        for (keychain, count) in keychains.iter_mut().zip(&counts) {
            keychain.derive(*count, &mut budget, &go_on)?;
        }
        let (at, waiting) = with_mempool(state, |mempool| copy(mempool, keychains, wanted))?;
        let waiting = waiting.unwrap_or_default();
        let mut found = Scan {
            at,
            used: Vec::new(),
            next: Vec::new(),
            waiting,
        };
        let mut is_complete = true;
        for (place, keychain) in keychains.iter().enumerate() {
            let end = found.look_at(place, keychain, gap_limit, &go_on)?;
            let derived = keychain.scripts.len();
            if keychain.is_ranged() && end > derived {
                is_complete = false;
                // More than is needed, so that a long one takes few looks.
                let room = derived + budget.scripts;
                counts[place] = end.max((2 * derived).min(room));
            }
        }
        if is_complete {
            return Ok(found);
        }
    }
}

/// What the mempool has of the scripts.
fn copy(
    mempool: &dyn MempoolView,
    keychains: &[Keychain],
    wanted: Wanted,
) -> HashMap<ScriptHash, Waiting> {
    let scripts = keychains.iter().flat_map(|keychain| &keychain.scripts);
    let hashes = scripts.map(|derived| ScriptHash::from_byte_array(derived.hash));
    let mut copied = HashMap::new();
    for hash in hashes {
        if copied.contains_key(&hash) {
            continue;
        }
        let totals = mempool.script_totals(&hash);
        if totals == ScriptMempoolTotals::default() {
            continue;
        }
        let mut waiting = Waiting {
            totals,
            ..Waiting::default()
        };
        match wanted {
            Wanted::Totals => {}
            Wanted::Outputs => waiting.outputs = mempool.script_outputs(&hash),
            Wanted::Txs => waiting.txs = mempool.script_txs(&hash, MEMPOOL_TXS),
        }
        copied.insert(hash, waiting);
    }
    copied
}

impl Scan<'_> {
    /// Notes which scripts of a keychain are used, up to its end; returns how many have to be
    /// derived to know that.
    fn look_at(
        &mut self,
        place: usize,
        keychain: &Keychain,
        gap_limit: usize,
        go_on: &impl Fn() -> Result<(), RestError>,
    ) -> Result<usize, RestError> {
        let (mut next, mut index) = (0, 0);
        for derived in &keychain.scripts {
            if index >= next + gap_limit {
                break;
            }
            go_on()?;
            let confirmed = self.at.view.script_stats(&derived.hash)?;
            let hash = ScriptHash::from_byte_array(derived.hash);
            let is_used = confirmed.tx_count > 0 || self.waiting.contains_key(&hash);
            index += 1;
            if is_used {
                next = index;
                self.used.push(Used {
                    keychain: place,
                    index: u32::try_from(index - 1)
                        .map_err(|_| RequestError::TooManyDerivations)?,
                    confirmed,
                });
            }
        }
        self.next
            .push(u32::try_from(next).map_err(|_| RequestError::TooManyDerivations)?);
        Ok(next + gap_limit)
    }
}
