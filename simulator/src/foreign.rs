//! Brings transactions that the generator has not made into one of its blocks.
//!
//! # Correctness
//! The mempool decides between two transactions that spend the same coin: what is in it
//! goes into the block, and the generator's own that conflict are left out with all that
//! build upon them. The result has parents before children.

use std::collections::HashSet;

use bitcoin::{OutPoint, Txid};
use pulse_primitives::mempool::MempoolTx;

use crate::{plan::PlannedTx, sign::SignedTx};

/// Weight that all transactions of a block may have, the coinbase apart.
const MAX_WEIGHT: u64 = 3_980_000;
/// Signature operations that the generator's own transactions leave (see `plan`).
const MAX_SIGOP_COST: u64 = 4_000;

/// Own transactions followed by foreign ones, and their fees together in satoshi.
///
/// `foreign` are consistent with the chain's tip, parents first, and may include the
/// generator's own.
pub(crate) fn merge(
    plan: &[PlannedTx],
    own: Vec<SignedTx>,
    foreign: Vec<MempoolTx>,
) -> (u64, Vec<SignedTx>) {
    let foreign = fitting(&own, foreign);
    let spent: HashSet<OutPoint> = foreign.iter().flat_map(|tx| spends(&tx.tx)).collect();
    let mut left_out: HashSet<Txid> = HashSet::new();
    let (mut fees, mut txs) = (0, Vec::new());
    for (planned, own) in plan.iter().zip(own) {
        let conflicts = spends(&own.tx)
            .any(|outpoint| spent.contains(&outpoint) || left_out.contains(&outpoint.txid));
        if conflicts {
            left_out.insert(own.txid);
        } else {
            fees += planned.fee;
            txs.push(own);
        }
    }
    for tx in foreign {
        if spends(&tx.tx).any(|outpoint| left_out.contains(&outpoint.txid)) {
            left_out.insert(tx.txid);
        } else {
            fees += tx.fee.to_sat();
            txs.push(SignedTx {
                tx: tx.tx.as_ref().clone(),
                txid: tx.txid,
                wtxid: tx.wtxid,
            });
        }
    }
    (fees, txs)
}

/// Those that are not the generator's own, as far as there is room for them.
fn fitting(own: &[SignedTx], foreign: Vec<MempoolTx>) -> Vec<MempoolTx> {
    let ids: HashSet<Txid> = own.iter().map(|tx| tx.txid).collect();
    let mut weight: u64 = own.iter().map(|own| own.tx.weight().to_wu()).sum();
    let mut sigop_cost = 0;
    let mut left_out: HashSet<Txid> = HashSet::new();
    let mut chosen = Vec::new();
    for tx in foreign.into_iter().filter(|tx| !ids.contains(&tx.txid)) {
        let orphaned = spends(&tx.tx).any(|outpoint| left_out.contains(&outpoint.txid));
        let fits = weight + tx.weight <= MAX_WEIGHT
            && sigop_cost + u64::from(tx.sigop_cost) <= MAX_SIGOP_COST;
        if orphaned || !fits {
            left_out.insert(tx.txid);
            continue;
        }
        weight += tx.weight;
        sigop_cost += u64::from(tx.sigop_cost);
        chosen.push(tx);
    }
    chosen
}

fn spends(tx: &bitcoin::Transaction) -> impl Iterator<Item = OutPoint> + '_ {
    tx.input.iter().map(|input| input.previous_output)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bitcoin::{Amount, Block, ScriptBuf, Transaction, TxOut, Weight};

    use super::*;
    use crate::{Generator, GeneratorConfig, mine::subsidy};

    const FEE: u64 = 700;

    fn config() -> GeneratorConfig {
        GeneratorConfig::regtest(4).txs_per_block(20)
    }

    /// Spends what `input` spends, for nobody checks signatures here.
    fn foreign(outpoint: OutPoint, value: u64, pays: ScriptBuf) -> MempoolTx {
        let mut tx = crate::mine::mine_block(crate::mine::BlockParts {
            height: 1,
            prev: bitcoin::hashes::Hash::all_zeros(),
            time: 0,
            bits: bitcoin::CompactTarget::from_consensus(0x207f_ffff),
            extra: vec![],
            outputs: vec![],
            txs: vec![],
        })
        .txdata
        .remove(0);
        tx.input[0].previous_output = outpoint;
        tx.output = vec![TxOut {
            value: Amount::from_sat(value - FEE),
            script_pubkey: pays,
        }];
        MempoolTx {
            txid: tx.compute_txid(),
            wtxid: tx.compute_wtxid(),
            prevouts: Arc::from([]),
            fee: Amount::from_sat(FEE),
            weight: tx.weight().to_wu(),
            vsize: tx.weight().to_vbytes_ceil(),
            sigop_cost: 1,
            time: 0,
            sequence: 1,
            tx: Arc::new(tx),
        }
    }

    fn value(blocks: &[Block], outpoint: &OutPoint) -> u64 {
        let txs = blocks.iter().flat_map(|block| &block.txdata);
        let tx: &Transaction = txs
            .into_iter()
            .find(|tx| tx.compute_txid() == outpoint.txid)
            .unwrap();
        tx.output[usize::try_from(outpoint.vout).unwrap()]
            .value
            .to_sat()
    }

    fn total(tx: &Transaction) -> u64 {
        tx.output.iter().map(|output| output.value.to_sat()).sum()
    }

    #[test]
    fn what_others_spend_the_generator_does_not_and_the_chain_goes_on() {
        let mut generator = Generator::new(config());
        let mut blocks: Vec<Block> = (0..140).map(|_| generator.next_block()).collect();
        for _ in 0..5 {
            let own = generator.clone().next_block();
            let outpoint = own.txdata[1].input[0].previous_output;
            let wallet = generator.wallet_scripts(0).pop().unwrap();
            let tx = foreign(outpoint, value(&blocks, &outpoint), wallet);
            let child = foreign(
                OutPoint::new(tx.txid, 0),
                total(&tx.tx),
                ScriptBuf::from_bytes(vec![0x51]),
            );
            let txids = [tx.txid, child.txid];
            let block = generator.next_block_with(own.header.time, vec![tx, child]);
            let found: Vec<Txid> = block.txdata.iter().map(Transaction::compute_txid).collect();
            assert!(found.ends_with(&txids));
            assert!(!found.contains(&own.txdata[1].compute_txid()));
            assert!(found.len() > 5, "the others stay");
            blocks.push(block.clone());
            let spent: u64 = block.txdata[1..]
                .iter()
                .flat_map(spends)
                .map(|outpoint| value(&blocks, &outpoint))
                .sum();
            let paid: u64 = block.txdata[1..].iter().map(total).sum();
            let height = generator.height();
            let subsidy = subsidy(generator.config().params.network, height).to_sat();
            assert_eq!(total(&block.txdata[0]), subsidy + spent - paid);
            let mut resumed = Generator::resume(config(), blocks.clone()).unwrap();
            let mut goes_on = generator.clone();
            for _ in 0..3 {
                assert_eq!(resumed.next_block(), goes_on.next_block());
            }
            // Blocks of its own are possible in between.
            blocks.push(generator.next_block());
        }
    }

    #[test]
    fn its_own_transactions_in_the_mempool_change_nothing() {
        let mut generator = Generator::new(config());
        (0..130).for_each(|_| drop(generator.next_block()));
        let own = generator.clone().next_block();
        let candidates = own.txdata[1..].iter().map(|tx| MempoolTx {
            tx: Arc::new(tx.clone()),
            txid: tx.compute_txid(),
            ..foreign(OutPoint::null(), FEE, ScriptBuf::new())
        });
        let candidates = candidates.collect();
        assert_eq!(generator.next_block_with(own.header.time, candidates), own);
    }

    #[test]
    fn what_has_no_room_is_left_out_with_its_children() {
        let mut big = foreign(OutPoint::null(), 9_000, ScriptBuf::new());
        big.weight = Weight::MAX_BLOCK.to_wu();
        let child = foreign(OutPoint::new(big.txid, 0), 8_000, ScriptBuf::new());
        let sibling = foreign(OutPoint::new(big.txid, 7), 7_000, ScriptBuf::new());
        let alone = foreign(OutPoint::null(), 6_000, ScriptBuf::new());
        let txid = alone.txid;
        let (fees, txs) = merge(&[], vec![], vec![big, child, sibling, alone]);
        assert_eq!(fees, FEE);
        assert_eq!(txs.iter().map(|tx| tx.txid).collect::<Vec<_>>(), [txid]);
    }
}
