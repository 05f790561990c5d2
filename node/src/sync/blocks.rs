//! The download window: which blocks to ask of whom, and which to hand to the kernel.
//!
//! ```text
//! best header chain -> Missing -> InFlight -> Buffered -> Submitted -> Held -> base moves up
//! ```
//!
//! Pure: no sockets, no clock, no decoding. Time is passed in, blocks are bytes.
//!
//! # Correctness
//! The window lies on the best valid header chain, right above `base`, the newest
//! block of which all ancestors are held too. When the best chain changes, the window
//! keeps what both chains share and goes back to the fork point if need be, so a
//! reorganisation of any depth is downloaded like anything else.
//!
//! # Limits
//! At most `window` blocks are looked at. Bytes that wait for the kernel, with those
//! expected from requests, stay below `buffer_bytes`; only the block that everything
//! waits for is requested regardless.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use pulse_primitives::{Height, bitcoin::BlockHash};

use crate::p2p::peer::PeerId;

/// The best valid header chain, as the window sees it.
pub trait BestPath {
    /// Hash of its tip.
    fn tip_hash(&self) -> BlockHash;
    /// Hash at a height of it.
    fn hash_at(&self, height: Height) -> Option<BlockHash>;
    /// Height of the newest common ancestor of it and a known block.
    fn fork_height(&self, hash: &BlockHash) -> Option<Height>;
}

/// How much may be asked for.
#[derive(Debug, Clone, Copy)]
pub struct WindowLimits {
    /// Blocks above `base`.
    pub window: usize,
    /// Requests to one peer at a time.
    pub per_peer: usize,
    /// Bytes that wait for the kernel.
    pub buffer_bytes: usize,
}

/// What became of a block that a peer sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// It waits for the kernel now.
    Wanted,
    /// It had been asked for, but the best chain has changed since.
    NoLongerWanted,
    /// Nobody asked this peer for it.
    Unrequested,
}

/// A block for the kernel.
#[derive(Debug, PartialEq, Eq)]
pub struct ReadyBlock {
    /// Its hash.
    pub hash: BlockHash,
    /// Its height on the best header chain.
    pub height: Height,
    /// Who sent it.
    pub from: PeerId,
    /// The block.
    pub bytes: Vec<u8>,
}

/// A peer whose answer everything else waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blocker {
    /// The peer.
    pub peer: PeerId,
    /// Whether the window is full. If not, the chain simply ends there, which is
    /// weaker evidence that the peer is to blame.
    pub window_full: bool,
    /// When the block was asked for.
    pub since: Instant,
}

enum State {
    Missing,
    InFlight { peer: PeerId, since: Instant },
    Buffered { from: PeerId, bytes: Vec<u8> },
    Submitted,
    Held,
}

struct Entry {
    hash: BlockHash,
    state: State,
}

struct PeerLoad {
    in_flight: usize,
    /// Highest block of the best chain that the peer is known to have.
    reach: Height,
    /// When the peer last delivered a block, or was asked while it owed none.
    progress: Instant,
}

/// The download window.
pub struct BlockWindow {
    limits: WindowLimits,
    base: Height,
    base_hash: BlockHash,
    /// Tip of the best chain that `entries` were last compared with.
    seen_tip: BlockHash,
    /// Blocks at `base + 1` and up.
    entries: VecDeque<Entry>,
    heights: HashMap<BlockHash, Height>,
    /// Asked for, and no longer on the best chain.
    abandoned: HashMap<BlockHash, (PeerId, Instant)>,
    /// Lengths of the blocks that the kernel has in hand.
    submitted: HashMap<BlockHash, usize>,
    peers: HashMap<PeerId, PeerLoad>,
    buffered_bytes: usize,
    /// Moving average, to foresee what requests will bring.
    average_bytes: usize,
}

impl BlockWindow {
    /// An empty window above genesis.
    #[must_use]
    pub fn new(limits: WindowLimits, genesis: BlockHash) -> Self {
        Self {
            limits,
            base: 0,
            base_hash: genesis,
            seen_tip: genesis,
            entries: VecDeque::new(),
            heights: HashMap::new(),
            abandoned: HashMap::new(),
            submitted: HashMap::new(),
            peers: HashMap::new(),
            buffered_bytes: 0,
            average_bytes: 0,
        }
    }

    /// Brings the window in line with the best chain and with the blocks that the
    /// kernel holds. To be called whenever either may have changed.
    pub fn update(&mut self, path: &impl BestPath, has_block: impl Fn(&BlockHash) -> bool) {
        // Read first: if the path changes meanwhile, the next update compares again.
        let tip = path.tip_hash();
        if tip != self.seen_tip {
            self.seen_tip = tip;
            self.follow(path);
        }
        loop {
            self.extend(path, &has_block);
            if !self.advance(&has_block) {
                break;
            }
        }
    }

    /// Drops what is not on the best chain.
    fn follow(&mut self, path: &impl BestPath) {
        let fork = path.fork_height(&self.base_hash).unwrap_or(0);
        let keep = if fork < self.base {
            0
        } else {
            (self.base + 1..)
                .zip(&self.entries)
                .take_while(|(height, entry)| path.hash_at(*height) == Some(entry.hash))
                .count()
        };
        for entry in self.entries.split_off(keep) {
            self.heights.remove(&entry.hash);
            match entry.state {
                State::InFlight { peer, since } => {
                    self.abandoned.insert(entry.hash, (peer, since));
                }
                State::Buffered { bytes, .. } => self.buffered_bytes -= bytes.len(),
                State::Missing | State::Submitted | State::Held => {}
            }
        }
        if fork < self.base
            && let Some(hash) = path.hash_at(fork)
        {
            self.base = fork;
            self.base_hash = hash;
        }
    }

    fn extend(&mut self, path: &impl BestPath, has_block: &impl Fn(&BlockHash) -> bool) {
        while self.entries.len() < self.limits.window {
            let height = self.end();
            let Some(hash) = path.hash_at(height) else {
                break;
            };
            let state = if self.submitted.contains_key(&hash) {
                State::Submitted
            } else if has_block(&hash) {
                State::Held
            } else if let Some((peer, since)) = self.abandoned.remove(&hash) {
                State::InFlight { peer, since }
            } else {
                State::Missing
            };
            self.heights.insert(hash, height);
            self.entries.push_back(Entry { hash, state });
        }
    }

    /// Moves the base over held blocks; whether it moved.
    fn advance(&mut self, has_block: &impl Fn(&BlockHash) -> bool) -> bool {
        let before = self.base;
        let held = |entry: &mut Entry| match entry.state {
            State::Held => true,
            // A block made here gets to the kernel without us.
            State::Missing => has_block(&entry.hash),
            _ => false,
        };
        while let Some(entry) = self.entries.pop_front_if(held) {
            self.heights.remove(&entry.hash);
            self.base += 1;
            self.base_hash = entry.hash;
        }
        self.base != before
    }

    /// Height above the last entry.
    fn end(&self) -> Height {
        self.base + 1 + Height::try_from(self.entries.len()).expect("a window of few blocks")
    }

    fn entry(&mut self, hash: &BlockHash) -> Option<&mut Entry> {
        let height = *self.heights.get(hash)?;
        self.entries.get_mut((height - self.base - 1) as usize)
    }

    /// Says up to which height of the best chain a peer has the blocks. A new peer is
    /// thereby added.
    pub fn set_reach(&mut self, peer: PeerId, reach: Height, now: Instant) {
        self.peers
            .entry(peer)
            .or_insert(PeerLoad {
                in_flight: 0,
                reach,
                progress: now,
            })
            .reach = reach;
    }

    /// Forgets a peer; what it owed is missing again.
    pub fn remove_peer(&mut self, gone: PeerId) {
        if self.peers.remove(&gone).is_none() {
            return;
        }
        self.abandoned.retain(|_, (peer, _)| *peer != gone);
        for entry in &mut self.entries {
            if matches!(entry.state, State::InFlight { peer, .. } if peer == gone) {
                entry.state = State::Missing;
            }
        }
    }

    /// Decides what to ask of `peer` now, lowest first, and takes it as asked.
    pub fn request(&mut self, peer: PeerId, now: Instant) -> Vec<BlockHash> {
        let mut expected = self.buffered_bytes + self.in_flight() * self.average_bytes;
        let Some(load) = self.peers.get_mut(&peer) else {
            return Vec::new();
        };
        let mut wanted = Vec::new();
        // Whether everything below is with the kernel already.
        let mut first = true;
        for (height, entry) in (self.base + 1..).zip(&mut self.entries) {
            if load.in_flight >= self.limits.per_peer || height > load.reach {
                break;
            }
            if matches!(entry.state, State::Missing) {
                if expected >= self.limits.buffer_bytes && !first {
                    break;
                }
                if load.in_flight == 0 {
                    load.progress = now;
                }
                load.in_flight += 1;
                expected += self.average_bytes;
                entry.state = State::InFlight { peer, since: now };
                wanted.push(entry.hash);
            }
            first &= matches!(entry.state, State::Held | State::Submitted);
        }
        wanted
    }

    /// Takes a block from a peer.
    pub fn receive(
        &mut self,
        from: PeerId,
        hash: BlockHash,
        bytes: Vec<u8>,
        now: Instant,
    ) -> Received {
        let received = if self
            .abandoned
            .get(&hash)
            .is_some_and(|(peer, _)| *peer == from)
        {
            self.abandoned.remove(&hash);
            Received::NoLongerWanted
        } else {
            let len = bytes.len();
            match self.entry(&hash) {
                Some(entry) if matches!(entry.state, State::InFlight { peer, .. } if peer == from) =>
                {
                    entry.state = State::Buffered { from, bytes };
                    self.buffered_bytes += len;
                    self.average_bytes = (self.average_bytes * 15 + len) / 16;
                    Received::Wanted
                }
                _ => return Received::Unrequested,
            }
        };
        if let Some(load) = self.peers.get_mut(&from) {
            load.in_flight -= 1;
            load.progress = now;
        }
        received
    }

    /// The next block for the kernel: the lowest one if all below it are on their way
    /// to it. Out of order only while more than half of the buffer is taken, because
    /// the kernel stores such a block and has to read it again.
    pub fn next_ready(&mut self) -> Option<ReadyBlock> {
        let waiting = self.buffered_bytes - self.submitted.values().sum::<usize>();
        let any_order = waiting > self.limits.buffer_bytes / 2;
        for (height, entry) in (self.base + 1..).zip(&mut self.entries) {
            match &mut entry.state {
                State::Held | State::Submitted => {}
                State::Buffered { from, bytes } => {
                    let ready = ReadyBlock {
                        hash: entry.hash,
                        height,
                        from: *from,
                        bytes: std::mem::take(bytes),
                    };
                    entry.state = State::Submitted;
                    self.submitted.insert(ready.hash, ready.bytes.len());
                    return Some(ready);
                }
                State::Missing | State::InFlight { .. } if any_order => {}
                State::Missing | State::InFlight { .. } => return None,
            }
        }
        None
    }

    /// The kernel is done with a block: it holds it now, or (`false`) refused this
    /// body, so that another one must be found.
    pub fn judged(&mut self, hash: &BlockHash, held: bool) {
        self.buffered_bytes -= self.submitted.remove(hash).unwrap_or(0);
        if let Some(entry) = self.entry(hash)
            && matches!(entry.state, State::Submitted)
        {
            entry.state = if held { State::Held } else { State::Missing };
        }
    }

    /// The peer that everything waits for, if there is one: it owes the lowest block,
    /// nothing else is left to ask for, and another peer that has that block is idle.
    #[must_use]
    pub fn blocker(&self) -> Option<Blocker> {
        // `advance` has taken away what is held, so the first entry is what is waited for.
        let State::InFlight { peer, since } = self.entries.front()?.state else {
            return None;
        };
        if self
            .entries
            .iter()
            .any(|entry| matches!(entry.state, State::Missing))
        {
            return None;
        }
        let height = self.base + 1;
        self.peers
            .iter()
            .any(|(other, load)| *other != peer && load.in_flight == 0 && load.reach >= height)
            .then_some(Blocker {
                peer,
                window_full: self.entries.len() >= self.limits.window,
                since,
            })
    }

    /// A peer that owes blocks and has delivered none for `limit`.
    #[must_use]
    pub fn overdue(&self, limit: Duration, now: Instant) -> Option<PeerId> {
        self.peers
            .iter()
            .find(|(_, load)| load.in_flight > 0 && now.duration_since(load.progress) > limit)
            .map(|(peer, _)| *peer)
    }

    /// Blocks asked for and not yet received.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.peers.values().map(|load| load.in_flight).sum()
    }

    /// Blocks asked of this peer and not yet received.
    #[must_use]
    pub fn in_flight_of(&self, peer: PeerId) -> usize {
        self.peers.get(&peer).map_or(0, |load| load.in_flight)
    }

    /// Whether this peer was asked for this block and owes it still.
    #[must_use]
    pub fn owes(&self, debtor: PeerId, hash: &BlockHash) -> bool {
        let owed = self
            .abandoned
            .get(hash)
            .is_some_and(|(peer, _)| *peer == debtor);
        owed || self
            .heights
            .get(hash)
            .and_then(|height| self.entries.get((height - self.base - 1) as usize))
            .is_some_and(
                |entry| matches!(entry.state, State::InFlight { peer, .. } if peer == debtor),
            )
    }

    /// Bytes received and not yet judged.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    /// The newest block of the best chain that is held with all its ancestors.
    #[must_use]
    pub fn base(&self) -> Height {
        self.base
    }
}
