//! What can be computed of a block before its place in the index is known: keyed
//! hashes. The expensive part, done where blocks are loaded.

use std::mem::size_of;

use pulse_primitives::{
    Height,
    bitcoin::{BlockHash, Transaction, TxIn, TxOut},
    block::{ConnectedBlock, SpentOutput},
};

use crate::{
    keys::{Keys, ScriptKey, is_unspendable},
    rows::filter,
};

/// What the system's allocator adds to a small allocation, about.
const ALLOCATION: usize = 16;

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
        let output_scripts = txs
            .iter()
            .flat_map(|tx| &tx.output)
            .map(|output| {
                let script = &output.script_pubkey;
                (!is_unspendable(script)).then(|| keys.script(script))
            })
            .collect();
        let spent_scripts = connected
            .spent
            .iter()
            .flatten()
            .map(|spent| keys.script(&spent.output.script_pubkey))
            .collect();
        Ok(Self {
            hash: connected.block.block_hash(),
            tx_hashes: connected.txids.iter().map(|txid| keys.txid(txid)).collect(),
            output_scripts,
            spent_scripts,
            filter: with_filter.then(|| filter::build(&connected.block, &connected.spent)),
            connected,
        })
    }

    /// Memory that the block takes, in bytes, as far as it grows with what is in it.
    pub(crate) fn memory_bytes(&self) -> usize {
        let connected = &self.connected;
        let inputs = connected.block.txdata.iter().flat_map(|tx| &tx.input);
        let inputs = inputs.map(|input| {
            let witness = input.witness.size() + size_of::<u32>() * input.witness.len();
            size_of::<TxIn>() + ALLOCATION + input.script_sig.len() + witness
        });
        let script = |output: &TxOut| ALLOCATION + output.script_pubkey.len();
        let outputs = connected.block.txdata.iter().flat_map(|tx| &tx.output);
        let outputs = outputs.map(|output| size_of::<TxOut>() + script(output));
        let spent = connected.spent.iter().flatten();
        let spent = spent.map(|spent| size_of::<SpentOutput>() + script(&spent.output));
        let txs = self.tx_hashes.len() * (size_of::<Transaction>() + 64);
        let keys = 16 * self.output_scripts.len() + 8 * self.spent_scripts.len();
        let filter = self.filter.as_ref().map_or(0, Vec::len);
        let parts = inputs.sum::<usize>() + outputs.sum::<usize>() + spent.sum::<usize>();
        parts + txs + keys + filter + connected.undo.len()
    }
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
