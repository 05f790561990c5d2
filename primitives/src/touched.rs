//! Which scripts the changes of the mempool have touched: a list that one writes and many
//! read, each at its own pace.
//!
//! # Limits
//! The newest [`KEPT`] are kept, 32 bytes each. A reader that falls behind more than that
//! is told so ([`Touched::All`]), and has to take all scripts for touched.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::mempool::ScriptHash;

/// Scripts kept for readers that are behind: 2 MiB.
const KEPT: usize = 65_536;

/// What a reader has missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// These, oldest first; the same one may occur several times.
    Scripts(Vec<ScriptHash>),
    /// More than is remembered.
    All,
}

/// The list. Its writer appends after the change can be seen.
#[derive(Debug)]
pub struct TouchedScripts {
    ring: Mutex<VecDeque<ScriptHash>>,
    /// How many scripts were ever appended.
    end: watch::Sender<u64>,
}

impl Default for TouchedScripts {
    fn default() -> Self {
        Self {
            ring: Mutex::default(),
            end: watch::Sender::new(0),
        }
    }
}

impl TouchedScripts {
    /// Appends the scripts of a change, and wakes readers.
    pub fn append(&self, scripts: impl IntoIterator<Item = ScriptHash>) {
        let mut ring = self.lock();
        let mut count = 0;
        for script in scripts {
            if ring.len() == KEPT {
                ring.pop_front();
            }
            ring.push_back(script);
            count += 1;
        }
        if count > 0 {
            // Within the lock, so that the number and the list agree.
            self.end.send_modify(|end| *end += count);
        }
    }

    /// Position of a reader that wants to know what comes from now on, which changes
    /// whenever there is something to read.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.end.subscribe()
    }

    /// What was appended after `position`, and the position after it.
    #[must_use]
    pub fn since(&self, position: u64) -> (Touched, u64) {
        let ring = self.lock();
        let end = *self.end.borrow();
        let missed = usize::try_from(end.saturating_sub(position)).unwrap_or(usize::MAX);
        let touched = match ring.len().checked_sub(missed) {
            Some(skip) => Touched::Scripts(ring.range(skip..).copied().collect()),
            None => Touched::All,
        };
        (touched, end)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<ScriptHash>> {
        // Whatever panicked has left a list that is whole.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;

    use super::*;

    fn script(n: usize) -> ScriptHash {
        ScriptHash::hash(&n.to_le_bytes())
    }

    #[test]
    fn a_reader_gets_what_came_after_its_position() {
        let list = TouchedScripts::default();
        list.append([script(0)]);
        let mut watch = list.watch();
        let position = *watch.borrow_and_update();
        list.append([script(1), script(2)]);
        assert!(watch.has_changed().unwrap());
        let (touched, next) = list.since(position);
        assert_eq!(touched, Touched::Scripts(vec![script(1), script(2)]));
        assert_eq!(list.since(next), (Touched::Scripts(Vec::new()), next));
    }

    #[test]
    fn a_reader_that_is_too_far_behind_is_told() {
        let list = TouchedScripts::default();
        list.append((0..KEPT).map(script));
        assert!(matches!(list.since(0).0, Touched::Scripts(all) if all.len() == KEPT));
        list.append([script(KEPT)]);
        assert_eq!(list.since(0), (Touched::All, KEPT as u64 + 1));
        assert!(matches!(list.since(1).0, Touched::Scripts(all) if all[0] == script(1)));
    }
}
