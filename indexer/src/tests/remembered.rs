//! What queries remember: nothing is read twice without need, and nothing outlives its rows.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
};

use pulse_primitives::bitcoin::{
    Amount, Block, OutPoint, ScriptBuf, TxOut, Txid,
    hashes::{Hash, sha256},
};

use super::{
    Fixture,
    memchain::{self, MemChain},
    naive::Naive,
    params, scratch_dir,
};
use crate::{
    query::{Heights, QueryError},
    store::Family,
};

/// A block on top of the chain whose coinbase pays so many outputs to script 9.
fn connect(chain: &MemChain, outputs: usize, signature: u8) -> Block {
    let active = chain.active();
    let mut coinbase = params().genesis().txdata.remove(0);
    let height = active.len() as u32;
    coinbase.input[0].script_sig = ScriptBuf::from_bytes(vec![2, height as u8, signature]);
    let output = TxOut {
        value: Amount::from_sat(5),
        script_pubkey: memchain::script(9),
    };
    coinbase.output = vec![output; outputs];
    let previous = *active.last().unwrap();
    let block = memchain::block(previous, height, vec![coinbase], signature.into());
    chain.connect(block.clone(), Vec::new());
    block
}

fn script_hash() -> [u8; 32] {
    sha256::Hash::hash(memchain::script(9).as_bytes()).to_byte_array()
}

fn coinbase_id(block: &Block) -> Txid {
    block.txdata[0].compute_txid()
}

#[test]
fn an_answer_is_read_once_and_never_given_after_a_block_came_or_went() {
    let dir = scratch_dir();
    let mut fixture = Fixture::open(dir.path(), Arc::new(MemChain::new(&params())));
    let chain = Arc::clone(&fixture.chain);
    let first = connect(&chain, 1, 1);
    let second = connect(&chain, 1, 1);
    fixture.catch_up().unwrap();
    let ask = |fixture: &Fixture, block: &Block| {
        let view = fixture.query.view().unwrap();
        let found = view.tx_block(&coinbase_id(block)).unwrap();
        let stats = view.script_stats(&script_hash()).unwrap();
        let tip = view.tip().unwrap().height;
        (found.map(|block| block.height), stats.tx_count, tip)
    };

    assert_eq!(ask(&fixture, &second), (Some(2), 2, 2));
    let reads = chain.reads.load(Ordering::SeqCst);
    assert_eq!(ask(&fixture, &second), (Some(2), 2, 2));
    assert_eq!(chain.reads.load(Ordering::SeqCst), reads);
    // One that holds its view sees what it saw.
    let query = fixture.query.clone();
    let old = query.view().unwrap();

    chain.disconnect(1);
    let other = connect(&chain, 1, 2);
    let third = connect(&chain, 1, 2);
    fixture.catch_up().unwrap();
    assert_eq!(ask(&fixture, &second), (None, 3, 3));
    assert_eq!(ask(&fixture, &other), (Some(2), 3, 3));
    assert_eq!(ask(&fixture, &third), (Some(3), 3, 3));
    assert_eq!(ask(&fixture, &first), (Some(1), 3, 3));

    let found = old.tx_block(&coinbase_id(&second)).unwrap();
    assert_eq!(found.unwrap().hash, second.block_hash());
    assert_eq!(ask(&fixture, &second), (None, 3, 3));
}

#[test]
fn a_transaction_is_remembered_no_longer_than_its_row_is_there() {
    let dir = scratch_dir();
    let mut fixture = Fixture::open(dir.path(), Arc::new(MemChain::new(&params())));
    let block = connect(&fixture.chain, 1, 1);
    fixture.catch_up().unwrap();
    let page = || {
        let view = fixture.query.view().unwrap();
        let block = view.block_at(1).unwrap().unwrap();
        let txs = view.block_txs(&block, 0, 25)?;
        Ok::<_, QueryError>(txs[0].txid)
    };
    for _ in 0..2 {
        assert_eq!(page().unwrap(), coinbase_id(&block));
    }
    let store = &fixture.index.shared.store;
    let rows = store.rows_raw(Family::Tx);
    let mut rows = rows.iter().filter(|(key, _)| key.ends_with(&[0, 0, 0, 1]));
    let (key, value) = rows.next().unwrap();
    store.delete_raw(Family::Tx, key);
    assert!(matches!(
        page(),
        Err(QueryError::PositionRenewing { height: 1 })
    ));
    store.put_raw(Family::Tx, key, value);
    assert_eq!(page().unwrap(), coinbase_id(&block));
}

#[test]
fn a_page_is_read_once_and_anew_after_a_block_came_or_went() {
    let dir = scratch_dir();
    let mut fixture = Fixture::open(dir.path(), Arc::new(MemChain::new(&params())));
    let chain = Arc::clone(&fixture.chain);
    let first = connect(&chain, 1, 1);
    let second = connect(&chain, 1, 1);
    fixture.catch_up().unwrap();
    // Also with how often was read.
    let ask = |fixture: &Fixture| {
        let view = fixture.query.view().unwrap();
        let before = chain.reads.load(Ordering::SeqCst);
        let list = view.script_txs(&script_hash(), None, 25).unwrap();
        let tip = view.tip().unwrap();
        let block = view.block_at(tip.height).unwrap().unwrap();
        for (detail, other) in [
            (&list[0], &view.block_txs(&block, 0, 25).unwrap()[0]),
            (&list[1], &view.tx(&list[1].txid).unwrap().unwrap()),
        ] {
            assert_eq!(detail, other);
        }
        let spenders = view.spenders(&list[0].txid).unwrap();
        assert_eq!(spenders, Some(vec![None]));
        let ids: Vec<_> = list.iter().map(|detail| detail.txid).collect();
        (ids, chain.reads.load(Ordering::SeqCst) - before)
    };
    let ids = |blocks: &[&Block]| -> Vec<_> { blocks.iter().map(|b| coinbase_id(b)).collect() };

    assert_eq!(ask(&fixture), (ids(&[&second, &first]), 2));
    assert_eq!(ask(&fixture), (ids(&[&second, &first]), 0));
    let query = fixture.query.clone();
    let old = query.view().unwrap();
    chain.disconnect(1);
    let other = connect(&chain, 1, 2);
    fixture.catch_up().unwrap();
    assert_eq!(ask(&fixture), (ids(&[&other, &first]), 2));
    // One that holds its view sees what it saw.
    let list = old.script_txs(&script_hash(), None, 25).unwrap();
    assert_eq!(list[0].txid, coinbase_id(&second));
    assert_eq!(ask(&fixture).0, ids(&[&other, &first]));
}

#[test]
fn what_was_proven_of_transactions_is_not_read_again() {
    let dir = scratch_dir();
    let mut fixture = Fixture::open(dir.path(), Arc::new(MemChain::new(&params())));
    let chain = Arc::clone(&fixture.chain);
    memchain::mine(&chain, 12, 8, 3);
    fixture.catch_up().unwrap();
    let naive = Naive::new(&chain.blocks());
    let ask = || {
        let view = fixture.query.view().unwrap();
        let before = chain.reads.load(Ordering::SeqCst);
        let mut spent = 0;
        for txid in naive.txids() {
            let detail = view.tx(txid).unwrap().unwrap();
            spent += detail.prevouts.len();
            let spenders = view.spenders(txid).unwrap().unwrap();
            let mut single = (0..).map(|vout| view.spender(&OutPoint { txid: *txid, vout }));
            for spender in spenders {
                assert_eq!(single.next().unwrap().unwrap(), spender);
            }
        }
        for height in 0..=12 {
            let block = view.block_at(height).unwrap().unwrap();
            view.block_txs(&block, 0, u32::MAX).unwrap();
        }
        for script in naive.scripts() {
            let script = sha256::Hash::hash(script.as_bytes()).to_byte_array();
            view.script_txs(&script, None, usize::MAX).unwrap();
            let page = view.merged_page([&script], None, 100).unwrap().unwrap();
            let scripts = HashSet::from([script]);
            assert!(view.merged_txs(&scripts, &page).all(|tx| tx.is_ok()));
            assert!(view.placed_txs(&scripts, &page).all(|tx| tx.is_ok()));
        }
        (spent, chain.reads.load(Ordering::SeqCst) - before)
    };
    let (spent, first) = ask();
    assert!(spent > 0);
    let txs = u32::try_from(naive.txids().count()).unwrap();
    assert!(first > txs, "{first} of {txs}");
    assert_eq!(ask(), (spent, 0));
    fixture.index.shared.store.forget();
    assert_eq!(ask(), (spent, first));
}

#[test]
fn outputs_that_were_proven_for_a_client_that_left_are_not_read_again() {
    let dir = scratch_dir();
    let mut fixture = Fixture::open(dir.path(), Arc::new(MemChain::new(&params())));
    let chain = Arc::clone(&fixture.chain);
    let (blocks, taken) = (200, 150);
    for _ in 0..blocks {
        connect(&chain, 1, 1);
    }
    fixture.catch_up().unwrap();
    let view = fixture.query.view().unwrap();
    let page = view
        .unspent_page(&script_hash(), Heights::ALL, None, 1_000)
        .unwrap();
    let page = page.unwrap();
    let before = chain.reads.load(Ordering::SeqCst);
    let mut count = 0;
    let result = view.page_utxos(&script_hash(), &page, |utxo| {
        count += 1;
        let hash = utxo.block.hash;
        match count < taken {
            true => Ok(()),
            false => Err(QueryError::NotInView { hash }),
        }
    });
    assert!(result.is_err());
    let first = chain.reads.load(Ordering::SeqCst) - before;
    assert_eq!(first, taken);

    let mut count = 0;
    let all = view.page_utxos(&script_hash(), &page, |_| {
        count += 1;
        Ok::<_, QueryError>(())
    });
    all.unwrap();
    assert_eq!(count, blocks);
    let second = chain.reads.load(Ordering::SeqCst) - before - first;
    assert_eq!(second, blocks - taken);
}
