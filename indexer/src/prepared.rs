//! What can be computed of a block before its place in the index is known: keyed
//! hashes. The expensive part, done where blocks are loaded.

use std::mem::size_of;

use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, Transaction, TxOut},
    block::{ConnectedBlock, SpentOutput},
};

use crate::{
    keys::{Keys, ScriptKey, is_unspendable},
    rows::filter,
};

/// A connected block with its keyed hashes.
pub(crate) struct Prepared {
    /// The block as the source gave it.
    pub connected: ConnectedBlock,
    /// Its hash.
    pub hash: BlockHash,
    /// Keyed hash of each txid.
    pub tx_hashes: Vec<u64>,
    /// Key of each output's script in block order; `None` if it can never be spent.
    pub output_scripts: Vec<Option<ScriptKey>>,
    /// Key of each spent output's script, in block order.
    pub spent_scripts: Vec<ScriptKey>,
    /// Its compact filter, if one was asked for.
    pub filter: Option<Vec<u8>>,
}

/// The parts of a connected block do not fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("block at height {height} is inconsistent: {what}")]
pub struct Inconsistent {
    /// Height of the block.
    pub height: Height,
    /// What does not fit.
    pub what: &'static str,
}

impl Prepared {
    /// Computes the keyed hashes of `connected`, and its filter if asked for.
    ///
    /// # Errors
    /// [`Inconsistent`] if lengths or counts of the block's parts differ.
    pub(crate) fn new(
        connected: ConnectedBlock,
        keys: &Keys,
        with_filter: bool,
    ) -> Result<Self, Inconsistent> {
        check(&connected).map_err(|what| Inconsistent {
            height: connected.height,
            what,
        })?;
        let txs = &connected.block.txdata;
        let mut output_scripts = Vec::with_capacity(txs.iter().map(|tx| tx.output.len()).sum());
        output_scripts.extend(txs.iter().flat_map(|tx| &tx.output).map(|output| {
            let script = &output.script_pubkey;
            (!is_unspendable(script)).then(|| keys.script(script))
        }));
        let spent = &connected.spent;
        let mut spent_scripts = Vec::with_capacity(spent.iter().map(Vec::len).sum());
        let scripts = spent
            .iter()
            .flatten()
            .map(|spent| &spent.output.script_pubkey);
        spent_scripts.extend(scripts.map(|script| keys.script(script)));
        Ok(Self {
            hash: connected.block.block_hash(),
            tx_hashes: connected.txids.iter().map(|txid| keys.txid(txid)).collect(),
            output_scripts,
            spent_scripts,
            filter: with_filter.then(|| filter::build(&connected.block, &connected.spent)),
            connected,
        })
    }

    /// Memory that the block takes, in bytes, with the room that decoding left in its lists.
    pub(crate) fn memory_bytes(&self) -> usize {
        let connected = &self.connected;
        let script = |output: &TxOut| allocation(output.script_pubkey.len());
        let tx = |tx: &Transaction| {
            let inputs = tx.input.iter().map(|input| {
                let witness = input.witness.size() + size_of::<u32>() * input.witness.len();
                allocation(input.script_sig.len()) + allocation(witness)
            });
            list(&tx.input)
                + inputs.sum::<usize>()
                + list(&tx.output)
                + tx.output.iter().map(script).sum::<usize>()
        };
        let spent = |spent: &Vec<SpentOutput>| {
            let scripts = spent.iter().map(|spent| script(&spent.output));
            list(spent) + scripts.sum::<usize>()
        };
        let txs = connected.block.txdata.iter().map(tx).sum::<usize>();
        txs + connected.spent.iter().map(spent).sum::<usize>()
            + list(&connected.block.txdata)
            + list(&connected.spent)
            + list(&connected.txids)
            + list(&connected.tx_lens)
            + list(&connected.undo_lens)
            + list(&connected.undo)
            + list(&self.tx_hashes)
            + list(&self.output_scripts)
            + list(&self.spent_scripts)
            + self.filter.as_ref().map_or(0, list)
    }
}

/// What so many bytes take of the system's allocator, about.
fn allocation(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        bytes => (bytes + 8).next_multiple_of(16).max(32),
    }
}

/// What a list takes, without what its items own.
fn list<T>(items: &Vec<T>) -> usize {
    allocation(items.capacity() * size_of::<T>())
}

fn check(block: &ConnectedBlock) -> Result<(), &'static str> {
    let txs = &block.block.txdata;
    if txs.is_empty() || u32::try_from(txs.len()).is_err() {
        return Err("number of transactions");
    }
    if block.txids.len() != txs.len() {
        return Err("number of txids");
    }
    if block.tx_lens.len() != txs.len() {
        return Err("number of transaction lengths");
    }
    if block.spent.len() != txs.len() - 1 || block.undo_lens.len() != block.spent.len() {
        return Err("number of undo entries");
    }
    if block
        .spent
        .iter()
        .zip(&txs[1..])
        .any(|(spent, tx)| spent.len() != tx.input.len())
    {
        return Err("number of spent outputs");
    }
    let end = |offset: u32, lens: &[u32]| {
        lens.iter()
            .try_fold(offset, |end, len| end.checked_add(*len))
    };
    if end(block.first_tx_offset, &block.tx_lens).is_none_or(|end| end > block.position.block_len) {
        return Err("transaction lengths");
    }
    let undo_len = u32::try_from(block.undo.len()).unwrap_or(u32::MAX);
    if end(block.first_undo_offset, &block.undo_lens).is_none_or(|end| end > undo_len) {
        return Err("undo lengths");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
