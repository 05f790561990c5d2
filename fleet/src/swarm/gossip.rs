//! Gossip, with a look at what each sibling sends before anything else is done with it.
//!
//! ```text
//! RPC of a sibling -> too many? dropped    -> fault "flood"
//!                  -> a bad signature?     -> fault "forged"
//!                  -> gossipsub (duplicates, passing on) -> message
//! ```
//!
//! # Security
//! To gossipsub a duplicate is nothing special, and a forged message is only not passed on:
//! either could be sent for ever. Here both count, so their sender is cut off within
//! seconds.
//!
//! # Limits
//! [`super::MAX_RATE`] messages a second of each sibling.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
    time::Instant,
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    gossipsub::{self, IdentTopic, Message, MessageAcceptance, MessageId},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm,
    },
};

use super::conduct::{Rate, Rates};

/// What came from a gossipsub handler.
type Incoming = THandlerOutEvent<gossipsub::Behaviour>;

/// Faults that may wait to be told; whoever commits so many is told of already.
const MAX_FAULTS_WAITING: usize = 64;

/// What happened.
#[derive(Debug)]
pub(super) enum GossipEvent {
    /// A message to judge, and to report about.
    Message {
        /// Who passed it on.
        from: PeerId,
        id: MessageId,
        message: Message,
    },
    /// A sibling did what no honest node does.
    Fault { from: PeerId, what: &'static str },
}

/// The gossip of this node.
pub(super) struct Gossip {
    inner: gossipsub::Behaviour,
    rates: Rates,
    faults: VecDeque<GossipEvent>,
}

impl Gossip {
    pub(super) fn new(inner: gossipsub::Behaviour) -> Self {
        Self {
            inner,
            rates: Rates::default(),
            faults: VecDeque::new(),
        }
    }

    /// Tells all siblings.
    pub(super) fn publish(
        &mut self,
        topic: &IdentTopic,
        data: Vec<u8>,
    ) -> Result<MessageId, gossipsub::PublishError> {
        self.inner.publish(topic.clone(), data)
    }

    /// Whether a message is passed on.
    pub(super) fn report(&mut self, id: &MessageId, from: &PeerId, accepted: MessageAcceptance) {
        let inner = &mut self.inner;
        inner.report_message_validation_result(id, from, accepted);
    }

    /// `peer` is gone.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.rates.forget(peer);
    }

    fn fault(&mut self, from: PeerId, what: &'static str) {
        if self.faults.len() < MAX_FAULTS_WAITING {
            self.faults.push_back(GossipEvent::Fault { from, what });
        }
    }
}

impl NetworkBehaviour for Gossip {
    type ConnectionHandler = THandler<gossipsub::Behaviour>;
    type ToSwarm = GossipEvent;

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        if let Incoming::Message {
            rpc,
            invalid_messages,
        } = &event
        {
            let count = rpc.messages.len() + invalid_messages.len();
            match self.rates.count(peer, count.max(1), Instant::now()) {
                Rate::Fine => {}
                Rate::Exceeded => return self.fault(peer, "flood"),
                Rate::Flood => return,
            }
            if !invalid_messages.is_empty() {
                self.fault(peer, "forged");
            }
        }
        let inner = &mut self.inner;
        inner.on_connection_handler_event(peer, connection, event);
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(fault) = self.faults.pop_front() {
            return Poll::Ready(ToSwarm::GenerateEvent(fault));
        }
        loop {
            match self.inner.poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(ToSwarm::GenerateEvent(gossipsub::Event::Message {
                    propagation_source,
                    message_id,
                    message,
                })) => {
                    let event = GossipEvent::Message {
                        from: propagation_source,
                        id: message_id,
                        message,
                    };
                    return Poll::Ready(ToSwarm::GenerateEvent(event));
                }
                // Who subscribes to what is of no interest.
                Poll::Ready(ToSwarm::GenerateEvent(_)) => {}
                Poll::Ready(other) => {
                    return Poll::Ready(other.map_out(|_| unreachable!("events were dealt with")));
                }
            }
        }
    }

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let inner = &mut self.inner;
        inner.handle_pending_inbound_connection(id, local, remote)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let inner = &mut self.inner;
        inner.handle_established_inbound_connection(id, peer, local, remote)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addrs: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let inner = &mut self.inner;
        inner.handle_pending_outbound_connection(id, peer, addrs, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let inner = &mut self.inner;
        inner.handle_established_outbound_connection(id, peer, addr, role, port)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        self.inner.on_swarm_event(event);
    }
}
