//! The next blocks, if the mempool were mined as it is.
//!
//! chunks in mining order -> blocks as Bitcoin Core's miner fills them
//!                        -> fee rate by depth, for the fee estimates
//!
//! A chunk that does not fit is left for the next block, with the later chunks of its
//! cluster, and smaller ones behind it may take the room (`node/miner.cpp`).
//!
//! # Limits
//! At most [`MAX_BLOCKS`] blocks; the last takes all the rest. Work is linear in the
//! number of chunks: each block looks at no more than [`MAX_TRIES`] chunks in a row that
//! do not fit.

#[cfg(test)]
mod tests;

use std::collections::HashSet;

use pulse_primitives::mempool::ProjectedBlock;

use crate::Mempool;

/// Most blocks that are told apart.
pub const MAX_BLOCKS: usize = 8;
/// Weight that a block has for transactions: the consensus limit less what Bitcoin Core's
/// miner keeps for the header, the transaction count and the coinbase, in weight units.
pub const BLOCK_ROOM: u64 = 4_000_000 - RESERVED_WEIGHT;
const RESERVED_WEIGHT: u64 = 8_000;
/// Cost of signature operations that a block has for transactions: the consensus limit
/// less what Bitcoin Core's miner keeps for the coinbase.
const BLOCK_SIGOP_COST: u64 = 80_000 - 400;
/// Chunks in a row that may fail to fit a nearly full block (Bitcoin Core's
/// `MAX_CONSECUTIVE_FAILURES`).
const MAX_TRIES_NEARLY_FULL: usize = 1_000;
/// A block with less room than this is nearly full, in weight units.
const NEARLY_FULL: u64 = 4_000;
/// Chunks in a row that may fail to fit any block. Bitcoin Core's miner has no such bound.
pub const MAX_TRIES: usize = 10_000;
/// Percentages of a block's weight at which [`ProjectedBlock::fee_range`] looks.
const FEE_RANGE_PERCENTS: [u64; 7] = [0, 10, 25, 50, 75, 90, 100];

/// Transactions of one cluster that are mined together: a chunk of its linearisation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chunk {
    /// Names the cluster; equal for chunks of one cluster and for no others.
    pub cluster: u64,
    /// Transactions.
    pub tx_count: u64,
    /// Sum of fees, in sat.
    pub fee_sat: u64,
    /// Sum of weights, in weight units.
    pub weight: u64,
    /// Sum of virtual sizes as policy sees them, in vB.
    pub vsize: u64,
    /// Sum of the costs of signature operations (BIP 141).
    pub sigop_cost: u64,
}

impl Chunk {
    /// Fee rate in sat/vB.
    fn fee_rate(&self) -> f64 {
        self.fee_sat as f64 / self.vsize.max(1) as f64
    }
}

/// What a mempool would be mined as.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Projection {
    /// The next blocks, best first. None if the mempool is empty.
    pub blocks: Vec<ProjectedBlock>,
    /// Fee rate by depth.
    pub depth: DepthCurve,
}

/// Fee rate of the mempool by depth: what the chunk pays that lies behind so many blocks'
/// weight of better ones. Never rises with depth.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DepthCurve {
    /// Rate in sat/vB at the end of `index + 1` blocks.
    rates: Vec<f64>,
}

impl DepthCurve {
    /// Fee rate in sat/vB at the end of the `blocks`-th block; `None` if the mempool does
    /// not fill so many, or for 0.
    #[must_use]
    pub fn at_block(&self, blocks: u16) -> Option<f64> {
        self.rates.get(usize::from(blocks).checked_sub(1)?).copied()
    }
}

impl Mempool {
    /// The next blocks, if it were mined as it is.
    #[must_use]
    pub fn project(&self) -> Projection {
        project(self.chunk_sums())
    }

    /// Its chunks, as [`project`] takes them: all of it that the projection needs, so that
    /// the mempool need not be held meanwhile.
    #[must_use]
    pub fn chunk_sums(&self) -> Vec<Chunk> {
        // In a loop of its own, which does nothing else but wait for memory: three times
        // faster than as a source that the projection draws from.
        self.chunks()
            .map(|chunk| Chunk {
                cluster: chunk.cluster,
                ..chunk.entries.fold(Chunk::default(), |sum, entry| Chunk {
                    cluster: 0,
                    tx_count: sum.tx_count + 1,
                    fee_sat: sum.fee_sat + entry.fee.to_sat(),
                    weight: sum.weight + entry.weight,
                    vsize: sum.vsize + entry.vsize,
                    sigop_cost: sum.sigop_cost + u64::from(entry.sigop_cost),
                })
            })
            .collect()
    }
}

/// Notes the curve as chunks pass in mining order.
#[derive(Default)]
struct DepthMeter {
    weight: u64,
    rate: Option<f64>,
    curve: DepthCurve,
}

impl DepthMeter {
    fn pass(&mut self, chunk: &Chunk) {
        // Chunks are ordered by weight and rates are by virtual size, which is rounded
        // up: neighbours can be out of order by a hair.
        let rate = self
            .rate
            .map_or(chunk.fee_rate(), |above| above.min(chunk.fee_rate()));
        self.rate = Some(rate);
        self.weight += chunk.weight;
        while (self.curve.rates.len() as u64) < self.weight / BLOCK_ROOM {
            self.curve.rates.push(rate);
        }
    }
}

/// Projects `chunks`, which come by falling fee rate, those of a cluster in the order of
/// its linearisation.
pub fn project(chunks: impl IntoIterator<Item = Chunk>) -> Projection {
    let mut meter = DepthMeter::default();
    let mut chunks = chunks.into_iter().inspect(|chunk| meter.pass(chunk));
    let mut blocks = Vec::new();
    let mut postponed = Vec::new();
    for _ in 1..MAX_BLOCKS {
        let mut block = Filling::default();
        postponed = block.fill(postponed, &mut chunks);
        blocks.extend(block.finish());
    }
    let mut rest = Filling::default();
    for chunk in postponed.into_iter().chain(chunks) {
        rest.take(&chunk);
    }
    blocks.extend(rest.finish());
    Projection {
        blocks,
        depth: meter.curve,
    }
}

/// A block while it is filled.
#[derive(Default)]
struct Filling {
    tx_count: u64,
    weight: u64,
    vsize: u64,
    fee_sat: u64,
    sigop_cost: u64,
    /// `(fee rate, weight)` of each chunk, by falling rate.
    rates: Vec<(f64, u64)>,
}

impl Filling {
    /// Fills the block from `first`, then from `chunks`. Returns, in order, the chunks
    /// that were looked at, or stood in `first`, and must wait for another block.
    fn fill(&mut self, first: Vec<Chunk>, chunks: &mut impl Iterator<Item = Chunk>) -> Vec<Chunk> {
        let mut postponed = Vec::new();
        let mut held_clusters = HashSet::new();
        let mut tries = 0;
        let mut first = first.into_iter();
        while let Some(chunk) = first.next().or_else(|| chunks.next()) {
            if self.fits(&chunk) && !held_clusters.contains(&chunk.cluster) {
                self.take(&chunk);
                tries = 0;
                continue;
            }
            held_clusters.insert(chunk.cluster);
            postponed.push(chunk);
            tries += 1;
            let nearly_full = self.weight + NEARLY_FULL > BLOCK_ROOM;
            if tries > MAX_TRIES || (tries > MAX_TRIES_NEARLY_FULL && nearly_full) {
                break;
            }
        }
        postponed.extend(first);
        postponed
    }

    /// Whether `chunk` fits; the limits themselves are not reached, as in Bitcoin Core.
    fn fits(&self, chunk: &Chunk) -> bool {
        self.weight + chunk.weight < BLOCK_ROOM
            && self.sigop_cost + chunk.sigop_cost < BLOCK_SIGOP_COST
    }

    fn take(&mut self, chunk: &Chunk) {
        self.tx_count += chunk.tx_count;
        self.weight += chunk.weight;
        self.vsize += chunk.vsize;
        self.fee_sat += chunk.fee_sat;
        self.sigop_cost += chunk.sigop_cost;
        let above = self.rates.last().map_or(f64::INFINITY, |&(rate, _)| rate);
        self.rates.push((chunk.fee_rate().min(above), chunk.weight));
    }

    /// The block; `None` if nothing is in it.
    fn finish(self) -> Option<ProjectedBlock> {
        let fee_range = fee_range(&self.rates, self.weight)?;
        Some(ProjectedBlock {
            tx_count: self.tx_count,
            weight: self.weight,
            vsize: self.vsize,
            total_fee_sat: self.fee_sat,
            fee_range,
            median_fee_rate: fee_range[3],
        })
    }
}

/// Rates at [`FEE_RANGE_PERCENTS`] of `total` weight, counted from the lowest rate: each is
/// that of the first chunk with which the percentage is reached. `None` without chunks.
fn fee_range(falling: &[(f64, u64)], total: u64) -> Option<[f64; 7]> {
    let mut rising = falling.iter().rev();
    let (mut rate, mut below) = *rising.next()?;
    Some(FEE_RANGE_PERCENTS.map(|percent| {
        while below * 100 < percent * total {
            let Some(&(next, weight)) = rising.next() else {
                break;
            };
            rate = next;
            below += weight;
        }
        rate
    }))
}
