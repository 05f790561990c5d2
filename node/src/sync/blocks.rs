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
//! A block is asked of one peer at a time. Only one that is announced as a compact block
//! may be on its way from three, since what is missing of it is little and waiting for
//! a slow peer would cost more.
//!
//! # Limits
//! At most `window` blocks are looked at. Bytes that wait for the kernel, with those
//! expected from requests, stay below `buffer_bytes`; only the block that everything
//! waits for is requested regardless.

mod account;

use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
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

/// Peers that one block is asked of at a time (Bitcoin Core's
/// `MAX_CMPCTBLOCKS_INFLIGHT_PER_BLOCK`).
pub const MAX_PARALLEL: usize = 3;
/// Requests that are remembered after another peer has answered first.
const MAX_WAIVED: usize = 256;

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
    /// The sender need not have validated it (a compact block, BIP 152).
    pub lenient: bool,
}

/// A block as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Its hash.
    pub hash: BlockHash,
    /// The block.
    pub bytes: Vec<u8>,
    /// The sender need not have validated it (a compact block, BIP 152).
    pub lenient: bool,
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

/// A request that is under way.
#[derive(Debug, Clone, Copy)]
struct Request {
    peer: PeerId,
    since: Instant,
}

enum State {
    Missing,
    /// Never empty; the one asked first comes first.
    InFlight(Vec<Request>),
    Buffered {
        from: PeerId,
        bytes: Vec<u8>,
        lenient: bool,
    },
    Submitted,
    Held,
}

struct Entry {
    hash: BlockHash,
    state: State,
}

impl Entry {
    fn requests(&self) -> &[Request] {
        match &self.state {
            State::InFlight(requests) => requests,
            _ => &[],
        }
    }

    fn is_asked_of(&self, peer: PeerId) -> bool {
        self.requests().iter().any(|request| request.peer == peer)
    }

    /// Takes back the request to a peer; whether there was one.
    fn forget_request(&mut self, peer: PeerId) -> bool {
        let asked = self.is_asked_of(peer);
        if let State::InFlight(requests) = &mut self.state {
            requests.retain(|request| request.peer != peer);
            if requests.is_empty() {
                self.state = State::Missing;
            }
        }
        asked
    }
}

struct PeerLoad {
    in_flight: usize,
    /// Highest block of the best chain that the peer is known to have.
    reach: Height,
    /// How many blocks below that it serves.
    depth: Height,
    /// Requests to it at a time.
    limit: usize,
    /// Whether it is asked again only when half of that is done, for a run of blocks
    /// instead of one by one.
    in_runs: bool,
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
    abandoned: HashMap<BlockHash, Vec<Request>>,
    /// Asked for, and come from another peer meanwhile; oldest first.
    waived: VecDeque<(BlockHash, PeerId)>,
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
            waived: VecDeque::new(),
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
                State::InFlight(requests) => {
                    self.abandoned.insert(entry.hash, requests);
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
            } else if let Some(requests) = self.abandoned.remove(&hash) {
                State::InFlight(requests)
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
                depth: Height::MAX,
                limit: self.limits.per_peer,
                in_runs: false,
                progress: now,
            })
            .reach = reach;
    }

    /// The peer serves only that many blocks below its best (BIP 159).
    pub fn limit_depth(&mut self, peer: PeerId, depth: Height) {
        if let Some(load) = self.peers.get_mut(&peer) {
            load.depth = depth;
        }
    }

    /// The peer is near: it is asked for runs of up to `limit` blocks.
    pub fn ask_in_runs(&mut self, peer: PeerId, limit: usize) {
        if let Some(load) = self.peers.get_mut(&peer) {
            load.limit = limit;
            load.in_runs = true;
        }
    }

    /// Forgets a peer; what it owed is missing again.
    pub fn remove_peer(&mut self, gone: PeerId) {
        if self.peers.remove(&gone).is_none() {
            return;
        }
        self.waived.retain(|(_, peer)| *peer != gone);
        self.abandoned.retain(|_, requests| {
            requests.retain(|request| request.peer != gone);
            !requests.is_empty()
        });
        for entry in &mut self.entries {
            entry.forget_request(gone);
        }
    }

    /// Decides what to ask of `peer` now, lowest first, and takes it as asked.
    pub fn request(&mut self, peer: PeerId, now: Instant) -> Vec<BlockHash> {
        let mut expected = self.buffered_bytes + self.in_flight() * self.average_bytes;
        let Some(load) = self.peers.get_mut(&peer) else {
            return Vec::new();
        };
        if load.in_runs && load.in_flight > load.limit / 2 {
            return Vec::new();
        }
        let mut wanted = Vec::new();
        // Whether everything below is with the kernel already.
        let mut first = true;
        for (height, entry) in (self.base + 1..).zip(&mut self.entries) {
            if load.in_flight >= load.limit || height > load.reach {
                break;
            }
            let served = load.reach - height <= load.depth;
            if served && matches!(entry.state, State::Missing) {
                if expected >= self.limits.buffer_bytes && !first {
                    break;
                }
                if load.in_flight == 0 {
                    load.progress = now;
                }
                load.in_flight += 1;
                expected += self.average_bytes;
                entry.state = State::InFlight(vec![Request { peer, since: now }]);
                wanted.push(entry.hash);
            }
            first &= matches!(entry.state, State::Held | State::Submitted);
        }
        wanted
    }

    /// Takes `peer`, which has begun to send the block by itself, as asked for it too.
    /// Gives how many were asked before; `None` if that are enough, if the peer owes
    /// enough already, or if the block is not wanted.
    pub fn join(&mut self, peer: PeerId, hash: &BlockHash, now: Instant) -> Option<usize> {
        let per_peer = self.limits.per_peer;
        let load = self
            .peers
            .get(&peer)
            .filter(|load| load.in_flight < per_peer)?;
        let idle = load.in_flight == 0;
        let entry = self.entry(hash)?;
        let request = Request { peer, since: now };
        let before = match &mut entry.state {
            State::Missing => {
                entry.state = State::InFlight(vec![request]);
                0
            }
            State::InFlight(requests)
                if requests.len() < MAX_PARALLEL
                    && requests.iter().all(|request| request.peer != peer) =>
            {
                requests.push(request);
                requests.len() - 1
            }
            _ => return None,
        };
        if let Some(load) = self.peers.get_mut(&peer) {
            load.in_flight += 1;
            if idle {
                load.progress = now;
            }
        }
        Some(before)
    }

    /// Nothing is expected of `peer` for this block any more.
    pub fn cancel(&mut self, peer: PeerId, hash: &BlockHash) {
        let asked = self
            .entry(hash)
            .is_some_and(|entry| entry.forget_request(peer));
        if asked && let Some(load) = self.peers.get_mut(&peer) {
            load.in_flight -= 1;
        }
    }

    /// Takes a block from a peer that was asked for it.
    pub fn receive(&mut self, from: PeerId, block: Arrival, now: Instant) -> Received {
        let hash = block.hash;
        if let Some(at) = self.waived.iter().position(|key| *key == (hash, from)) {
            self.waived.remove(at);
            return Received::NoLongerWanted;
        }
        let received = if let Some(requests) = self.abandoned.get_mut(&hash)
            && requests.iter().any(|request| request.peer == from)
        {
            requests.retain(|request| request.peer != from);
            if requests.is_empty() {
                self.abandoned.remove(&hash);
            }
            Received::NoLongerWanted
        } else if self
            .entry(&hash)
            .is_some_and(|entry| entry.is_asked_of(from))
        {
            self.take(from, block);
            Received::Wanted
        } else {
            return Received::Unrequested;
        };
        if let Some(load) = self.peers.get_mut(&from) {
            load.in_flight -= 1;
            load.progress = now;
        }
        received
    }

    /// Takes a block that could be put together without asking anybody, if it is still
    /// waited for.
    pub fn receive_unasked(&mut self, from: PeerId, block: Arrival, now: Instant) -> Received {
        match self.entry(&block.hash) {
            Some(entry) if entry.is_asked_of(from) => self.receive(from, block, now),
            Some(Entry {
                state: State::Missing | State::InFlight(_),
                ..
            }) => {
                self.take(from, block);
                Received::Wanted
            }
            _ => Received::NoLongerWanted,
        }
    }

    /// Puts a block that is waited for into the buffer. Others that were asked for it
    /// owe it no longer.
    fn take(&mut self, from: PeerId, block: Arrival) {
        let Arrival {
            hash,
            bytes,
            lenient,
        } = block;
        let len = bytes.len();
        let Some(entry) = self.entry(&hash) else {
            return;
        };
        let buffered = State::Buffered {
            from,
            bytes,
            lenient,
        };
        let before = std::mem::replace(&mut entry.state, buffered);
        self.buffered_bytes += len;
        self.average_bytes = (self.average_bytes * 15 + len) / 16;
        let State::InFlight(requests) = before else {
            return;
        };
        for Request { peer, .. } in requests {
            if peer == from {
                continue;
            }
            if let Some(load) = self.peers.get_mut(&peer) {
                load.in_flight -= 1;
            }
            if self.waived.len() == MAX_WAIVED {
                self.waived.pop_front();
            }
            self.waived.push_back((hash, peer));
        }
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
                State::Buffered {
                    from,
                    bytes,
                    lenient,
                } => {
                    let ready = ReadyBlock {
                        hash: entry.hash,
                        height,
                        from: *from,
                        bytes: std::mem::take(bytes),
                        lenient: *lenient,
                    };
                    entry.state = State::Submitted;
                    self.submitted.insert(ready.hash, ready.bytes.len());
                    return Some(ready);
                }
                State::Missing | State::InFlight(_) if any_order => {}
                State::Missing | State::InFlight(_) => return None,
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
}
