//! The streams over which siblings speak the Bitcoin protocol.
//!
//! # Limits
//! One stream per sibling that we opened, [`MAX_INBOUND`] that it opened: a new one may
//! come before the end of the old one has been noticed.

use std::time::Duration;

use libp2p::{PeerId, Stream, StreamProtocol};
use libp2p_stream::Control;
use pulse_primitives::fleet::{SiblingEnd, SiblingStream};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, sleep, timeout},
};
use tokio_util::{compat::FuturesAsyncReadCompatExt, sync::CancellationToken};
use tracing::debug;

/// The Bitcoin protocol, unencrypted in an encrypted connection. The last number is the
/// major version of [`crate::hello::VERSION`].
pub const WIRE: StreamProtocol = StreamProtocol::new("/pulse/bitcoin/1");
/// Streams that one sibling may have opened.
pub const MAX_INBOUND: usize = 2;

/// For a sibling to accept a stream.
const OPEN_LIMIT: Duration = Duration::from_secs(10);
/// Waits between streams that were of no use.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// A stream that lasted as long was of use.
const USEFUL: Duration = Duration::from_secs(60);

/// What happened to a stream.
#[derive(Debug, Clone, Copy)]
pub enum LinkEvent {
    /// The node has it.
    Linked(PeerId),
    /// It is over.
    Ended {
        /// Whose it was.
        peer: PeerId,
        /// Whether it was dialled.
        dialed: bool,
        /// Why.
        end: SiblingEnd,
    },
    /// A sibling did elsewhere what no honest node does.
    Misbehaved {
        /// Who.
        peer: PeerId,
        /// What.
        reason: &'static str,
    },
}

/// Where streams go to, and who hears of it.
#[derive(Debug, Clone)]
pub struct Carrier {
    /// The node.
    pub node: mpsc::Sender<SiblingStream>,
    /// The swarm's task.
    pub events: mpsc::Sender<LinkEvent>,
}

impl Carrier {
    /// Keeps a stream with `peer` until `stop`.
    pub async fn keep(self, mut control: Control, peer: PeerId, stop: CancellationToken) {
        let keep = async {
            let mut wait = RETRY_MIN;
            loop {
                let started = Instant::now();
                match timeout(OPEN_LIMIT, control.open_stream(peer, WIRE)).await {
                    Ok(Ok(stream)) => self.carry(peer, true, stream).await,
                    Ok(Err(err)) => debug!(%peer, %err, "no stream to a sibling"),
                    Err(_) => debug!(%peer, "a sibling does not accept a stream"),
                }
                if started.elapsed() >= USEFUL {
                    wait = RETRY_MIN;
                }
                sleep(wait).await;
                wait = (wait * 2).min(RETRY_MAX);
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = keep => {}
        }
    }

    /// Hands a stream to the node and waits for its end.
    pub async fn carry(&self, peer: PeerId, dialed: bool, stream: Stream) {
        let (ended, end) = oneshot::channel();
        let stream = SiblingStream {
            peer_id: peer.to_string(),
            dialed,
            stream: Box::new(stream.compat()),
            ended,
        };
        let end = match self.node.send(stream).await {
            Ok(()) => {
                // The swarm's task is gone only when everything ends.
                let _ = self.events.send(LinkEvent::Linked(peer)).await;
                end.await.unwrap_or(SiblingEnd::Lost)
            }
            Err(_) => SiblingEnd::Lost,
        };
        let event = LinkEvent::Ended { peer, dialed, end };
        let _ = self.events.send(event).await;
    }
}
