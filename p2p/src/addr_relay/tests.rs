use std::collections::HashSet;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;

const NOW: u64 = 1_700_000_000;
const KEY: (u64, u64) = (1, 2);
const OPEN: AddrPolicy<'_> = AddrPolicy {
    is_reachable: &|_| true,
    is_barred: &|_| false,
};

fn record(number: u32) -> AddrRecord {
    AddrRecord {
        address: NetAddress::new(NetAddr::Ipv4((0x0100_0000 + number).into()), 8333),
        services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
        time: NOW - 60,
    }
}

fn records(count: u32) -> Vec<AddrRecord> {
    (0..count).map(record).collect()
}

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(7)
}

fn peer() -> PeerAddrs {
    PeerAddrs::new(true, KEY, NOW)
}

fn receive(peer: &mut PeerAddrs, records: Vec<AddrRecord>, now: u64) -> ReceivedAddrs {
    peer.receive(records, OPEN, now, &mut rng()).unwrap()
}

#[test]
fn a_new_peer_gets_one_address_through() {
    let received = receive(&mut peer(), records(1000), NOW);
    assert_eq!((received.processed, received.rate_limited), (1, 999));
    assert_eq!(received.keep.len(), 1);
}

#[test]
fn a_tenth_of_an_address_gets_through_each_second() {
    let mut peer = peer();
    receive(&mut peer, records(1), NOW);
    assert_eq!(receive(&mut peer, records(9), NOW + 9).processed, 0);
    assert_eq!(receive(&mut peer, records(9), NOW + 10).processed, 1);
    assert_eq!(receive(&mut peer, records(1000), NOW + 110).processed, 10);
}

#[test]
fn no_more_than_a_thousand_addresses_are_saved_up() {
    let mut peer = peer();
    assert_eq!(
        receive(&mut peer, records(1000), NOW + 1_000_000).processed,
        1000
    );
    assert_eq!(
        receive(&mut peer, records(1000), NOW + 1_000_000).processed,
        0
    );
}

#[test]
fn the_answer_to_our_getaddr_gets_through_whole() {
    let mut peer = peer();
    peer.note_getaddr_sent();
    assert_eq!(receive(&mut peer, records(1000), NOW).processed, 1000);
    assert_eq!(receive(&mut peer, records(1000), NOW).processed, 1);
}

#[test]
fn a_clock_set_back_gives_nothing_away() {
    let mut peer = peer();
    receive(&mut peer, records(1), NOW);
    assert_eq!(receive(&mut peer, records(1), NOW - 1000).processed, 0);
}

#[test]
fn more_than_a_thousand_addresses_at_once_are_misbehaviour() {
    let result = peer().receive(records(1001), OPEN, NOW, &mut rng());
    assert_eq!(result, Err(TooManyAddrs { count: 1001 }));
}

#[test]
fn addresses_without_blocks_to_offer_are_ignored() {
    let mut record = record(1);
    record.services = ServiceFlags::WITNESS;
    assert_eq!(receive(&mut peer(), vec![record], NOW).processed, 0);
    record.services = ServiceFlags::NETWORK_LIMITED;
    assert_eq!(receive(&mut peer(), vec![record], NOW).processed, 1);
}

#[test]
fn impossible_times_count_as_five_days_ago() {
    for time in [0, FIRST_TIME, NOW + RECENT + 1] {
        let record = AddrRecord { time, ..record(1) };
        let received = receive(&mut peer(), vec![record], NOW);
        assert_eq!(received.keep[0].time, NOW - UNKNOWN_AGE);
        assert_eq!(received.relay, []);
    }
}

#[test]
fn only_news_is_passed_on() {
    let ready = || {
        let mut peer = peer();
        peer.tokens.tokens = MAX_TOKENS;
        peer
    };
    assert_eq!(receive(&mut ready(), records(10), NOW).relay.len(), 10);
    assert_eq!(receive(&mut ready(), records(11), NOW).relay, []);

    let old = AddrRecord {
        time: NOW - RECENT,
        ..record(1)
    };
    assert_eq!(receive(&mut ready(), vec![old], NOW).relay, []);
    let private = AddrRecord {
        address: "10.0.0.1:8333".parse().unwrap(),
        ..record(1)
    };
    assert_eq!(receive(&mut ready(), vec![private], NOW).relay, []);

    let mut asked = ready();
    asked.note_getaddr_sent();
    assert_eq!(receive(&mut asked, records(5), NOW).relay, []);
    // The answer has come; what follows is news again.
    assert_eq!(receive(&mut asked, records(5), NOW).relay.len(), 5);
}

#[test]
fn barred_addresses_go_nowhere_and_unreachable_ones_only_on() {
    let barred = AddrPolicy {
        is_barred: &|_| true,
        ..OPEN
    };
    let received = peer().receive(records(1), barred, NOW, &mut rng()).unwrap();
    assert_eq!(received, ReceivedAddrs::default());
    let unreachable = AddrPolicy {
        is_reachable: &|_| false,
        ..OPEN
    };
    let received = peer()
        .receive(records(1), unreachable, NOW, &mut rng())
        .unwrap();
    assert_eq!(received.keep, []);
    assert_eq!(received.relay, [(record(0), false)]);
}

#[test]
fn a_peer_is_not_told_what_it_knows() {
    let mut peer = peer();
    receive(&mut peer, vec![record(1)], NOW);
    peer.push(record(1), &mut rng());
    peer.push(record(2), &mut rng());
    peer.push(record(2), &mut rng());
    assert_eq!(peer.take_to_send(), [record(2)]);
    peer.push(record(2), &mut rng());
    assert_eq!(peer.take_to_send(), []);
    peer.forget_known();
    peer.push(record(2), &mut rng());
    assert_eq!(peer.take_to_send(), [record(2)]);
}

#[test]
fn a_peer_without_addrv2_is_not_told_of_onions() {
    let onion = AddrRecord {
        address: NetAddress::new(NetAddr::TorV3([1; 32]), 8333),
        ..record(1)
    };
    let mut old = PeerAddrs::new(false, KEY, NOW);
    old.push(onion, &mut rng());
    assert_eq!(old.take_to_send(), []);
    let mut new = peer();
    new.push(onion, &mut rng());
    assert_eq!(new.take_to_send(), [onion]);
}

#[test]
fn at_most_a_thousand_addresses_wait() {
    let mut peer = peer();
    let mut rng = rng();
    for record in records(5000) {
        peer.push(record, &mut rng);
    }
    assert_eq!(peer.take_to_send().len(), 1000);
}

#[test]
fn getaddr_is_answered_once() {
    let mut peer = peer();
    peer.push(record(9999), &mut rng());
    assert!(peer.answer_getaddr(&records(3), &mut rng()));
    assert_eq!(peer.take_to_send(), records(3));
    assert!(!peer.answer_getaddr(&records(5), &mut rng()));
    assert_eq!(peer.take_to_send(), []);
}

fn targets(address: u32, is_reachable: bool, now: u64) -> Vec<PeerId> {
    let peers = (0..50).map(PeerId);
    relay_targets(&record(address).address, is_reachable, peers, KEY, now)
}

#[test]
fn an_address_goes_to_the_same_two_peers_for_a_day() {
    for address in 0..50 {
        let first = targets(address, true, NOW);
        assert_eq!(first.len(), 2);
        assert_ne!(first[0], first[1]);
        let changes = (1..=24 * 3)
            .map(|hour| targets(address, true, NOW + hour * 3600))
            .collect::<Vec<_>>();
        let different: HashSet<_> = changes.iter().collect();
        assert!((3..=4).contains(&different.len()), "{}", different.len());
    }
}

#[test]
fn different_addresses_go_to_different_peers() {
    let all: HashSet<_> = (0..500).flat_map(|at| targets(at, true, NOW)).collect();
    assert_eq!(all.len(), 50);
}

#[test]
fn what_we_do_not_reach_goes_to_one_or_two_peers() {
    let counts = (0..1000).map(|at| targets(at, false, NOW).len());
    let twice = counts.filter(|count| *count == 2).count();
    assert!((400..600).contains(&twice), "{twice}");
}

#[test]
fn few_peers_are_all_there_is() {
    let address = record(1).address;
    assert_eq!(relay_targets(&address, true, [], KEY, NOW), []);
    let one = relay_targets(&address, true, [PeerId(5)], KEY, NOW);
    assert_eq!(one, [PeerId(5)]);
}

fn audience(port: u16) -> Audience {
    Audience {
        network: NetKind::Ipv4,
        local: SocketAddr::from(([1, 2, 3, 4], port)),
    }
}

#[test]
fn an_answer_is_kept_for_a_day_and_for_its_audience() {
    let mut cache = GetAddrCache::default();
    let mut rng = rng();
    let first = cache.answer(audience(1), NOW, &mut rng, || records(3));
    assert_eq!(first, records(3));
    let again = cache.answer(audience(1), NOW + CACHE_MIN - 1, &mut rng, || records(4));
    assert_eq!(again.len(), 3);
    let other = cache.answer(audience(2), NOW, &mut rng, || records(5));
    assert_eq!(other.len(), 5);
    let late = NOW + CACHE_MIN + CACHE_EXTRA;
    let late = cache.answer(audience(1), late, &mut rng, || records(6));
    assert_eq!(late.len(), 6);
}

#[test]
fn answers_are_kept_for_a_bounded_number_of_audiences() {
    let mut cache = GetAddrCache::default();
    for port in 0..1000 {
        cache.answer(audience(port), NOW, &mut rng(), || records(1));
    }
    assert_eq!(cache.answers.len(), MAX_CACHES);
}
