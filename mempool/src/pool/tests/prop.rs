use std::sync::Arc;

use proptest::prelude::*;
use pulse_primitives::bitcoin::{OutPoint, Transaction};

use crate::{
    AcceptError, AcceptOptions,
    cluster::{diagram, linearize::ChunkRate},
    testing::{Lab, NOW, TestBlock},
};

/// One step of a random life.
#[derive(Debug, Clone)]
enum Step {
    /// Spends some outputs, known by number, to some new ones for a fee.
    Spend(Vec<usize>, u64, u64),
    /// Confirms the first so many in mining order.
    Block(usize),
    /// Disconnects the newest block, if there is one, and connects an empty one.
    Reorg,
    /// Time passes.
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let spend = (
        prop::collection::vec(any::<usize>(), 1..4),
        1..4u64,
        0..5_000u64,
    );
    prop_oneof![
        20 => spend.prop_map(|(inputs, outputs, fee)| Step::Spend(inputs, outputs, fee)),
        2 => (0..8usize).prop_map(Step::Block),
        1 => Just(Step::Reorg),
        1 => (0..400_000u64).prop_map(Step::Wait),
    ]
}

fn diagram_of(lab: &Lab) -> Vec<ChunkRate> {
    let chunk = |rate| ChunkRate { rate, count: 0 };
    lab.pool.chunks().map(|c| chunk(c.rate)).collect()
}

fn spend(lab: &mut Lab, outputs: &mut Vec<OutPoint>, inputs: &[usize], count: u64, fee: u64) {
    let mut chosen: Vec<OutPoint> = Vec::new();
    for &n in inputs {
        let outpoint = outputs[n % outputs.len()];
        if !chosen.contains(&outpoint) {
            chosen.push(outpoint);
        }
    }
    let tx: Arc<Transaction> = lab.spend(&chosen, count, fee);
    let before = diagram_of(lab);
    match lab.try_accept(&tx, AcceptOptions::default()) {
        Ok(accepted) => {
            let txid = accepted.txid;
            let new = tx.output.iter().zip(0..);
            outputs.extend(new.map(|(_, vout)| OutPoint::new(txid, vout)));
            if !accepted.replaced.is_empty() {
                let better = diagram::compare_chunks(&diagram_of(lab), &before);
                assert_eq!(better, Some(std::cmp::Ordering::Greater));
            }
        }
        Err(AcceptError::Rejected(rejected)) => assert!(!rejected.reason.is_empty()),
        Err(other) => panic!("{other}"),
    }
}

fn connect_best(lab: &mut Lab, blocks: &mut Vec<TestBlock>, count: usize) {
    let order: Vec<Arc<Transaction>> = lab
        .pool
        .chunks()
        .flat_map(|chunk| chunk.entries.map(|e| Arc::clone(&e.tx)).collect::<Vec<_>>())
        .take(count)
        .collect();
    let branch = u8::try_from(blocks.len() % 200).unwrap();
    let mut block = lab.block(&order.iter().collect::<Vec<_>>(), branch);
    lab.connect(&mut block);
    blocks.push(block);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Indexes, clusters and order agree with a naive recomputation after every step
    /// (`Lab` asserts it), a replacement always improves the whole diagram, and nothing is
    /// left of the memory when all are gone.
    #[test]
    fn a_random_life_keeps_every_index(steps in prop::collection::vec(step(), 1..80)) {
        let mut lab = Lab::new();
        let mut outputs: Vec<OutPoint> = (0..12).map(|_| lab.coin(10_000_000)).collect();
        let mut blocks = Vec::new();
        for step in steps {
            match step {
                Step::Spend(inputs, count, fee) => {
                    spend(&mut lab, &mut outputs, &inputs, count, fee);
                }
                Step::Block(count) => connect_best(&mut lab, &mut blocks, count),
                Step::Reorg => {
                    let Some(block) = blocks.pop() else { continue };
                    lab.disconnect(&block);
                    let mut other = lab.block(&[], 250);
                    lab.connect(&mut other);
                    blocks.clear();
                    lab.pool
                        .finish_reorg(&lab.coins, &crate::testing::Lenient, lab.now)
                        .unwrap();
                    lab.pool.assert_consistent();
                }
                Step::Wait(secs) => {
                    lab.now += secs;
                    lab.pool.remove_expired(lab.now);
                    lab.pool.assert_consistent();
                }
            }
        }
        lab.pool.set_tip(None, NOW);
        prop_assert_eq!(lab.pool.usage_bytes(), 0);
        prop_assert_eq!(lab.pool.chunks().count(), 0);
    }
}
