//! Any sequence of calls.

use proptest::prelude::*;

use super::*;
use crate::saved::SavedError;

/// A call, with small numbers so that addresses meet again and collide.
#[derive(Debug, Clone)]
enum Call {
    Add { host: u16, source: u8, age: i32 },
    Good { host: u16 },
    Attempt { host: u16, counts: bool },
    Connected { host: u16 },
    Resolve,
    SelectCollision,
    Select { networks: u8, new_only: bool },
    GetAddr,
    Wait { secs: u32 },
    Reload,
}

fn any_call() -> impl Strategy<Value = Call> {
    prop_oneof![
        6 => (0_u16..300, any::<u8>(), -10_000..4_000_000)
            .prop_map(|(host, source, age)| Call::Add { host, source, age }),
        3 => (0_u16..300).prop_map(|host| Call::Good { host }),
        2 => (0_u16..300, any::<bool>()).prop_map(|(host, counts)| Call::Attempt { host, counts }),
        1 => (0_u16..300).prop_map(|host| Call::Connected { host }),
        1 => Just(Call::Resolve),
        1 => Just(Call::SelectCollision),
        1 => (any::<u8>(), any::<bool>())
            .prop_map(|(networks, new_only)| Call::Select { networks, new_only }),
        1 => Just(Call::GetAddr),
        1 => (0_u32..1_000_000).prop_map(|secs| Call::Wait { secs }),
        1 => Just(Call::Reload),
    ]
}

/// Hosts of all networks, many of them in one group.
fn host(number: u16) -> NetAddress {
    let [high, low] = number.to_be_bytes();
    let mut bytes = [0x11; 32];
    bytes[1] = high;
    bytes[2] = low;
    let addr = match number % 8 {
        0 => NetAddr::TorV3(bytes),
        1 => NetAddr::I2p(bytes),
        2 => NetAddr::Cjdns([0xfc00, number, 0, 0, 0, 0, 0, 1].into()),
        3 => NetAddr::Ipv6([0x2a00, number, 0, 0, 0, 0, 0, 1].into()),
        4 => NetAddr::Ipv6([0x2002, 0x0102, number, 0, 0, 0, 0, 1].into()),
        _ => NetAddr::Ipv4([1, 2, high, low].into()),
    };
    NetAddress::new(addr, 8333)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn no_sequence_of_calls_breaks_the_tables(
        calls in prop::collection::vec(any_call(), 1..300),
        seed: u64,
    ) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut manager = AddrMan::new(KEY);
        let mut now = NOW;
        for (step, call) in calls.into_iter().enumerate() {
            match call {
                Call::Add { host: number, source, age } => {
                    let record = AddrRecord {
                        address: host(number),
                        services: ServiceFlags::NETWORK,
                        time: now.saturating_add_signed(-i64::from(age)),
                    };
                    let source = NetAddr::Ipv4([source, source, 1, 1].into());
                    manager.add(&record, source, TIME_PENALTY, now, &mut rng);
                }
                Call::Good { host: number } => {
                    manager.good(&host(number), now);
                }
                Call::Attempt { host: number, counts } => manager.attempt(&host(number), counts, now),
                Call::Connected { host: number } => manager.connected(&host(number), now),
                Call::Resolve => manager.resolve_collisions(now),
                Call::SelectCollision => {
                    manager.select_tried_collision(&mut rng);
                }
                Call::Select { networks, new_only } => {
                    let networks: Vec<_> = NetKind::ALL
                        .into_iter()
                        .enumerate()
                        .filter(|(at, _)| networks & (1 << at) != 0)
                        .map(|(_, kind)| kind)
                        .collect();
                    let from = Select { new_only, networks: &networks };
                    let selected = manager.select(from, now, &mut rng);
                    let kind = selected.map(|selected| selected.record.address.addr.kind());
                    let is_wanted = |kind| networks.is_empty() || networks.contains(&kind);
                    prop_assert!(kind.is_none_or(is_wanted));
                }
                Call::GetAddr => {
                    let told = manager.get_addr(1000, 23, None, now, &mut rng);
                    prop_assert!(told.len() <= manager.len() * 23 / 100);
                }
                Call::Wait { secs } => now += u64::from(secs),
                Call::Reload => {
                    let loaded = AddrMan::decode(&manager.encode()).unwrap();
                    prop_assert_eq!(contents(&loaded), contents(&manager));
                    manager = loaded;
                }
            }
            if step % 8 == 0 {
                manager.check().map_err(TestCaseError::fail)?;
            }
        }
        manager.check().map_err(TestCaseError::fail)?;
    }

    #[test]
    fn no_bytes_make_decoding_panic(
        content in prop::collection::vec(any::<u8>(), 0..2_000),
        counts in any::<[u8; 2]>(),
    ) {
        // Behind a right envelope and key, small counts reach the entries.
        let mut bytes = vec![1; 32];
        bytes.extend([counts[0] % 4, 0, 0, 0, counts[1] % 4, 0, 0, 0]);
        bytes.extend(content);
        let sealed = codec::KIND.seal(&bytes);
        let is_typed = matches!(
            AddrMan::decode(&sealed),
            Ok(_) | Err(SavedError::Malformed { .. })
        );
        prop_assert!(is_typed);
    }
}
