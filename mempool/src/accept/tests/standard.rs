//! One refusal each, with Bitcoin Core's reason and detail.

use std::sync::Arc;

use pulse_primitives::bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, Witness, absolute::LockTime,
    hashes::Hash, transaction::Version,
};

use crate::{
    RejectClass,
    policy::MAX_MONEY,
    testing::{BAD_SCRIPT, Lab, TIP, input, out, output, script},
};

fn changed(change: impl FnOnce(&mut Transaction)) -> (String, String) {
    let mut lab = Lab::new();
    let coin = lab.coin(10_000_000);
    let tx = lab.build(&[coin], 2, 100_000, change);
    lab.reason(&tx)
}

fn reason(change: impl FnOnce(&mut Transaction)) -> String {
    changed(change).0
}

/// Refusal of a transaction that spends an output of `script_pubkey` by `witness` and
/// `script_sig`.
fn spending(script_pubkey: Vec<u8>, script_sig: Vec<u8>, witness: &[Vec<u8>]) -> (String, String) {
    let mut lab = Lab::new();
    let coin = lab.coin_of(10_000_000, ScriptBuf::from_bytes(script_pubkey), 5, false);
    let tx = lab.build(&[coin], 1, 1_000_000, |tx| {
        tx.input[0].script_sig = ScriptBuf::from_bytes(script_sig);
        tx.input[0].witness = Witness::from_slice(witness);
    });
    match lab.try_accept(&tx, crate::AcceptOptions::default()) {
        Ok(_) => ("accepted".to_owned(), String::new()),
        Err(crate::AcceptError::Rejected(r)) => (r.reason.into_owned(), r.debug),
        Err(other) => panic!("{other}"),
    }
}

fn p2sh() -> Vec<u8> {
    let mut script = vec![0xa9, 20];
    script.resize(22, 5);
    script.push(0x87);
    script
}

fn program(version: u8, len: usize) -> Vec<u8> {
    let mut script = vec![version, u8::try_from(len).unwrap()];
    script.resize(2 + len, 5);
    script
}

#[test]
fn context_free_rules_have_their_reasons() {
    assert_eq!(reason(|tx| tx.input.clear()), "bad-txns-vin-empty");
    assert_eq!(reason(|tx| tx.output.clear()), "bad-txns-vout-empty");
    let huge = |tx: &mut Transaction| {
        tx.output[0].script_pubkey = ScriptBuf::from_bytes(vec![0; 1_000_000]);
    };
    assert_eq!(reason(huge), "bad-txns-oversize");
    let value = |sat: u64| move |tx: &mut Transaction| tx.output[0].value = Amount::from_sat(sat);
    assert_eq!(reason(value(u64::MAX)), "bad-txns-vout-negative");
    assert_eq!(reason(value(MAX_MONEY + 1)), "bad-txns-vout-toolarge");
    assert_eq!(reason(value(MAX_MONEY)), "bad-txns-txouttotal-toolarge");
    let double = |tx: &mut Transaction| tx.input.push(tx.input[0].clone());
    assert_eq!(reason(double), "bad-txns-inputs-duplicate");
    let null = |tx: &mut Transaction| tx.input.push(input(OutPoint::null()));
    assert_eq!(reason(null), "bad-txns-prevout-null");
    let coinbase = |len: usize| {
        move |tx: &mut Transaction| {
            tx.input = vec![TxIn {
                script_sig: ScriptBuf::from_bytes(vec![0; len]),
                ..input(OutPoint::null())
            }];
        }
    };
    assert_eq!(reason(coinbase(1)), "bad-cb-length");
    assert_eq!(reason(coinbase(2)), "coinbase");
}

#[test]
fn standardness_has_its_reasons() {
    assert_eq!(reason(|tx| tx.version = Version(0)), "version");
    assert_eq!(reason(|tx| tx.version = Version(4)), "version");
    let large = |tx: &mut Transaction| {
        tx.output = vec![output(1_000, script(1)); 3_300];
    };
    assert_eq!(reason(large), "tx-size");
    let sig = |bytes: Vec<u8>| {
        move |tx: &mut Transaction| tx.input[0].script_sig = ScriptBuf::from_bytes(bytes)
    };
    assert_eq!(reason(sig(vec![0; 1_651])), "scriptsig-size");
    assert_eq!(reason(sig(vec![0x76])), "scriptsig-not-pushonly");
    let pay = |bytes: Vec<u8>| {
        move |tx: &mut Transaction| tx.output[0].script_pubkey = ScriptBuf::from_bytes(bytes)
    };
    assert_eq!(reason(pay(vec![0x76])), "scriptpubkey");
    let mut data = vec![0x6a, 0x4e];
    data.extend(49_995u32.to_le_bytes());
    data.resize(50_001, 1);
    let carry = move |tx: &mut Transaction| {
        for output in &mut tx.output {
            output.script_pubkey = ScriptBuf::from_bytes(data.clone());
            output.value = Amount::ZERO;
        }
    };
    assert_eq!(reason(carry), "tx-size", "weighs more than data may");
    let dust = |tx: &mut Transaction| {
        for output in &mut tx.output {
            output.value = Amount::from_sat(293);
        }
    };
    assert_eq!(reason(dust), "dust");
    let small = |tx: &mut Transaction| {
        tx.output = vec![output(0, ScriptBuf::from_bytes(vec![0x6a]))];
    };
    assert_eq!(reason(small), "tx-size-small");
}

#[test]
fn one_dust_output_needs_a_free_transaction() {
    let dust = |tx: &mut Transaction| tx.output[0].value = Amount::from_sat(293);
    let expected = (
        "dust".to_owned(),
        "tx with dust output must be 0-fee".to_owned(),
    );
    assert_eq!(changed(dust), expected);
}

#[test]
fn two_hundred_ninety_four_sat_to_a_witness_program_are_no_dust() {
    let mut lab = Lab::new();
    let coin = lab.coin(10_000_000);
    let tx = lab.build(&[coin], 2, 100_000, |tx| {
        tx.output[0].value = Amount::from_sat(294);
        tx.output[1].value = Amount::from_sat(294);
    });
    lab.accept(&tx);
}

#[test]
fn bare_multisig_is_standard_up_to_three_keys() {
    let multisig = |keys: u8| {
        let mut bytes = vec![0x51];
        for _ in 0..keys {
            bytes.extend([33, 2]);
            bytes.extend([9; 32]);
        }
        bytes.extend([0x50 + keys, 0xae]);
        bytes
    };
    let mut lab = Lab::new();
    let coin = lab.coin(10_000_000);
    let tx = lab.build(&[coin], 2, 100_000, |tx| {
        tx.output[0].script_pubkey = ScriptBuf::from_bytes(multisig(3));
    });
    lab.accept(&tx);
    let four = |tx: &mut Transaction| {
        tx.output[0].script_pubkey = ScriptBuf::from_bytes(multisig(4));
    };
    assert_eq!(reason(four), "scriptpubkey");
}

#[test]
fn locks_are_by_the_next_block() {
    let locked = |lock: u32| {
        move |tx: &mut Transaction| {
            tx.lock_time = LockTime::from_consensus(lock);
            tx.input[0].sequence = Sequence::ZERO;
        }
    };
    assert_eq!(reason(locked(TIP + 1)), "non-final");
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let tx = lab.build(&[coin], 1, 1_000, locked(TIP));
    lab.accept(&tx);
    // Times are of the years after 1985: the median time past of the tests is before.
    assert_eq!(reason(locked(500_000_000)), "non-final");
    let final_anyway = lab.coin(1_000_000);
    let tx = lab.build(&[final_anyway], 1, 1_000, |tx| {
        tx.lock_time = LockTime::from_consensus(TIP + 500);
    });
    lab.accept(&tx);
}

#[test]
fn ages_of_inputs_are_counted_in_the_next_block() {
    // The coin of `Lab::coin` is at TIP - 10: in the next block it is eleven old.
    let aged =
        |sequence: u32| move |tx: &mut Transaction| tx.input[0].sequence = Sequence(sequence);
    let mut lab = Lab::new();
    let mut check = |sequence: u32| {
        let coin = lab.coin(1_000_000);
        let tx = lab.build(&[coin], 1, 1_000, aged(sequence));
        lab.try_accept(&tx, crate::AcceptOptions::default()).is_ok()
    };
    assert!(check(11));
    assert!(!check(12));
    // Median times are 600 s apart; the coin's clock starts at the block before it.
    let units = |n: u32| 1 << 22 | n;
    assert!(check(units(11 * 600 / 512)));
    assert!(!check(units(11 * 600 / 512 + 1)));
    assert!(check(1 << 31 | 500), "the bit that switches it off");
    assert_eq!(reason(aged(12)), "non-BIP68-final");
}

#[test]
fn version_1_has_no_relative_locks() {
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let tx = lab.build(&[coin], 1, 1_000, |tx| {
        tx.version = Version::ONE;
        tx.input[0].sequence = Sequence(500);
    });
    lab.accept(&tx);
}

#[test]
fn an_unconfirmed_parent_has_age_zero() {
    let mut lab = Lab::new();
    let parent = lab.single(1_000);
    let one = lab.build(&[out(&parent, 0)], 1, 1_000, |tx| {
        tx.input[0].sequence = Sequence(1);
    });
    assert_eq!(lab.reason(&one).0, "non-BIP68-final");
    let zero = lab.build(&[out(&parent, 0)], 1, 1_000, |tx| {
        tx.input[0].sequence = Sequence(0);
    });
    lab.accept(&zero);
}

#[test]
fn what_is_here_or_confirmed_is_told_apart() {
    let mut lab = Lab::new();
    let tx = lab.single(1_000);
    assert_eq!(lab.reason(&tx).0, "txn-already-in-mempool");
    let mut other = (*tx).clone();
    other.input[0].witness.push([1, 2, 3]);
    let other = Arc::new(other);
    assert_eq!(lab.reason(&other).0, "txn-same-nonwitness-data-in-mempool");
    let mut block = lab.block(&[&tx], 1);
    lab.connect(&mut block);
    let rejected = lab.refuse(&tx);
    assert_eq!(rejected.reason, "txn-already-known");
    assert_eq!(rejected.class, RejectClass::Conflict);
}

#[test]
fn missing_parents_are_named_once() {
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let parent = lab.spend(&[coin], 2, 1_000);
    let child = lab.spend(&[out(&parent, 0), out(&parent, 1)], 1, 1_000);
    let rejected = lab.refuse(&child);
    assert_eq!(rejected.reason, "bad-txns-inputs-missingorspent");
    assert_eq!(rejected.class, RejectClass::MissingInputs);
    assert_eq!(rejected.missing_parents, [parent.compute_txid()]);
    lab.accept(&parent);
    lab.accept(&child);
    let ghost = out(&parent, 7);
    let tx = Arc::new(Transaction {
        input: vec![input(ghost)],
        ..(*parent).clone()
    });
    assert_eq!(lab.refuse(&tx).missing_parents, [parent.compute_txid()]);
}

#[test]
fn more_out_than_in_is_refused() {
    let more = |tx: &mut Transaction| tx.output[0].value = Amount::from_sat(10_000_001);
    let (reason, debug) = changed(more);
    assert_eq!(reason, "bad-txns-in-belowout");
    assert_eq!(debug, "value in (0.10) < value out (0.14950001)");
}

#[test]
fn a_young_coinbase_is_refused_with_its_depth() {
    let mut lab = Lab::new();
    let coin = lab.coin_of(1_000_000, script(1), TIP - 50, true);
    let tx = lab.spend(&[coin], 1, 1_000);
    let expected = (
        "bad-txns-premature-spend-of-coinbase".to_owned(),
        "tried to spend coinbase at depth 51".to_owned(),
    );
    assert_eq!(lab.reason(&tx), expected);
}

#[test]
fn inputs_of_unknown_scripts_are_refused() {
    let refused = |debug: &str| ("bad-txns-nonstandard-inputs".to_owned(), debug.to_owned());
    let unknown = spending(vec![0x51], vec![], &[]);
    assert_eq!(unknown, refused("input 0 script unknown"));
    let future = spending(program(0x52, 32), vec![], &[]);
    assert_eq!(future, refused("input 0 witness program is undefined"));
    let empty = spending(p2sh(), vec![], &[]);
    assert_eq!(empty, refused("input 0 P2SH redeemscript missing"));
    let sigops = spending(p2sh(), [vec![16], vec![0xac; 16]].concat(), &[]);
    let debug = "p2sh redeemscript sigops exceed limit (input 0: 16 > 15)";
    assert_eq!(sigops, refused(debug));
    let fifteen = spending(p2sh(), [vec![15], vec![0xac; 15]].concat(), &[]);
    assert_eq!(fifteen.0, "accepted");
    let reserved = spending(p2sh(), vec![0x50], &[]);
    let debug = "p2sh scriptsig malformed (input 0: Opcode missing or not understood)";
    assert_eq!(reserved, refused(debug));
}

#[test]
fn more_than_2500_legacy_sigops_are_refused() {
    // A redeem script of 15 in each of 167 inputs: 2505.
    let mut lab = Lab::new();
    let coins: Vec<_> = (0..167)
        .map(|_| lab.coin_of(100_000, ScriptBuf::from_bytes(p2sh()), 5, false))
        .collect();
    let spend = |lab: &mut Lab, count: usize| {
        lab.build(&coins[..count], 1, 1_000_000, |tx| {
            for input in &mut tx.input {
                let sig = [vec![15], vec![0xac; 15]].concat();
                input.script_sig = ScriptBuf::from_bytes(sig);
            }
        })
    };
    let tx = spend(&mut lab, 167);
    let (reason, debug) = lab.reason(&tx);
    assert_eq!(reason, "bad-txns-nonstandard-inputs");
    assert_eq!(debug, "non-witness sigops exceed bip54 limit");
    let tx = spend(&mut lab, 166);
    lab.accept(&tx);
}

#[test]
fn witnesses_have_their_limits() {
    let p2wsh = || program(0, 32);
    let taproot = || program(0x51, 32);
    let refused = "bad-witness-nonstandard";
    // A script of OP_NOP, or any bytes.
    let item = |len: usize| vec![0x61; len];
    let w = |script: Vec<u8>, witness: &[Vec<u8>]| spending(script, vec![], witness).0;
    assert_eq!(w(p2wsh(), &[item(80), item(3_600)]), "accepted");
    assert_eq!(w(p2wsh(), &[item(81), item(10)]), refused);
    assert_eq!(w(p2wsh(), &[item(80), item(3_601)]), refused);
    assert_eq!(w(p2wsh(), &vec![item(1); 102]), refused);
    assert_eq!(w(p2wsh(), &vec![item(1); 101]), "accepted");
    assert_eq!(w(vec![0x51, 2, 0x4e, 0x73], &[item(1)]), refused, "anchor");
    let leaf = |version: u8| {
        let mut control = vec![version];
        control.resize(33, 3);
        control
    };
    assert_eq!(w(taproot(), &[item(64)]), "accepted", "a key's signature");
    assert_eq!(w(taproot(), &[item(64), vec![0x50, 1]]), refused, "annex");
    assert_eq!(w(taproot(), &[item(80), item(200), leaf(0xc0)]), "accepted");
    assert_eq!(w(taproot(), &[item(81), item(200), leaf(0xc1)]), refused);
    let reserved =
        "mempool-script-verify-flag-failed (Taproot version reserved for soft-fork upgrades)";
    assert_eq!(w(taproot(), &[item(81), item(200), leaf(0xc2)]), reserved);
    assert_eq!(
        w(taproot(), &[item(1), vec![]]),
        refused,
        "no control block"
    );
    let mut p2pkh = vec![0x76, 0xa9, 20];
    p2pkh.resize(23, 4);
    p2pkh.extend([0x88, 0xac]);
    assert_eq!(w(p2pkh, &[item(1)]), refused, "no witness program");
}

#[test]
fn many_sigops_make_a_transaction_larger_and_too_many_are_refused() {
    let multisigs = |count: usize| vec![0xae; count];
    let spend = |count: usize, inputs: usize| {
        let mut lab = Lab::new();
        let script = ScriptBuf::from_bytes(program(0, 32));
        let coins: Vec<_> = (0..inputs)
            .map(|_| lab.coin_of(1_000_000, script.clone(), 5, false))
            .collect();
        let tx = lab.build(&coins, 1, 900_000, |tx| {
            for input in &mut tx.input {
                input.witness.push(multisigs(count));
            }
        });
        (lab, tx)
    };
    let (mut lab, tx) = spend(100, 1);
    let accepted = lab.accept(&tx);
    assert_eq!(accepted.tx.vsize, 100 * 20 * 20 / 4);
    assert!((tx.vsize() as u64) < accepted.tx.vsize);
    let (mut lab, tx) = spend(401, 2);
    let expected = ("bad-txns-too-many-sigops".to_owned(), "16040".to_owned());
    assert_eq!(lab.reason(&tx), expected);
}

#[test]
fn failing_scripts_come_last_and_name_the_input() {
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let bad = |tx: &mut Transaction| {
        tx.input[0].sequence = BAD_SCRIPT;
        tx.input[0].witness.push([1]);
    };
    let tx = lab.build(&[coin], 1, 1_000, bad);
    let rejected = lab.refuse(&tx);
    assert_eq!(rejected.class, RejectClass::NotStandard);
    assert_eq!(
        rejected.reason,
        "mempool-script-verify-flag-failed (told to)"
    );
    let (txid, wtxid) = (tx.compute_txid(), tx.compute_wtxid());
    let debug = format!("input 0 of {txid} (wtxid {wtxid}), spending {coin}");
    assert_eq!(rejected.debug, debug);
    let cheap = lab.build(&[coin], 1, 1, bad);
    assert_eq!(lab.reason(&cheap).0, "min relay fee not met");
}

#[test]
fn a_missing_witness_is_told_from_a_bad_one() {
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let bad = |tx: &mut Transaction| tx.input[0].sequence = BAD_SCRIPT;
    let tx = lab.build(&[coin], 1, 1_000, bad);
    assert_eq!(lab.refuse(&tx).class, RejectClass::WitnessStripped);
    let mut p2pkh = vec![0x76, 0xa9, 20];
    p2pkh.resize(23, 4);
    p2pkh.extend([0x88, 0xac]);
    let coin = lab.coin_of(1_000_000, ScriptBuf::from_bytes(p2pkh), 5, false);
    let tx = lab.build(&[coin], 1, 1_000, bad);
    assert_eq!(lab.refuse(&tx).class, RejectClass::NotStandard);
}

#[test]
fn the_judge_decides_first() {
    struct Strict;
    impl crate::TxJudge for Strict {
        fn check(&self, _raw: &[u8]) -> Result<(), String> {
            Err("bad-txns-of-the-kernel".to_owned())
        }
        fn verify(
            &self,
            _raw: &[u8],
            _spent: &[pulse_primitives::bitcoin::TxOut],
        ) -> Result<(), crate::ScriptFailure> {
            Ok(())
        }
    }
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let tx = lab.build(&[coin], 1, 1_000, |tx| tx.version = Version(9));
    let options = crate::AcceptOptions::default();
    let result = lab.pool.accept(&tx, &lab.coins, &Strict, lab.now, options);
    let Err(crate::AcceptError::Rejected(rejected)) = result else {
        panic!("{result:?}");
    };
    assert_eq!(rejected.reason, "bad-txns-of-the-kernel");
    assert_eq!(rejected.class, RejectClass::Consensus);
}

#[test]
fn unspendable_outputs_have_no_history() {
    use pulse_primitives::mempool::MempoolView;
    let mut lab = Lab::new();
    let coin = lab.coin(1_000_000);
    let data = ScriptBuf::from_bytes(vec![0x6a, 1, 1]);
    let tx = lab.build(&[coin], 2, 1_000, |tx| {
        tx.output[0] = output(0, data.clone());
    });
    lab.accept(&tx);
    let hash = pulse_primitives::mempool::ScriptHash::hash(data.as_bytes());
    assert!(lab.pool.view().script_txs(&hash, 1).is_empty());
}
