//! The peers that the operator named: which are connected, and when the others are
//! tried again.
//!
//! Pure; time and chance are passed in.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::close::Penalty;
use crate::{
    config::SyncConfig,
    p2p::{PeerAddr, peer::PeerId},
};

enum State {
    Waiting { until: Instant },
    Taken(PeerId),
}

struct Slot {
    addr: PeerAddr,
    state: State,
    /// Connections in a row that were of no use.
    failures: u32,
    /// What the peer of an earlier connection did was found out during this one.
    punished: bool,
}

/// One slot per configured peer.
pub(super) struct Slots {
    slots: Vec<Slot>,
    by_peer: HashMap<PeerId, usize>,
    retry_min: Duration,
    retry_max: Duration,
    retry_misbehaving: Duration,
}

impl Slots {
    pub fn new(peers: Vec<PeerAddr>, config: &SyncConfig, now: Instant) -> Self {
        let slots = peers
            .into_iter()
            .map(|addr| Slot {
                addr,
                state: State::Waiting { until: now },
                failures: 0,
                punished: false,
            })
            .collect();
        Self {
            slots,
            by_peer: HashMap::new(),
            retry_min: Duration::from_secs(config.retry_min_secs),
            retry_max: Duration::from_secs(config.retry_max_secs),
            retry_misbehaving: Duration::from_secs(config.retry_misbehaving_secs),
        }
    }

    /// Slots that are to be dialled now.
    pub fn due(&self, now: Instant) -> Vec<usize> {
        (0..self.slots.len())
            .filter(|index| {
                matches!(self.slots[*index].state, State::Waiting { until } if until <= now)
            })
            .collect()
    }

    /// Gives the slot to a connection; its address.
    pub fn take(&mut self, index: usize, peer: PeerId) -> PeerAddr {
        self.slots[index].state = State::Taken(peer);
        self.by_peer.insert(peer, index);
        self.slots[index].addr.clone()
    }

    fn slot_of(&self, peer: PeerId) -> Option<usize> {
        self.by_peer.get(&peer).copied()
    }

    /// The connection was of use: its next loss counts as the first.
    pub fn useful(&mut self, peer: PeerId) {
        if let Some(index) = self.slot_of(peer) {
            self.slots[index].failures = 0;
        }
    }

    /// The connection is over; how long the slot waits. `chance` is in 0..1.
    pub fn release(
        &mut self,
        peer: PeerId,
        penalty: Penalty,
        chance: f64,
        now: Instant,
    ) -> Option<Duration> {
        let index = self.by_peer.remove(&peer)?;
        let slot = &mut self.slots[index];
        let penalty = if std::mem::take(&mut slot.punished) {
            Penalty::Misbehaved
        } else {
            penalty
        };
        let wait = match penalty {
            Penalty::None => {
                let doubled = self.retry_min.saturating_mul(1 << slot.failures.min(16));
                // Between half of it and all of it, so that many nodes do not come at once.
                doubled
                    .min(self.retry_max)
                    .mul_f64(0.5 + chance / 2.0)
                    .max(self.retry_min)
            }
            Penalty::Slow => self.retry_max,
            Penalty::Misbehaved => self.retry_misbehaving,
        };
        slot.failures = slot.failures.saturating_add(1);
        slot.state = State::Waiting { until: now + wait };
        Some(wait)
    }

    /// The peer at `addr` was found to have misbehaved in an earlier connection. Gives
    /// the connection that it has now, which is to be ended.
    pub fn punish(&mut self, addr: &PeerAddr, now: Instant) -> Option<PeerId> {
        let slot = self.slots.iter_mut().find(|slot| slot.addr == *addr)?;
        match &mut slot.state {
            State::Waiting { until } => {
                *until = (*until).max(now + self.retry_misbehaving);
                None
            }
            State::Taken(peer) => {
                slot.punished = true;
                Some(*peer)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_misbehaviour_waits_longest() {
        let start = Instant::now();
        let peer = PeerId(1);
        let addr = PeerAddr::parse("host", 1).unwrap();
        let mut slots = Slots::new(vec![addr.clone()], &SyncConfig::default(), start);
        let mut lose = |penalty| {
            slots.take(0, peer);
            slots.release(peer, penalty, 1.0, start).unwrap().as_secs()
        };
        let waits: Vec<_> = (0..8).map(|_| lose(Penalty::None)).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(lose(Penalty::Slow), 60);
        assert_eq!(lose(Penalty::Misbehaved), 600);
        slots.take(0, peer);
        slots.useful(peer);
        assert_eq!(
            slots.release(peer, Penalty::None, 0.0, start),
            Some(Duration::from_secs(1))
        );
        assert!(slots.due(start).is_empty());
        assert_eq!(slots.due(start + Duration::from_secs(1)), [0]);
        assert_eq!(slots.punish(&addr, start), None);
        assert!(slots.due(start + Duration::from_secs(599)).is_empty());
        let later = start + Duration::from_secs(600);
        assert_eq!(slots.due(later), [0]);
        slots.take(0, peer);
        assert_eq!(slots.punish(&addr, later), Some(peer));
        assert_eq!(
            slots.release(peer, Penalty::None, 0.0, later),
            Some(Duration::from_secs(600))
        );
    }
}
