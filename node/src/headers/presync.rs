//! Keeps chains without enough work out of memory and off the disk, by downloading a
//! peer's headers twice.
//!
//! ```text
//! presync     headers -> work summed, one bit in `commitment_period` kept -> enough work?
//! redownload  headers -> bits compared -> buffer -> those with enough bits above them
//! ```
//!
//! What a chain is worth can only be told by looking at all of it, and storing it first
//! would let anybody fill the disk with headers of difficulty 1. So the first pass keeps
//! nothing but a salted bit of one header in some hundreds; the second pass hands
//! headers out when so many later bits have matched that a chain other than the one of
//! the first pass would have been found out (Bitcoin Core's `headerssync`).
//!
//! Pure: headers come in with their proof of work and their linkage checked, time and
//! randomness are passed in.
//!
//! # Security
//! One state takes at most one bit per `commitment_period` headers that could exist by
//! now (six per second, as the median time rule allows; some 650 kB on mainnet) and 48
//! bytes per header of the redownload buffer (730 kB). It belongs to one peer and ends
//! with it. Cheating in the second pass costs an attacker about `2^(buffer / period)`
//! tries with real proof of work each time.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use pulse_primitives::{
    Height,
    bitcoin::{
        BlockHash, CompactTarget, Network, Target, TxMerkleNode, Work,
        block::{Header, Version},
        consensus::Params,
        hashes::{Hash, siphash24},
    },
};

/// Blocks per second that the median time rule allows for ever (BIP 113: six of eleven
/// must be later than the median).
const MAX_BLOCKS_PER_SECOND: u64 = 6;
/// How far in the future a header may be, in seconds (Bitcoin Core's
/// `MAX_FUTURE_BLOCK_TIME`).
const MAX_FUTURE_SECONDS: u64 = 2 * 60 * 60;

/// How densely bits are kept, and how many headers must stand above one before it is
/// handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresyncParams {
    /// Headers per bit.
    pub commitment_period: u32,
    /// Headers that wait in the second pass.
    pub redownload_buffer: usize,
}

impl PresyncParams {
    /// The values of Bitcoin Core 31, which its `headerssync-params.py` finds to take
    /// the least memory under attack.
    #[must_use]
    pub fn of(network: Network) -> Self {
        let (commitment_period, redownload_buffer) = match network {
            Network::Bitcoin => (641, 15_218),
            Network::Testnet => (673, 14_460),
            Network::Testnet4 => (606, 16_092),
            Network::Signet => (620, 15_724),
            _ => (275, 7_017),
        };
        Self {
            commitment_period,
            redownload_buffer,
        }
    }
}

/// The known header that a peer's chain branches from.
#[derive(Debug, Clone, Copy)]
pub struct ChainStart {
    /// Its height.
    pub height: Height,
    /// Its hash.
    pub hash: BlockHash,
    /// Its target.
    pub bits: CompactTarget,
    /// Work from genesis up to and including it.
    pub work: Work,
    /// Median time of the eleven headers up to it, in seconds since 1970.
    pub median_time: u32,
}

/// Random numbers that a peer must not know.
#[derive(Debug, Clone, Copy)]
pub struct Salt {
    /// Keys of the hash that bits are taken from.
    pub keys: (u64, u64),
    /// Moves the heights at which bits are kept.
    pub offset: u32,
}

/// Why a peer's chain is not followed any further. None of them proves bad intent: the
/// peer may have changed its mind about the best chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GiveUp {
    /// The headers do not follow those before.
    #[error("they do not follow the headers before")]
    Discontinuous,
    /// The target changes by more, or at another height, than the rules allow.
    #[error("their difficulty changes as no valid chain's does")]
    Difficulty,
    /// There are more headers than can exist by now.
    #[error("there are more of them than can exist by now")]
    TooLong,
    /// The second pass brings another chain than the first.
    #[error("they are not those sent before")]
    Changed,
}

/// What follows from a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Ask for what follows [`Presync::continue_from`].
    AskForMore,
    /// It is over: the peer has no more headers. Either all that were held back have
    /// been handed out, or the chain has too little work.
    Done,
    /// It is over: the message is to be treated as if it had come without a presync.
    GiveUp(GiveUp),
}

/// Headers to take in now, and what to do then.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Headers of a chain with enough work, oldest first. May be more than one message
    /// can hold.
    pub accept: Vec<Header>,
    /// What then.
    pub next: Next,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Presync,
    Redownload,
}

/// A header without its parent's hash. 48 bytes.
struct Compressed {
    version: Version,
    merkle_root: TxMerkleNode,
    time: u32,
    bits: CompactTarget,
    nonce: u32,
}

impl Compressed {
    fn header(&self, prev_blockhash: BlockHash) -> Header {
        Header {
            version: self.version,
            prev_blockhash,
            merkle_root: self.merkle_root,
            time: self.time,
            bits: self.bits,
            nonce: self.nonce,
        }
    }
}

/// The place in a chain of headers that is being walked.
#[derive(Debug, Clone, Copy)]
struct Walk {
    height: Height,
    hash: BlockHash,
    bits: CompactTarget,
    work: Work,
}

impl From<&ChainStart> for Walk {
    fn from(start: &ChainStart) -> Self {
        Self {
            height: start.height,
            hash: start.hash,
            bits: start.bits,
            work: start.work,
        }
    }
}

/// The download of one peer's headers in two passes.
pub struct Presync {
    consensus: Params,
    params: PresyncParams,
    start: ChainStart,
    min_work: Work,
    salt: Salt,
    phase: Phase,
    /// Where the pass under way has come to.
    at: Walk,
    /// Bits of the first pass.
    commitments: Bits,
    max_commitments: u64,
    /// Bits that the second pass has compared.
    compared: u64,
    /// Headers of the second pass that are not handed out yet.
    buffer: VecDeque<Compressed>,
    /// Parent of the first of them.
    buffer_parent: BlockHash,
    /// The second pass has reached the work: nothing is held back any more.
    release_all: bool,
}

impl Presync {
    /// Begins above `start`, which is known, to find out whether a chain has `min_work`.
    /// `now` is in seconds since 1970.
    ///
    /// # Panics
    /// When `params.commitment_period` is zero.
    #[must_use]
    pub fn new(
        consensus: Params,
        params: PresyncParams,
        start: ChainStart,
        min_work: Work,
        mut salt: Salt,
        now: u64,
    ) -> Self {
        salt.offset %= params.commitment_period;
        let seconds = (now + MAX_FUTURE_SECONDS).saturating_sub(start.median_time.into());
        let max_commitments = MAX_BLOCKS_PER_SECOND * seconds / u64::from(params.commitment_period);
        Self {
            consensus,
            params,
            at: Walk::from(&start),
            buffer_parent: start.hash,
            start,
            min_work,
            salt,
            phase: Phase::Presync,
            commitments: Bits::default(),
            max_commitments,
            compared: 0,
            buffer: VecDeque::new(),
            release_all: false,
        }
    }

    /// Takes a message of at least one header, each with valid proof of work for its own
    /// target and following the one before. `full` if it was as long as one can be.
    ///
    /// After [`Next::Done`] and [`Next::GiveUp`] the state is to be dropped.
    pub fn process(&mut self, headers: &[Header], full: bool) -> Outcome {
        let walked = match self.phase {
            Phase::Presync => self.presync(headers),
            Phase::Redownload => self.redownload(headers),
        };
        if let Err(reason) = walked {
            return Outcome {
                accept: Vec::new(),
                next: Next::GiveUp(reason),
            };
        }
        let accept = match self.phase {
            Phase::Presync => Vec::new(),
            Phase::Redownload => self.release(),
        };
        let just_begun = self.phase == Phase::Presync && self.at.work >= self.min_work;
        if just_begun {
            self.phase = Phase::Redownload;
            self.at = Walk::from(&self.start);
        }
        let next = if just_begun || (full && !self.release_all) {
            Next::AskForMore
        } else {
            Next::Done
        };
        Outcome { accept, next }
    }

    /// The block behind which the peer is to be asked for more: first in the locator,
    /// before that of [`Presync::start_hash`].
    #[must_use]
    pub fn continue_from(&self) -> BlockHash {
        self.at.hash
    }

    /// The known block that the chain branches from.
    #[must_use]
    pub fn start_hash(&self) -> BlockHash {
        self.start.hash
    }

    /// Height that the pass under way has come to.
    #[must_use]
    pub fn height(&self) -> Height {
        self.at.height
    }

    /// Whether the peer has shown enough work and is in the second pass.
    #[must_use]
    pub fn has_shown_work(&self) -> bool {
        self.phase == Phase::Redownload
    }

    /// Memory that the state takes besides itself, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.commitments.words.capacity() * 8 + self.buffer.capacity() * size_of::<Compressed>()
    }

    fn presync(&mut self, headers: &[Header]) -> Result<(), GiveUp> {
        for header in headers {
            let at = self.step(header)?;
            if self.commits_at(at.height) {
                self.commitments.push(self.commitment(&at.hash));
                if self.commitments.len > self.max_commitments {
                    return Err(GiveUp::TooLong);
                }
            }
            self.at = at;
        }
        Ok(())
    }

    fn redownload(&mut self, headers: &[Header]) -> Result<(), GiveUp> {
        for header in headers {
            let at = self.step(header)?;
            // Behind the work that was asked for the chain may have grown meanwhile.
            self.release_all |= at.work >= self.min_work;
            if !self.release_all && self.commits_at(at.height) {
                let expected = self.commitments.get(self.compared).ok_or(GiveUp::Changed)?;
                self.compared += 1;
                if self.commitment(&at.hash) != expected {
                    return Err(GiveUp::Changed);
                }
            }
            self.buffer.push_back(Compressed {
                version: header.version,
                merkle_root: header.merkle_root,
                time: header.time,
                bits: header.bits,
                nonce: header.nonce,
            });
            self.at = at;
        }
        Ok(())
    }

    /// One header further, if it may follow.
    fn step(&self, header: &Header) -> Result<Walk, GiveUp> {
        if header.prev_blockhash != self.at.hash {
            return Err(GiveUp::Discontinuous);
        }
        let height = self.at.height + 1;
        if !permitted_transition(&self.consensus, height, self.at.bits, header.bits) {
            return Err(GiveUp::Difficulty);
        }
        Ok(Walk {
            height,
            hash: header.block_hash(),
            bits: header.bits,
            work: self.at.work + header.work(),
        })
    }

    /// Takes out of the buffer what has enough headers above it.
    fn release(&mut self) -> Vec<Header> {
        let keep = if self.release_all {
            0
        } else {
            self.params.redownload_buffer
        };
        let count = self.buffer.len().saturating_sub(keep);
        let mut parent = self.buffer_parent;
        let ready = self
            .buffer
            .drain(..count)
            .map(|compressed| {
                let header = compressed.header(parent);
                parent = header.block_hash();
                header
            })
            .collect();
        self.buffer_parent = parent;
        ready
    }

    fn commits_at(&self, height: Height) -> bool {
        height % self.params.commitment_period == self.salt.offset
    }

    fn commitment(&self, hash: &BlockHash) -> bool {
        let (k0, k1) = self.salt.keys;
        siphash24::Hash::hash_to_u64_with_keys(k0, k1, hash.as_byte_array()) & 1 == 1
    }
}

/// A growing row of bits.
#[derive(Default)]
struct Bits {
    words: Vec<u64>,
    len: u64,
}

impl Bits {
    fn push(&mut self, bit: bool) {
        if self.len.is_multiple_of(64) {
            self.words.push(0);
        }
        if let Some(word) = self.words.last_mut() {
            *word |= u64::from(bit) << (self.len % 64);
        }
        self.len += 1;
    }

    fn get(&self, index: u64) -> Option<bool> {
        let word = self.words.get(usize::try_from(index / 64).ok()?)?;
        (index < self.len).then_some(word >> (index % 64) & 1 == 1)
    }
}

/// Whether a header at `height` may have `new` as its target when its parent has `old`,
/// whatever their times are.
///
/// # Consensus
/// The target changes every 2016 blocks, at most by a factor of four either way, and not
/// above the network's easiest. Looser than the rule itself, which needs the times; as
/// Bitcoin Core's `PermittedDifficultyTransition`. Networks that allow blocks of least
/// difficulty pass everything.
fn permitted_transition(
    consensus: &Params,
    height: Height,
    old: CompactTarget,
    new: CompactTarget,
) -> bool {
    if consensus.allow_min_difficulty_blocks {
        return true;
    }
    if !u64::from(height).is_multiple_of(consensus.difficulty_adjustment_interval()) {
        return old == new;
    }
    let rounded = |target: Target| Target::from_compact(target.to_compact_lossy());
    let (old, new) = (Target::from_compact(old), Target::from_compact(new));
    let easiest = consensus.max_attainable_target;
    let largest = rounded(old.max_transition_threshold(consensus));
    let smallest = rounded(old.min_transition_threshold().min(easiest));
    (smallest..=largest).contains(&new)
}
