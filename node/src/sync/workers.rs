//! The two tasks that wait for the kernel, so that the manager never does: one hands
//! it blocks, one takes headers through check, kernel and store.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, VarInt, block::Header, consensus::deserialize_partial},
};
use tokio::sync::mpsc;

use super::{
    SyncError,
    blocks::ReadyBlock,
    gate::{Gate, Passage},
};
use crate::{
    chain::{BlockVerdict, Chain, ChainError, HeadersVerdict},
    headers::{HeaderError, HeaderStore, HeaderStoreError, MAX_HEADERS, presync::Presync},
    p2p::peer::PeerId,
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
    /// Nothing was stored: their chain has not shown enough work.
    Withheld,
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
    /// The peer's presync, if one is under way.
    pub presync: Option<Box<Presync>>,
}

/// A `headers` message after judgement.
pub(super) struct JudgedHeaders {
    pub peer: PeerId,
    /// Length of the message.
    pub count: usize,
    pub outcome: Result<Intake, SyncError>,
    /// Whether a presync of the peer was under way.
    pub was_presync: bool,
    /// The peer's presync, if it goes on.
    pub presync: Option<Box<Presync>>,
}

/// Takes in headers, message by message, until either channel closes.
pub(super) async fn take_in_headers(
    gate: Gate,
    mut messages: mpsc::Receiver<HeadersMessage>,
    judged: mpsc::Sender<JudgedHeaders>,
) {
    let gate = Arc::new(gate);
    while let Some(message) = messages.recv().await {
        let (peer, count) = (message.peer, message.headers.len());
        let was_presync = message.presync.is_some();
        let (outcome, presync) = pass_and_take_in(&gate, message).await;
        let outcome = JudgedHeaders {
            peer,
            count,
            outcome,
            was_presync,
            presync,
        };
        if judged.send(outcome).await.is_err() {
            return;
        }
    }
}

/// What became of a message, and of its peer's presync.
async fn pass_and_take_in(
    gate: &Arc<Gate>,
    message: HeadersMessage,
) -> (Result<Intake, SyncError>, Option<Box<Presync>>) {
    let passing = {
        let gate = Arc::clone(gate);
        // It hashes up to 2000 headers.
        tokio::task::spawn_blocking(move || gate.pass(message.headers, message.presync))
    };
    match passing.await {
        Ok(Passage::TakeIn { headers, presync }) => {
            let outcome = take_in_long(&gate.chain, &gate.store, headers).await;
            (outcome, presync)
        }
        Ok(Passage::Withheld { presync }) => (Ok(Intake::Withheld), presync),
        Ok(Passage::Unconnected) => (Ok(Intake::Unconnected), None),
        Ok(Passage::Refused { reason }) => (Ok(Intake::Refused { reason }), None),
        Err(_) => (Err(SyncError::TaskFailed), None),
    }
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
