//! Who wants to hear of what, and what each session has still to be told.
//!
//! notifier -> [`Registry::post`] -> [`Outbox`] of each subscriber -> session -> client
//!
//! # Correctness
//! An outbox holds the newest state of each thing, not a list of events: a client that
//! reads slowly misses steps between, as the protocol allows, and never the last one.
//!
//! # Limits
//! So an outbox has at most one entry per subscription of its session, and posting never
//! waits for a client.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use pulse_primitives::mempool::ScriptHash;
use tokio::sync::Notify;

use super::status::Status;

/// What a session has to tell its client.
pub(super) struct Outbox {
    id: u64,
    pending: Mutex<Pending>,
    /// Wakes the session when there is something.
    pub(super) wake: Notify,
}

/// See [`Outbox`].
#[derive(Default)]
pub(super) struct Pending {
    /// JSON of the newest header, if it changed.
    pub(super) header: Option<Arc<str>>,
    /// Statuses that may have changed.
    pub(super) statuses: Vec<(ScriptHash, Status)>,
    /// Place of each script in `statuses`, once there are many.
    places: HashMap<ScriptHash, usize>,
}

impl Outbox {
    /// Takes everything out.
    pub(super) fn take(&self) -> Pending {
        std::mem::take(&mut *self.pending.lock())
    }

    fn put(&self, script: ScriptHash, status: Status) {
        {
            let mut pending = self.pending.lock();
            let Pending {
                statuses, places, ..
            } = &mut *pending;
            match places.get(&script) {
                Some(place) => statuses[*place].1 = status,
                None => {
                    places.insert(script, statuses.len());
                    statuses.push((script, status));
                }
            }
        }
        self.wake.notify_one();
    }
}

/// Subscribers of one script; nearly always one.
enum Subscribers {
    One(Arc<Outbox>),
    Many(HashMap<u64, Arc<Outbox>>),
}

/// All subscriptions.
#[derive(Default)]
pub(super) struct Registry {
    next_id: AtomicU64,
    scripts: Mutex<HashMap<ScriptHash, Subscribers>>,
    headers: Mutex<HashMap<u64, Arc<Outbox>>>,
}

impl Registry {
    /// An outbox for a new session.
    pub(super) fn outbox(&self) -> Arc<Outbox> {
        Arc::new(Outbox {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            pending: Mutex::default(),
            wake: Notify::new(),
        })
    }

    /// From now on `outbox` hears of `script`.
    pub(super) fn subscribe(&self, script: ScriptHash, outbox: &Arc<Outbox>) {
        let mut scripts = self.scripts.lock();
        match scripts.get_mut(&script) {
            None => {
                scripts.insert(script, Subscribers::One(Arc::clone(outbox)));
            }
            Some(Subscribers::One(first)) if first.id == outbox.id => {}
            Some(all @ Subscribers::One(_)) => {
                let mut many = HashMap::from([(outbox.id, Arc::clone(outbox))]);
                if let Subscribers::One(first) = all {
                    many.insert(first.id, Arc::clone(first));
                }
                *all = Subscribers::Many(many);
            }
            Some(Subscribers::Many(many)) => {
                many.insert(outbox.id, Arc::clone(outbox));
            }
        }
    }

    /// `outbox` hears of `scripts` no more.
    pub(super) fn unsubscribe<'a>(
        &self,
        scripts: impl IntoIterator<Item = &'a ScriptHash>,
        outbox: &Outbox,
    ) {
        let mut all = self.scripts.lock();
        for script in scripts {
            let is_last = match all.get_mut(script) {
                Some(Subscribers::One(only)) => only.id == outbox.id,
                Some(Subscribers::Many(many)) => {
                    many.remove(&outbox.id);
                    many.is_empty()
                }
                None => false,
            };
            if is_last {
                all.remove(script);
            }
        }
    }

    /// From now on `outbox` hears of new tips.
    pub(super) fn subscribe_headers(&self, outbox: &Arc<Outbox>) {
        let mut headers = self.headers.lock();
        headers.insert(outbox.id, Arc::clone(outbox));
    }

    /// `outbox` hears of new tips no more.
    pub(super) fn unsubscribe_headers(&self, outbox: &Outbox) {
        self.headers.lock().remove(&outbox.id);
    }

    /// Whether nobody wants to hear of any script.
    pub(super) fn is_empty(&self) -> bool {
        self.scripts.lock().is_empty()
    }

    /// Those of `scripts` that somebody wants to hear of.
    pub(super) fn wanted(&self, scripts: impl IntoIterator<Item = ScriptHash>) -> Vec<ScriptHash> {
        let all = self.scripts.lock();
        let scripts = scripts.into_iter();
        scripts.filter(|script| all.contains_key(script)).collect()
    }

    /// All scripts that somebody wants to hear of.
    pub(super) fn all(&self) -> Vec<ScriptHash> {
        self.scripts.lock().keys().copied().collect()
    }

    /// Tells the subscribers of `script` its status.
    pub(super) fn post(&self, script: ScriptHash, status: Status) {
        match self.scripts.lock().get(&script) {
            None => {}
            Some(Subscribers::One(outbox)) => outbox.put(script, status),
            Some(Subscribers::Many(many)) => {
                for outbox in many.values() {
                    outbox.put(script, status);
                }
            }
        }
    }

    /// Tells everybody who wants to hear of tips the newest header, as JSON.
    pub(super) fn post_header(&self, header: &Arc<str>) {
        for outbox in self.headers.lock().values() {
            outbox.pending.lock().header = Some(Arc::clone(header));
            outbox.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use pulse_primitives::bitcoin::hashes::{Hash, sha256};

    use super::*;

    fn script(n: u8) -> ScriptHash {
        ScriptHash::hash(&[n])
    }

    #[test]
    fn a_slow_session_is_told_the_newest_state_once() {
        let registry = Registry::default();
        let (slow, other) = (registry.outbox(), registry.outbox());
        registry.subscribe(script(1), &slow);
        registry.subscribe(script(1), &other);
        registry.subscribe(script(2), &slow);
        registry.subscribe_headers(&slow);
        for n in 0..100 {
            registry.post(script(1), Some(sha256::Hash::hash(&[n])));
            registry.post_header(&Arc::from(n.to_string()));
        }
        registry.post(script(2), None);
        let pending = slow.take();
        let newest = Some(sha256::Hash::hash(&[99]));
        assert_eq!(pending.statuses, [(script(1), newest), (script(2), None)]);
        assert_eq!(pending.header.as_deref(), Some("99"));
        assert_eq!(other.take().statuses, [(script(1), newest)]);
        assert!(slow.take().statuses.is_empty());
    }

    #[test]
    fn who_leaves_hears_nothing_and_leaves_nothing() {
        let registry = Registry::default();
        let outboxes = [registry.outbox(), registry.outbox(), registry.outbox()];
        for outbox in &outboxes {
            registry.subscribe(script(1), outbox);
            registry.subscribe(script(1), outbox);
            registry.subscribe_headers(outbox);
        }
        assert_eq!(registry.wanted([script(1), script(2)]), [script(1)]);
        for outbox in &outboxes {
            registry.unsubscribe([&script(1), &script(2)], outbox);
            registry.unsubscribe_headers(outbox);
            registry.post(script(1), None);
            registry.post_header(&Arc::from("x"));
            assert!(outbox.take().statuses.is_empty());
        }
        assert!(registry.is_empty() && registry.headers.lock().is_empty());
    }
}
