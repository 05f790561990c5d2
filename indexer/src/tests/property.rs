//! Random chains with reorganisations, restarts, kills at every write, bulk loads and moving
//! block files: every query gives what the naive index gives, and every row is as in an index
//! that was written with a log, block after block, by nobody disturbed.

use std::sync::Arc;

use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};

use super::{
    Fixture, check_utxos, config,
    crash::{Killer, open_image},
    filters,
    filters::{reopen, with_filters},
    memchain::{MemChain, mine},
    naive::Naive,
    params, scratch_dir, undisturbed_digest, verify,
};
use crate::query::{QueryError, View};

#[derive(Debug, Clone)]
enum Op {
    /// New blocks.
    Mine {
        blocks: usize,
        txs: usize,
        seed: u64,
    },
    /// New blocks instead of the newest ones.
    Reorg {
        depth: usize,
        blocks: usize,
        txs: usize,
        seed: u64,
    },
    /// The index follows.
    CatchUp,
    /// The index is closed and opened, to keep block filters from then on or not.
    Reopen { filters: bool },
    /// Rows go from memory to table files.
    Flush,
    /// The node knows so many headers more than blocks.
    Ahead { headers: u32 },
    /// The index follows, and the process is killed when it has come by so many points at
    /// which the disk changes, or afterwards.
    Kill { points: u32 },
    /// Blocks are stored elsewhere, and the node starts again some blocks behind.
    Restart { behind: u32, seed: u64 },
    /// Blocks are stored elsewhere while the node runs.
    Move { seed: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    let txs = prop_oneof![30 => 0..6usize, 1 => 64..80usize];
    // Ten and more at once begin with a bulk load.
    let blocks = prop_oneof![4 => 1..4usize, 1 => 10..14usize];
    prop_oneof![
        4 => (blocks, txs.clone(), any::<u64>())
            .prop_map(|(blocks, txs, seed)| Op::Mine { blocks, txs, seed }),
        3 => (1..9usize, 0..9usize, txs, any::<u64>())
            .prop_map(|(depth, blocks, txs, seed)| Op::Reorg { depth, blocks, txs, seed }),
        4 => Just(Op::CatchUp),
        1 => any::<bool>().prop_map(|filters| Op::Reopen { filters }),
        1 => Just(Op::Flush),
        1 => prop_oneof![Just(0), 7..30u32].prop_map(|headers| Op::Ahead { headers }),
        2 => (0..16u32).prop_map(|points| Op::Kill { points }),
        1 => (0..8u32, any::<u64>()).prop_map(|(behind, seed)| Op::Restart { behind, seed }),
        1 => any::<u64>().prop_map(|seed| Op::Move { seed }),
    ]
}

/// Asks about everything so that each stale position is met.
fn meet_stale_positions(view: &View<'_>, naive: &Naive) {
    for txid in naive.txids() {
        match view.tx(txid) {
            Ok(_) | Err(QueryError::PositionRenewing { .. }) => {}
            Err(err) => panic!("{err}"),
        }
    }
}

/// Asks everything at the tip of the chain.
fn check(fixture: &mut Fixture) {
    let naive = Naive::new(&fixture.chain.blocks());
    fixture.index.shared.store.forget();
    meet_stale_positions(&fixture.query.view().unwrap(), &naive);
    fixture.catch_up().unwrap();
    naive.check(&fixture.query.view().unwrap());
}

fn run(ops: &[Op]) {
    let mut dir = scratch_dir();
    let chain = Arc::new(MemChain::new(&params()));
    let mut fixture = Fixture::open(dir.path(), Arc::clone(&chain));
    for op in ops {
        match op {
            Op::Mine { blocks, txs, seed } => mine(&chain, *blocks, *txs, *seed),
            Op::Reorg {
                depth,
                blocks,
                txs,
                seed,
            } => {
                let depth = (*depth).min(chain.active().len() - 1);
                chain.disconnect(depth);
                mine(&chain, blocks + 1, *txs, *seed);
            }
            Op::CatchUp => {
                fixture.catch_up().unwrap();
                check(&mut fixture);
            }
            Op::Reopen { filters } => {
                let config = if *filters { with_filters() } else { config() };
                fixture = reopen(fixture, dir.path(), &config);
            }
            Op::Ahead { headers } => {
                let tip = chain.active().len() as u32 - 1;
                chain.set_best_header(tip + headers);
            }
            Op::Kill { points } => {
                let killer = Killer::new(&fixture, dir.path(), *points, 1);
                fixture.catch_up().unwrap();
                let (image, _) = killer.take(&fixture).remove(0);
                drop(fixture);
                dir = image;
                fixture = open_image(dir.path(), &chain, &config());
            }
            Op::Flush => fixture.index.flush().unwrap(),
            Op::Restart { behind, seed } => {
                chain.move_blocks(&mut StdRng::seed_from_u64(*seed));
                let tip = chain.active().len() as u32 - 1;
                let indexed = fixture.index.tip().borrow().map_or(0, |tip| tip.height);
                fixture = fixture.reopen(dir.path());
                for shown in tip.saturating_sub(*behind)..=tip {
                    chain.show(shown);
                    fixture.catch_up().unwrap();
                    // Nothing of the chain that the node is on again was taken back.
                    assert!(fixture.index.tip().borrow().unwrap().height >= shown.min(indexed));
                }
            }
            Op::Move { seed } => chain.move_blocks(&mut StdRng::seed_from_u64(*seed)),
        }
    }
    chain.set_best_header(chain.active().len() as u32 - 1);
    fixture.catch_up().unwrap();
    check(&mut fixture);
    check_utxos(&fixture);
    let digest = undisturbed_digest(&chain);
    assert_eq!(fixture.index.digest().unwrap(), digest);

    // Whatever filters were kept meanwhile, all of them are right in the end.
    if !ops
        .iter()
        .any(|op| matches!(op, Op::Reopen { filters: true }))
    {
        return;
    }
    fixture = reopen(fixture, dir.path(), &with_filters());
    fixture.catch_up().unwrap();
    filters::check(&fixture);
    verify::check_clean_from(&fixture, 0);
    assert_eq!(fixture.index.digest().unwrap(), digest);
}

/// Cases to run: `PULSE_INDEX_CASES`, or few enough for every day.
fn cases() -> u32 {
    let cases = std::env::var("PULSE_INDEX_CASES").ok();
    cases.and_then(|cases| cases.parse().ok()).unwrap_or(1000)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_query_equals_the_naive_index(ops in proptest::collection::vec(op(), 1..10)) {
        run(&ops);
    }
}
