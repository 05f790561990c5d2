//! Ways in which a scripted peer is not a good one.

use std::time::Duration;

/// One way of misbehaving. A peer can have several; without any it is honest.
///
/// Counts of blocks are per connection: a peer that is dropped and connected again
/// starts anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Accepts the connection and never says a word.
    Silent,
    /// Shakes hands, but never answers a request for headers.
    NoHeaders,
    /// Uses the magic of another network.
    WrongMagic,
    /// Serves so many blocks, then no more, but answers everything else.
    StallAfter(u64),
    /// Serves so many blocks, then hangs up in the middle of the next.
    HangUpMidBlock(u64),
    /// Serves so many blocks, then one that lacks its last 100 bytes although the frame
    /// announces them, then goes on as if nothing had happened.
    TruncatedFrame(u64),
    /// Serves so many blocks, then announces a block of 80 MB and starts to send it.
    HugeMessage(u64),
    /// Serves so many blocks, then a kilobyte of noise.
    Garbage(u64),
    /// Serves so many blocks, then one that nobody asked for.
    UnrequestedBlock(u64),
    /// Claims not to have any block.
    NotFound,
    /// Changes a transaction of the block at this height, but not its header.
    BadMerkleRoot {
        /// The height.
        height: u32,
    },
    /// Gives the header at this height a nonce that misses the target.
    BadPowHeader {
        /// The height.
        height: u32,
    },
    /// Sends blocks no faster than this.
    SlowDrip {
        /// The speed.
        bytes_per_second: u32,
    },
    /// Waits before every block.
    Delay(Duration),
    /// Answers the blocks of a request in another order.
    Order(AnswerOrder),
}

/// Order in which the blocks that are waited for are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerOrder {
    /// Last asked, first served.
    Reversed,
    /// A random one, by seed.
    Shuffled(u64),
}
