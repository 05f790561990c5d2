//! The sorts of cases, and the mempool that they meet.

use bitcoin::{OutPoint, ScriptBuf, Transaction};
use rand::{Rng, seq::SliceRandom};

use super::{
    Case, Coin, Draft, TxGen,
    faults::{self, FAULTS},
    lock::push,
    sign::{OpenFault, SigFault},
};

const SIG_FAULTS: &[SigFault] = &[
    SigFault::Corrupt,
    SigFault::WrongKey,
    SigFault::Empty,
    SigFault::HighS,
    SigFault::Padded,
    SigFault::UndefinedHashType,
    SigFault::HashNone,
    SigFault::HashSingleAnyone,
];
const OPEN_FAULTS: &[OpenFault] = &[
    OpenFault::WidePush,
    OpenFault::NotPushOnly,
    OpenFault::ExtraItem,
    OpenFault::MissingItem,
    OpenFault::StrayWitness,
    OpenFault::NoWitness,
    OpenFault::StrayScriptSig,
    OpenFault::Annex,
    OpenFault::WrongScript,
];
/// Fee rates around every threshold, in sat per 1000 vB.
const FEE_RATES: &[u64] = &[
    0, 50, 99, 100, 101, 200, 1_000, 1_000, 5_000, 20_000, 100_000,
];

/// A case of any sort.
pub(super) fn next(txgen: &mut TxGen) -> Case {
    match txgen.rng.gen_range(0..100) {
        0..22 => plain(txgen),
        22..36 => sig_fault(txgen),
        36..48 => open_fault(txgen),
        48..68 => structure(txgen),
        68..78 => unusual(txgen),
        78..84 => child_of_pool(txgen),
        84..94 => replacement(txgen),
        _ => package(txgen),
    }
}

fn any_draft(txgen: &mut TxGen) -> Draft {
    let count = *[1, 1, 1, 2, 2, 3]
        .choose(&mut txgen.rng)
        .expect("not empty");
    let coins = txgen.usual_coins(count);
    let version = *[1, 2, 2, 2, 3].choose(&mut txgen.rng).expect("not empty");
    let relative = coins.iter().any(|coin| coin.lock.lock_blocks.is_some());
    let draft = txgen.draft(if relative { version.max(2) } else { version }, coins);
    with_outputs(txgen, draft)
}

fn with_outputs(txgen: &mut TxGen, mut draft: Draft) -> Draft {
    let others = txgen.rng.gen_range(0..3);
    let change = txgen.any_usual_lock().script_pubkey(&txgen.keys);
    draft.change_to(change);
    for _ in 0..others {
        let script = txgen.any_usual_lock().script_pubkey(&txgen.keys);
        let sat = txgen.rng.gen_range(1_000..20_000);
        draft.pay(script, sat);
    }
    draft
}

fn any_rate(txgen: &mut TxGen) -> u64 {
    *FEE_RATES.choose(&mut txgen.rng).expect("not empty")
}

fn good_rate(txgen: &mut TxGen) -> u64 {
    txgen.rng.gen_range(1_000..20_000)
}

fn plain(txgen: &mut TxGen) -> Case {
    let draft = any_draft(txgen);
    let rate = any_rate(txgen);
    let name = format!(
        "plain {} v{} at {rate}",
        draft.coins[0].lock.name, draft.tx.version.0
    );
    one(name, draft.finish(&txgen.keys, rate))
}

fn sig_fault(txgen: &mut TxGen) -> Case {
    let mut draft = any_draft(txgen);
    draft.sig = *SIG_FAULTS.choose(&mut txgen.rng).expect("not empty");
    let rate = good_rate(txgen);
    let name = format!("signature {:?} {}", draft.sig, draft.coins[0].lock.name);
    one(name, draft.finish(&txgen.keys, rate))
}

fn open_fault(txgen: &mut TxGen) -> Case {
    let mut draft = any_draft(txgen);
    draft.open = *OPEN_FAULTS.choose(&mut txgen.rng).expect("not empty");
    let rate = good_rate(txgen);
    let name = format!("opening {:?} {}", draft.open, draft.coins[0].lock.name);
    let mut tx = draft.finish(&txgen.keys, rate);
    if txgen.rng.gen_ratio(1, 20) {
        faults::strip(&mut tx);
        return one(format!("{name}, stripped"), tx);
    }
    one(name, tx)
}

fn structure(txgen: &mut TxGen) -> Case {
    let mut draft = any_draft(txgen);
    let fault = *FAULTS.choose(&mut txgen.rng).expect("not empty");
    let after = faults::apply(txgen, &mut draft, fault);
    let rate = match fault {
        "dust-free" | "two-dust-free" | "dust-p2a-free" => 0,
        _ => good_rate(txgen),
    };
    // Sums that do not fit are left as they are.
    if fault.starts_with("value-") || fault == "more-out-than-in" {
        draft.change = None;
    }
    let mut tx = draft.finish(&txgen.keys, rate);
    after(&mut tx);
    one(format!("structure {fault}"), tx)
}

fn unusual(txgen: &mut TxGen) -> Case {
    let coin = txgen
        .unusual
        .choose(&mut txgen.rng)
        .expect("funded")
        .clone();
    let name = format!("lock {}", coin.lock.name);
    let mut coins = vec![coin];
    if txgen.rng.gen_ratio(1, 3) {
        coins.push(txgen.usual_coin());
    }
    let relative = coins.iter().any(|coin| coin.lock.lock_blocks.is_some());
    let version = if relative {
        2
    } else {
        txgen.rng.gen_range(1..=2)
    };
    let draft = txgen.draft(version, coins);
    let draft = with_outputs(txgen, draft);
    let rate = good_rate(txgen);
    one(name, draft.finish(&txgen.keys, rate))
}

fn child_of_pool(txgen: &mut TxGen) -> Case {
    let from_truc = txgen.rng.gen_ratio(2, 5);
    let source = if from_truc { &txgen.truc } else { &txgen.pool };
    let count = *[1, 1, 1, 2].choose(&mut txgen.rng).expect("not empty");
    let mut coins: Vec<Coin> = source
        .choose_multiple(&mut txgen.rng, count)
        .cloned()
        .collect();
    if txgen.rng.gen_ratio(1, 4) {
        coins.push(txgen.usual_coin());
    }
    let version = *[2, 3, 3].choose(&mut txgen.rng).expect("not empty");
    let draft = txgen.draft(version, coins);
    let mut draft = with_outputs(txgen, draft);
    if txgen.rng.gen_ratio(1, 3) {
        let len = txgen.rng.gen_range(600..1_200);
        draft.pay(ScriptBuf::new_op_return(push(vec![1; len])), 0);
    }
    let rate = any_rate(txgen);
    let name = format!(
        "child v{version} of {}",
        if from_truc { "TRUC" } else { "the pool" }
    );
    one(name, draft.finish(&txgen.keys, rate))
}

fn replacement(txgen: &mut TxGen) -> Case {
    let count = *[1, 1, 1, 1, 2, 4]
        .choose(&mut txgen.rng)
        .expect("not empty");
    let taken: Vec<_> = txgen
        .taken
        .choose_multiple(&mut txgen.rng, count)
        .cloned()
        .collect();
    let (old_rate, version) = (
        taken[0].2,
        *[2, 2, 2, 3].choose(&mut txgen.rng).expect("not empty"),
    );
    let mut coins: Vec<Coin> = taken.into_iter().map(|(coin, ..)| coin).collect();
    if txgen.rng.gen_ratio(1, 4) {
        coins.push(txgen.usual_coin());
    }
    if txgen.rng.gen_ratio(1, 5)
        && let Some(coin) = txgen.pool.choose(&mut txgen.rng)
    {
        coins.push(coin.clone());
    }
    let draft = txgen.draft(version, coins);
    let mut draft = with_outputs(txgen, draft);
    if txgen.rng.gen_ratio(1, 4) {
        let len = txgen.rng.gen_range(100..5_000);
        draft.pay(ScriptBuf::new_op_return(push(vec![1; len])), 0);
    }
    let rate = match txgen.rng.gen_range(0..7) {
        0 => old_rate / 2,
        1 => old_rate,
        2 => old_rate + 50,
        3 => old_rate + 100,
        4 => old_rate * 2,
        5 => old_rate * 5,
        _ => old_rate * 40,
    };
    one(
        format!("replacement of {count} v{version}"),
        draft.finish(&txgen.keys, rate),
    )
}

/// Transactions that build upon each other, tested together.
fn package(txgen: &mut TxGen) -> Case {
    let version = *[2, 2, 3].choose(&mut txgen.rng).expect("not empty");
    let coin = txgen.usual_coin();
    let relative = coin.lock.lock_blocks.is_some();
    let parent = txgen.draft(if relative { version.max(2) } else { version }, vec![coin]);
    let (parent, lock) = with_spendable_change(txgen, parent);
    let parent_rate = any_rate(txgen);
    let parent = parent.finish(&txgen.keys, parent_rate);
    let mut coin = change_of(&parent, lock);
    let mut txs = vec![parent];
    let length = txgen.rng.gen_range(1..4);
    for _ in 0..length {
        let child = txgen.draft(version, vec![coin.clone()]);
        let (child, lock) = with_spendable_change(txgen, child);
        let rate = any_rate(txgen);
        let child = child.finish(&txgen.keys, rate);
        coin = change_of(&child, lock);
        txs.push(child);
    }
    if txgen.rng.gen_ratio(1, 10) {
        txs.reverse();
    }
    if txgen.rng.gen_ratio(1, 15) {
        txs.push(txs[0].clone());
    }
    Case {
        name: format!("package v{version} of {}", txs.len()),
        txs,
    }
}

/// The change goes to a lock that can be spent at once.
fn with_spendable_change(txgen: &mut TxGen, mut draft: Draft) -> (Draft, super::Lock) {
    let name = *["p2wpkh", "p2tr-key", "p2wsh-multisig", "p2pkh", "p2tr-leaf"]
        .choose(&mut txgen.rng)
        .expect("not empty");
    let lock = txgen.lock_named(name);
    draft.change_to(lock.script_pubkey(&txgen.keys));
    (draft, lock)
}

fn change_of(tx: &Transaction, lock: super::Lock) -> Coin {
    Coin {
        lock,
        outpoint: OutPoint::new(tx.compute_txid(), 0),
        value: tx.output[0].value,
    }
}

fn one(name: String, tx: Transaction) -> Case {
    Case {
        name,
        txs: vec![tx],
    }
}

/// See [`TxGen::prelude`].
pub(super) fn prelude(txgen: &mut TxGen) -> Vec<Transaction> {
    let mut txs = Vec::new();
    // Parents with several outputs, plain and TRUC.
    for number in 0..60 {
        let version = if number % 3 == 0 { 3 } else { 2 };
        let rate = txgen.rng.gen_range(1_000..10_000);
        let coin = txgen.take_usual();
        spend(txgen, &mut txs, version, coin, 3, rate);
    }
    // Chains of increasing length.
    for length in [2, 5, 12, 24] {
        let coin = txgen.take_usual();
        let mut next = spend(txgen, &mut txs, 2, coin, 1, 2_000);
        for _ in 1..length {
            let coin = take_pool(txgen, &next[0]);
            next = spend(txgen, &mut txs, 2, coin, 1, 1_000);
        }
    }
    // A parent with so many children that a few more fill its cluster.
    let coin = txgen.take_usual();
    let outputs = spend(txgen, &mut txs, 2, coin, 70, 1_500);
    for output in &outputs[..61] {
        let coin = take_pool(txgen, output);
        let rate = txgen.rng.gen_range(500..8_000);
        spend(txgen, &mut txs, 2, coin, 1, rate);
    }
    // TRUC children, so that others come as siblings.
    for _ in 0..6 {
        let index = txgen.rng.gen_range(0..txgen.truc.len());
        let coin = txgen.truc.swap_remove(index);
        txgen
            .truc
            .retain(|other| other.outpoint.txid != coin.outpoint.txid || txs.len() % 2 == 0);
        spend_truc_child(txgen, &mut txs, coin);
    }
    txs
}

fn spend_truc_child(txgen: &mut TxGen, txs: &mut Vec<Transaction>, coin: Coin) {
    let draft = txgen.draft(3, vec![coin.clone()]);
    let (draft, lock) = with_spendable_change(txgen, draft);
    let tx = draft.finish(&txgen.keys, 3_000);
    txgen.truc.push(change_of(&tx, lock));
    txgen.taken.push((coin, tx.compute_txid(), 3_000));
    // Not a second child of the same parent, which would replace the first, and not a
    // grandchild, which TRUC forbids.
    let is_grandchild = parents(txs, &tx).any(|parent| parents(txs, parent).next().is_some());
    if !is_grandchild && !txs.iter().any(|other| shares_parent(other, &tx)) {
        txs.push(tx);
    }
}

/// Those of `txs` that `tx` spends outputs of.
fn parents<'a>(
    txs: &'a [Transaction],
    tx: &'a Transaction,
) -> impl Iterator<Item = &'a Transaction> {
    txs.iter().filter(|parent| {
        let txid = parent.compute_txid();
        tx.input
            .iter()
            .any(|input| input.previous_output.txid == txid)
    })
}

fn shares_parent(a: &Transaction, b: &Transaction) -> bool {
    a.version.0 == 3
        && a.input.iter().any(|input| {
            b.input
                .iter()
                .any(|other| other.previous_output.txid == input.previous_output.txid)
        })
}

fn take_pool(txgen: &mut TxGen, outpoint: &OutPoint) -> Coin {
    let index = txgen
        .pool
        .iter()
        .position(|coin| coin.outpoint == *outpoint)
        .expect("an output of the pool");
    txgen.pool.swap_remove(index)
}

/// A transaction for the prelude with `outputs` equal outputs; where they are.
fn spend(
    txgen: &mut TxGen,
    txs: &mut Vec<Transaction>,
    version: i32,
    coin: Coin,
    outputs: usize,
    rate: u64,
) -> Vec<OutPoint> {
    let lock = txgen.lock_named("p2wpkh");
    let script = lock.script_pubkey(&txgen.keys);
    let mut draft = txgen.draft(version, vec![coin.clone()]);
    draft.change_to(script.clone());
    let each = coin.value.to_sat() / (outputs as u64 + 1);
    for _ in 1..outputs {
        draft.pay(script.clone(), each);
    }
    let tx = draft.finish(&txgen.keys, rate);
    let txid = tx.compute_txid();
    let coins = tx.output.iter().zip(0..).map(|(output, vout)| Coin {
        lock: lock.clone(),
        outpoint: OutPoint::new(txid, vout),
        value: output.value,
    });
    if version == 3 {
        &mut txgen.truc
    } else {
        &mut txgen.pool
    }
    .extend(coins);
    txgen.taken.push((coin, txid, rate));
    txs.push(tx);
    (0..u32::try_from(outputs).expect("few"))
        .map(|vout| OutPoint::new(txid, vout))
        .collect()
}
