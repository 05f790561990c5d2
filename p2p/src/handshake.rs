//! The version handshake.
//!
//! ```text
//! outbound   ours:    version ----------> verack, sendheaders
//!            theirs:  version, [wtxidrelay, sendaddrv2, ...], verack
//!
//! inbound    theirs:  version ----------> [wtxidrelay, ...], verack
//!            ours:    version, verack
//! ```
//!
//! A peer that we connect to is only of use if it serves all blocks with witnesses, so
//! one without `NODE_NETWORK` and `NODE_WITNESS` is refused. One that connects to us
//! need not offer anything; it is not asked for anything either.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::{SystemTime, UNIX_EPOCH},
};

use pulse_primitives::bitcoin::p2p::{
    Address, ServiceFlags, message::NetworkMessage, message_network::VersionMessage,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::codec::{CodecError, Message, encode_message, read_message};

/// Protocol version that the node speaks (Bitcoin Core's, with BIP 339).
pub const PROTOCOL_VERSION: u32 = 70_016;
/// Least version that a peer must speak: the first with `sendheaders` (BIP 130).
pub const MIN_PROTOCOL_VERSION: u32 = 70_012;
/// How the node names itself (BIP 14).
pub const USER_AGENT: &str = concat!("/pulse-node:", env!("CARGO_PKG_VERSION"), "/");

/// Messages that a peer may send before its `verack`. Features are negotiated there.
const MAX_MESSAGES: usize = 32;

/// Who made the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// We did, to sync from the peer.
    Outbound,
    /// The peer did, to be served.
    Inbound,
}

/// What the node says of itself.
#[derive(Debug, Clone, Copy)]
pub struct LocalVersion {
    /// Random number by which a connection to ourselves is noticed.
    pub nonce: u64,
    /// Height of the active chain.
    pub start_height: u32,
}

/// What a peer says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteVersion {
    /// Protocol version.
    pub version: u32,
    /// Services that it offers.
    pub services: ServiceFlags,
    /// Its software, cut to printable ASCII and 256 characters.
    pub user_agent: String,
    /// Height that it claims. Nothing is decided by it.
    pub start_height: i32,
}

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// A frame could not be read.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// Our side could not be written.
    #[error("sending")]
    Send(#[source] io::Error),
    /// It took too long.
    #[error("it took too long")]
    Timeout,
    /// The first message was not `version`, or there was a second one.
    #[error("out of order")]
    OutOfOrder,
    /// The peer has our nonce: it is this node.
    #[error("connected to itself")]
    SelfConnection,
    /// The peer speaks too old a protocol.
    #[error("protocol version {version} is too old")]
    TooOld {
        /// Its version.
        version: u32,
    },
    /// The peer does not serve all blocks with witnesses.
    #[error("it does not serve the full chain with witnesses (services {services})")]
    MissingServices {
        /// What it offers.
        services: ServiceFlags,
    },
    /// The peer sent too much before `verack`.
    #[error("too many messages before verack")]
    TooManyMessages,
}

impl HandshakeError {
    /// Whether it is no use to try again soon.
    #[must_use]
    pub fn is_misbehaviour(&self) -> bool {
        !matches!(
            self,
            Self::Codec(CodecError::Io(_)) | Self::Send(_) | Self::Timeout
        )
    }
}

/// Shakes hands. The caller limits the time.
///
/// # Errors
/// [`HandshakeError`]; the connection is of no use then.
pub async fn handshake<S>(
    stream: &mut S,
    magic: [u8; 4],
    local: &LocalVersion,
    direction: Direction,
) -> Result<RemoteVersion, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // The side that was connected to speaks second, so that a stranger has to be of
    // this network to learn anything.
    if direction == Direction::Outbound {
        send(stream, magic, version_message(local, direction)).await?;
    }
    let remote = match read_message(stream, magic).await?.0 {
        Message::Version(version) => check_version(&version, local, direction)?,
        _ => return Err(HandshakeError::OutOfOrder),
    };
    if direction == Direction::Inbound {
        send(stream, magic, version_message(local, direction)).await?;
    }
    send(stream, magic, NetworkMessage::Verack).await?;
    for _ in 0..MAX_MESSAGES {
        match read_message(stream, magic).await?.0 {
            Message::Verack => {
                // What an inbound peer announces is not used, in whichever form.
                if direction == Direction::Outbound {
                    send(stream, magic, NetworkMessage::SendHeaders).await?;
                }
                return Ok(remote);
            }
            Message::Version(_) => return Err(HandshakeError::OutOfOrder),
            // wtxidrelay, sendaddrv2 and whatever is negotiated here in the future.
            _ => {}
        }
    }
    Err(HandshakeError::TooManyMessages)
}

async fn send<S>(
    stream: &mut S,
    magic: [u8; 4],
    message: NetworkMessage,
) -> Result<(), HandshakeError>
where
    S: AsyncWrite + Unpin,
{
    stream
        .write_all(&encode_message(message, magic))
        .await
        .map_err(HandshakeError::Send)
}

fn version_message(local: &LocalVersion, direction: Direction) -> NetworkMessage {
    // Only those who connect to us are served.
    let services = match direction {
        Direction::Outbound => ServiceFlags::NONE,
        Direction::Inbound => ServiceFlags::NETWORK | ServiceFlags::WITNESS,
    };
    // No address is told, since peers only use what they see themselves.
    let nobody = Address::new(
        &SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        ServiceFlags::NONE,
    );
    let timestamp = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| {
            i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
        });
    NetworkMessage::Version(VersionMessage {
        version: PROTOCOL_VERSION,
        services,
        timestamp,
        receiver: nobody.clone(),
        sender: nobody,
        nonce: local.nonce,
        user_agent: USER_AGENT.to_owned(),
        start_height: i32::try_from(local.start_height).unwrap_or(i32::MAX),
        // No mempool yet: transactions would only be thrown away.
        relay: false,
    })
}

fn check_version(
    version: &VersionMessage,
    local: &LocalVersion,
    direction: Direction,
) -> Result<RemoteVersion, HandshakeError> {
    if version.nonce == local.nonce {
        return Err(HandshakeError::SelfConnection);
    }
    if version.version < MIN_PROTOCOL_VERSION {
        return Err(HandshakeError::TooOld {
            version: version.version,
        });
    }
    let serves_all =
        version.services.has(ServiceFlags::NETWORK) && version.services.has(ServiceFlags::WITNESS);
    if direction == Direction::Outbound && !serves_all {
        return Err(HandshakeError::MissingServices {
            services: version.services,
        });
    }
    Ok(RemoteVersion {
        version: version.version,
        services: version.services,
        user_agent: version
            .user_agent
            .chars()
            .filter(|c| c.is_ascii_graphic() || *c == ' ')
            .take(256)
            .collect(),
        start_height: version.start_height,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: [u8; 4] = [1, 2, 3, 4];
    const LOCAL: LocalVersion = LocalVersion {
        nonce: 5,
        start_height: 0,
    };

    fn remote_version() -> VersionMessage {
        let message = version_message(&LOCAL, Direction::Inbound);
        let NetworkMessage::Version(mut version) = message else {
            unreachable!("it makes a version message")
        };
        version.nonce = 6;
        version.user_agent = "/other\u{7}:1/".to_owned();
        version
    }

    /// Shakes hands with a peer that sends these messages whatever it hears.
    async fn shake(messages: Vec<NetworkMessage>) -> Result<RemoteVersion, HandshakeError> {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 16);
        for message in messages {
            theirs
                .write_all(&encode_message(message, MAGIC))
                .await
                .unwrap();
        }
        theirs.shutdown().await.unwrap();
        handshake(&mut ours, MAGIC, &LOCAL, Direction::Outbound).await
    }

    #[tokio::test]
    async fn both_directions_shake_hands_with_each_other() {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 16);
        let caller = LocalVersion {
            nonce: 6,
            start_height: 9,
        };
        let (outbound, inbound) = tokio::join!(
            handshake(&mut theirs, MAGIC, &caller, Direction::Outbound),
            handshake(&mut ours, MAGIC, &LOCAL, Direction::Inbound),
        );
        assert_eq!(outbound.unwrap().start_height, 0);
        let inbound = inbound.unwrap();
        assert_eq!(inbound.start_height, 9);
        assert_eq!(inbound.services, ServiceFlags::NONE);
        let (message, _) = read_message(&mut ours, MAGIC).await.unwrap();
        assert_eq!(message, Message::SendHeaders);
    }

    #[tokio::test]
    async fn a_stranger_hears_nothing_before_its_version() {
        let (mut ours, mut theirs) = tokio::io::duplex(1 << 16);
        let verack = encode_message(NetworkMessage::Verack, MAGIC);
        theirs.write_all(&verack).await.unwrap();
        let shaken = handshake(&mut ours, MAGIC, &LOCAL, Direction::Inbound).await;
        assert!(matches!(shaken, Err(HandshakeError::OutOfOrder)));
        drop(ours);
        let mut heard = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut theirs, &mut heard)
            .await
            .unwrap();
        assert!(heard.is_empty());
    }

    #[tokio::test]
    async fn features_before_verack_are_tolerated() {
        let remote = shake(vec![
            NetworkMessage::Version(remote_version()),
            NetworkMessage::WtxidRelay,
            NetworkMessage::SendAddrV2,
            NetworkMessage::Verack,
        ])
        .await
        .unwrap();
        assert_eq!(remote.user_agent, "/other:1/");
    }

    #[tokio::test]
    async fn unfit_peers_are_refused() {
        let with = |change: fn(&mut VersionMessage)| {
            let mut version = remote_version();
            change(&mut version);
            vec![NetworkMessage::Version(version), NetworkMessage::Verack]
        };
        assert!(matches!(
            shake(with(|version| version.nonce = LOCAL.nonce)).await,
            Err(HandshakeError::SelfConnection)
        ));
        assert!(matches!(
            shake(with(|version| version.version = 70_011)).await,
            Err(HandshakeError::TooOld { version: 70_011 })
        ));
        assert!(matches!(
            shake(with(|version| version.services = ServiceFlags::NETWORK)).await,
            Err(HandshakeError::MissingServices { .. })
        ));
        assert!(matches!(
            shake(vec![NetworkMessage::Verack]).await,
            Err(HandshakeError::OutOfOrder)
        ));
        let version = || NetworkMessage::Version(remote_version());
        assert!(matches!(
            shake(vec![version(), version()]).await,
            Err(HandshakeError::OutOfOrder)
        ));
        let mut chatty = vec![version()];
        chatty.extend((0..40).map(|_| NetworkMessage::SendAddrV2));
        assert!(matches!(
            shake(chatty).await,
            Err(HandshakeError::TooManyMessages)
        ));
        let hung_up = shake(vec![version()]).await.unwrap_err();
        assert!(!hung_up.is_misbehaviour());
    }
}
