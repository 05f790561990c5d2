use pulse_primitives::bitcoin::{Wtxid, hashes::Hash};
use rand::{SeedableRng, rngs::StdRng};

use super::*;

const A: PeerId = PeerId(1);
const B: PeerId = PeerId(2);
const C: PeerId = PeerId(3);

fn tracker() -> TxRequests {
    TxRequests::new(&mut StdRng::seed_from_u64(1))
}

fn id(tag: u8) -> GenTxid {
    GenTxid::Wtxid(Wtxid::from_byte_array([tag; 32]))
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Asks as a caller does.
fn ask(requests: &mut TxRequests, peer: PeerId, now: Instant) -> Vec<GenTxid> {
    let ids = requests.requestable(peer, now);
    for id in &ids {
        requests.requested(peer, &id.hash(), now + REQUEST_TIMEOUT);
    }
    ids
}

#[test]
fn nothing_is_asked_before_its_time() {
    let (mut requests, now) = (tracker(), Instant::now());
    requests.announce(A, id(1), false, now + secs(2));
    assert!(ask(&mut requests, A, now + secs(1)).is_empty());
    assert_eq!(requests.next_time(), Some(now + secs(2)));
    assert_eq!(ask(&mut requests, A, now + secs(2)), [id(1)]);
}

#[test]
fn one_request_per_transaction_is_out_at_a_time() {
    let (mut requests, now) = (tracker(), Instant::now());
    requests.announce(A, id(1), true, now);
    assert_eq!(ask(&mut requests, A, now), [id(1)]);
    requests.announce(B, id(1), true, now);
    assert!(ask(&mut requests, B, now + secs(59)).is_empty());
    assert_eq!((requests.in_flight(A), requests.in_flight(B)), (1, 0));
}

#[test]
fn after_the_timeout_the_next_peer_is_asked() {
    let (mut requests, now) = (tracker(), Instant::now());
    requests.announce(A, id(1), true, now);
    ask(&mut requests, A, now);
    requests.announce(B, id(1), false, now);
    assert_eq!(ask(&mut requests, B, now + REQUEST_TIMEOUT), [id(1)]);
    // The first one is not asked again, even if it says so once more.
    requests.announce(A, id(1), true, now);
    requests.received(B, &id(1).hash());
    assert!(ask(&mut requests, A, now + secs(600)).is_empty());
    assert!(requests.is_empty());
}

#[test]
fn a_notfound_moves_the_request_at_once() {
    let (mut requests, now) = (tracker(), Instant::now());
    requests.announce(A, id(1), true, now);
    ask(&mut requests, A, now);
    requests.announce(B, id(1), false, now);
    requests.received(A, &id(1).hash());
    assert_eq!(ask(&mut requests, B, now), [id(1)]);
    assert_eq!(requests.in_flight(A), 0);
}

#[test]
fn preferred_peers_go_first() {
    let now = Instant::now();
    for tag in 0..50 {
        let mut requests = tracker();
        requests.announce(A, id(tag), false, now);
        requests.announce(B, id(tag), true, now);
        requests.announce(C, id(tag), false, now);
        assert!(requests.requestable(A, now).is_empty());
        assert!(requests.requestable(C, now).is_empty());
        assert_eq!(requests.requestable(B, now), [id(tag)]);
    }
}

#[test]
fn among_equals_the_choice_is_spread() {
    let (mut requests, now) = (tracker(), Instant::now());
    for tag in 0..200 {
        for peer in [A, B] {
            requests.announce(peer, id(tag), true, now);
        }
    }
    let (a, b) = (
        requests.requestable(A, now).len(),
        requests.requestable(B, now).len(),
    );
    assert_eq!(a + b, 200);
    assert!((60..140).contains(&a), "{a}");
}

#[test]
fn requests_come_in_order_of_announcement() {
    let (mut requests, now) = (tracker(), Instant::now());
    let order = [9, 3, 7, 1, 5];
    for tag in order {
        requests.announce(A, id(tag), true, now);
    }
    assert_eq!(ask(&mut requests, A, now), order.map(id));
}

#[test]
fn a_gone_peers_requests_go_to_others() {
    let (mut requests, now) = (tracker(), Instant::now());
    requests.announce(A, id(1), true, now);
    requests.announce(A, id(2), true, now);
    ask(&mut requests, A, now);
    requests.announce(B, id(1), false, now);
    requests.forget_peer(A);
    assert_eq!(requests.count(A), 0);
    assert_eq!(ask(&mut requests, B, now), [id(1)]);
    assert_eq!(requests.len(), 1);
}

#[test]
fn a_forgotten_transaction_leaves_nothing_behind() {
    let (mut requests, now) = (tracker(), Instant::now());
    requests.announce(A, id(1), true, now);
    requests.announce(B, id(1), true, now + secs(9));
    ask(&mut requests, A, now);
    requests.forget(&id(1).hash());
    assert!(requests.is_empty());
    assert!(requests.peers.is_empty());
    assert_eq!(requests.next_time(), None);
}

#[test]
fn when_all_failed_all_is_forgotten() {
    let (mut requests, now) = (tracker(), Instant::now());
    for peer in [A, B, C] {
        requests.announce(peer, id(1), true, now);
    }
    for round in 0..3 {
        let at = now + REQUEST_TIMEOUT * round;
        let asked: usize = [A, B, C]
            .into_iter()
            .map(|peer| ask(&mut requests, peer, at).len())
            .sum();
        assert_eq!(asked, 1, "round {round}");
    }
    assert!(
        requests
            .requestable(A, now + REQUEST_TIMEOUT * 3)
            .is_empty()
    );
    assert!(requests.is_empty() && requests.peers.is_empty());
}

/// Random operations against a plain model of what may be asked.
#[test]
fn counts_stay_exact_under_random_use() {
    let mut rng = StdRng::seed_from_u64(99);
    let mut requests = tracker();
    let mut now = Instant::now();
    for _ in 0..20_000 {
        let peer = PeerId(rng.gen_range(0..5));
        let hash = id(rng.gen_range(0..20)).hash();
        match rng.gen_range(0..8) {
            0..=3 => requests.announce(
                peer,
                id(hash[0]),
                rng.r#gen(),
                now + secs(rng.gen_range(0..4)),
            ),
            4 => requests.received(peer, &hash),
            5 => requests.forget(&hash),
            6 => {
                ask(&mut requests, peer, now);
            }
            _ if rng.gen_ratio(1, 10) => requests.forget_peer(peer),
            _ => now += secs(rng.gen_range(0..20)),
        }
        check(&requests);
    }
}

fn check(requests: &TxRequests) {
    let mut timers = 0;
    for (hash, announcements) in &requests.by_hash {
        let count = |wanted: fn(&State) -> bool| {
            announcements
                .iter()
                .filter(|announcement| wanted(&announcement.state))
                .count()
        };
        let selected = count(|state| matches!(state, State::Best | State::Requested(_)));
        assert!(selected <= 1);
        assert!(
            count(|state| *state != State::Completed) > 0,
            "exhausted hash kept"
        );
        if count(|state| *state == State::Ready) > 0 {
            assert_eq!(selected, 1, "a ready peer and none to ask");
        }
        timers += count(|state| matches!(state, State::Delayed(_) | State::Requested(_)));
        for announcement in announcements {
            assert!(requests.peers[&announcement.peer].hashes.contains(hash));
        }
    }
    assert_eq!(timers, requests.timers.len());
    for (peer, state) in &requests.peers {
        let mine = |wanted: fn(&State) -> bool| {
            requests
                .by_hash
                .values()
                .flatten()
                .filter(|announcement| announcement.peer == *peer && wanted(&announcement.state))
                .count()
        };
        assert_eq!(state.hashes.len(), mine(|_| true));
        assert_eq!(
            state.in_flight,
            mine(|state| matches!(state, State::Requested(_)))
        );
        assert_eq!(state.best.len(), mine(|state| *state == State::Best));
    }
}
