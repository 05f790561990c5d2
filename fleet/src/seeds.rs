//! Where siblings are, looked up again and again.
//!
//! ```text
//! host:port              -> every address of the name, TCP and QUIC
//! _service._tcp.name     -> SRV: every address of every target
//! /dnsaddr/name          -> TXT of _dnsaddr.name: libp2p addresses
//! any other /...         -> as it is
//! ```
//!
//! Names are looked up as the system does, or, if one is set, with a certain name server.
//!
//! # Security
//! Whatever a name server says, only members are talked to.
//!
//! # Limits
//! [`MAX_ADDRS`] addresses of all seeds together, [`LOOKUP_LIMIT`] for each look-up.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolverConfig},
    lookup_ip::LookupIp,
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::rr::RData,
};
use libp2p::{Multiaddr, multiaddr::Protocol};
use tokio::{net::lookup_host, time::timeout};
use tracing::{debug, warn};

/// Most addresses of all seeds.
pub const MAX_ADDRS: usize = 256;
/// For one look-up.
pub const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// One entry of `seeds`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seed {
    /// Used as it is.
    Addr(Multiaddr),
    /// A name or an IP address, and a port.
    Host(String, u16),
    /// A name with SRV records.
    Srv(String),
    /// A name with `dnsaddr=` records.
    DnsAddr(String),
}

impl FromStr for Seed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with('/') {
            let addr: Multiaddr = text.parse().map_err(|err| format!("{err}"))?;
            let mut parts = addr.iter();
            return Ok(match (parts.next(), parts.next()) {
                (Some(Protocol::Dnsaddr(name)), None) => Self::DnsAddr(name.into_owned()),
                _ => Self::Addr(addr),
            });
        }
        if text.starts_with('_') && text.contains('.') {
            return Ok(Self::Srv(text.to_owned()));
        }
        let host = text.rsplit_once(':').and_then(|(host, port)| {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let port = port.parse().ok().filter(|port| *port != 0)?;
            (!host.is_empty()).then(|| Self::Host(host.to_owned(), port))
        });
        host.ok_or_else(|| "is neither host:port, nor an SRV name, nor a libp2p address".to_owned())
    }
}

/// Looks seeds up.
pub struct Lookup {
    seeds: Vec<Seed>,
    quic: bool,
    resolver: Option<TokioResolver>,
    /// The resolver is a certain one, for addresses too.
    is_certain: bool,
}

impl Lookup {
    /// For these seeds, with the name server at `server` or those of the system; with `quic`
    /// each address is tried over UDP as well.
    #[must_use]
    pub fn new(seeds: Vec<Seed>, quic: bool, server: Option<SocketAddr>) -> Self {
        let needs = |seed: &Seed| matches!(seed, Seed::Srv(_) | Seed::DnsAddr(_));
        let is_needed = server.is_some() || seeds.iter().any(needs);
        let resolver = is_needed.then(|| {
            resolver(server)
                .inspect_err(|err| warn!(%err, "SRV and dnsaddr seeds cannot be looked up"))
                .ok()
        });
        Self {
            seeds,
            quic,
            resolver: resolver.flatten(),
            is_certain: server.is_some(),
        }
    }

    /// All addresses that the seeds have now.
    pub async fn addresses(&self) -> Vec<Multiaddr> {
        let mut all = Vec::new();
        for seed in &self.seeds {
            let found = timeout(LOOKUP_LIMIT, self.look_up(seed)).await;
            let found = found.unwrap_or_default();
            if found.is_empty() {
                debug!(?seed, "a seed has no addresses");
            }
            all.extend(found);
        }
        all.truncate(MAX_ADDRS);
        all
    }

    async fn look_up(&self, seed: &Seed) -> Vec<Multiaddr> {
        match (seed, &self.resolver) {
            (Seed::Addr(addr), _) => vec![addr.clone()],
            (Seed::Host(host, port), _) => self.host(host, *port).await,
            (Seed::Srv(name), Some(resolver)) => {
                let Ok(found) = resolver.srv_lookup(name.as_str()).await else {
                    return Vec::new();
                };
                let mut all = Vec::new();
                for record in found.answers() {
                    if let RData::SRV(srv) = &record.data {
                        all.extend(self.host(&srv.target.to_string(), srv.port).await);
                    }
                }
                all
            }
            (Seed::DnsAddr(name), Some(resolver)) => {
                let name = format!("_dnsaddr.{name}");
                let Ok(found) = resolver.txt_lookup(name.as_str()).await else {
                    return Vec::new();
                };
                let texts = found.answers().iter().filter_map(|record| {
                    let RData::TXT(txt) = &record.data else {
                        return None;
                    };
                    let text = txt.txt_data.concat();
                    let addr = text.strip_prefix(b"dnsaddr=")?.to_vec();
                    String::from_utf8(addr).ok()?.parse().ok()
                });
                texts.collect()
            }
            (Seed::Srv(_) | Seed::DnsAddr(_), None) => Vec::new(),
        }
    }

    async fn host(&self, host: &str, port: u16) -> Vec<Multiaddr> {
        let host = host.trim_end_matches('.');
        let found: Vec<SocketAddr> = match &self.resolver {
            Some(resolver) if self.is_certain => {
                let ips = resolver.lookup_ip(host).await;
                let ips = ips.iter().flat_map(LookupIp::iter);
                ips.map(|ip| (ip, port).into()).collect()
            }
            _ => {
                let found = lookup_host((host, port)).await;
                found.into_iter().flatten().collect()
            }
        };
        found
            .into_iter()
            .flat_map(|addr| dialable(addr, self.quic))
            .collect()
    }
}

fn resolver(server: Option<SocketAddr>) -> Result<TokioResolver, NetError> {
    let Some(addr) = server else {
        return TokioResolver::builder_tokio()?.build();
    };
    let mut server = NameServerConfig::udp_and_tcp(addr.ip());
    for connection in &mut server.connections {
        connection.port = addr.port();
    }
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).build()
}

/// The ways to dial a socket address.
fn dialable(addr: SocketAddr, quic: bool) -> impl Iterator<Item = Multiaddr> {
    let tcp = tcp_addr(addr);
    // Members only dial what they do not have yet, so the second one is for when the
    // first one fails.
    let quic = quic.then(|| quic_addr(addr));
    std::iter::once(tcp).chain(quic)
}

/// `addr` over TCP.
#[must_use]
pub fn tcp_addr(addr: SocketAddr) -> Multiaddr {
    ip(addr.ip()).with(Protocol::Tcp(addr.port()))
}

/// `addr` over QUIC.
#[must_use]
pub fn quic_addr(addr: SocketAddr) -> Multiaddr {
    ip(addr.ip())
        .with(Protocol::Udp(addr.port()))
        .with(Protocol::QuicV1)
}

fn ip(ip: IpAddr) -> Multiaddr {
    Multiaddr::from(ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_of_a_seed_is_told_from_the_others() {
        let seed = |text: &str| text.parse::<Seed>();
        let host = |host: &str, port| Ok(Seed::Host(host.to_owned(), port));
        assert_eq!(seed("10.0.0.1:4001"), host("10.0.0.1", 4001));
        assert_eq!(seed("[::1]:4001"), host("::1", 4001));
        assert_eq!(
            seed("pulse-nodes.internal:4001"),
            host("pulse-nodes.internal", 4001)
        );
        let name = "_pulse._tcp.nodes.internal";
        assert_eq!(seed(name), Ok(Seed::Srv(name.to_owned())));
        let dnsaddr = Seed::DnsAddr("nodes.internal".to_owned());
        assert_eq!(seed("/dnsaddr/nodes.internal"), Ok(dnsaddr));
        let addr = "/ip4/10.0.0.1/udp/4001/quic-v1";
        assert_eq!(seed(addr), Ok(Seed::Addr(addr.parse().unwrap())));
        for wrong in ["", "name", "name:0", "name:x", ":4001", "/nonsense"] {
            assert!(seed(wrong).is_err(), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn an_address_is_dialled_over_both_transports() {
        let seeds = vec!["127.0.0.1:4001".parse().unwrap()];
        let text = |quic| {
            let lookup = Lookup::new(seeds.clone(), quic, None);
            async move {
                let addrs = lookup.addresses().await;
                addrs.iter().map(ToString::to_string).collect::<Vec<_>>()
            }
        };
        let both = ["/ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.1/udp/4001/quic-v1"];
        assert_eq!(text(true).await, both);
        assert_eq!(text(false).await, both[..1]);
    }
}
