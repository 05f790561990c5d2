//! The rows of a block.

use pulse_primitives::{
    bitcoin::{
        Address, Network, Script, Transaction,
        hashes::{Hash, sha256},
    },
    block::{ConnectedBlock, SpentOutput},
};

use crate::table::{Cell, Table, TableError};

/// The three tables of a range of blocks.
pub(crate) struct Tables {
    pub(crate) blocks: Table,
    pub(crate) transactions: Table,
    pub(crate) address_events: Table,
}

impl Tables {
    /// Adds everything of a block.
    ///
    /// # Errors
    /// [`TableError`] if rows could not be written.
    pub(crate) fn add(
        &mut self,
        connected: &ConnectedBlock,
        network: Network,
    ) -> Result<(), TableError> {
        let ConnectedBlock { block, spent, .. } = connected;
        let height = int(connected.height);
        let mut fees = 0;
        for (position, tx) in block.txdata.iter().enumerate() {
            let txid = connected.txids[position].to_string();
            let spent: &[SpentOutput] = match position {
                0 => &[],
                _ => &spent[position - 1],
            };
            let place = (height, int(position), txid.as_str());
            let is_coinbase = position == 0;
            let value_out: i64 = tx.output.iter().map(|out| sats(out.value.to_sat())).sum();
            let value_in: i64 = spent
                .iter()
                .map(|out| sats(out.output.value.to_sat()))
                .sum();
            let fee = (!is_coinbase).then_some(value_in - value_out);
            fees += fee.unwrap_or_default();
            self.transactions.push([
                Cell::Int(height),
                Cell::Int(int(position)),
                Cell::Text(txid.clone()),
                Cell::Text(tx.compute_wtxid().to_string()),
                Cell::Flag(is_coinbase),
                Cell::Int(tx.version.0),
                Cell::Long(tx.lock_time.to_consensus_u32().into()),
                Cell::Long(connected.tx_lens[position].into()),
                Cell::Long(sats(tx.weight().to_wu())),
                Cell::Int(int(tx.input.len())),
                Cell::Int(int(tx.output.len())),
                Cell::from((!is_coinbase).then_some(value_in)),
                Cell::Long(value_out),
                Cell::from(fee),
            ])?;
            self.events(place, tx, spent, network)?;
        }
        let header = &block.header;
        self.blocks.push([
            Cell::Int(height),
            Cell::Text(block.block_hash().to_string()),
            Cell::Text(header.prev_blockhash.to_string()),
            Cell::Text(header.merkle_root.to_string()),
            Cell::Long(i64::from(header.time) * 1000),
            Cell::Int(header.version.to_consensus()),
            Cell::Long(header.bits.to_consensus().into()),
            Cell::Long(header.nonce.into()),
            Cell::Int(int(block.txdata.len())),
            Cell::Long(sats(block.total_size() as u64)),
            Cell::Long(sats(block.weight().to_wu())),
            Cell::Long(fees),
        ])
    }

    fn events(
        &mut self,
        (height, position, txid): (i32, i32, &str),
        tx: &Transaction,
        spent: &[SpentOutput],
        network: Network,
    ) -> Result<(), TableError> {
        for (index, (input, out)) in tx.input.iter().zip(spent).enumerate() {
            let script = &out.output.script_pubkey;
            self.address_events.push([
                Cell::Int(height),
                Cell::Int(position),
                Cell::Text(txid.to_owned()),
                Cell::Text("spent".to_owned()),
                Cell::Long(sats(index as u64)),
                Cell::Text(scripthash(script)),
                address(script, network),
                Cell::Long(-sats(out.output.value.to_sat())),
                Cell::Text(input.previous_output.txid.to_string()),
                Cell::Long(input.previous_output.vout.into()),
                Cell::Int(int(out.height)),
            ])?;
        }
        for (index, out) in tx.output.iter().enumerate() {
            self.address_events.push([
                Cell::Int(height),
                Cell::Int(position),
                Cell::Text(txid.to_owned()),
                Cell::Text("received".to_owned()),
                Cell::Long(sats(index as u64)),
                Cell::Text(scripthash(&out.script_pubkey)),
                address(&out.script_pubkey, network),
                Cell::Long(sats(out.value.to_sat())),
                Cell::Null,
                Cell::Null,
                Cell::Null,
            ])?;
        }
        Ok(())
    }
}

/// SHA-256 of a script, shown reversed, as Electrum names it.
fn scripthash(script: &Script) -> String {
    let mut hash = sha256::Hash::hash(script.as_bytes()).to_byte_array();
    hash.reverse();
    hex::encode(hash)
}

fn address(script: &Script, network: Network) -> Cell {
    match Address::from_script(script, network) {
        Ok(address) => Cell::Text(address.to_string()),
        Err(_) => Cell::Null,
    }
}

/// Heights and counts within a block: far below 2^31.
fn int(value: impl TryInto<i32>) -> i32 {
    value.try_into().unwrap_or(i32::MAX)
}

/// Amounts of a valid chain (at most 21 million coins), sizes and positions: far below 2^63.
fn sats(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
