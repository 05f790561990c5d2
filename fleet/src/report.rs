//! What others see of the fleet.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use libp2p::{Multiaddr, PeerId};
use parking_lot::Mutex;
use pulse_primitives::{
    Height,
    fleet::{FleetReport, FleetSource, FleetStatus, SiblingReport, SiblingState},
};

use crate::{metrics, status::Status};

/// What a sibling told is forgotten after this time.
const STALE: Duration = Duration::from_secs(30);

/// A sibling.
#[derive(Debug, Default)]
pub(crate) struct Sibling {
    /// Connections, and where the newest one goes.
    pub connections: u32,
    pub addr: Option<Multiaddr>,
    pub ping: Option<Duration>,
    /// Streams that the node has.
    pub links: usize,
    pub told: Option<(Instant, Status)>,
}

/// What the swarm's task publishes.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub siblings: HashMap<PeerId, Sibling>,
    pub listen: Vec<Multiaddr>,
    pub refused: u64,
    /// Whether seeds have addresses and nobody is being dialled. Never with mDNS, where others
    /// may still come forward.
    pub is_settled: bool,
}

impl View {
    /// Forgets siblings that are gone.
    pub fn expire(&mut self, now: Instant) {
        self.siblings.retain(|_, sibling| {
            let is_stale = |(at, _): &(Instant, Status)| now.duration_since(*at) > STALE;
            if sibling.told.as_ref().is_some_and(is_stale) {
                sibling.told = None;
            }
            sibling.connections > 0 || sibling.told.is_some()
        });
        let connected = self
            .siblings
            .values()
            .filter(|sibling| sibling.connections > 0);
        let linked = self.siblings.values().filter(|sibling| sibling.links > 0);
        metrics::siblings(connected.count(), linked.count());
    }
}

/// Cloneable client of the fleet.
#[derive(Clone)]
pub struct FleetHandle {
    pub(crate) own: PeerId,
    pub(crate) view: Arc<Mutex<View>>,
    pub(crate) source: Arc<dyn FleetSource>,
    pub(crate) max_lag_blocks: Height,
}

impl FleetStatus for FleetHandle {
    fn report(&self) -> FleetReport {
        let now = Instant::now();
        let (listen, refused, mut siblings) = {
            let view = self.view.lock();
            let siblings = view.siblings.iter();
            let siblings: Vec<_> = siblings
                .map(|(peer, sibling)| describe(peer, sibling, now))
                .collect();
            let listen = view.listen.iter().map(ToString::to_string).collect();
            (listen, view.refused, siblings)
        };
        siblings.sort_by(|one, other| one.peer_id.cmp(&other.peer_id));
        let mut best_height = None;
        for told in siblings
            .iter_mut()
            .filter_map(|sibling| sibling.told.as_mut())
        {
            let checked = self.source.header_height(&told.tip_hash);
            told.tip_checked = checked.is_some();
            best_height = best_height.max(checked);
        }
        if let Some(height) = best_height {
            metrics::best_height(height);
        }
        FleetReport {
            peer_id: self.own.to_string(),
            listen,
            best_height,
            refused,
            siblings,
        }
    }

    fn max_lag_blocks(&self) -> Height {
        self.max_lag_blocks
    }
}

fn describe(peer: &PeerId, sibling: &Sibling, now: Instant) -> SiblingReport {
    let told = sibling.told.as_ref().map(|(at, status)| SiblingState {
        age_seconds: now.duration_since(*at).as_secs(),
        version: status.version.clone(),
        tip_height: status.height,
        tip_hash: status.header.block_hash(),
        tip_checked: false,
        indexed_height: status.indexed,
        lag_blocks: status.height.saturating_sub(status.indexed.unwrap_or(0)),
        load_percent: status.load_percent,
        is_draining: status.is_draining,
    });
    let ping = sibling.ping.map(|ping| ping.as_millis());
    SiblingReport {
        peer_id: peer.to_string(),
        connected: sibling.connections > 0,
        addr: sibling.addr.as_ref().map(ToString::to_string),
        linked: sibling.links > 0,
        ping_ms: ping.and_then(|ping| u64::try_from(ping).ok()),
        told,
    }
}
