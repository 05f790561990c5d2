//! What values take in memory, as the usual allocators give it out.
//!
//! # Correctness
//! Every estimate is a sum over the values that are held, so that it returns to where it
//! was when they are gone. Tables are therefore counted at a mean load rather than at
//! their capacity of the moment.

use bitcoin::{Transaction, TxOut};
use pulse_primitives::bitcoin;

/// Bytes that an allocation of `bytes` takes.
pub(crate) fn allocation(bytes: usize) -> usize {
    if bytes == 0 {
        return 0;
    }
    (bytes + 8).next_multiple_of(16).max(32)
}

/// Bytes of `count` entries in a hash table, which is between 7/16 and 7/8 full.
pub(crate) const fn in_table<T>(count: usize) -> usize {
    count * (size_of::<T>() + 1) * 3 / 2
}

/// Bytes of `count` entries in a B-tree, whose leaves are between 5/11 and all full.
pub(crate) const fn in_tree<T>(count: usize) -> usize {
    count * (size_of::<T>() + 4) * 3 / 2
}

/// Bytes of `count` entries in a vector that doubles when it is full.
pub(crate) const fn in_vec<T>(count: usize) -> usize {
    count * size_of::<T>() * 3 / 2
}

/// Bytes of a shared transaction, all its parts included, if these have no spare room.
pub(crate) fn transaction(tx: &Transaction) -> usize {
    let scripts = tx.input.iter().map(|input| {
        let witness = &input.witness;
        // Elements with their lengths in front, and four bytes of index each.
        let content = match witness.len() {
            0 => 0,
            items => witness.size() - bitcoin::VarInt(items as u64).size() + 4 * items,
        };
        allocation(input.script_sig.len()) + allocation(content)
    });
    let outputs = tx.output.iter().map(|o| allocation(o.script_pubkey.len()));
    allocation(size_of::<Transaction>() + 16)
        + allocation(size_of_val(&tx.input[..]))
        + allocation(size_of_val(&tx.output[..]))
        + scripts.sum::<usize>()
        + outputs.sum::<usize>()
}

/// Bytes of shared outputs.
pub(crate) fn outputs(outputs: &[TxOut]) -> usize {
    let scripts = outputs.iter().map(|o| allocation(o.script_pubkey.len()));
    allocation(size_of_val(outputs) + 16) + scripts.sum::<usize>()
}
