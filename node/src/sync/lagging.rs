//! Peers that we connected to and that do not keep up with the chain.
//!
//! Pure; time is passed in. A place that such a peer takes is given to another, so that
//! the node is not cut off from the best chain (Bitcoin Core's `ConsiderEviction`).

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use pulse_primitives::bitcoin::{BlockHash, Work};

use crate::p2p::peer::PeerId;

/// A peer may have less work than we for this long.
const CHAIN_SYNC_TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// And then for this long after it was asked.
const RESPONSE_TIME: Duration = Duration::from_secs(2 * 60);
/// Peers that are spared, so that an attacker with a chain of more work than ours, which
/// turns out invalid, cannot drive all others away.
const MAX_PROTECTED: usize = 4;
/// The active chain's tip and its work.
#[derive(Debug, Clone, Copy)]
pub struct TipWork {
    /// Hash of the tip.
    pub hash: BlockHash,
    /// Work from genesis to it.
    pub work: Work,
}

/// What to do about a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Keep,
    /// Ask it for headers from the parent of this block.
    Ask(BlockHash),
    /// Disconnect it.
    Drop,
}

/// Since when a peer lags, and behind what.
#[derive(Debug, Clone, Copy)]
struct Lag {
    deadline: Instant,
    behind: TipWork,
    asked: bool,
}

#[derive(Debug)]
struct Watched {
    may_be_protected: bool,
    protected: bool,
    lag: Option<Lag>,
}

/// The peers that we connected to of our own choice.
#[derive(Debug, Default)]
pub struct Laggards {
    peers: HashMap<PeerId, Watched>,
}

impl Laggards {
    /// A peer is watched from now on. `may_be_protected` for those that relay all.
    pub fn add_peer(&mut self, peer: PeerId, may_be_protected: bool) {
        let watched = Watched {
            may_be_protected,
            protected: false,
            lag: None,
        };
        self.peers.insert(peer, watched);
    }

    /// A peer is gone.
    pub fn remove_peer(&mut self, peer: PeerId) {
        self.peers.remove(&peer);
    }

    /// The peer has told headers up to a chain of `work`.
    pub fn told(&mut self, peer: PeerId, work: Work, tip: TipWork) {
        let protected = self.peers.values().filter(|peer| peer.protected).count();
        if let Some(watched) = self.peers.get_mut(&peer)
            && watched.may_be_protected
            && protected < MAX_PROTECTED
            && work >= tip.work
        {
            watched.protected = true;
        }
    }

    /// Whether the peer is spared.
    #[must_use]
    pub fn is_protected(&self, peer: PeerId) -> bool {
        self.peers.get(&peer).is_some_and(|peer| peer.protected)
    }

    /// Watched peers.
    pub fn peers(&self) -> impl Iterator<Item = PeerId> + '_ {
        self.peers.keys().copied()
    }

    /// Looks at a peer whose best known chain has `work`.
    pub fn check(
        &mut self,
        peer: PeerId,
        work: Option<Work>,
        tip: TipWork,
        now: Instant,
    ) -> Verdict {
        let Some(watched) = self.peers.get_mut(&peer).filter(|peer| !peer.protected) else {
            return Verdict::Keep;
        };
        if work.is_some_and(|work| work >= tip.work) {
            watched.lag = None;
            return Verdict::Keep;
        }
        match &mut watched.lag {
            Some(lag) if work.is_none_or(|work| work < lag.behind.work) => {
                if now <= lag.deadline {
                    return Verdict::Keep;
                }
                if lag.asked {
                    return Verdict::Drop;
                }
                lag.asked = true;
                lag.deadline = now + RESPONSE_TIME;
                Verdict::Ask(lag.behind.hash)
            }
            // It lags for the first time, or has come to where we were then.
            lag => {
                *lag = Some(Lag {
                    deadline: now + CHAIN_SYNC_TIMEOUT,
                    behind: tip,
                    asked: false,
                });
                Verdict::Keep
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use pulse_primitives::bitcoin::hashes::Hash;

    use super::*;

    const A: PeerId = PeerId(1);

    fn work(amount: u8) -> Work {
        let mut bytes = [0; 32];
        bytes[31] = amount;
        Work::from_be_bytes(bytes)
    }

    fn tip(amount: u8) -> TipWork {
        TipWork {
            hash: BlockHash::from_byte_array([amount; 32]),
            work: work(amount),
        }
    }

    #[test]
    fn a_peer_that_stays_behind_is_asked_and_then_dropped() {
        let start = Instant::now();
        let mut laggards = Laggards::default();
        laggards.add_peer(A, true);
        let mut check = |work_of_peer: Option<u8>, tip_work, secs| {
            let now = start + Duration::from_secs(secs);
            laggards.check(A, work_of_peer.map(work), tip(tip_work), now)
        };
        assert_eq!(check(None, 10, 0), Verdict::Keep);
        assert_eq!(check(Some(3), 11, 1200), Verdict::Keep);
        assert_eq!(check(Some(3), 12, 1201), Verdict::Ask(tip(10).hash));
        assert_eq!(check(Some(9), 12, 1321), Verdict::Keep);
        assert_eq!(check(Some(9), 12, 1322), Verdict::Drop);
    }

    #[test]
    fn a_peer_that_comes_to_where_we_were_gets_more_time() {
        let start = Instant::now();
        let mut laggards = Laggards::default();
        laggards.add_peer(A, true);
        let mut check = |work_of_peer: u8, tip_work, secs| {
            let now = start + Duration::from_secs(secs);
            laggards.check(A, Some(work(work_of_peer)), tip(tip_work), now)
        };
        assert_eq!(check(5, 10, 0), Verdict::Keep);
        assert_eq!(check(5, 20, 1201), Verdict::Ask(tip(10).hash));
        assert_eq!(check(10, 20, 1202), Verdict::Keep);
        assert_eq!(check(10, 20, 2402), Verdict::Keep);
        assert_eq!(check(10, 20, 2403), Verdict::Ask(tip(20).hash));
        // At our tip it is as good as new.
        assert_eq!(check(20, 20, 2404), Verdict::Keep);
        assert_eq!(check(20, 21, 9999), Verdict::Keep);
        assert_eq!(check(20, 21, 10_000), Verdict::Keep);
    }

    #[test]
    fn four_peers_that_once_had_our_work_are_spared_and_block_relay_never() {
        let start = Instant::now();
        let mut laggards = Laggards::default();
        laggards.add_peer(PeerId(9), false);
        laggards.told(PeerId(9), work(10), tip(10));
        for id in 1..=6 {
            laggards.add_peer(PeerId(id), true);
            laggards.told(PeerId(id), work(if id == 1 { 9 } else { 10 }), tip(10));
        }
        let spared: Vec<_> = (1..=9)
            .filter(|id| laggards.is_protected(PeerId(*id)))
            .collect();
        assert_eq!(spared, [2, 3, 4, 5]);
        for secs in [0, 1201, 1322] {
            let now = start + Duration::from_secs(secs);
            let verdicts = [2, 6].map(|id| laggards.check(PeerId(id), None, tip(20), now));
            assert_eq!(verdicts[0], Verdict::Keep);
            assert_eq!(verdicts[1] == Verdict::Drop, secs == 1322);
        }
        laggards.remove_peer(PeerId(2));
        laggards.told(PeerId(6), work(20), tip(20));
        assert!(laggards.is_protected(PeerId(6)));
    }
}
