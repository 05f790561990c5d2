use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::*;
use crate::codec::{encode_frame, encode_message};

const MAGIC: [u8; 4] = [1, 2, 3, 4];
const LIMIT: Duration = Duration::from_secs(10);

fn local(nonces: &Nonces) -> LocalVersion<'_> {
    LocalVersion {
        services: local_services(true, false),
        user_agent: USER_AGENT,
        start_height: 3,
        time: 1_700_000_000,
        relay: true,
        limited_peers: false,
        nonces,
    }
}

fn remote_version() -> VersionMessage {
    let nonces = Nonces::default();
    let message = version_message(&local(&nonces), ConnectionKind::Inbound, 6);
    let NetworkMessage::Version(mut version) = message else {
        unreachable!("it makes a version message")
    };
    version.user_agent = "/other\u{7}:1/".to_owned();
    version
}

/// The payload of a version message, for other tests.
pub(crate) fn version_payload() -> Vec<u8> {
    let message = Outgoing::from(NetworkMessage::Version(remote_version()));
    message.payload().to_vec()
}

fn with(change: impl FnOnce(&mut VersionMessage)) -> NetworkMessage {
    let mut version = remote_version();
    change(&mut version);
    NetworkMessage::Version(version)
}

/// Shakes hands with a peer that sends these messages whatever it hears.
async fn shake_with(
    messages: Vec<NetworkMessage>,
    local: &LocalVersion<'_>,
    kind: ConnectionKind,
) -> Result<(RemoteVersion, Connection), HandshakeError> {
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    for message in messages {
        theirs
            .write_all(&encode_message(message, MAGIC))
            .await
            .unwrap();
    }
    theirs.shutdown().await.unwrap();
    let mut connection = Connection::v1(ours, MAGIC);
    let remote = handshake(&mut connection, local, kind).await?;
    // It reads to the end of what it hears, so that nothing fails to be written.
    drop(theirs);
    Ok((remote, connection))
}

async fn shake(
    messages: Vec<NetworkMessage>,
    kind: ConnectionKind,
) -> Result<RemoteVersion, HandshakeError> {
    let nonces = Nonces::default();
    let (remote, _) = shake_with(messages, &local(&nonces), kind).await?;
    assert!(nonces.lock().is_empty());
    Ok(remote)
}

async fn pair(v2: bool) -> (Connection, Connection) {
    let (a, b) = tokio::io::duplex(1 << 16);
    if !v2 {
        return (Connection::v1(a, MAGIC), Connection::v1(b, MAGIC));
    }
    let (a, b) = tokio::join!(
        Connection::connect_v2(a, MAGIC, LIMIT),
        Connection::accept(b, MAGIC, true, LIMIT),
    );
    (a.unwrap(), b.unwrap())
}

#[tokio::test]
async fn both_directions_shake_hands_over_either_transport() {
    for v2 in [false, true] {
        let (mut caller, mut called) = pair(v2).await;
        let (nonces, other_nonces) = (Nonces::default(), Nonces::default());
        let mut other = local(&other_nonces);
        other.start_height = 9;
        other.services = local_services(false, true);
        let ours = local(&nonces);
        let (outbound, inbound) = tokio::join!(
            handshake(&mut caller, &ours, ConnectionKind::FullRelay),
            handshake(&mut called, &other, ConnectionKind::Inbound),
        );
        let (outbound, inbound) = (outbound.unwrap(), inbound.unwrap());
        assert_eq!((outbound.start_height, inbound.start_height), (9, 3));
        assert_eq!(outbound.services, other.services);
        assert_eq!(outbound.user_agent, USER_AGENT);
        assert_eq!(outbound.time, 1_700_000_000);
        for remote in [&outbound, &inbound] {
            assert!(remote.wtxid_relay && remote.addr_v2 && remote.relay);
        }
        caller.write(&NetworkMessage::Ping(1).into()).await.unwrap();
        assert_eq!(called.read().await.unwrap().0, Message::Ping(1));
    }
}

#[tokio::test]
async fn transactions_are_not_wanted_on_connections_that_are_not_for_them() {
    for (kind, wanted) in [
        (ConnectionKind::Manual, true),
        (ConnectionKind::FullRelay, true),
        (ConnectionKind::AddrFetch, true),
        (ConnectionKind::BlockRelay, false),
        (ConnectionKind::Feeler, false),
    ] {
        for (relay, heard) in [(true, wanted), (false, false)] {
            let (mut caller, mut called) = pair(false).await;
            let (nonces, other_nonces) = (Nonces::default(), Nonces::default());
            let ours = LocalVersion {
                relay,
                ..local(&nonces)
            };
            let other = local(&other_nonces);
            let (_, inbound) = tokio::join!(
                handshake(&mut caller, &ours, kind),
                handshake(&mut called, &other, ConnectionKind::Inbound),
            );
            assert_eq!(inbound.unwrap().relay, heard, "{}", kind.name());
        }
    }
}

#[tokio::test]
async fn a_stranger_hears_nothing_before_its_version() {
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    let verack = encode_message(NetworkMessage::Verack, MAGIC);
    theirs.write_all(&verack).await.unwrap();
    let nonces = Nonces::default();
    let mut connection = Connection::v1(ours, MAGIC);
    let shaken = handshake(&mut connection, &local(&nonces), ConnectionKind::Inbound).await;
    assert!(matches!(shaken, Err(HandshakeError::OutOfOrder)));
    drop(connection);
    let mut heard = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut theirs, &mut heard)
        .await
        .unwrap();
    assert!(heard.is_empty());
}

#[tokio::test]
async fn features_are_negotiated_before_verack_only() {
    let negotiated = vec![
        with(|_| {}),
        NetworkMessage::SendAddrV2,
        NetworkMessage::SendHeaders,
        // Ignored, as in Bitcoin Core.
        with(|version| version.start_height = 77),
        NetworkMessage::WtxidRelay,
        NetworkMessage::Verack,
        NetworkMessage::Verack,
    ];
    let remote = shake(negotiated, ConnectionKind::FullRelay).await.unwrap();
    assert!(remote.wtxid_relay && remote.addr_v2);
    assert_eq!((remote.start_height, remote.relay), (3, true));
    assert_eq!(remote.user_agent, "/other:1/");

    let plain = vec![with(|_| {}), NetworkMessage::Verack];
    let remote = shake(plain, ConnectionKind::FullRelay).await.unwrap();
    assert!(!remote.wtxid_relay && !remote.addr_v2);

    for late in [NetworkMessage::WtxidRelay, NetworkMessage::SendAddrV2] {
        let messages = vec![with(|_| {}), NetworkMessage::Verack, late];
        let nonces = Nonces::default();
        let (_, mut connection) = shake_with(messages, &local(&nonces), ConnectionKind::FullRelay)
            .await
            .unwrap();
        assert!(matches!(
            connection.read().await,
            Err(CodecError::AfterVerack)
        ));
    }
}

#[tokio::test]
async fn peers_of_older_versions_do_not_negotiate() {
    let messages = vec![
        with(|version| version.version = 70_015),
        NetworkMessage::WtxidRelay,
        NetworkMessage::Verack,
    ];
    let remote = shake(messages, ConnectionKind::FullRelay).await.unwrap();
    assert!(!remote.wtxid_relay);
}

#[tokio::test]
async fn services_are_demanded_where_blocks_are_wanted() {
    let limited = ServiceFlags::NETWORK_LIMITED | ServiceFlags::WITNESS;
    let full = ServiceFlags::NETWORK | ServiceFlags::WITNESS;
    let offers = [
        (ServiceFlags::NONE, false, false),
        (ServiceFlags::NETWORK, false, false),
        (limited, false, true),
        (full, true, true),
    ];
    for (services, serves_all, serves_recent) in offers {
        for limited_peers in [false, true] {
            for kind in [
                ConnectionKind::Manual,
                ConnectionKind::FullRelay,
                ConnectionKind::BlockRelay,
                ConnectionKind::Feeler,
                ConnectionKind::AddrFetch,
                ConnectionKind::Inbound,
            ] {
                let messages = vec![
                    with(|version| version.services = services),
                    NetworkMessage::Verack,
                ];
                let nonces = Nonces::default();
                let ours = LocalVersion {
                    limited_peers,
                    ..local(&nonces)
                };
                let shaken = shake_with(messages, &ours, kind).await;
                let serves = if limited_peers {
                    serves_recent
                } else {
                    serves_all
                };
                if serves || !kind.must_serve_blocks() {
                    assert_eq!(shaken.unwrap().0.services, services);
                } else {
                    assert!(matches!(
                        shaken,
                        Err(HandshakeError::MissingServices { .. })
                    ));
                }
            }
        }
    }
}

#[tokio::test]
async fn a_connection_to_itself_is_noticed_by_the_called_side() {
    let (mut caller, mut called) = pair(false).await;
    let nonces = Nonces::default();
    let ours = local(&nonces);
    let inbound = async {
        let shaken = handshake(&mut called, &ours, ConnectionKind::Inbound).await;
        drop(called);
        shaken
    };
    let (outbound, inbound) = tokio::join!(
        handshake(&mut caller, &ours, ConnectionKind::FullRelay),
        inbound
    );
    assert!(matches!(inbound, Err(HandshakeError::SelfConnection)));
    assert!(!outbound.unwrap_err().is_misbehaviour());
    assert!(nonces.lock().is_empty());
}

#[tokio::test]
async fn every_connection_has_a_nonce_of_its_own() {
    let nonces = Nonces::default();
    let pending = [Pending::new(&nonces), Pending::new(&nonces)];
    assert_ne!(pending[0].nonce, pending[1].nonce);
    assert!(pending.iter().all(|own| nonces.contains(own.nonce)));
    drop(pending);
    assert!(nonces.lock().is_empty());
}

#[tokio::test]
async fn unfit_peers_are_refused() {
    let kind = ConnectionKind::FullRelay;
    for version in [0, 70_011, u32::MAX] {
        let old = with(|message| message.version = version);
        match shake(vec![old, NetworkMessage::Verack], kind).await {
            Err(HandshakeError::TooOld { version: found }) => assert_eq!(found, version),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(
        shake(vec![NetworkMessage::Verack], kind).await,
        Err(HandshakeError::OutOfOrder)
    ));
    let mut chatty = vec![with(|_| {})];
    chatty.extend((0..40).map(|_| NetworkMessage::SendAddrV2));
    assert!(matches!(
        shake(chatty, kind).await,
        Err(HandshakeError::TooManyMessages)
    ));
    let hung_up = shake(vec![with(|_| {})], kind).await.unwrap_err();
    assert!(!hung_up.is_misbehaviour());
    let nonces = Nonces::default();
    let malformed = encode_frame("version", &[0; 9], MAGIC);
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    theirs.write_all(&malformed).await.unwrap();
    let mut connection = Connection::v1(ours, MAGIC);
    let shaken = handshake(&mut connection, &local(&nonces), kind).await;
    assert!(shaken.unwrap_err().is_misbehaviour());
}
