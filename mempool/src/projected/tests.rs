use super::*;

/// A chunk of one transaction in a cluster of its own.
fn chunk(cluster: u64, rate: u64, vsize: u64) -> Chunk {
    Chunk {
        cluster,
        tx_count: 1,
        fee_sat: rate * vsize,
        weight: vsize * 4,
        vsize,
        sigop_cost: 0,
    }
}

/// Chunks of `vsize` vB that fill `blocks` blocks and a bit, all at `rate`.
fn uniform(blocks: u64, rate: u64, vsize: u64) -> Vec<Chunk> {
    (0..=blocks * BLOCK_ROOM / (vsize * 4))
        .map(|i| chunk(i, rate, vsize))
        .collect()
}

#[test]
fn empty_mempool_has_no_blocks() {
    assert_eq!(project([]), Projection::default());
}

#[test]
fn thin_mempool_is_one_block_without_depth() {
    let projection = project([chunk(0, 10, 200), chunk(1, 5, 300)]);
    assert_eq!(
        projection.blocks,
        [ProjectedBlock {
            tx_count: 2,
            weight: 2_000,
            vsize: 500,
            total_fee_sat: 3_500,
            fee_range: [5.0, 5.0, 5.0, 5.0, 10.0, 10.0, 10.0],
            median_fee_rate: 5.0,
        }]
    );
    assert_eq!(projection.depth.at_block(1), None);
}

#[test]
fn blocks_keep_room_for_header_and_coinbase() {
    let blocks = project(uniform(3, 1, 250)).blocks;
    // The limit itself is not reached: 3,991 chunks of 1,000 WU.
    assert_eq!(blocks[0].weight, 3_991_000);
    assert_eq!(blocks[1].weight, 3_991_000);
}

#[test]
fn smaller_chunk_takes_the_room_that_a_large_one_leaves() {
    let mut chunks = uniform(1, 9, 25_000);
    let large = chunks.pop().unwrap();
    // 39 of 100,000 WU are in, 92,000 WU are free.
    chunks.push(large);
    chunks.push(chunk(1_000, 2, 20_000));
    let blocks = project(chunks).blocks;
    assert_eq!(blocks[0].fee_range[0], 2.0);
    assert_eq!((blocks[1].tx_count, blocks[1].median_fee_rate), (1, 9.0));
}

#[test]
fn chunks_behind_a_postponed_one_of_their_cluster_wait() {
    let mut chunks = uniform(1, 9, 25_000);
    let last = chunks.len() - 1;
    chunks[last].cluster = 77;
    chunks.push(chunk(77, 2, 1_000));
    let blocks = project(chunks).blocks;
    assert_eq!(blocks[0].tx_count, last as u64);
    assert_eq!(blocks[1].tx_count, 2);
}

#[test]
fn signature_operations_fill_a_block_too() {
    let chunks = (0..10).map(|i| Chunk {
        sigop_cost: 16_000,
        ..chunk(i, 5, 1_000)
    });
    let blocks = project(chunks).blocks;
    // 79,600 hold four times 16,000.
    assert_eq!(
        blocks.iter().map(|b| b.tx_count).collect::<Vec<_>>(),
        [4, 4, 2]
    );
}

#[test]
fn eighth_block_holds_all_the_rest() {
    let chunks = uniform(20, 3, 1_000);
    let weight: u64 = chunks.iter().map(|c| c.weight).sum();
    let blocks = project(chunks).blocks;
    assert_eq!(blocks.len(), MAX_BLOCKS);
    assert!(blocks[7].weight > 12 * BLOCK_ROOM);
    assert_eq!(blocks.iter().map(|b| b.weight).sum::<u64>(), weight);
}

#[test]
fn chunk_too_large_for_any_block_ends_in_the_last() {
    let blocks = project([chunk(0, 9, BLOCK_ROOM), chunk(1, 3, 100)]).blocks;
    assert_eq!(
        blocks.iter().map(|b| b.tx_count).collect::<Vec<_>>(),
        [1, 1]
    );
    assert_eq!(blocks[1].median_fee_rate, 9.0);
}

#[test]
fn fee_range_is_by_weight() {
    // 10 % of the weight pays 100, 40 % pays 50, 50 % pays 1.
    let blocks = project([chunk(0, 100, 100), chunk(1, 50, 400), chunk(2, 1, 500)]).blocks;
    assert_eq!(blocks[0].fee_range, [1.0, 1.0, 1.0, 1.0, 50.0, 50.0, 100.0]);
}

#[test]
fn depth_is_the_rate_at_the_end_of_each_block() {
    let per_block = usize::try_from(BLOCK_ROOM / 4_000).unwrap();
    let chunks: Vec<_> = (0..per_block * 3)
        .map(|i| chunk(i as u64, 30 - (i / per_block) as u64 * 10, 1_000))
        .collect();
    let depth = project(chunks).depth;
    assert_eq!(
        [1, 2, 3, 4].map(|block| depth.at_block(block)),
        [Some(30.0), Some(20.0), Some(10.0), None]
    );
    assert_eq!(depth.at_block(0), None);
}

#[test]
fn depth_counts_what_the_last_block_lumps_together() {
    assert_eq!(project(uniform(20, 3, 1_000)).depth.at_block(20), Some(3.0));
}

#[test]
fn rates_never_rise_although_sizes_are_rounded_up() {
    // Equal by weight, not by size: 5 WU are 2 vB.
    let odd = Chunk {
        weight: 5,
        vsize: 2,
        fee_sat: 5,
        ..chunk(0, 0, 0)
    };
    let even = Chunk {
        weight: 4,
        vsize: 1,
        fee_sat: 4,
        ..chunk(1, 0, 0)
    };
    let range = project([odd, even]).blocks[0].fee_range;
    assert!(range.is_sorted(), "{range:?}");
}

#[test]
fn nothing_is_lost_or_doubled() {
    let mut seed = 7_u64;
    let chunks: Vec<_> = (0..60_000)
        .map(|i| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            chunk(i / 3, 60_000 - i, 50 + (seed >> 33) % 20_000)
        })
        .collect();
    let blocks = project(chunks.iter().copied()).blocks;
    let sum = |part: fn(&ProjectedBlock) -> u64| blocks.iter().map(part).sum::<u64>();
    assert_eq!(sum(|b| b.tx_count), 60_000);
    assert_eq!(
        sum(|b| b.total_fee_sat),
        chunks.iter().map(|c| c.fee_sat).sum::<u64>()
    );
    assert!(
        blocks[..7]
            .iter()
            .all(|b| b.weight < BLOCK_ROOM && b.weight > BLOCK_ROOM - 8_000)
    );
    assert!(blocks.iter().all(|b| b.fee_range.is_sorted()));
}
