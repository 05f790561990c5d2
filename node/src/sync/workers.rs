//! The two tasks that wait for the kernel, so that the manager never does: one hands
//! it blocks, one takes headers through check, kernel and store.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pulse_primitives::{
    Height,
    bitcoin::{
        BlockHash, VarInt, bip152::HeaderAndShortIds, block::Header, consensus::deserialize_partial,
    },
};
use tokio::sync::mpsc;

use super::{
    SyncError,
    assembly::Assembly,
    blocks::ReadyBlock,
    gate::{Gate, MaybePresync, Passage},
};
use crate::{
    chain::{BlockVerdict, Chain, ChainError, HeadersVerdict},
    headers::{HeaderError, HeaderStore, HeaderStoreError, MAX_HEADERS},
    p2p::{compact::CompactSource, peer::PeerId},
};

/// A block that the kernel is done with.
pub(super) struct Judged {
    pub hash: BlockHash,
    pub height: Height,
    pub from: PeerId,
    pub verdict: Result<BlockVerdict, ChainError>,
    /// Transactions that the block claims to have.
    pub txs: u64,
    /// Time that the kernel took.
    pub elapsed: Duration,
}

/// Hands blocks to the kernel one by one until either channel closes.
pub(super) async fn feed_blocks(
    chain: Chain,
    mut blocks: mpsc::Receiver<ReadyBlock>,
    judged: mpsc::Sender<Judged>,
) {
    while let Some(block) = blocks.recv().await {
        let txs = tx_count(&block.bytes);
        let start = Instant::now();
        let verdict = chain.submit_block(block.bytes).await;
        let outcome = Judged {
            hash: block.hash,
            height: block.height,
            from: block.from,
            verdict,
            txs,
            elapsed: start.elapsed(),
        };
        if judged.send(outcome).await.is_err() {
            return;
        }
    }
}

/// The count that follows the header of a serialised block. Only for statistics.
fn tx_count(block: &[u8]) -> u64 {
    block
        .get(80..)
        .and_then(|rest| deserialize_partial::<VarInt>(rest).ok())
        .map_or(0, |(count, _)| count.0)
}

/// What became of a run of headers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Intake {
    /// Nothing was stored: their chain has not shown enough work (yet).
    Withheld,
    /// They came beside a presync and have nothing to do with it.
    Ignored,
    /// All are good (or only too new), and stored.
    Accepted {
        /// The last good header of the run, if there is one.
        last: Option<BlockHash>,
        /// How many were not known before.
        new: usize,
    },
    /// The first one's parent is not known.
    Unconnected,
    /// They break a rule.
    Refused {
        /// Which one, for logs.
        reason: String,
    },
}

/// A `headers` message before judgement.
pub(super) struct HeadersMessage {
    pub peer: PeerId,
    pub headers: Vec<Header>,
    /// Whether the only header came with a compact block.
    pub is_compact: bool,
    /// The rest of that, if it is of use.
    pub compact: Option<Box<HeaderAndShortIds>>,
    /// The peer's presync, if one is under way.
    pub presync: MaybePresync,
}

/// A `headers` message after judgement.
pub(super) struct JudgedHeaders {
    pub peer: PeerId,
    /// Length of the message.
    pub count: usize,
    pub outcome: Result<Intake, SyncError>,
    /// The header that came with a compact block.
    pub compact_header: Option<Header>,
    /// Whether a presync of the peer was under way.
    pub was_presync: bool,
    /// The peer's presync, if it goes on.
    pub presync: MaybePresync,
    /// What could be made of the compact block.
    pub assembly: Option<Assembly>,
}

/// Takes in headers, message by message, until either channel closes. Compact blocks are
/// put together from `source` on the way.
pub(super) async fn take_in_headers(
    gate: Gate,
    source: Arc<dyn CompactSource>,
    mut messages: mpsc::Receiver<HeadersMessage>,
    judged: mpsc::Sender<JudgedHeaders>,
) {
    let gate = Arc::new(gate);
    while let Some(message) = messages.recv().await {
        let HeadersMessage {
            peer,
            headers,
            is_compact,
            compact,
            presync,
        } = message;
        let compact_header = headers.first().filter(|_| is_compact).copied();
        let (count, was_presync) = (headers.len(), presync.is_some());
        let (outcome, presync) = pass_and_take_in(&gate, headers, presync).await;
        let assembly = match (&outcome, compact) {
            (Ok(Intake::Accepted { last: Some(_), .. }), Some(compact)) => {
                let source = Arc::clone(&source);
                // It walks the mempool and hashes a block.
                let assemble = move || Assembly::of(*compact, source.as_ref());
                tokio::task::spawn_blocking(assemble).await.ok()
            }
            _ => None,
        };
        let outcome = JudgedHeaders {
            peer,
            count,
            outcome,
            compact_header,
            was_presync,
            presync,
            assembly,
        };
        if judged.send(outcome).await.is_err() {
            return;
        }
    }
}

/// What became of headers, and of their peer's presync.
async fn pass_and_take_in(
    gate: &Arc<Gate>,
    headers: Vec<Header>,
    presync: MaybePresync,
) -> (Result<Intake, SyncError>, MaybePresync) {
    let passing = {
        let gate = Arc::clone(gate);
        // It hashes up to 2000 headers.
        tokio::task::spawn_blocking(move || gate.pass(headers, presync))
    };
    let Ok((passage, presync)) = passing.await else {
        return (Err(SyncError::TaskFailed), None);
    };
    let outcome = match passage {
        Passage::TakeIn(headers) => take_in_long(&gate.chain, &gate.store, headers).await,
        Passage::Withheld => Ok(Intake::Withheld),
        Passage::Ignored => Ok(Intake::Ignored),
        Passage::Unconnected => Ok(Intake::Unconnected),
        Passage::Refused { reason } => Ok(Intake::Refused { reason }),
    };
    (outcome, presync)
}

/// Takes in a run of headers of any length.
async fn take_in_long(
    chain: &Chain,
    store: &Arc<HeaderStore>,
    headers: Vec<Header>,
) -> Result<Intake, SyncError> {
    if headers.len() <= MAX_HEADERS {
        return take_in(chain, store, headers).await;
    }
    let mut all_new = 0;
    let mut all_last = None;
    for run in headers.chunks(MAX_HEADERS) {
        match take_in(chain, store, run.to_vec()).await? {
            Intake::Accepted { last, new } => {
                all_new += new;
                all_last = last.or(all_last);
            }
            other => return Ok(other),
        }
    }
    Ok(Intake::Accepted {
        last: all_last,
        new: all_new,
    })
}

/// Checks headers, lets the kernel judge them, and stores what it accepts.
pub(super) async fn take_in(
    chain: &Chain,
    store: &Arc<HeaderStore>,
    mut headers: Vec<Header>,
) -> Result<Intake, SyncError> {
    let mut hashes = match store.check(&headers) {
        Ok(hashes) => hashes,
        Err(HeaderError::Unconnected { .. }) => return Ok(Intake::Unconnected),
        Err(err) => {
            return Ok(Intake::Refused {
                reason: err.to_string(),
            });
        }
    };
    let known = hashes
        .iter()
        .take_while(|hash| store.contains(hash))
        .count();
    if known == hashes.len() {
        let last = hashes.last().copied();
        return Ok(Intake::Accepted { last, new: 0 });
    }
    let unknown = headers.split_off(known);
    let mut refused = None;
    let good = match chain.submit_headers(unknown.clone()).await? {
        HeadersVerdict::Accepted => unknown.len(),
        HeadersVerdict::Invalid {
            index,
            reason,
            too_new,
        } => {
            refused = (!too_new).then_some(reason);
            index.min(unknown.len())
        }
    };
    hashes.truncate(known + good);
    let new = {
        let store = Arc::clone(store);
        let insert = move || store.insert(&unknown[..good]);
        // It waits for the disk.
        match tokio::task::spawn_blocking(insert).await {
            Ok(Ok(new)) => new,
            // An ancestor was found invalid meanwhile.
            Ok(Err(HeaderStoreError::Refused(err))) => {
                return Ok(Intake::Refused {
                    reason: err.to_string(),
                });
            }
            Ok(Err(err)) => return Err(err.into()),
            Err(_) => return Err(SyncError::TaskFailed),
        }
    };
    Ok(match refused {
        Some(reason) => Intake::Refused { reason },
        None => Intake::Accepted {
            last: hashes.last().copied(),
            new,
        },
    })
}
