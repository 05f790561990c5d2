use pulse_primitives::{bitcoin::hashes::sha256d, network::ChainParams};

use super::*;

const SALT: Salt = Salt {
    keys: (0x0123_4567_89ab_cdef, 42),
    offset: 100,
};
/// Small, so that tests need few headers.
const PARAMS: PresyncParams = PresyncParams {
    commitment_period: 10,
    redownload_buffer: 200,
};
const MESSAGE: usize = 100;

fn regtest() -> ChainParams {
    ChainParams::new(Network::Regtest, None)
}

fn genesis() -> Header {
    regtest().genesis().header
}

/// `count` regtest headers with proof of work on `parent`; `branch` tells chains apart.
fn mine(parent: &Header, count: usize, branch: u8) -> Vec<Header> {
    let mut headers = Vec::new();
    let mut prev = *parent;
    for _ in 0..count {
        prev = Header {
            prev_blockhash: prev.block_hash(),
            merkle_root: TxMerkleNode::from_raw_hash(sha256d::Hash::hash(&[branch])),
            time: prev.time + 600,
            nonce: 0,
            ..prev
        };
        while prev.validate_pow(prev.target()).is_err() {
            prev.nonce += 1;
        }
        headers.push(prev);
    }
    headers
}

/// Work of that many regtest blocks.
fn work(blocks: usize) -> Work {
    let one = genesis().work();
    (1..blocks).fold(one, |sum, _| sum + one)
}

fn start_at(header: &Header, height: Height, work: Work) -> ChainStart {
    ChainStart {
        height,
        hash: header.block_hash(),
        bits: header.bits,
        work,
        median_time: header.time,
    }
}

/// Above genesis, with a threshold of that many blocks (genesis included).
fn presync(min_blocks: usize) -> Presync {
    let start = start_at(&genesis(), 0, work(1));
    let now = u64::from(genesis().time) + 100_000;
    Presync::new(
        regtest().consensus,
        PARAMS,
        start,
        work(min_blocks),
        SALT,
        now,
    )
}

/// What an honest peer with `chain` above genesis answers.
fn answer(chain: &[Header], from: BlockHash) -> Vec<Header> {
    let after = chain
        .iter()
        .position(|header| header.prev_blockhash == from)
        .unwrap_or(chain.len());
    chain[after..].iter().take(MESSAGE).copied().collect()
}

/// Feeds the peer's answers until the presync is over; what it handed out.
fn run(presync: &mut Presync, first: &[Header], second: &[Header]) -> (Vec<Header>, Next) {
    let mut accepted = Vec::new();
    loop {
        let chain = if presync.has_shown_work() {
            second
        } else {
            first
        };
        let message = answer(chain, presync.continue_from());
        assert!(!message.is_empty());
        let outcome = presync.process(&message, message.len() == MESSAGE);
        accepted.extend(outcome.accept);
        if outcome.next != Next::AskForMore {
            return (accepted, outcome.next);
        }
    }
}

#[test]
fn a_chain_with_enough_work_is_handed_out_whole_after_the_second_pass() {
    let chain = mine(&genesis(), 950, 1);
    // At the end of a message, inside one, and at the very end of the chain.
    for min_blocks in [701, 750, 951] {
        let mut presync = presync(min_blocks);
        let (accepted, next) = run(&mut presync, &chain, &chain);
        assert_eq!(next, Next::Done);
        // The message that reaches the work is the last one; what follows is asked for
        // in the ordinary way.
        let reached = (min_blocks - 1).next_multiple_of(MESSAGE).min(950);
        assert_eq!(accepted, chain[..reached]);
        assert!(presync.has_shown_work());
    }
}

#[test]
fn headers_are_held_back_until_enough_stand_above_them() {
    let chain = mine(&genesis(), 900, 1);
    let mut presync = presync(801);
    while !presync.has_shown_work() {
        let message = answer(&chain, presync.continue_from());
        assert_eq!(presync.process(&message, true).accept, []);
    }
    assert_eq!(presync.continue_from(), genesis().block_hash());
    let mut handed_out = 0;
    for received in (MESSAGE..800).step_by(MESSAGE) {
        let message = answer(&chain, presync.continue_from());
        handed_out += presync.process(&message, true).accept.len();
        assert_eq!(
            handed_out,
            received.saturating_sub(PARAMS.redownload_buffer)
        );
        assert_eq!(presync.height() as usize, received);
    }
}

#[test]
fn a_chain_without_enough_work_leaves_nothing() {
    let chain = mine(&genesis(), 450, 1);
    let mut presync = presync(452);
    assert_eq!(run(&mut presync, &chain, &chain), (Vec::new(), Next::Done));
    assert!(!presync.has_shown_work());
    assert!(presync.buffer.is_empty());
    // 45 bits.
    assert!(presync.memory_bytes() <= 64);
}

#[test]
fn another_chain_in_the_second_pass_is_found_out_before_any_of_it_is_handed_out() {
    let shown = mine(&genesis(), 700, 1);
    for fork in [0, 30] {
        let mut other = shown[..fork].to_vec();
        let parent = other.last().copied().unwrap_or(genesis());
        other.extend(mine(&parent, 700 - fork, 2));
        let mut presync = presync(650);
        let (accepted, next) = run(&mut presync, &shown, &other);
        assert_eq!(next, Next::GiveUp(GiveUp::Changed));
        assert_eq!(accepted, []);
    }
}

#[test]
fn a_second_pass_that_falls_short_ends_without_the_headers_held_back() {
    let shown = mine(&genesis(), 700, 1);
    let mut presync = presync(650);
    let (accepted, next) = run(&mut presync, &shown, &shown[..350]);
    assert_eq!(next, Next::Done);
    assert_eq!(accepted, shown[..150]);
}

#[test]
fn a_chain_that_has_grown_between_the_passes_is_taken() {
    let chain = mine(&genesis(), 760, 1);
    let mut presync = presync(700);
    let (accepted, next) = run(&mut presync, &chain[..700], &chain);
    assert_eq!((accepted.len(), next), (700, Next::Done));
}

#[test]
fn headers_that_do_not_follow_end_it() {
    let chain = mine(&genesis(), 300, 1);
    let mut first_pass = presync(1000);
    first_pass.process(&chain[..100], true);
    let gap = first_pass.process(&chain[101..200], true);
    assert_eq!(gap.next, Next::GiveUp(GiveUp::Discontinuous));

    let mut second_pass = presync(201);
    second_pass.process(&chain[..100], true);
    second_pass.process(&chain[100..200], true);
    assert!(second_pass.has_shown_work());
    let not_from_the_start = second_pass.process(&chain[200..], true);
    assert_eq!(not_from_the_start.next, Next::GiveUp(GiveUp::Discontinuous));
}

#[test]
fn more_headers_than_can_exist_by_now_are_refused_within_the_memory_bound() {
    let chain = mine(&genesis(), 1000, 1);
    let start = start_at(&genesis(), 0, work(1));
    // 7200 s of allowed future and 6 blocks per second, less 7100 s: 600 headers.
    let now = u64::from(genesis().time) - 7100;
    let consensus = regtest().consensus;
    let mut presync = Presync::new(consensus, PARAMS, start, work(5000), SALT, now);
    let mut end = None;
    for message in chain.chunks(MESSAGE) {
        let outcome = presync.process(message, true);
        assert!(presync.memory_bytes() <= 64);
        if outcome.next != Next::AskForMore {
            end = Some(outcome.next);
            break;
        }
    }
    assert_eq!(end, Some(Next::GiveUp(GiveUp::TooLong)));
    assert_eq!(presync.commitments.len, 61);
}

#[test]
fn states_of_two_peers_know_nothing_of_each_other() {
    let honest = mine(&genesis(), 700, 1);
    let cheap = mine(&genesis(), 300, 2);
    let (mut a, mut b) = (presync(650), presync(650));
    let mut accepted = Vec::new();
    let mut ends = Vec::new();
    let mut running = [true, true];
    while running != [false, false] {
        for (index, (state, chain)) in [(&mut a, &honest), (&mut b, &cheap)]
            .into_iter()
            .enumerate()
        {
            if !running[index] {
                continue;
            }
            let message = answer(chain, state.continue_from());
            // The last message of the shorter chain is full; an empty one ends it.
            if message.is_empty() {
                running[index] = false;
                continue;
            }
            let outcome = state.process(&message, message.len() == MESSAGE);
            accepted.extend(outcome.accept);
            if outcome.next != Next::AskForMore {
                running[index] = false;
                ends.push(outcome.next);
            }
        }
    }
    assert_eq!(accepted, honest[..700]);
    assert_eq!(ends, [Next::Done]);
    assert!(!b.has_shown_work());
}

#[test]
fn a_presync_can_begin_above_any_known_header() {
    let chain = mine(&genesis(), 900, 1);
    let start = start_at(&chain[199], 200, work(201));
    let now = u64::from(chain[899].time);
    let consensus = regtest().consensus;
    let mut presync = Presync::new(consensus, PARAMS, start, work(801), SALT, now);
    let (accepted, next) = run(&mut presync, &chain, &chain);
    assert_eq!(next, Next::Done);
    assert_eq!(accepted, chain[200..800]);
    assert_eq!(presync.start_hash(), chain[199].block_hash());
}

#[test]
fn difficulty_changes_only_every_2016_blocks_and_by_a_factor_of_four() {
    let mainnet = Params::new(Network::Bitcoin);
    let bits = CompactTarget::from_consensus;
    let (old, quarter, four_times) = (0x1b04_04cb, 0x1b01_0132, 0x1b10_132c);
    let permitted = |height, old, new| permitted_transition(&mainnet, height, bits(old), bits(new));
    assert!(permitted(2015, old, old));
    assert!(!permitted(2015, old, quarter));
    for new in [old, quarter, four_times] {
        assert!(permitted(2016, old, new), "{new:x}");
    }
    assert!(!permitted(2016, old, quarter - 1));
    assert!(!permitted(2016, old, four_times + 1));
    // The easiest target is the limit however easy the last one was.
    assert!(permitted(4032, 0x1d00_ffff, 0x1d00_ffff));
    assert!(!permitted(4032, 0x1d00_ffff, 0x1d01_0000));
    assert!(permitted_transition(
        &regtest().consensus,
        1,
        bits(old),
        bits(quarter)
    ));
}

#[test]
fn a_wrong_difficulty_ends_the_presync() {
    let mut consensus = regtest().consensus;
    consensus.allow_min_difficulty_blocks = false;
    let chain = mine(&genesis(), 10, 1);
    let mut easier = chain.clone();
    easier[5].bits = CompactTarget::from_consensus(0x207f_fffe);
    let start = start_at(&genesis(), 0, work(1));
    let now = u64::from(chain[9].time);
    let mut presync = Presync::new(consensus, PARAMS, start, work(100), SALT, now);
    let outcome = presync.process(&easier, true);
    assert_eq!(outcome.next, Next::GiveUp(GiveUp::Difficulty));
}

#[test]
fn a_buffered_header_takes_48_bytes_and_comes_back_whole() {
    assert_eq!(size_of::<Compressed>(), 48);
    let mut bits = Bits::default();
    let pattern: Vec<bool> = (0..200).map(|i| i % 7 == 0 || i % 3 == 1).collect();
    for bit in &pattern {
        bits.push(*bit);
    }
    let back: Vec<bool> = (0..200).map(|i| bits.get(i).unwrap()).collect();
    assert_eq!(back, pattern);
    assert_eq!(bits.get(200), None);
}
