//! Notices the one peer that holds everything up.
//!
//! Pure; time is passed in. The patience doubles with each peer that is found to
//! stall, because it may be our own line that is slow, and shrinks again as blocks
//! are connected (both as Bitcoin Core does).

use std::time::{Duration, Instant};

use super::blocks::Blocker;
use crate::p2p::peer::PeerId;

/// Longest patience.
const MAX_PATIENCE: Duration = Duration::from_secs(64);
/// At the end of the chain a peer gets this many times the patience: the block may
/// just be on its way.
const TAIL_FACTOR: u32 = 5;

/// Watches for a peer that blocks the window.
#[derive(Debug)]
pub struct StallDetector {
    min_patience: Duration,
    patience: Duration,
    blocked: Option<(PeerId, Instant)>,
}

impl StallDetector {
    /// A detector with this initial and least patience.
    #[must_use]
    pub fn new(min_patience: Duration) -> Self {
        Self {
            min_patience,
            patience: min_patience,
            blocked: None,
        }
    }

    /// Takes note of who blocks the window now, if anybody. Gives the peer that did so
    /// for too long and is to be disconnected.
    pub fn check(&mut self, blocker: Option<Blocker>, now: Instant) -> Option<PeerId> {
        let Some(blocker) = blocker else {
            self.blocked = None;
            return None;
        };
        let blocked_since = match self.blocked {
            Some((peer, since)) if peer == blocker.peer => since,
            _ => {
                self.blocked = Some((blocker.peer, now));
                now
            }
        };
        let factor = if blocker.window_full { 1 } else { TAIL_FACTOR };
        let waited = now.duration_since(blocked_since.max(blocker.since));
        if waited <= self.patience * factor {
            return None;
        }
        self.blocked = None;
        self.patience = (self.patience * 2).min(MAX_PATIENCE.max(self.min_patience));
        Some(blocker.peer)
    }

    /// A block has come that was waited for.
    pub fn relax(&mut self) {
        self.patience = self.patience.mul_f64(0.85).max(self.min_patience);
    }
}
