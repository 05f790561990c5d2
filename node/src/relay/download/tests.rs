use pulse_primitives::bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, TxIn, TxOut, Witness, absolute::LockTime,
    transaction::Version,
};

use super::*;

const OUT: PeerId = PeerId(1);
const IN: PeerId = PeerId(2);
const OTHER: PeerId = PeerId(3);

/// A mempool that holds what it is told.
#[derive(Default)]
struct FakePool(HashSet<TxHash>);

type TxHash = [u8; 32];

impl Pool for FakePool {
    fn contains(&self, id: &GenTxid) -> bool {
        self.0.contains(&id.hash())
    }
}

impl FakePool {
    fn take(&mut self, tx: &Candidate) {
        self.0.insert(tx.txid.to_byte_array());
        self.0.insert(tx.wtxid.to_byte_array());
    }
}

struct Scene {
    downloads: Downloads,
    pool: FakePool,
    now: Instant,
}

impl Scene {
    /// An outbound peer and two inbound ones, all of which announce by wtxid.
    fn new() -> Self {
        let mut downloads = Downloads::new([3; 32]);
        for (peer, preferred) in [(OUT, true), (IN, false), (OTHER, false)] {
            downloads.connected(
                peer,
                PeerInfo {
                    preferred,
                    wtxid_relay: true,
                },
            );
        }
        Self {
            downloads,
            pool: FakePool::default(),
            now: Instant::now(),
        }
    }

    fn announce(&mut self, peer: PeerId, id: GenTxid) {
        self.downloads.announced(peer, id, self.now, &self.pool);
    }

    fn asked(&mut self, peer: PeerId) -> Vec<GenTxid> {
        self.downloads.requests(peer, self.now, &self.pool)
    }

    fn pass(&mut self, secs: u64) {
        self.now += Duration::from_secs(secs);
    }

    fn arrive(&mut self, peer: PeerId, tx: &Candidate) -> Arrival {
        self.downloads.arrived(peer, Arc::clone(&tx.tx), &self.pool)
    }

    /// The transaction arrives, is judged for the first time, and refused.
    fn refuse(&mut self, peer: PeerId, tx: &Candidate, refusal: Refusal) -> Aftermath {
        assert!(matches!(self.arrive(peer, tx), Arrival::Judge(_)));
        self.downloads
            .rejected(peer, tx, refusal, true, self.now, &self.pool)
    }

    fn accept(&mut self, tx: &Candidate) -> BTreeSet<PeerId> {
        self.pool.take(tx);
        self.downloads.accepted(tx)
    }
}

fn spending(parents: &[(Txid, u32)], with_witness: bool) -> Candidate {
    let input = parents
        .iter()
        .map(|(txid, vout)| TxIn {
            previous_output: OutPoint::new(*txid, *vout),
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: match with_witness {
                true => Witness::from_slice(&[[1]]),
                false => Witness::new(),
            },
        })
        .collect();
    Candidate::new(Arc::new(Transaction {
        version: Version::TWO,
        lock_time: LockTime::ZERO,
        input,
        output: vec![TxOut {
            value: Amount::from_sat(1),
            script_pubkey: ScriptBuf::new(),
        }],
    }))
}

fn root(tag: u8) -> Candidate {
    spending(&[(Txid::from_byte_array([tag; 32]), 0)], true)
}

fn child_of(parents: &[&Candidate]) -> Candidate {
    let parents: Vec<_> = parents.iter().map(|tx| (tx.txid, 0)).collect();
    spending(&parents, true)
}

fn wtx(tx: &Candidate) -> GenTxid {
    GenTxid::Wtxid(tx.wtxid)
}

fn by_txid(tx: &Candidate) -> GenTxid {
    GenTxid::Txid(tx.txid)
}

#[test]
fn an_outbound_peer_is_asked_at_once() {
    let mut scene = Scene::new();
    scene.announce(OUT, wtx(&root(1)));
    assert_eq!(scene.asked(OUT), [wtx(&root(1))]);
}

#[test]
fn an_inbound_peer_is_asked_after_two_seconds() {
    let mut scene = Scene::new();
    scene.announce(IN, wtx(&root(1)));
    scene.pass(1);
    assert!(scene.asked(IN).is_empty());
    scene.pass(1);
    assert_eq!(scene.asked(IN), [wtx(&root(1))]);
}

#[test]
fn announcements_by_txid_wait_while_wtxid_peers_exist() {
    let mut scene = Scene::new();
    scene.announce(OUT, by_txid(&root(1)));
    scene.pass(1);
    assert!(scene.asked(OUT).is_empty());
    scene.pass(1);
    assert_eq!(scene.asked(OUT), [by_txid(&root(1))]);
}

#[test]
fn a_peer_with_a_hundred_requests_in_flight_waits() {
    let mut scene = Scene::new();
    for tag in 0..100 {
        scene.announce(OUT, wtx(&root(tag)));
    }
    assert_eq!(scene.asked(OUT).len(), MAX_IN_FLIGHT);
    scene.announce(OUT, wtx(&root(200)));
    assert!(scene.asked(OUT).is_empty());
    scene.pass(2);
    assert_eq!(scene.asked(OUT), [wtx(&root(200))]);
}

#[test]
fn a_flood_of_announcements_is_bounded() {
    let mut scene = Scene::new();
    for n in 0..20_000u32 {
        let mut bytes = [7; 32];
        bytes[..4].copy_from_slice(&n.to_le_bytes());
        scene.announce(IN, GenTxid::Wtxid(Wtxid::from_byte_array(bytes)));
    }
    assert_eq!(scene.downloads.sizes().0, MAX_ANNOUNCEMENTS);
    scene.downloads.closed(IN);
    assert_eq!(scene.downloads.sizes().0, 0);
}

#[test]
fn a_transaction_in_the_mempool_is_not_asked_for() {
    let mut scene = Scene::new();
    scene.accept(&root(1));
    scene.announce(OUT, wtx(&root(1)));
    assert!(scene.asked(OUT).is_empty());
}

#[test]
fn a_transaction_that_is_being_judged_is_neither_asked_for_nor_judged_again() {
    let mut scene = Scene::new();
    assert!(matches!(scene.arrive(OUT, &root(1)), Arrival::Judge(_)));
    scene.announce(IN, wtx(&root(1)));
    scene.pass(10);
    assert!(scene.asked(IN).is_empty());
    assert!(matches!(scene.arrive(IN, &root(1)), Arrival::Known));
}

#[test]
fn a_rejected_transaction_is_not_asked_for_until_the_next_block() {
    let mut scene = Scene::new();
    scene.refuse(OUT, &root(1), Refusal::Other);
    scene.announce(OUT, wtx(&root(1)));
    assert!(scene.asked(OUT).is_empty());
    assert!(matches!(scene.arrive(IN, &root(1)), Arrival::Known));
    scene.downloads.tip_changed();
    scene.announce(OUT, wtx(&root(1)));
    assert_eq!(scene.asked(OUT).len(), 1);
}

#[test]
fn a_spoiled_witness_does_not_keep_the_real_transaction_away() {
    let mut scene = Scene::new();
    let real = root(1);
    let spoiled = spending(&[(Txid::from_byte_array([1; 32]), 0)], false);
    assert_eq!(real.txid, spoiled.txid);
    scene.refuse(IN, &spoiled, Refusal::WitnessStripped);
    assert!(matches!(scene.arrive(OUT, &real), Arrival::Judge(_)));
}

#[test]
fn an_orphans_parents_are_asked_for_by_txid() {
    let mut scene = Scene::new();
    let (parent, other) = (root(1), root(2));
    let child = child_of(&[&parent, &other]);
    scene.accept(&other);
    let aftermath = scene.refuse(OUT, &child, Refusal::MissingInputs);
    assert_eq!(aftermath.parents, [parent.txid]);
    scene.pass(2);
    assert_eq!(scene.asked(OUT), [by_txid(&parent)]);
}

#[test]
fn whoever_announces_an_orphan_may_be_asked_for_its_parents() {
    let mut scene = Scene::new();
    let parent = root(1);
    let child = child_of(&[&parent]);
    scene.refuse(OUT, &child, Refusal::MissingInputs);
    scene.announce(IN, wtx(&child));
    scene.pass(2);
    assert_eq!(scene.asked(OUT), [by_txid(&parent)]);
    scene.downloads.not_found(OUT, &by_txid(&parent));
    scene.pass(2);
    assert_eq!(scene.asked(IN), [by_txid(&parent)]);
}

#[test]
fn an_orphan_is_judged_again_when_its_parent_is_accepted() {
    let mut scene = Scene::new();
    let parent = root(1);
    let child = child_of(&[&parent]);
    scene.refuse(OUT, &child, Refusal::MissingInputs);
    scene.arrive(OUT, &parent);
    assert_eq!(scene.accept(&parent), BTreeSet::from([OUT]));
    let next = scene.downloads.next_orphan(OUT).unwrap();
    assert_eq!(next.wtxid, child.wtxid);
    scene.accept(&child);
    assert_eq!(scene.downloads.sizes(), (0, 0));
}

#[test]
fn an_orphan_whose_parents_came_meanwhile_is_judged_again_at_once() {
    let mut scene = Scene::new();
    let parent = root(1);
    let child = child_of(&[&parent]);
    assert!(matches!(scene.arrive(OUT, &child), Arrival::Judge(_)));
    scene.accept(&parent);
    scene.downloads.rejected(
        OUT,
        &child,
        Refusal::MissingInputs,
        true,
        scene.now,
        &scene.pool,
    );
    assert!(scene.downloads.next_orphan(OUT).is_some());
}

#[test]
fn an_orphan_of_a_rejected_parent_is_rejected() {
    let mut scene = Scene::new();
    // Without a witness, the id of the rejected parent is known for sure.
    let parent = spending(&[(Txid::from_byte_array([1; 32]), 0)], false);
    let child = child_of(&[&parent]);
    scene.refuse(OUT, &parent, Refusal::Other);
    let aftermath = scene.refuse(OUT, &child, Refusal::MissingInputs);
    assert!(aftermath.parents.is_empty());
    assert_eq!(scene.downloads.sizes().1, 0);
    assert!(matches!(scene.arrive(IN, &child), Arrival::Known));
}

#[test]
fn a_parent_whose_fee_is_too_low_is_judged_with_its_orphan() {
    let mut scene = Scene::new();
    let parent = root(1);
    let child = child_of(&[&parent]);
    scene.refuse(IN, &child, Refusal::MissingInputs);
    let aftermath = scene.refuse(IN, &parent, Refusal::Reconsiderable);
    let package = aftermath.package.unwrap();
    assert_eq!(package.map(|tx| tx.wtxid), [parent.wtxid, child.wtxid]);
}

#[test]
fn a_child_that_comes_after_its_low_fee_parent_brings_the_parent_back() {
    let mut scene = Scene::new();
    let parent = root(1);
    let child = child_of(&[&parent]);
    assert!(
        scene
            .refuse(IN, &parent, Refusal::Reconsiderable)
            .package
            .is_none()
    );
    // The parent alone is not wanted again ...
    scene.announce(OUT, wtx(&parent));
    assert!(scene.asked(OUT).is_empty());
    // ... but as a parent of the orphan.
    let aftermath = scene.refuse(IN, &child, Refusal::MissingInputs);
    assert_eq!(aftermath.parents, [parent.txid]);
    assert!(matches!(
        scene.arrive(IN, &parent),
        Arrival::JudgePackage(_)
    ));
}

#[test]
fn a_package_is_not_tried_twice() {
    let mut scene = Scene::new();
    let parent = root(1);
    let child = child_of(&[&parent]);
    scene.refuse(IN, &child, Refusal::MissingInputs);
    let package = scene
        .refuse(IN, &parent, Refusal::Reconsiderable)
        .package
        .unwrap();
    scene.downloads.package_rejected(package.as_slice());
    for tx in package.iter() {
        scene.downloads.not_judged(&tx.wtxid);
    }
    assert!(matches!(scene.arrive(IN, &parent), Arrival::Known));
}

#[test]
fn children_of_other_peers_are_not_packaged() {
    let mut scene = Scene::new();
    let parent = root(1);
    scene.refuse(OTHER, &child_of(&[&parent]), Refusal::MissingInputs);
    assert!(
        scene
            .refuse(IN, &parent, Refusal::Reconsiderable)
            .package
            .is_none()
    );
}

#[test]
fn two_low_fee_parents_make_an_orphan_hopeless() {
    let mut scene = Scene::new();
    let low = |tag| spending(&[(Txid::from_byte_array([tag; 32]), 0)], false);
    let (one, two) = (low(1), low(2));
    scene.refuse(IN, &one, Refusal::Reconsiderable);
    scene.refuse(IN, &two, Refusal::Reconsiderable);
    scene.refuse(IN, &child_of(&[&one, &two]), Refusal::MissingInputs);
    assert_eq!(scene.downloads.sizes().1, 0);
}

#[test]
fn a_confirmed_transaction_is_not_asked_for() {
    let mut scene = Scene::new();
    let tx = root(1);
    scene.announce(IN, wtx(&tx));
    let mut block = pulse_primitives::bitcoin::constants::genesis_block(
        pulse_primitives::bitcoin::Network::Regtest,
    );
    block.txdata.push(Transaction::clone(&tx.tx));
    let txids: Vec<Txid> = block.txdata.iter().map(Transaction::compute_txid).collect();
    scene.downloads.block_connected(&block, &txids);
    assert_eq!(scene.downloads.sizes().0, 0);
    scene.announce(OUT, wtx(&tx));
    assert!(scene.asked(OUT).is_empty());
    scene.downloads.block_disconnected();
    scene.announce(OUT, wtx(&tx));
    assert_eq!(scene.asked(OUT), [wtx(&tx)]);
}

#[test]
fn a_gone_peer_leaves_no_orphans_and_no_requests() {
    let mut scene = Scene::new();
    scene.refuse(IN, &child_of(&[&root(1)]), Refusal::MissingInputs);
    assert_eq!(scene.downloads.sizes(), (1, 1));
    scene.downloads.closed(IN);
    assert_eq!(scene.downloads.sizes(), (0, 0));
}
