//! Compact block filters.

use std::{collections::HashMap, sync::Arc, sync::atomic::AtomicBool};

use pulse_primitives::{
    Height,
    bitcoin::{
        Block, OutPoint, ScriptBuf,
        bip158::{BlockFilter, FilterHash, FilterHeader},
        consensus::encode::deserialize_hex,
        hashes::Hash,
    },
    block::SpentOutput,
    filters::FilterSource,
};
use serde_json::Value;

use super::{
    Fixture, config,
    golden::chaindata,
    memchain::{MemChain, mine},
    params, scratch_dir, undisturbed_digest,
};
use crate::{
    IndexConfig,
    rows::filter::{FilterEntry, build},
};

pub(super) fn with_filters() -> IndexConfig {
    IndexConfig {
        block_filters: true,
        ..config()
    }
}

fn chain_of(blocks: usize, seed: u64) -> Arc<MemChain> {
    let chain = Arc::new(MemChain::new(&params()));
    mine(&chain, blocks, 12, seed);
    chain
}

/// Opens the index again with other settings.
pub(super) fn reopen(fixture: Fixture, path: &std::path::Path, config: &IndexConfig) -> Fixture {
    let chain = Arc::clone(&fixture.chain);
    drop(fixture);
    Fixture::open_with(path, chain, config, &params())
}

/// Compares every answer with filters made by way of outpoints.
pub(super) fn check(fixture: &Fixture) {
    let source: &dyn FilterSource = &fixture.query;
    let (mut scripts, mut header) = (HashMap::new(), FilterHeader::all_zeros());
    let (mut filters, mut hashes, mut headers) = (Vec::new(), Vec::new(), Vec::new());
    let active = fixture.chain.active();
    for ((height, stop), (block, _)) in (0..).zip(&active).zip(fixture.chain.blocks()) {
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            for (vout, output) in (0..).zip(&tx.output) {
                scripts.insert(OutPoint { txid, vout }, output.script_pubkey.clone());
            }
        }
        let spent = |outpoint: &OutPoint| Ok::<ScriptBuf, _>(scripts[outpoint].clone());
        let filter = BlockFilter::new_script_filter(&block, spent).unwrap();
        let previous = header;
        header = filter.filter_header(&previous);
        filters.push(filter.content.clone());
        hashes.push(FilterHash::hash(&filter.content));
        headers.push(header);

        let one = source.filters(height, stop).unwrap().unwrap();
        assert_eq!(one.len(), 1);
        assert_eq!((one[0].block_hash, &one[0].bytes), (*stop, &filter.content));
        let all = source.filters(0, stop).unwrap().unwrap();
        assert!(all.iter().map(|filter| &filter.bytes).eq(&filters));
        assert_eq!(
            source.filter_hashes(0, stop).unwrap().unwrap(),
            (FilterHeader::all_zeros(), hashes.clone())
        );
        assert_eq!(
            source.filter_hashes(height, stop).unwrap().unwrap(),
            (previous, vec![hashes[height as usize]])
        );
        let every = |interval| {
            source
                .filter_headers_every(interval, stop)
                .unwrap()
                .unwrap()
        };
        for interval in [1, 3, 1000] {
            let wanted = headers.iter().skip(interval).step_by(interval).copied();
            assert_eq!(every(interval as Height), wanted.collect::<Vec<_>>());
        }
        assert_eq!(source.filters(height + 1, stop).unwrap(), None);
    }
}

/// The tip's filter is not there.
fn refused(fixture: &Fixture) -> bool {
    let tip = *fixture.chain.active().last().unwrap();
    let answers = [
        fixture.query.filters(0, &tip).unwrap().is_none(),
        fixture.query.filter_hashes(0, &tip).unwrap().is_none(),
        fixture
            .query
            .filter_headers_every(1, &tip)
            .unwrap()
            .is_none(),
    ];
    assert!(answers.iter().all(|none| *none == answers[0]));
    answers[0]
}

#[test]
fn filters_are_those_of_the_bip() {
    let Some(vectors) = chaindata("vectors/blockfilters.json") else {
        return;
    };
    let vectors: Vec<Vec<Value>> = serde_json::from_slice(&vectors).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    for vector in &vectors[1..] {
        let block: Block = deserialize_hex(&text(&vector[2])).unwrap();
        let mut scripts = vector[3]
            .as_array()
            .unwrap()
            .iter()
            .map(|script| SpentOutput {
                output: pulse_primitives::bitcoin::TxOut {
                    value: pulse_primitives::bitcoin::Amount::ZERO,
                    script_pubkey: ScriptBuf::from_hex(&text(script)).unwrap(),
                },
                height: 0,
                is_coinbase: false,
            });
        let spent = block.txdata[1..]
            .iter()
            .map(|tx| scripts.by_ref().take(tx.input.len()).collect())
            .collect::<Vec<_>>();
        let filter = build(&block, &spent);
        assert_eq!(hex::encode(&filter), text(&vector[5]), "{}", vector[7]);
        let previous = text(&vector[4]).parse().unwrap();
        let entry = FilterEntry::new(block.block_hash(), &filter, &previous);
        assert_eq!(entry.header.to_string(), text(&vector[6]), "{}", vector[7]);
    }
    assert_eq!(vectors.len(), 11);
}

#[test]
fn filters_follow_the_chain_and_change_nothing_else() {
    let dir = scratch_dir();
    let chain = chain_of(9, 1);
    let config = with_filters();
    let mut fixture = Fixture::open_with(dir.path(), Arc::clone(&chain), &config, &params());
    fixture.catch_up().unwrap();
    check(&fixture);
    for depth in [1, 2, 6] {
        let stale = *chain.active().last().unwrap();
        chain.disconnect(depth);
        mine(&chain, depth + 1, 12, 100 + depth as u64);
        fixture.catch_up().unwrap();
        check(&fixture);
        assert_eq!(fixture.query.filters(0, &stale).unwrap(), None);
        assert_eq!(fixture.index.digest().unwrap(), undisturbed_digest(&chain));
    }
    fixture = reopen(fixture, dir.path(), &config);
    mine(&chain, 2, 12, 5);
    fixture.catch_up().unwrap();
    check(&fixture);
    let blocks = chain.active().len() as u64;
    assert_eq!(fixture.index.row_counts().unwrap()["filter"], blocks);
}

#[test]
fn missing_filters_are_made_up_for() {
    let dir = scratch_dir();
    let chain = chain_of(9, 2);
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    fixture.catch_up().unwrap();
    assert!(refused(&fixture));
    assert_eq!(fixture.index.row_counts().unwrap()["filter"], 0);

    fixture = reopen(fixture, dir.path(), &with_filters());
    assert!(refused(&fixture));
    // New blocks come first, and are indexed without a filter as long as one is missing.
    mine(&chain, 3, 12, 6);
    fixture.catch_up().unwrap();
    check(&fixture);

    // Not kept for a while, in which some blocks are replaced.
    fixture = reopen(fixture, dir.path(), &config());
    fixture.catch_up().unwrap();
    assert!(refused(&fixture));
    chain.disconnect(2);
    mine(&chain, 5, 12, 7);
    fixture.catch_up().unwrap();
    fixture = reopen(fixture, dir.path(), &with_filters());
    assert!(refused(&fixture));
    fixture.catch_up().unwrap();
    check(&fixture);
    assert_eq!(fixture.index.digest().unwrap(), undisturbed_digest(&chain));
}

#[test]
fn a_block_that_cannot_be_read_keeps_its_filter_and_nothing_else_back() {
    let dir = scratch_dir();
    let chain = chain_of(9, 3);
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    fixture.catch_up().unwrap();
    fixture = reopen(fixture, dir.path(), &with_filters());
    let active = chain.active();
    chain.lose(active[4]);
    fixture.catch_up().unwrap();
    assert!(refused(&fixture));
    assert_eq!(
        fixture.query.filters(0, &active[3]).unwrap().unwrap().len(),
        4
    );
    assert_eq!(fixture.query.filters(0, &active[4]).unwrap(), None);
    mine(&chain, 2, 12, 8);
    fixture.catch_up().unwrap();
    assert_eq!(fixture.index.tip().borrow().unwrap().height, 11);

    chain.find_again();
    let stopped = AtomicBool::new(true);
    fixture.sync.catch_up(&stopped).unwrap();
    assert!(refused(&fixture));
    fixture.catch_up().unwrap();
    check(&fixture);
}
