//! How connections end.

use std::io;

use super::peer::Fault;
use crate::p2p::{codec::CodecError, handshake::HandshakeError};

/// Why a connection ended, or was never made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// The node closes it.
    #[error("closed by the node")]
    Stopped,
    /// No connection could be made.
    #[error("unreachable")]
    Unreachable(#[source] io::Error),
    /// The handshake failed.
    #[error("handshake")]
    Handshake(#[source] HandshakeError),
    /// The connection broke or the peer hung up.
    #[error("connection ended")]
    Ended(#[source] io::Error),
    /// Nothing came for the configured time.
    #[error("inactive")]
    Inactive,
    /// A ping was not answered.
    #[error("no pong")]
    NoPong,
    /// The peer does not read what is sent to it.
    #[error("it does not read")]
    NotReading,
    /// The peer sent something that is not the protocol.
    #[error("malformed message")]
    Malformed(#[source] CodecError),
    /// The connection has done what it was made for.
    #[error("done")]
    Done,
    /// A part of the node found fault with the peer.
    #[error("{}", .0.word())]
    Fault(Fault),
}

/// How an end bears on the next connection with the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Penalty {
    /// It went away: tried again soon, then at doubling intervals.
    None,
    /// It was too slow or of no use: others come first.
    Slow,
    /// It broke the rules.
    Misbehaved,
}

impl CloseReason {
    pub(super) fn penalty(&self) -> Penalty {
        match self {
            Self::Malformed(_) => Penalty::Misbehaved,
            Self::Handshake(err) if err.is_misbehaviour() => Penalty::Misbehaved,
            Self::Fault(Fault::Misbehaved(_)) => Penalty::Misbehaved,
            Self::Fault(Fault::Slow(_) | Fault::Useless(_)) => Penalty::Slow,
            _ => Penalty::None,
        }
    }

    /// One word out of a fixed set, for metrics.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Unreachable(_) => "unreachable",
            Self::Handshake(_) => "handshake",
            Self::Ended(_) => "ended",
            Self::Inactive => "inactive",
            Self::NoPong => "no_pong",
            Self::NotReading => "not_reading",
            Self::Malformed(_) => "malformed",
            Self::Done => "done",
            Self::Fault(fault) => fault.word(),
        }
    }
}
