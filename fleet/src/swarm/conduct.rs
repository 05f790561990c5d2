//! How siblings behave in gossip: how much each one sends, and what no honest node sends.
//!
//! # Limits
//! Per sibling [`MAX_RATE`] messages a second and [`MAX_FAULTS`] faults a minute. Only
//! connected siblings are remembered.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use libp2p::PeerId;

/// Messages of one sibling a second that are looked at, duplicates among them. A fleet of 64
/// makes a hundred.
pub const MAX_RATE: usize = 200;
/// Faults of one sibling within a minute that it is cut off for.
pub const MAX_FAULTS: usize = 3;

const RATE_SPAN: Duration = Duration::from_secs(1);
const FAULT_SPAN: Duration = Duration::from_secs(60);

/// Whether messages are to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rate {
    /// They are.
    Fine,
    /// They are the first ones of this second that are not.
    Exceeded,
    /// Neither are these.
    Flood,
}

/// How many messages each sibling sends.
#[derive(Debug, Default)]
pub(super) struct Rates(Spans);

impl Rates {
    /// Counts messages of `peer`.
    pub(super) fn count(&mut self, peer: PeerId, messages: usize, now: Instant) -> Rate {
        let before = self.0.count(peer, 0, RATE_SPAN, now);
        let after = self.0.count(peer, messages, RATE_SPAN, now);
        match (before > MAX_RATE, after > MAX_RATE) {
            (_, false) => Rate::Fine,
            (false, true) => Rate::Exceeded,
            (true, true) => Rate::Flood,
        }
    }

    /// `peer` is gone.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.0.forget(peer);
    }
}

/// What each sibling did that no honest node does.
#[derive(Debug, Default)]
pub(super) struct Faults(Spans);

impl Faults {
    /// Counts a fault of `peer`; whether it has committed too many.
    pub(super) fn count(&mut self, peer: PeerId, now: Instant) -> bool {
        self.0.count(peer, 1, FAULT_SPAN, now) >= MAX_FAULTS
    }

    /// `peer` is gone.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.0.forget(peer);
    }
}

/// Counts of siblings, each of a span of time that begins anew when it is over.
#[derive(Debug, Default)]
struct Spans(HashMap<PeerId, (Instant, usize)>);

impl Spans {
    fn count(&mut self, peer: PeerId, more: usize, span: Duration, now: Instant) -> usize {
        let (since, count) = self.0.entry(peer).or_insert((now, 0));
        if now.duration_since(*since) >= span {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(more);
        *count
    }

    fn forget(&mut self, peer: &PeerId) {
        self.0.remove(peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_counted_anew_each_second() {
        let (mut rates, peer) = (Rates::default(), PeerId::random());
        let start = Instant::now();
        for _ in 0..MAX_RATE / 2 {
            assert_eq!(rates.count(peer, 2, start), Rate::Fine);
        }
        assert_eq!(rates.count(peer, 2, start), Rate::Exceeded);
        assert_eq!(rates.count(peer, 2, start), Rate::Flood);
        assert_eq!(rates.count(PeerId::random(), 2, start), Rate::Fine);
        assert_eq!(rates.count(peer, 2, start + RATE_SPAN), Rate::Fine);
    }

    #[test]
    fn faults_add_up_within_a_minute_and_are_forgotten_then() {
        let (mut faults, peer) = (Faults::default(), PeerId::random());
        let start = Instant::now();
        for _ in 1..MAX_FAULTS {
            assert!(!faults.count(peer, start));
        }
        for _ in 1..MAX_FAULTS {
            assert!(!faults.count(peer, start + FAULT_SPAN), "a new minute");
        }
        assert!(faults.count(peer, start + FAULT_SPAN));
    }
}
