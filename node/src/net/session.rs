//! One connection from its first byte to its last.
//!
//! ```text
//! dial or accept -> handshake -> { read loop  -> route -> consumers, answers
//!                                { write loop <- outbox, ping timer
//! ```
//!
//! # Limits
//! The read loop waits while a consumer does not take its events or an answer has no
//! room in the outbox, so that TCP slows the peer down. A peer that takes less than
//! 64 KiB within the write limit, sends nothing within the idle limit, or leaves a ping
//! without a pong is disconnected.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use pulse_primitives::bitcoin::p2p::message::NetworkMessage;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader},
    net::TcpStream,
    sync::mpsc,
    time::{MissedTickBehavior, interval_at, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    CloseReason, Context,
    close::Penalty,
    outbox::{Outgoing, Queued, outbox},
    peer::{ConnectionKind, Fault, Peer, PeerInfo, TransportKind},
    route::{Consumer, Routes, route},
};
use crate::{
    metrics,
    p2p::{
        PeerAddr,
        codec::{CodecError, Message, encode_frame, encode_message, read_message},
        dial,
        handshake::{Direction, HandshakeError, LocalVersion, handshake},
        metrics as p2p_metrics,
        peer::PeerId,
    },
    serve::Serving,
};

/// What the peer must take within the write limit, in bytes: slow peers may take long
/// for a block, but not for ever.
const WRITE_CHUNK: usize = 64 * 1024;

/// How the connection comes about.
pub(super) enum Origin {
    /// We make it.
    Dial,
    /// It was accepted.
    Accepted(TcpStream),
}

/// A connection to be.
pub(super) struct Session {
    pub context: Arc<Context>,
    pub id: PeerId,
    pub addr: PeerAddr,
    pub kind: ConnectionKind,
    pub stop: CancellationToken,
}

/// A connection that was.
pub(super) struct Ended {
    /// The peer, if the handshake was done.
    pub peer: Option<Arc<Peer>>,
    pub penalty: Penalty,
}

impl Session {
    /// Carries messages until the connection ends.
    pub async fn run(self, origin: Origin) -> Ended {
        let mut peer = None;
        let reason = tokio::select! {
            biased;
            () = self.stop.cancelled() => CloseReason::Stopped,
            reason = self.live(origin, &mut peer) => reason,
        };
        let fault = peer.as_ref().and_then(|peer: &Arc<Peer>| peer.fault());
        let reason = fault.map_or(reason, CloseReason::Fault);
        self.log(&reason);
        metrics::disconnect(reason.word());
        if let Some(peer) = &peer {
            self.context.shared.remove(peer.id);
            self.context.tell_closed(peer).await;
        }
        let penalty = reason.penalty();
        if penalty == Penalty::Misbehaved {
            self.context.shared.dropped.fetch_add(1, Ordering::Release);
        }
        Ended { peer, penalty }
    }

    fn log(&self, reason: &CloseReason) {
        let (peer, addr) = (self.id, &self.addr);
        let err = std::error::Error::source(reason).map(tracing::field::display);
        // Strangers may come and go as they like without filling the log.
        if self.kind.is_inbound() {
            debug!(%peer, %addr, %reason, err, "inbound peer closed");
        } else if reason.penalty() == Penalty::None {
            info!(%peer, %addr, %reason, err, "peer lost");
        } else {
            warn!(%peer, %addr, %reason, err, "peer dropped");
        }
    }

    async fn live(&self, origin: Origin, connected: &mut Option<Arc<Peer>>) -> CloseReason {
        let context = &self.context;
        let limits = &context.limits;
        let (mut stream, direction) = match origin {
            Origin::Dial => match dial::connect(&self.addr, limits.connect).await {
                Ok(stream) => (stream, Direction::Outbound),
                Err(err) => return CloseReason::Unreachable(err),
            },
            Origin::Accepted(stream) => (stream, Direction::Inbound),
        };
        // Questions are small and waited for.
        if let Err(err) = stream.set_nodelay(true) {
            return CloseReason::Ended(err);
        }
        let ip = stream.peer_addr().ok().map(|addr| addr.ip());
        // Watched from before the handshake, so that no tip behind the height that is
        // told there goes unannounced.
        let mut tips = context.server.tip();
        let local = LocalVersion {
            nonce: context.nonce,
            start_height: tips.borrow_and_update().height,
        };
        let shake = handshake(&mut stream, context.magic, &local, direction);
        let remote = match timeout(limits.handshake, shake).await {
            Ok(Ok(remote)) => remote,
            Ok(Err(err)) => return CloseReason::Handshake(err),
            Err(_) => return CloseReason::Handshake(HandshakeError::Timeout),
        };
        let (outbox, queue) = outbox();
        let info = PeerInfo {
            id: self.id,
            addr: self.addr.clone(),
            ip,
            kind: self.kind,
            remote,
            transport: TransportKind::V1,
        };
        let peer = Arc::new(Peer::new(info, outbox, self.stop.clone()));
        self.log_connected(&peer);
        context.shared.insert(Arc::clone(&peer));
        *connected = Some(Arc::clone(&peer));
        if self.kind == ConnectionKind::Feeler {
            return CloseReason::Done;
        }
        context.tell_connected(&peer).await;
        let (reader, writer) = stream.into_split();
        let serving = Serving::new(Arc::clone(&context.server), Arc::clone(&peer));
        let read = read_loop(context, &peer, BufReader::new(reader), serving, tips);
        tokio::select! {
            reason = read => reason,
            reason = write_loop(context, writer, queue) => reason,
        }
    }

    fn log_connected(&self, peer: &Peer) {
        let (id, addr) = (peer.id, &peer.addr);
        let (user_agent, height) = (&peer.remote.user_agent, peer.remote.start_height);
        let transport = peer.transport.word();
        if self.kind.is_inbound() {
            debug!(peer = %id, %addr, user_agent, height, transport, "inbound peer connected");
        } else {
            let kind = self.kind.word();
            info!(peer = %id, %addr, kind, user_agent, height, transport, "peer connected");
        }
    }
}

async fn read_loop(
    context: &Context,
    peer: &Arc<Peer>,
    mut reader: impl AsyncRead + Unpin,
    mut serving: Serving,
    mut tips: tokio::sync::watch::Receiver<pulse_primitives::tip::ChainTip>,
) -> CloseReason {
    loop {
        // Reading is not cancel-safe: the future lives until it has a message.
        let mut read = pin!(timeout(
            context.limits.idle,
            read_message(&mut reader, context.magic)
        ));
        let read = loop {
            tokio::select! {
                read = &mut read => break read,
                changed = tips.changed() => {
                    if changed.is_err() {
                        return CloseReason::Stopped;
                    }
                    serving.announce(*tips.borrow_and_update());
                }
            }
        };
        let (message, len) = match read {
            Ok(Ok(read)) => read,
            Ok(Err(CodecError::Io(err))) => return CloseReason::Ended(err),
            Ok(Err(err)) => return CloseReason::Malformed(err),
            Err(_) => return CloseReason::Inactive,
        };
        context
            .shared
            .received_bytes
            .fetch_add(len, Ordering::Relaxed);
        p2p_metrics::received_bytes(len);
        if let Err(fault) = take(context, peer, &mut serving, message).await {
            return CloseReason::Fault(fault);
        }
    }
}

/// Acts upon a message, or hands it to those who do.
async fn take(
    context: &Context,
    peer: &Arc<Peer>,
    serving: &mut Serving,
    message: Message,
) -> Result<(), Fault> {
    let message = match message {
        Message::Ping(nonce) => {
            peer.answer(NetworkMessage::Pong(nonce)).await;
            return Ok(());
        }
        message => message,
    };
    let Routes {
        sync,
        relay,
        serve,
        told,
    } = route(message, context.relay_listens())?;
    if let Some(hash) = told {
        serving.peer_has(hash);
    }
    if let Some(message) = sync {
        context.hand(Consumer::Sync, peer, message).await;
    }
    if let Some(message) = serve {
        serving.answer(message).await?;
    }
    if let Some(message) = relay {
        context.hand(Consumer::Relay, peer, message).await;
    }
    Ok(())
}

async fn write_loop(
    context: &Context,
    mut writer: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Queued>,
) -> CloseReason {
    let every = context.limits.ping_interval;
    let mut ping = interval_at(tokio::time::Instant::now() + every, every);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let queued = tokio::select! {
            queued = queue.recv() => match queued {
                Some(queued) => queued,
                None => return CloseReason::Stopped,
            },
            _ = ping.tick() => {
                let nonce = rand::random();
                let frame = encode_message(NetworkMessage::Ping(nonce), context.magic);
                if let Err(reason) = write(&mut writer, &frame, context.limits.write).await {
                    return reason;
                }
                continue;
            }
        };
        let frame = match &queued.message {
            Outgoing::Message(message) => encode_message(message.clone(), context.magic),
            Outgoing::Raw { command, payload } => encode_frame(command, payload, context.magic),
        };
        if let Err(reason) = write(&mut writer, &frame, context.limits.write).await {
            return reason;
        }
    }
}

async fn write(
    writer: &mut (impl AsyncWrite + Unpin),
    frame: &[u8],
    limit: Duration,
) -> Result<(), CloseReason> {
    for chunk in frame.chunks(WRITE_CHUNK) {
        match timeout(limit, writer.write_all(chunk)).await {
            Ok(Ok(())) => p2p_metrics::sent_bytes(chunk.len() as u64),
            Ok(Err(err)) => return Err(CloseReason::Ended(err)),
            Err(_) => return Err(CloseReason::NotReading),
        }
    }
    Ok(())
}
