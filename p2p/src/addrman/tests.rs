use std::collections::{HashMap, HashSet};

use pulse_primitives::bitcoin::p2p::ServiceFlags;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{key::BucketKey, *};
use crate::{netaddr::NetAddr, saved::SavedError};

mod sequences;

const NOW: u64 = 1_700_000_000;
const KEY: [u8; 32] = [7; 32];

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(11)
}

fn addr(text: &str) -> NetAddr {
    text.parse().unwrap()
}

fn record(text: &str) -> AddrRecord {
    AddrRecord {
        address: NetAddress::parse(text, 8333).unwrap(),
        services: ServiceFlags::NETWORK,
        time: NOW - HOUR,
    }
}

fn add(manager: &mut AddrMan, text: &str, source: &str) -> bool {
    manager.add(&record(text), addr(source), 0, NOW, &mut rng())
}

fn address(text: &str) -> NetAddress {
    NetAddress::parse(text, 8333).unwrap()
}

/// A random public IPv4 address.
fn random_ipv4(rng: &mut impl Rng) -> NetAddr {
    loop {
        let addr = NetAddr::Ipv4(rng.r#gen::<u32>().into());
        if addr.is_routable() {
            return addr;
        }
    }
}

fn random_record(rng: &mut impl Rng) -> AddrRecord {
    AddrRecord {
        address: NetAddress::new(random_ipv4(rng), 8333),
        services: ServiceFlags::NETWORK,
        time: NOW - HOUR,
    }
}

/// What three hundred honest peers of as many groups told.
fn honest(rng: &mut impl Rng) -> AddrMan {
    let mut manager = AddrMan::new(KEY);
    for _ in 0..300 {
        let source = random_ipv4(rng);
        for _ in 0..50 {
            manager.add(&random_record(rng), source, TIME_PENALTY, NOW, rng);
        }
    }
    manager
}

fn select(manager: &AddrMan) -> Option<Selected> {
    manager.select(Select::default(), NOW, &mut rng())
}

#[test]
fn what_was_added_is_found_and_selected() {
    let mut manager = AddrMan::new(KEY);
    assert!(manager.is_empty());
    assert_eq!(select(&manager), None);
    assert!(add(&mut manager, "250.1.1.1", "252.2.2.2"));
    assert_eq!(manager.len(), 1);
    assert_eq!(manager.count(Table::New, NetKind::Ipv4), 1);
    assert_eq!(select(&manager).unwrap().record, record("250.1.1.1"));
    // The same once more is nothing new; another port is.
    assert!(!add(&mut manager, "250.1.1.1", "252.2.2.2"));
    assert!(add(&mut manager, "250.1.1.1:8334", "252.2.2.2"));
    assert_eq!(manager.len(), 2);
    manager.check().unwrap();
}

#[test]
fn what_is_not_routable_is_not_kept() {
    let mut manager = AddrMan::new(KEY);
    for text in ["10.0.0.1", "127.0.0.1", "fd00::1", "0.0.0.0"] {
        assert!(!add(&mut manager, text, "252.2.2.2"));
    }
    assert!(manager.is_empty());
}

#[test]
fn what_others_tell_is_put_back_in_time_but_not_what_one_tells_of_oneself() {
    let mut manager = AddrMan::new(KEY);
    let told = record("250.1.1.1");
    manager.add(&told, addr("252.2.2.2"), TIME_PENALTY, NOW, &mut rng());
    let own = record("250.1.1.2");
    manager.add(&own, own.address.addr, TIME_PENALTY, NOW, &mut rng());
    let time = |record: AddrRecord| manager.get(&record.address).unwrap().time;
    assert_eq!(time(told), told.time - TIME_PENALTY);
    assert_eq!(time(own), own.time);
}

#[test]
fn services_add_up_and_are_replaced_by_the_peers_own_word() {
    let mut manager = AddrMan::new(KEY);
    add(&mut manager, "250.1.1.1", "252.2.2.2");
    let more = AddrRecord {
        services: ServiceFlags::WITNESS,
        ..record("250.1.1.1")
    };
    manager.add(&more, addr("252.2.2.2"), 0, NOW, &mut rng());
    let services = |manager: &AddrMan| manager.get(&more.address).unwrap().services;
    assert_eq!(
        services(&manager),
        ServiceFlags::NETWORK | ServiceFlags::WITNESS
    );
    manager.set_services(&more.address, ServiceFlags::BLOOM);
    assert_eq!(services(&manager), ServiceFlags::BLOOM);
}

#[test]
fn an_address_has_at_most_eight_places_in_new() {
    let mut manager = AddrMan::new(KEY);
    let mut rng = rng();
    let mut record = record("250.1.1.1");
    for step in 0..20_000 {
        record.time = NOW + step; // newer each time, so that it counts as news
        manager.add(&record, random_ipv4(&mut rng), 0, NOW + step, &mut rng);
    }
    let entry = manager.tables.find(&record.address).unwrap();
    assert_eq!(manager.tables.entry(entry).places, NEW_PLACES_PER_ADDRESS);
    assert_eq!(manager.len(), 1);
    manager.check().unwrap();
}

#[test]
fn a_connection_moves_an_address_to_tried() {
    let mut manager = AddrMan::new(KEY);
    add(&mut manager, "250.1.1.1", "252.2.2.2");
    assert!(manager.good(&address("250.1.1.1"), NOW));
    assert_eq!(manager.table_of(&address("250.1.1.1")), Some(Table::Tried));
    assert_eq!(manager.count(Table::New, NetKind::Ipv4), 0);
    assert_eq!(manager.count(Table::Tried, NetKind::Ipv4), 1);
    // Its time stays: it would tell whom we are connected to.
    assert_eq!(
        manager.get(&address("250.1.1.1")),
        Some(record("250.1.1.1"))
    );
    assert!(!manager.good(&address("250.1.1.1"), NOW));
    assert!(!manager.good(&address("250.9.9.9"), NOW));
    manager.check().unwrap();
}

#[test]
fn the_end_of_a_connection_puts_the_time_forward() {
    let mut manager = AddrMan::new(KEY);
    add(&mut manager, "250.1.1.1", "252.2.2.2");
    manager.connected(&address("250.1.1.1"), NOW - 41 * 60);
    let time = |manager: &AddrMan| manager.get(&address("250.1.1.1")).unwrap().time;
    assert_eq!(time(&manager), NOW - HOUR);
    manager.connected(&address("250.1.1.1"), NOW);
    assert_eq!(time(&manager), NOW);
}

#[test]
fn failures_count_once_between_two_successes() {
    let mut manager = AddrMan::new(KEY);
    add(&mut manager, "250.1.1.1", "252.2.2.2");
    add(&mut manager, "250.2.1.1", "252.2.2.2");
    let attempts = |manager: &AddrMan| {
        let id = manager.tables.find(&address("250.1.1.1")).unwrap();
        manager.tables.entry(id).attempts
    };
    manager.attempt(&address("250.1.1.1"), false, NOW);
    assert_eq!(attempts(&manager), 0);
    manager.attempt(&address("250.1.1.1"), true, NOW);
    manager.attempt(&address("250.1.1.1"), true, NOW + 1);
    assert_eq!(attempts(&manager), 1);
    manager.good(&address("250.2.1.1"), NOW + 2);
    manager.attempt(&address("250.1.1.1"), true, NOW + 3);
    assert_eq!(attempts(&manager), 2);
    manager.good(&address("250.1.1.1"), NOW + 4);
    assert_eq!(attempts(&manager), 0);
}

/// Two addresses whose place in tried is the same, both in new.
fn colliding(manager: &mut AddrMan) -> (NetAddress, NetAddress) {
    let mut rng = rng();
    let first = random_record(&mut rng);
    let place = manager.tables.tried_place(&first.address);
    let second = loop {
        let second = random_record(&mut rng);
        if manager.tables.tried_place(&second.address) == place && second != first {
            break second;
        }
    };
    let source = addr("252.2.2.2");
    for record in [&first, &second] {
        assert!(manager.add(record, source, 0, NOW, &mut rng));
    }
    (first.address, second.address)
}

#[test]
fn a_collision_waits_and_names_the_one_to_test() {
    let mut manager = AddrMan::new(KEY);
    let (first, second) = colliding(&mut manager);
    assert_eq!(manager.select_tried_collision(&mut rng()), None);
    assert!(manager.good(&first, NOW));
    assert!(!manager.good(&second, NOW));
    assert_eq!(manager.table_of(&second), Some(Table::New));
    let test = manager.select_tried_collision(&mut rng()).unwrap();
    assert_eq!(test.record.address, first);
    manager.check().unwrap();
}

#[test]
fn an_address_reached_within_four_hours_keeps_its_place() {
    let mut manager = AddrMan::new(KEY);
    let (first, second) = colliding(&mut manager);
    manager.good(&first, NOW);
    manager.good(&second, NOW + REPLACEMENT - 1);
    manager.resolve_collisions(NOW + REPLACEMENT - 1);
    assert_eq!(manager.table_of(&first), Some(Table::Tried));
    assert_eq!(manager.table_of(&second), Some(Table::New));
    assert_eq!(manager.select_tried_collision(&mut rng()), None);
}

#[test]
fn an_address_dialled_in_vain_loses_its_place() {
    let mut manager = AddrMan::new(KEY);
    let (first, second) = colliding(&mut manager);
    manager.good(&first, NOW);
    let later = NOW + REPLACEMENT;
    manager.good(&second, later);
    manager.attempt(&first, true, later);
    // It has a minute to shake hands.
    manager.resolve_collisions(later + 60);
    assert_eq!(manager.table_of(&first), Some(Table::Tried));
    manager.resolve_collisions(later + 61);
    assert_eq!(manager.table_of(&first), Some(Table::New));
    assert_eq!(manager.table_of(&second), Some(Table::Tried));
    manager.check().unwrap();
}

#[test]
fn an_address_that_is_never_tested_loses_its_place_in_the_end() {
    let mut manager = AddrMan::new(KEY);
    let (first, second) = colliding(&mut manager);
    manager.good(&first, NOW);
    let later = NOW + REPLACEMENT;
    manager.good(&second, later);
    manager.resolve_collisions(later + TEST_WINDOW);
    assert_eq!(manager.table_of(&first), Some(Table::Tried));
    manager.resolve_collisions(later + TEST_WINDOW + 1);
    assert_eq!(manager.table_of(&second), Some(Table::Tried));
    assert_eq!(manager.table_of(&first), Some(Table::New));
    manager.check().unwrap();
}

#[test]
fn few_collisions_wait() {
    let mut manager = honest(&mut rng());
    let addresses: Vec<_> = manager
        .tables
        .iter()
        .map(|(_, entry)| entry.record.address)
        .collect();
    for address in addresses {
        manager.good(&address, NOW);
    }
    assert_eq!(manager.collisions.len(), MAX_COLLISIONS);
    manager.check().unwrap();
}

#[test]
fn one_source_group_reaches_64_new_buckets_and_few_selections() {
    let mut rng = rng();
    let mut manager = honest(&mut rng);
    let honest_len = manager.len();
    let mut attackers = HashSet::new();
    for _ in 0..50_000 {
        let record = random_record(&mut rng);
        let source = NetAddr::Ipv4([6, 6, rng.r#gen(), rng.r#gen()].into());
        if manager.get(&record.address).is_none() {
            attackers.insert(record.address);
        }
        manager.add(&record, source, TIME_PENALTY, NOW, &mut rng);
    }
    manager.check().unwrap();
    let is_attacker = |id: &EntryId| {
        let address = &manager.tables.entry(*id).record.address;
        attackers.contains(address)
    };
    let reached = manager.tables.buckets(Table::New).iter();
    let reached = reached.filter(|bucket| bucket.iter().flatten().any(is_attacker));
    let reached = reached.count();
    assert!(
        reached <= usize::try_from(NEW_BUCKETS_PER_SOURCE_GROUP).unwrap(),
        "{reached}"
    );
    assert!(manager.len() <= honest_len + 64 * BUCKET_SIZE);
    let taken = (0..10_000)
        .filter_map(|_| manager.select(Select::default(), NOW, &mut rng))
        .filter(|selected| attackers.contains(&selected.record.address))
        .count();
    // 64 of 1024 buckets are 6.25 %.
    assert!(taken < 900, "{taken} of 10,000");
}

#[test]
fn one_group_reaches_eight_tried_buckets() {
    let key = BucketKey(KEY);
    let mut buckets = HashSet::new();
    for number in 0..=u16::MAX {
        let [c, d] = number.to_be_bytes();
        let address = NetAddress::new(NetAddr::Ipv4([6, 6, c, d].into()), 8333);
        buckets.insert(key.tried_place(&address).bucket);
    }
    assert!(buckets.len() <= usize::try_from(TRIED_BUCKETS_PER_GROUP).unwrap());
}

#[test]
fn sources_with_names_reach_buckets_of_their_own() {
    let key = BucketKey(KEY);
    let mut rng = rng();
    let mut buckets = HashSet::new();
    for (count, name) in (1..=4).zip(["x9.one.", "x9.two.", "x9.three.", "fixed"]) {
        for _ in 0..2_000 {
            let address = random_record(&mut rng).address;
            buckets.insert(key.new_place(&address, &AddrSource::named(name)).bucket);
        }
        // 64 of 1024 each, but for a few that they share.
        assert!(
            (50 * count..=64 * count).contains(&buckets.len()),
            "{count}"
        );
    }
}

#[test]
fn many_groups_spread_over_all_buckets() {
    let key = BucketKey(KEY);
    let mut rng = rng();
    let (mut new, mut tried) = (HashSet::new(), HashSet::new());
    for _ in 0..50_000 {
        let address = random_record(&mut rng).address;
        tried.insert(key.tried_place(&address).bucket);
        new.insert(
            key.new_place(&address, &random_ipv4(&mut rng).into())
                .bucket,
        );
    }
    assert_eq!((new.len(), tried.len()), (NEW_BUCKETS, TRIED_BUCKETS));
}

#[test]
fn places_follow_from_the_key_and_nothing_else() {
    let mut rng = rng();
    let other = BucketKey([8; 32]);
    let mut same = 0;
    for _ in 0..1000 {
        let address = random_record(&mut rng).address;
        let source = random_ipv4(&mut rng).into();
        let place = BucketKey(KEY).new_place(&address, &source);
        assert_eq!(place, BucketKey(KEY).new_place(&address, &source));
        same += usize::from(place == other.new_place(&address, &source));
    }
    assert!(same < 5, "{same}");
}

#[test]
fn new_and_tried_are_selected_equally_often() {
    let mut rng = rng();
    let mut manager = AddrMan::new(KEY);
    for number in 0..100 {
        let record = random_record(&mut rng);
        manager.add(&record, random_ipv4(&mut rng), 0, NOW, &mut rng);
        if number < 5 {
            manager.good(&record.address, NOW - 2 * HOUR);
        }
    }
    let mut tables: HashMap<_, usize> = HashMap::new();
    for _ in 0..2_000 {
        let selected = manager.select(Select::default(), NOW, &mut rng).unwrap();
        let table = manager.table_of(&selected.record.address).unwrap();
        *tables.entry(table).or_default() += 1;
    }
    assert!((900..1100).contains(&tables[&Table::Tried]), "{tables:?}");
    let only_new = Select {
        new_only: true,
        ..Select::default()
    };
    for _ in 0..200 {
        let selected = manager.select(only_new, NOW, &mut rng).unwrap();
        let table = manager.table_of(&selected.record.address);
        assert_eq!(table, Some(Table::New));
    }
}

#[test]
fn only_the_wanted_networks_are_selected() {
    let mut rng = rng();
    let mut manager = honest(&mut rng);
    let onions = Select {
        networks: &[NetKind::Onion, NetKind::I2p],
        ..Select::default()
    };
    assert_eq!(manager.select(onions, NOW, &mut rng), None);
    let onion = AddrRecord {
        address: NetAddress::new(NetAddr::TorV3([5; 32]), 8333),
        ..random_record(&mut rng)
    };
    manager.add(&onion, random_ipv4(&mut rng), 0, NOW, &mut rng);
    for _ in 0..20 {
        let selected = manager.select(onions, NOW, &mut rng).unwrap();
        assert_eq!(selected.record, onion);
    }
}

#[test]
fn an_address_that_fails_is_selected_less_often() {
    let mut manager = AddrMan::new(KEY);
    add(&mut manager, "250.1.1.1", "252.2.2.2");
    add(&mut manager, "250.2.1.1", "252.3.2.2");
    manager.attempt(&address("250.1.1.1"), true, NOW);
    let mut rng = rng();
    let failed = (0..1_000)
        .filter_map(|_| manager.select(Select::default(), NOW + 60, &mut rng))
        .filter(|selected| selected.record.address == address("250.1.1.1"))
        .count();
    assert!(failed < 50, "{failed}");
}

#[test]
fn at_most_23_percent_and_a_thousand_addresses_are_told() {
    let mut rng = rng();
    let manager = honest(&mut rng);
    let told = |manager: &AddrMan| manager.get_addr(1000, 23, None, NOW, &mut self::rng());
    assert!(manager.len() > 5000);
    assert_eq!(told(&manager).len(), 1000);
    let different: HashSet<_> = told(&manager).iter().map(|record| record.address).collect();
    assert_eq!(different.len(), 1000);

    let mut small = AddrMan::new(KEY);
    for _ in 0..100 {
        small.add(
            &random_record(&mut rng),
            random_ipv4(&mut rng),
            0,
            NOW,
            &mut rng,
        );
    }
    assert_eq!(told(&small).len(), small.len() * 23 / 100);
}

#[test]
fn what_is_not_worth_dialling_is_not_told() {
    let mut rng = rng();
    let manager = honest(&mut rng);
    let in_two_months = NOW + 60 * 24 * HOUR;
    assert!(
        manager
            .get_addr(1000, 23, None, in_two_months, &mut rng)
            .is_empty()
    );
    let onions = manager.get_addr(1000, 100, Some(NetKind::Onion), NOW, &mut rng);
    assert!(onions.is_empty());
}

/// Everything that is saved of each address.
type SavedEntry = (NetAddress, Vec<u8>, u64, u64, u64, u32, u8, bool);

fn contents(manager: &AddrMan) -> Vec<SavedEntry> {
    let entries = manager.tables.iter().map(|(_, entry)| {
        let record = entry.record;
        (
            record.address,
            entry.source.group(),
            record.services.to_u64(),
            record.time,
            entry.last_success,
            entry.attempts,
            entry.places,
            entry.in_tried,
        )
    });
    let mut entries: Vec<_> = entries.collect();
    entries.sort_unstable();
    entries
}

fn busy() -> AddrMan {
    let mut rng = rng();
    let mut manager = honest(&mut rng);
    let all: Vec<_> = manager
        .tables
        .iter()
        .map(|(_, entry)| entry.record.address)
        .collect();
    for address in all.iter().step_by(3) {
        manager.attempt(address, true, NOW);
        if rng.r#gen() {
            manager.good(address, NOW);
        }
    }
    for text in ["2a00::1", "fc00::1"] {
        add(&mut manager, text, "fc00::2");
    }
    let source = AddrSource::named("seed");
    assert!(manager.add(&record("9.8.7.6"), source, 0, NOW, &mut rng));
    manager
}

#[test]
fn everything_survives_being_saved() {
    let manager = busy();
    let bytes = manager.encode();
    let loaded = AddrMan::decode(&bytes).unwrap();
    assert_eq!(contents(&loaded), contents(&manager));
    loaded.check().unwrap();
    let ids = |manager: &AddrMan, table| {
        let address = |id: &EntryId| manager.tables.entry(*id).record.address;
        let buckets = manager.tables.buckets(table).iter();
        let places = buckets.map(|bucket| bucket.map(|id| id.map(|id| address(&id))));
        places.collect::<Vec<_>>()
    };
    for table in [Table::New, Table::Tried] {
        assert_eq!(ids(&loaded, table), ids(&manager, table));
    }
    let empty = AddrMan::decode(&AddrMan::new(KEY).encode()).unwrap();
    assert!(empty.is_empty());
}

#[test]
fn damaged_bytes_are_refused() {
    let bytes = busy().encode();
    let mut rng = rng();
    for _ in 0..50 {
        let mut damaged = bytes.clone();
        let at = rng.gen_range(0..bytes.len());
        damaged[at] ^= 1 << rng.gen_range(0..8);
        assert!(AddrMan::decode(&damaged).is_err());
        assert!(AddrMan::decode(&bytes[..at]).is_err());
    }
    assert!(matches!(
        AddrMan::decode(&vec![0; 10 << 20]),
        Err(SavedError::TooLong { .. })
    ));
}
