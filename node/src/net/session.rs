//! One connection from its first byte to its last.
//!
//! ```text
//! dial or accept -> transport -> handshake -> { read loop  -> route -> consumers, answers
//!                                             { write loop <- outbox, ping timer
//! ```
//!
//! # Limits
//! The read loop waits while a consumer does not take its events or an answer has no
//! room in the outbox, so that TCP slows the peer down. A peer that takes less than
//! 64 KiB within the write limit, sends nothing within the idle limit, or leaves a ping
//! without a pong is disconnected.

use std::{
    io,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use pulse_primitives::{bitcoin::p2p::message::NetworkMessage, fleet::Duplex, tip::ChainTip};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval_at, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    CloseReason,
    close::Penalty,
    handle::Context,
    outbox::{Queued, outbox},
    peer::{Fault, Peer, PeerInfo, is_lasting},
    route::{Consumer, Routes, route},
};
use crate::{
    chain::FreshBlock,
    metrics,
    p2p::{
        AddrEntry, ConnectionKind, NetAddr, NetAddress, NetKind, PeerAddr,
        addr_relay::Audience,
        addrman::AddrSource,
        codec::CodecError,
        dial::{self, DialOptions},
        message::{Message, Outgoing},
        metrics as p2p_metrics,
        peer::PeerId,
        transport::{Connection, MessageReader, MessageWriter},
        version::{HandshakeError, LocalVersion, RemoteVersion, USER_AGENT, handshake},
    },
    serve::Serving,
};

/// How long a peer that was only asked for addresses may take to tell them.
const ADDR_FETCH_LIMIT: Duration = Duration::from_secs(60);

/// How the connection comes about.
pub(super) enum Origin {
    /// We make it, with the encrypted transport first if `v2`.
    Dial {
        /// Whether to try it.
        v2: bool,
    },
    /// It was accepted.
    Accepted(TcpStream),
    /// It is a stream of the fleet, encrypted by it.
    Sibling(Box<dyn Duplex>),
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
    /// Whether the peer's host is to be discouraged.
    pub discourage: bool,
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
        let shared = &self.context.shared;
        if let Some(peer) = &peer {
            shared.remove(peer.id);
            shared.book.lock().remove_peer(peer.id);
            self.context.tell_closed(peer).await;
        }
        let penalty = reason.penalty();
        if penalty == Penalty::Misbehaved {
            shared.dropped.fetch_add(1, Ordering::Release);
        }
        let misbehaved = matches!(reason, CloseReason::Fault(Fault::Misbehaved(_)));
        Ended {
            peer,
            penalty,
            discourage: misbehaved
                && self.kind != ConnectionKind::Manual
                && !self.kind.is_sibling(),
        }
    }

    fn log(&self, reason: &CloseReason) {
        let (peer, addr, kind) = (self.id, &self.addr, self.kind.name());
        let err = std::error::Error::source(reason).map(tracing::field::display);
        // Strangers may come and go as they like without filling the log.
        if self.kind == ConnectionKind::Inbound || !is_lasting(self.kind) {
            debug!(%peer, %addr, kind, %reason, err, "peer closed");
        } else if reason.penalty() == Penalty::None {
            info!(%peer, %addr, kind, %reason, err, "peer lost");
        } else {
            warn!(%peer, %addr, kind, %reason, err, "peer dropped");
        }
    }

    fn log_connected(&self, peer: &Peer) {
        let (id, addr, kind) = (peer.id, &peer.addr, self.kind.name());
        let (user_agent, height) = (&peer.remote.user_agent, peer.remote.start_height);
        let transport = peer.transport.name();
        if self.kind == ConnectionKind::Inbound || !is_lasting(self.kind) {
            debug!(peer = %id, %addr, kind, user_agent, height, transport, "peer connected");
        } else {
            info!(peer = %id, %addr, kind, user_agent, height, transport, "peer connected");
        }
    }

    /// A connection with a transport; the host at its other end; and for an inbound one
    /// where it came in.
    async fn open(&self, origin: Origin) -> Result<Opened, CloseReason> {
        let (context, limits) = (&self.context, &self.context.limits);
        match origin {
            Origin::Dial { v2 } => {
                let options = DialOptions {
                    magic: context.magic,
                    v2,
                    proxy: context.proxy,
                    only_net: context.only_net,
                    connect_limit: limits.connect,
                    transport_limit: limits.transport,
                };
                let connection = dial::connect(&self.addr, &options)
                    .await
                    .map_err(CloseReason::Unreachable)?;
                let remote = connection.remote().map(|remote| remote.ip().into());
                let host = self.addr.host.parse().ok().or(remote);
                Ok(Opened {
                    connection,
                    host,
                    audience: None,
                })
            }
            Origin::Accepted(stream) => {
                // Questions are small and waited for.
                stream.set_nodelay(true).map_err(CloseReason::Ended)?;
                let remote = stream.peer_addr().map_err(CloseReason::Ended)?;
                let local = stream.local_addr().map_err(CloseReason::Ended)?;
                let host = NetAddr::from(remote.ip());
                let audience = Audience {
                    network: network_of(&host),
                    local,
                };
                let limit = limits.transport;
                let connection = Connection::accept(stream, context.magic, context.v2, limit)
                    .await
                    .map_err(CloseReason::Transport)?;
                Ok(Opened {
                    connection,
                    host: Some(host),
                    audience: Some(audience),
                })
            }
            Origin::Sibling(stream) => Ok(Opened {
                connection: Connection::v1(stream, context.magic),
                host: None,
                audience: None,
            }),
        }
    }

    async fn live(&self, origin: Origin, connected: &mut Option<Arc<Peer>>) -> CloseReason {
        let context = &self.context;
        let Opened {
            mut connection,
            host,
            audience,
        } = match self.open(origin).await {
            Ok(opened) => opened,
            Err(reason) => return reason,
        };
        // Watched from before the handshake, so that no tip behind the height that is
        // told there goes unannounced.
        let mut tips = context.server.tip();
        let mut fresh = context.server.fresh();
        fresh.mark_unchanged();
        let height = tips.borrow_and_update().height;
        let remote = match self.shake_hands(&mut connection, height).await {
            Ok(remote) => remote,
            Err(err) => return CloseReason::Handshake(err),
        };
        let (outbox, queue) = outbox();
        let info = PeerInfo {
            id: self.id,
            addr: self.addr.clone(),
            host,
            kind: self.kind,
            remote,
            transport: connection.kind(),
            clock: context.shared.clock.clone(),
        };
        let peer = Arc::new(Peer::new(info, outbox, self.stop.clone()));
        self.log_connected(&peer);
        context.shared.insert(Arc::clone(&peer));
        *connected = Some(Arc::clone(&peer));
        self.note_reached(&peer);
        if self.kind == ConnectionKind::Feeler {
            return CloseReason::Done;
        }
        context.tell_connected(&peer).await;
        self.greet(&peer);
        let (reader, writer) = connection.into_split();
        let reading = Reading {
            context,
            peer: &peer,
            audience,
            serving: Serving::new(Arc::clone(&context.server), Arc::clone(&peer)),
        };
        let read = reading.run(reader, tips, fresh);
        let write = write_loop(context, &peer, writer, queue);
        if self.kind == ConnectionKind::AddrFetch {
            return tokio::select! {
                reason = timeout(ADDR_FETCH_LIMIT, read) => reason.unwrap_or(CloseReason::Done),
                reason = write => reason,
            };
        }
        tokio::select! {
            reason = read => reason,
            reason = write => reason,
        }
    }

    async fn shake_hands(
        &self,
        connection: &mut Connection,
        start_height: u32,
    ) -> Result<RemoteVersion, HandshakeError> {
        let context = &self.context;
        let local = LocalVersion {
            services: context.services,
            user_agent: USER_AGENT,
            start_height,
            time: i64::try_from(context.shared.clock.unix()).unwrap_or(i64::MAX),
            relay: context.relay_listens(),
            limited_peers: false,
            nonces: &context.nonces,
        };
        let shake = handshake(connection, &local, self.kind);
        timeout(context.limits.handshake, shake)
            .await
            .unwrap_or(Err(HandshakeError::Timeout))
    }

    /// An address that we dialled is good.
    fn note_reached(&self, peer: &Peer) {
        if self.kind.is_inbound() {
            return;
        }
        if let Some(host) = peer.host {
            let address = NetAddress::new(host, self.addr.port);
            let now = self.context.shared.clock.unix();
            let mut book = self.context.shared.book.lock();
            book.man.set_services(&address, peer.remote.services);
            book.man.good(&address, now);
        }
    }

    /// What is said first: a wish for headers, and for addresses of those whom we chose.
    fn greet(&self, peer: &Peer) {
        if is_lasting(self.kind) {
            peer.send(NetworkMessage::SendHeaders);
        }
        let asks = matches!(
            self.kind,
            ConnectionKind::Manual | ConnectionKind::FullRelay | ConnectionKind::AddrFetch
        );
        if asks {
            let shared = &self.context.shared;
            let mut book = shared.book.lock();
            book.add_peer(self.id, peer.remote.addr_v2, &shared.clock);
            book.asked(self.id);
            drop(book);
            peer.send(NetworkMessage::GetAddr);
        }
    }
}

struct Opened {
    connection: Connection,
    host: Option<NetAddr>,
    audience: Option<Audience>,
}

/// The network that a peer came through; from our own machine it is the one that a
/// hidden service would come through.
fn network_of(host: &NetAddr) -> NetKind {
    if host.is_local() {
        NetKind::Onion
    } else {
        host.net_class().unwrap_or(host.kind())
    }
}

/// The reading side of a connection.
struct Reading<'a> {
    context: &'a Context,
    peer: &'a Arc<Peer>,
    /// Of an inbound peer: with whom it shares answers to `getaddr`.
    audience: Option<Audience>,
    serving: Serving,
}

impl Reading<'_> {
    async fn run(
        mut self,
        mut reader: MessageReader,
        mut tips: watch::Receiver<ChainTip>,
        mut fresh: watch::Receiver<Option<FreshBlock>>,
    ) -> CloseReason {
        loop {
            // One limit for the whole message, however many tips come meanwhile.
            let mut read = pin!(timeout(self.context.limits.idle, reader.read()));
            let read = loop {
                tokio::select! {
                    read = &mut read => break read,
                    Ok(()) = fresh.changed() => {
                        let block = fresh.borrow_and_update().clone();
                        if let Some(block) = block.filter(|_| is_lasting(self.peer.kind)) {
                            self.serving.announce_fresh(block).await;
                        }
                    }
                    changed = tips.changed() => {
                        if changed.is_err() {
                            return CloseReason::Stopped;
                        }
                        let tip = *tips.borrow_and_update();
                        if is_lasting(self.peer.kind) {
                            self.serving.announce(tip).await;
                        }
                    }
                }
            };
            let (message, len) = match read {
                Ok(Ok(read)) => read,
                Ok(Err(CodecError::Io(err))) => return CloseReason::Ended(err),
                Ok(Err(err)) => return CloseReason::Malformed(err),
                Err(_) => return CloseReason::Inactive,
            };
            let received = &self.context.shared.received_bytes;
            received.fetch_add(len, Ordering::Relaxed);
            p2p_metrics::received_bytes(len);
            self.peer.note_received(len);
            match self.take(message).await {
                Ok(None) => {}
                Ok(Some(reason)) => return reason,
                Err(fault) => return CloseReason::Fault(fault),
            }
        }
    }

    /// Acts upon a message, or hands it to those who do. Gives the reason if the
    /// connection is of no more use.
    async fn take(&mut self, message: Message) -> Result<Option<CloseReason>, Fault> {
        match message {
            Message::Ping(nonce) => {
                self.peer.answer(NetworkMessage::Pong(nonce)).await;
            }
            Message::Pong(nonce) => self.peer.pong_came(nonce, Instant::now()),
            Message::GetAddr => self.answer_getaddr(),
            Message::Addr(entries) => return self.take_addresses(entries),
            message if is_lasting(self.peer.kind) => self.hand_on(message).await?,
            _ => {}
        }
        Ok(None)
    }

    async fn hand_on(&mut self, message: Message) -> Result<(), Fault> {
        let Routes {
            sync,
            relay,
            serve,
            told,
        } = route(message, self.context.relay_listens())?;
        if let Some(hash) = told {
            self.serving.peer_has(hash);
        }
        if let Some(message) = sync {
            self.context.hand(Consumer::Sync, self.peer, message).await;
        }
        if let Some(message) = serve {
            self.serving.answer(message).await?;
        }
        if let Some(message) = relay {
            self.context.hand(Consumer::Relay, self.peer, message).await;
        }
        Ok(())
    }

    /// Only peers that connected to us are told addresses when they ask: whom we dial
    /// could otherwise learn from the answers which addresses are one node.
    fn answer_getaddr(&self) {
        if let Some(audience) = self.audience {
            let shared = &self.context.shared;
            let mut book = shared.book.lock();
            book.add_peer(self.peer.id, self.peer.remote.addr_v2, &shared.clock);
            book.answer_getaddr(self.peer.id, audience, &shared.clock);
        }
    }

    fn take_addresses(&self, entries: Vec<AddrEntry>) -> Result<Option<CloseReason>, Fault> {
        if self.peer.kind == ConnectionKind::BlockRelay {
            return Ok(None);
        }
        let named = || AddrSource::named(&self.peer.addr.host);
        let from = self.peer.host.map_or_else(named, AddrSource::Peer);
        let shared = &self.context.shared;
        let (count, now) = (entries.len(), shared.clock.unix());
        let mut book = shared.book.lock();
        book.add_peer(self.peer.id, self.peer.remote.addr_v2, &shared.clock);
        book.receive(self.peer.id, from, entries, now)
            .map_err(|_| Fault::Misbehaved("too_many_addresses"))?;
        // A single one is the peer's own address.
        let is_answer = self.peer.kind == ConnectionKind::AddrFetch && count > 1;
        Ok(is_answer.then_some(CloseReason::Done))
    }
}

async fn write_loop(
    context: &Context,
    peer: &Peer,
    mut writer: MessageWriter,
    mut queue: mpsc::Receiver<Queued>,
) -> CloseReason {
    let limits = &context.limits;
    writer.set_stall_limit(limits.write);
    let every = limits.ping_interval;
    let mut ping = interval_at(tokio::time::Instant::now() + every, every);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let written = tokio::select! {
            queued = queue.recv() => match queued {
                // Its share of the outbox is given back when it has been written.
                Some(queued) => writer.write(&queued.message).await,
                None => return CloseReason::Stopped,
            },
            _ = ping.tick() => {
                let (nonce, now) = (rand::random(), Instant::now());
                if peer.ping_overdue(limits.ping_timeout, now) {
                    return CloseReason::NoPong;
                }
                if !peer.ping_sent(nonce, now) {
                    continue;
                }
                writer.write(&Outgoing::Message(NetworkMessage::Ping(nonce))).await
            }
        };
        match written {
            Ok(len) => {
                p2p_metrics::sent_bytes(len);
                peer.note_sent(len);
                context.server.note_sent(len);
            }
            Err(err) if err.kind() == io::ErrorKind::TimedOut => return CloseReason::NotReading,
            Err(err) => return CloseReason::Ended(err),
        }
    }
}
