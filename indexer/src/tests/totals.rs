//! Totals of scripts, at every height and whatever checkpoints there are.

use std::sync::Arc;

use pulse_primitives::{
    Height,
    bitcoin::hashes::{Hash, sha256},
};

use super::{
    Fixture, config,
    memchain::{MemChain, mine},
    naive::Naive,
    params, scratch_dir,
};
use crate::{
    IndexConfig,
    rows::meta::Checkpoints,
    store::{Family, totals::Hot},
};

/// Compares the totals of all scripts with those of the chain up to the index's tip, and each
/// checkpoint with the rows that it stands for.
fn check(fixture: &Fixture) {
    let tip = fixture.index.tip().borrow().unwrap();
    let blocks = fixture.chain.stored_chain(tip.hash);
    assert_eq!(blocks.len() as Height, tip.height + 1);
    Naive::new(&blocks).check_totals(&fixture.query.view().unwrap());
    fixture.index.shared.store.check_checkpoints();
}

fn checkpoints(fixture: &Fixture) -> u64 {
    fixture.index.row_counts().unwrap()["agg"]
}

/// Follows the chain one block at a time and checks each.
fn follow(fixture: &mut Fixture) {
    let tip = fixture.chain.active().len() as Height - 1;
    let from = fixture.index.tip().borrow().map_or(0, |tip| tip.height + 1);
    for height in from..=tip {
        fixture.chain.show(height);
        fixture.catch_up().unwrap();
        check(fixture);
    }
}

#[test]
fn totals_are_exact_at_every_height_and_through_reorganisations() {
    for (undo_blocks, seed) in [(0, 1), (3, 2), (100, 3)] {
        let dir = scratch_dir();
        let chain = Arc::new(MemChain::new(&params()));
        let config = IndexConfig {
            undo_blocks,
            ..config()
        };
        let mut fixture = Fixture::open_with(dir.path(), Arc::clone(&chain), &config, &params());
        mine(&chain, 25, 12, seed);
        follow(&mut fixture);
        assert!(checkpoints(&fixture) > 0);
        for depth in [1, 4, 9, 2] {
            // One block less at a time, then the new ones.
            let active = chain.active();
            chain.disconnect(depth);
            mine(&chain, depth + 1, 12, seed + depth as u64 * 10);
            let fork = chain.active();
            for left in (1..=depth).rev() {
                chain.activate(active[..active.len() - left].to_vec());
            }
            fixture.catch_up().unwrap();
            check(&fixture);
            chain.activate(fork);
            follow(&mut fixture);
        }
    }
}

#[test]
fn totals_are_exact_before_checkpoints_are_made_and_after_old_ones_were_left_behind() {
    let dir = scratch_dir();
    let chain = Arc::new(MemChain::new(&params()));
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    // Far from the end no checkpoints are made.
    mine(&chain, 20, 12, 4);
    chain.set_best_header(1000);
    follow(&mut fixture);
    assert_eq!(checkpoints(&fixture), 0);
    chain.set_best_header(20);
    fixture.catch_up().unwrap();
    let made = checkpoints(&fixture);
    assert!(made > 5, "{made}");
    check(&fixture);
    // A second bulk load writes rows behind them that state no sums.
    let store = &fixture.index.shared.store;
    store.forget_checkpoints().unwrap();
    chain.set_best_header(1000);
    mine(&chain, 20, 12, 5);
    follow(&mut fixture);
    // Blocks that the checkpoints count go while they are stale.
    chain.disconnect(30);
    mine(&chain, 32, 12, 6);
    fixture.catch_up().unwrap();
    check(&fixture);
    chain.set_best_header(42);
    fixture.catch_up().unwrap();
    check(&fixture);
    mine(&chain, 5, 12, 7);
    follow(&mut fixture);
}

#[test]
fn making_checkpoints_goes_on_where_it_was_interrupted() {
    let dir = scratch_dir();
    let chain = Arc::new(MemChain::new(&params()));
    mine(&chain, 30, 12, 8);
    chain.set_best_header(1000);
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    fixture.catch_up().unwrap();
    let mut keys = Vec::new();
    fixture
        .index
        .shared
        .store
        .for_each_script(|script| keys.push(script));
    // As if the first scripts had been looked at and then the node was killed.
    let half = keys[keys.len() / 2];
    let store = &fixture.index.shared.store;
    store.put_raw(Family::Meta, b"checkpoints", &half.to_be_bytes());
    fixture = fixture.reopen(dir.path());
    let store = &fixture.index.shared.store;
    assert_eq!(
        store.reader().checkpoints().unwrap(),
        Checkpoints::Below(half)
    );
    assert_eq!(store.make_checkpoints(|| false).unwrap(), Checkpoints::All);
    for script in &keys {
        let busy = store.reader().totals(*script).unwrap().tx_count >= super::HOT.rows;
        let made = store.reader().checkpoint(*script).unwrap().is_some();
        assert_eq!(made, busy && *script >= half, "{script:016x}");
    }
    check(&fixture);
    // Once more is nothing.
    assert_eq!(
        store.make_checkpoints(|| panic!()).unwrap(),
        Checkpoints::All
    );
}

#[test]
fn at_the_tip_rows_behind_a_checkpoint_stay_few() {
    let dir = scratch_dir();
    let chain = Arc::new(MemChain::new(&params()));
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    mine(&chain, 60, 12, 9);
    for height in 0..=60 {
        chain.show(height);
        fixture.catch_up().unwrap();
    }
    let store = &fixture.index.shared.store;
    let reader = store.reader();
    let Hot { rows, .. } = super::HOT;
    let mut busy = 0;
    store.for_each_script(|script| {
        let totals = reader.totals(script).unwrap();
        if totals.tx_count < 20 * rows {
            return;
        }
        busy += 1;
        let checkpoint = reader.checkpoint(script).unwrap().unwrap();
        let behind = totals.tx_count - checkpoint.totals.tx_count;
        assert!(behind < 20, "{behind} of {}", totals.tx_count);
    });
    assert!(busy > 3);
}

#[test]
fn a_checkpoint_that_counts_too_little_is_not_believed() {
    let dir = scratch_dir();
    let chain = Arc::new(MemChain::new(&params()));
    mine(&chain, 5, 12, 10);
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    fixture.catch_up().unwrap();
    let store = &fixture.index.shared.store;
    let next = store.reader().cursor().unwrap().unwrap().next_txnum;
    let mut keys = Vec::new();
    store.for_each_script(|script| keys.push(script));
    for script in keys {
        let damaged = crate::rows::checkpoint::Checkpoint {
            through: next,
            totals: crate::query::model::ScriptStats::default(),
        };
        store.put_raw(Family::Agg, &script.to_be_bytes(), &damaged.encode());
    }
    chain.disconnect(1);
    mine(&chain, 2, 5, 11);
    let err = fixture.catch_up().unwrap_err().to_string();
    assert!(err.contains("index store"), "{err}");
}

#[test]
fn an_unknown_script_has_no_totals() {
    let dir = scratch_dir();
    let chain = Arc::new(MemChain::new(&params()));
    mine(&chain, 3, 5, 12);
    let mut fixture = Fixture::open(dir.path(), chain);
    fixture.catch_up().unwrap();
    let hash = sha256::Hash::hash(b"nobody").to_byte_array();
    let stats = fixture.query.view().unwrap().script_stats(&hash).unwrap();
    assert_eq!(stats, crate::query::model::ScriptStats::default());
}

/// Two scripts with one key cannot be told apart by their rows: totals are those of both,
/// until somebody reads a history or the unspent outputs of either.
#[test]
fn totals_of_scripts_that_share_a_key_are_their_sum_until_that_is_noticed() {
    // Keys of three bits for fourteen scripts.
    let change = |store: &mut crate::store::Store| {
        store.hot = super::HOT;
        store.keys.lost_bits = 61;
    };
    let dir = scratch_dir();
    let chain = Arc::new(MemChain::new(&params()));
    let index = crate::Index::open_changed(dir.path(), &config(), &params(), change).unwrap();
    let mut fixture = Fixture::of(index, Arc::clone(&chain));
    let keys = fixture.index.shared.store.keys.clone();
    let mut noticed = std::collections::BTreeSet::new();
    let check = |fixture: &Fixture, noticed: &std::collections::BTreeSet<u64>| {
        let naive = Naive::new(&chain.blocks());
        let view = fixture.query.view().unwrap();
        let (mut sums, mut apart) = (0, 0);
        for script in naive.scripts() {
            let key = keys.script(script);
            let sharing = naive.scripts().filter(|other| keys.script(other) == key);
            let sharing = sharing.collect::<Vec<_>>();
            let hash = sha256::Hash::hash(script.as_bytes()).to_byte_array();
            let found = view.script_stats(&hash).unwrap();
            if noticed.contains(&key) {
                assert_eq!(found, naive.totals_of(&[script]));
                apart += 1;
            } else {
                assert_eq!(found, naive.totals_of(&sharing));
                sums += usize::from(sharing.len() > 1);
            }
        }
        (sums, apart)
    };
    mine(&chain, 30, 12, 21);
    for height in 0..=30 {
        chain.show(height);
        fixture.catch_up().unwrap();
    }
    let (sums, apart) = check(&fixture, &noticed);
    assert!(sums > 5 && apart == 0, "{sums} {apart}");
    // One script's unspent outputs, then another's history, then one more each block.
    let scripts = Naive::new(&chain.blocks())
        .scripts()
        .cloned()
        .collect::<Vec<_>>();
    let shared = |script: &&pulse_primitives::bitcoin::ScriptBuf| {
        let key = keys.script(script);
        scripts
            .iter()
            .filter(|other| keys.script(other) == key)
            .count()
            > 1
    };
    for (number, script) in scripts.iter().filter(shared).enumerate() {
        let view = fixture.query.view().unwrap();
        let hash = sha256::Hash::hash(script.as_bytes()).to_byte_array();
        match number % 2 {
            0 => drop(view.script_txs(&hash, None, usize::MAX).unwrap()),
            _ => drop(view.script_utxos(&hash, usize::MAX).unwrap()),
        }
        drop(view);
        let store = &fixture.index.shared.store;
        noticed.extend(
            scripts
                .iter()
                .map(|script| keys.script(script))
                .filter(|key| store.collides(*key)),
        );
        check(&fixture, &noticed);
        if number % 3 == 2 {
            chain.disconnect(2);
            mine(&chain, 3, 12, 500 + number as u64);
            fixture.catch_up().unwrap();
            check(&fixture, &noticed);
        }
    }
    let (sums, apart) = check(&fixture, &noticed);
    assert!(apart > 5, "{sums} {apart}");
}
