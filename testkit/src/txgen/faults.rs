//! What can be wrong with a transaction's structure, amounts and locks.

use bitcoin::{
    Amount, OutPoint, ScriptBuf, Sequence, Transaction, Txid, Witness, absolute::LockTime,
    hashes::Hash, opcodes::all as op, script::Builder, transaction::Version,
};
use rand::{Rng, seq::SliceRandom};

use super::{Draft, TxGen, lock::push};

/// Structural faults, and things at the edge that are none.
pub(super) const FAULTS: &[&str] = &[
    "version-0",
    "version-4",
    "version-negative",
    "no-outputs",
    "value-negative",
    "value-too-large",
    "value-sum-too-large",
    "input-twice",
    "null-prevout",
    "coinbase",
    "coinbase-short-script",
    "unknown-input",
    "unknown-vout",
    "spent-input",
    "immature-input",
    "more-out-than-in",
    "dust",
    "dust-free",
    "two-dust-free",
    "dust-p2a-free",
    "op-return",
    "two-op-returns",
    "op-return-83-bytes",
    "op-return-100k",
    "op-return-over-100k",
    "op-return-not-push",
    "strange-output",
    "empty-output-script",
    "multisig-1-of-3-output",
    "multisig-1-of-4-output",
    "multisig-bad-key-output",
    "witness-unknown-output",
    "witness-41-output",
    "anchor-output",
    "p2sh-output-odd-length",
    "lock-time-next",
    "lock-time-future",
    "lock-time-future-but-final",
    "lock-time-seconds-past",
    "lock-time-seconds-future",
    "relative-blocks-met",
    "relative-blocks-unmet",
    "relative-seconds-unmet",
    "relative-disabled",
    "relative-version-1",
    "tiny",
    "long-script-sig",
    "oversized",
    "sigops-many",
    "truc-large",
    "burn",
    "fee-huge",
    "op-return-only",
];

/// Makes `draft` so, and gives what is to be done after signing.
pub(super) fn apply(txgen: &mut TxGen, draft: &mut Draft, fault: &str) -> fn(&mut Transaction) {
    let first = |draft: &mut Draft, sat: u64| draft.tx.output[0].value = Amount::from_sat(sat);
    let wpkh = txgen.coinbase_script();
    let script = |bytes: &[u8]| ScriptBuf::from_bytes(bytes.to_vec());
    match fault {
        "version-0" => draft.tx.version = Version(0),
        "version-4" => draft.tx.version = Version(4),
        "version-negative" => draft.tx.version = Version(-1),
        "no-outputs" => {
            draft.tx.output.clear();
            draft.change = None;
        }
        "value-negative" => first(draft, u64::MAX),
        "value-too-large" => first(draft, Amount::MAX_MONEY.to_sat() + 1),
        "value-sum-too-large" => {
            first(draft, Amount::MAX_MONEY.to_sat());
            draft.pay(wpkh, 1);
        }
        "input-twice" => {
            draft.tx.input.push(draft.tx.input[0].clone());
            draft.coins.push(draft.coins[0].clone());
        }
        "null-prevout" => {
            let mut input = draft.tx.input[0].clone();
            input.previous_output = OutPoint::null();
            draft.tx.input.push(input);
            draft.coins.push(draft.coins[0].clone());
        }
        "coinbase" | "coinbase-short-script" => {
            draft.tx.input.truncate(1);
            draft.coins.truncate(1);
            draft.tx.input[0].previous_output = OutPoint::null();
            if fault == "coinbase" {
                return |tx| tx.input[0].script_sig = ScriptBuf::from_bytes(vec![1, 0]);
            }
            return |tx| tx.input[0].script_sig = ScriptBuf::from_bytes(vec![0]);
        }
        "unknown-input" => {
            draft.tx.input[0].previous_output.txid = Txid::from_byte_array(txgen.rng.r#gen());
        }
        "unknown-vout" => draft.tx.input[0].previous_output.vout += 100_000,
        "spent-input" => {
            if let Some(spent) = txgen.spent.choose(&mut txgen.rng) {
                draft.tx.input[0].previous_output = *spent;
            }
        }
        "immature-input" => {
            if let Some(coin) = txgen.immature.choose(&mut txgen.rng).cloned() {
                draft.tx.input[0].previous_output = coin.outpoint;
                draft.coins[0] = coin;
            }
        }
        "more-out-than-in" => {
            let sum = draft.input_sum();
            first(draft, sum + 1);
        }
        "dust" => draft.pay(wpkh, 100),
        "dust-free" | "two-dust-free" | "dust-p2a-free" => {
            let script = if fault == "dust-p2a-free" {
                script(&[0x51, 2, 0x4e, 0x73])
            } else {
                wpkh
            };
            draft.pay(script.clone(), 10);
            if fault == "two-dust-free" {
                draft.pay(script, 20);
            }
        }
        "op-return" => draft.pay(ScriptBuf::new_op_return(b"data"), 0),
        "op-return-only" => {
            draft.tx.output.clear();
            draft.change = None;
            draft.pay(ScriptBuf::new_op_return(push(vec![7; 40])), 0);
        }
        "two-op-returns" => {
            draft.pay(ScriptBuf::new_op_return(b"data"), 0);
            draft.pay(ScriptBuf::new_op_return(b"more"), 0);
        }
        "op-return-83-bytes" => draft.pay(ScriptBuf::new_op_return(push(vec![1; 80])), 0),
        "op-return-100k" => draft.pay(ScriptBuf::new_op_return(push(vec![1; 90_000])), 0),
        "op-return-over-100k" => {
            draft.pay(ScriptBuf::new_op_return(push(vec![1; 60_000])), 0);
            draft.pay(ScriptBuf::new_op_return(push(vec![1; 39_990])), 0);
        }
        "op-return-not-push" => draft.pay(script(&[0x6a, 0x6a]), 0),
        "strange-output" => draft.pay(script(&[op::OP_ADD.to_u8(), 0x51]), 5_000),
        "empty-output-script" => draft.pay(ScriptBuf::new(), 5_000),
        "multisig-1-of-3-output" | "multisig-1-of-4-output" | "multisig-bad-key-output" => {
            let of = if fault == "multisig-1-of-4-output" {
                4
            } else {
                3
            };
            let mut builder = Builder::new().push_int(1);
            for number in 0..of {
                builder = builder.push_key(&txgen.keys.public(number));
            }
            let builder = builder
                .push_int(of.into())
                .push_opcode(op::OP_CHECKMULTISIG);
            let mut bytes = builder.into_script().into_bytes();
            if fault == "multisig-bad-key-output" {
                bytes[2] = 5;
            }
            draft.pay(ScriptBuf::from_bytes(bytes), 5_000);
        }
        "witness-unknown-output" => {
            draft.pay(script(&[&[0x53, 0x20], [9; 32].as_slice()].concat()), 5_000)
        }
        "witness-41-output" => {
            draft.pay(script(&[&[0x52, 41], [9; 41].as_slice()].concat()), 5_000)
        }
        "anchor-output" => draft.pay(script(&[0x51, 2, 0x4e, 0x73]), 240),
        "p2sh-output-odd-length" => draft.pay(
            script(&[&[0xa9, 19], [9; 19].as_slice(), &[0x87]].concat()),
            5_000,
        ),
        "lock-time-next" => lock_time(draft, txgen.height),
        "lock-time-future" => lock_time(draft, txgen.height + 1),
        "lock-time-future-but-final" => {
            draft.tx.lock_time = LockTime::from_consensus(txgen.height + 50);
            draft
                .tx
                .input
                .iter_mut()
                .for_each(|input| input.sequence = Sequence::MAX);
        }
        "lock-time-seconds-past" => lock_time(draft, txgen.time - 1),
        "lock-time-seconds-future" => lock_time(draft, txgen.time + 1),
        "relative-blocks-met" => relative(draft, Sequence::from_height(2)),
        "relative-blocks-unmet" => relative(draft, Sequence::from_height(500)),
        "relative-seconds-unmet" => relative(draft, Sequence::from_512_second_intervals(60_000)),
        "relative-disabled" => relative(draft, Sequence(0x8000_ffff)),
        "relative-version-1" => {
            relative(draft, Sequence::from_height(500));
            draft.tx.version = Version(1);
        }
        "tiny" => {
            let anchor = txgen
                .unusual
                .iter()
                .find(|coin| coin.lock.name == "anchor")
                .cloned();
            if let Some(coin) = anchor {
                *draft = txgen.draft(2, vec![coin]);
                let script = if txgen.rng.r#gen() {
                    script(&[0x6a])
                } else {
                    script(&[0x6a, 3, 1, 2, 3])
                };
                draft.pay(script, 0);
            }
        }
        "long-script-sig" => {
            return |tx| {
                let mut bytes = tx.input[0].script_sig.to_bytes();
                for _ in 0..4 {
                    bytes.extend(Builder::new().push_slice(push(vec![7; 420])).into_bytes());
                }
                tx.input[0].script_sig = ScriptBuf::from_bytes(bytes);
            };
        }
        "oversized" => {
            for _ in 0..3_300 {
                draft.pay(wpkh.clone(), 0);
            }
        }
        "sigops-many" => {
            let script = Builder::new()
                .push_int(1)
                .push_key(&txgen.keys.public(0))
                .push_key(&txgen.keys.public(1))
                .push_int(2)
                .push_opcode(op::OP_CHECKMULTISIG)
                .into_script();
            let count = txgen.rng.gen_range(195..=205);
            draft.tx.output.clear();
            draft.change = None;
            for _ in 0..count {
                draft.pay(script.clone(), 800);
            }
        }
        "truc-large" => {
            draft.tx.version = Version(3);
            let len = txgen.rng.gen_range(9_000..11_000);
            draft.pay(ScriptBuf::new_op_return(push(vec![1; len])), 0);
        }
        "burn" => draft.pay(ScriptBuf::new_op_return(b"burnt"), 3_000),
        "fee-huge" => {
            draft.tx.output.truncate(1);
            draft.change = None;
            first(draft, 1_000);
        }
        other => panic!("no fault {other}"),
    }
    |_| {}
}

fn lock_time(draft: &mut Draft, value: u32) {
    draft.tx.lock_time = LockTime::from_consensus(value);
    for input in &mut draft.tx.input {
        input.sequence = Sequence::ENABLE_LOCKTIME_NO_RBF;
    }
}

fn relative(draft: &mut Draft, sequence: Sequence) {
    draft.tx.version = Version(2);
    draft.tx.input[0].sequence = sequence;
}

/// Removes all witnesses, as a node without them would send the transaction.
pub(super) fn strip(tx: &mut Transaction) {
    tx.input
        .iter_mut()
        .for_each(|input| input.witness = Witness::new());
}
