//! Where the first addresses come from: names that resolve to peers, and addresses that
//! are part of the program.
//!
//! The names and addresses are those of Bitcoin Core. A seed is asked for peers with
//! certain services by their number in front of its name
//! (`x9.`: whole blocks, with witnesses).
//!
//! # Security
//! Whoever runs a seed can only add addresses, with the seed's name as their source
//! ([`crate::addrman::AddrSource::named`]); the address manager bounds what one source
//! reaches. The fixed addresses
//! are for when no name resolves and nothing is known.
//!
//! # Limits
//! 507 fixed addresses of the main network, at most one of each group of its IPv4 and
//! IPv6 ones; all or most of Bitcoin Core's for the test networks. A custom signet and
//! regtest have neither names nor addresses.

use pulse_primitives::{
    bitcoin::{Network, p2p::ServiceFlags},
    network::ChainParams,
};

use crate::netaddr::NetAddress;

const MAINNET: &[&str] = &[
    "dnsseed.bluematt.me.",
    "seed.bitcoin.jonasschnelli.ch.",
    "seed.btc.petertodd.net.",
    "seed.bitcoin.sprovoost.nl.",
    "dnsseed.emzy.de.",
    "seed.bitcoin.wiz.biz.",
    "seed.mainnet.achownodes.xyz.",
];
const TESTNET3: &[&str] = &[
    "testnet-seed.bitcoin.jonasschnelli.ch.",
    "seed.tbtc.petertodd.net.",
    "seed.testnet.bitcoin.sprovoost.nl.",
    "testnet-seed.bluematt.me.",
    "seed.testnet.achownodes.xyz.",
];
const TESTNET4: &[&str] = &[
    "seed.testnet4.bitcoin.sprovoost.nl.",
    "seed.testnet4.wiz.biz.",
];
const SIGNET: &[&str] = &[
    "seed.signet.bitcoin.sprovoost.nl.",
    "seed.signet.achownodes.xyz.",
];

/// Services that peers are asked for at the seeds: the only ones that each seed knows.
#[must_use]
pub fn seed_services() -> ServiceFlags {
    ServiceFlags::NETWORK | ServiceFlags::WITNESS
}

/// Names of the seeds of a network. They end in a dot: they are whole.
#[must_use]
pub fn dns_seeds(params: &ChainParams) -> &'static [&'static str] {
    match params.network {
        Network::Bitcoin => MAINNET,
        Network::Testnet => TESTNET3,
        Network::Testnet4 => TESTNET4,
        Network::Signet if params.signet_challenge.is_none() => SIGNET,
        _ => &[],
    }
}

/// The name to resolve for peers of `seed` that offer `services`; their port is the
/// network's own.
#[must_use]
pub fn seed_host(seed: &str, services: ServiceFlags) -> String {
    format!("x{:x}.{seed}", services.to_u64())
}

/// Addresses for when nothing else is known.
#[must_use]
pub fn fixed_seeds(params: &ChainParams) -> Vec<NetAddress> {
    let text = match params.network {
        Network::Bitcoin => include_str!("seeds/mainnet.txt"),
        Network::Testnet => include_str!("seeds/testnet3.txt"),
        Network::Testnet4 => include_str!("seeds/testnet4.txt"),
        Network::Signet if params.signet_challenge.is_none() => include_str!("seeds/signet.txt"),
        _ => "",
    };
    let parse = |line: &str| line.parse().expect("a test has read every line");
    text.lines().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::{netaddr::NetKind, netgroup::NetGroup};

    fn params(network: Network) -> ChainParams {
        ChainParams::new(network, None)
    }

    #[test]
    fn every_network_but_regtest_and_custom_signets_has_seeds() {
        for network in [
            Network::Bitcoin,
            Network::Testnet,
            Network::Testnet4,
            Network::Signet,
        ] {
            let params = params(network);
            assert!(dns_seeds(&params).len() >= 2);
            assert!(dns_seeds(&params).iter().all(|name| name.ends_with('.')));
            let fixed = fixed_seeds(&params);
            assert!(fixed.len() >= 90, "{network}: {}", fixed.len());
            assert!(fixed.iter().all(|address| address.addr.is_routable()));
            let different: HashSet<_> = fixed.iter().collect();
            assert_eq!(different.len(), fixed.len());
        }
        for params in [
            params(Network::Regtest),
            ChainParams::new(Network::Signet, Some(vec![0x51])),
        ] {
            assert!(dns_seeds(&params).is_empty());
            assert!(fixed_seeds(&params).is_empty());
        }
    }

    #[test]
    fn no_group_of_the_internet_has_more_than_its_share_of_the_fixed_seeds() {
        let mut groups: HashMap<NetGroup, usize> = HashMap::new();
        let mut networks: HashMap<NetKind, usize> = HashMap::new();
        for address in fixed_seeds(&params(Network::Bitcoin)) {
            let kind = address.addr.kind();
            *networks.entry(kind).or_default() += 1;
            if matches!(kind, NetKind::Ipv4 | NetKind::Ipv6) {
                *groups.entry(NetGroup::of(&address.addr)).or_default() += 1;
            }
        }
        assert!(groups.values().all(|count| *count <= 4), "{groups:?}");
        assert_eq!(networks.len(), NetKind::ALL.len());
    }

    #[test]
    fn services_are_asked_for_in_front_of_the_name() {
        assert_eq!(
            seed_host("seed.example.", seed_services()),
            "x9.seed.example."
        );
        let more = seed_services() | ServiceFlags::COMPACT_FILTERS;
        assert_eq!(seed_host("seed.example.", more), "x49.seed.example.");
    }
}
