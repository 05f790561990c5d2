//! What happens when things are not as they should be.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use pulse_primitives::{
    bitcoin::{Amount, Network, OutPoint, ScriptBuf, TxOut, hashes::Hash, hashes::sha256},
    block::SpentOutput,
    network::ChainParams,
};
use rand::{SeedableRng, rngs::StdRng};

use super::{
    Fixture, config,
    memchain::{self, MemChain, mine, random_block},
    naive::Naive,
    params, scratch_dir, undisturbed_digest,
};
use crate::{
    Index, IndexConfig, OpenError, SyncError,
    query::{QueryError, model::ScriptStats},
    rows::tx,
    store::Family,
};

fn chain_of(blocks: usize, seed: u64) -> Arc<MemChain> {
    let chain = Arc::new(MemChain::new(&params()));
    mine(&chain, blocks, 12, seed);
    chain
}

fn stats_of(fixture: &Fixture, script: &ScriptBuf) -> ScriptStats {
    let hash = sha256::Hash::hash(script.as_bytes()).to_byte_array();
    let view = fixture.query.view().unwrap();
    view.script_stats(&hash).unwrap()
}

#[test]
fn the_output_of_genesis_is_listed() {
    let dir = scratch_dir();
    let chain = Arc::new(MemChain::new(&params()));
    let mut fixture = Fixture::open(dir.path(), chain);
    assert_eq!(fixture.query.view().unwrap().tip(), None);
    fixture.catch_up().unwrap();
    let output = params().genesis().txdata[0].output[0].clone();
    let hash = sha256::Hash::hash(output.script_pubkey.as_bytes()).to_byte_array();
    let view = fixture.query.view().unwrap();
    let stats = view.script_stats(&hash).unwrap();
    assert_eq!(
        (stats.tx_count, stats.funded_txo_sum),
        (1, 50 * 100_000_000)
    );
    assert_eq!(view.script_utxos(&hash, 10).unwrap().unwrap().len(), 1);
    assert_eq!(view.script_txs(&hash, None, 10).unwrap().len(), 1);
}

#[test]
fn a_reorganisation_and_back_restores_every_row() {
    for undo_blocks in [0, 3, 100] {
        let dir = scratch_dir();
        let chain = chain_of(12, 1);
        let config = IndexConfig {
            undo_blocks,
            ..config()
        };
        let mut fixture = Fixture::open_with(dir.path(), Arc::clone(&chain), &config, &params());
        fixture.catch_up().unwrap();
        let (first, digest) = (chain.active(), fixture.index.digest().unwrap());
        for depth in [1, 2, 7, 12] {
            chain.activate(first.clone());
            chain.disconnect(depth);
            mine(&chain, depth + 1, 12, 100 + depth as u64);
            fixture.catch_up().unwrap();
            assert_ne!(fixture.index.digest().unwrap(), digest);
            chain.activate(first.clone());
            fixture.catch_up().unwrap();
            assert_eq!(
                fixture.index.digest().unwrap(),
                digest,
                "{undo_blocks} {depth}"
            );
        }
        Naive::new(&chain.blocks()).check(&fixture.query.view().unwrap());
    }
}

#[test]
fn stored_deltas_make_loading_needless_and_stay_bounded() {
    let dir = scratch_dir();
    let chain = chain_of(20, 2);
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    fixture.catch_up().unwrap();
    assert_eq!(fixture.index.row_counts().unwrap()["undo"], 3);
    for hash in chain.active() {
        chain.lose(hash);
    }
    let fork = chain.active();
    chain.disconnect(3);
    mine(&chain, 4, 5, 3);
    fixture.catch_up().unwrap();
    assert_eq!(fixture.index.row_counts().unwrap()["undo"], 3);
    assert_eq!(fixture.index.digest().unwrap(), {
        chain.find_again();
        undisturbed_digest(&chain)
    });
    assert_ne!(chain.active(), fork);
}

#[test]
fn far_from_the_tip_no_deltas_are_stored() {
    let dir = scratch_dir();
    let chain = chain_of(10, 2);
    chain.set_best_header(1000);
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    fixture.catch_up().unwrap();
    assert_eq!(fixture.index.row_counts().unwrap()["undo"], 0);
}

#[test]
fn a_stale_block_that_is_lost_is_a_typed_error_and_nothing_else() {
    let dir = scratch_dir();
    let chain = chain_of(10, 4);
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    fixture.catch_up().unwrap();
    let naive = Naive::new(&chain.blocks()[..7]);
    let lost = chain.active()[6];
    chain.lose(lost);
    chain.disconnect(6);
    mine(&chain, 7, 5, 5);
    match fixture.catch_up() {
        Err(SyncError::RollbackImpossible {
            height: 6, hash, ..
        }) => assert_eq!(hash, lost),
        other => panic!("{other:?}"),
    }
    // It stands at the lost block, whole and readable, and goes on once it is found.
    naive.check(&fixture.query.view().unwrap());
    chain.find_again();
    fixture.catch_up().unwrap();
    Naive::new(&chain.blocks()).check(&fixture.query.view().unwrap());
    assert_eq!(fixture.index.digest().unwrap(), undisturbed_digest(&chain));
}

#[test]
fn a_block_that_cannot_be_read_for_a_moment_is_asked_for_again() {
    let dir = scratch_dir();
    let chain = chain_of(5, 6);
    chain.fail_loads(3);
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    fixture.catch_up().unwrap();
    assert_eq!(fixture.index.tip().borrow().unwrap().height, 5);
    // And while a block is taken back.
    chain.disconnect(5);
    mine(&chain, 6, 5, 7);
    chain.fail_loads(3);
    fixture.catch_up().unwrap();
    assert_eq!(fixture.index.digest().unwrap(), undisturbed_digest(&chain));
}

#[test]
fn a_block_that_stays_unreadable_is_a_typed_error() {
    let dir = scratch_dir();
    let chain = chain_of(5, 6);
    chain.lose(chain.active()[3]);
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    let err = fixture.catch_up().unwrap_err();
    assert!(
        matches!(err, SyncError::BlockUnavailable { height: 3, .. }),
        "{err:?}"
    );
    assert_eq!(fixture.index.tip().borrow().unwrap().height, 2);
}

#[test]
fn a_node_behind_the_index_takes_nothing_back_and_renews_positions() {
    let dir = scratch_dir();
    let chain = chain_of(20, 8);
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    fixture.catch_up().unwrap();
    let digest = fixture.index.digest().unwrap();
    let loads = chain.loads.load(Ordering::SeqCst);

    chain.move_blocks(&mut StdRng::seed_from_u64(1));
    fixture = fixture.reopen(dir.path());
    chain.show(0);
    fixture.catch_up().unwrap();
    assert_eq!(fixture.index.tip().borrow().unwrap().height, 20);
    for height in 1..=20 {
        chain.show(height);
        fixture.catch_up().unwrap();
    }
    assert_eq!(fixture.index.digest().unwrap(), digest);
    assert_eq!(
        chain.loads.load(Ordering::SeqCst),
        loads,
        "no block was read again"
    );
    // The node came over all blocks but genesis again.
    let view = fixture.query.view().unwrap();
    for tx in chain.blocks()[1..]
        .iter()
        .flat_map(|(block, _)| &block.txdata)
    {
        assert_eq!(*view.tx(&tx.compute_txid()).unwrap().unwrap().tx, *tx);
    }
}

#[test]
fn a_stale_position_is_renewed_and_never_gives_other_bytes() {
    let dir = scratch_dir();
    let chain = chain_of(20, 9);
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    fixture.catch_up().unwrap();
    let naive = Naive::new(&chain.blocks());
    let woken = fixture.index.renewals();
    for seed in 0..20 {
        chain.move_blocks(&mut StdRng::seed_from_u64(seed));
        fixture.index.shared.store.forget();
        let view = fixture.query.view().unwrap();
        let mut stale = 0;
        for txid in naive.txids() {
            match view.tx(txid) {
                Ok(tx) => assert_eq!(tx.unwrap().txid, *txid),
                Err(QueryError::PositionRenewing { .. }) => stale += 1,
                Err(err) => panic!("{err}"),
            }
        }
        for height in 0..=20 {
            let info = view.block_at(height).unwrap().unwrap();
            match view.block_raw(&info) {
                Ok(raw) => assert_eq!(sha256::Hash::hash(&raw[..80]), {
                    let header = pulse_primitives::bitcoin::consensus::serialize(&info.header);
                    sha256::Hash::hash(&header)
                }),
                Err(QueryError::PositionRenewing { .. }) => stale += 1,
                Err(err) => panic!("{err}"),
            }
        }
        drop(view);
        assert!(stale > 0);
        // A waiting sync loop is woken.
        let mut waiting = Box::pin(woken.notified());
        assert!(waiting.as_mut().enable());
        fixture.catch_up().unwrap();
        naive.check(&fixture.query.view().unwrap());
    }
}

#[test]
fn undo_bytes_of_another_place_are_not_taken_for_prevouts() {
    let dir = scratch_dir();
    let chain = chain_of(10, 10);
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    fixture.catch_up().unwrap();
    let naive = Naive::new(&chain.blocks());
    // Only the undo data of each block moves: the blocks' own bytes still prove.
    let shared = &fixture.index.shared;
    for height in 0..=10 {
        let mut position = shared.store.reader().position(height).unwrap().unwrap();
        position.undo_offset += 1;
        shared.store.renew_position(height, &position).unwrap();
    }
    let view = fixture.query.view().unwrap();
    for txid in naive.txids() {
        match view.tx(txid) {
            Ok(tx) => assert!(tx.unwrap().tx.is_coinbase()),
            Err(QueryError::PositionRenewing { .. }) => {}
            Err(err) => panic!("{err}"),
        }
    }
    drop(view);
    fixture.catch_up().unwrap();
    naive.check(&fixture.query.view().unwrap());
}

#[test]
fn two_candidates_for_a_funding_transaction_are_told_apart() {
    let dir = scratch_dir();
    let chain = chain_of(6, 11);
    let config = IndexConfig {
        recent_txs: 0,
        ..config()
    };
    let mut fixture = Fixture::open_with(dir.path(), Arc::clone(&chain), &config, &params());
    fixture.catch_up().unwrap();

    // Every transaction gets a second row under its hash, with the number of its
    // block's coinbase (the coinbase: that of the next transaction).
    let store = &fixture.index.shared.store;
    let mut txnum = 0;
    for (block, _) in chain.blocks() {
        let first = txnum;
        for tx in &block.txdata {
            let other = if txnum == first { first + 1 } else { first };
            let prefix = tx::prefix(store.keys.txid(&tx.compute_txid()));
            if block.txdata.len() > 1 {
                store.put_raw(Family::Tx, &tx::key(prefix, other), &[]);
            }
            txnum += 1;
        }
    }
    mine(&chain, 6, 12, 12);
    fixture.catch_up().unwrap();
    let naive = Naive::new(&chain.blocks());
    let view = fixture.query.view().unwrap();
    for script in naive.scripts() {
        let hash = sha256::Hash::hash(script.as_bytes()).to_byte_array();
        let stats = view.script_stats(&hash).unwrap();
        assert_eq!(
            view.script_utxos(&hash, usize::MAX).unwrap().unwrap().len() as u64,
            stats.funded_txo_count - stats.spent_txo_count
        );
    }
    naive.check(&view);
}

#[test]
fn of_two_transactions_with_the_same_id_the_later_answers() {
    // BIP 30: blocks 91,842 and 91,880 of mainnet repeat earlier coinbases.
    let dir = scratch_dir();
    let chain = chain_of(3, 13);
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    let coinbase = chain.blocks()[3].0.txdata[0].clone();
    let txid = coinbase.compute_txid();
    fixture.catch_up().unwrap();
    let digest = fixture.index.digest().unwrap();
    assert_eq!(
        fixture
            .query
            .view()
            .unwrap()
            .tx_block(&txid)
            .unwrap()
            .unwrap()
            .height,
        3
    );

    let before = chain.active();
    let block = memchain::block(before[3], 4, vec![coinbase.clone()], 7);
    chain.connect(block, Vec::new());
    fixture.catch_up().unwrap();
    let view = fixture.query.view().unwrap();
    assert_eq!(view.tx_block(&txid).unwrap().unwrap().height, 4);
    assert_eq!(*view.tx(&txid).unwrap().unwrap().tx, coinbase);
    assert_eq!(view.merkle_proof(&txid).unwrap().unwrap().block.height, 4);
    let coin = view
        .unspent(&[OutPoint { txid, vout: 0 }])
        .unwrap()
        .remove(0);
    assert_eq!(coin.unwrap().height, 4);
    drop(view);

    // Spending it spends the later one, which undo data names by its height.
    let output = coinbase.output[0].clone();
    let outpoint = OutPoint { txid, vout: 0 };
    let mut spender = chain.blocks()[1].0.txdata[0].clone();
    spender.input[0].previous_output = outpoint;
    spender.output = vec![TxOut {
        value: Amount::ZERO,
        script_pubkey: memchain::script(9),
    }];
    let spent = SpentOutput {
        output,
        height: 4,
        is_coinbase: true,
    };
    let mut rng = StdRng::seed_from_u64(1);
    let (mut block, _) = random_block(&chain, &mut memchain::Coins::new(), 0, &mut rng);
    block.txdata.push(spender.clone());
    let block = memchain::block(chain.active()[4], 5, block.txdata, 8);
    chain.connect(block, vec![vec![spent]]);
    fixture.catch_up().unwrap();
    let found = fixture
        .query
        .view()
        .unwrap()
        .spender(&outpoint)
        .unwrap()
        .unwrap();
    assert_eq!((found.txid, found.vin), (spender.compute_txid(), 0));
    // The earlier one does not come back to life.
    let view = fixture.query.view().unwrap();
    assert_eq!(view.unspent(&[outpoint]).unwrap(), [None]);
    drop(view);

    // Taken back, the earlier one answers again.
    chain.activate(before.clone());
    mine(&chain, 1, 0, 14);
    chain.disconnect(1);
    mine(&chain, 1, 0, 15);
    fixture.catch_up().unwrap();
    assert_eq!(
        fixture
            .query
            .view()
            .unwrap()
            .tx_block(&txid)
            .unwrap()
            .unwrap()
            .height,
        3
    );
    assert_ne!(fixture.index.digest().unwrap(), digest);
    assert_eq!(fixture.index.digest().unwrap(), undisturbed_digest(&chain));
}

#[test]
fn a_view_does_not_see_later_blocks() {
    let dir = scratch_dir();
    let chain = chain_of(8, 16);
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    fixture.catch_up().unwrap();
    let naive = Naive::new(&chain.blocks());
    let query = fixture.query.clone();
    let view = query.view().unwrap();
    chain.disconnect(5);
    mine(&chain, 9, 12, 17);
    fixture.catch_up().unwrap();
    naive.check(&view);
    let old = view.block_at(8).unwrap().unwrap();
    let now = query.view().unwrap();
    assert!(matches!(
        now.block_raw(&old),
        Err(QueryError::NotInView { .. })
    ));
    Naive::new(&chain.blocks()).check(&now);
}

#[test]
fn views_stay_consistent_while_the_chain_moves() {
    let dir = scratch_dir();
    let chain = chain_of(10, 18);
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    fixture.catch_up().unwrap();
    let (query, done) = (fixture.query.clone(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut checks = 0;
            while !done.load(Ordering::Relaxed) || checks == 0 {
                for index in 5..memchain::SCRIPTS {
                    let script = memchain::script(index);
                    let hash = sha256::Hash::hash(script.as_bytes()).to_byte_array();
                    let view = query.view().unwrap();
                    let stats = view.script_stats(&hash).unwrap();
                    let utxos = view.script_utxos(&hash, usize::MAX).unwrap().unwrap();
                    let sum = utxos.iter().map(|utxo| utxo.value).sum::<u64>();
                    assert_eq!(sum, stats.funded_txo_sum - stats.spent_txo_sum);
                    let txs = view.script_txs(&hash, None, usize::MAX).unwrap();
                    assert_eq!(txs.len() as u64, stats.tx_count);
                    let tip = view.tip().unwrap();
                    assert!(txs.iter().all(|tx| tx.block.height <= tip.height));
                    checks += 1;
                }
            }
        });
        for seed in 0..40 {
            chain.disconnect(4);
            mine(&chain, 5, 12, seed);
            fixture.catch_up().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
    });
}

#[test]
fn a_stop_ends_early_and_loses_nothing() {
    let dir = scratch_dir();
    let chain = chain_of(10, 19);
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    fixture.sync.catch_up(&AtomicBool::new(true)).unwrap();
    assert_eq!(*fixture.index.tip().borrow(), None);
    fixture.catch_up().unwrap();
    assert_eq!(fixture.index.digest().unwrap(), undisturbed_digest(&chain));
}

#[test]
fn another_network_version_or_database_is_refused_and_left_alone() {
    let dir = scratch_dir();
    let chain = chain_of(3, 20);
    let mut fixture = Fixture::open(dir.path(), chain);
    fixture.catch_up().unwrap();
    let digest = fixture.index.digest().unwrap();
    drop(fixture);

    let open = |params: &ChainParams| Index::open(dir.path(), &config(), params);
    let mainnet = ChainParams::new(Network::Bitcoin, None);
    assert!(matches!(
        open(&mainnet),
        Err(OpenError::OtherNetwork { network: "mainnet" })
    ));

    let index = open(&params()).unwrap();
    // Open twice at once.
    assert!(matches!(open(&params()), Err(OpenError::Store(_))));
    index
        .shared
        .store
        .put_raw(Family::Meta, b"version", &1u32.to_be_bytes());
    drop(index);
    let refused = open(&params());
    assert!(matches!(
        refused,
        Err(OpenError::FormatVersion {
            found: 1,
            expected: 2
        })
    ));
    let message = refused.err().unwrap().to_string();
    assert!(message.contains("pulse-node reindex"), "{message}");

    // What was refused is unchanged: with its version put back it opens as before.
    {
        let options = rocksdb::Options::default();
        let all = rocksdb::DB::list_cf(&options, dir.path()).unwrap();
        let db = rocksdb::DB::open_cf(&options, dir.path(), all).unwrap();
        let meta = db.cf_handle("meta").unwrap();
        db.put_cf(meta, b"version", 2u32.to_be_bytes()).unwrap();
    }
    assert_eq!(open(&params()).unwrap().digest().unwrap(), digest);

    let stranger = scratch_dir();
    let mut options = rocksdb::Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    drop(rocksdb::DB::open_cf(&options, stranger.path(), ["other"]).unwrap());
    let refused = Index::open(stranger.path(), &config(), &params());
    assert!(matches!(refused, Err(OpenError::NotAnIndex { .. })));

    let salt = IndexConfig {
        salt: Some("0011".to_owned()),
        ..config()
    };
    let refused = Index::open(scratch_dir().path(), &salt, &params());
    assert!(matches!(refused, Err(OpenError::Salt)));
}

#[test]
fn custom_signets_are_told_apart() {
    let dir = scratch_dir();
    let signet = |challenge: &[u8]| ChainParams::new(Network::Signet, Some(challenge.to_vec()));
    drop(Index::open(dir.path(), &config(), &signet(&[0x51])).unwrap());
    let refused = Index::open(dir.path(), &config(), &signet(&[0x52]));
    assert!(matches!(refused, Err(OpenError::OtherNetwork { .. })));
}

#[test]
fn the_salt_is_random_unless_given() {
    let (a, b) = (scratch_dir(), scratch_dir());
    let random = IndexConfig {
        salt: None,
        ..config()
    };
    let open = |dir: &tempfile::TempDir| Index::open(dir.path(), &random, &params()).unwrap();
    let digest = open(&a).digest().unwrap();
    assert_ne!(digest, open(&b).digest().unwrap());
    assert_eq!(digest, open(&a).digest().unwrap(), "and stays");
}

#[test]
fn a_chain_with_another_genesis_is_refused() {
    let dir = scratch_dir();
    let signet = ChainParams::new(Network::Signet, None);
    let chain = Arc::new(MemChain::new(&signet));
    let mut fixture = Fixture::open(dir.path(), chain);
    assert!(matches!(
        fixture.catch_up(),
        Err(SyncError::OtherGenesis { .. })
    ));
}

#[test]
fn unspendable_scripts_have_no_rows() {
    let dir = scratch_dir();
    let chain = chain_of(30, 21);
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    fixture.catch_up().unwrap();
    for index in [1, 2, 3] {
        assert_eq!(
            stats_of(&fixture, &memchain::script(index)),
            ScriptStats::default()
        );
    }
    for index in [0, 4] {
        assert!(stats_of(&fixture, &memchain::script(index)).tx_count > 0);
    }
}
