//! The mempool at work; scripts are not checked.
#![allow(
    missing_docs,
    reason = "criterion's macros make undocumented functions"
)]
#![allow(clippy::unwrap_used, reason = "a bench may")]

mod traffic;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use pulse_mempool::AcceptOptions;
use pulse_primitives::bitcoin::{OutPoint, Transaction};
use traffic::{Lenient, NOW, Scene, Spendable};

const IN_POOL: usize = 100_000;
const BLOCK: usize = 3_000;

fn acceptance(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("100,000 in the pool");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(10));
    let mut scene = Scene::with(1_000, IN_POOL);
    group.throughput(Throughput::Elements(1));
    group.bench_function("a transaction is accepted", |bencher| {
        bencher.iter_custom(|count| {
            let txs: Vec<_> = (0..count).map(|_| scene.traffic.next()).collect();
            let start = Instant::now();
            let accepted = txs.iter().filter(|tx| scene.accept(tx)).count();
            let elapsed = start.elapsed();
            assert_eq!(accepted, txs.len());
            scene.level(IN_POOL);
            elapsed
        });
    });
    drop(scene);
    let mut scene = Scene::with(1_000, IN_POOL);
    group.throughput(Throughput::Elements(BLOCK as u64));
    group.bench_function("a block of 3,000 is connected", |bencher| {
        bencher.iter_custom(|count| {
            let mut elapsed = Duration::ZERO;
            for _ in 0..count {
                let (block, txids, tip) = scene.block(BLOCK);
                let start = Instant::now();
                scene.pool.connect_block(&block, &txids, tip, NOW).unwrap();
                elapsed += start.elapsed();
                scene.settle(&block, &txids, tip);
                scene.level(IN_POOL);
            }
            elapsed
        });
    });
    group.finish();
}

fn at_the_cap(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("300 MiB in the pool");
    group
        .sample_size(10)
        .measurement_time(Duration::from_secs(10));
    let mut scene = Scene::new(300);
    scene.fill_up();
    group.bench_function("projected blocks", |bencher| {
        bencher.iter(|| scene.pool.project())
    });
    group.bench_function("backlog", |bencher| bencher.iter(|| scene.pool.backlog()));
    group.throughput(Throughput::Elements(1));
    group.bench_function("a transaction is accepted, the worst evicted", |bencher| {
        bencher.iter_custom(|count| {
            scene.traffic.least_rate = scene.pool.min_fee_rate(NOW) * 2;
            let txs: Vec<_> = (0..count).map(|_| scene.traffic.next()).collect();
            let start = Instant::now();
            let accepted = txs.iter().filter(|tx| scene.accept(tx)).count();
            let elapsed = start.elapsed();
            // Some spend what was evicted.
            assert!(accepted as u64 * 10 > count * 6, "{accepted} of {count}");
            scene.pool.take_events();
            elapsed
        });
    });
    group.finish();
}

/// Fills a mempool with a cluster of 63; the 64th transaction.
type Shape = fn(&mut Scene) -> Arc<Transaction>;

/// The last transaction of a cluster of 64, by the shape of the other 63.
fn clusters(criterion: &mut Criterion) {
    let shapes: [(&str, Shape); 5] = [
        ("chain", chain),
        ("fan-out", fan_out),
        ("fan-in", fan_in),
        ("layers", layers),
        ("crossed", crossed),
    ];
    let mut group = criterion.benchmark_group("64th transaction of a cluster");
    for (name, shape) in shapes {
        let mut scene = Scene::new(300);
        let last = shape(&mut scene);
        assert_eq!(scene.pool.len(), 63);
        let check = |scene: &Scene| {
            let options = AcceptOptions::default();
            scene
                .pool
                .prepare(&last, &scene.coins, &Lenient, NOW, options)
                .unwrap()
        };
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| (), |()| check(&scene), BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// Outputs of an accepted transaction.
fn outputs(tx: &Transaction, coin: &Spendable) -> Vec<Spendable> {
    let txid = tx.compute_txid();
    let of = |(vout, output): (u32, _)| Spendable {
        outpoint: OutPoint::new(txid, vout),
        output: Clone::clone(output),
        ..coin.clone()
    };
    (0..).zip(&tx.output).map(of).collect()
}

/// Accepts a transaction that spends `inputs`; its outputs.
fn accept(scene: &mut Scene, inputs: &[Spendable], count: u64, rate: u64) -> Vec<Spendable> {
    let tx = scene.traffic.spend(inputs, count, rate);
    assert!(scene.accept(&tx));
    outputs(&tx, &inputs[0])
}

/// Rates that rise along the chain, so that all is one chunk.
fn chain(scene: &mut Scene) -> Arc<Transaction> {
    let mut tip = scene.traffic.coin();
    for i in 0..63 {
        tip = accept(scene, &[tip], 1, 1_000 + i * 100).remove(0);
    }
    scene.traffic.spend(&[tip], 1, 9_000)
}

fn fan_out(scene: &mut Scene) -> Arc<Transaction> {
    let coin = scene.traffic.coin();
    let mut leaves = accept(scene, &[coin], 63, 500);
    for i in 0..62 {
        let leaf = leaves.remove(0);
        accept(scene, &[leaf], 1, 1_000 + i * 37 % 23 * 100);
    }
    scene.traffic.spend(&leaves, 1, 9_000)
}

fn fan_in(scene: &mut Scene) -> Arc<Transaction> {
    let mut parents = Vec::new();
    for i in 0..63 {
        let coin = scene.traffic.coin();
        parents.extend(accept(scene, &[coin], 1, 1_000 + i * 37 % 23 * 100));
    }
    scene.traffic.spend(&parents, 1, 9_000)
}

/// Seven layers of nine, each spending from three of the layer before.
fn layers(scene: &mut Scene) -> Arc<Transaction> {
    let mut above: Vec<Vec<Spendable>> = (0..9)
        .map(|i| {
            let coin = scene.traffic.coin();
            accept(scene, &[coin], 3, 1_000 + i * 37 % 23 * 100)
        })
        .collect();
    for layer in 1..7_u64 {
        let below: Vec<Vec<Spendable>> = (0..9_usize)
            .map(|i| {
                let spent = [0, 1, 4].map(|step| above[(i + step) % 9].remove(0));
                accept(
                    scene,
                    &spent,
                    3,
                    1_000 + (layer * 9 + i as u64) * 37 % 23 * 100,
                )
            })
            .collect();
        above = below;
    }
    let spent: Vec<Spendable> = above.into_iter().flatten().collect();
    scene.traffic.spend(&spent, 1, 9_000)
}

/// 32 poor parents, and children that each pay for some ten of them: the hardest to order
/// that are known.
fn crossed(scene: &mut Scene) -> Arc<Transaction> {
    let mut parents: Vec<Vec<Spendable>> = (0..32)
        .map(|i| {
            let coin = scene.traffic.coin();
            accept(scene, &[coin], 20, 150 + i * 37 % 23 * 10)
        })
        .collect();
    let mut spent = |child: usize| -> Vec<Spendable> {
        let near = (0..32).filter(|parent| ((child * 37 + parent * 101) % 97).is_multiple_of(3));
        near.filter_map(|parent: usize| parents[parent].pop())
            .collect()
    };
    for child in 0..31 {
        let inputs = spent(child);
        accept(scene, &inputs, 1, 1_000 + child as u64 * 37 % 23 * 400);
    }
    scene.traffic.spend(&spent(31), 1, 9_000)
}

criterion_group!(all, acceptance, at_the_cap, clusters);
criterion_main!(all);
