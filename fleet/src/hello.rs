//! What two nodes say to each other right after the handshake of the transport, before
//! anything else runs on the connection.
//!
//! ```text
//! dialer   -> length u16 BE | hello
//! listener -> length u16 BE | hello           only to a member
//! hello       "pulsefleet" | major u8 | minor u8 | network 32 | ticket length u8 | ticket
//! ```
//!
//! Bytes behind that are ignored, so that a later minor version can say more.
//!
//! # Security
//! The other side has proven its peer id by then (Noise, TLS) and nothing else is known
//! of it. A stranger costs a handshake, [`MAX_HELLO`] bytes and at most [`HELLO_LIMIT`];
//! without a fleet key he does not get as far as this.

use std::{
    future::{Future, poll_fn},
    io,
    pin::pin,
    sync::Arc,
    task::Poll,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use libp2p::{
    PeerId,
    core::muxing::{StreamMuxerBox, StreamMuxerExt, SubstreamBox},
    futures::{AsyncReadExt, AsyncWriteExt},
};
use tokio::time::timeout;
use tracing::debug;

use crate::{
    members::{Gate, Refusal},
    metrics,
};

/// Version of everything that siblings say to each other. Another major one is refused,
/// and so is one that is more than one minor version away.
pub const VERSION: Version = Version { major: 1, minor: 0 };
/// Time for both to say hello.
pub const HELLO_LIMIT: Duration = Duration::from_secs(5);
/// Longest hello, in bytes.
pub const MAX_HELLO: usize = 512;

const MAGIC: &[u8; 10] = b"pulsefleet";

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Changes when old nodes could not understand new ones.
    pub major: u8,
    /// Changes when new ones can say more.
    pub minor: u8,
}

impl Version {
    /// Whether nodes of these versions can work together.
    #[must_use]
    pub fn works_with(self, other: Self) -> bool {
        self.major == other.major && self.minor.abs_diff(other.minor) <= 1
    }
}

/// Why a connection is not kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    /// It broke before, or the other side refused us, which it does without a word.
    #[error("the connection ended")]
    Io(#[from] io::Error),
    /// It took too long.
    #[error("it took too long")]
    Timeout,
    /// The other side does not say hello.
    #[error("not a hello")]
    Malformed,
    /// The other side is of another network.
    #[error("it is of another network")]
    OtherNetwork,
    /// The versions cannot work together.
    #[error("it speaks version {}.{}", .0.major, .0.minor)]
    OtherVersion(Version),
    /// The other side is no member.
    #[error(transparent)]
    Refused(#[from] Refusal),
}

impl HelloError {
    /// One word out of a fixed set, for metrics.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Io(_) => "ended",
            Self::Timeout => "timeout",
            Self::Malformed => "malformed",
            Self::OtherNetwork => "network",
            Self::OtherVersion(_) => "version",
            Self::Refused(Refusal::Denied) => "denied",
            Self::Refused(Refusal::Punished) => "punished",
            Self::Refused(Refusal::Stranger) => "stranger",
        }
    }
}

/// A hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The version that the sender speaks.
    pub version: Version,
    /// Genesis block of its network.
    pub network: [u8; 32],
    /// Its ticket; empty if it has none.
    pub ticket: Vec<u8>,
}

impl Hello {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([self.version.major, self.version.minor]);
        bytes.extend(self.network);
        let len = u8::try_from(self.ticket.len()).unwrap_or(0);
        bytes.push(len);
        bytes.extend(&self.ticket[..usize::from(len)]);
        bytes
    }

    /// Reverse of [`Hello::encode`]; `None` for anything else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (&[major, minor], rest) = rest.split_first_chunk()?;
        let (network, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first()?;
        let ticket = rest.get(..usize::from(*len))?.to_vec();
        Some(Self {
            version: Version { major, minor },
            network: *network,
            ticket,
        })
    }
}

/// Says hello over a connection with `peer` and hears its hello. Gives the connection
/// back when the other side is a member.
///
/// # Errors
/// [`HelloError`]; the connection is dropped.
pub async fn admit(
    gate: Arc<Gate>,
    own: PeerId,
    (peer, muxer): (PeerId, StreamMuxerBox),
    we_dialed: bool,
) -> Result<(PeerId, StreamMuxerBox), HelloError> {
    let greeted = timeout(HELLO_LIMIT, greet(&gate, own, peer, muxer, we_dialed)).await;
    let greeted = greeted.unwrap_or(Err(HelloError::Timeout));
    if let Err(err) = &greeted {
        debug!(%peer, %err, "sibling refused");
        if !we_dialed {
            metrics::refused(err.word());
        }
    }
    greeted.map(|muxer| (peer, muxer))
}

async fn greet(
    gate: &Gate,
    own: PeerId,
    peer: PeerId,
    mut muxer: StreamMuxerBox,
    we_dialed: bool,
) -> Result<StreamMuxerBox, HelloError> {
    if peer == own {
        // It is this node itself, which the swarm finds out.
        return Ok(muxer);
    }
    gate.check_id(&peer)?;
    let stream = poll_fn(|cx| {
        let opened = match we_dialed {
            true => muxer.poll_outbound_unpin(cx),
            false => muxer.poll_inbound_unpin(cx),
        };
        match (opened, muxer.poll_unpin(cx)) {
            (Poll::Ready(stream), _) => Poll::Ready(stream),
            (Poll::Pending, Poll::Ready(Err(err))) => Poll::Ready(Err(err)),
            (Poll::Pending, _) => Poll::Pending,
        }
    });
    let mut stream = stream.await?;
    let hello = Hello {
        version: gate.version(),
        network: *gate.network(),
        ticket: gate.own_ticket(&own, now()),
    };
    let talk = async {
        if we_dialed {
            write(&mut stream, &hello).await?;
        }
        let theirs = read(&mut stream).await?;
        judge(gate, &peer, &theirs)?;
        if !we_dialed {
            write(&mut stream, &hello).await?;
        }
        // Whatever is not said by now is not for us.
        Ok(stream.close().await?)
    };
    while_driving(&mut muxer, talk).await?;
    Ok(muxer)
}

/// Whether what the other side says makes it one of us.
fn judge(gate: &Gate, peer: &PeerId, hello: &Hello) -> Result<(), HelloError> {
    if hello.network != *gate.network() {
        return Err(HelloError::OtherNetwork);
    }
    if !gate.version().works_with(hello.version) {
        return Err(HelloError::OtherVersion(hello.version));
    }
    Ok(gate.admit(peer, &hello.ticket, now())?)
}

async fn write(stream: &mut SubstreamBox, hello: &Hello) -> Result<(), HelloError> {
    let body = hello.encode();
    let len = u16::try_from(body.len()).map_err(|_| HelloError::Malformed)?;
    stream.write_all(&len.to_be_bytes()).await?;
    stream.write_all(&body).await?;
    Ok(stream.flush().await?)
}

async fn read(stream: &mut SubstreamBox) -> Result<Hello, HelloError> {
    let mut len = [0; 2];
    stream.read_exact(&mut len).await?;
    let len = usize::from(u16::from_be_bytes(len));
    if len > MAX_HELLO {
        return Err(HelloError::Malformed);
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    Hello::decode(&body).ok_or(HelloError::Malformed)
}

/// Bytes of a stream move only while its connection is polled.
async fn while_driving(
    muxer: &mut StreamMuxerBox,
    work: impl Future<Output = Result<(), HelloError>>,
) -> Result<(), HelloError> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(done);
        }
        loop {
            match muxer.poll_unpin(cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(err)) => return Poll::Ready(Err(err.into())),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            version: VERSION,
            network: [3; 32],
            ticket: vec![9; 72],
        }
    }

    #[test]
    fn a_hello_reads_back_also_when_a_later_version_says_more() {
        let mut bytes = hello().encode();
        assert!(bytes.len() < MAX_HELLO);
        for len in 0..bytes.len() {
            assert_eq!(Hello::decode(&bytes[..len]), None, "{len} bytes");
        }
        bytes.extend(b"more");
        assert_eq!(Hello::decode(&bytes), Some(hello()));
    }

    #[test]
    fn versions_work_together_that_are_one_minor_version_apart() {
        let of = |major, minor| Version { major, minor };
        assert!(of(1, 4).works_with(of(1, 3)) && of(1, 3).works_with(of(1, 4)));
        assert!(!of(1, 4).works_with(of(1, 2)) && !of(1, 2).works_with(of(1, 4)));
        assert!(!of(1, 4).works_with(of(2, 4)));
        assert!(VERSION.works_with(VERSION));
    }

    #[test]
    fn another_network_or_version_is_refused_before_membership_is_asked() {
        let peer = PeerId::random();
        let gate = Gate::new([3; 32], VERSION, crate::members::Members::default());
        let judged = |hello: &Hello| judge(&gate, &peer, hello).unwrap_err().word();
        assert_eq!(judged(&hello()), "stranger");
        assert_eq!(
            judged(&Hello {
                network: [4; 32],
                ..hello()
            }),
            "network"
        );
        let version = Version { major: 2, minor: 0 };
        assert_eq!(judged(&Hello { version, ..hello() }), "version");
    }
}
