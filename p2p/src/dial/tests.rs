use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{
    message::{Message, Outgoing},
    transport::TransportKind,
};
use pulse_primitives::bitcoin::p2p::message::NetworkMessage;

const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];
const LIMIT: Duration = Duration::from_secs(10);
const ONION: &str = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion";

/// What a proxy was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    credentials: Option<(Vec<u8>, Vec<u8>)>,
    kind: u8,
    target: Vec<u8>,
    port: u16,
}

fn options() -> DialOptions {
    DialOptions {
        connect_limit: LIMIT,
        transport_limit: LIMIT,
        ..DialOptions::new(MAGIC)
    }
}

fn peer_addr(addr: SocketAddr) -> PeerAddr {
    PeerAddr {
        host: addr.ip().to_string(),
        port: addr.port(),
    }
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    (listener, addr)
}

/// Takes part in one SOCKS5 negotiation and answers with `reply`.
async fn negotiate(stream: &mut TcpStream, reply: u8) -> Asked {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(head[0], 5);
    let mut methods = vec![0; usize::from(head[1])];
    stream.read_exact(&mut methods).await.unwrap();
    let mut credentials = None;
    if methods.contains(&2) {
        stream.write_all(&[5, 2]).await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 1);
        let mut fields = Vec::new();
        for _ in 0..2 {
            let mut field = vec![0; usize::from(stream.read_u8().await.unwrap())];
            stream.read_exact(&mut field).await.unwrap();
            fields.push(field);
        }
        let password = fields.pop().unwrap();
        credentials = Some((fields.pop().unwrap(), password));
        stream.write_all(&[1, 0]).await.unwrap();
    } else {
        stream.write_all(&[5, 0]).await.unwrap();
    }
    let mut request = [0; 4];
    stream.read_exact(&mut request).await.unwrap();
    assert_eq!(request[..3], [5, 1, 0]);
    let len = match request[3] {
        1 => 4,
        4 => 16,
        3 => usize::from(stream.read_u8().await.unwrap()),
        other => panic!("address type {other}"),
    };
    let mut target = vec![0; len];
    stream.read_exact(&mut target).await.unwrap();
    let port = stream.read_u16().await.unwrap();
    let answer = [5, reply, 0, 1, 0, 0, 0, 0, 0, 0];
    stream.write_all(&answer).await.unwrap();
    Asked {
        credentials,
        kind: request[3],
        target,
        port,
    }
}

/// A proxy behind which every address is the same peer, which speaks v2 if `v2`. It
/// tells what it was asked for each connection.
async fn proxy(v2: bool) -> (SocketAddr, tokio::sync::mpsc::Receiver<Asked>) {
    let (listener, addr) = listener().await;
    let (tell, asked) = tokio::sync::mpsc::channel(8);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let request = negotiate(&mut stream, 0).await;
            tell.send(request).await.unwrap();
            tokio::spawn(peer(stream, v2));
        }
    });
    (addr, asked)
}

/// Says ping with whichever transport the caller speaks, if it speaks it itself.
async fn peer(stream: TcpStream, v2: bool) {
    let mut connection = Connection::accept(stream, MAGIC, v2, LIMIT).await.unwrap();
    if connection.kind() == TransportKind::V1 && connection.read().await.is_err() {
        return; // The key of a caller that speaks v2 is no frame.
    }
    let ping = Outgoing::from(NetworkMessage::Ping(7));
    connection.write(&ping).await.unwrap();
    let _ = connection.read().await;
}

async fn hears_ping(mut connection: Connection) {
    if connection.kind() == TransportKind::V1 {
        // So that the first bytes tell the transport.
        let start = Outgoing::raw("version", crate::version::tests::version_payload());
        connection.write(&start).await.unwrap();
    }
    assert_eq!(connection.read().await.unwrap().0, Message::Ping(7));
}

#[tokio::test]
async fn a_peer_is_dialled_with_the_encrypted_transport() {
    let (listener, addr) = listener().await;
    tokio::spawn(async move { peer(listener.accept().await.unwrap().0, true).await });
    let connection = connect(&peer_addr(addr), &options()).await.unwrap();
    assert_eq!(connection.kind(), TransportKind::V2);
    assert_eq!(connection.remote(), Some(addr));
    hears_ping(connection).await;
}

#[tokio::test]
async fn a_peer_without_the_encrypted_transport_is_dialled_again() {
    let (listener, addr) = listener().await;
    tokio::spawn(async move {
        loop {
            peer(listener.accept().await.unwrap().0, false).await;
        }
    });
    let connection = connect(&peer_addr(addr), &options()).await.unwrap();
    assert_eq!(connection.kind(), TransportKind::V1);
    hears_ping(connection).await;
}

#[tokio::test]
async fn a_silent_peer_is_dialled_again_without_encryption() {
    let (listener, addr) = listener().await;
    let dial = DialOptions {
        transport_limit: Duration::from_millis(50),
        ..options()
    };
    let addr = peer_addr(addr);
    let (connection, _first) = tokio::join!(connect(&addr, &dial), listener.accept());
    assert_eq!(connection.unwrap().kind(), TransportKind::V1);
}

#[tokio::test]
async fn the_proxy_resolves_names_and_onion_services() {
    let (proxy_addr, mut asked) = proxy(true).await;
    let dial = DialOptions {
        proxy: Some(Proxy {
            addr: proxy_addr,
            isolate: false,
            limit: LIMIT,
        }),
        ..options()
    };
    // No resolver knows them: only the proxy can.
    for host in [ONION, "name.invalid"] {
        let addr = PeerAddr::parse(host, 8333).unwrap();
        let connection = connect(&addr, &dial).await.unwrap();
        assert_eq!(connection.kind(), TransportKind::V2);
        assert_eq!(connection.remote(), None);
        let asked = asked.recv().await.unwrap();
        assert_eq!(asked.target, host.as_bytes());
        assert_eq!(asked.port, 8333);
        assert_eq!((asked.kind, asked.credentials), (3, None));
    }
    for (host, kind) in [("192.0.2.1", 1), ("2001:db8::1", 4)] {
        let addr = PeerAddr::parse(host, 8333).unwrap();
        let connection = connect(&addr, &dial).await.unwrap();
        assert_eq!(connection.remote().unwrap().ip().to_string(), host);
        assert_eq!(asked.recv().await.unwrap().kind, kind);
    }
}

#[tokio::test]
async fn every_connection_has_credentials_of_its_own() {
    let (proxy_addr, mut asked) = proxy(false).await;
    let dial = DialOptions {
        proxy: Some(Proxy {
            addr: proxy_addr,
            isolate: true,
            limit: LIMIT,
        }),
        ..options()
    };
    let addr = PeerAddr::parse(ONION, 8333).unwrap();
    // Two, since the peer behind does not speak v2.
    let connection = connect(&addr, &dial).await.unwrap();
    assert_eq!(connection.kind(), TransportKind::V1);
    let (first, second) = (asked.recv().await.unwrap(), asked.recv().await.unwrap());
    assert!(first.credentials.is_some() && second.credentials.is_some());
    assert_ne!(first.credentials, second.credentials);
    assert_eq!(first.target, second.target);
}

#[tokio::test]
async fn a_proxy_that_refuses_or_stalls_is_an_error() {
    let (listener, addr) = listener().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        negotiate(&mut stream, 5).await;
        let (_silent, _) = listener.accept().await.unwrap();
        std::future::pending::<()>().await;
    });
    let dial = DialOptions {
        proxy: Some(Proxy {
            addr,
            isolate: false,
            limit: Duration::from_millis(300),
        }),
        ..options()
    };
    let peer = PeerAddr::parse(ONION, 8333).unwrap();
    assert!(matches!(
        connect(&peer, &dial).await,
        Err(DialError::Proxy(tokio_socks::Error::ConnectionRefused))
    ));
    match connect(&peer, &dial).await {
        Err(DialError::Io(err)) => assert_eq!(err.kind(), io::ErrorKind::TimedOut),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn onion_services_need_a_proxy() {
    let addr = PeerAddr::parse(ONION, 8333).unwrap();
    assert!(matches!(
        connect(&addr, &options()).await,
        Err(DialError::NoWay(NetKind::Onion))
    ));
    // With a mistake in it, it is no onion service, but must not be looked up either.
    let mistyped = PeerAddr::parse(&ONION.replace("pg6", "pg7"), 8333).unwrap();
    match connect(&mistyped, &options()).await {
        Err(DialError::Io(err)) => assert_eq!(err.kind(), io::ErrorKind::InvalidInput),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn only_the_networks_that_are_allowed_are_dialled() {
    let (_listener, addr) = listener().await;
    let only = |kinds: &[NetKind]| DialOptions {
        only_net: kinds.iter().copied().collect(),
        ..options()
    };
    for (host, kinds) in [
        ("127.0.0.1", &[NetKind::Ipv6, NetKind::Onion][..]),
        ("::1", &[NetKind::Ipv4]),
        ("fc00::1", &[NetKind::Ipv4]),
        ("name.invalid", &[NetKind::Onion]),
        (ONION, &[NetKind::Ipv4, NetKind::Ipv6]),
    ] {
        let addr = PeerAddr::parse(host, addr.port()).unwrap();
        assert!(
            matches!(
                connect(&addr, &only(kinds)).await,
                Err(DialError::NotAllowed)
            ),
            "{host}"
        );
    }
    assert_eq!(OnlyNet::from_iter([]), OnlyNet::all());
    assert!(
        only(&[NetKind::Cjdns])
            .only_net
            .allows_ip("fc00::1".parse().unwrap())
    );
}
