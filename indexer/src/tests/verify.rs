//! The check of the index: says nothing of a right one, and precisely what is wrong with
//! any other.

use std::sync::{Arc, atomic::AtomicBool};

use pulse_primitives::ports::BlockSource;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    Fixture, config,
    filters::with_filters,
    memchain::{MemChain, mine},
    params, scratch_dir,
};
use crate::{
    IndexConfig, ProofError, VerifyOptions, VerifyReport, VerifyStep, Wrong,
    rows::{TxNum, script, spend, tx},
    store::{Family, totals::Hot},
};

/// Families of which every row is checked.
const CHECKED: [Family; 10] = [
    Family::Tx,
    Family::TxPos,
    Family::Hist,
    Family::Utxo,
    Family::Spend,
    Family::Blk,
    Family::Pos,
    Family::Undo,
    Family::Filter,
    Family::FilterHdr,
];

fn verify(fixture: &Fixture, from: u32) -> VerifyReport {
    let source = Arc::clone(&fixture.chain) as Arc<dyn BlockSource>;
    let options = VerifyOptions {
        from,
        with_core_stats: true,
        sorted_in: None,
    };
    let stop = AtomicBool::new(false);
    let report = fixture.index.verify(&*source, &options, &stop, &mut |_| {});
    report.unwrap().unwrap()
}

/// The index is what the blocks make it, from whichever block on one looks.
fn check_clean(fixture: &Fixture) {
    let tip = fixture.index.tip().borrow().unwrap().height;
    for from in [0, tip / 2, tip] {
        check_clean_from(fixture, from);
    }
}

/// The rows of the blocks from this height on are what the blocks make them.
pub(super) fn check_clean_from(fixture: &Fixture, from: u32) {
    let report = verify(fixture, from);
    assert!(report.is_clean(), "{report:#?}");
    assert_eq!(report.core.is_some(), from == 0);
}

fn indexed(dir: &tempfile::TempDir, config: &IndexConfig) -> Fixture {
    let chain = Arc::new(MemChain::new(&params()));
    mine(&chain, 12, 30, 5);
    let mut fixture = Fixture::open_with(dir.path(), chain, config, &params());
    fixture.catch_up().unwrap();
    fixture
}

/// The transaction that a row names, for the families where the report does.
fn named(family: Family, key: &[u8]) -> Option<TxNum> {
    let txnum = match family {
        Family::Tx => tx::txnum(key),
        Family::TxPos => return Some(u32::from_be_bytes(key.try_into().unwrap())),
        Family::Hist => script::hist_txnum(key),
        Family::Utxo => script::utxo_outpoint(key).map(|(txnum, _)| txnum),
        Family::Spend => spend::output(key).map(|(txnum, _)| txnum),
        _ => return None,
    };
    Some(txnum.unwrap())
}

#[test]
fn an_index_at_any_height_is_clean() {
    let dir = scratch_dir();
    let fixture = indexed(&dir, &with_filters());
    check_clean(&fixture);
    let report = verify(&fixture, 0);
    assert_eq!(report.stale_positions, 0);
    let rows = fixture.index.row_counts().unwrap();
    let checked = CHECKED
        .map(|family| rows[family.name()])
        .iter()
        .sum::<u64>();
    // A row of an output that is spent later was counted too, as all that blocks make are.
    assert!(report.rows >= checked, "{} {checked}", report.rows);
    assert_eq!(
        report.core.unwrap().txouts + 1,
        report.utxos.unwrap().outputs
    );
}

#[test]
fn each_row_that_is_missing_changed_or_too_many_is_named() {
    let dir = scratch_dir();
    let fixture = indexed(&dir, &with_filters());
    let store = &fixture.index.shared.store;
    let txids = fixture
        .chain
        .blocks()
        .iter()
        .enumerate()
        .flat_map(|(height, (block, _))| {
            let txs = block.txdata.iter();
            txs.map(move |tx| (height as u32, tx.compute_txid()))
        })
        .collect::<Vec<_>>();
    let mut rng = StdRng::seed_from_u64(1);
    for family in CHECKED {
        let rows = store.rows_raw(family);
        assert!(!rows.is_empty(), "{family:?}");
        for _ in 0..4 {
            let (key, value) = rows[rng.gen_range(0..rows.len())].clone();
            let place = named(family, &key).map(|txnum| txids[txnum as usize]);
            let only = |what: &dyn Fn(&Wrong) -> bool| {
                let report = verify(&fixture, 0);
                let found = report.listed.iter().filter(|difference| {
                    difference.family == family.name() && difference.key == key
                });
                let found = found.collect::<Vec<_>>();
                let [difference] = found.as_slice() else {
                    panic!("{family:?}: {report:#?}");
                };
                assert!(what(&difference.what), "{difference}");
                if let Some((height, txid)) = place {
                    assert_eq!(difference.height, Some(height), "{difference}");
                    assert_eq!(difference.txid, Some(txid), "{difference}");
                }
                // Nothing else differs but sums over several rows.
                for other in &report.listed {
                    let is_sum = matches!(other.what, Wrong::Text(_));
                    assert!(is_sum || other == *difference, "{report:#?}");
                }
                assert!(!report.more);
            };
            if family != Family::Undo {
                store.delete_raw(family, &key);
                only(&|what| matches!(what, Wrong::Missing(_)));
            }
            // A position elsewhere is renewed by the node, so it is no difference.
            if !matches!(family, Family::Tx | Family::Pos) {
                let mut changed = value.clone();
                match changed.first_mut() {
                    Some(byte) => *byte ^= 0x04,
                    None => changed.push(0x05),
                }
                store.put_raw(family, &key, &changed);
                only(&|what| matches!(what, Wrong::Value { .. }));
            }
            store.put_raw(family, &key, &value);
        }
    }
    assert!(verify(&fixture, 0).is_clean());

    let extra: [(Family, Vec<u8>, Vec<u8>); 8] = [
        (Family::Tx, tx::key([7; 5], 3).to_vec(), vec![]),
        (Family::Tx, tx::key([7; 5], 1 << 30).to_vec(), vec![]),
        (Family::TxPos, vec![0xf0, 0, 0, 0], vec![1, 2, 3]),
        (
            Family::Hist,
            script::hist_key(9, 3).as_ref().to_vec(),
            vec![],
        ),
        (
            Family::Utxo,
            script::utxo_key(9, 3, 1).as_ref().to_vec(),
            vec![5],
        ),
        (Family::Spend, spend::key(3, 7).as_ref().to_vec(), vec![1]),
        (Family::Blk, vec![0, 0, 1, 0], vec![1]),
        (Family::Filter, vec![0, 0, 1, 0], vec![1]),
    ];
    for (family, key, value) in extra {
        store.put_raw(family, &key, &value);
        let report = verify(&fixture, 0);
        let mut found = report.listed.iter();
        let found = found.find(|found| found.family == family.name() && found.key == key);
        let found = found.unwrap_or_else(|| panic!("{report:#?}"));
        assert_eq!(found.what, Wrong::Extra(value), "{found}");
        store.delete_raw(family, &key);
    }
    assert!(verify(&fixture, 0).is_clean());
}

#[test]
fn totals_that_do_not_add_up_are_found() {
    let dir = scratch_dir();
    let mut fixture = indexed(&dir, &config());
    let shared = Arc::clone(&fixture.index.shared);
    let rows = shared.store.rows_raw(Family::Agg);
    assert!(
        !rows.is_empty(),
        "the chain has busy scripts: {:?}",
        Hot::default()
    );
    for (key, value) in &rows {
        for change in 0..value.len() {
            let mut changed = value.clone();
            changed[change] ^= 1;
            shared.store.put_raw(Family::Agg, key, &changed);
            let report = verify(&fixture, 5);
            assert!(!report.is_clean(), "byte {change} of {value:?}");
        }
        shared.store.put_raw(Family::Agg, key, value);
    }
    assert!(verify(&fixture, 0).is_clean());
    shared.store.put_raw(Family::Agg, &[9; 8], &rows[0].1);
    assert_eq!(verify(&fixture, 0).differences, 1);
    shared.store.delete_raw(Family::Agg, &[9; 8]);

    // The sum that a row states of what it spends.
    mine(&fixture.chain, 2, 30, 6);
    fixture.catch_up().unwrap();
    let stated = shared
        .store
        .rows_raw(Family::Hist)
        .into_iter()
        .filter_map(|(key, value)| {
            let change = script::Change::decode(&value).unwrap();
            let sum = change.spent_sum.filter(|_| change.spent > 0)?;
            Some((
                key,
                value,
                script::Change {
                    spent_sum: Some(sum + 1),
                    ..change
                },
            ))
        })
        .collect::<Vec<_>>();
    assert!(!stated.is_empty());
    for (key, value, change) in stated.iter().rev().take(3) {
        let mut changed = Vec::new();
        change.put(&mut changed);
        shared.store.put_raw(Family::Hist, key, &changed);
        let found = !verify(&fixture, 0).is_clean();
        shared.store.put_raw(Family::Hist, key, value);
        // Behind a checkpoint nobody reads it.
        let script = u64::from_be_bytes(key[..8].try_into().unwrap());
        let reader = shared.store.reader();
        let checkpoint = reader.checkpoint(script).unwrap();
        let txnum = script::hist_txnum(key).unwrap();
        let is_read = checkpoint.is_none_or(|checkpoint| checkpoint.through < txnum);
        assert!(found || !is_read, "{}", hex::encode(key));
    }
}

#[test]
fn a_commitment_that_does_not_add_up_is_found_by_each_check() {
    let dir = scratch_dir();
    let fixture = indexed(&dir, &config());
    let store = &fixture.index.shared.store;
    let (key, value) = store.rows_raw(Family::Utxo)[3].clone();
    store.delete_raw(Family::Utxo, &key);
    let stop = AtomicBool::new(false);
    let check = fixture.index.check_utxos(&stop, &mut |_| {});
    let Err(err @ ProofError::UtxosDiffer { .. }) = check else {
        panic!("{check:?}");
    };
    assert!(err.to_string().contains("pulse-node reindex"), "{err}");
    // Also where the row is of a block that is not checked.
    let last = fixture.index.tip().borrow().unwrap().height;
    let report = verify(&fixture, last);
    assert!(
        report.listed.iter().any(|found| found.family == "meta"),
        "{report:#?}"
    );
    store.put_raw(Family::Utxo, &key, &value);
    assert!(verify(&fixture, last).is_clean());
}

#[test]
fn a_check_can_be_stopped_and_needs_the_chain_of_the_index() {
    let dir = scratch_dir();
    let mut fixture = indexed(&dir, &config());
    let source = Arc::clone(&fixture.chain) as Arc<dyn BlockSource>;
    let options = VerifyOptions::default();
    let stop = AtomicBool::new(true);
    let stopped = fixture.index.verify(&*source, &options, &stop, &mut |_| {});
    assert!(stopped.unwrap().is_none());

    let stop = AtomicBool::new(false);
    fixture.chain.disconnect(2);
    mine(&fixture.chain, 3, 5, 77);
    let moved = fixture.index.verify(&*source, &options, &stop, &mut |_| {});
    assert!(matches!(
        moved,
        Err(ProofError::OtherChain { height: 12, .. })
    ));
    fixture.catch_up().unwrap();
    check_clean(&fixture);

    let empty = scratch_dir();
    let fixture = Fixture::open(empty.path(), Arc::clone(&fixture.chain));
    let nothing = fixture.index.verify(&*source, &options, &stop, &mut |_| {});
    assert!(matches!(nothing, Err(ProofError::Empty)));
}

#[test]
fn a_reorganisation_during_a_check_is_no_difference() {
    let dir = scratch_dir();
    let fixture = indexed(&dir, &config());
    let source = Arc::clone(&fixture.chain) as Arc<dyn BlockSource>;
    let stop = AtomicBool::new(false);
    let first = fixture.chain.active();
    for (at, depth) in [(0, 12), (5, 3), (5, 10), (12, 1)] {
        fixture.chain.activate(first.clone());
        let mut moves = |step| {
            if step == VerifyStep::Block(at, 12) {
                fixture.chain.disconnect(depth);
                mine(&fixture.chain, depth + 1, 5, 900 + depth as u64);
            }
        };
        let moved = fixture
            .index
            .verify(&*source, &VerifyOptions::default(), &stop, &mut moves);
        match at {
            // All blocks were read before.
            12 => assert!(moved.unwrap().unwrap().is_clean()),
            _ => assert!(matches!(moved, Err(ProofError::ChainMoved)), "{at} {depth}"),
        }
    }
}
