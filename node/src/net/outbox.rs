//! Messages that wait to be written to one peer.
//!
//! ```text
//! Peer::send (never waits)  --+
//!                             +--> queue --> write loop --> socket
//! answers (wait for room)   --+
//! ```
//!
//! # Limits
//! What the node sends on its own account and what the peer asked for have a budget of
//! bytes each, so that a peer that downloads blocks does not look as if it did not
//! read. A message takes from its budget until it is written; one that is larger than
//! the budget takes all of it.

use std::sync::Arc;

use pulse_primitives::bitcoin::p2p::message::NetworkMessage;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Messages of both kinds that may wait.
const MAX_MESSAGES: usize = 4096;
/// Bytes that the node may queue on its own account.
const OWN_BYTES: u32 = 4 << 20;
/// Bytes of answers that may wait. One block at a time, as a rule.
const ANSWER_BYTES: u32 = 1 << 20;
/// What a message costs at least, in bytes.
const BASE_COST: usize = 64;

/// A message to a peer.
#[derive(Debug, Clone)]
pub enum Outgoing {
    /// One that is still to be serialised.
    Message(NetworkMessage),
    /// One whose payload is serialised already, such as a block.
    Raw {
        /// Its command, at most 12 bytes.
        command: &'static str,
        /// Its payload.
        payload: Arc<[u8]>,
    },
}

impl From<NetworkMessage> for Outgoing {
    fn from(message: NetworkMessage) -> Self {
        Self::Message(message)
    }
}

impl Outgoing {
    /// Bytes on the wire, roughly.
    fn cost(&self) -> usize {
        use NetworkMessage as M;
        BASE_COST
            + match self {
                Self::Raw { payload, .. } => payload.len(),
                Self::Message(message) => match message {
                    M::Inv(entries) | M::GetData(entries) | M::NotFound(entries) => {
                        36 * entries.len()
                    }
                    M::Headers(headers) => 81 * headers.len(),
                    M::GetHeaders(wanted) => 32 * wanted.locator_hashes.len(),
                    M::Addr(entries) => 30 * entries.len(),
                    M::AddrV2(entries) => 40 * entries.len(),
                    M::Tx(tx) => tx.total_size(),
                    M::Block(block) => block.total_size(),
                    M::BlockTxn(txs) => txs
                        .transactions
                        .transactions
                        .iter()
                        .map(|tx| tx.total_size())
                        .sum(),
                    M::CmpctBlock(block) => {
                        let block = &block.compact_block;
                        let txs = block.prefilled_txs.iter().map(|tx| tx.tx.total_size());
                        6 * block.short_ids.len() + txs.sum::<usize>()
                    }
                    M::GetBlockTxn(wanted) => 3 * wanted.txs_request.indexes.len(),
                    M::CFilter(filter) => filter.filter.len(),
                    M::CFHeaders(headers) => 32 * headers.filter_hashes.len(),
                    M::CFCheckpt(headers) => 32 * headers.filter_headers.len(),
                    _ => 256,
                },
            }
    }
}

/// A message with its share of a budget, which ends with it.
#[derive(Debug)]
pub struct Queued {
    /// The message.
    pub message: Outgoing,
    _share: OwnedSemaphorePermit,
}

/// The way into the queue.
#[derive(Debug, Clone)]
pub struct Outbox {
    queue: mpsc::Sender<Queued>,
    own: Arc<Semaphore>,
    answers: Arc<Semaphore>,
}

/// An empty queue and the way into it.
#[must_use]
pub fn outbox() -> (Outbox, mpsc::Receiver<Queued>) {
    let (queue, waiting) = mpsc::channel(MAX_MESSAGES);
    let outbox = Outbox {
        queue,
        own: Arc::new(Semaphore::new(OWN_BYTES as usize)),
        answers: Arc::new(Semaphore::new(ANSWER_BYTES as usize)),
    };
    (outbox, waiting)
}

impl Outbox {
    /// Queues a message if there is room; whether there was.
    #[must_use]
    pub fn try_send(&self, message: Outgoing) -> bool {
        let cost = cost(&message, OWN_BYTES);
        Arc::clone(&self.own)
            .try_acquire_many_owned(cost)
            .is_ok_and(|share| {
                let queued = Queued {
                    message,
                    _share: share,
                };
                self.queue.try_send(queued).is_ok()
            })
    }

    /// Queues an answer as soon as there is room; `false` if the connection is gone.
    pub(super) async fn send(&self, message: Outgoing) -> bool {
        let cost = cost(&message, ANSWER_BYTES);
        let Ok(share) = Arc::clone(&self.answers).acquire_many_owned(cost).await else {
            return false;
        };
        let queued = Queued {
            message,
            _share: share,
        };
        self.queue.send(queued).await.is_ok()
    }
}

fn cost(message: &Outgoing, budget: u32) -> u32 {
    u32::try_from(message.cost()).map_or(budget, |cost| cost.min(budget))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn raw(len: usize) -> Outgoing {
        Outgoing::Raw {
            command: "block",
            payload: vec![0; len].into(),
        }
    }

    #[tokio::test]
    async fn what_waits_is_bounded_in_bytes_and_in_messages() {
        let (outbox, mut waiting) = outbox();
        let mut sent = 0;
        while outbox.try_send(raw(1 << 20)) {
            sent += 1;
        }
        assert_eq!(sent, 3);
        drop(waiting.recv().await);
        assert!(outbox.try_send(raw(1 << 20)));

        let (outbox, _waiting) = super::outbox();
        let mut sent = 0;
        while outbox.try_send(NetworkMessage::Verack.into()) {
            sent += 1;
        }
        assert_eq!(sent, MAX_MESSAGES);
    }

    #[tokio::test]
    async fn an_answer_waits_for_room_and_leaves_that_of_other_messages() {
        let (outbox, mut waiting) = outbox();
        assert!(outbox.send(raw(4 << 20)).await);
        assert!(outbox.try_send(NetworkMessage::Verack.into()));
        let mut second = Box::pin(outbox.send(raw(100)));
        let waits = tokio::time::timeout(Duration::from_millis(20), &mut second).await;
        assert!(waits.is_err(), "there was room");
        drop(waiting.recv().await);
        assert!(second.await);
        drop(waiting);
        assert!(!outbox.try_send(NetworkMessage::Verack.into()));
        assert!(!outbox.send(raw(1)).await);
    }
}
