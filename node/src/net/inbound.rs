//! Those who connect to us: taken in one by one, and counted.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep_until},
};
use tracing::warn;

/// Wait after the system refused to accept, for example for want of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_secs(1);
/// Refusals in a row after which the listener is given up.
const MAX_ACCEPT_FAILURES: u32 = 60;

/// The listener, which outlives refusals of the system.
pub(super) struct Acceptor {
    /// `None`: nobody can connect.
    listener: Option<TcpListener>,
    failures: u32,
    paused_until: Option<Instant>,
}

impl Acceptor {
    pub fn new(listener: Option<TcpListener>) -> Self {
        Self {
            listener,
            failures: 0,
            paused_until: None,
        }
    }

    /// The next connection. Cancel-safe.
    ///
    /// # Errors
    /// When the system has refused for too long.
    pub async fn next(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let Some(listener) = &self.listener else {
            return std::future::pending().await;
        };
        loop {
            if let Some(until) = self.paused_until {
                sleep_until(until).await;
                self.paused_until = None;
            }
            match listener.accept().await {
                Ok(accepted) => {
                    self.failures = 0;
                    return Ok(accepted);
                }
                // The peer was gone again before it was accepted.
                Err(err) if err.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(err) => {
                    warn!(%err, "accepting a connection");
                    self.failures += 1;
                    if self.failures == MAX_ACCEPT_FAILURES {
                        return Err(err);
                    }
                    self.paused_until = Some(Instant::now() + ACCEPT_RETRY);
                }
            }
        }
    }
}

/// Inbound connections, in all and per address. Pure.
#[derive(Debug)]
pub(super) struct InboundCount {
    max: usize,
    max_per_address: usize,
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Why an inbound connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// All places are taken.
    Full,
    /// The address has as many connections as one may have.
    AddressFull,
}

impl InboundCount {
    pub fn new(max: usize, max_per_address: usize) -> Self {
        Self {
            max,
            max_per_address,
            total: 0,
            by_address: HashMap::new(),
        }
    }

    /// Whether a connection from `ip` may be taken.
    pub fn check(&self, ip: IpAddr) -> Result<(), Refusal> {
        let held = self.by_address.get(&owner(ip)).copied().unwrap_or(0);
        if held >= self.max_per_address {
            Err(Refusal::AddressFull)
        } else if self.total >= self.max {
            Err(Refusal::Full)
        } else {
            Ok(())
        }
    }

    /// Counts a connection.
    pub fn add(&mut self, ip: IpAddr) {
        self.total += 1;
        *self.by_address.entry(owner(ip)).or_default() += 1;
    }

    /// A connection that was counted has ended.
    pub fn remove(&mut self, ip: IpAddr) {
        self.total = self.total.saturating_sub(1);
        let owner = owner(ip);
        if let Some(held) = self.by_address.get_mut(&owner) {
            *held -= 1;
            if *held == 0 {
                self.by_address.remove(&owner);
            }
        }
    }
}

/// What one host has: an IPv4 address, or the 64-bit prefix of an IPv6 address.
fn owner(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => {
            let prefix = u128::from(ip) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(prefix))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_host_gets_its_share_and_all_hosts_the_whole() {
        let mut count = InboundCount::new(3, 2);
        for address in ["10.0.0.1", "::ffff:10.0.0.1"] {
            assert_eq!(count.check(ip(address)), Ok(()));
            count.add(ip(address));
        }
        assert_eq!(count.check(ip("10.0.0.1")), Err(Refusal::AddressFull));
        assert_eq!(count.check(ip("10.0.0.2")), Ok(()));
        count.add(ip("10.0.0.2"));
        assert_eq!(count.check(ip("10.0.0.3")), Err(Refusal::Full));
        count.remove(ip("10.0.0.1"));
        assert_eq!(count.check(ip("10.0.0.1")), Ok(()));
    }

    #[test]
    fn an_ipv6_network_counts_as_one_host() {
        let mut count = InboundCount::new(9, 1);
        count.add(ip("2001:db8:1:2::1"));
        assert_eq!(
            count.check(ip("2001:db8:1:2:ffff::9")),
            Err(Refusal::AddressFull)
        );
        assert_eq!(count.check(ip("2001:db8:1:3::1")), Ok(()));
    }
}
