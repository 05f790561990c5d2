use pulse_primitives::bitcoin::{
    Amount, ScriptBuf, Sequence, TxIn, TxOut, Witness, absolute::LockTime, hashes::Hash,
    transaction::Version,
};
use rand::{SeedableRng, rngs::StdRng};

use super::*;

const A: PeerId = PeerId(1);
const B: PeerId = PeerId(2);

fn rng() -> StdRng {
    StdRng::seed_from_u64(5)
}

fn outpoint(tag: u64) -> OutPoint {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&tag.to_le_bytes());
    OutPoint::new(Txid::from_byte_array(bytes), 0)
}

fn spending(outpoints: impl IntoIterator<Item = OutPoint>) -> Arc<Transaction> {
    let input = outpoints
        .into_iter()
        .map(|previous_output| TxIn {
            previous_output,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        })
        .collect();
    Arc::new(Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input,
        output: vec![TxOut {
            value: Amount::from_sat(1),
            script_pubkey: ScriptBuf::new(),
        }],
    })
}

/// Adds an orphan that spends what `tag` names.
fn add(orphanage: &mut Orphanage, tag: u64, peer: PeerId) -> (Arc<Transaction>, Wtxid) {
    let tx = spending([outpoint(tag)]);
    let wtxid = tx.compute_wtxid();
    orphanage.add(&tx, wtxid, peer);
    (tx, wtxid)
}

#[test]
fn an_orphan_stays_while_one_peer_announces_it() {
    let mut orphanage = Orphanage::default();
    let (_, wtxid) = add(&mut orphanage, 1, A);
    assert!(orphanage.add_announcer(&wtxid, B));
    orphanage.erase_peer(A);
    assert!(orphanage.contains(&wtxid) && !orphanage.is_announced_by(&wtxid, A));
    orphanage.erase_peer(B);
    assert!(orphanage.is_empty() && orphanage.by_outpoint.is_empty());
    assert_eq!(orphanage.total_weight(), 0);
}

#[test]
fn a_flooding_peer_loses_its_own_oldest_orphans_only() {
    let mut orphanage = Orphanage::with_limits(100, RESERVED_WEIGHT);
    let honest: Vec<Wtxid> = (0..40).map(|n| add(&mut orphanage, n, A).1).collect();
    let flood: Vec<Wtxid> = (1000..5000).map(|n| add(&mut orphanage, n, B).1).collect();
    assert!(honest.iter().all(|wtxid| orphanage.contains(wtxid)));
    assert_eq!(orphanage.len(), 100);
    assert!(
        flood[flood.len() - 60..]
            .iter()
            .all(|wtxid| orphanage.contains(wtxid))
    );
}

#[test]
fn weight_is_bounded_per_peer() {
    let tx = |tag: u64| spending((0..100).map(|n| outpoint(tag * 1000 + n)));
    let weight = tx(0).weight().to_wu();
    let mut orphanage = Orphanage::with_limits(MAX_SCORE, weight * 3);
    for tag in 0..10 {
        let tx = tx(tag);
        orphanage.add(&tx, tx.compute_wtxid(), A);
    }
    assert_eq!(orphanage.total_weight(), weight * 3);
    // A second peer brings its own share.
    for tag in 10..20 {
        let tx = tx(tag);
        orphanage.add(&tx, tx.compute_wtxid(), B);
    }
    assert_eq!(orphanage.total_weight(), weight * 6);
    assert_eq!(orphanage.announced_by(A), 3);
}

#[test]
fn many_inputs_count_more() {
    let mut orphanage = Orphanage::with_limits(50, u64::MAX / 256);
    for tag in 0..10 {
        let tx = spending((0..100).map(|n| outpoint(tag * 1000 + n)));
        orphanage.add(&tx, tx.compute_wtxid(), A);
    }
    // Each counts eleven.
    assert_eq!(orphanage.len(), 4);
}

#[test]
fn heavier_than_standard_is_not_kept() {
    let mut orphanage = Orphanage::default();
    let tx = spending((0..2500).map(outpoint));
    assert!(tx.weight().to_wu() > MAX_WEIGHT);
    assert!(!orphanage.add(&tx, tx.compute_wtxid(), A));
    assert!(orphanage.is_empty());
}

#[test]
fn the_arrival_of_a_parent_makes_work_for_one_announcer() {
    let mut orphanage = Orphanage::default();
    let parent = spending([outpoint(1)]);
    let txid = parent.compute_txid();
    let child = spending([OutPoint::new(txid, 0)]);
    let wtxid = child.compute_wtxid();
    orphanage.add(&child, wtxid, A);
    orphanage.add_announcer(&wtxid, B);
    add(&mut orphanage, 77, A);
    let peers = orphanage.parent_arrived(&parent, txid, &mut rng());
    assert_eq!(peers.len(), 1);
    let peer = *peers.first().unwrap();
    assert!(orphanage.has_work(peer));
    // A second parent does not make the same work twice.
    assert!(
        orphanage
            .parent_arrived(&parent, txid, &mut rng())
            .is_empty()
    );
    assert_eq!(orphanage.next_work(peer), Some(child));
    assert_eq!(orphanage.next_work(peer), None);
    assert!(
        orphanage.contains(&wtxid),
        "it stays until its verdict is known"
    );
}

#[test]
fn children_of_one_peer_come_newest_first() {
    let mut orphanage = Orphanage::default();
    let parent = Txid::from_byte_array([9; 32]);
    let child = |vout| spending([OutPoint::new(parent, vout)]);
    for vout in 0..3 {
        let tx = child(vout);
        orphanage.add(&tx, tx.compute_wtxid(), if vout == 1 { B } else { A });
    }
    assert_eq!(orphanage.children_from(parent, A), [child(2), child(0)]);
    assert_eq!(orphanage.children_from(parent, B), [child(1)]);
}

#[test]
fn a_block_erases_what_it_confirms_or_conflicts_with() {
    let mut orphanage = Orphanage::default();
    let (confirmed, first) = add(&mut orphanage, 1, A);
    let conflicting = spending([outpoint(2), outpoint(3)]);
    orphanage.add(&conflicting, conflicting.compute_wtxid(), A);
    let (_, other) = add(&mut orphanage, 4, A);
    let mut block = pulse_primitives::bitcoin::constants::genesis_block(
        pulse_primitives::bitcoin::Network::Regtest,
    );
    block.txdata.push(Transaction::clone(&confirmed));
    block
        .txdata
        .push(Transaction::clone(&spending([outpoint(3)])));
    orphanage.erase_for_block(&block);
    assert!(!orphanage.contains(&first));
    assert_eq!(orphanage.len(), 1);
    assert!(orphanage.contains(&other));
}

#[test]
fn sums_stay_exact_under_random_use() {
    let mut random = StdRng::seed_from_u64(3);
    let mut orphanage = Orphanage::with_limits(60, 3_000);
    for _ in 0..20_000 {
        let peer = PeerId(random.gen_range(0..6));
        let tag = random.gen_range(0..40);
        let tx = spending((0..1 + tag % 25).map(|n| outpoint(tag * 100 + n)));
        let wtxid = tx.compute_wtxid();
        match random.gen_range(0..12) {
            0..=5 => {
                orphanage.add(&tx, wtxid, peer);
            }
            6 | 7 => {
                orphanage.add_announcer(&wtxid, peer);
            }
            8 => {
                orphanage.enqueue(&wtxid, &mut random);
            }
            9 => {
                orphanage.next_work(peer);
            }
            10 => {
                orphanage.erase(&wtxid);
            }
            _ if random.gen_ratio(1, 20) => orphanage.erase_peer(peer),
            _ => {}
        }
        check(&orphanage);
    }
}

fn check(orphanage: &Orphanage) {
    assert!(!orphanage.needs_trim());
    let orphans = orphanage.orphans.values();
    assert_eq!(
        orphanage.weight,
        orphans.clone().map(|orphan| orphan.weight).sum::<u64>()
    );
    assert_eq!(
        orphanage.input_scores,
        orphans
            .clone()
            .map(|orphan| orphan.input_score)
            .sum::<u64>()
    );
    let announcements: usize = orphans.clone().map(|orphan| orphan.announcers.len()).sum();
    assert_eq!(orphanage.announcements, announcements as u64);
    let outpoints: BTreeSet<OutPoint> = orphans
        .flat_map(|orphan| orphan.tx.input.iter().map(|input| input.previous_output))
        .collect();
    assert_eq!(orphanage.by_outpoint.len(), outpoints.len());
    for (peer, usage) in &orphanage.peers {
        let (mut weight, mut score) = (0, 0);
        for (reconsider, sequence, wtxid) in &usage.order {
            let orphan = &orphanage.orphans[wtxid];
            assert_eq!(orphan.announcers[peer], *sequence);
            assert_eq!(orphan.reconsider == Some(*peer), *reconsider);
            weight += orphan.weight;
            score += 1 + orphan.input_score;
        }
        assert_eq!((usage.weight, usage.score), (weight, score));
    }
}
