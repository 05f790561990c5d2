//! What one client address may take of the server: connections, and subscriptions of all of
//! them together.
//!
//! # Limits
//! An address is remembered while it has a connection, so there are at most as many entries as
//! connections.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;

use super::PushConfig;
use crate::places::network;

/// Shares of all addresses.
#[derive(Default)]
pub(super) struct Shares(Mutex<HashMap<IpAddr, Share>>);

#[derive(Default)]
struct Share {
    connections: usize,
    subscriptions: usize,
}

/// One connection's part in the share of its address; given back when dropped.
pub(super) struct Part {
    shares: Arc<Shares>,
    addr: IpAddr,
    /// Most subscriptions of the address; 0 is no limit.
    limit: usize,
    /// Subscriptions of this connection.
    subscriptions: usize,
}

impl Shares {
    /// The part of a new connection from `client`; `None` if its address has as many as it may.
    pub(super) fn admit(self: &Arc<Self>, client: IpAddr, config: &PushConfig) -> Option<Part> {
        let addr = network(client);
        let mut shares = self.0.lock();
        let connections = shares.get(&addr).map_or(0, |share| share.connections);
        let limit = config.max_connections_per_address;
        if limit > 0 && connections >= limit {
            return None;
        }
        shares.entry(addr).or_default().connections += 1;
        Some(Part {
            shares: Arc::clone(self),
            addr,
            limit: config.max_subscriptions_per_address,
            subscriptions: 0,
        })
    }
}

impl Part {
    /// Whether the address may have `count` more subscriptions.
    pub(super) fn has_room(&self, count: usize) -> bool {
        let shares = self.shares.0.lock();
        let taken = shares
            .get(&self.addr)
            .map_or(0, |share| share.subscriptions);
        self.fits(taken, count)
    }

    /// Counts new subscriptions; `false`, and none is counted, if the address has too many.
    pub(super) fn reserve(&mut self, count: usize) -> bool {
        let mut shares = self.shares.0.lock();
        let share = shares.entry(self.addr).or_default();
        let fits = self.fits(share.subscriptions, count);
        if fits {
            share.subscriptions += count;
            self.subscriptions += count;
        }
        fits
    }

    /// So many subscriptions have ended.
    pub(super) fn release(&mut self, count: usize) {
        self.subscriptions -= count;
        if let Some(share) = self.shares.0.lock().get_mut(&self.addr) {
            share.subscriptions -= count;
        }
    }

    /// Most subscriptions of the address.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    fn fits(&self, taken: usize, count: usize) -> bool {
        self.limit == 0 || taken.saturating_add(count) <= self.limit
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut shares = self.shares.0.lock();
        if let Some(share) = shares.get_mut(&self.addr) {
            share.connections -= 1;
            share.subscriptions -= self.subscriptions;
            if share.connections == 0 {
                shares.remove(&self.addr);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(connections: usize, subscriptions: usize) -> PushConfig {
        PushConfig {
            max_connections_per_address: connections,
            max_subscriptions_per_address: subscriptions,
            ..PushConfig::default()
        }
    }

    #[test]
    fn an_address_has_its_share_and_gets_it_back() {
        let (shares, config) = (Arc::new(Shares::default()), config(2, 4));
        let addr = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut first = shares.admit(addr("2001:db8::1"), &config).unwrap();
        let mut second = shares.admit(addr("2001:db8::2"), &config).unwrap();
        assert!(shares.admit(addr("2001:db8::3"), &config).is_none());
        let mut other = shares.admit(addr("2001:db8:0:1::1"), &config).unwrap();
        assert!(first.reserve(3) && !second.reserve(2) && second.reserve(1));
        assert!(!first.has_room(1) && other.has_room(4) && !other.has_room(5));
        assert!(other.reserve(4));
        first.release(2);
        assert!(second.has_room(2) && !second.has_room(3));
        drop(first);
        assert!(second.reserve(3));
        assert!(shares.admit(addr("2001:db8::3"), &config).is_some());
        drop((second, other));
        assert!(shares.0.lock().is_empty());
    }

    #[test]
    fn without_limits_nothing_is_refused() {
        let (shares, config) = (Arc::new(Shares::default()), config(0, 0));
        let client = IpAddr::from([192, 0, 2, 1]);
        let mut parts: Vec<_> = (0..1_000)
            .map(|_| shares.admit(client, &config).unwrap())
            .collect();
        assert!(
            parts
                .iter_mut()
                .all(|part| part.reserve(usize::MAX / 2_000))
        );
    }
}
