//! Which connections are served, and which are accepted only to be told why they are not.
//!
//! # Limits
//! With all places taken for those that are served, up to [`TOLD_CONNECTIONS`] are told that
//! the listener is full, and others wait in the backlog of the operating system. One beyond the
//! share of its address takes no place of those that are served: it is told so, or closed
//! without a word if too many are being told.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections that are told at the same time why they are not served.
pub(super) const TOLD_CONNECTIONS: usize = 64;

/// Why a connection was accepted only to say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The listener has as many as it may.
    Full,
    /// Its address has.
    OverShare,
}

/// What bounds the connections of a listener.
pub(super) struct Places {
    served: Arc<Semaphore>,
    told: Arc<Semaphore>,
    shares: Arc<Shares>,
    /// Most connections of one address; 0 is no limit.
    per_address: usize,
}

/// A connection's place, given back when dropped.
pub(super) struct Place {
    /// Why it is not served.
    pub(super) refused: Option<Refused>,
    _slot: OwnedSemaphorePermit,
    _share: Share,
}

impl Places {
    /// For `served` connections, `per_address` of them of one address.
    pub(super) fn new(served: usize, per_address: usize) -> Self {
        Self {
            served: Arc::new(Semaphore::new(served)),
            told: Arc::new(Semaphore::new(TOLD_CONNECTIONS)),
            shares: Arc::default(),
            per_address,
        }
    }

    /// The place of a connection from `addr`. Waits until there is one; `None` if there is none
    /// for an address that has its share, since others must not wait for it.
    pub(super) async fn find(&self, addr: IpAddr) -> Option<Place> {
        let share = self.shares.take(addr);
        let told = Arc::clone(&self.told);
        let (refused, slot) = if self.per_address > 0 && share.count > self.per_address {
            (Some(Refused::OverShare), told.try_acquire_owned().ok()?)
        } else {
            let never_closed = "the semaphore is never closed";
            tokio::select! {
                biased;
                slot = Arc::clone(&self.served).acquire_owned() => (None, slot.expect(never_closed)),
                slot = told.acquire_owned() => (Some(Refused::Full), slot.expect(never_closed)),
            }
        };
        Some(Place {
            refused,
            _slot: slot,
            _share: share,
        })
    }
}

/// Connections of each address.
#[derive(Default)]
struct Shares(Mutex<HashMap<IpAddr, usize>>);

/// A connection of an address, until it is dropped.
struct Share {
    shares: Arc<Shares>,
    network: IpAddr,
    /// How many the address had with this one.
    count: usize,
}

impl Shares {
    fn take(self: &Arc<Self>, addr: IpAddr) -> Share {
        let network = network(addr);
        let mut counts = self.0.lock();
        let count = counts.entry(network).or_default();
        *count += 1;
        Share {
            shares: Arc::clone(self),
            network,
            count: *count,
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.shares.0.lock();
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

/// What counts as one address: of IPv6 a customer has a /64 network at least.
pub(crate) fn network(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V6(addr) => {
            let network = u128::from(addr) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(network))
        }
        v4 => v4,
    }
}
