//! The parts that need no mempool: projected blocks, histogram and estimates, for as much
//! as 300 MB of mempool hold.
#![allow(
    missing_docs,
    reason = "criterion's macros make undocumented functions"
)]
#![allow(clippy::unwrap_used, reason = "a bench may")]

use criterion::{Criterion, criterion_group, criterion_main};
use pulse_mempool::{
    backlog::backlog,
    fees::{EnteredTx, FeeEstimator, Market},
    projected::{Chunk, project},
};
use pulse_primitives::bitcoin::{Txid, hashes::Hash};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const CHUNKS: u64 = 400_000;

/// Chunks in mining order; most of 141 vB, some far larger.
fn chunks() -> Vec<Chunk> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut chunks: Vec<Chunk> = (0..CHUNKS)
        .map(|cluster| {
            let vsize = if rng.gen_ratio(1, 10) {
                rng.gen_range(200..20_000)
            } else {
                141
            };
            Chunk {
                cluster: cluster / 2,
                tx_count: 1,
                fee_sat: vsize * rng.gen_range(100..50_000) / 1000,
                weight: vsize * 4,
                vsize,
                sigop_cost: 1,
            }
        })
        .collect();
    chunks.sort_by(|a, b| (b.fee_sat * a.vsize).cmp(&(a.fee_sat * b.vsize)));
    chunks
}

/// An estimator that has seen 1000 blocks and has 300,000 transactions waiting.
fn estimator(rng: &mut ChaCha8Rng) -> FeeEstimator {
    let mut estimator = FeeEstimator::new();
    let mut number = 0_u64;
    let mut enter = |estimator: &mut FeeEstimator, height, count| -> Vec<Txid> {
        (0..count)
            .map(|_| {
                number += 1;
                let tx = EnteredTx {
                    txid: Txid::hash(&number.to_le_bytes()),
                    fee_sat: rng.gen_range(14..5_000),
                    vsize: 141,
                    height,
                    time: 0,
                    telling: true,
                };
                estimator.entered(&tx);
                tx.txid
            })
            .collect()
    };
    for height in 1..=1000 {
        let txids = enter(&mut estimator, height - 1, 200);
        estimator.block(height, 0, &txids);
    }
    enter(&mut estimator, 1000, 300_000);
    estimator
}

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mempool of 400,000 chunks");
    group.sample_size(20);
    let chunks = chunks();
    group.bench_function("projected blocks", |bencher| {
        bencher.iter(|| project(chunks.iter().copied()));
    });
    group.bench_function("fee histogram", |bencher| {
        bencher.iter(|| backlog(chunks.iter().map(|c| (c.fee_sat, c.weight)), 0));
    });
    let estimator = estimator(&mut ChaCha8Rng::seed_from_u64(2));
    let depth = project(chunks.iter().copied()).depth;
    let market = Market {
        depth: &depth,
        min_fee_rate_sat_kvb: 100,
        synced: true,
        now: 0,
    };
    assert_eq!(estimator.estimates(&market).by_target.len(), 28);
    group.bench_function("fee estimates", |bencher| {
        bencher.iter(|| estimator.estimates(&market))
    });
    group.bench_function("history saved", |bencher| {
        bencher.iter(|| estimator.to_bytes(0))
    });
    let txids: Vec<Txid> = (200_001..203_001_u64)
        .map(|n| Txid::hash(&n.to_le_bytes()))
        .collect();
    group.bench_function("history of a block of 3,000", |bencher| {
        bencher.iter_batched_ref(
            || estimator.clone(),
            |estimator| estimator.block(1001, 0, &txids),
            criterion::BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
