//! Who wants to hear of what, and what each session has still to be told: for the Electrum
//! server scripts and their statuses, for the push server anything and its state.
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
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// What a session has to tell its client.
pub(crate) struct Outbox<K, V> {
    id: u64,
    pending: Mutex<Pending<K, V>>,
    /// Wakes the session when there is something.
    pub(crate) wake: Notify,
}

/// See [`Outbox`].
pub(crate) struct Pending<K, V> {
    /// JSON of the newest header, if it changed.
    pub(crate) header: Option<Arc<str>>,
    /// States that may have changed.
    pub(crate) states: Vec<(K, V)>,
    /// Place of each key in `states`.
    places: HashMap<K, usize>,
}

impl<K, V> Default for Pending<K, V> {
    fn default() -> Self {
        Self {
            header: None,
            states: Vec::new(),
            places: HashMap::new(),
        }
    }
}

impl<K: Copy + Eq + Hash, V> Outbox<K, V> {
    /// Takes everything out.
    pub(crate) fn take(&self) -> Pending<K, V> {
        std::mem::take(&mut *self.pending.lock())
    }

    fn put(&self, key: K, state: V) {
        {
            let mut pending = self.pending.lock();
            let Pending { states, places, .. } = &mut *pending;
            match places.get(&key) {
                Some(place) => states[*place].1 = state,
                None => {
                    places.insert(key, states.len());
                    states.push((key, state));
                }
            }
        }
        self.wake.notify_one();
    }
}

/// Subscribers of one thing; nearly always one.
enum Subscribers<K, V> {
    One(Arc<Outbox<K, V>>),
    Many(HashMap<u64, Arc<Outbox<K, V>>>),
}

/// All subscriptions.
pub(crate) struct Registry<K, V> {
    next_id: AtomicU64,
    keys: Mutex<HashMap<K, Subscribers<K, V>>>,
    headers: Mutex<HashMap<u64, Arc<Outbox<K, V>>>>,
}

impl<K, V> Default for Registry<K, V> {
    fn default() -> Self {
        Self {
            next_id: AtomicU64::default(),
            keys: Mutex::default(),
            headers: Mutex::default(),
        }
    }
}

impl<K: Copy + Eq + Hash, V: Clone> Registry<K, V> {
    /// An outbox for a new session.
    pub(crate) fn outbox(&self) -> Arc<Outbox<K, V>> {
        Arc::new(Outbox {
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            pending: Mutex::default(),
            wake: Notify::new(),
        })
    }

    /// From now on `outbox` hears of `key`.
    pub(crate) fn subscribe(&self, key: K, outbox: &Arc<Outbox<K, V>>) {
        let mut keys = self.keys.lock();
        match keys.get_mut(&key) {
            None => {
                keys.insert(key, Subscribers::One(Arc::clone(outbox)));
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

    /// `outbox` hears of `keys` no more.
    pub(crate) fn unsubscribe<'a>(
        &self,
        keys: impl IntoIterator<Item = &'a K>,
        outbox: &Outbox<K, V>,
    ) where
        K: 'a,
    {
        let mut all = self.keys.lock();
        for key in keys {
            let is_last = match all.get_mut(key) {
                Some(Subscribers::One(only)) => only.id == outbox.id,
                Some(Subscribers::Many(many)) => {
                    many.remove(&outbox.id);
                    many.is_empty()
                }
                None => false,
            };
            if is_last {
                all.remove(key);
            }
        }
    }

    /// From now on `outbox` hears of new tips.
    pub(crate) fn subscribe_headers(&self, outbox: &Arc<Outbox<K, V>>) {
        let mut headers = self.headers.lock();
        headers.insert(outbox.id, Arc::clone(outbox));
    }

    /// `outbox` hears of new tips no more.
    pub(crate) fn unsubscribe_headers(&self, outbox: &Outbox<K, V>) {
        self.headers.lock().remove(&outbox.id);
    }

    /// Whether nobody wants to hear of anything but tips.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.lock().is_empty()
    }

    /// Those of `keys` that somebody wants to hear of.
    pub(crate) fn wanted(&self, keys: impl IntoIterator<Item = K>) -> Vec<K> {
        let all = self.keys.lock();
        let keys = keys.into_iter();
        keys.filter(|key| all.contains_key(key)).collect()
    }

    /// Everything that somebody wants to hear of.
    pub(crate) fn all(&self) -> Vec<K> {
        self.keys.lock().keys().copied().collect()
    }

    /// Tells the subscribers of `key` its state.
    pub(crate) fn post(&self, key: K, state: V) {
        match self.keys.lock().get(&key) {
            None => {}
            Some(Subscribers::One(outbox)) => outbox.put(key, state),
            Some(Subscribers::Many(many)) => {
                for outbox in many.values() {
                    outbox.put(key, state.clone());
                }
            }
        }
    }

    /// Tells everybody who wants to hear of tips the newest header, as JSON.
    pub(crate) fn post_header(&self, header: &Arc<str>) {
        for outbox in self.headers.lock().values() {
            outbox.pending.lock().header = Some(Arc::clone(header));
            outbox.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use pulse_primitives::{
        bitcoin::hashes::{Hash, sha256},
        mempool::ScriptHash,
    };

    use super::*;

    fn script(n: u8) -> ScriptHash {
        ScriptHash::hash(&[n])
    }

    #[test]
    fn a_slow_session_is_told_the_newest_state_once() {
        let registry = Registry::<_, Option<sha256::Hash>>::default();
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
        assert_eq!(pending.states, [(script(1), newest), (script(2), None)]);
        assert_eq!(pending.header.as_deref(), Some("99"));
        assert_eq!(other.take().states, [(script(1), newest)]);
        assert!(slow.take().states.is_empty());
    }

    #[test]
    fn who_leaves_hears_nothing_and_leaves_nothing() {
        let registry = Registry::<_, Option<sha256::Hash>>::default();
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
            // What it heard before the others left is not what this is about.
            outbox.take();
            registry.post(script(1), None);
            registry.post_header(&Arc::from("x"));
            assert!(outbox.take().states.is_empty());
        }
        assert!(registry.is_empty() && registry.headers.lock().is_empty());
    }
}
