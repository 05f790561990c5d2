//! The progress line of a sync: where it is, how fast, and how long still.

use std::time::{Duration, Instant};

use pulse_primitives::Height;
use tracing::info;

/// Time between two lines.
const INTERVAL: Duration = Duration::from_secs(10);
/// A chain this close to the best header is followed, not synced.
const FOLLOWING_BLOCKS: Height = 2;

/// Where the sync stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    /// Whether a peer has told all its headers, and they have enough work.
    pub headers_complete: bool,
    /// Headers that a peer has shown and that are not stored yet.
    pub presync: Option<Presyncing>,
    /// Tip of the active chain.
    pub active: Height,
    /// Tip of the best header chain.
    pub best: Height,
    /// Peers with a finished handshake.
    pub peers: usize,
}

/// The presync that has come farthest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Presyncing {
    /// Whether the peer has shown enough work and sends its headers again.
    pub has_shown_work: bool,
    /// Height that it has come to.
    pub height: Height,
}

/// Counts, and writes a line every ten seconds while there is something to sync.
pub(super) struct Progress {
    last: Instant,
    last_active: Height,
    blocks: u64,
    txs: u64,
    syncing: bool,
}

impl Progress {
    pub fn new(active: Height, now: Instant) -> Self {
        Self {
            last: now,
            last_active: active,
            blocks: 0,
            txs: 0,
            syncing: true,
        }
    }

    /// The kernel has accepted a block.
    pub fn count(&mut self, txs: u64) {
        self.blocks += 1;
        self.txs += txs;
    }

    /// Writes the line if it is time.
    pub fn tick(&mut self, position: Position, now: Instant) {
        let behind = position.best.saturating_sub(position.active);
        let syncing = !position.headers_complete || behind > FOLLOWING_BLOCKS;
        if self.syncing && !syncing {
            info!(
                height = position.active,
                peers = position.peers,
                "chain synced"
            );
            self.syncing = false;
        }
        let elapsed = now.duration_since(self.last);
        if elapsed < INTERVAL {
            return;
        }
        if syncing {
            self.write(position, elapsed);
        }
        self.syncing = syncing;
        self.last = now;
        self.last_active = position.active;
        self.blocks = 0;
        self.txs = 0;
    }

    #[expect(clippy::cast_precision_loss, reason = "rates for people")]
    fn write(&self, position: Position, elapsed: Duration) {
        let Position {
            active,
            best,
            peers,
            ..
        } = position;
        if !position.headers_complete {
            match position.presync {
                Some(presync) if presync.has_shown_work => {
                    info!(
                        height = presync.height,
                        peers, "downloading headers again to store them"
                    );
                }
                Some(presync) => {
                    info!(
                        height = presync.height,
                        peers, "summing the work of headers"
                    );
                }
                None => info!(height = best, peers, "syncing headers"),
            }
            return;
        }
        let seconds = elapsed.as_secs_f64();
        let connected = active.saturating_sub(self.last_active);
        let percent = f64::from(active) * 100.0 / f64::from(best.max(1));
        let left = (connected > 0)
            .then(|| f64::from(best.saturating_sub(active)) * seconds / f64::from(connected));
        info!(
            height = active,
            best,
            percent = format_args!("{percent:.2}"),
            blocks_per_s = format_args!("{:.1}", self.blocks as f64 / seconds),
            txs_per_s = format_args!("{:.0}", self.txs as f64 / seconds),
            left = %left.map_or_else(|| "unknown".to_owned(), duration_words),
            peers,
            "syncing blocks"
        );
    }
}

/// `1d02h`, `3h04m`, `5m06s` or `7s`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative, and saturating is right for an estimate"
)]
fn duration_words(seconds: f64) -> String {
    let seconds = seconds as u64;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        for (seconds, words) in [
            (7.9, "7s"),
            (306.0, "5m06s"),
            (11_040.0, "3h04m"),
            (93_600.0, "1d02h"),
        ] {
            assert_eq!(duration_words(seconds), words);
        }
    }
}
