//! The kernel as judge, over every kind of script that the simulator makes.

use std::collections::HashMap;

use pulse_mempool::TxJudge;
use pulse_node::chain::KernelJudge;
use pulse_primitives::bitcoin::{Amount, OutPoint, Transaction, TxOut, consensus::serialize};
use pulse_simulator::{Generator, GeneratorConfig};

/// Transactions of a simulated chain with the outputs that they spend.
fn transactions(blocks: usize) -> Vec<(Transaction, Vec<TxOut>)> {
    let mut generator = Generator::new(GeneratorConfig::regtest(4).txs_per_block(30));
    let mut coins: HashMap<OutPoint, TxOut> = HashMap::new();
    let mut all = Vec::new();
    for _ in 0..blocks {
        for tx in generator.next_block().txdata {
            if !tx.is_coinbase() {
                let spent = tx
                    .input
                    .iter()
                    .map(|input| coins[&input.previous_output].clone());
                all.push((tx.clone(), spent.collect()));
            }
            let txid = tx.compute_txid();
            for (output, vout) in tx.output.into_iter().zip(0..) {
                coins.insert(OutPoint::new(txid, vout), output);
            }
        }
    }
    assert!(all.len() > 500, "{}", all.len());
    all
}

#[test]
fn valid_transactions_of_every_kind_pass() {
    let judge = KernelJudge::default();
    for (tx, spent) in transactions(160) {
        let raw = serialize(&tx);
        assert_eq!(judge.check(&raw), Ok(()));
        assert_eq!(judge.verify(&raw, &spent), Ok(()), "{}", tx.compute_txid());
        assert!(judge.remembers(&tx.compute_wtxid()));
    }
}

#[test]
fn a_changed_output_fails_wherever_it_was_signed() {
    let judge = KernelJudge::default();
    let mut failed = 0;
    for (mut tx, spent) in transactions(160) {
        let only_anchors = spent.iter().all(|output| output.script_pubkey.len() == 4);
        if only_anchors {
            continue;
        }
        tx.output[0].value += Amount::from_sat(1);
        let failure = judge.verify(&serialize(&tx), &spent).unwrap_err();
        assert!(failure.input < spent.len());
        assert!(!judge.remembers(&tx.compute_wtxid()));
        failed += 1;
    }
    assert!(failed > 400, "{failed}");
}

#[test]
fn a_wrong_amount_of_a_spent_output_fails() {
    let judge = KernelJudge::default();
    let (tx, mut spent) = transactions(160)
        .into_iter()
        .find(|(_, spent)| spent[0].script_pubkey.is_p2wpkh())
        .unwrap();
    spent[0].value += Amount::from_sat(1);
    assert_eq!(judge.verify(&serialize(&tx), &spent).unwrap_err().input, 0);
}

#[test]
fn too_few_outputs_are_no_panic() {
    let judge = KernelJudge::default();
    let (tx, _) = transactions(160).remove(0);
    assert!(judge.verify(&serialize(&tx), &[]).is_err());
    assert!(judge.verify(b"nonsense", &[]).is_err());
    assert!(judge.check(b"nonsense").is_err());
}
