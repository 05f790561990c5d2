//! The pure parts of the sync, with time passed in.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, hashes::Hash},
};

use super::{
    blocks::{Arrival, BestPath, BlockWindow, Blocker, Received, WindowLimits},
    headers::{HEDGE, HeaderSync, Next},
    stall::StallDetector,
};
use crate::p2p::peer::PeerId;

const A: PeerId = PeerId(1);
const B: PeerId = PeerId(2);
const TIMEOUT: Duration = Duration::from_secs(900);

/// Block at `height` of a branch; all branches share genesis.
fn block(branch: u8, height: Height) -> BlockHash {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&height.to_le_bytes());
    bytes[31] = if height == 0 { 0 } else { branch };
    BlockHash::from_byte_array(bytes)
}

/// A best chain: what of branch 1 it shares, then its own branch.
struct Path {
    branch: u8,
    fork: Height,
    tip: Height,
}

impl BestPath for Path {
    fn tip_hash(&self) -> BlockHash {
        self.hash_at(self.tip).unwrap()
    }

    fn hash_at(&self, height: Height) -> Option<BlockHash> {
        let branch = if height <= self.fork { 1 } else { self.branch };
        (height <= self.tip).then(|| block(branch, height))
    }

    fn fork_height(&self, hash: &BlockHash) -> Option<Height> {
        let bytes = hash.to_byte_array();
        let height = Height::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let shared = if bytes[31] == self.branch {
            self.tip
        } else {
            self.fork
        };
        Some(height.min(shared))
    }
}

fn main_chain(tip: Height) -> Path {
    Path {
        branch: 1,
        fork: 0,
        tip,
    }
}

fn arrival(hash: BlockHash, len: usize) -> Arrival {
    Arrival {
        hash,
        bytes: vec![0; len],
        lenient: false,
    }
}

/// A window and what its kernel holds.
struct Sim {
    window: BlockWindow,
    held: HashSet<BlockHash>,
    now: Instant,
}

impl Sim {
    fn new(window: usize, per_peer: usize, buffer_bytes: usize) -> Self {
        let limits = WindowLimits {
            window,
            per_peer,
            buffer_bytes,
        };
        Self {
            window: BlockWindow::new(limits, block(1, 0)),
            held: HashSet::new(),
            now: Instant::now(),
        }
    }

    fn update(&mut self, path: &Path) {
        let held = &self.held;
        self.window.update(path, |hash| held.contains(hash));
    }

    fn request(&mut self, peer: PeerId) -> Vec<BlockHash> {
        self.window.request(peer, self.now)
    }

    fn receive(&mut self, from: PeerId, hash: BlockHash, len: usize) -> Received {
        self.window.receive(from, arrival(hash, len), self.now)
    }

    /// Feeds the kernel all that it may have; in which order it came.
    fn connect(&mut self, path: &Path) -> Vec<Height> {
        let mut heights = Vec::new();
        while let Some(ready) = self.window.next_ready() {
            heights.push(ready.height);
            self.held.insert(ready.hash);
            self.window.judged(&ready.hash, true);
            self.update(path);
        }
        heights
    }
}

fn heights(branch: u8, range: std::ops::RangeInclusive<Height>) -> Vec<BlockHash> {
    range.map(|height| block(branch, height)).collect()
}

#[test]
fn a_sibling_is_asked_for_runs_and_again_when_half_of_one_has_come() {
    let mut sim = Sim::new(1024, 16, 1 << 20);
    let path = main_chain(200);
    sim.update(&path);
    sim.window.set_reach(A, 200, sim.now);
    sim.window.set_reach(B, 200, sim.now);
    sim.window.ask_in_runs(A, 64);
    assert_eq!(sim.request(A), heights(1, 1..=64));
    assert_eq!(sim.request(B), heights(1, 65..=80));
    for height in 1..=31 {
        assert_eq!(sim.receive(A, block(1, height), 100), Received::Wanted);
        assert_eq!(sim.request(A), []);
    }
    assert_eq!(sim.receive(A, block(1, 32), 100), Received::Wanted);
    assert_eq!(sim.request(A), heights(1, 81..=112));
    // What it owed when it was lost is asked of another one.
    sim.window.remove_peer(A);
    sim.window.ask_in_runs(B, 64);
    assert_eq!(sim.request(B).first(), Some(&block(1, 33)));
}

#[test]
fn requests_are_spread_over_peers_within_their_reach() {
    let mut sim = Sim::new(1024, 16, 1 << 20);
    let path = main_chain(100);
    sim.update(&path);
    assert_eq!(sim.request(A), []);
    sim.window.set_reach(A, 100, sim.now);
    sim.window.set_reach(B, 20, sim.now);
    assert_eq!(sim.request(A), heights(1, 1..=16));
    assert_eq!(sim.request(B), heights(1, 17..=20));
    assert_eq!(sim.request(A), []);
    assert_eq!(sim.window.in_flight(), 20);
    assert_eq!(sim.receive(A, block(1, 3), 100), Received::Wanted);
    assert_eq!(sim.request(A), [block(1, 21)]);
    assert!(sim.window.owes(A, &block(1, 21)));
    assert!(!sim.window.owes(B, &block(1, 21)));
}

#[test]
fn the_kernel_gets_blocks_in_order_although_they_come_in_any() {
    let mut sim = Sim::new(8, 16, 1 << 20);
    let path = main_chain(20);
    sim.update(&path);
    sim.window.set_reach(A, 20, sim.now);
    assert_eq!(sim.request(A), heights(1, 1..=8));
    for height in [2, 3, 1, 5] {
        assert_eq!(sim.receive(A, block(1, height), 100), Received::Wanted);
    }
    assert_eq!(sim.connect(&path), [1, 2, 3]);
    assert_eq!(sim.window.base(), 3);
    assert_eq!(sim.window.buffered_bytes(), 100);
    // The window has moved up by three.
    assert_eq!(sim.request(A), heights(1, 9..=11));
}

#[test]
fn a_full_buffer_goes_to_the_kernel_out_of_order_and_stops_all_but_the_lowest_request() {
    let mut sim = Sim::new(1024, 4, 1000);
    let path = main_chain(50);
    sim.update(&path);
    sim.window.set_reach(A, 50, sim.now);
    sim.window.set_reach(B, 50, sim.now);
    assert_eq!(sim.request(A), heights(1, 1..=4));
    for height in 2..=4 {
        sim.receive(A, block(1, height), 400);
    }
    assert_eq!(sim.window.buffered_bytes(), 1200);
    assert_eq!(sim.request(B), []);
    // 1 is lost with its peer: it is asked for although the buffer is full.
    sim.window.remove_peer(A);
    assert_eq!(sim.request(B), [block(1, 1)]);
    // More than half is taken, so what is there goes first.
    let ready = sim.window.next_ready().unwrap();
    assert_eq!(ready.height, 2);
    assert_eq!(ready.bytes.len(), 400);
    sim.window.judged(&ready.hash, true);
    let ready = sim.window.next_ready().unwrap();
    assert_eq!(ready.height, 3);
    sim.window.judged(&ready.hash, true);
    // Now less than half: 4 waits for 1.
    assert_eq!(sim.window.next_ready(), None);
    assert_eq!(sim.receive(B, block(1, 1), 400), Received::Wanted);
    assert_eq!(sim.connect(&path), [1, 4]);
    assert_eq!(sim.window.base(), 4);
}

#[test]
fn blocks_that_nobody_asked_this_peer_for_are_unrequested() {
    let mut sim = Sim::new(1024, 2, 1 << 20);
    sim.update(&main_chain(10));
    sim.window.set_reach(A, 10, sim.now);
    sim.window.set_reach(B, 10, sim.now);
    sim.request(A);
    assert_eq!(sim.receive(A, block(1, 3), 9), Received::Unrequested);
    assert_eq!(sim.receive(B, block(1, 1), 9), Received::Unrequested);
    assert_eq!(sim.receive(A, block(7, 1), 9), Received::Unrequested);
    assert_eq!(sim.receive(A, block(1, 1), 9), Received::Wanted);
    assert_eq!(sim.receive(A, block(1, 1), 9), Received::Unrequested);
    assert_eq!(sim.window.in_flight_of(A), 1);
    assert_eq!(sim.window.buffered_bytes(), 9);
}

#[test]
fn what_a_lost_peer_owed_is_asked_of_another() {
    let mut sim = Sim::new(1024, 4, 1 << 20);
    sim.update(&main_chain(4));
    sim.window.set_reach(A, 4, sim.now);
    sim.window.set_reach(B, 4, sim.now);
    sim.request(A);
    sim.receive(A, block(1, 2), 9);
    assert_eq!(sim.request(B), []);
    sim.window.remove_peer(A);
    assert_eq!(sim.request(B), [block(1, 1), block(1, 3), block(1, 4)]);
}

#[test]
fn a_mutated_body_is_asked_for_again() {
    let mut sim = Sim::new(1024, 1, 1 << 20);
    sim.update(&main_chain(1));
    sim.window.set_reach(A, 1, sim.now);
    sim.request(A);
    sim.receive(A, block(1, 1), 9);
    let ready = sim.window.next_ready().unwrap();
    assert_eq!((ready.hash, ready.from), (block(1, 1), A));
    sim.window.judged(&ready.hash, false);
    assert_eq!(sim.window.buffered_bytes(), 0);
    sim.window.set_reach(B, 1, sim.now);
    assert_eq!(sim.request(B), [block(1, 1)]);
}

#[test]
fn held_blocks_are_not_asked_for_even_far_above_the_base() {
    let mut sim = Sim::new(10, 16, 1 << 20);
    sim.held.extend(heights(1, 1..=500));
    sim.held.extend(heights(1, 503..=504));
    sim.update(&main_chain(506));
    assert_eq!(sim.window.base(), 500);
    sim.window.set_reach(A, 506, sim.now);
    assert_eq!(
        sim.request(A),
        [block(1, 501), block(1, 502), block(1, 505), block(1, 506)]
    );
    // A block made here reaches the kernel without us.
    sim.window.remove_peer(A);
    sim.held.extend(heights(1, 501..=502));
    sim.update(&main_chain(506));
    assert_eq!(sim.window.base(), 504);
}

#[test]
fn a_reorganisation_deeper_than_the_window_is_downloaded_from_the_fork() {
    let mut sim = Sim::new(8, 100, 1 << 20);
    sim.held.extend(heights(1, 1..=50));
    sim.update(&main_chain(50));
    assert_eq!(sim.window.base(), 50);
    let fork = Path {
        branch: 2,
        fork: 10,
        tip: 60,
    };
    sim.update(&fork);
    assert_eq!(sim.window.base(), 10);
    sim.window.set_reach(A, 60, sim.now);
    let mut connected = Vec::new();
    loop {
        let wanted = sim.request(A);
        if wanted.is_empty() {
            break;
        }
        for hash in wanted {
            sim.receive(A, hash, 100);
        }
        connected.extend(sim.connect(&fork));
    }
    assert_eq!(connected, (11..=60).collect::<Vec<_>>());
    assert_eq!(sim.window.base(), 60);
}

#[test]
fn requests_that_a_reorganisation_overtakes_stay_owed_but_are_not_used() {
    let mut sim = Sim::new(8, 16, 1 << 20);
    sim.update(&main_chain(6));
    sim.window.set_reach(A, 6, sim.now);
    sim.request(A);
    sim.receive(A, block(1, 5), 100);
    let fork = Path {
        branch: 2,
        fork: 3,
        tip: 7,
    };
    sim.update(&fork);
    assert_eq!(sim.window.buffered_bytes(), 0);
    assert_eq!(sim.window.in_flight_of(A), 5);
    assert_eq!(sim.receive(A, block(1, 4), 100), Received::NoLongerWanted);
    assert_eq!(sim.window.in_flight_of(A), 4);
    // Back to the first branch: 6 is still on its way from A, 4 and 5 are not.
    sim.update(&main_chain(6));
    sim.window.set_reach(B, 6, sim.now);
    assert_eq!(sim.request(B), [block(1, 4), block(1, 5)]);
    assert_eq!(sim.receive(A, block(1, 6), 100), Received::Wanted);
}

#[test]
fn a_peer_that_owes_the_lowest_block_of_a_full_window_is_found_to_stall() {
    let mut sim = Sim::new(4, 2, 1 << 20);
    let path = main_chain(100);
    sim.update(&path);
    sim.window.set_reach(A, 100, sim.now);
    sim.window.set_reach(B, 100, sim.now);
    assert_eq!(sim.request(A), heights(1, 1..=2));
    assert_eq!(sim.request(B), heights(1, 3..=4));
    // B is still busy: nobody is kept waiting.
    assert_eq!(sim.window.blocker(), None);
    sim.receive(B, block(1, 3), 9);
    sim.receive(B, block(1, 4), 9);
    let blocker = sim.window.blocker().unwrap();
    assert_eq!((blocker.peer, blocker.window_full), (A, true));

    let mut stall = StallDetector::new(Duration::from_secs(2));
    let after = |secs| sim.now + Duration::from_secs(secs);
    assert_eq!(stall.check(Some(blocker), after(10)), None);
    assert_eq!(stall.check(Some(blocker), after(12)), None);
    assert_eq!(stall.check(Some(blocker), after(13)), Some(A));
    // The next one gets twice the time.
    let next = Blocker { peer: B, ..blocker };
    assert_eq!(stall.check(Some(next), after(20)), None);
    assert_eq!(stall.check(Some(next), after(24)), None);
    // Blocks that come make the patience shrink to where it began.
    for _ in 0..20 {
        stall.relax();
    }
    assert_eq!(stall.check(None, after(24)), None);
    assert_eq!(stall.check(Some(next), after(30)), None);
    assert_eq!(stall.check(Some(next), after(33)), Some(B));
}

#[test]
fn patience_is_longer_at_the_end_of_the_chain_and_never_above_the_limit() {
    let start = Instant::now();
    let after = |secs| start + Duration::from_secs(secs);
    let mut stall = StallDetector::new(Duration::from_secs(2));
    let tail = Blocker {
        peer: A,
        window_full: false,
        since: start,
    };
    assert_eq!(stall.check(Some(tail), after(0)), None);
    assert_eq!(stall.check(Some(tail), after(10)), None);
    assert_eq!(stall.check(Some(tail), after(11)), Some(A));

    let full = Blocker {
        window_full: true,
        ..tail
    };
    let mut now = 100;
    let mut patience = Vec::new();
    for _ in 0..7 {
        assert_eq!(stall.check(Some(full), after(now)), None);
        let wait = (1..200).find(|wait| stall.check(Some(full), after(now + wait)).is_some());
        patience.push(wait.unwrap() - 1);
        now += 1000;
    }
    assert_eq!(patience, [4, 8, 16, 32, 64, 64, 64]);
}

#[test]
fn a_single_peer_never_stalls_but_can_be_overdue() {
    let mut sim = Sim::new(4, 4, 1 << 20);
    sim.update(&main_chain(100));
    sim.window.set_reach(A, 100, sim.now);
    sim.request(A);
    assert_eq!(sim.window.blocker(), None);
    let limit = Duration::from_secs(600);
    let later = sim.now + Duration::from_secs(500);
    sim.window.receive(A, arrival(block(1, 2), 9), later);
    assert_eq!(sim.window.overdue(limit, later + limit), None);
    let too_late = later + limit + Duration::from_secs(1);
    assert_eq!(sim.window.overdue(limit, too_late), Some(A));
}

/// A window with the block at height 1 waited for, and four peers that have it.
fn sim_of_four_peers() -> (Sim, [PeerId; 4]) {
    let mut sim = Sim::new(1024, 2, 1 << 20);
    sim.update(&main_chain(3));
    let peers = [A, B, PeerId(3), PeerId(4)];
    for peer in peers {
        sim.window.set_reach(peer, 3, sim.now);
    }
    (sim, peers)
}

#[test]
fn a_block_that_peers_send_by_themselves_is_on_its_way_from_three_at_most() {
    let (mut sim, [a, b, c, d]) = sim_of_four_peers();
    let hash = block(1, 1);
    assert_eq!(sim.window.join(a, &hash, sim.now), Some(0));
    assert_eq!(sim.window.join(a, &hash, sim.now), None);
    assert_eq!(sim.window.join(b, &hash, sim.now), Some(1));
    assert_eq!(sim.window.join(c, &hash, sim.now), Some(2));
    assert_eq!(sim.window.join(d, &hash, sim.now), None);
    assert_eq!(sim.window.asked(&hash).collect::<Vec<_>>(), [a, b, c]);
    assert_eq!(sim.window.in_flight(), 3);
    assert!(!sim.request(d).contains(&hash));
    // A peer that owes as much as it may is not taken.
    assert_eq!(sim.window.join(d, &block(1, 1), sim.now), None);
    assert_eq!(sim.window.join(a, &block(9, 9), sim.now), None);

    // The first that delivers sets the others free; what they send later is no fault.
    assert_eq!(sim.receive(b, hash, 9), Received::Wanted);
    assert_eq!(sim.window.in_flight_of(a), 0);
    assert_eq!(sim.window.in_flight_of(c), 0);
    assert_eq!(sim.receive(a, hash, 9), Received::NoLongerWanted);
    assert_eq!(sim.receive(a, hash, 9), Received::Unrequested);
    assert_eq!(sim.connect(&main_chain(3)), [1]);
}

#[test]
fn a_cancelled_request_is_made_of_another_when_nobody_is_left() {
    let (mut sim, [a, b, c, _]) = sim_of_four_peers();
    let hash = block(1, 1);
    sim.window.join(a, &hash, sim.now);
    sim.window.join(b, &hash, sim.now);
    sim.window.cancel(a, &hash);
    sim.window.cancel(c, &hash);
    assert_eq!(sim.window.asked(&hash).collect::<Vec<_>>(), [b]);
    assert!(!sim.request(c).contains(&hash));
    sim.window.remove_peer(b);
    assert_eq!(sim.window.in_flight_of(a), 0);
    assert_eq!(sim.request(a), heights(1, 1..=1));
    assert!(sim.window.owes(a, &hash));
}

#[test]
fn a_block_that_needs_no_request_is_taken_once() {
    let (mut sim, [a, b, c, _]) = sim_of_four_peers();
    let hash = block(1, 1);
    sim.window.join(a, &hash, sim.now);
    sim.window.join(b, &hash, sim.now);
    let now = sim.now;
    let mut take = |peer| {
        let mut block = arrival(hash, 9);
        block.lenient = true;
        sim.window.receive_unasked(peer, block, now)
    };
    assert_eq!(take(c), Received::Wanted);
    assert_eq!(take(c), Received::NoLongerWanted);
    assert_eq!(sim.window.in_flight(), 0);
    let ready = sim.window.next_ready().unwrap();
    assert!(ready.lenient);
    assert_eq!(ready.from, c);
    // One that nobody waits for, as its chain is not the best.
    let stranger = arrival(block(5, 1), 9);
    assert_eq!(
        sim.window.receive_unasked(a, stranger, now),
        Received::NoLongerWanted
    );
}

#[test]
fn requests_of_several_peers_survive_a_reorganisation_and_back() {
    let (mut sim, [a, b, ..]) = sim_of_four_peers();
    let hash = block(1, 2);
    sim.window.join(a, &hash, sim.now);
    sim.window.join(b, &hash, sim.now);
    sim.update(&Path {
        branch: 2,
        fork: 1,
        tip: 4,
    });
    assert!(sim.window.owes(a, &hash) && sim.window.owes(b, &hash));
    assert_eq!(sim.receive(a, hash, 9), Received::NoLongerWanted);
    sim.update(&main_chain(5));
    assert_eq!(sim.window.asked(&hash).collect::<Vec<_>>(), [b]);
    assert_eq!(sim.receive(b, hash, 9), Received::Wanted);
}

#[test]
fn a_peer_with_few_blocks_is_asked_for_its_newest_only() {
    let mut sim = Sim::new(1024, 16, 1 << 20);
    sim.update(&main_chain(20));
    sim.window.set_reach(A, 18, sim.now);
    sim.window.limit_depth(A, 5);
    assert_eq!(sim.request(A), heights(1, 13..=18));
}

#[test]
fn patience_with_a_late_block_grows_with_the_number_of_peers_that_send_some() {
    let mut sim = Sim::new(1024, 1, 1 << 20);
    sim.update(&main_chain(20));
    for peer in [A, B, PeerId(3)] {
        sim.window.set_reach(peer, 20, sim.now);
        sim.request(peer);
    }
    let limit = Duration::from_secs(600);
    assert_eq!(sim.window.overdue(limit, sim.now + 2 * limit), None);
    let too_late = sim.now + 2 * limit + Duration::from_secs(1);
    assert!(sim.window.overdue(limit, too_late).is_some());
}

#[test]
fn headers_come_from_one_peer_first_and_then_from_all() {
    let now = Instant::now();
    let mut headers = HeaderSync::new(TIMEOUT);
    headers.add_peer(A);
    headers.add_peer(B);
    assert_eq!(headers.to_ask(true, now), [A]);
    headers.asked(A, 0, now);
    assert_eq!(headers.to_ask(true, now), []);
    assert_eq!(
        headers.accepted(A, Some(vec![block(1, 1)])),
        Next::AskForMore(vec![block(1, 1)])
    );
    assert_eq!(headers.to_ask(true, now + 2 * HEDGE), []);
    headers.asked(A, 0, now);
    assert!(!headers.is_complete());
    assert_eq!(headers.accepted(A, None), Next::Done);
    assert!(headers.is_complete());
    assert_eq!(headers.to_ask(true, now), [B]);
    assert_eq!(headers.overdue(now + 2 * TIMEOUT), None);
}

#[test]
fn another_peer_is_asked_when_the_first_does_not_answer_or_goes() {
    let now = Instant::now();
    let mut headers = HeaderSync::new(TIMEOUT);
    for peer in [A, B, PeerId(3)] {
        headers.add_peer(peer);
    }
    headers.asked(A, 1000, now);
    assert_eq!(headers.to_ask(true, now + HEDGE), [B]);
    headers.asked(B, 1000, now + HEDGE);
    assert_eq!(headers.to_ask(true, now + HEDGE), []);
    // A millisecond for each of the 1000 headers.
    assert_eq!(
        headers.overdue(now + TIMEOUT + Duration::from_secs(1)),
        None
    );
    assert_eq!(
        headers.overdue(now + TIMEOUT + Duration::from_millis(1001)),
        Some(A)
    );
    headers.remove_peer(A);
    headers.remove_peer(B);
    assert_eq!(headers.to_ask(true, now + HEDGE), [PeerId(3)]);
}

#[test]
fn until_a_chain_with_enough_work_is_told_peers_are_asked_one_after_the_other() {
    let now = Instant::now();
    let mut headers = HeaderSync::new(TIMEOUT);
    for peer in [A, B, PeerId(3)] {
        headers.add_peer(peer);
    }
    headers.asked(A, 0, now);
    assert_eq!(headers.accepted(A, None), Next::Done);
    assert_eq!(headers.to_ask(false, now), [B]);
    headers.asked(B, 0, now);
    assert_eq!(headers.to_ask(false, now), []);
    assert_eq!(headers.to_ask(true, now), [PeerId(3)]);
}

#[test]
fn a_presync_that_is_lost_again_and_again_ends_in_a_drop() {
    let mut headers = HeaderSync::new(TIMEOUT);
    headers.add_peer(A);
    let nexts: Vec<_> = (0..11).map(|_| headers.presync_lost(A)).collect();
    assert_eq!(nexts[..10], vec![Next::AskFromBest; 10]);
    assert_eq!(nexts[10], Next::Drop);
}

#[test]
fn announcements_that_never_connect_end_in_a_drop() {
    let now = Instant::now();
    let mut headers = HeaderSync::new(TIMEOUT);
    headers.add_peer(A);
    headers.asked(A, 0, now);
    // In the middle of the first download they are put off.
    assert_eq!(headers.unconnected(A), Next::Done);
    assert!(!headers.announced(A, block(1, 9)));
    assert_eq!(headers.accepted(A, None), Next::Done);
    assert_eq!(headers.take_announced(A), Some(block(1, 9)));
    assert!(headers.announced(A, block(1, 10)));
    let nexts: Vec<_> = (0..11).map(|_| headers.unconnected(A)).collect();
    assert_eq!(nexts[..10], vec![Next::AskFromBest; 10]);
    assert_eq!(nexts[10], Next::Drop);
}
