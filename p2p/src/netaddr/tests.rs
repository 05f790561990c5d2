use super::*;

const ONION: &str = "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion";
const I2P: &str = "ukeu3k5oycgaauneqgtnvselmt4yemvoilkln7jpvamvfx7dnkdq.b32.i2p";

fn addr(text: &str) -> NetAddr {
    text.parse().unwrap()
}

#[test]
fn addresses_show_as_they_parse() {
    for (text, network) in [
        ("1.2.3.4", NetKind::Ipv4),
        ("2a00::1", NetKind::Ipv6),
        (ONION, NetKind::Onion),
        (I2P, NetKind::I2p),
        ("fc00::1", NetKind::Cjdns),
    ] {
        assert_eq!(addr(text).to_string(), text);
        assert_eq!(addr(text).kind(), network);
        assert_eq!(network.name().parse(), Ok(network));
        let address = NetAddress::new(addr(text), 8333);
        assert_eq!(address.to_string().parse(), Ok(address));
        assert_eq!(NetAddress::parse(text, 8333), Ok(address));
    }
    assert_eq!(addr(&ONION.to_uppercase()), addr(ONION));
    assert_eq!(addr("::ffff:1.2.3.4"), addr("1.2.3.4"));
    assert_eq!(
        NetAddress::parse("[2a00::1]", 5),
        Ok(NetAddress::new(addr("2a00::1"), 5))
    );
}

#[test]
fn what_is_no_address_is_refused() {
    let wrong_checksum = ONION.replacen("pg6", "pg7", 1);
    for text in [
        "",
        "example.com",
        "1.2.3",
        ".onion",
        "é.onion",
        wrong_checksum.as_str(),
        "6hzph5hv6337r6p2.onion",
        "a.b32.i2p",
    ] {
        assert!(text.parse::<NetAddr>().is_err(), "{text}");
    }
    for text in [
        "1.2.3.4:",
        "1.2.3.4:x",
        "1.2.3.4:65536",
        "1.2.3.4:+1",
        "[1.2.3.4]:1",
        "[::1]1",
        "[::1",
        "[::1]:",
    ] {
        assert!(NetAddress::parse(text, 1).is_err(), "{text}");
    }
    assert!("1.2.3.4".parse::<NetAddress>().is_err());
    assert!("2a00::1".parse::<NetAddress>().is_err());
}

#[test]
fn private_and_special_ranges_are_not_routable() {
    for text in [
        "0.0.0.0",
        "0.1.2.3",
        "255.255.255.255",
        "10.1.1.1",
        "127.0.0.1",
        "192.168.1.1",
        "172.31.0.1",
        "198.18.0.1",
        "198.19.255.1",
        "169.254.1.1",
        "100.64.0.1",
        "100.127.1.1",
        "192.0.2.1",
        "198.51.100.1",
        "203.0.113.1",
        "::",
        "::1",
        "2001:db8::1",
        "fe80::1",
        "fd00::1",
        "2001:10::1",
        "2001:20::1",
    ] {
        assert!(!addr(text).is_routable(), "{text}");
        assert_eq!(addr(text).net_class(), None);
    }
    assert!(!NetAddr::Ipv6("fc00::1".parse().unwrap()).is_routable());
    assert!(!NetAddr::Cjdns("fd00::1".parse().unwrap()).is_valid());
    for text in [
        "1.2.3.4",
        "172.32.0.1",
        "100.128.0.1",
        "198.20.0.1",
        "2a00::1",
        ONION,
        I2P,
        "fc00::1",
        "2001:30::1",
        "fe80:0:0:1::1",
    ] {
        assert!(addr(text).is_routable(), "{text}");
    }
}

#[test]
fn ipv6_addresses_that_lead_to_ipv4_belong_to_ipv4() {
    for text in [
        "64:ff9b::102:304",
        "::ffff:0:102:304",
        "2002:102:304:ffff::1",
        "2001::fefd:fcfb",
        "1.2.3.4",
    ] {
        assert_eq!(addr(text).linked_ipv4(), Some(Ipv4Addr::new(1, 2, 3, 4)));
        assert_eq!(addr(text).net_class(), Some(NetKind::Ipv4));
    }
    assert_eq!(addr("2a00::1").linked_ipv4(), None);
    assert_eq!(addr("127.0.0.1").linked_ipv4(), None);
}

#[test]
fn wire_forms_round_trip() {
    let services = ServiceFlags::NETWORK;
    for text in ["1.2.3.4", "2a00::1", ONION, I2P, "fc00::1"] {
        let host = addr(text);
        assert_eq!(NetAddr::from_addr_v2(&host.to_addr_v2()), Some(host));
        let address = NetAddress::new(host, 7);
        let v1 = address.to_addr_v1(services);
        assert_eq!(v1.is_some(), host.fits_addr_v1());
        if let Some(v1) = v1 {
            assert_eq!(v1.services, services);
            assert_eq!(NetAddress::from_addr_v1(&v1), Some(address));
        }
    }
}

#[test]
fn addresses_that_wrap_another_network_are_dropped() {
    let mapped = Ipv4Addr::new(1, 2, 3, 4).to_ipv6_mapped();
    let onion_cat: Ipv6Addr = "fd87:d87e:eb43::1".parse().unwrap();
    assert_eq!(NetAddr::from_addr_v2(&AddrV2::Ipv6(mapped)), None);
    assert_eq!(NetAddr::from_addr_v2(&AddrV2::Ipv6(onion_cat)), None);
    assert_eq!(NetAddr::from_addr_v2(&AddrV2::TorV2([1; 10])), None);
    assert_eq!(NetAddr::from_addr_v2(&AddrV2::Unknown(9, vec![1])), None);
    let v1 = Address {
        services: ServiceFlags::NONE,
        address: onion_cat.segments(),
        port: 1,
    };
    assert_eq!(NetAddress::from_addr_v1(&v1), None);
}
