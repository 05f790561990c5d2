//! A transaction in the mempool.

use std::sync::Arc;

use bitcoin::{Amount, Transaction, TxOut, Txid, Wtxid, hashes::Hash};
use pulse_primitives::{Height, bitcoin, mempool::MempoolTx};

use super::{scripts::ScriptSlot, table::Spend};
use crate::{cluster::Slot, feerate::FeeFrac, memory, policy::locks::LockPoints};

/// A transaction in the mempool, with what acceptance found out about it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The transaction.
    pub tx: Arc<Transaction>,
    /// Its id.
    pub txid: Txid,
    /// Its id with witnesses.
    pub wtxid: Wtxid,
    /// The output that each input spends, in order.
    pub prevouts: Arc<[TxOut]>,
    /// Inputs minus outputs.
    pub fee: Amount,
    /// Weight, in weight units.
    pub weight: u64,
    /// Weight as policy sees it: more than `weight` for many signature operations. The
    /// size that chunks are made of.
    pub adjusted_weight: u64,
    /// `adjusted_weight` in vB.
    pub vsize: u64,
    /// Cost of its signature operations (BIP 141).
    pub sigop_cost: u32,
    /// When it was accepted, in seconds since 1970.
    pub time: u64,
    /// Height of the block that the mempool built upon then.
    pub height: Height,
    /// Counts acceptances: orders transactions by arrival.
    pub sequence: u64,
    /// What the ages of its inputs forbid.
    pub locks: LockPoints,
    /// Whether it spends a coinbase.
    pub spends_coinbase: bool,
    /// Whether it was submitted here, and not yet seen back from the network.
    pub local: bool,
    pub(crate) bytes: usize,
    /// Of its outputs and of those that it spends, in order.
    pub(crate) scripts: Box<[ScriptSlot]>,
}

impl Entry {
    /// As the rest of the program sees it.
    #[must_use]
    pub fn to_mempool_tx(&self) -> MempoolTx {
        MempoolTx {
            tx: Arc::clone(&self.tx),
            txid: self.txid,
            wtxid: self.wtxid,
            prevouts: Arc::clone(&self.prevouts),
            fee: self.fee,
            weight: self.weight,
            vsize: self.vsize,
            sigop_cost: self.sigop_cost,
            time: self.time,
            sequence: self.sequence,
        }
    }

    /// Fee in sat over adjusted weight.
    #[must_use]
    pub fn rate(&self) -> FeeFrac {
        rate(self.fee, self.adjusted_weight)
    }

    /// Memory of the entry and of its places in the indexes, scripts and clusters apart.
    pub(crate) fn measure(tx: &Transaction, prevouts: &[TxOut]) -> usize {
        memory::transaction(tx)
            + memory::outputs(prevouts)
            + memory::in_vec::<Option<Self>>(1)
            + memory::in_table::<(u32, Slot)>(2)
            + memory::in_table::<(u32, Spend)>(tx.input.len())
            + memory::allocation(size_of::<ScriptSlot>() * (tx.output.len() + prevouts.len()))
            + memory::in_tree::<(u64, Slot)>(2)
    }
}

pub(crate) fn rate(fee: Amount, adjusted_weight: u64) -> FeeFrac {
    let signed = |value: u64| i64::try_from(value).expect("money and weight are far below 2^63");
    FeeFrac::new(signed(fee.to_sat()), signed(adjusted_weight))
}

/// The first bytes of an id, as a number that sorts like the id.
pub(crate) fn tie(txid: &Txid) -> u64 {
    let bytes = txid.to_byte_array();
    bytes[..8].iter().fold(0, |n, &b| n << 8 | u64::from(b))
}
