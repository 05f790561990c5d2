use pulse_primitives::{
    bitcoin::{Amount, hashes::Hash},
    mempool::{MempoolView, ScriptHash},
};

use crate::{
    AcceptOptions, persist,
    testing::{Lab, NOW, out, script},
};

fn hash(n: u32) -> ScriptHash {
    ScriptHash::hash(script(n).as_bytes())
}

#[test]
fn a_script_knows_its_unspent_and_its_spent_outputs() {
    let mut lab = Lab::new();
    let coin = lab.coin_of(500_000, script(77), 5, false);
    let tx = lab.build(&[coin], 2, 1_000, |tx| {
        for output in &mut tx.output {
            output.script_pubkey = script(77);
        }
    });
    lab.accept(&tx);
    let child = lab.spend(&[out(&tx, 0)], 1, 1_000);
    lab.accept(&child);
    let view = lab.pool.view();
    let totals = view.script_totals(&hash(77));
    assert_eq!((totals.tx_count, totals.funded_count), (2, 2));
    assert_eq!(totals.funded_sat, 499_000);
    assert_eq!((totals.spent_count, totals.spent_sat), (2, 749_500));
    let outputs = view.script_outputs(&hash(77));
    assert_eq!(outputs.unspent, [(out(&tx, 1), Amount::from_sat(249_500))]);
    assert_eq!(
        outputs.spent,
        [coin],
        "unconfirmed ones are not of the chain"
    );
    let txs = view.script_txs(&hash(77), 10);
    let txids: Vec<_> = txs.iter().map(|tx| tx.txid).collect();
    assert_eq!(txids, [tx.compute_txid(), child.compute_txid()]);
    assert_eq!(view.script_txs(&hash(77), 1).len(), 1);
    assert!(view.has_unconfirmed_parents(&child.compute_txid()));
    assert!(!view.has_unconfirmed_parents(&tx.compute_txid()));
    assert_eq!(view.spender(&coin), Some((tx.compute_txid(), 0)));
}

#[test]
fn recent_are_the_newest_first() {
    let mut lab = Lab::new();
    let txids: Vec<_> = (0..3).map(|_| lab.single(1_000).compute_txid()).collect();
    let recent: Vec<_> = lab.pool.view().recent(2).iter().map(|t| t.txid).collect();
    assert_eq!(recent, [txids[2], txids[1]]);
    assert_eq!(lab.pool.view().txids(), txids);
}

#[test]
fn what_is_saved_is_read_back_and_accepted_with_its_time() {
    let mut lab = Lab::new();
    let parent = lab.single(1_000);
    lab.pool.set_local(&parent.compute_txid(), true);
    lab.now += 50;
    let child = lab.spend(&[out(&parent, 0)], 1, 1_000);
    lab.accept(&child);
    let mut file = Vec::new();
    persist::dump(&lab.pool.saved(), &mut file).unwrap();
    lab.pool.set_tip(lab.pool.tip(), NOW);
    assert!(lab.pool.is_empty());
    for saved in persist::load(&mut &file[..]).unwrap() {
        let options = AcceptOptions {
            time: Some(saved.time),
            local: saved.local,
            ..AcceptOptions::default()
        };
        lab.try_accept(&saved.tx.into(), options).unwrap();
    }
    let entries: Vec<_> = lab.pool.iter().map(|e| (e.txid, e.time, e.local)).collect();
    let expected = [
        (parent.compute_txid(), NOW, true),
        (child.compute_txid(), NOW + 50, false),
    ];
    assert_eq!(entries, expected);
}

#[test]
fn a_damaged_file_is_refused() {
    let mut lab = Lab::new();
    lab.single(1_000);
    let mut file = Vec::new();
    persist::dump(&lab.pool.saved(), &mut file).unwrap();
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 1;
        assert!(persist::load(&mut &damaged[..]).is_err(), "byte {at}");
    }
    assert!(persist::load(&mut &file[..file.len() - 1]).is_err());
    assert!(persist::load(&mut &file[..]).is_ok());
}

#[test]
fn memory_returns_to_the_start_when_all_are_gone() {
    let mut lab = Lab::new();
    assert_eq!(lab.pool.usage_bytes(), 0);
    let parent = lab.single(1_000);
    let child = lab.spend(&[out(&parent, 0)], 3, 1_000);
    lab.accept(&child);
    lab.single(500);
    assert!(lab.pool.usage_bytes() > 1_500);
    lab.pool.set_tip(lab.pool.tip(), NOW);
    assert_eq!(lab.pool.usage_bytes(), 0);
}
