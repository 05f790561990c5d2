//! What a package must look like.

use std::collections::HashSet;

use bitcoin::{Transaction, Txid};
use pulse_primitives::bitcoin;

/// Most transactions in a package.
pub const MAX_PACKAGE_TXS: usize = 25;
/// Most weight of a package of more than one transaction.
const MAX_PACKAGE_WEIGHT: u64 = 404_000;

/// Count, weight, order and conflicts (Bitcoin Core's `IsWellFormedPackage`).
///
/// # Errors
/// Bitcoin Core's reason.
pub fn check_well_formed<T: AsRef<Transaction>>(
    txs: &[T],
    txids: &[Txid],
) -> Result<(), &'static str> {
    if txs.len() > MAX_PACKAGE_TXS {
        return Err("package-too-many-transactions");
    }
    let weight: u64 = txs.iter().map(|tx| tx.as_ref().weight().to_wu()).sum();
    if txs.len() > 1 && weight > MAX_PACKAGE_WEIGHT {
        return Err("package-too-large");
    }
    let mut later: HashSet<Txid> = txids.iter().copied().collect();
    if later.len() != txs.len() {
        return Err("package-contains-duplicates");
    }
    for (tx, txid) in txs.iter().zip(txids) {
        let mut inputs = tx.as_ref().input.iter();
        if inputs.any(|input| later.contains(&input.previous_output.txid)) {
            return Err("package-not-sorted");
        }
        later.remove(txid);
    }
    let mut spent = HashSet::new();
    for tx in txs {
        let inputs = &tx.as_ref().input;
        let outpoints = inputs.iter().map(|input| input.previous_output);
        // An output that one transaction spends twice is that transaction's own fault.
        let clash = outpoints.clone().any(|outpoint| spent.contains(&outpoint));
        if inputs.is_empty() || clash {
            return Err("conflict-in-package");
        }
        spent.extend(outpoints);
    }
    Ok(())
}

/// Whether the last transaction spends from each other one.
#[must_use]
pub fn is_child_with_parents<T: AsRef<Transaction>>(txs: &[T], txids: &[Txid]) -> bool {
    let (Some(child), [parents @ .., _]) = (txs.last(), txids) else {
        return false;
    };
    let inputs = child.as_ref().input.iter();
    let spent: HashSet<Txid> = inputs.map(|input| input.previous_output.txid).collect();
    !parents.is_empty() && parents.iter().all(|txid| spent.contains(txid))
}

/// Whether it is a child with its parents, none of which depends on another.
#[must_use]
pub fn is_child_with_parents_tree<T: AsRef<Transaction>>(txs: &[T], txids: &[Txid]) -> bool {
    if !is_child_with_parents(txs, txids) {
        return false;
    }
    let count = txs.len() - 1;
    let parents: HashSet<&Txid> = txids[..count].iter().collect();
    txs[..count].iter().all(|tx| {
        let mut inputs = tx.as_ref().input.iter();
        !inputs.any(|input| parents.contains(&input.previous_output.txid))
    })
}
