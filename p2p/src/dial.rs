//! From an address to a connection.
//!
//! ```text
//! address -> [only-net] -> TCP, directly or through the SOCKS5 proxy -> [v2 handshake]
//!         -> Connection; once more, with v1, if the peer does not speak v2
//! ```
//!
//! # Security
//! With a proxy everything goes through it, the resolution of names as well: nothing
//! of a peer is looked up or connected to directly. Onion services are only dialled
//! through a proxy. With stream isolation every connection has credentials of its own,
//! so that Tor uses a circuit of its own for it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_socks::tcp::Socks5Stream;

use crate::{
    NetAddr, NetKind, PeerAddr,
    transport::{Connection, TransportError},
};

/// The networks that may be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnlyNet([bool; NetKind::ALL.len()]);

impl OnlyNet {
    /// Every network.
    #[must_use]
    pub fn all() -> Self {
        Self([true; NetKind::ALL.len()])
    }

    /// Whether `kind` may be dialled.
    #[must_use]
    pub fn allows(&self, kind: NetKind) -> bool {
        self.0[kind as usize]
    }

    /// In `fc00::/8` an IPv6 address may be one of CJDNS.
    fn allows_ip(&self, ip: IpAddr) -> bool {
        let addr = NetAddr::from(ip);
        self.allows(addr.kind()) || self.allows(addr.flipped_to_cjdns().kind())
    }

    /// A name may lead to either version of IP.
    fn allows_names(&self) -> bool {
        self.allows(NetKind::Ipv4) || self.allows(NetKind::Ipv6)
    }
}

impl FromIterator<NetKind> for OnlyNet {
    /// The networks of the list; every network if it is empty.
    fn from_iter<I: IntoIterator<Item = NetKind>>(kinds: I) -> Self {
        let mut set = Self([false; NetKind::ALL.len()]);
        for kind in kinds {
            set.0[kind as usize] = true;
        }
        if set.0.contains(&true) {
            set
        } else {
            Self::all()
        }
    }
}

/// A SOCKS5 proxy (RFC 1928), such as Tor's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proxy {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Whether to give it other credentials with each connection (RFC 1929), which
    /// makes Tor use another circuit.
    pub isolate: bool,
    /// For its answer, which takes as long as its own connection. Bitcoin Core: 20 s.
    pub limit: Duration,
}

/// How to dial.
#[derive(Debug, Clone, Copy)]
pub struct DialOptions {
    /// Magic of the network.
    pub magic: [u8; 4],
    /// Whether to try the encrypted transport first.
    pub v2: bool,
    /// Where everything goes through.
    pub proxy: Option<Proxy>,
    /// What may be dialled.
    pub only_net: OnlyNet,
    /// For resolving a name, and for each address that it has.
    pub connect_limit: Duration,
    /// For the handshake of the encrypted transport.
    pub transport_limit: Duration,
}

impl DialOptions {
    /// Directly to any network, v2 before v1, 5 s for a connection and 15 s for the
    /// handshake of the transport.
    #[must_use]
    pub fn new(magic: [u8; 4]) -> Self {
        Self {
            magic,
            v2: true,
            proxy: None,
            only_net: OnlyNet::all(),
            connect_limit: Duration::from_secs(5),
            transport_limit: Duration::from_secs(15),
        }
    }
}

/// Why no connection was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The address is of a network that must not be dialled.
    #[error("the network is not among those that may be dialled")]
    NotAllowed,
    /// The address is of a network that can only be reached through a proxy, or, as
    /// I2P, not at all.
    #[error("no way to reach {0}")]
    NoWay(NetKind),
    /// No TCP connection to the peer or to the proxy.
    #[error("unreachable")]
    Io(#[from] io::Error),
    /// The proxy does not reach the peer.
    #[error("proxy")]
    Proxy(#[source] tokio_socks::Error),
    /// No transport could be set up.
    #[error("transport")]
    Transport(#[from] TransportError),
}

impl DialError {
    /// Whether the peer broke the protocol, as opposed to being away.
    #[must_use]
    pub fn is_misbehaviour(&self) -> bool {
        matches!(self, Self::Transport(err) if err.is_misbehaviour())
    }
}

/// Connects to `addr` with the transport that it speaks. [`Connection::kind`] tells
/// which that is, for the next time.
///
/// # Errors
/// [`DialError`], of the last address tried if a name has several.
pub async fn connect(addr: &PeerAddr, options: &DialOptions) -> Result<Connection, DialError> {
    if options.v2 {
        let (stream, remote) = open(addr, options).await?;
        let shaken = Connection::connect_v2(stream, options.magic, options.transport_limit).await;
        match shaken {
            Ok(connection) => return Ok(connection.with_remote(remote)),
            Err(err) if err.suggests_v1() => {}
            Err(err) => return Err(err.into()),
        }
    }
    let (stream, remote) = open(addr, options).await?;
    Ok(Connection::v1(stream, options.magic).with_remote(remote))
}

/// A stream to the peer, and the peer's IP address unless the proxy keeps it.
async fn open(
    addr: &PeerAddr,
    options: &DialOptions,
) -> Result<(TcpStream, Option<SocketAddr>), DialError> {
    let parsed = addr.host.parse::<NetAddr>().ok();
    let allowed = match parsed.map(|parsed| parsed.ip().ok_or(parsed.kind())) {
        Some(Ok(ip)) => options.only_net.allows_ip(ip),
        Some(Err(kind)) => options.only_net.allows(kind),
        None => options.only_net.allows_names(),
    };
    if !allowed {
        return Err(DialError::NotAllowed);
    }
    let overlay = parsed.filter(|parsed| parsed.ip().is_none());
    match (overlay.map(|overlay| overlay.kind()), &options.proxy) {
        // Tor's proxy does not know I2P.
        (Some(NetKind::I2p), _) => Err(DialError::NoWay(NetKind::I2p)),
        (Some(kind), None) => Err(DialError::NoWay(kind)),
        (_, Some(proxy)) => {
            let stream = through(proxy, addr, options.connect_limit).await?;
            let remote = parsed.and_then(|parsed| parsed.ip());
            Ok((stream, remote.map(|ip| SocketAddr::new(ip, addr.port))))
        }
        // Resolvers must not hear of names that are not theirs, such as mistyped ones.
        (None, None) if is_overlay_name(&addr.host) => {
            Err(DialError::Io(io::ErrorKind::InvalidInput.into()))
        }
        (None, None) => {
            let stream = tcp_where(addr, options.connect_limit, |socket_addr| {
                options.only_net.allows_ip(socket_addr.ip())
            })
            .await?;
            let remote = stream.peer_addr()?;
            Ok((stream, Some(remote)))
        }
    }
}

fn is_overlay_name(host: &str) -> bool {
    let ends_with = |suffix: &str| {
        let end = host.len().checked_sub(suffix.len());
        end.and_then(|end| host.get(end..))
            .is_some_and(|end| end.eq_ignore_ascii_case(suffix))
    };
    ends_with(".onion") || ends_with(".i2p")
}

async fn through(proxy: &Proxy, addr: &PeerAddr, limit: Duration) -> Result<TcpStream, DialError> {
    let stream = timeout(limit, TcpStream::connect(proxy.addr))
        .await
        .map_err(|_| timed_out())??;
    stream.set_nodelay(true)?;
    let target = (addr.host.as_str(), addr.port);
    let ask = async {
        if proxy.isolate {
            let user = format!("{:016x}", rand::random::<u64>());
            Socks5Stream::connect_with_password_and_socket(stream, target, &user, "pulse").await
        } else {
            Socks5Stream::connect_with_socket(stream, target).await
        }
    };
    let answer = timeout(proxy.limit, ask).await.map_err(|_| timed_out())?;
    Ok(answer.map_err(DialError::Proxy)?.into_inner())
}

/// Resolves `addr` and connects to the first of its addresses that answers.
/// `limit` is for the resolution and again for each address.
///
/// # Errors
/// Of the last address tried, or of the resolution.
pub(crate) async fn tcp(addr: &PeerAddr, limit: Duration) -> io::Result<TcpStream> {
    tcp_where(addr, limit, |_| true).await
}

async fn tcp_where(
    addr: &PeerAddr,
    limit: Duration,
    allowed: impl Fn(&SocketAddr) -> bool,
) -> io::Result<TcpStream> {
    let lookup = timeout(limit, lookup_host((addr.host.as_str(), addr.port))).await;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for socket_addr in lookup.map_err(|_| timed_out())??.filter(allowed) {
        match timeout(limit, TcpStream::connect(socket_addr)).await {
            Ok(Ok(stream)) => {
                // Requests are small and waited for.
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(err)) => last = err,
            Err(_) => last = timed_out(),
        }
    }
    Err(last)
}

fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

#[cfg(test)]
mod tests;
