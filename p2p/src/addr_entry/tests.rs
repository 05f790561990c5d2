use pulse_primitives::bitcoin::consensus::serialize;

use super::*;
use crate::message::{Message, Outgoing};

fn entry(addr: NetAddr) -> AddrEntry {
    AddrEntry {
        time: 1_700_000_000,
        services: ServiceFlags::NETWORK,
        addr,
        port: 8333,
    }
}

fn v2_entry(network: u8, address: &[u8]) -> Vec<u8> {
    let mut bytes = vec![1, 0, 0, 0, 0, network];
    bytes.extend(serialize(&VarInt(address.len() as u64)));
    bytes.extend_from_slice(address);
    bytes.extend([0x20, 0x8d]);
    bytes
}

fn decode_v2(entries: &[Vec<u8>]) -> Result<Vec<NetAddr>, DecodeError> {
    let count = serialize(&VarInt(entries.len() as u64));
    let payload = [count, entries.concat()].concat();
    let entries = decode_addrv2(&payload)?;
    assert!(
        entries
            .iter()
            .all(|entry| entry.port == 8333 && entry.time == 1)
    );
    Ok(entries.into_iter().map(|entry| entry.addr).collect())
}

#[test]
fn every_network_goes_through_addrv2_and_only_ip_through_addr() {
    let entries = [
        NetAddr::from(std::net::Ipv4Addr::new(1, 2, 3, 4)),
        "2a00::1".parse().unwrap(),
        NetAddr::TorV3([3; 32]),
        NetAddr::I2p([4; 32]),
        "fc00::5".parse().unwrap(),
    ]
    .map(entry);
    for (addr_v2, expected) in [(true, &entries[..]), (false, &entries[..2])] {
        let sent = Outgoing::addr(&entries, addr_v2);
        let received = Message::decode(sent.command(), sent.payload().to_vec());
        assert_eq!(received, Ok(Message::Addr(expected.to_vec())));
    }
}

#[test]
fn at_most_a_thousand_entries_are_sent() {
    let entries = vec![entry(NetAddr::Ipv4([1, 2, 3, 4].into())); 1001];
    for addr_v2 in [true, false] {
        let sent = Outgoing::addr(&entries, addr_v2);
        assert_eq!(
            Message::decode(sent.command(), sent.payload().to_vec()),
            Ok(Message::Addr(entries[..1000].to_vec()))
        );
    }
}

#[test]
fn unknown_networks_are_skipped_and_the_others_stay() {
    let known = NetAddr::Ipv4([1, 2, 3, 4].into());
    let entries = [
        v2_entry(1, &[1, 2, 3, 4]),
        v2_entry(3, &[1; 10]),
        v2_entry(99, &[1; 512]),
        v2_entry(77, &[]),
        v2_entry(1, &[1, 2, 3, 4]),
    ];
    assert_eq!(decode_v2(&entries), Ok(vec![known; 2]));
    let longer = [v2_entry(99, &[1; 513])];
    assert!(matches!(
        decode_v2(&longer),
        Err(DecodeError::TooMany { count: 513, .. })
    ));
}

#[test]
fn a_wrong_length_of_a_known_network_spoils_the_message() {
    for (network, len) in [(1, 5), (2, 4), (4, 10), (5, 31), (6, 32)] {
        assert_eq!(
            decode_v2(&[v2_entry(network, &vec![0xfc; len])]),
            Err(DecodeError::Malformed)
        );
    }
}

#[test]
fn addresses_that_hide_another_network_are_skipped() {
    let mapped = std::net::Ipv4Addr::new(1, 2, 3, 4)
        .to_ipv6_mapped()
        .octets();
    let with = |prefix: &[u8]| {
        let mut bytes = [1; 16];
        bytes[..prefix.len()].copy_from_slice(prefix);
        bytes
    };
    let tor = with(&TOR_V2_IN_IPV6);
    let internal = with(&INTERNAL_IN_IPV6);
    for (network, address) in [(2, mapped), (2, tor), (2, internal), (6, [1; 16])] {
        assert_eq!(decode_v2(&[v2_entry(network, &address)]), Ok(vec![]));
    }
    // In `addr` a mapped address is the IPv4 address.
    let v1 = |address: [u8; 16]| {
        let mut payload = vec![1];
        payload.extend([0; 12]);
        payload.extend(address);
        payload.extend([0x20, 0x8d]);
        decode_addr(&payload).unwrap()
    };
    assert_eq!(v1(mapped)[0].addr, NetAddr::Ipv4([1, 2, 3, 4].into()));
    assert_eq!((v1(tor), v1(internal)), (vec![], vec![]));
}
