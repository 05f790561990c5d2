//! The connections that the node makes of its own accord: dialled one after another,
//! and the extra ones compared with the others.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pulse_primitives::{bitcoin::p2p::ServiceFlags, tip::ChainTip};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::{
    book::AddrBook,
    outbound::{
        AUTOMATIC, BLOCK_RELAY, ChainView, FULL_RELAY, MIN_CONNECTED, Schedule, Taken, choose,
        suits_as_anchor,
    },
    peer::{Fault, Peer},
    running::{Dial, Plan, Running, is_recent},
    seeding::{self, Seeding},
};
use crate::p2p::{ConnectionKind, NetAddress, PeerAddr, anchors::MAX_ANCHORS};

/// Without a new block for this long the peers may have been cut off: three times the
/// mean time between blocks.
const STALE_TIP: Duration = Duration::from_secs(30 * 60);
/// Time between two looks at whether there are too many peers.
const EXTRA_INTERVAL: Duration = Duration::from_secs(45);
/// Groups in which there must be connections for a failure to be the address's fault.
const WORKING_GROUPS: usize = if AUTOMATIC - 1 < 2 { AUTOMATIC - 1 } else { 2 };

/// State of choosing peers.
pub(super) struct Automatic {
    /// Peers of the last run that are to be dialled first.
    anchors: Vec<NetAddress>,
    schedule: Schedule,
    seeding: Seeding,
    lookups: JoinSet<(PeerAddr, Vec<NetAddress>)>,
    default_port: u16,
    next_dial: Instant,
    next_extra_check: Instant,
}

impl Automatic {
    /// `None` if the node is not to choose peers, or has nobody to choose from.
    pub fn start(
        plan: &Plan,
        anchors: Vec<NetAddress>,
        book: &mut AddrBook,
        now: Instant,
    ) -> Option<Self> {
        let known = book.man.len();
        if !plan.may_choose || !(plan.has_seeds || plan.has_friends || known > 0) {
            return None;
        }
        info!(count = known, anchors = anchors.len(), "choosing peers");
        let rng = &mut book.rng;
        Some(Self {
            anchors,
            schedule: Schedule::new(now, rng),
            seeding: Seeding::new(&plan.params, plan.dns, known, now, rng),
            lookups: JoinSet::new(),
            default_port: plan.params.default_port,
            next_dial: now,
            next_extra_check: now + EXTRA_INTERVAL,
        })
    }
}

impl Running {
    /// Makes at most one connection of the node's own choice, and asks seeds.
    pub fn dial_automatic(&mut self, tip: (ChainTip, Instant), now: Instant) {
        let Some(mut automatic) = self.automatic.take() else {
            return;
        };
        self.seed(&mut automatic, now);
        if automatic.next_extra_check <= now {
            automatic.next_extra_check = now + EXTRA_INTERVAL;
            self.end_extra(now);
        }
        if automatic.next_dial <= now {
            automatic.next_dial = now + self.context.limits.dial_interval;
            if let Some(dial) = self.next_dial(&mut automatic, tip, now) {
                self.dial(dial);
            }
        }
        self.automatic = Some(automatic);
    }

    fn taken(&self) -> Taken {
        let mut taken = Taken::default();
        for open in self.open.values() {
            taken.add(open.kind, open.address);
        }
        taken
    }

    fn next_dial(
        &self,
        automatic: &mut Automatic,
        (tip, tip_since): (ChainTip, Instant),
        now: Instant,
    ) -> Option<Dial> {
        let taken = self.taken();
        let unix = self.context.shared.clock.unix();
        let mut book = self.context.shared.book.lock();
        while taken.block_relay < BLOCK_RELAY
            && let Some(anchor) = automatic.anchors.pop()
        {
            if suits_as_anchor(&book, &anchor, &taken, unix) {
                debug!(addr = %anchor, "dialling an anchor");
                return Some(Dial {
                    addr: peer_addr(&anchor),
                    address: Some(anchor),
                    kind: ConnectionKind::BlockRelay,
                    v2: true,
                });
            }
        }
        let chain = ChainView {
            is_stale: now.saturating_duration_since(tip_since) > STALE_TIP,
            is_recent: is_recent(tip, unix),
        };
        let kind = automatic
            .schedule
            .wanted(&taken, chain, now, &mut book.rng)?;
        let record = choose(&mut book, kind, &taken, automatic.default_port, unix)?;
        // When nothing can be reached, it is our own line.
        let counts = taken.groups() >= WORKING_GROUPS;
        book.man.attempt(&record.address, counts, unix);
        Some(Dial {
            addr: peer_addr(&record.address),
            address: Some(record.address),
            kind,
            v2: record.services.has(ServiceFlags::P2P_V2),
        })
    }

    /// Asks seeds for addresses when it is time, and takes what they tell.
    fn seed(&mut self, automatic: &mut Automatic, now: Instant) {
        let full_relay = self
            .context
            .shared
            .peers
            .lock()
            .values()
            .filter(|peer| peer.kind == ConnectionKind::FullRelay)
            .count();
        for name in automatic.seeding.due_names(full_relay, now) {
            info!(addr = %name, "asking a seed for addresses");
            if self.context.proxy.is_some() {
                self.dial(Dial {
                    addr: name,
                    address: None,
                    kind: ConnectionKind::AddrFetch,
                    v2: false,
                });
            } else {
                automatic.lookups.spawn(seeding::resolve(name));
            }
        }
        while let Some(found) = automatic.lookups.try_join_next() {
            match found {
                Ok((name, found)) => {
                    info!(addr = %name, count = found.len(), "a seed has answered");
                    let mut book = self.context.shared.book.lock();
                    let unix = self.context.shared.clock.unix();
                    seeding::add(&mut book, &name.host, &found, unix);
                }
                Err(err) => warn!(%err, "asking a seed failed"),
            }
        }
        let unix = self.context.shared.clock.unix();
        let mut book = self.context.shared.book.lock();
        if automatic.seeding.take_fixed(&mut book, unix, now) {
            info!(count = book.man.len(), "taking the fixed addresses");
        }
    }

    /// Of more peers than there are places for, ends the ones that are of least use.
    fn end_extra(&self, now: Instant) {
        let peers: Vec<_> = self.context.shared.peers.lock().values().cloned().collect();
        let of_kind = |kind| {
            let peers = peers.iter().filter(move |peer| peer.kind == kind);
            peers.cloned().collect::<Vec<_>>()
        };
        let extra = [
            extra_full_relay(of_kind(ConnectionKind::FullRelay)),
            extra_block_relay(of_kind(ConnectionKind::BlockRelay)),
        ];
        for peer in extra.into_iter().flatten() {
            if now.saturating_duration_since(peer.connected_at) >= MIN_CONNECTED {
                debug!(peer = %peer.id, addr = %peer.addr, "one peer more than there are places");
                peer.disconnect(Fault::Useless("extra_peer"));
            }
        }
    }

    /// Peers to return to at the next start.
    pub fn anchors(&self) -> Vec<NetAddress> {
        if self.automatic.is_none() {
            return Vec::new();
        }
        let peers = self.context.shared.peers.lock();
        peers
            .values()
            .filter(|peer| peer.kind == ConnectionKind::BlockRelay && !peer.is_closing())
            .filter_map(|peer| self.open.get(&peer.id)?.address)
            .take(MAX_ANCHORS)
            .collect()
    }
}

/// The one whose last announcement of a new block is the longest ago, and of those the
/// youngest. Spared ones are left out.
fn extra_full_relay(peers: Vec<Arc<Peer>>) -> Option<Arc<Peer>> {
    if peers.len() <= FULL_RELAY {
        return None;
    }
    let use_of = |peer: &Arc<Peer>| (peer.last_announcement(), std::cmp::Reverse(peer.id));
    let peers = peers.into_iter().filter(|peer| !peer.is_spared());
    peers.min_by_key(use_of)
}

/// The youngest, unless it has delivered a block since the second youngest has.
fn extra_block_relay(mut peers: Vec<Arc<Peer>>) -> Option<Arc<Peer>> {
    if peers.len() <= BLOCK_RELAY {
        return None;
    }
    peers.sort_by_key(|peer| peer.id);
    let (youngest, next) = (peers.pop()?, peers.pop()?);
    if youngest.last_block() > next.last_block() {
        Some(next)
    } else {
        Some(youngest)
    }
}

fn peer_addr(address: &NetAddress) -> PeerAddr {
    PeerAddr {
        host: address.addr.to_string(),
        port: address.port,
    }
}
