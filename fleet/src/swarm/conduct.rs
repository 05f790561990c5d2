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

/// Messages of one sibling a second that are looked at. A fleet of 64 makes a hundred.
pub const MAX_RATE: u32 = 200;
/// Faults of one sibling within a minute that it is cut off for.
pub const MAX_FAULTS: u32 = 3;

const RATE_SPAN: Duration = Duration::from_secs(1);
const FAULT_SPAN: Duration = Duration::from_secs(60);

/// Whether a message is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rate {
    /// It is.
    Fine,
    /// It is the first one of this second that is not.
    Exceeded,
    /// Neither is this one.
    Flood,
}

/// The conduct of all siblings.
#[derive(Debug, Default)]
pub(super) struct Conduct(HashMap<PeerId, Account>);

#[derive(Debug)]
struct Account {
    since: Instant,
    messages: u32,
    faults: u32,
    faults_since: Instant,
}

impl Conduct {
    /// Counts a message of `peer`.
    pub(super) fn message(&mut self, peer: PeerId, now: Instant) -> Rate {
        let account = self.account(peer, now);
        if now.duration_since(account.since) >= RATE_SPAN {
            (account.since, account.messages) = (now, 0);
        }
        account.messages = account.messages.saturating_add(1);
        match account.messages {
            0..=MAX_RATE => Rate::Fine,
            messages if messages == MAX_RATE + 1 => Rate::Exceeded,
            _ => Rate::Flood,
        }
    }

    /// Counts a fault of `peer`; whether it has committed too many.
    pub(super) fn fault(&mut self, peer: PeerId, now: Instant) -> bool {
        let account = self.account(peer, now);
        if now.duration_since(account.faults_since) >= FAULT_SPAN {
            (account.faults_since, account.faults) = (now, 0);
        }
        account.faults += 1;
        account.faults >= MAX_FAULTS
    }

    /// `peer` is gone.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.0.remove(peer);
    }

    fn account(&mut self, peer: PeerId, now: Instant) -> &mut Account {
        self.0.entry(peer).or_insert(Account {
            since: now,
            messages: 0,
            faults: 0,
            faults_since: now,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_counted_anew_each_second() {
        let (mut conduct, peer) = (Conduct::default(), PeerId::random());
        let start = Instant::now();
        for _ in 0..MAX_RATE {
            assert_eq!(conduct.message(peer, start), Rate::Fine);
        }
        assert_eq!(conduct.message(peer, start), Rate::Exceeded);
        assert_eq!(conduct.message(peer, start), Rate::Flood);
        assert_eq!(conduct.message(PeerId::random(), start), Rate::Fine);
        assert_eq!(conduct.message(peer, start + RATE_SPAN), Rate::Fine);
    }

    #[test]
    fn faults_add_up_within_a_minute_and_are_forgotten_then() {
        let (mut conduct, peer) = (Conduct::default(), PeerId::random());
        let start = Instant::now();
        for _ in 1..MAX_FAULTS {
            assert!(!conduct.fault(peer, start));
        }
        assert!(!conduct.fault(peer, start + FAULT_SPAN), "a new minute");
        for _ in 2..MAX_FAULTS {
            assert!(!conduct.fault(peer, start + FAULT_SPAN));
        }
        assert!(conduct.fault(peer, start + FAULT_SPAN));
    }
}
