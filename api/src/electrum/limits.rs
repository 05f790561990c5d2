//! What one address (IPv6: a /64 network) may take of the server: subscriptions and requests.
//!
//! # Limits
//! An address is remembered while it has a connection, so there are at most as many
//! entries as connections.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Instant};

use parking_lot::Mutex;

use super::{config::ElectrumConfig, error::ElectrumError};
use crate::places::network;

/// Shares of all addresses.
#[derive(Default)]
pub(super) struct Shares(Mutex<HashMap<IpAddr, Share>>);

struct Share {
    connections: usize,
    subscriptions: usize,
    /// Requests that may come now.
    tokens: f64,
    /// When `tokens` was right.
    at: Instant,
}

/// One connection's part in the share of its address; given back when dropped.
pub(super) struct Admission {
    shares: Arc<Shares>,
    ip: IpAddr,
    /// Subscriptions of this connection.
    subscriptions: usize,
}

impl Shares {
    /// The part of a new connection.
    pub(super) fn admit(
        self: &Arc<Self>,
        client: IpAddr,
        config: &ElectrumConfig,
        now: Instant,
    ) -> Admission {
        let ip = network(client);
        let mut shares = self.0.lock();
        let share = shares.entry(ip).or_insert_with(|| Share {
            connections: 0,
            subscriptions: 0,
            tokens: burst(config.requests_per_second),
            at: now,
        });
        share.connections += 1;
        Admission {
            shares: Arc::clone(self),
            ip,
            subscriptions: 0,
        }
    }
}

/// Requests that may come at once: those of ten seconds.
fn burst(per_second: u32) -> f64 {
    10.0 * f64::from(per_second)
}

impl Admission {
    /// Counts a new subscription.
    ///
    /// # Errors
    /// [`ElectrumError::ConnectionSubscriptions`], [`ElectrumError::AddressSubscriptions`].
    pub(super) fn subscribe(&mut self, config: &ElectrumConfig) -> Result<(), ElectrumError> {
        let limit = config.max_subscriptions;
        if self.subscriptions >= limit {
            return Err(ElectrumError::ConnectionSubscriptions { limit });
        }
        let limit = config.max_subscriptions_per_address;
        let allowed = self.share(|share| {
            let allowed = limit == 0 || share.subscriptions < limit;
            share.subscriptions += usize::from(allowed);
            allowed
        });
        if !allowed {
            return Err(ElectrumError::AddressSubscriptions { limit });
        }
        self.subscriptions += 1;
        Ok(())
    }

    /// A subscription has ended.
    pub(super) fn unsubscribe(&mut self) {
        self.subscriptions -= 1;
        self.share(|share| share.subscriptions -= 1);
    }

    /// Counts a request.
    ///
    /// # Errors
    /// [`ElectrumError::RequestRate`].
    pub(super) fn request(
        &self,
        config: &ElectrumConfig,
        now: Instant,
    ) -> Result<(), ElectrumError> {
        let limit = config.requests_per_second;
        if limit == 0 {
            return Ok(());
        }
        let allowed = self.share(|share| {
            let elapsed = now.saturating_duration_since(share.at).as_secs_f64();
            share.tokens = (share.tokens + elapsed * f64::from(limit)).min(burst(limit));
            share.at = now;
            let allowed = share.tokens >= 1.0;
            if allowed {
                share.tokens -= 1.0;
            }
            allowed
        });
        match allowed {
            true => Ok(()),
            false => Err(ElectrumError::RequestRate { limit }),
        }
    }

    fn share<T>(&self, change: impl FnOnce(&mut Share) -> T) -> T {
        let mut shares = self.shares.0.lock();
        let share = shares.get_mut(&self.ip);
        change(share.expect("it is kept while the address has a connection"))
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut shares = self.shares.0.lock();
        if let Some(share) = shares.get_mut(&self.ip) {
            share.connections -= 1;
            share.subscriptions -= self.subscriptions;
            // What it owes of requests is forgotten with its last connection: a client
            // pays for a new one by connecting.
            if share.connections == 0 {
                shares.remove(&self.ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use super::*;

    const IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn config() -> ElectrumConfig {
        ElectrumConfig {
            max_subscriptions: 3,
            max_subscriptions_per_address: 4,
            requests_per_second: 2,
            ..ElectrumConfig::default()
        }
    }

    #[test]
    fn an_address_has_its_share_and_gets_it_back() {
        let (shares, config, now) = (Arc::new(Shares::default()), config(), Instant::now());
        let mut first = shares.admit(IP, &config, now);
        let mut second = shares.admit(IP, &config, now);
        for _ in 0..3 {
            first.subscribe(&config).unwrap();
        }
        let error = first.subscribe(&config).unwrap_err();
        assert!(matches!(
            error,
            ElectrumError::ConnectionSubscriptions { limit: 3 }
        ));
        second.subscribe(&config).unwrap();
        let error = second.subscribe(&config).unwrap_err();
        assert!(matches!(
            error,
            ElectrumError::AddressSubscriptions { limit: 4 }
        ));
        first.unsubscribe();
        second.subscribe(&config).unwrap();
        drop(first);
        second.subscribe(&config).unwrap();
        drop(second);
        assert!(shares.0.lock().is_empty());
    }

    #[test]
    fn requests_come_at_the_rate_after_a_burst() {
        let (shares, config, now) = (Arc::new(Shares::default()), config(), Instant::now());
        let client = shares.admit(IP, &config, now);
        for _ in 0..20 {
            client.request(&config, now).unwrap();
        }
        assert!(client.request(&config, now).is_err());
        let later = now + Duration::from_secs(1);
        client.request(&config, later).unwrap();
        client.request(&config, later).unwrap();
        assert!(client.request(&config, later).is_err());
    }
}
