use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;

/// Peer `id`, connected at `1000 + id`: the greater the id, the younger. Each has a group
/// of its own, and nothing that would protect it.
fn candidate(id: u64) -> EvictionCandidate {
    EvictionCandidate {
        id: PeerId(id),
        is_inbound: true,
        is_protected: false,
        connected_at: 1000 + id,
        min_ping: None,
        last_block: 0,
        last_tx: 0,
        has_relevant_services: false,
        relays_txs: true,
        keyed_group: id,
        prefer_evict: false,
        is_local: false,
        network: NetKind::Ipv4,
    }
}

fn crowd(count: u64) -> Vec<EvictionCandidate> {
    (0..count).map(candidate).collect()
}

fn evict(candidates: &[EvictionCandidate], seed: u64) -> Option<PeerId> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    select_node_to_evict(candidates.to_vec(), &mut rng)
}

/// Evicts one after the other until nobody may be evicted, and gives who is left.
fn survivors(mut candidates: Vec<EvictionCandidate>) -> Vec<u64> {
    while let Some(id) = evict(&candidates, 1) {
        candidates.retain(|peer| peer.id != id);
    }
    let mut ids: Vec<_> = candidates.iter().map(|peer| peer.id.0).collect();
    ids.sort_unstable();
    ids
}

/// That the peers `ids` of a hundred, changed by `change` and made the youngest, are
/// never evicted while the others are, and that they would be without the change.
fn assert_protects(ids: std::ops::Range<u64>, change: impl Fn(&mut EvictionCandidate)) {
    let mut candidates = crowd(100);
    for peer in &mut candidates {
        if ids.contains(&peer.id.0) {
            peer.connected_at += 1_000;
            peer.keyed_group = 0; // the largest group, and last among keyed ones
        } else {
            peer.keyed_group += 1_000;
            peer.min_ping = Some(Duration::from_secs(1));
        }
    }
    let before = survivors(candidates.clone());
    assert!(
        ids.clone().all(|id| !before.contains(&id)),
        "they are protected anyway: {before:?}"
    );
    for peer in candidates
        .iter_mut()
        .filter(|peer| ids.contains(&peer.id.0))
    {
        change(peer);
    }
    let after = survivors(candidates);
    assert!(ids.clone().all(|id| after.contains(&id)), "{after:?}");
}

#[test]
fn nobody_is_evicted_where_nobody_is() {
    assert_eq!(evict(&[], 1), None);
}

#[test]
fn outbound_peers_are_never_evicted() {
    let mut candidates = crowd(200);
    candidates
        .iter_mut()
        .for_each(|peer| peer.is_inbound = false);
    assert_eq!(evict(&candidates, 1), None);
}

#[test]
fn peers_that_the_operator_wants_are_never_evicted() {
    let mut candidates = crowd(200);
    candidates.iter_mut().for_each(|peer| {
        peer.is_protected = true;
        peer.prefer_evict = true;
    });
    assert_eq!(evict(&candidates, 1), None);
}

#[test]
fn four_peers_of_preferred_groups_are_protected() {
    assert_protects(50..54, |peer| peer.keyed_group = 1_000_000 + peer.id.0);
}

#[test]
fn the_eight_nearest_peers_are_protected() {
    assert_protects(50..58, |peer| {
        peer.min_ping = Some(Duration::from_millis(peer.id.0));
    });
}

#[test]
fn the_last_four_to_give_transactions_are_protected() {
    assert_protects(50..54, |peer| peer.last_tx = 5_000);
}

#[test]
fn the_last_four_to_give_blocks_are_protected() {
    assert_protects(50..54, |peer| peer.last_block = 5_000);
}

#[test]
fn eight_more_block_relay_peers_that_gave_blocks_are_protected() {
    assert_protects(50..62, |peer| {
        peer.last_block = 5_000;
        peer.relays_txs = false;
        peer.has_relevant_services = true;
    });
}

#[test]
fn the_older_half_is_protected() {
    let mut candidates = crowd(100);
    protect_half(&mut candidates);
    assert_eq!(candidates.len(), 50);
    assert!(candidates.iter().all(|peer| peer.id.0 >= 50));
}

#[test]
fn onion_local_i2p_and_cjdns_peers_are_protected_for_it() {
    for change in [
        (|peer: &mut EvictionCandidate| peer.network = NetKind::Onion)
            as fn(&mut EvictionCandidate),
        |peer| peer.network = NetKind::I2p,
        |peer| peer.network = NetKind::Cjdns,
        |peer| peer.is_local = true,
    ] {
        // The thirty youngest of a hundred, of whom a quarter of all is protected.
        let mut candidates = crowd(100);
        candidates.iter_mut().skip(70).for_each(change);
        protect_half(&mut candidates);
        let left: Vec<_> = candidates.iter().map(|peer| peer.id.0).collect();
        let mut expected: Vec<_> = (25..70).chain(95..100).collect();
        expected.sort_unstable_by(|a, b| b.cmp(a));
        assert_eq!(left, expected);
    }
}

#[test]
fn disadvantaged_networks_share_equally() {
    let mut candidates = crowd(80);
    for (at, peer) in candidates.iter_mut().enumerate() {
        peer.network = match at {
            76.. => NetKind::Cjdns,
            72.. => NetKind::I2p,
            40.. => NetKind::Onion,
            _ => NetKind::Ipv4,
        };
    }
    protect_half(&mut candidates);
    assert_eq!(candidates.len(), 40);
    let left = |network| {
        let of_network = candidates.iter().filter(|peer| peer.network == network);
        of_network.count()
    };
    // 20 are reserved: all 4 and 4, and the 12 eldest onions; the 20 eldest of all then.
    assert_eq!(left(NetKind::Cjdns), 0);
    assert_eq!(left(NetKind::I2p), 0);
    assert_eq!(left(NetKind::Onion), 20);
    assert_eq!(left(NetKind::Ipv4), 20);
}

#[test]
fn discouraged_peers_are_evicted_first() {
    let mut candidates = crowd(100);
    for peer in &mut candidates {
        peer.keyed_group = 1;
    }
    let usual = evict(&candidates, 1).unwrap();
    let mut other = 0;
    for seed in 0..50 {
        let mut candidates = candidates.clone();
        candidates[90].prefer_evict = true;
        other += usize::from(evict(&candidates, seed) == Some(PeerId(90)));
    }
    assert_ne!(usual, PeerId(90));
    // Unless chance protected it, being equal to the others.
    assert!(other > 30, "{other}");
}

#[test]
fn the_largest_group_loses_its_youngest() {
    let mut candidates = crowd(20);
    for peer in &mut candidates {
        peer.keyed_group = peer.id.0 % 7; // 0 to 5 have three
    }
    assert_eq!(youngest_of_largest_group(&candidates), Some(PeerId(19)));
    candidates.extend((20..22).map(|id| EvictionCandidate {
        connected_at: id,
        keyed_group: 2,
        ..candidate(id)
    }));
    assert_eq!(youngest_of_largest_group(&candidates), Some(PeerId(16)));
}

#[test]
fn an_attacker_from_one_group_evicts_his_own() {
    // Sixty honest peers of as many groups, then an attacker who keeps knocking.
    let mut candidates = crowd(60);
    for id in 60..1060 {
        let attacker = EvictionCandidate {
            keyed_group: 30,
            min_ping: Some(Duration::from_millis(1)),
            ..candidate(id)
        };
        candidates.push(attacker);
        if candidates.len() > 100 {
            let victim = evict(&candidates, id).unwrap();
            assert!(victim.0 >= 60, "{victim}");
            candidates.retain(|peer| peer.id != victim);
        }
    }
}

prop_compose! {
    fn any_candidate()(
        flags in any::<[bool; 6]>(),
        connected_at in 0_u64..50,
        ping in 0_u64..20,
        last in any::<[u8; 2]>(),
        keyed_group in 0_u64..10,
        network in 0_usize..5,
    ) -> EvictionCandidate {
        EvictionCandidate {
            is_inbound: flags[0] || flags[1],
            is_protected: flags[1] && flags[2],
            connected_at,
            min_ping: (ping > 0).then(|| Duration::from_millis(ping)),
            last_block: u64::from(last[0] / 64),
            last_tx: u64::from(last[1] / 64),
            has_relevant_services: flags[3],
            relays_txs: flags[4],
            keyed_group,
            prefer_evict: flags[5] && flags[2],
            is_local: flags[3] && flags[2],
            network: NetKind::ALL[network],
            ..candidate(0)
        }
    }
}

proptest! {
    #[test]
    fn whoever_is_evicted_may_be_evicted(
        mut candidates in prop::collection::vec(any_candidate(), 0..150),
        seed: u64,
    ) {
        for (id, peer) in (0..).zip(&mut candidates) {
            peer.id = PeerId(id);
        }
        let may_be = candidates.iter().filter(|peer| peer.is_inbound && !peer.is_protected);
        let may_be: Vec<_> = may_be.map(|peer| peer.id).collect();
        match evict(&candidates, seed) {
            Some(id) => prop_assert!(may_be.contains(&id)),
            // 4 + 8 + 4 + 8 + 4 are protected, and half of the rest, rounded down.
            None => prop_assert!(may_be.len() <= 28),
        }
    }
}
