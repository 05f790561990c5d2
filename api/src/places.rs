//! Which connections of a server are served, and which are accepted only to be told why they
//! are not. HTTP and Electrum each have places of their own.
//!
//! # Limits
//! With all places taken for those that are served, up to [`TOLD_CONNECTIONS`] are told that
//! the server is full, and others wait in the backlog of the operating system. One beyond the
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
pub(crate) const TOLD_CONNECTIONS: usize = 64;

/// Why a connection was accepted only to say so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The server has as many as it may.
    Full,
    /// Its address has.
    OverShare,
}

/// What bounds the connections of a server.
pub(crate) struct Places {
    served: Arc<Semaphore>,
    told: Arc<Semaphore>,
    shares: Arc<Shares>,
    /// Most connections of one address; 0 is no limit.
    per_address: usize,
}

/// A connection's place, given back when dropped.
pub(crate) struct Place {
    /// Why it is not served.
    pub(crate) refused: Option<Refused>,
    _slot: OwnedSemaphorePermit,
    /// `None` for one beyond the share of its address.
    _share: Option<Share>,
}

impl Places {
    /// For `served` connections, `per_address` of them of one address.
    pub(crate) fn new(served: usize, per_address: usize) -> Self {
        Self {
            served: Arc::new(Semaphore::new(served)),
            told: Arc::new(Semaphore::new(TOLD_CONNECTIONS)),
            shares: Arc::default(),
            per_address,
        }
    }

    /// The place of a connection from `addr`. Waits until there is one; `None` if there is none
    /// for an address that has its share, since others must not wait for it.
    pub(crate) async fn find(&self, addr: IpAddr) -> Option<Place> {
        let told = Arc::clone(&self.told);
        let Some(share) = self.shares.take(addr, self.per_address) else {
            return Some(Place {
                refused: Some(Refused::OverShare),
                _slot: told.try_acquire_owned().ok()?,
                _share: None,
            });
        };
        let never_closed = "the semaphore is never closed";
        let (refused, slot) = tokio::select! {
            biased;
            slot = Arc::clone(&self.served).acquire_owned() => (None, slot.expect(never_closed)),
            slot = told.acquire_owned() => (Some(Refused::Full), slot.expect(never_closed)),
        };
        Some(Place {
            refused,
            _slot: slot,
            _share: Some(share),
        })
    }
}

/// Connections of each address, without those beyond its share.
#[derive(Default)]
struct Shares(Mutex<HashMap<IpAddr, usize>>);

/// A connection of an address, until it is dropped.
struct Share {
    shares: Arc<Shares>,
    network: IpAddr,
}

impl Shares {
    /// `None` if the address has `most`; 0 is no limit.
    fn take(self: &Arc<Self>, addr: IpAddr, most: usize) -> Option<Share> {
        let network = network(addr);
        let mut counts = self.0.lock();
        let count = counts.get(&network).map_or(0, |count| *count);
        if most > 0 && count >= most {
            return None;
        }
        counts.insert(network, count + 1);
        Some(Share {
            shares: Arc::clone(self),
            network,
        })
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

#[cfg(test)]
mod tests {
    use std::{pin::pin, time::Duration};

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn an_address_with_too_many_connections_takes_no_places_of_others() {
        let places = Places::new(4, 2);
        let of = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut kept = Vec::new();
        for _ in 0..2 + TOLD_CONNECTIONS {
            kept.push(places.find(of("192.0.2.1")).await.unwrap());
        }
        let over = kept
            .iter()
            .filter(|place| place.refused == Some(Refused::OverShare));
        assert_eq!(over.count(), TOLD_CONNECTIONS);
        assert!(places.find(of("192.0.2.1")).await.is_none());
        for _ in 0..2 {
            let other = places.find(of("192.0.2.2")).await.unwrap();
            assert_eq!(other.refused, None);
            kept.push(other);
        }
        // Now it is full, and there is nobody who could be told.
        let mut waiting = pin!(places.find(of("192.0.2.3")));
        assert!(
            timeout(Duration::from_millis(50), &mut waiting)
                .await
                .is_err()
        );
        drop(kept.remove(0));
        assert_eq!(waiting.await.unwrap().refused, None);
    }

    #[tokio::test]
    async fn who_frees_a_place_may_have_another_however_often_it_was_refused() {
        let places = Places::new(4, 1);
        let client = "2001:db8::1".parse().unwrap();
        let first = places.find(client).await.unwrap();
        assert_eq!(first.refused, None);
        // Of the same customer.
        let second = places.find("2001:db8::2".parse().unwrap()).await.unwrap();
        assert_eq!(second.refused, Some(Refused::OverShare));
        drop(first);
        assert_eq!(places.find(client).await.unwrap().refused, None);
        drop(second);
        assert!(places.shares.0.lock().is_empty());
    }

    #[test]
    fn addresses_of_one_customer_count_as_one() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
