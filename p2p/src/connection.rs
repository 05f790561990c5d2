//! Carries messages of one connection after the handshake.
//!
//! ```text
//! socket -> read loop -> [answers by itself: ping, getheaders, getdata] or event
//! outbox, ping timer -> write loop -> socket
//! ```
//!
//! # Limits
//! The read loop waits when the node does not take its events, so that TCP slows the
//! peer down. The outbox is bounded; a peer that lets it fill up is disconnected.

use std::{sync::atomic::Ordering, time::Duration};

use pulse_primitives::bitcoin::{
    BlockHash,
    p2p::{message::NetworkMessage, message_blockdata::Inventory},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::mpsc,
    time::{MissedTickBehavior, interval_at, timeout},
};

use crate::metrics;
use crate::{
    codec::{CodecError, Message, encode_message, read_message},
    peer::{CloseReason, PeerEvent, PeerEventKind, PeerTask},
};

/// Carries messages until the connection ends. Dropping the future closes it.
pub(super) async fn run(stream: TcpStream, task: PeerTask) -> CloseReason {
    let PeerTask {
        outbox: (answers, outbox),
        ..
    } = task;
    let (reader, writer) = stream.into_split();
    let read = Reader {
        peer: task.peer,
        magic: task.magic,
        inactivity: task.limits.inactivity,
        events: task.events,
        answers,
        received_bytes: task.received_bytes,
    };
    tokio::select! {
        reason = read.run(BufReader::with_capacity(64 * 1024, reader)) => reason,
        reason = write(writer, outbox, task.magic, task.limits.ping_interval, task.limits.inactivity) => reason,
    }
}

struct Reader {
    peer: crate::peer::PeerId,
    magic: [u8; 4],
    inactivity: Duration,
    events: mpsc::Sender<PeerEvent>,
    answers: mpsc::Sender<NetworkMessage>,
    received_bytes: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl Reader {
    async fn run(self, mut reader: impl AsyncRead + Unpin) -> CloseReason {
        loop {
            let read = timeout(self.inactivity, read_message(&mut reader, self.magic)).await;
            let (message, len) = match read {
                Ok(Ok(read)) => read,
                Ok(Err(CodecError::Io(err))) => return CloseReason::Ended(err),
                Ok(Err(err)) => return CloseReason::Malformed(err),
                Err(_) => return CloseReason::Inactive,
            };
            self.received_bytes.fetch_add(len, Ordering::Relaxed);
            metrics::received_bytes(len);
            match react(message) {
                Reaction::Nothing => {}
                Reaction::Answer(answer) => {
                    if self.answers.try_send(answer).is_err() {
                        return CloseReason::NotReading;
                    }
                }
                Reaction::Tell(kind) => {
                    let peer = self.peer;
                    if self.events.send(PeerEvent { peer, kind }).await.is_err() {
                        return CloseReason::Stopped;
                    }
                }
            }
        }
    }
}

/// What a message leads to.
enum Reaction {
    Nothing,
    Answer(NetworkMessage),
    Tell(PeerEventKind),
}

fn react(message: Message) -> Reaction {
    match message {
        Message::Ping(nonce) => Reaction::Answer(NetworkMessage::Pong(nonce)),
        Message::GetHeaders(_) => Reaction::Answer(NetworkMessage::Headers(Vec::new())),
        Message::GetData(wanted) => Reaction::Answer(NetworkMessage::NotFound(wanted)),
        Message::Headers(headers) => Reaction::Tell(PeerEventKind::Headers(headers)),
        Message::Block(block) => Reaction::Tell(PeerEventKind::Block(block)),
        Message::Inv(entries) => tell_blocks(&entries, PeerEventKind::BlockInv),
        Message::NotFound(entries) => tell_blocks(&entries, PeerEventKind::BlocksNotFound),
        // A second version or verack is harmless; Bitcoin Core ignores them as well.
        // Nothing is announced to peers that we connected to.
        _ => Reaction::Nothing,
    }
}

fn tell_blocks(entries: &[Inventory], kind: fn(Vec<BlockHash>) -> PeerEventKind) -> Reaction {
    let blocks: Vec<_> = entries
        .iter()
        .filter_map(|entry| match entry {
            Inventory::Block(hash)
            | Inventory::WitnessBlock(hash)
            | Inventory::CompactBlock(hash) => Some(*hash),
            _ => None,
        })
        .collect();
    if blocks.is_empty() {
        Reaction::Nothing
    } else {
        Reaction::Tell(kind(blocks))
    }
}

async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut outbox: mpsc::Receiver<NetworkMessage>,
    magic: [u8; 4],
    ping_interval: Duration,
    limit: Duration,
) -> CloseReason {
    let first_ping = tokio::time::Instant::now() + ping_interval;
    let mut ping = interval_at(first_ping, ping_interval);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            message = outbox.recv() => match message {
                Some(message) => message,
                None => return CloseReason::Stopped,
            },
            _ = ping.tick() => NetworkMessage::Ping(rand::random()),
        };
        let frame = encode_message(message, magic);
        match timeout(limit, writer.write_all(&frame)).await {
            Ok(Ok(())) => metrics::sent_bytes(frame.len() as u64),
            Ok(Err(err)) => return CloseReason::Ended(err),
            Err(_) => return CloseReason::NotReading,
        }
    }
}
