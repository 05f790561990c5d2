//! Where a peer can be reached.

use std::{fmt, str::FromStr};

use crate::NetAddress;

/// Where a peer listens: a name or an IP address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerAddr {
    /// DNS name or IP address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl PeerAddr {
    /// Parses `HOST:PORT`, `HOST`, `IPV6` or `[IPV6]:PORT`.
    #[must_use]
    pub fn parse(text: &str, default_port: u16) -> Option<Self> {
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']')?;
            std::net::Ipv6Addr::from_str(host).ok()?;
            (
                host,
                rest.strip_prefix(':').or(rest.is_empty().then_some("")),
            )
        } else if std::net::Ipv6Addr::from_str(text).is_ok() {
            (text, Some(""))
        } else {
            match text.split_once(':') {
                // "host:" is a mistake, unlike "host".
                Some((host, port)) => (host, Some(port).filter(|port| !port.is_empty())),
                None => (text, Some("")),
            }
        };
        let port = match port? {
            "" => default_port,
            port => port.parse().ok().filter(|port| *port != 0)?,
        };
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || !host.chars().all(allowed) {
            return None;
        }
        Some(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl From<NetAddress> for PeerAddr {
    fn from(address: NetAddress) -> Self {
        Self {
            host: address.addr.to_string(),
            port: address.port,
        }
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_addresses_parse_with_and_without_port() {
        for (text, shown) in [
            ("node.example:1234", "node.example:1234"),
            ("node.example", "node.example:8333"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("::1", "[::1]:8333"),
            ("[::1]", "[::1]:8333"),
            ("[2001:db8::1]:9", "[2001:db8::1]:9"),
        ] {
            assert_eq!(PeerAddr::parse(text, 8333).unwrap().to_string(), shown);
        }
        for text in [
            "",
            ":8333",
            "host:",
            "host:0",
            "host:65536",
            "host:x",
            "a b:1",
            "[::1",
            "[::1]x",
            "[host]:1",
            "a:1:2",
            "http://host",
        ] {
            assert_eq!(PeerAddr::parse(text, 8333), None, "{text:?}");
        }
    }
}
