//! What is rare in the chain, and breaks indexes.

use std::{path::Path, sync::Arc};

use pulse_primitives::{
    Height,
    bitcoin::{
        Amount, OutPoint, ScriptBuf, Transaction, TxOut,
        hashes::{Hash, sha256},
    },
    block::SpentOutput,
};

use super::{
    Fixture, HOT, config,
    memchain::{self, MemChain, mine},
    naive::Naive,
    params, scratch_dir, undisturbed_digest, verify,
};
use crate::{Index, query::model::ScriptStats, store::Family};

fn hash_of(script: &ScriptBuf) -> [u8; 32] {
    sha256::Hash::hash(script.as_bytes()).to_byte_array()
}

/// Puts a block of these transactions on the chain, which spend nothing but `spent`.
fn connect(chain: &MemChain, txdata: Vec<Transaction>, spent: Vec<Vec<SpentOutput>>) {
    let active = chain.active();
    let previous = *active.last().unwrap();
    let block = memchain::block(previous, active.len() as Height, txdata, 7);
    chain.connect(block, spent);
}

/// A coinbase with two outputs of its own for script 6 and one for script 7.
fn coinbase(signature: &[u8]) -> Transaction {
    let mut tx = params().genesis().txdata.remove(0);
    tx.input[0].script_sig = ScriptBuf::from_bytes(signature.to_vec());
    tx.output = [(6, 100), (6, 20), (7, 3)]
        .map(|(script, sats)| TxOut {
            value: Amount::from_sat(sats),
            script_pubkey: memchain::script(script),
        })
        .to_vec();
    tx
}

fn spend(tx: &Transaction, vout: u32, height: Height) -> (Transaction, Vec<SpentOutput>) {
    let mut spender = coinbase(&[vout as u8, height as u8]);
    spender.input[0].previous_output = OutPoint::new(tx.compute_txid(), vout);
    spender.output.truncate(1);
    spender.output[0].script_pubkey = memchain::script(8);
    let coin = SpentOutput {
        output: tx.output[vout as usize].clone(),
        height,
        is_coinbase: true,
    };
    (spender, vec![coin])
}

fn check(fixture: &mut Fixture) {
    fixture.catch_up().unwrap();
    let naive = Naive::new(&fixture.chain.blocks());
    let view = fixture.query.view().unwrap();
    naive.check_totals(&view);
    naive.check_utxos(&view);
    fixture.index.shared.store.check_checkpoints();
    let digest = fixture.index.digest().unwrap();
    assert_eq!(digest, undisturbed_digest(&fixture.chain));
    // The commitment over the unspent outputs among it.
    let tip = fixture.index.tip().borrow().unwrap().height;
    for from in [0, tip / 2] {
        verify::check_clean_from(fixture, from);
    }
}

#[test]
fn a_repeated_coinbase_takes_the_place_of_what_is_unspent_of_the_earlier() {
    // As in blocks 91,842 and 91,880 of mainnet. One output of the earlier is spent, and
    // everything once more after a repetition of the repetition.
    for undo_blocks in [0, 100] {
        let dir = scratch_dir();
        let chain = Arc::new(MemChain::new(&params()));
        let config = crate::IndexConfig {
            undo_blocks,
            ..config()
        };
        let mut fixture = Fixture::open_with(dir.path(), Arc::clone(&chain), &config, &params());
        let tx = coinbase(b"twice");
        connect(&chain, vec![tx.clone()], vec![]);
        let (spender, spent) = spend(&tx, 1, 1);
        connect(&chain, vec![coinbase(b"2"), spender], vec![spent]);
        mine(&chain, 2, 3, 1);
        check(&mut fixture);
        let height = chain.active().len() as Height;
        connect(&chain, vec![tx.clone()], vec![]);
        check(&mut fixture);
        let view = fixture.query.view().unwrap();
        let stats = view.script_stats(&hash_of(&memchain::script(7))).unwrap();
        let history = view
            .script_txs(&hash_of(&memchain::script(7)), None, 100)
            .unwrap();
        assert_eq!(stats.tx_count, history.len() as u64);
        let both = history.iter().filter(|t| t.txid == tx.compute_txid());
        let both = both.map(|tx| tx.block.height).collect::<Vec<_>>();
        assert_eq!(both, [height, 1], "the history lists both");
        drop(view);
        // Spent, and repeated again; then all of it taken back.
        let (spender, spent) = spend(&tx, 0, height);
        connect(&chain, vec![coinbase(b"3"), spender], vec![spent]);
        connect(&chain, vec![tx.clone()], vec![]);
        check(&mut fixture);
        chain.disconnect(3);
        mine(&chain, 4, 3, 3);
        check(&mut fixture);
    }
}

#[test]
fn a_coinbase_repeated_within_one_group_of_blocks_is_noticed() {
    let dir = scratch_dir();
    let chain = Arc::new(MemChain::new(&params()));
    connect(&chain, vec![coinbase(b"twice")], vec![]);
    connect(&chain, vec![coinbase(b"once")], vec![]);
    connect(&chain, vec![coinbase(b"twice")], vec![]);
    // All at once, as far from the tip.
    chain.set_best_header(1000);
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    check(&mut fixture);
    let view = fixture.query.view().unwrap();
    let stats = view.script_stats(&hash_of(&memchain::script(7))).unwrap();
    assert_eq!((stats.tx_count, stats.funded_txo_count), (3, 2));
}

#[test]
fn scripts_that_share_a_key_are_told_apart_once_that_was_noticed() {
    // Keys of three bits for fourteen scripts.
    let open = |path: &Path, chain: &Arc<MemChain>| {
        let change = |store: &mut crate::store::Store| {
            store.hot = HOT;
            store.keys.lost_bits = 61;
        };
        let index = Index::open_changed(path, &config(), &params(), change).unwrap();
        Fixture::of(index, Arc::clone(chain))
    };
    let dir = scratch_dir();
    let chain = Arc::new(MemChain::new(&params()));
    mine(&chain, 25, 12, 5);
    let mut fixture = open(dir.path(), &chain);
    fixture.catch_up().unwrap();
    let naive = Naive::new(&chain.blocks());
    // Whoever reads the unspent outputs or a history meets the other script.
    let view = fixture.query.view().unwrap();
    // Those without a history, too, as they share the keys of others.
    let unused = (0..memchain::SCRIPTS).map(memchain::script);
    for script in naive.scripts().cloned().chain(unused) {
        view.script_utxos(&hash_of(&script), usize::MAX).unwrap();
        view.script_txs(&hash_of(&script), None, usize::MAX)
            .unwrap();
    }
    let noticed = |fixture: &Fixture| {
        let keys = &fixture.index.shared.store.keys;
        let scripts = naive.scripts().map(|script| keys.script(script));
        scripts
            .filter(|key| fixture.index.shared.store.collides(*key))
            .count()
    };
    assert!(noticed(&fixture) >= 8, "{}", noticed(&fixture));
    naive.check(&view);
    drop(view);
    // It is known after a restart, and stays right through a reorganisation.
    let before = noticed(&fixture);
    drop(fixture);
    let mut fixture = open(dir.path(), &chain);
    assert_eq!(noticed(&fixture), before);
    chain.disconnect(5);
    mine(&chain, 8, 12, 6);
    fixture.catch_up().unwrap();
    Naive::new(&chain.blocks()).check(&fixture.query.view().unwrap());
}

#[test]
fn a_transaction_may_have_more_outputs_than_16_bits_count() {
    const OUTPUTS: u32 = 66_000;
    let dir = scratch_dir();
    let chain = Arc::new(MemChain::new(&params()));
    let mut tx = coinbase(b"large");
    tx.output = (0..OUTPUTS)
        .map(|vout| TxOut {
            value: Amount::from_sat(u64::from(vout)),
            script_pubkey: memchain::script(6),
        })
        .collect();
    connect(&chain, vec![tx.clone()], vec![]);
    let (spender, spent) = spend(&tx, OUTPUTS - 1, 1);
    connect(&chain, vec![coinbase(b"2"), spender.clone()], vec![spent]);
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    check(&mut fixture);
    let view = fixture.query.view().unwrap();
    let txid = tx.compute_txid();
    let spender_of = |vout| view.spender(&OutPoint::new(txid, vout)).unwrap();
    let found = spender_of(OUTPUTS - 1).unwrap();
    assert_eq!(found.txid, spender.compute_txid());
    // Not mistaken for the output whose lower 16 bits are the same.
    assert_eq!(spender_of((OUTPUTS - 1) & 0xffff), None);
    let spenders = view.spenders(&txid).unwrap().unwrap();
    assert_eq!(spenders.iter().flatten().count(), 1);
    assert_eq!(spenders.len(), OUTPUTS as usize);
    let hash = hash_of(&memchain::script(6));
    let utxos = view.script_utxos(&hash, usize::MAX).unwrap().unwrap();
    assert_eq!(
        utxos.iter().filter(|u| u.outpoint.vout > 0xffff).count(),
        463
    );
    drop(view);
    // Taken back, it is unspent again.
    chain.disconnect(1);
    mine(&chain, 2, 0, 9);
    check(&mut fixture);
}

#[test]
fn outputs_that_are_spent_at_once_or_never_leave_no_live_row() {
    let dir = scratch_dir();
    let chain = Arc::new(MemChain::new(&params()));
    let mut tx = coinbase(b"both");
    tx.output[1].script_pubkey = memchain::script(1);
    tx.output[2].script_pubkey = memchain::script(0);
    let (spender, spent) = spend(&tx, 2, 1);
    connect(&chain, vec![tx, spender], vec![spent]);
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    check(&mut fixture);
    let stats = |script| {
        let view = fixture.query.view().unwrap();
        view.script_stats(&hash_of(&memchain::script(script)))
            .unwrap()
    };
    // The empty script was paid and spent in one block, OP_RETURN is nobody's.
    let empty = ScriptStats {
        tx_count: 2,
        funded_txo_count: 1,
        funded_txo_sum: 3,
        spent_txo_count: 1,
        spent_txo_sum: 3,
    };
    assert_eq!((stats(0), stats(1)), (empty, ScriptStats::default()));
    assert_eq!(stats(6).funded_txo_count, 1);
    // Genesis, script 6 and the spender's own output.
    assert_eq!(fixture.index.row_counts().unwrap()[Family::Utxo.name()], 3);
}
