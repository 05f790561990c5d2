//! What an operator sees of peers and may do to them, from the node to the API. No
//! implementations.

use serde::Serialize;

/// Longest time for which a ban can be set, in seconds: ten years.
pub const MAX_BAN_SECS: u64 = 10 * 365 * 24 * 60 * 60;

/// One connection with a finished handshake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerDetail {
    /// Its number in this run. A peer that is connected again gets another one.
    pub id: u64,
    /// Where it was reached or where it came from, as `HOST:PORT`.
    pub addr: String,
    /// Network of its address: `ipv4`, `ipv6`, `onion`, `i2p` or `cjdns`; `null` for a
    /// name that only the proxy has resolved.
    pub network: Option<&'static str>,
    /// Why there is a connection: `manual`, `full_relay`, `block_relay`, `feeler`,
    /// `addr_fetch` or `inbound`.
    pub kind: &'static str,
    /// Who made the connection: `inbound` or `outbound`.
    pub direction: &'static str,
    /// How its bytes look: `v1`, or `v2` when they are encrypted (BIP 324).
    pub transport: &'static str,
    /// Protocol version that it speaks.
    pub version: u32,
    /// What it offers, as the bits of its version message.
    pub services: u64,
    /// User agent that it claims (BIP 14), printable ASCII only.
    pub user_agent: String,
    /// Whether it wants transactions to be announced.
    pub relays_txs: bool,
    /// Height that it claimed in its version message.
    pub start_height: i32,
    /// Height of the best block that it has shown the header of; `null` before the first.
    pub known_height: Option<u32>,
    /// Time from the last answered ping to its answer, in milliseconds.
    pub last_ping_ms: Option<u64>,
    /// Shortest such time.
    pub least_ping_ms: Option<u64>,
    /// Bytes that came from it since the handshake, frames included.
    pub bytes_received: u64,
    /// Bytes that were sent to it since the handshake, frames included.
    pub bytes_sent: u64,
    /// End of the handshake, in seconds since 1970.
    pub connected_since: u64,
}

/// A ban in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BanDetail {
    /// An address, or a network as `IP/BITS`.
    pub target: String,
    /// When it was set, in seconds since 1970.
    pub since: u64,
    /// First moment at which it is over, in seconds since 1970.
    pub until: u64,
}

/// Why a command of an operator was not obeyed. The text is for him.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerCommandError {
    /// The target of a ban cannot be read.
    #[error("{text:?} is neither an address nor a network (IP/BITS)")]
    Target {
        /// What was given.
        text: String,
    },
    /// The time of a ban is out of bounds.
    #[error("a ban lasts from 1 to {MAX_BAN_SECS} seconds")]
    Duration,
    /// There are as many bans as there can be.
    #[error("there are too many bans. Hint: ban a network instead of its addresses")]
    TooManyBans,
}

/// The peers of a node in the hands of its operator.
///
/// No call waits for the network or for the disk.
pub trait PeerControl: Send + Sync + 'static {
    /// All connections with a finished handshake, oldest first.
    fn peers(&self) -> Vec<PeerDetail>;

    /// Ends a connection; whether there was one. The peer may come back, and one that
    /// the operator has named in the configuration is dialled again.
    fn disconnect(&self, id: u64) -> bool;

    /// All bans in force.
    fn bans(&self) -> Vec<BanDetail>;

    /// Bans an address or a network and ends its connections, but for those that the
    /// operator has named in the configuration. `seconds`: for how long, a day if `None`.
    /// A ban that lasts longer already stays.
    ///
    /// # Errors
    /// [`PeerCommandError`].
    fn ban(&self, target: &str, seconds: Option<u64>) -> Result<BanDetail, PeerCommandError>;

    /// Lifts the ban of exactly this target; whether there was one.
    ///
    /// # Errors
    /// [`PeerCommandError::Target`].
    fn unban(&self, target: &str) -> Result<bool, PeerCommandError>;
}
