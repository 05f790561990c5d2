//! What is remembered of peers from one run to the next: addresses and bans, saved now
//! and then and at the stop, and the anchors, saved at the stop alone.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use pulse_primitives::ports::{PeerStore, StoreKey};
use tokio::task::{JoinHandle, spawn_blocking};
use tracing::warn;

use super::handle::Shared;
use crate::p2p::{NetAddress, anchors};

/// Time between two times of saving (Bitcoin Core's `DUMP_PEERS_INTERVAL`).
const INTERVAL: Duration = Duration::from_secs(15 * 60);

/// Saves to a store, if there is one.
pub(super) struct Persist {
    store: Option<Arc<dyn PeerStore>>,
    next: Instant,
    saving: Option<JoinHandle<()>>,
}

impl Persist {
    pub fn new(store: Option<Arc<dyn PeerStore>>, now: Instant) -> Self {
        Self {
            store,
            next: now + INTERVAL,
            saving: None,
        }
    }

    /// Loads addresses and bans into the book, and takes the anchors out of the store if
    /// they are `wanted`.
    pub async fn load(&self, shared: &Arc<Shared>, wanted: bool) -> Vec<NetAddress> {
        let Some(store) = self.store.clone() else {
            return Vec::new();
        };
        let shared = Arc::clone(shared);
        let loaded = spawn_blocking(move || {
            shared.book.lock().load(store.as_ref());
            if !wanted {
                return Vec::new();
            }
            anchors::take(store.as_ref()).unwrap_or_else(|err| {
                warn!(%err, "the saved anchors cannot be used");
                Vec::new()
            })
        });
        loaded.await.unwrap_or_else(|err| {
            warn!(%err, "what is known of peers could not be loaded");
            Vec::new()
        })
    }

    /// Begins to save when it is time, or at once if it is `urgent`; whether it has.
    pub fn save_when_due(&mut self, shared: &Arc<Shared>, urgent: bool, now: Instant) -> bool {
        let is_busy = self.saving.as_ref().is_some_and(|task| !task.is_finished());
        if is_busy || !(urgent || self.next <= now) {
            return false;
        }
        self.next = now + INTERVAL;
        if let Some(store) = self.store.clone() {
            let shared = Arc::clone(shared);
            self.saving = Some(spawn_blocking(move || save(&shared, store.as_ref())));
        }
        true
    }

    /// Saves everything.
    pub async fn save_all(self, shared: &Arc<Shared>, anchors: Vec<NetAddress>) {
        if let Some(saving) = self.saving {
            // What it has missed is saved now.
            let _ = saving.await;
        }
        let Some(store) = self.store else {
            return;
        };
        let shared = Arc::clone(shared);
        let saved = spawn_blocking(move || {
            save(&shared, store.as_ref());
            if !anchors.is_empty() {
                anchors::save(store.as_ref(), &anchors);
            }
        });
        if let Err(err) = saved.await {
            warn!(%err, "what is known of peers could not be saved");
        }
    }
}

fn save(shared: &Shared, store: &dyn PeerStore) {
    let (addresses, bans) = {
        let book = shared.book.lock();
        (book.man.encode(), book.bans.encode())
    };
    store.save(StoreKey::Addresses, &addresses);
    store.save(StoreKey::Bans, &bans);
}
