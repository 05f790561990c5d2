//! The relay's task: everything that peers say about transactions, and what they are told.
//!
//! ```text
//! PeerEvent -> Downloads -> Judges -> (blocking threads) -> verdict -> Downloads, Inventory
//! Notice    -> Downloads, Inventory
//! tick      -> getdata, inv, feefilter to every peer
//! ```
//!
//! # Correctness
//! The task runs on a thread of its own, because it looks into the mempool all the time
//! and may have to wait for its lock.
//!
//! # Security
//! Peers that send transactions where none are relayed are disconnected, as are those
//! that ask for the whole mempool (BIP 35), which is offered to siblings only
//! ([`super::joining`]). Invalid transactions are
//! not punished, because what is invalid here may be valid by rules to come; they cost
//! their sender its own turns ([`super::judges`]).

mod peers;
mod verdicts;

use std::{collections::HashMap, sync::Arc, time::Duration};

use pulse_primitives::{bitcoin::p2p::message::NetworkMessage, block::ConnectedBlock};
use rand::{SeedableRng, rngs::StdRng};
use tokio::{
    runtime::Handle,
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::{
    download::{Candidate, Downloads},
    feefilter::FeeFilterRounder,
    inventory::InboundTimer,
    judges::Judges,
};
use crate::{
    clock::Clock,
    mempool::{MempoolHandle, Notice, Notices},
    metrics,
    net::{PeerEvent, PeerEventKind},
    p2p::peer::PeerId,
};
use peers::RelayPeer;
use verdicts::Judged;

/// Time between two looks at the clock.
const TICK: Duration = Duration::from_millis(100);
/// Verdicts that may wait to be taken in.
const VERDICTS: usize = 16;

/// Why the relay ended by itself. Never because of a peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// Its thread panicked; the log has the panic.
    #[error("the relay's thread failed")]
    TaskFailed,
}

/// The relay before it runs.
pub struct Relay {
    events: mpsc::Receiver<PeerEvent>,
    notices: Notices,
    mempool: MempoolHandle,
    clock: Clock,
}

impl Relay {
    /// A relay of what is in `mempool`, among the peers of whom `events` tells.
    #[must_use]
    pub fn new(
        events: mpsc::Receiver<PeerEvent>,
        notices: Notices,
        mempool: MempoolHandle,
    ) -> Self {
        Self {
            events,
            notices,
            mempool,
            clock: Clock::default(),
        }
    }

    /// The same, going by this clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Relays until `stop`.
    ///
    /// # Errors
    /// [`RelayError`].
    pub async fn run(self, stop: CancellationToken) -> Result<(), RelayError> {
        let runtime = Handle::current();
        tokio::task::spawn_blocking(move || runtime.block_on(Manager::new(self).run(stop)))
            .await
            .map_err(|_| RelayError::TaskFailed)
    }
}

struct Manager {
    events: mpsc::Receiver<PeerEvent>,
    notices: Notices,
    verdicts: (mpsc::Sender<Judged>, mpsc::Receiver<Judged>),
    mempool: MempoolHandle,
    peers: HashMap<PeerId, RelayPeer>,
    downloads: Downloads,
    judges: Judges,
    timer: InboundTimer,
    rounder: FeeFilterRounder,
    rng: StdRng,
    clock: Clock,
}

impl Manager {
    fn new(relay: Relay) -> Self {
        let mut rng = StdRng::from_entropy();
        let incremental = relay.mempool.incremental_fee_rate();
        Self {
            events: relay.events,
            notices: relay.notices,
            verdicts: mpsc::channel(VERDICTS),
            mempool: relay.mempool,
            clock: relay.clock,
            peers: HashMap::new(),
            downloads: Downloads::new(rand::Rng::r#gen(&mut rng)),
            judges: Judges::default(),
            timer: InboundTimer::default(),
            rounder: FeeFilterRounder::new(incremental),
            rng,
        }
    }

    async fn run(mut self, stop: CancellationToken) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut noticing = true;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                event = self.events.recv() => match event {
                    Some(event) => self.event(event),
                    // The net has ended; the program is about to stop.
                    None => {
                        stop.cancelled().await;
                        return;
                    }
                },
                notice = self.notices.recv(), if noticing => match notice {
                    Some(notice) => self.notice(notice),
                    None => noticing = false,
                },
                Some(judged) = self.verdicts.1.recv() => self.judged(judged),
                _ = tick.tick() => self.tick(),
            }
            self.start_judges();
        }
    }

    fn event(&mut self, event: PeerEvent) {
        let id = event.peer.id;
        match event.kind {
            PeerEventKind::Connected => self.connected(event.peer),
            PeerEventKind::Closed => self.closed(id),
            PeerEventKind::Message(message) => self.message(id, message),
        }
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Announce { txid, wtxid } => self.announce(txid, wtxid),
            Notice::Accepted(tx) => {
                self.downloads.accepted(&Candidate::new(tx));
            }
            Notice::Connected(block) => self.block_connected(&block),
            Notice::Disconnected(_) => {
                self.downloads.block_disconnected();
                self.downloads.tip_changed();
            }
        }
    }

    fn block_connected(&mut self, block: &Arc<ConnectedBlock>) {
        self.downloads.block_connected(&block.block, &block.txids);
        self.downloads.tip_changed();
    }

    /// Does what is due for every peer.
    fn tick(&mut self) {
        let now = self.clock.now();
        for (txid, wtxid) in self.mempool.due_broadcasts(now) {
            self.announce(txid, wtxid);
        }
        let rates = self.mempool.accepted_rates();
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            self.request(id, now);
            self.send_inventory(id, now);
            if let Some(peer) = self.peers.get_mut(&id)
                && peer.takes_txs
                && let Some(rate) = peer
                    .fee_filter
                    .poll(now, rates, &self.rounder, &mut self.rng)
            {
                let rate = i64::try_from(rate).unwrap_or(i64::MAX);
                peer.peer.send(NetworkMessage::FeeFilter(rate));
            }
            self.ask_for_more(id, now);
        }
        let (announcements, orphans) = self.downloads.sizes();
        metrics::relay(announcements, orphans, self.judges.waiting());
    }
}
